#include "worker/io/redis_impl.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/scoreboard.h"
#include <errno.h>
#include <stdlib.h>

enum {
    BACKOFF_FIRST_MS = 50,
    BACKOFF_MAX_MS = 5000,
    SHORT_LIVED_MS = 1000, /* a connection lost so soon counts as a failure to connect */
    READ_BYTES = 16384
};

/* One command, from its call to its reply. It outlives a call that gives up. */
struct order {
    struct list link;   /* in `queue`, then in `sent` */
    struct call *call;  /* NULL: nobody waits, or not any more */
    struct buf command; /* until it is sent */
};

/* On the stack of its fiber. */
struct call {
    struct fiber *fiber;
    struct order *order; /* NULL: done */
    int64_t since_ns;
    struct redis_reply *reply; /* done: NULL with `err` */
    struct err err;
};

struct redis {
    const struct config *cfg;
    struct redis_url url;
    SSL_CTX *tls;            /* NULL: plain */
    struct redis_conn *conn; /* NULL: there is none now */
    struct fiber *main;      /* holds the connection; NULL before the first call */
    struct list queue, sent;
    int n_calls;    /* in both */
    struct buf out; /* what the socket did not take yet */
    struct event on_read, on_write;
    struct loop_hook hook;
    int64_t progress_ns; /* when it last sent something */
    bool away;           /* calls fail at once, for the reason `why` */
    bool hung, broken, closing;
    int attempt, failures;
    uint64_t connections;
    struct err why;
    struct log_limit limit;
};

static void flush(struct redis *r);
static suspends void redis_main(void *arg);

/* ---- open and close ---- */

static void *need(void *p)
{
    if (!p)
        abort(); /* out of memory */
    return p;
}

static void on_turn(void *arg)
{
    flush(arg);
}

int redis_check(const struct config *cfg, struct err *e)
{
    struct redis_url url;
    SSL_CTX *tls = NULL;
    if (redis_url_parse(cfg, &url, e) < 0 || (url.tls && redis_tls_new(cfg, &tls, e) < 0))
        return -1;
    SSL_CTX_free(tls);
    return 0;
}

int redis_open(const struct config *cfg, struct redis **out, struct err *e)
{
    struct redis_url url;
    SSL_CTX *tls = NULL;
    if (redis_url_parse(cfg, &url, e) < 0 || (url.tls && redis_tls_new(cfg, &tls, e) < 0))
        return -1;
    struct redis *r = need(calloc(1, sizeof *r));
    *r = (struct redis){.cfg = cfg, .url = url, .tls = tls, .hook = {.fn = on_turn, .arg = r}};
    r->attempt = (int)(random() % REDIS_HOSTS_MAX);
    list_init(&r->queue);
    list_init(&r->sent);
    loop_hook_add(&r->hook, LOOP_FLUSH_BACKENDS);
    *out = r;
    return 0;
}

static void order_free(struct redis *r, struct order *f)
{
    list_del(&f->link);
    buf_fini(&f->command);
    free(f);
    r->n_calls--;
}

/* Ends an order, with a reply or, without one, with an error. */
static void land(struct redis *r, struct order *f, struct redis_reply *reply, const struct err *e)
{
    struct call *c = f->call;
    if (c) {
        c->order = NULL;
        c->reply = reply;
        if (e)
            c->err = *e;
        fiber_wake(c->fiber);
    } else {
        redis_reply_free(reply);
    }
    order_free(r, f);
}

static void fail_all(struct redis *r, const struct err *e)
{
    struct list *queues[] = {&r->sent, &r->queue};
    for (int i = 0; i < 2; i++)
        list_for_each_safe (it, queues[i])
            land(r, list_entry(it, struct order, link), NULL, e);
    r->out.n = 0;
}

static void redis_free(struct redis *r)
{
    redis_conn_free(r->conn);
    SSL_CTX_free(r->tls);
    buf_fini(&r->out);
    free(r);
}

void redis_close(struct redis *r)
{
    struct err e = {0};
    if (!r)
        return;
    r->closing = true;
    loop_hook_del(&r->hook);
    err_set(&e, ERR_CANCELED, "the server is stopping");
    fail_all(r, &e);
    if (r->main)
        fiber_cancel(r->main); /* which frees everything */
    else
        redis_free(r);
}

/* ---- the connection ---- */

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct redis *r = arg;
    (void)fd, (void)what;
    fiber_wake(r->main);
}

