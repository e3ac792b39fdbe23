/* What a worker does, by role. worker.c owns the loop, the signals and the deadlines; a role opens its backends, serves,
 * and lets go. One instance per process, so the state is the role's own and static. All functions are called on the
 * worker's only thread. */
#pragma once
#include "common/heritage.h"

struct role_ops {
    /* Runs on a fiber; the worker becomes READY when it returns 0. -1: the boot failed, `e` says why. */
    int (*start)(const struct heritage *h, struct err *e);
    /* Take on nothing new, finish what is in hand. Called once. */
    void (*drain)(void);
    /* Is nothing in hand any more, and has the store taken leave? Then a draining worker may end. Asked at a drain only. */
    bool (*idle)(void);
    /* The time is up: cancel what is still in hand. */
    void (*cancel)(void);
    /* Pushed settings have changed: take over what was derived from them. NULL: nothing is. */
    void (*reconfigured)(void);
    /* Releases everything, after the last turn of the loop. Also after a failed start. */
    void (*stop)(void);
};

extern const struct role_ops role_http, role_ingest, role_status;
