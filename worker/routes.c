#include "worker/routes.h"

const struct route routes[] = {
#define ROUTE(method, path, access, body, key, handler, summary) \
    {HTTP_##method, path, ACCESS_##access, BODY_##body, key, handler, #handler, summary},
#include "worker/routes.def"
#undef ROUTE
};

const size_t n_routes = sizeof routes / sizeof *routes;
