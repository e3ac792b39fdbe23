#include "worker/http/exchange.h"
#include "common/clock.h"
#include <assert.h>
#include <stdlib.h>

enum { MORE = -2, DISCARD_MAX = 64 * 1024, PIECE = 16 * 1024 };

void body_begin(struct exchange *x, const struct head *h)
{
    struct body *b = &x->body;
    b->left = h->content_length > 0 ? h->content_length : 0;
    b->done = !h->chunked && !b->left;
    b->expect = h->expect_continue && !b->done;
    b->limit = x->r.cfg->limits_json_body;
}

void body_limit(struct request *r, int64_t max)
{
    exchange_of(r)->body.limit = max;
}

bool request_has_body(const struct request *r)
{
    return r->chunked || r->content_length > 0;
}

/* ---- reading ---- */

/* Data that can be had without waiting: > 0, 0 at the end, -1, or MORE. */
static ssize_t take_chunked(struct exchange *x, char *buf, size_t cap, struct err *e)
{
    struct body *b = &x->body;
    struct net_conn *c = &x->conn->net;
    for (;;) {
        if (b->chunked.state == CHUNK_DATA) {
            ssize_t n = net_read(c, buf, (int64_t)cap < b->chunked.left ? cap : (size_t)b->chunked.left);
            if (n <= 0)
                return MORE;
            chunked_data(&b->chunked, (size_t)n);
            return n;
        }
        ssize_t n = chunked_control(&b->chunked, net_input(c), e);
        if (n < 0) {
            b->failed = true;
            return -1;
        }
        net_consume(c, (size_t)n);
        b->done = b->chunked.state == CHUNK_END;
        if (b->done)
            return 0;
        if (b->chunked.state != CHUNK_DATA && net_fill(c) <= 0)
            return MORE;
    }
}

static ssize_t take(struct exchange *x, char *buf, size_t cap, struct err *e)
{
    struct body *b = &x->body;
    if (b->done)
        return 0;
    if (x->r.chunked)
        return take_chunked(x, buf, cap, e);
    ssize_t n = net_read(&x->conn->net, buf, (int64_t)cap < b->left ? cap : (size_t)b->left);
    if (n <= 0)
        return MORE;
    b->left -= n;
    b->done = !b->left;
    return n;
}

static int too_large(struct exchange *x, struct err *e)
{
    const struct route *route = x->r.route;
    x->body.failed = true;
    if (route && route->body == BODY_UPLOAD) /* the body's own limit is higher: it leaves room for what is around it */
        return err_set(e, ERR_TOO_LARGE, "the body is larger than limits.upload allows, %lld bytes",
                       (long long)x->r.cfg->limits_upload);
    if (route && route->body == BODY_JSON)
        return err_set(e, ERR_TOO_LARGE, "the body is larger than limits.json_body allows, %lld bytes",
                       (long long)x->body.limit);
    return err_set(e, ERR_TOO_LARGE, "the body is larger than the %lld bytes that are allowed here",
                   (long long)x->body.limit);
}

static int send_continue(struct exchange *x)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec iov = {(char *)line, sizeof line - 1};
    x->body.expect = false;
    if (net_input(&x->conn->net).n || x->reply.phase != REPLY_NONE)
        return 0; /* it did not wait, or the final reply has begun */
    return net_write(&x->conn->net, &iov, 1);
}

/* On the way of a body: is it slower than http.body_min_rate? Bursts do not matter, the average since its start does. */
static bool too_slow(const struct exchange *x)
{
    const struct config *cfg = x->r.cfg;
    int64_t age = clock_ns() - x->r.start_ns;
    if (!cfg->http_body_min_rate || age < cfg->http_body_timeout * MS)
        return false;
    return x->body.got < age / SEC * cfg->http_body_min_rate;
}

static suspends int wait_input(struct exchange *x, struct err *e)
{
    struct net_conn *c = &x->conn->net;
    if (!c->eof && !c->broken && !too_slow(x)) {
        net_acknowledge(c);
        return conn_wait(x, WAIT_INPUT, "the request's body", e);
    }
    if (c->broken)
        return err_set(e, ERR_CANCELED, "the client is gone");
    if (c->eof)
        return err_set(e, ERR_BAD_REQUEST, "the body ends before its announced length");
    return err_set(e, ERR_TIMEOUT, "the body arrives with less than %lld bytes a second",
                   (long long)x->r.cfg->http_body_min_rate);
}

