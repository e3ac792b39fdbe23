/* The places for connections to the database: one block of shared memory for all workers of all masters that serve at the
 * same time. It is a memfd of its own, which a master passes on when it is upgraded; worker/io/pg_budget.c says what it
 * means.
 *
 * An owner is a process that has joined. It holds a lock on the byte of the memfd that has its number, until it ends in
 * whatever way: so everybody can see who lives, also across users, PID namespaces and masters, and no number is ever taken
 * for that of another process. */
#pragma once
#include "common/err.h"
#include <stdatomic.h>

enum { PLACES_MAX = 10000, PLACES_OWNERS = 2048 };

/* Of the places that it needs. */
struct places_owner {
    _Atomic uint32_t serial;   /* one more for each process that joins as this one */
    _Atomic int64_t since_ns;  /* when it first looked for one and found none; 0: it has what it needs */
    _Atomic int64_t looked_ns; /* when it last looked */
};

struct places {
    uint64_t layout;
    _Atomic uint64_t place[PLACES_MAX];
    struct places_owner owner[PLACES_OWNERS];
};

/* Maps a new block. On success *fd is the memfd (CLOEXEC), the caller's to close. */
must_use int places_create(struct places **out, int *fd, struct err *e);
/* Maps one that another release may have made. False, and nothing is mapped, when it is another kind of block. The
 * descriptor stays the caller's. */
bool places_adopt(int fd, struct places **out);
void places_unmap(struct places *p);

/* Makes this process an owner. The descriptor must stay open, and no other one of the same memfd may be closed. */
must_use int places_join(struct places *p, int fd, struct err *e);
struct places *places_self(void);             /* NULL before places_join() */
struct places_owner *places_owner_self(void); /* only its process writes it */
uint64_t places_mark(void);                   /* of this process; never 0, less than 2^63 */
bool places_lives(uint64_t mark);             /* does the process with this mark? A death may be seen a little late */
