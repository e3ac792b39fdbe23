/* A request's whole path through the server, from its head to its line in the access log. Runs on the request's fiber. */
#pragma once
#include "worker/http/http.h"

struct dispatch;

struct dispatch *dispatch_new(const struct config *cfg); /* one per worker */
void dispatch_free(struct dispatch *d);
/* The `request` of struct http_server_ops. Uses the worker's dispatch. */
suspends void dispatch_request(struct request *r);
