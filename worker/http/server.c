#include "worker/http/exchange.h"
#include "common/clock.h"
#include <stdlib.h>

enum { POOL_MAX = 256, KEEP_BUF = 64 * 1024, HALF_CLOSED_MS = 2000, LINGER_MS = 10000, DRAIN_MS = 2000 };

static struct http_server *self;

static struct {
    struct exchange *free;
    int n;
} pool;

struct http_server *server(void)
{
    return self;
}

struct exchange *exchange_new(struct http_conn *c)
{
    struct exchange *x = pool.free;
    struct buf body = {0}, fields = {0};
    if (x) {
        pool.free = x->next;
        pool.n--;
        body = x->reply.body;
        fields = x->reply.fields;
    } else if (!(x = malloc(sizeof *x))) {
        abort();
    }
    memset(x, 0, offsetof(struct exchange, client)); /* the rest is large and written before it is read */
    x->r.priv = x;
    x->r.conn = x->conn = c;
    x->r.app = self->app;
    x->r.cfg = self->cfg;
    x->r.start_ns = loop_now();
    x->r.content_length = -1;
    x->reply.body = body;
    x->reply.fields = fields;
    x->reply.body.n = x->reply.fields.n = 0;
    x->error.code = ERR_NONE;
    return x;
}

void exchange_free(struct exchange *x)
{
    arena_fini(&x->r.arena);
    if (x->reply.body.cap > KEEP_BUF)
        buf_fini(&x->reply.body);
    if (x->reply.fields.cap > KEEP_BUF)
        buf_fini(&x->reply.fields);
    if (pool.n >= POOL_MAX) {
        buf_fini(&x->reply.body);
        buf_fini(&x->reply.fields);
        free(x);
        return;
    }
    x->next = pool.free;
    pool.free = x;
    pool.n++;
}

static void pool_release(void)
{
    while (pool.free) {
        struct exchange *x = pool.free;
        pool.free = x->next;
        buf_fini(&x->reply.body);
        buf_fini(&x->reply.fields);
        free(x);
    }
    pool.n = 0;
}

/* Connections that wait already keep the deadline they have. */
void http_server_reconfigure(struct http_server *s)
{
    const struct config *cfg = s->cfg;
    int64_t idle = cfg->http_keepalive_timeout;
    s->lists[LIST_IDLE].limit_ns = (idle ? idle : cfg->http_header_timeout) * MS;
    s->lists[LIST_HEAD].limit_ns = cfg->http_header_timeout * MS;
    s->lists[LIST_BODY].limit_ns = cfg->http_body_timeout * MS;
    s->lists[LIST_WRITE].limit_ns = cfg->http_write_timeout * MS;
    s->lists[LIST_HALF_CLOSED].limit_ns = HALF_CLOSED_MS * MS;
    s->lists[LIST_LINGER].limit_ns = LINGER_MS * MS;
    int64_t drain = cfg->server_graceful_timeout / 4;
    s->lists[LIST_FRESH].limit_ns = (drain > DRAIN_MS ? DRAIN_MS : drain > 0 ? drain : 1) * MS;
    s->lists[LIST_LEAVING].limit_ns = s->lists[LIST_FRESH].limit_ns; /* at most: see conn_drain() */
    s->limits = (struct parser_limits){(uint32_t)cfg->http_max_request_line, (uint32_t)cfg->http_max_headers_size,
                                       (uint32_t)cfg->http_max_headers};
    s->acceptor.max = cfg->http_max_connections;
}

int http_server_start(const struct heritage *h, struct app *app, const struct http_server_ops *ops,
                      struct http_server **out, struct err *e)
{
    const struct config *cfg = h->cfg;
    struct http_server *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->cfg = cfg;
    s->app = app;
    s->ops = ops;
    http_server_reconfigure(s);
    timeouts_init(&s->timeouts, s->lists, LISTS, conn_expired, s);
    evtimer_assign(&s->again, loop_base(), conn_again, s);
    self = s;
    acceptor_init(&s->acceptor, h, cfg->http_max_connections, conn_accepted, s);
    if (proxy_init(s, e)) {
        http_server_free(s);
        return -1;
    }
    *out = s;
    return 0;
}

int http_server_open(struct http_server *s, struct err *e)
{
    return acceptor_open(&s->acceptor, e);
}

void http_server_adopt(struct http_server *s, int fd)
{
    acceptor_adopt(&s->acceptor, fd);
}

static void for_each_conn(struct http_server *s, void (*fn)(struct http_conn *))
{
    for (int i = 0; i < LISTS; i++) {
        struct list all; /* fn() moves its connection to another list, or to none */
        list_init(&all);
        list_splice_tail(&all, &s->lists[i].head);
        while (!list_empty(&all)) {
            struct timeout *t = list_entry(all.next, struct timeout, link);
            list_del(&t->link);
            list_add_tail(&s->lists[i].head, &t->link);
            fn(conn_of_timeout(t));
        }
    }
}

void http_server_drain(struct http_server *s)
{
    s->draining = true;
    s->drain_ns = loop_now();
    list_for_each (it, &s->lists[LIST_IDLE].head)
        s->spread++;
    acceptor_close(&s->acceptor);
    for_each_conn(s, conn_drain);
}

bool http_server_idle(const struct http_server *s)
{
    return s->acceptor.open == 0;
}

void http_server_close_all(struct http_server *s)
{
    s->draining = true;
    acceptor_close(&s->acceptor);
    for_each_conn(s, conn_abort);
}

void http_server_free(struct http_server *s)
{
    if (!s)
        return;
    timeouts_fini(&s->timeouts);
    event_del(&s->again);
    free(s->proxies);
    pool_release();
    free(s);
    self = NULL;
}
