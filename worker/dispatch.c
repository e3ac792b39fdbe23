#include "worker/dispatch.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/scoreboard.h"
#include "worker/api/idempotency.h"
#include "worker/app.h"
#include "worker/fiber/fiber.h"
#include "worker/fiber/loop.h"
#include "worker/http/access.h"
#include "worker/routes.h"
#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

enum { UPLOAD_ENVELOPE = 1 << 20 }; /* what multipart adds to a document */
enum { SHEDDING_RETRY_MS = 5000 };  /* the master's measure is an average of 10 s */
/* Memory of large requests after which the heap gives back what is free: when all is quiet, or in any case. */
enum { LARGE = 64 << 10, TRIM_QUIET = 8 << 20, TRIM_BUSY = 1 << 30 };

struct dispatch {
    struct router *router;
    struct str base_path;
    int64_t in_flight;
    size_t used; /* by large requests, since the heap was trimmed */
    struct log_limit refused[ERR_COUNT];
    struct loop_hook hook; /* tells of refusals that were left out of the log */
    bool left_out;
};

static struct dispatch *self;

static void on_turn(void *arg);

struct dispatch *dispatch_new(const struct config *cfg)
{
    struct dispatch *d = calloc(1, sizeof *d);
    if (!d)
        abort();
    assert(n_routes < SCORE_ROUTES);
    d->router = router_new(routes, n_routes);
    d->base_path = str_of(cfg->server_base_path);
    while (d->base_path.n && d->base_path.p[d->base_path.n - 1] == '/')
        d->base_path.n--;
    d->hook = (struct loop_hook){.fn = on_turn, .arg = d};
    loop_hook_add(&d->hook, LOOP_FLUSH_LOGS);
    self = d;
    return d;
}

void dispatch_free(struct dispatch *d)
{
    if (!d)
        return;
    loop_hook_del(&d->hook);
    router_free(d->router);
    free(d);
    self = NULL;
}

/* ---- finding the route ---- */

static bool strip_base_path(struct request *r)
{
    size_t n = self->base_path.n;
    if (!n)
        return true;
    if (!str_starts(r->path, self->base_path) || (r->path.n > n && r->path.p[n] != '/'))
        return false;
    r->path = r->path.n == n ? STR("/") : str_sub(r->path, n, SIZE_MAX);
    return true;
}

static void allow_header(struct request *r, unsigned allow)
{
    struct buf b = {0};
    allow |= 1u << HTTP_OPTIONS;
    for (int m = 0; m < HTTP_METHOD_COUNT; m++)
        if (allow & 1u << m) {
            if (b.n)
                buf_lit(&b, ", ");
            buf_str(&b, http_method_name((enum http_method)m));
        }
    reply_header(r, STR("Allow"), buf_view(&b));
    buf_fini(&b);
}

static bool hidden(const struct request *r, struct str path)
{
    return !r->cfg->debug_faults && str_starts(path, STR("/debug/"));
}

/* 1: r->route is set; 0: answered (OPTIONS); -1: e says why not. */
static int find_route(struct request *r, struct err *e)
{
    unsigned allow = 0;
    const struct route *found = NULL;
    bool all = r->method == HTTP_OPTIONS && str_eq(r->path, STR("*"));
    bool inside = all || strip_base_path(r);
    if (inside && !all && !hidden(r, r->path))
        found = router_find(self->router, r->method, r->path, r->param, &allow);
    r->path = path_decoded(r, r->path);
    if (found) {
        r->route = found;
        for (int i = 0; i < REQUEST_PARAMS && r->param[i].n; i++)
            r->param[i] = path_decoded(r, r->param[i]);
        return 1;
    }
    if (r->method == HTTP_OPTIONS && (all || allow)) {
        allow_header(r, all ? (1u << HTTP_METHOD_COUNT) - 1 : allow);
        reply_begin(r, 204, NULL);
        return 0;
    }
    if (!allow)
        return err_set(e, ERR_NOT_FOUND, "there is nothing at this path");
    allow_header(r, allow);
    return err_set(e, ERR_METHOD, "this resource does not know the method " STR_FMT, STR_ARG(r->method_name));
}

/* ---- one request ---- */

static unsigned route_index(const struct request *r)
{
    return r->route ? (unsigned)(r->route - routes) + 1 : 0;
}

static void set_body_limit(struct request *r)
{
    const struct config *cfg = r->cfg;
    switch (r->route->body) {
    case BODY_NONE: body_limit(r, 0); break;
    case BODY_JSON: body_limit(r, cfg->limits_json_body); break;
    case BODY_UPLOAD: body_limit(r, cfg->limits_upload + UPLOAD_ENVELOPE); break;
    case BODY_STREAM: body_limit(r, -1); break;
    }
}

static bool shedding(void)
{
    const struct scoreboard *sb = scoreboard_self();
    return sb && atomic_load_explicit(&sb->shedding, memory_order_relaxed);
}

