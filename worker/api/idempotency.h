/* Idempotency-Key: a POST that a client sends again after losing the answer has its effect once. Called by
 * worker/dispatch.c around the handler of every route whose table line says so. The first request with a key runs and
 * its answer is kept for 24 hours; a second one with the same body gets that answer with `Idempotent-Replayed: true`,
 * one with another body ERR_KEY_REUSED, and one that comes while the first still runs ERR_BUSY. Answers of 5xx are not
 * kept: the client shall try again. */
#pragma once
#include "worker/http/http.h"

/* Runs r->route->handler, or replays. As a handler: 0 with a reply built, or -1 with `e`. */
suspends must_use int idempotency_run(struct request *r, struct err *e);
