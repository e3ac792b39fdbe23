#include "worker/io/provider.h"
#include "common/clock.h"
#include "common/log.h"
#include "worker/io/json.h"
#include <errno.h>
#include <stdlib.h>

/* Longer waits are the caller's affair: it is told when to come again. */
enum { WAIT_MAX_MS = 30000, SLOW_MS = 1000 /* who takes longer than a caller had is slow */ };

struct provider {
    struct provider_settings s;
    struct httpc *http;
    int running;
    struct fiber_queue room;
    int failures;       /* in a row */
    bool probing;       /* the breaker was open; one call tries */
    int64_t closed_ns;  /* the breaker is open until then */
    int64_t not_before; /* what the server asked for with Retry-After */
    struct err last;
};

void provider_open(struct httpc *http, const struct provider_settings *s, struct provider **out)
{
    struct provider *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->s = *s;
    p->http = http;
    fiber_queue_init(&p->room);
    *out = p;
}

void provider_close(struct provider *p)
{
    free(p);
}

int provider_state(const struct provider *p, struct err *e)
{
    if (!p->failures)
        return 0;
    *e = p->last;
    return -1;
}

/* ---- the breaker ---- */

static bool is_open(const struct provider *p)
{
    return p->failures >= p->s.breaker_failures && (clock_ns() < p->closed_ns || p->probing);
}

static int refuse(const struct provider *p, struct err *e)
{
    int64_t left = (p->closed_ns - clock_ns()) / MS;
    err_set(e, ERR_NOT_READY, "the %s is not asked for a moment, after %d failures in a row", p->s.what, p->failures);
    e->retry_after_ms = (int)(left > 0 ? left : 1000);
    return err_log(e, "the last one: %.200s", *p->last.log ? p->last.log : p->last.msg);
}

static void went_well(struct provider *p)
{
    if (p->failures >= p->s.breaker_failures)
        log_info("the %s answers again", p->s.what);
    p->failures = 0;
    p->probing = false;
}

static void went_wrong(struct provider *p, const struct err *why)
{
    p->last = *why;
    p->probing = false;
    p->closed_ns = clock_ns() + p->s.breaker_pause_ms * MS;
    if (++p->failures == p->s.breaker_failures)
        log_err(LOG_WARN, p->s.what, why);
}

/* ---- one try ---- */

enum provider_verdict provider_judge(const struct provider *p, const struct httpc_reply *r, struct err *e)
{
    if (r->status >= 200 && r->status < 300)
        return PROVIDER_OK;
    bool key = r->status == 401 || r->status == 403, place = r->status == 404 || (r->status >= 300 && r->status < 400);
    bool busy = r->status == 408 || r->status == 409 || r->status == 425 || r->status == 429 || r->status >= 500;
    if (key)
        err_set(e, ERR_NOT_READY, "the %s refuses the API key", p->s.what);
    else if (place)
        err_set(e, ERR_NOT_READY, "the %s knows no such model or path", p->s.what);
    else if (busy)
        err_set(e, ERR_NOT_READY, "the %s is %s", p->s.what, r->status == 429 ? "overloaded" : "in trouble");
    else
        err_set(e, ERR_PROVIDER, "the %s refuses the request", p->s.what);
    e->retry_after_ms = (int)(r->retry_after_ms > 0 ? r->retry_after_ms : 0);
    struct str body = str_sub(r->body, 0, 200);
    body.n = str_utf8_valid_prefix(body);
    err_log(e, "status %d: " STR_FMT, r->status, STR_ARG(body));
    return busy || key || place ? PROVIDER_FAILED : PROVIDER_REFUSED;
}

static suspends int one_try(struct provider *p, struct arena *a, const struct provider_call *call,
                            struct httpc_stream **s, struct httpc_reply *out, struct err *e)
{
    struct httpc_header header[] = {
        {"Content-Type", STR("application/json")},
        {"Accept", s ? STR("text/event-stream, application/json") : STR("application/json")},
        {"Authorization", {0}}};
    if (*p->s.key)
        header[2].value = arena_printf(a, "Bearer %s", p->s.key);
    struct httpc_request q = {.method = "POST",
                              .url = arena_printf(a, "%s%s", p->s.url, call->path),
                              .header = header,
                              .n_header = *p->s.key ? 3 : 2,
                              .body = call->body,
                              .timeout_ms = p->s.timeout_ms,
                              .idle_timeout_ms = p->s.idle_timeout_ms,
                              .max_reply = p->s.max_reply};
    stat_add(p->s.requests, 1);
    *out = (struct httpc_reply){.retry_after_ms = -1};
    return s ? httpc_stream_open(p->http, a, &q, s, out, e) : httpc_do(p->http, a, &q, out, e);
}

/* Of a stream that begins with an error, the body is part of the answer to be judged. */
static suspends void read_rest(struct arena *a, struct httpc_stream *s, struct httpc_reply *out)
{
    enum { ENOUGH = 4096 };
    struct buf b = {0};
    struct str piece;
    struct err e;
    while (b.n < ENOUGH && httpc_stream_read(s, &piece, &e) == 0 && piece.n)
        buf_str(&b, str_sub(piece, 0, ENOUGH));
    out->body = arena_dup(a, buf_view(&b));
    buf_fini(&b);
}