/* What the calls of this turn have to say leaves in one write. */
static void flush(struct redis *r)
{
    size_t done = 0;
    if (!r->conn || r->broken)
        return;
    list_for_each_safe (it, &r->queue) {
        struct order *f = list_entry(it, struct order, link);
        buf_str(&r->out, buf_view(&f->command));
        buf_fini(&f->command);
        list_del(&f->link);
        list_add_tail(&r->sent, &f->link);
    }
    while (done < r->out.n) {
        ssize_t n = redis_conn_write(r->conn, r->out.p + done, r->out.n - done, &r->why);
        if (n < 0) {
            r->broken = true;
            fiber_wake(r->main);
            return;
        }
        if (n == 0) {
            event_add(&r->on_write, NULL);
            break;
        }
        done += (size_t)n;
    }
    buf_drop(&r->out, done);
    if (!r->out.n)
        buf_fini(&r->out); /* a burst leaves no memory behind */
}

static int take_replies(struct redis *r, struct err *e)
{
    struct redis_reply *reply;
    for (;;) {
        if (redis_reader_next(r->conn->reader, &reply, e) < 0)
            return -1;
        if (!reply)
            return 0;
        if (list_empty(&r->sent)) {
            redis_reply_free(reply);
            err_set(e, ERR_NOT_READY, "the cache sent a reply that nobody asked for");
            return -1;
        }
        land(r, list_entry(r->sent.next, struct order, link), reply, NULL);
    }
}

static int receive(struct redis *r, struct err *e)
{
    char bytes[READ_BYTES];
    for (;;) {
        ssize_t n = redis_conn_read(r->conn, bytes, sizeof bytes, e);
        if (n <= 0)
            return (int)n;
        r->progress_ns = clock_ns();
        if (redis_reader_feed(r->conn->reader, (struct str){bytes, (size_t)n}, e) < 0 || take_replies(r, e) < 0)
            return -1;
        if (!r->conn->tls && (size_t)n < sizeof bytes)
            return 0; /* spares a call that would say EAGAIN */
    }
}

/* Returns when the connection is over, with the reason. */
static suspends void serve(struct redis *r, struct err *e)
{
    event_assign(&r->on_read, loop_base(), r->conn->fd, EV_READ | EV_PERSIST, on_event, r);
    event_assign(&r->on_write, loop_base(), r->conn->fd, EV_WRITE, on_event, r);
    event_add(&r->on_read, NULL);
    err_set(e, ERR_NOT_READY, "the cache cannot be reached");
    do {
        flush(r);
        if (r->broken)
            *e = r->why;
        if (r->hung)
            err_log(e, "Redis at %s: no answer within cache.timeout", r->conn->peer);
    } while (!r->broken && !r->hung && fiber_park("replies from Redis") == 0 && receive(r, e) == 0);
    event_del(&r->on_read);
    event_del(&r->on_write);
}

static void connected(struct redis *r)
{
    if (r->failures)
        log_info("Redis at %s answers again", r->conn->peer);
    if (r->connections++)
        STAT_ADD(cache_reconnects_total, 1);
    r->away = r->hung = r->broken = false;
    r->progress_ns = clock_ns();
}

static void lost(struct redis *r, bool again, const struct err *e)
{
    char more[LOG_LIMIT_TEXT];
    r->why = *e;
    fail_all(r, e);
    redis_conn_free(r->conn);
    r->conn = NULL;
    r->hung = r->broken = false;
    if (again) /* a server that restarted, or closes idle connections: it may well be there */
        return;
    r->away = true;
    if (r->failures++ == 0 && log_limit(&r->limit, clock_ns(), more))
        log_warn("the cache is away: %s%s", e->log[0] ? e->log : e->msg, more);
}

static suspends void redis_main(void *arg)
{
    struct redis *r = arg;
    struct err e;
    r->main = fiber_self();
    while (!r->closing) {
        fiber_set_deadline(r->main, clock_ns() + r->cfg->cache_connect_timeout * MS);
        int rc = redis_conn_open(&r->url, r->tls, r->attempt++, &r->conn, &e);
        fiber_set_deadline(r->main, 0);
        int64_t since = clock_ns();
        bool hung = false;
        if (rc == 0 && !r->closing) {
            connected(r);
            serve(r, &e);
            hung = r->hung;
        }
        if (r->closing)
            break;
        bool lived = rc == 0 && clock_ns() - since >= SHORT_LIVED_MS * MS;
        if (lived)
            r->failures = 0;
        lost(r, lived && !hung, &e);
        if (lived && !hung)
            continue;
        int64_t backoff = BACKOFF_FIRST_MS << (r->failures < 8 ? r->failures - 1 : 7);
        backoff = backoff < BACKOFF_MAX_MS ? backoff : BACKOFF_MAX_MS;
        fiber_sleep(backoff * MS + random() % (backoff + 1) * MS / 2); /* not all workers at once */
    }
    redis_free(r);
}