/* Probes are answered: a supervisor must not take a busy server for a dead one. */
static int admit(const struct request *r, struct err *e)
{
    if (r->route->access == ACCESS_OPEN)
        return 0;
    if (shedding()) {
        STAT_ADD(requests_shed_total, 1);
        err_set(e, ERR_OVERLOADED, "the server is short of memory");
        e->retry_after_ms = SHEDDING_RETRY_MS;
        return -1;
    }
    if (self->in_flight > r->cfg->http_max_in_flight)
        return err_set(e, ERR_OVERLOADED, "the server has as many requests in hand as it can work on");
    return 0;
}

static suspends int handle(struct request *r, struct err *e)
{
    set_body_limit(r);
    if (admit(r, e))
        return -1;
    if (r->cfg->http_request_timeout)
        fiber_set_deadline(fiber_self(), r->start_ns + r->cfg->http_request_timeout * MS);
    int rc = r->route->idempotent_key && request_header(r, STR("idempotency-key")).p ? idempotency_run(r, e)
                                                                                     : r->route->handler(r, e);
    if (rc == 0 && !reply_status(r))
        rc = err_set(e, ERR_INTERNAL, "the handler gave no answer");
    if (rc)
        reply_reset(r);
    return rc;
}

/* In an outage every request is refused for the same reason: of each kind, one line a second. */
static void log_refusal(const struct request *r, const struct err *e)
{
    char more[LOG_LIMIT_TEXT], what[sizeof r->id + LOG_LIMIT_TEXT];
    if (!log_limit(&self->refused[e->code], clock_ns(), more)) {
        self->left_out = true;
        return;
    }
    snprintf(what, sizeof what, "%s%s", r->id, more);
    log_err(LOG_WARN, what, e);
}

static void on_turn(void *arg)
{
    struct dispatch *d = arg;
    char more[LOG_LIMIT_TEXT];
    if (!d->left_out)
        return;
    d->left_out = false;
    for (int code = 0; code < ERR_COUNT; code++) {
        if (log_limit_rest(&d->refused[code], loop_now(), more))
            log_warn("%s:%s", err_wire((enum err_code)code), more);
        d->left_out |= d->refused[code].left_out > 0;
    }
}

static void fail(struct request *r, struct err *e)
{
    if (e->code == ERR_CANCELED && fiber_check() == -ETIMEDOUT) /* a wait that ended by the request's deadline */
        err_set(e, ERR_DEADLINE, "the request took longer than http.request_timeout allows");
    if (e->code == ERR_CANCELED)
        STAT_ADD(requests_canceled_total, 1);
    else if (e->code == ERR_OVERLOADED && shedding())
        log_err(LOG_DEBUG, r->id, e); /* of all these the master has written one line */
    else if (e->code == ERR_INTERNAL)
        log_err(LOG_ERROR, r->id, e);
    else if (err_status(e->code) >= 500)
        log_refusal(r, e);
    else if (e->log[0])
        log_err(LOG_DEBUG, r->id, e);
    reply_problem(r, e);
}

/* A thousand uploads at once need a hundred megabytes; a worker that is idle again does not. */
static void trim(const struct request *r)
{
    size_t size = arena_size(&r->arena);
    if (size > LARGE)
        self->used += size;
    if (self->used < (self->in_flight ? TRIM_BUSY : TRIM_QUIET))
        return;
    self->used = 0;
    malloc_trim(0);
}

/* What the client took its time for is not ours. */
static void log_if_slow(const struct request *r, int64_t now)
{
    int64_t limit = r->cfg->server_slow_request * MS, took = now - r->start_ns - request_waited_ns(r);
    if (limit && took >= limit)
        log_warn("slow request: %.3f s for " STR_FMT " %s, answered %d, request %s", (double)took / SEC,
                 STR_ARG(r->method_name), r->route ? r->route->path : "(no route)", reply_status(r), r->id);
}

suspends void dispatch_request(struct request *r)
{
    struct err e;
    e.code = ERR_NONE; /* not cleared as a whole: it is large, and every request comes by here */
    e.retry_after_ms = 0;
    e.pointer[0] = e.msg[0] = e.log[0] = 0;
    self->in_flight++;
    STAT_ADD(requests_in_flight, 1);
    fiber_label(fiber_self(), r->id);
    int found = find_route(r, &e);
    int flight = flight_begin(route_index(r), r->method_name, r->target, str_of(r->id), r->start_ns);
    fiber_set_data(fiber_self(), flight_at(flight));
    if (found > 0)
        found = handle(r, &e);
    if (found < 0)
        fail(r, &e);
    else
        reply_finish(r);
    fiber_set_data(fiber_self(), NULL);
    flight_end(flight);
    int64_t now = clock_ns();
    score_request(route_index(r), reply_status(r), now - r->start_ns);
    access_log(r, now);
    log_if_slow(r, now);
    STAT_SUB(requests_in_flight, 1);
    self->in_flight--;
    trim(r);
}
