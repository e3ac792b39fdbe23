#include "worker/api/idempotency.h"
#include "worker/app.h"
#include "common/clock.h"
#include "common/log.h"
#include "worker/io/crypto.h"

enum { KEY_MAX = 255, KEPT_BODY_MAX = 1 << 20 };

static void add(struct sha256_ctx *c, struct str s)
{
    uint64_t n = s.n; /* lengths keep neighbours apart */
    sha256_add(c, &n, sizeof n);
    sha256_add(c, s.p, s.n);
}

static void scope(const struct request *r, struct str key, struct sha256 *out)
{
    struct sha256_ctx *c = sha256_new();
    add(c, r->method_name);
    add(c, r->path);
    add(c, key);
    sha256_end(c, out);
    sha256_free(c);
}

/* The parts of a form, not its bytes: a client that sends it again draws another boundary. */
suspends static int hash_multipart(struct request *r, struct sha256_ctx *c, struct err *e)
{
    struct multipart *m = multipart_open(r, e);
    struct multipart_part part;
    char buf[16384];
    bool more;
    ssize_t n;
    if (!m)
        return -1;
    for (;;) {
        uint64_t size = 0;
        if (multipart_next(m, &part, &more, e))
            return -1;
        if (!more)
            return 0;
        add(c, part.name);
        add(c, part.filename);
        add(c, part.content_type);
        while ((n = multipart_read(m, buf, sizeof buf, e)) > 0) {
            sha256_add(c, buf, (size_t)n);
            size += (uint64_t)n;
        }
        if (n < 0)
            return -1;
        sha256_add(c, &size, sizeof size);
    }
}

suspends static int hash_bytes(struct request *r, struct sha256_ctx *c, struct err *e)
{
    char buf[16384];
    ssize_t n;
    while ((n = body_read(r, buf, sizeof buf, e)) > 0)
        sha256_add(c, buf, (size_t)n);
    return n < 0 ? -1 : 0;
}

suspends static int hash_body(struct request *r, struct sha256 *out, struct err *e)
{
    int64_t deadline = fiber_deadline(fiber_self());
    struct sha256_ctx *c = sha256_new();
    fiber_set_deadline(fiber_self(), 0); /* receiving is bounded by http.body_timeout and body_min_rate */
    int failed = body_spool(r, e);
    if (!failed) {
        add(c, r->query);
        failed =
            str_eq(request_media_type(r), STR("multipart/form-data")) ? hash_multipart(r, c, e) : hash_bytes(r, c, e);
    }
    if (!failed) {
        body_rewind(r);
        fiber_set_deadline(fiber_self(), deadline ? clock_ns() + r->cfg->http_request_timeout * MS : 0);
    }
    sha256_end(c, out);
    sha256_free(c);
    return failed;
}

static void replay(struct request *r, const struct store_idempotency *was)
{
    struct str type = arena_dup(&r->arena, was->content_type);
    struct buf *b = reply_begin(r, was->status, type.n ? type.p : NULL);
    buf_str(b, was->body);
    if (was->location.n)
        reply_header(r, STR("Location"), was->location);
    if (was->etag.n)
        reply_header(r, STR("ETag"), was->etag);
    reply_header(r, STR("Idempotent-Replayed"), STR("true"));
}

static int answer_from(struct request *r, const struct store_idempotency *mine, const struct store_idempotency *was,
                       struct err *e)
{
    if (memcmp(&was->request, &mine->request, sizeof was->request) != 0)
        return err_set(e, ERR_KEY_REUSED, "This Idempotency-Key was used with another body");
    if (!was->status) {
        err_set(e, ERR_BUSY, "The first request with this Idempotency-Key is still running");
        e->retry_after_ms = 1000;
        return -1;
    }
    replay(r, was);
    return 0;
}

/* Keeps the answer, or forgets the key where there is none to keep: errors have no effect, so the client may try again.
 * Shielded, because the effect has happened even if the client has left. */
suspends static void finish(struct request *r, struct store_idempotency *mine, bool failed)
{
    struct err e = {0};
    if (failed || !reply_built(r, &mine->status, &mine->content_type, &mine->body) || mine->status >= 500 ||
        mine->body.n > KEPT_BODY_MAX)
        mine->status = 0;
    mine->location = reply_header_value(r, STR("Location"));
    mine->etag = reply_header_value(r, STR("ETag"));
    fiber_shield(1);
    if (STORE_CALL(r->app->store, idempotency_end, mine, &e))
        log_err(LOG_WARN, "idempotency key could not be kept", &e);
    fiber_shield(-1);
}

/* How long a key may stay without an answer: no request runs for longer than its deadline, but for the end of its write. */
static int64_t abandoned_us(const struct config *cfg)
{
    return (cfg->http_request_timeout ? cfg->http_request_timeout + 60000 : 600000) * 1000;
}

suspends int idempotency_run(struct request *r, struct err *e)
{
    struct store_idempotency mine = {0}, was;
    struct str key = str_trim(request_header(r, STR("Idempotency-Key")));
    bool first;
    if (!key.p)
        return r->route->handler(r, e);
    if (!key.n || key.n > KEY_MAX)
        return err_set(e, ERR_BAD_REQUEST, "Idempotency-Key must have 1 to %d bytes", KEY_MAX);
    scope(r, key, &mine.key);
    mine.abandoned_us = abandoned_us(r->cfg);
    if (hash_body(r, &mine.request, e) ||
        STORE_CALL(r->app->store, idempotency_begin, &r->arena, &mine, &first, &was, e))
        return -1;
    if (!first)
        return answer_from(r, &mine, &was, e);
    mine.created_us = was.created_us;
    int failed = r->route->handler(r, e);
    finish(r, &mine, failed != 0);
    return failed;
}
