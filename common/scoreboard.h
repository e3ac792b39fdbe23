/* The scoreboard: one block of shared memory in which every process of the server keeps its own slot. It is a memfd
 * that the master makes before it forks. The owner of a slot is its only writer, except for the few fields that say
 * otherwise; readers take what they find, and nothing here is ever locked. */
#pragma once
#include "common/err.h"
#include "common/str.h"
#include <stdatomic.h>
#include <sys/types.h>

enum role { ROLE_MASTER, ROLE_HTTP, ROLE_INGEST, ROLE_COUNT };
const char *role_name(enum role role); /* "http" */

/* FREE → FORKED → BOOTING → READY → DRAINING → EXITED by the owner; HUNG, ABORTING, KILLED by the master. */
#define WORKER_STATES(X) X(FREE) X(FORKED) X(BOOTING) X(READY) X(DRAINING) X(EXITED) X(HUNG) X(ABORTING) X(KILLED)
enum worker_state {
#define X(name) WORKER_##name,
    WORKER_STATES(X)
#undef X
};
const char *worker_state_name(enum worker_state state); /* "READY" */

enum stat_id {
#define COUNTER(name, help) STAT_##name,
#define GAUGE(name, help)   STAT_##name,
#include "common/stats.def"
#undef COUNTER
#undef GAUGE
    STAT_COUNT
};

/* Upper bounds of the latency histogram in microseconds; the last bucket is +Inf. */
#define LATENCY_BOUNDS_US                                                                                   \
    {                                                                                                       \
        250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 10000000 \
    }
enum {
    LATENCY_BUCKETS = 15,
    SCORE_ROUTES = 96, /* index 0 counts what matched no route */
    SCORE_CLASSES = 5, /* 2xx counts at [1] … 5xx at [4] */
    SCORE_FLIGHTS = 64,
    SCORE_SLOTS_MAX = 512,
};

/* One request being answered; kept so that a dead worker's requests can be named. `start_ns` = 0: free. */
struct flight {
    _Atomic int64_t start_ns;
    uint16_t route;
    char method[8];
    char path[70];
    char request_id[40];
};

struct route_score {
    uint64_t by_class[SCORE_CLASSES];
    uint64_t latency[LATENCY_BUCKETS];
    uint64_t latency_sum_us;
};

struct slot {
    _Alignas(64) _Atomic int state; /* enum worker_state */
    _Atomic pid_t pid;              /* master */
    uint32_t role, generation, index;
    _Atomic int64_t fork_ns;        /* master: monotonic */
    _Atomic int64_t ready_ns;       /* owner */
    _Atomic int64_t beat_ns;        /* owner: the loop turned at this time */
    _Atomic int connections;        /* owner; read by siblings that decide whether to accept */
    int64_t rss_kb, cpu_us;         /* owner, about once a second */
    uint32_t restarts, last_status; /* master: wait(2) status of the previous process of this slot */
    uint64_t stat[STAT_COUNT];
    struct route_score route[SCORE_ROUTES];
    struct flight flight[SCORE_FLIGHTS];
};

#define DEATH_REASONS(X) X(exit) X(signal) X(hung) X(boot_timeout) X(boot_failed) X(oom)
enum death {
#define X(name) DEATH_##name,
    DEATH_REASONS(X)
#undef X
        DEATH_COUNT
};

struct scoreboard {
    uint32_t magic, version, capacity;
    _Atomic uint32_t slots;          /* master: those that were ever taken; readers need not touch the others */
    int64_t start_ns, start_wall_us; /* of the master */
    _Atomic int draining;            /* master: 1 once the server stops; /readyz answers 503 */
    _Atomic uint32_t generation;     /* master: current one */
    _Atomic uint64_t reloads_ok, reloads_failed;
    _Atomic uint64_t deaths[ROLE_COUNT][DEATH_COUNT]; /* master */
    struct slot slot[];
};

/* Maps a new scoreboard. On success *fd is the memfd (CLOEXEC), the caller's to close. */
must_use int scoreboard_create(struct scoreboard **out, int *fd, unsigned slots, struct err *e);
void scoreboard_unmap(struct scoreboard *sb);

/* The slot that this process writes. Before scoreboard_attach() it is a private one that nobody reads, so that code
 * under test and one-shot commands count as well. */
extern struct slot *slot_self;
void scoreboard_attach(struct scoreboard *sb, unsigned slot);
struct scoreboard *scoreboard_self(void); /* NULL before scoreboard_attach() */

static inline void stat_add(enum stat_id s, uint64_t n)
{
    slot_self->stat[s] += n;
}
static inline void stat_sub(enum stat_id s, uint64_t n)
{
    slot_self->stat[s] -= n;
}
#define STAT_ADD(name, n) stat_add(STAT_##name, n)
#define STAT_SUB(name, n) stat_sub(STAT_##name, n)

void score_request(unsigned route, int status, int64_t latency_ns);

/* Flight recorder. Returns a handle for flight_end(); -1 when all places are taken (then nothing is recorded). */
int flight_begin(unsigned route, struct str method, struct str path, struct str request_id, int64_t start_ns);
void flight_end(int handle);