/* ---- calls ---- */

/* The server refused the command. After a failover the old master calls itself a replica: then it is not ours any more. */
static int command_failed(struct redis *r, struct str text, struct err *e)
{
    static const struct {
        const char *word;
        bool leave;
    } not_now[] = {{"READONLY", true}, {"MASTERDOWN", true},   {"NOAUTH", true},
                   {"LOADING", false}, {"CLUSTERDOWN", false}, {"OOM", false},
                   {"BUSY", false},    {"NOREPLICAS", false},  {"MISCONF", false}};
    struct str rest = text, word = str_cut(&rest, ' ');
    err_set(e, ERR_INTERNAL, "the cache refused a command");
    for (size_t i = 0; i < sizeof not_now / sizeof *not_now; i++)
        if (str_eqz(word, not_now[i].word)) {
            err_set(e, ERR_NOT_READY, "the cache cannot answer now");
            if (not_now[i].leave && r->conn && !r->broken) {
                r->broken = true;
                r->why = *e;
                err_log(&r->why, "Redis at %s: " STR_FMT, r->conn->peer, STR_ARG(text));
                fiber_wake(r->main);
            }
        }
    return err_log(e, "Redis: " STR_FMT, STR_ARG(text));
}

/* A call ended without a reply: because its own caller could not wait, or because the server did not answer in the time
 * that every call has. Then the next callers need not find that out again. */
static int gave_up(struct redis *r, const struct call *c, int reason, bool own_time, struct err *e)
{
    if (reason == -ECANCELED)
        return err_set(e, ERR_CANCELED, "the request was cancelled");
    if (!own_time)
        return err_set(e, ERR_DEADLINE, "the request ran out of time while it waited for the cache");
    err_set(e, ERR_NOT_READY, "the cache did not answer in time");
    err_log(e, "Redis: no answer within cache.timeout");
    if (r->progress_ns < c->since_ns) {
        r->away = true;
        r->hung = r->conn != NULL;
        r->why = *e;
        if (r->hung)
            fiber_wake(r->main);
    }
    return -1;
}

static suspends int wait_reply(struct redis *r, struct call *c, struct err *e)
{
    int64_t before = fiber_deadline(c->fiber), mine = c->since_ns + r->cfg->cache_timeout * MS;
    bool own_time = !before || mine < before;
    int rc = 0;
    if (own_time)
        fiber_set_deadline(c->fiber, mine);
    while (c->order && rc == 0)
        rc = fiber_park("Redis");
    if (own_time)
        fiber_set_deadline(c->fiber, before);
    if (!c->order)
        return 0;
    c->order->call = NULL;
    if (c->order->command.n) /* not sent yet: what nobody waits for must not happen later */
        order_free(r, c->order);
    return gave_up(r, c, rc, own_time, e);
}

/* Takes the command over; `c` may be NULL. */
static struct order *place_order(struct redis *r, struct call *c, const struct str *argv, size_t n, struct err *e)
{
    if (r->away) {
        *e = r->why;
        return NULL;
    }
    if (r->n_calls >= r->cfg->cache_max_queue) {
        err_set(e, ERR_OVERLOADED, "too many requests wait for the cache");
        return NULL;
    }
    struct order *o = need(calloc(1, sizeof *o));
    o->call = c;
    redis_command(&o->command, argv, n);
    list_add_tail(&r->queue, &o->link);
    r->n_calls++;
    return o;
}

static bool start_main(struct redis *r, struct err *e)
{
    if (r->main || fiber_spawn("redis", redis_main, r))
        return true;
    err_set(e, ERR_OVERLOADED, "no fiber for the cache's connection");
    return false;
}

int redis_post(struct redis *r, const struct str *argv, size_t n, struct err *e)
{
    return start_main(r, e) && place_order(r, NULL, argv, n, e) ? 0 : -1;
}

suspends int redis_call(struct redis *r, struct arena *a, const struct str *argv, size_t n, struct redis_value *out,
                        struct err *e)
{
    struct call c = {.fiber = fiber_self(), .since_ns = clock_ns()};
    if (!start_main(r, e))
        return -1;
    c.order = place_order(r, &c, argv, n, e);
    if (!c.order || wait_reply(r, &c, e) < 0)
        return -1;
    if (!c.reply) {
        *e = c.err;
        return -1;
    }
    int rc = 0;
    if (c.reply->value.type == REDIS_ERROR)
        rc = command_failed(r, redis_reply_text(&c.reply->value), e);
    else
        redis_copy(a, &c.reply->value, out);
    redis_reply_free(c.reply);
    return rc;
}
