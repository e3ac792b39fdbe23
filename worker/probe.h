/* The proof that a worker can serve: it asks itself for /readyz, over a socket pair and through its own HTTP engine, before
 * it takes a connection of anybody else. Done at the end of a boot on which a reload or an upgrade hangs (heritage.h). */
#pragma once
#include "worker/http/http.h"

/* 0 when the answer is 200; else ERR_NOT_READY with the reason that it gives. */
suspends must_use int probe_ready(struct http_server *s, const struct config *cfg, struct err *e);
