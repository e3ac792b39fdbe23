/* What the files of worker/fiber share. */
#pragma once
#include "worker/fiber/fiber.h"
#include "worker/fiber/stack.h"
#include <setjmp.h>

enum fiber_state { FIBER_RUNNING, FIBER_PARKED, FIBER_READY, FIBER_GONE };

struct fiber {
    struct list live;           /* all that are alive, oldest first */
    struct list ready;          /* in the list of those that run at the end of the turn */
    struct list wait;           /* in a fiber_queue */
    struct list timed;          /* has a deadline */
    struct fiber *resumer;      /* runs on when this one parks or ends */
    struct fiber *next_in_pool; /* valid while GONE */
    enum fiber_state state;
    bool started;    /* its stack has run before */
    int wait_result; /* of the park that ended: 0, -ECANCELED or -ETIMEDOUT */
    int reason;      /* why no wait is granted any more, or 0 */
    int shield;
    int64_t deadline, born_ns, parked_ns;
    const char *name, *why;
    void (*fn)(void *);
    void *arg, *data;
    void *fake_stack; /* ASan's */
    struct stack stack;
    jmp_buf env;
    char label[48];
};

/* One pass of the end of a turn: runs the fibers that were ready when it was called. */
void fiber_run_ready(void);
bool fiber_any_ready(void);
bool fiber_any_yielded(void);
/* Yielded fibers become ready: called once at the start of an end of turn. */
void fiber_unyield(void);
/* Parks until the next turn. */
suspends int fiber_park_for_a_turn(void);
/* The loop goes away: gives up what is registered with it. */
void fiber_detach_loop(void);
void blocking_fini(void);
