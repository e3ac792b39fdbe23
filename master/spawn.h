/* The crew: every worker process, from fork to reaping. One entry for each slot of the scoreboard. An entry that
 * belongs to a generation is kept filled: after a death it is forked again, at once or after a delay that doubles with
 * each failed boot. An entry without one is free, or still holds a process that was asked to leave. */
#pragma once
#include "common/scoreboard.h"

struct master;
struct generation;

/* What a worker was asked to do, in order of force. */
enum ask { ASK_NOTHING, ASK_TERM, ASK_ABRT, ASK_QUIT, ASK_KILL };

struct worker {
    unsigned slot;
    pid_t pid; /* 0: no process */
    enum role role;
    const struct generation *gen; /* NULL: nobody counts on this entry */
    bool once;                    /* not forked again after a death: the canary of a reload */
    unsigned failures;            /* boots in a row that failed */
    int64_t respawn_at;           /* no process: when to fork */

    /* of the process */
    int channel; /* master's end; -1: no process */
    int64_t fork_ns;
    bool was_ready;
    bool blind;           /* it writes to a scoreboard that this binary cannot read: only its process is watched */
    enum recycle recycle; /* it asked to be replaced, and counts no longer towards the target */
    enum ask asked;
    int64_t deadline;    /* of `asked`: then comes the next, harder one. Of ASK_NOTHING: end of the boot. 0: none */
    int64_t slow_upto;   /* requests that began until then have been looked at, whether they are slow */
    int64_t beat_floor;  /* no beat before this time counts as missed */
    int64_t watchdog_ms; /* settings of its generation, which it may outlive */
    int64_t fast_ms, abort_ms, uptime_ms;
    enum death cause; /* why the master ended it; DEATH_COUNT: it did not */
    int status;       /* wait status of the last process that ended here */
};

struct crew {
    struct worker *v;
    unsigned n;
};

#define crew_for_each(w, crew) for (struct worker *w = (crew)->v; w < (crew)->v + (crew)->n; w++)

must_use int crew_init(struct crew *c, unsigned slots, struct err *e);
void crew_fini(struct crew *c);

/* Takes a free entry for one more worker; the next crew_tick() forks it. NULL: none is free. */
struct worker *crew_add(struct master *m, const struct generation *g, enum role role);
/* Asks it to finish what it is doing and to leave; harder ones follow at their deadlines. It is not replaced. */
void crew_drain(struct master *m, struct worker *w);
void crew_quit(struct master *m, struct worker *w);
/* Of a generation that is given up: where it serves, it does so until enough of the current one do. */
void crew_stand_in(struct master *m, struct worker *w);

void crew_reap(struct master *m);              /* collects every child that ended, also those nobody knows */
void crew_tick(struct master *m, int64_t now); /* deadlines, watchdog, forks that are due */
void crew_level(struct master *m); /* adds and drains until the current generation has its targets, none when parked */
/* A reload that only pushes keys: the workers of `from` are those of `to` from now on. */
void crew_adopt(struct master *m, const struct generation *from, const struct generation *to);
void crew_shift(struct crew *c, int64_t gap, int64_t now); /* the master slept for `gap`: no worker pays for it */
int64_t crew_next_due(const struct crew *c);               /* earliest deadline or fork; INT64_MAX: none */

bool crew_ready(const struct master *m, const struct worker *w);
int crew_count(const struct master *m, const struct generation *g, enum role role, bool ready_only);
bool crew_complete(const struct master *m, const struct generation *g); /* as many are READY as it wants */
int crew_alive(const struct crew *c);
bool crew_booting(const struct crew *c);
/* How its last process ended, and why, when that is known: "exit 3: /readyz says: the database cannot be reached". */
void crew_describe_death(const struct master *m, const struct worker *w, char *out, size_t cap);
/* One that has failed to boot three times in a row; with `all` only if there is no other. NULL: there is hope. */
const struct worker *crew_hopeless(const struct crew *c, bool all);

/* Delay before the next fork after `failures` in a row, without the jitter: 0, 100, 200, 400 … 30000 ms. */
int64_t crew_delay_ms(unsigned failures);
