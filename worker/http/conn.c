#include "worker/http/exchange.h"
#include "common/clock.h"
#include "common/scoreboard.h"
#include "worker/http/access.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static void on_readable(struct net_conn *n);
static void on_drained(struct net_conn *n);
static void on_wrote(struct net_conn *n);
static void conn_run(struct http_conn *c);

static const struct net_ops ops = {on_readable, on_drained, on_wrote};

static struct http_conn *running; /* the one whose heads conn_run() is taking, one after the other */

static struct http_conn *conn_of(struct net_conn *n)
{
    return list_entry(n, struct http_conn, net);
}

/* ---- states ---- */

/* Idle, of a server that drains. What ends late in the drain gets no more of its time than there is. */
static void await_last_request(struct http_conn *c)
{
    struct http_server *s = server();
    int64_t window = s->lists[LIST_FRESH].limit_ns, at = loop_now() + window;
    int64_t last = s->drain_ns + s->cfg->server_graceful_timeout * MS - window;
    c->list = LIST_FRESH;
    timeout_set_at(&s->timeouts, &c->net.timeout, LIST_FRESH, at < last ? at : last);
}

/* The same list, counted anew. */
static void restart_list(struct http_conn *c, enum conn_list list)
{
    if (list == LIST_IDLE && server()->draining) {
        await_last_request(c);
        return;
    }
    c->list = (uint8_t)list;
    timeout_set(&server()->timeouts, &c->net.timeout, list);
}

static void set_list(struct http_conn *c, enum conn_list list)
{
    if (c->list != list)
        restart_list(c, list);
}

/* Which deadline a state has. */
static const uint8_t list_of[] = {
    [CONN_IDLE] = LIST_IDLE,   [CONN_HEAD] = LIST_HEAD,     [CONN_BUSY] = LIST_BUSY,
    [CONN_FLUSH] = LIST_WRITE, [CONN_LINGER] = LIST_LINGER,
};

static void set_state(struct http_conn *c, enum conn_state to)
{
    static const uint8_t allowed[] = {
        [CONN_IDLE] = 1 << CONN_HEAD | 1 << CONN_BUSY | 1 << CONN_FLUSH | 1 << CONN_CLOSED,
        [CONN_HEAD] = 1 << CONN_IDLE | 1 << CONN_BUSY | 1 << CONN_FLUSH | 1 << CONN_CLOSED,
        [CONN_BUSY] = 1 << CONN_IDLE | 1 << CONN_FLUSH | 1 << CONN_LINGER | 1 << CONN_CLOSED,
        [CONN_FLUSH] = 1 << CONN_IDLE | 1 << CONN_LINGER | 1 << CONN_CLOSED,
        [CONN_LINGER] = 1 << CONN_CLOSED,
    };
    if (c->state == to)
        return;
    assert(allowed[c->state] & 1 << to);
    c->state = (uint8_t)to;
    if (to != CONN_CLOSED)
        set_list(c, list_of[to]);
}

void conn_accepted(void *arg, int fd, const struct net_addr *peer)
{
    struct http_server *s = arg;
    struct http_conn *c = malloc(sizeof *c);
    if (!c)
        abort();
    if (net_conn_init(&c->net, fd, peer, &ops) != 0) {
        free(c);
        acceptor_released(&s->acceptor);
        return;
    }
    c->x = NULL;
    c->parser = (struct parser){0};
    c->state = CONN_IDLE;
    c->fresh = true;
    c->close = c->linger = false;
    restart_list(c, LIST_IDLE);
}

static void conn_bury(struct loop_dead *d)
{
    free(list_entry(d, struct http_conn, dead));
}

static void conn_close(struct http_conn *c)
{
    assert(!c->x);
    set_state(c, CONN_CLOSED);
    net_conn_fini(&c->net);
    acceptor_released(&server()->acceptor);
    loop_bury(&c->dead, conn_bury);
}

void conn_abort(struct http_conn *c)
{
    if (c->state == CONN_CLOSED)
        return;
    c->net.broken = true;
    if (!c->x) {
        conn_close(c);
        return;
    }
    net_pause(&c->net);
    set_list(c, LIST_BUSY);
    if (c->x->fiber)
        fiber_cancel(c->x->fiber);
}

/* There is input, but others come first. Meanwhile nothing more is read: what is there is enough for many rounds. */
static void again(struct http_conn *c)
{
    struct timeval now = {0, 0};
    set_state(c, CONN_HEAD);
    set_list(c, LIST_AGAIN);
    net_pause(&c->net);
    event_add(&server()->again, &now);
}

