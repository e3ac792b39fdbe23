#include "worker/role.h"
#include "worker/app.h"
#include "worker/dispatch.h"
#include "worker/fiber/loop.h"
#include "worker/probe.h"
#include "worker/wiring.h"
#include <unistd.h>

static struct {
    struct app app;
    struct dispatch *dispatch;
    struct http_server *server;
} http;

static const struct http_server_ops ops = {.request = dispatch_request};

static suspends int http_start(const struct heritage *h, struct err *e)
{
    http.app = (struct app){.cfg = h->cfg, .heritage = h, .jobs_fd = h->jobs_fd};
    if (backends_open(h->cfg, h->migrate, &http.app.backends, e))
        return -1;
    http.app.store = http.app.backends.store;
    http.dispatch = dispatch_new(h->cfg);
    http.app.proving = h->prove;
    if (http_server_start(h, &http.app, &ops, &http.server, e) || (h->prove && probe_ready(http.server, h->cfg, e)))
        return -1;
    http.app.proving = false;
    return http_server_open(http.server, e);
}

static void http_drain(void)
{
    http.app.draining = true;
    if (http.server)
        http_server_drain(http.server);
    backends_drain(&http.app.backends);
}

static bool http_idle(void)
{
    return (!http.server || http_server_idle(http.server)) && backends_leave(&http.app.backends);
}

static void http_cancel(void)
{
    if (http.server)
        http_server_close_all(http.server);
    backends_cancel(&http.app.backends);
}

static void http_reconfigured(void)
{
    if (http.server)
        http_server_reconfigure(http.server);
}

static void http_stop(void)
{
    http_server_free(http.server);
    dispatch_free(http.dispatch);
    backends_close(&http.app.backends);
    http.server = NULL;
    http.dispatch = NULL;
    http.app.store = NULL;
}

const struct role_ops role_http = {http_start, http_drain, http_idle, http_cancel, http_reconfigured, http_stop};
