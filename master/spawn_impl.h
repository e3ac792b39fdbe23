/* What spawn.c and watch.c share: the ways to lead a worker from one state to the next. */
#pragma once
#include "common/scoreboard.h"
#include "master/spawn.h"

struct slot *crew_slot(const struct master *m, const struct worker *w);
/* Signals it; when it is still there after `within_ms`, the next harder signal follows. -1: none does. */
void crew_ask(struct worker *w, enum ask what, int64_t within_ms);
void crew_release(struct master *m, struct worker *w); /* it belongs to no generation any more: not forked again */
void crew_was_ready(struct master *m, struct worker *w);
/* When the place of a process that ends now is filled again. A healthy life clears its record. */
void crew_schedule(const struct master *m, struct worker *w, int64_t now);

/* Boot timeout, deadlines, hangs and slow requests of one process. */
void watch_worker(struct master *m, struct worker *w, int64_t now);
/* The number of requests that the worker is busy with; with `print` they are logged. */
int watch_flights(const struct slot *s, int64_t now, bool print);