/* ---- the end of an exchange ---- */

static void linger_or_close(struct http_conn *c)
{
    /* Closing with unread input makes the kernel send a reset, which may overtake the reply on its way. */
    bool unread = c->linger || net_input(&c->net).n > 0 || net_peek(&c->net);
    if (!unread || c->net.broken || c->net.eof || shutdown(net_fd(&c->net), SHUT_WR) != 0) {
        conn_close(c);
        return;
    }
    set_state(c, CONN_LINGER);
    net_consume(&c->net, net_input(&c->net).n);
    net_resume(&c->net);
}

/* The reply has left, or is queued. */
static void after_exchange(struct http_conn *c, bool keep_alive)
{
    if (c->net.broken) {
        conn_close(c);
        return;
    }
    if (net_queued(&c->net)) {
        c->close = !keep_alive;
        set_state(c, CONN_FLUSH);
        return;
    }
    if (!keep_alive) {
        linger_or_close(c);
        return;
    }
    set_state(c, CONN_IDLE);
    if (running == c)
        return; /* conn_run() goes on with the next */
    if (net_input(&c->net).n)
        again(c);
    else if (c->net.eof)
        conn_close(c);
    else
        net_resume(&c->net);
}

static void turn_away(struct exchange *x)
{
    STAT_ADD(requests_rejected_total, 1);
    reply_problem(&x->r, &x->error);
    int64_t now = clock_ns();
    access_log(&x->r, now);
    score_request(0, x->reply.status, now - x->r.start_ns);
}

static void end_exchange(struct exchange *x)
{
    struct http_conn *c = x->conn;
    bool keep_alive = x->keep_alive && x->reply.phase == REPLY_SENT; /* as its head said, also if a drain began since */
    c->linger = !x->body.done;
    if (running == c && !keep_alive)
        net_uncork(&c->net);
    c->x = NULL;
    exchange_free(x);
    after_exchange(c, keep_alive);
}

suspends static void exchange_run(void *arg)
{
    struct exchange *x = arg;
    x->fiber = fiber_self();
    if (x->rejected) {
        turn_away(x);
    } else {
        server()->ops->request(&x->r);
        body_settle_rest(x);
    }
    end_exchange(x);
}

/* ---- heads ---- */

static void reject(struct exchange *x)
{
    x->rejected = true;
    x->keep_alive = false;
    x->body.failed = true;
    if (!x->r.id[0])
        request_make_id(x->r.id);
}

static void exchange_start(struct http_conn *c, struct exchange *x)
{
    c->x = x;
    c->fresh = false;
    set_state(c, CONN_BUSY);
    if (!fiber_spawn("request", exchange_run, x)) {
        err_set(&x->error, ERR_OVERLOADED, "too many requests are being worked on");
        reject(x);
        turn_away(x);
        end_exchange(x);
    }
}

/* Takes the head of `n` bytes off the input. */
static void begin(struct http_conn *c, size_t n)
{
    struct exchange *x = exchange_new(c);
    struct request *r = &x->r;
    struct str in = net_input(&c->net);
    size_t skip = c->parser.skip;
    struct str raw = arena_dup(&r->arena, (struct str){in.p + skip, n - skip});
    struct head h = {.minor = 1, .header = arena_alloc(&r->arena, c->parser.lines * sizeof *h.header)};
    net_consume(&c->net, n);
    c->parser = (struct parser){0};
    if (parser_head(raw, &h, &x->error) || request_fill(r, &h, &x->error)) {
        r->minor = h.minor;
        r->method_name = h.method_name;
        r->target = h.target;
        reject(x);
    } else {
        x->keep_alive = h.keep_alive && r->cfg->http_keepalive_timeout > 0;
        body_begin(x, &h);
    }
    proxy_client(server(), r, &c->net.peer, x->client);
    if (net_input(&c->net).n)
        net_cork(&c->net);
    exchange_start(c, x);
}

/* The connection's input makes no request: says so, and ends it. */
static void refuse(struct http_conn *c, const struct err *e)
{
    struct exchange *x = exchange_new(c);
    struct str line = str_sub(net_input(&c->net), c->parser.skip, 256);
    x->error = *e;
    x->r.minor = 1;
    x->r.method_name = STR("-");
    for (size_t i = 0; i < line.n; i++)
        if ((unsigned char)line.p[i] <= ' ' || (unsigned char)line.p[i] >= 0x7f)
            line.n = i;
    x->r.target = arena_dup(&x->r.arena, line);
    proxy_client(server(), &x->r, &c->net.peer, x->client);
    reject(x);
    net_consume(&c->net, net_input(&c->net).n);
    c->parser = (struct parser){0};
    exchange_start(c, x);
}