static ssize_t read_spool(struct body *b, void *buf, size_t cap, struct err *e)
{
    int64_t left = b->spool->size - b->at;
    size_t n = (int64_t)cap < left ? cap : (size_t)left;
    if (spool_read(b->spool, b->at, buf, n, e))
        return -1;
    b->at += (int64_t)n;
    return (ssize_t)n;
}

suspends ssize_t body_read(struct request *r, void *buf, size_t cap, struct err *e)
{
    struct exchange *x = exchange_of(r);
    struct body *b = &x->body;
    ssize_t n;
    if (b->spool)
        return read_spool(b, buf, cap, e);
    if (b->done || !cap)
        return 0;
    if (b->failed)
        return err_set(e, ERR_BAD_REQUEST, "the body could not be read");
    if (b->limit >= 0 && r->content_length > b->limit)
        return too_large(x, e);
    if (b->expect && send_continue(x) != 0)
        return err_set(e, ERR_CANCELED, "the client is gone");
    while ((n = take(x, buf, cap, e)) == MORE)
        if (wait_input(x, e)) {
            b->failed = true;
            return -1;
        }
    if (n > 0) {
        b->got += n;
        if (b->limit >= 0 && b->got > b->limit)
            return too_large(x, e);
    }
    return n;
}

static void free_buf(void *p)
{
    buf_fini(p);
}

/* Of unknown length: grows with what arrives, not with what is announced. */
static suspends int all_chunked(struct request *r, size_t max, struct str *out, struct err *e)
{
    struct buf *b = arena_own(&r->arena, arena_zalloc(&r->arena, sizeof *b), free_buf);
    for (;;) {
        buf_reserve(b, PIECE);
        ssize_t n = body_read(r, b->p + b->n, PIECE, e);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        b->n += (size_t)n;
        if (b->n > max) {
            body_limit(r, (int64_t)max);
            return too_large(exchange_of(r), e);
        }
    }
    *out = buf_view(b);
    return 0;
}

suspends int body_all(struct request *r, size_t max, struct str *out, struct err *e)
{
    struct body *b = &exchange_of(r)->body;
    size_t at = 0;
    if (r->content_length > 0 && (uint64_t)r->content_length > max) {
        b->limit = (int64_t)max;
        return too_large(exchange_of(r), e);
    }
    if (r->chunked)
        return all_chunked(r, max, out, e);
    if (b->limit >= 0 && r->content_length > b->limit)
        return too_large(exchange_of(r), e);
    size_t size = (size_t)(b->spool ? b->spool->size - b->at : b->left);
    char *p = arena_alloc(&r->arena, size + 1);
    while (at < size) {
        ssize_t n = body_read(r, p + at, size - at, e);
        if (n < 0)
            return -1;
        assert(n > 0);
        at += (size_t)n;
    }
    p[size] = 0;
    *out = (struct str){p, size};
    return 0;
}

suspends int body_spool(struct request *r, struct err *e)
{
    struct spool *s = arena_alloc(&r->arena, sizeof *s);
    char piece[PIECE];
    ssize_t n;
    spool_init(s, &r->arena);
    while ((n = body_read(r, piece, sizeof piece, e)) > 0)
        if (spool_add(s, piece, (size_t)n, e))
            return -1;
    if (n < 0)
        return -1;
    exchange_of(r)->body.spool = s;
    return 0;
}

void body_rewind(struct request *r)
{
    exchange_of(r)->body.at = 0;
}

/* ---- what nobody read ---- */

bool body_settle(struct exchange *x)
{
    struct body *b = &x->body;
    char scrap[4096];
    size_t dropped = 0;
    ssize_t n = 1;
    if (b->done)
        return true;
    if (b->failed || b->expect) /* a client that waits for 100 may send the body or not: nobody can tell */
        return false;
    if (!x->r.chunked && b->left > DISCARD_MAX)
        return false;
    while (dropped < DISCARD_MAX && (n = take(x, scrap, sizeof scrap, NULL)) > 0)
        dropped += (size_t)n;
    if (b->done)
        return true;
    b->settle_waiting = n == MORE && !x->r.chunked && !x->conn->net.eof && !x->conn->net.broken;
    return b->settle_waiting;
}

suspends void body_settle_rest(struct exchange *x)
{
    char scrap[4096];
    if (!x->body.settle_waiting || !x->keep_alive)
        return;
    x->body.limit = -1;
    fiber_set_deadline(fiber_self(), 0);
    ssize_t n;
    do
        n = body_read(&x->r, scrap, sizeof scrap, NULL);
    while (n > 0);
    if (n < 0)
        x->keep_alive = false;
}
