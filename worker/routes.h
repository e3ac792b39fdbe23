/* The table of worker/routes.def as data, and the prototypes of the handlers that it names. */
#pragma once
#include "worker/http/http.h"

extern const struct route routes[];
extern const size_t n_routes;

/* All may suspend. */
#define ROUTE(method, path, access, body, key, handler, summary) int handler(struct request *r, struct err *e);
#include "worker/routes.def"
#undef ROUTE
