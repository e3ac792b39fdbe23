/* A worker: one process, one thread, one event loop, one role. Called by the master in the child after the fork. */
#pragma once
#include "common/heritage.h"

/* Runs until the master, a signal or a fatal error ends it. Returns the exit code: 0 planned, 3 boot failed,
 * 70 internal. Signals: TERM drains, QUIT and INT end within server.fast_timeout, HUP USR2 WINCH TTIN TTOU are ignored. */
int worker_main(const struct heritage *h);

/* For scoreboard_routes. */
uint64_t worker_routes(void);
