#include "worker/role.h"
#include "worker/app.h"
#include "worker/dispatch.h"
#include "worker/fiber/loop.h"
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
    if (store_open(h->cfg, &http.app.store, e))
        return -1;
    http.dispatch = dispatch_new(h->cfg);
    return http_server_start(h, &http.app, &ops, &http.server, e);
}

static void http_drain(void)
{
    http.app.draining = true;
    if (http.server)
        http_server_drain(http.server);
}

static bool http_idle(void)
{
    return !http.server || http_server_idle(http.server);
}

static void http_cancel(void)
{
    if (http.server)
        http_server_close_all(http.server);
}

static void http_stop(void)
{
    http_server_free(http.server);
    dispatch_free(http.dispatch);
    store_close(http.app.store);
    http.server = NULL;
    http.dispatch = NULL;
    http.app.store = NULL;
}

const struct role_ops role_http = {http_start, http_drain, http_idle, http_cancel, http_stop};
