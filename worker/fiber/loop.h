/* The event loop of a worker: libevent's base, one per process, and what happens at the end of each turn. Only
 * worker/fiber, worker/io, worker/net, the stores and the wiring in worker/ include this. */
#pragma once
#include "common/err.h"
#include "common/list.h"
#include <event2/event.h>
#include <event2/event_struct.h>

must_use int loop_init(struct err *e); /* once per process, after the fork */
void loop_fini(void);
struct event_base *loop_base(void);

/* Runs turns until loop_stop(): wait for events, run their callbacks, then the end of the turn: runnable fibers, then
 * hooks in order of their phase, again while they make fibers runnable, then dead objects. */
void loop_run(void);
void loop_stop(void);
bool loop_running(void);
int64_t loop_now(void); /* clock_ns() at the start of this turn's callbacks; cheap */

/* A function called once per turn. Register once; it stays. */
enum loop_phase { LOOP_FLUSH_BACKENDS, LOOP_FLUSH_CLIENTS, LOOP_FLUSH_LOGS, LOOP_PHASES };
struct loop_hook {
    struct list link;
    void (*fn)(void *arg);
    void *arg;
};
void loop_hook_add(struct loop_hook *h, enum loop_phase phase);
void loop_hook_del(struct loop_hook *h);

/* Calls `fn(obj)` at the very end of the turn: the one way to free what a callback of this turn may still hold. */
struct loop_dead {
    struct loop_dead *next;
    void (*fn)(struct loop_dead *self);
};
void loop_bury(struct loop_dead *d, void (*fn)(struct loop_dead *self));

/* One-shot timers in a wheel-like list per timeout value are not needed: libevent's heap is exact and fast enough
 * for what is not per request. Deadlines that every connection has are net/timeouts.h's. */