static suspends enum provider_verdict attempt(struct provider *p, struct arena *a, const struct provider_call *call,
                                              struct httpc_stream **s, struct httpc_reply *out, struct err *e)
{
    struct httpc_stream *stream = NULL;
    if (one_try(p, a, call, s ? &stream : NULL, out, e)) {
        if (e->code == ERR_TOO_LARGE || e->code == ERR_VALIDATION)
            e->code = ERR_PROVIDER;
        return PROVIDER_FAILED;
    }
    bool good = out->status >= 200 && out->status < 300;
    if (stream && !good)
        read_rest(a, stream, out);
    enum provider_verdict v = call->judge ? call->judge(call->arg, out, e) : provider_judge(p, out, e);
    if (stream && v == PROVIDER_OK)
        *s = stream;
    else
        httpc_stream_close(stream);
    return v;
}

/* ---- calls ---- */

static int ended(int rc, struct err *e)
{
    return rc == -ETIMEDOUT ? err_set(e, ERR_DEADLINE, "the time of the request is up")
                            : err_set(e, ERR_CANCELED, "canceled");
}

/* False when it would come too late for the fiber, or for anybody's patience. */
static bool bearable(int64_t ms)
{
    return ms <= WAIT_MAX_MS && ms < fiber_time_left() / MS;
}

/* Waits for the server's own request to be left alone, then for one of the places. */
static suspends int enter(struct provider *p, struct err *e)
{
    int rc = 0;
    for (;;) {
        int64_t wait_ms = (p->not_before - clock_ns()) / MS;
        if (is_open(p))
            return refuse(p, e);
        if (wait_ms > 0 && !bearable(wait_ms)) {
            err_set(e, ERR_NOT_READY, "the %s asked to be left alone for a while", p->s.what);
            e->retry_after_ms = (int)wait_ms;
            return -1;
        }
        if (wait_ms > 0)
            rc = fiber_sleep((wait_ms + random() % (1 + wait_ms / 10)) * MS);
        else if (p->running >= p->s.concurrency)
            rc = fiber_queue_wait(&p->room, p->s.what);
        else
            break;
        if (rc < 0) {
            fiber_queue_wake_one(&p->room); /* the turn may have been this one's */
            return ended(rc, e);
        }
    }
    p->running++;
    p->probing = p->failures >= p->s.breaker_failures;
    return 0;
}

static void leave(struct provider *p)
{
    p->running--;
    fiber_queue_wake_one(&p->room);
}

/* How long until the next try; more than bearable() when there shall be none. */
static int64_t delay_ms(struct provider *p, int tries, const struct httpc_reply *r, const struct err *e)
{
    int64_t ms = p->s.retry_delay_ms << (tries < 10 ? tries - 1 : 9);
    ms = ms / 2 + random() % (ms / 2 + 1);
    bool hopeless = r->status == 401 || r->status == 403 || r->status == 404;
    if (r->retry_after_ms > 0 && r->retry_after_ms > ms)
        ms = r->retry_after_ms;
    if (r->retry_after_ms > 0)
        p->not_before = clock_ns() + r->retry_after_ms * MS;
    return tries > p->s.retries || hopeless || e->code == ERR_CANCELED ? INT64_MAX / MS : ms;
}

static suspends int call_with_retries(struct provider *p, struct arena *a, const struct provider_call *call,
                                      struct httpc_stream **s, struct httpc_reply *out, struct err *e)
{
    for (int tries = 1;; tries++) {
        if (enter(p, e))
            return -1;
        int64_t began = clock_ns();
        enum provider_verdict v = attempt(p, a, call, s, out, e);
        int rc = fiber_check();
        bool impatient = rc == -ECANCELED || (rc == -ETIMEDOUT && clock_ns() - began < SLOW_MS * MS);
        if (v == PROVIDER_OK && s)
            return 0; /* its place is kept until the stream ends, and so is the breaker's question */
        if (v == PROVIDER_FAILED && impatient)
            p->probing = false; /* we left; nothing was learnt about the server */
        else if (v == PROVIDER_FAILED)
            went_wrong(p, e);
        else
            went_well(p);
        leave(p);
        if (v == PROVIDER_OK)
            return 0;
        if (v == PROVIDER_REFUSED)
            break;
        if (rc < 0)
            return ended(rc, e);
        if (e->code == ERR_DEADLINE) /* of this try, not of the caller */
            e->code = ERR_NOT_READY;
        int64_t ms = delay_ms(p, tries, out, e);
        if (!bearable(ms) || is_open(p))
            break;
        stat_add(p->s.retried, 1);
        rc = fiber_sleep(ms * MS);
        if (rc < 0)
            return ended(rc, e);
    }
    stat_add(p->s.failed, 1);
    return -1;
}

suspends int provider_post(struct provider *p, struct arena *a, const struct provider_call *call,
                           struct httpc_reply *out, struct err *e)
{
    *out = (struct httpc_reply){.retry_after_ms = -1};
    return call_with_retries(p, a, call, NULL, out, e);
}

suspends int provider_stream(struct provider *p, struct arena *a, const struct provider_call *call,
                             struct httpc_stream **s, struct httpc_reply *out, struct err *e)
{
    *out = (struct httpc_reply){.retry_after_ms = -1};
    return call_with_retries(p, a, call, s, out, e);
}

void provider_stream_end(struct provider *p, struct httpc_stream *s, bool well)
{
    static const struct err broke = {.code = ERR_PROVIDER, .msg = "an answer broke off"};
    if (!s)
        return;
    httpc_stream_close(s);
    if (well)
        went_well(p);
    else
        went_wrong(p, &broke);
    leave(p);
}
