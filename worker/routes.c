#include "worker/routes.h"
#include "worker/worker.h"

const struct route routes[] = {
#define ROUTE(method, path, access, body, key, handler, summary) \
    {HTTP_##method, path, ACCESS_##access, BODY_##body, key, handler, #handler, summary},
#include "worker/routes.def"
#undef ROUTE
};

const size_t n_routes = sizeof routes / sizeof *routes;

uint64_t worker_routes(void)
{
    uint64_t h = 0;
    for (size_t i = 0; i < n_routes; i++)
        h = scoreboard_mix(h, routes[i].name);
    return h;
}
