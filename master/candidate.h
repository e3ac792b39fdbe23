/* The candidate: the one child that is no worker. First `NEW check`, to see whether the new binary can work with the
 * configuration, then the new master itself. */
#pragma once
#include "master/estate.h"
#include "master/handshake.h"
#include <sys/types.h>

struct candidate {
    pid_t pid; /* 0: none */
    int status;
    bool ended;       /* since candidate_died() was asked last */
    int64_t deadline; /* 0, or when it is killed because it has not ended */
    int output;       /* pipe: stderr of the check; -1: none */
    struct event ev;
    char line[320]; /* the last line that it wrote there */
    size_t n;
    bool line_ended;
};

/* Runs `NEW check` with the options of this server; what it writes last is the reason when it fails. */
must_use int candidate_check(struct candidate *c, const struct master *m, struct err *e);
/* Starts the new master with an estate of this kind; `h` leads to it. */
must_use int candidate_boot(struct candidate *c, const struct master *m, enum estate_kind kind, struct handshake *h,
                            struct err *e);
/* Signals it, if it lives; it is killed when it has not ended `within_ms` later. */
void candidate_end(struct candidate *c, int number, int64_t within_ms);
void candidate_tick(struct candidate *c, int64_t now);
bool candidate_reaped(struct candidate *c, pid_t pid, int status); /* false: it was somebody else */
bool candidate_died(struct candidate *c);                          /* true once after its end */
/* How it ended, or what it wrote last. */
void candidate_describe(const struct candidate *c, char *out, size_t cap);
void candidate_fini(struct candidate *c);
