/* The status role: one process that tells how the others are, on addresses of its own. It knows the scoreboard and nothing
 * else: no store, no other worker; so it answers also while all of them are stuck. */
#include "common/clock.h"
#include "common/status.h"
#include "worker/api/metrics.h"
#include "worker/app.h"
#include "worker/http/access.h"
#include "worker/http/http.h"
#include "worker/role.h"
#include "worker/routes.h"

#define JSON_TYPE "application/json"

static struct {
    struct app app;
    struct router *router;
    struct http_server *server;
} role;

/* ---- what it serves ---- */

static int get_ready(struct request *r, struct err *e)
{
    struct buf why = {0};
    bool ready = status_ready(scoreboard_self(), &why);
    (void)e;
    struct buf *b = reply_begin(r, ready ? 200 : 503, JSON_TYPE);
    if (ready) {
        buf_lit(b, "{\"status\":\"ready\"}");
    } else {
        reply_header(r, STR("Retry-After"), STR("1"));
        buf_printf(b, "{\"status\":\"not_ready\",\"reason\":\"%.*s\"}", (int)why.n, why.p);
    }
    buf_fini(&why);
    return 0;
}

static int get_metrics(struct request *r, struct err *e)
{
    (void)e;
    metrics_text(reply_begin(r, 200, METRICS_TYPE));
    return 0;
}

static int get_status(struct request *r, struct err *e)
{
    (void)e;
    status_json(scoreboard_self(), reply_begin(r, 200, JSON_TYPE));
    return 0;
}

static const struct route table[] = {
    {HTTP_GET, "/livez", ACCESS_OPEN, BODY_NONE, false, api_livez, "livez", "Liveness"},
    {HTTP_GET, "/readyz", ACCESS_OPEN, BODY_NONE, false, get_ready, "readyz", "Readiness"},
    {HTTP_GET, "/metrics", ACCESS_OPEN, BODY_NONE, false, get_metrics, "metrics", "Prometheus text"},
    {HTTP_GET, "/status.json", ACCESS_OPEN, BODY_NONE, false, get_status, "status", "As `ragd status --json`"},
};

/* Its requests are not those of the server: they are logged and not counted. */
static suspends void serve(struct request *r)
{
    struct err e = {.code = ERR_NONE};
    unsigned allow = 0;
    r->route = router_find(role.router, r->method, r->path, r->param, &allow);
    r->path = path_decoded(r, r->path);
    int rc = -1;
    if (r->route) {
        rc = r->route->handler(r, &e);
    } else if (allow) {
        reply_header(r, STR("Allow"), STR("GET, HEAD"));
        err_set(&e, ERR_METHOD, "this resource does not know the method " STR_FMT, STR_ARG(r->method_name));
    } else {
        err_set(&e, ERR_NOT_FOUND, "there is nothing at this path: here are /livez, /readyz, /metrics, /status.json");
    }
    if (rc)
        reply_problem(r, &e);
    else
        reply_finish(r);
    access_log(r, clock_ns());
}

/* ---- the role ---- */

static const struct http_server_ops ops = {.request = serve};

static suspends int start(const struct heritage *h, struct err *e)
{
    role.app = (struct app){.cfg = h->cfg, .heritage = h, .jobs_fd = -1};
    role.router = router_new(table, sizeof table / sizeof *table);
    return http_server_start(h, &role.app, &ops, &role.server, e) ? -1 : http_server_open(role.server, e);
}

static void drain(void)
{
    if (role.server)
        http_server_drain(role.server);
}

static bool idle(void)
{
    return !role.server || http_server_idle(role.server);
}

static void cancel(void)
{
    if (role.server)
        http_server_close_all(role.server);
}

static void reconfigured(void)
{
    if (role.server)
        http_server_reconfigure(role.server);
}

static void stop(void)
{
    http_server_free(role.server);
    router_free(role.router);
    role.server = NULL;
    role.router = NULL;
}

const struct role_ops role_status = {start, drain, idle, cancel, reconfigured, stop};
