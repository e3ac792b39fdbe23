/* Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html */
#include "worker/http/exchange.h"
#include "common/clock.h"
#include <errno.h>

#define PING_NS (15 * SEC)
#define LOOK_NS (100 * MS)

suspends int sse_begin(struct request *r, struct err *e)
{
    struct exchange *x = exchange_of(r);
    reply_header(r, STR("Cache-Control"), STR("no-cache, no-transform"));
    reply_header(r, STR("X-Accel-Buffering"), STR("no"));
    fiber_set_deadline(fiber_self(), 0); /* a stream of events lives as long as its client listens */
    x->reply.ping_ns = clock_ns() + PING_NS;
    return reply_stream(r, 200, "text/event-stream", -1, e);
}

/* A field's value must stay on its line. */
static void add_field(struct buf *b, struct str name, const char *value)
{
    if (!value)
        return;
    buf_str(b, name);
    for (; *value; value++)
        buf_ch(b, *value == '\n' || *value == '\r' ? ' ' : *value);
    buf_ch(b, '\n');
}

suspends int sse_send(struct request *r, const char *event, const char *id, struct str data, struct err *e)
{
    struct reply *p = &exchange_of(r)->reply;
    struct buf *b = &p->body; /* unused while streaming */
    b->n = 0;
    add_field(b, STR("id: "), id);
    add_field(b, STR("event: "), event);
    do {
        struct str line = str_cut(&data, '\n');
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        buf_lit(b, "data: ");
        for (size_t i = 0; i < line.n; i++)
            buf_ch(b, line.p[i] == '\r' ? ' ' : line.p[i]);
        buf_ch(b, '\n');
    } while (data.n);
    buf_ch(b, '\n');
    p->ping_ns = clock_ns() + PING_NS;
    return reply_write(r, b->p, b->n, e);
}

suspends int sse_wait(struct request *r, int64_t ns, struct err *e)
{
    struct exchange *x = exchange_of(r);
    int64_t end = clock_ns() + ns;
    for (;;) {
        int64_t now = clock_ns();
        if (server()->draining)
            return err_set(e, ERR_CANCELED, "the server is stopping");
        if (x->conn->net.eof || x->conn->net.broken)
            return err_set(e, ERR_CANCELED, "the client is gone");
        if (now >= x->reply.ping_ns) {
            x->reply.ping_ns = now + PING_NS;
            if (reply_write(r, ": ping\n\n", 8, e))
                return -1;
        }
        if (now >= end)
            return 0;
        if (conn_wait_until(x, end < x->reply.ping_ns ? end : x->reply.ping_ns, "the next event", e))
            return -1;
    }
}

struct sse_work {
    struct exchange *x;
    suspends int (*fn)(void *arg, struct err *e);
    void *arg;
    struct err *e;
    int64_t deadline;
    struct fiber *fiber; /* that runs `fn` */
    struct fiber_queue over;
    bool is_over;
};

static suspends int work(void *arg)
{
    struct sse_work *w = arg;
    w->fiber = fiber_self();
    fiber_set_deadline(w->fiber, w->deadline);
    int rc = w->fn(w->arg, w->e);
    w->is_over = true;
    fiber_queue_wake_all(&w->over);
    if (w->x->waiter[WAIT_EVENT])
        fiber_wake(w->x->waiter[WAIT_EVENT]);
    return rc;
}

/* Until the stream begins the connection itself sees a client go. A client that has not taken all yet needs no ping. */
static suspends int watch(void *arg)
{
    struct sse_work *w = arg;
    struct reply *p = &w->x->reply;
    struct net_conn *n = &w->x->conn->net;
    struct err e;
    while (!w->is_over) {
        int64_t now = clock_ns();
        if (p->phase != REPLY_STREAM) {
            fiber_set_deadline(fiber_self(), now + LOOK_NS);
            if (fiber_queue_wait(&w->over, "the beginning of an answer") == -ECANCELED)
                break;
            fiber_set_deadline(fiber_self(), 0);
            continue;
        }
        if (now >= p->ping_ns) {
            p->ping_ns = now + PING_NS;
            if (net_queued(n) == 0 && reply_put(w->x, ": ping\n\n", 8, &e))
                n->broken = true;
        }
        if (n->eof || n->broken) {
            fiber_cancel(w->fiber);
            break;
        }
        if (conn_wait_until(w->x, p->ping_ns, "the end of an answer", &e))
            break;
    }
    return 0;
}

suspends int sse_run(struct request *r, int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
    struct sse_work w = {.x = exchange_of(r), .fn = fn, .arg = arg, .e = e, .deadline = fiber_deadline(fiber_self())};
    struct fiber_task tasks[] = {{.fn = work, .arg = &w}, {.fn = watch, .arg = &w}};
    fiber_queue_init(&w.over);
    fiber_set_deadline(fiber_self(), 0);
    fiber_all(tasks, 2);
    return tasks[0].result;
}