/* Answers the complete heads that the input has. */
static void conn_run(struct http_conn *c)
{
    struct err e;
    assert(!running);
    running = c;
    for (int64_t budget = server()->cfg->http_max_pipeline; c->state <= CONN_HEAD; budget--) {
        struct str in = net_input(&c->net);
        if (!in.n) {
            set_state(c, CONN_IDLE);
            net_resume(&c->net);
            break;
        }
        if (!budget) {
            again(c);
            break;
        }
        int n = parser_scan(&c->parser, in, &server()->limits, &e);
        if (n == 0) {
            set_state(c, CONN_HEAD);
            set_list(c, LIST_HEAD); /* from LIST_AGAIN */
            net_resume(&c->net);
            break;
        }
        if (n < 0)
            refuse(c, &e);
        else
            begin(c, (size_t)n);
    }
    if (c->state != CONN_CLOSED)
        net_uncork(&c->net);
    running = NULL;
    if (c->state <= CONN_HEAD && c->net.broken) {
        conn_close(c);
    } else if (c->state <= CONN_HEAD && net_queued(&c->net)) {
        set_state(c, CONN_FLUSH); /* pipelined replies that the client does not read: its next requests wait */
        net_pause(&c->net);
    } else if (c->state <= CONN_HEAD && c->net.eof) {
        conn_close(c);
    }
}

void conn_again(evutil_socket_t fd, short what, void *arg)
{
    struct http_server *s = arg;
    struct list batch;
    (void)fd;
    (void)what;
    list_init(&batch);
    list_splice_tail(&batch, &s->lists[LIST_AGAIN].head);
    while (!list_empty(&batch)) {
        struct http_conn *c = conn_of_timeout(list_entry(batch.next, struct timeout, link));
        restart_list(c, LIST_HEAD);
        conn_run(c);
    }
}

/* ---- events ---- */

static void wake(struct exchange *x, enum exchange_wait what)
{
    if (x->waiter[what])
        fiber_wake(x->waiter[what]);
}

/* While a fiber works: either it waits for this input, or something happens that it should know. */
static void busy_readable(struct http_conn *c)
{
    if (c->x && c->x->waiter[WAIT_INPUT]) {
        restart_list(c, c->list); /* also his answers: who still sends may read them later */
        wake(c->x, WAIT_INPUT);
        return;
    }
    if (net_peek(&c->net)) {
        net_pause(&c->net); /* pipelined, or a body that nobody reads yet */
    } else if (c->net.broken) {
        conn_abort(c);
    } else if (c->net.eof) {
        /* A client that only shut down its sending side looks like one that is gone. It gets its answer if that comes
         * soon; if a reply is on its way, a reset will tell. */
        net_pause(&c->net);
        if (c->x && c->x->waiter[WAIT_EVENT])
            wake(c->x, WAIT_EVENT);
        else if (c->x && c->x->reply.phase < REPLY_STREAM)
            set_list(c, LIST_HALF_CLOSED);
    }
}

static void on_readable(struct net_conn *n)
{
    struct http_conn *c = conn_of(n);
    if (c->state == CONN_BUSY || c->state == CONN_FLUSH) {
        busy_readable(c);
        return;
    }
    ssize_t got = net_fill(n);
    if (c->state == CONN_LINGER && got > 0) {
        net_consume(n, net_input(n).n);
        return;
    }
    if (got > 0) {
        conn_run(c);
        return;
    }
    if (n->eof || n->broken)
        conn_close(c);
}

static void on_drained(struct net_conn *n)
{
    struct http_conn *c = conn_of(n);
    if (c->x) {
        if (n->broken)
            conn_abort(c);
        else if (c->list == LIST_WRITE)
            restart_list(c, c->x->waiter[WAIT_INPUT] ? LIST_BODY : LIST_BUSY);
        wake(c->x, WAIT_OUTPUT);
    } else if (c->state == CONN_FLUSH) {
        after_exchange(c, !c->close);
    }
}

static void on_wrote(struct net_conn *n)
{
    struct http_conn *c = conn_of(n);
    if (c->list == LIST_WRITE)
        restart_list(c, LIST_WRITE);
    if (c->x)
        wake(c->x, WAIT_OUTPUT);
}

