/* Signals of the master: blocked for good and read from a descriptor, so that no handler ever runs and none is lost
 * before the loop starts, also as PID 1. */
#pragma once
#include "common/err.h"

/* Blocks every signal that the master handles. First thing after the command line is known. */
void signals_block(void);
/* A signalfd for them. The caller's. */
must_use int signals_open(int *fd, struct err *e);
/* Bit n of the result: signal n was pending. */
uint64_t signals_read(int fd);
/* In a program that the master runs: as if nothing had happened. */
void signals_default(void);
/* The same, but what is blocked stays so: another master loses none. */
void signals_default_blocked(void);
/* In a child: default actions, nothing blocked; what a worker is to ignore is ignored already during its boot. */
void signals_child(void);
