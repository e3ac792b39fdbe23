/* Want of memory: when the kernel reports (PSI) that for a large part of the time nobody could run because memory had to be
 * found first, new requests only make it worse. Then the workers are told to refuse them, until it is over.
 *
 * What counts is `full avg10` of our own cgroup, or of the machine where we have none: the share of the last 10 s in which
 * all of us stood still at once. `some` is no sign of trouble: reclaim always makes somebody wait. server.memory_pressure
 * is 40 % unless set: no server that is just busy comes near it, and it is below the 60 % at which systemd-oomd begins to
 * kill. It ends at half of the limit, so that it does not flap. */
#pragma once
#include "common/str.h"

struct master;

struct pressure {
    char path[512]; /* what is read; "" before the first time */
    int64_t due_ns; /* next look */
    bool blind;     /* there is nothing to read, which was said */
};

/* Percent in the line "full avg10=…"; -1: there is none. */
double pressure_parse(struct str text);
/* Looks once a second and tells the workers through the scoreboard. */
void pressure_tick(struct master *m, int64_t now);