void conn_expired(void *arg, struct timeout *t, int list)
{
    struct http_conn *c = conn_of_timeout(t);
    struct err e;
    (void)arg;
    switch ((enum conn_list)list) {
    case LIST_IDLE:
    case LIST_FRESH:
    case LIST_LEAVING:
        if (!net_peek(&c->net)) {
            conn_close(c);
            return;
        }
        restart_list(c, LIST_IDLE);
        on_readable(&c->net); /* its next request has just come */
        return;
    case LIST_HEAD:
        restart_list(c, LIST_HEAD);
        err_set(&e, ERR_TIMEOUT, "the request's head did not arrive in time");
        refuse(c, &e);
        return;
    case LIST_BODY:
        restart_list(c, LIST_BUSY);
        c->x->timed_out = true;
        wake(c->x, WAIT_INPUT);
        return;
    case LIST_HALF_CLOSED:
    case LIST_WRITE:
        if (c->x)
            STAT_ADD(requests_canceled_total, 1);
        restart_list(c, LIST_BUSY);
        conn_abort(c);
        return;
    default: conn_close(c); return;
    }
}

/* A client that sends its next request while we close loses it, and a proxy cannot send it elsewhere if it was a POST.
 * So nothing is closed that may be in use: in the first half of the window nothing at all, and who sends a request
 * meanwhile is answered with `Connection: close`. Of those that are silent still, each has its own point of the second
 * half, lest all of them come back at once. */
static void leave_soon(struct http_conn *c)
{
    struct http_server *s = server();
    double share = ((double)s->leaving++ + (double)random() / RAND_MAX) / (double)s->spread; /* 0 to 1 */
    c->list = LIST_LEAVING;
    timeout_set_at(&s->timeouts, &c->net.timeout, LIST_LEAVING,
                   s->drain_ns + (int64_t)((1 + share) / 2 * (double)s->lists[LIST_FRESH].limit_ns));
}

void conn_drain(struct http_conn *c)
{
    if (c->state == CONN_IDLE && !net_peek(&c->net)) {
        if (c->fresh) /* closing now would lose a request that was sent right after the connection was made */
            await_last_request(c);
        else if (c->list != LIST_LEAVING)
            leave_soon(c);
    } else if (c->x) {
        wake(c->x, WAIT_EVENT);
    }
}

/* ---- for body.c and reply.c ---- */

void conn_output(struct http_conn *c)
{
    if (c->x && net_queued(&c->net) && c->list != LIST_WRITE)
        restart_list(c, LIST_WRITE);
}

suspends int conn_wait(struct exchange *x, enum exchange_wait what, const char *why, struct err *e)
{
    struct http_conn *c = x->conn;
    struct fiber *f = fiber_self();
    int64_t deadline = fiber_deadline(f), from = clock_ns();
    int rc = fiber_check();
    assert(f && !x->waiter[what]);
    if (rc == 0 && !c->net.broken) {
        x->waiter[what] = f;
        if (what == WAIT_INPUT && c->list != LIST_WRITE)
            restart_list(c, LIST_BODY);
        if (what != WAIT_OUTPUT)
            net_resume(&c->net);
        fiber_set_deadline(f, 0);
        rc = fiber_park(why);
        int64_t waited = clock_ns() - from;
        x->waited_ns += waited;
        fiber_set_deadline(f, deadline ? deadline + waited : 0);
        x->waiter[what] = NULL;
        if (what == WAIT_INPUT && c->list == LIST_BODY)
            set_list(c, LIST_BUSY);
    }
    if (rc == -ETIMEDOUT)
        return err_set(e, ERR_DEADLINE, "the request took too long");
    if (rc || c->net.broken)
        return err_set(e, ERR_CANCELED, "the client is gone");
    if (what == WAIT_INPUT && x->timed_out)
        return err_set(e, ERR_TIMEOUT, "the body did not arrive in time");
    return 0;
}

int64_t request_waited_ns(const struct request *r)
{
    return exchange_of(r)->waited_ns;
}

suspends int conn_wait_until(struct exchange *x, int64_t ns, const char *why, struct err *e)
{
    struct fiber *f = fiber_self();
    int64_t deadline = fiber_deadline(f), from = clock_ns();
    int rc = fiber_check();
    if (rc == 0) {
        x->waiter[WAIT_EVENT] = f;
        net_resume(&x->conn->net);
        fiber_set_deadline(f, ns);
        rc = fiber_park(why);
        fiber_set_deadline(f, deadline); /* takes the timeout back, too */
        x->waited_ns += clock_ns() - from;
        x->waiter[WAIT_EVENT] = NULL;
    }
    return rc == -ECANCELED ? err_set(e, ERR_CANCELED, "the client is gone") : 0;
}
