/* The scoreboard: one block of shared memory in which every process of the server keeps its own slot. It is a memfd
 * that the master makes before it forks. The owner of a slot is its only writer, except for the few fields that say
 * otherwise; readers take what they find, and nothing here is ever locked.
 *
 * Readers trust nothing that they find: a worker that runs wild may have written anything anywhere, and takes nobody with
 * it. No value from here is an index, a length or a divisor unless it was checked after it was read. */
#pragma once
#include "common/err.h"
#include "common/str.h"
#include <stdatomic.h>
#include <sys/types.h>

/* HTTP and INGEST workers do what the server is for. STATUS is one process at most, which tells how they are: it counts
 * neither for readiness nor for scaling. */
enum role { ROLE_MASTER, ROLE_HTTP, ROLE_INGEST, ROLE_STATUS, ROLE_COUNT };
const char *role_name(enum role role); /* "http"; as the other names here: "?" for a number that none has */

/* By the master: FREE, nobody; FORKED, a process that has not come to its own code; HUNG, its loop stands still; ABORTING,
 * it was sent ABRT; KILLED, it was sent KILL. By the owner: BOOTING, opens its backends; READY, serves; DRAINING, finishes
 * what is in flight and takes on nothing new; EXITED, about to end, or ended and not forked again yet. */
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
    SCORE_NOTE_WORDS = 640,
};

/* One request being answered; kept so that a dead worker's requests can be named. `start_ns` = 0: free. */
struct flight {
    _Atomic int64_t start_ns;
    uint16_t route;
    char method[8];
    char path[70];
    char request_id[40];
    char asked[30]; /* the last thing that it has asked the database for; "": nothing yet */
};

struct route_score {
    uint64_t by_class[SCORE_CLASSES];
    uint64_t latency[LATENCY_BUCKETS];
    uint64_t latency_sum_us;
};

/* Documents that were read in cages: of which format they are, or are said to be, and what came of it. */
#define CAGE_FORMATS(X) \
    X(text)             \
    X(code)             \
    X(markdown) X(html) X(csv) X(json) X(xml) X(eml) X(rtf) X(pdf) X(docx) X(pptx) X(xlsx) X(odf) X(epub) X(other)
#define CAGE_OUTCOMES(X) X(ok) X(refused) X(crashed) X(memory) X(timeout) X(failed) X(canceled)
enum cage_outcome {
#define X(name) CAGE_OUTCOME_##name,
    CAGE_OUTCOMES(X)
#undef X
        CAGE_OUTCOME_COUNT
};
enum cage_format {
#define X(name) CAGE_FORMAT_##name,
    CAGE_FORMATS(X)
#undef X
        CAGE_FORMAT_COUNT
};
struct cage_score {
    uint64_t by_outcome[CAGE_OUTCOME_COUNT];
    uint64_t sum_us; /* from the request to the text */
};

/* The requests of the last ten seconds, as of the last one. */
struct window {
    int64_t span_ns; /* what it really covers: less in a young worker */
    uint32_t latency[LATENCY_BUCKETS];
};

/* A slot begins a page, so that its owner can be the only one who may write to it. */
struct slot {
    _Alignas(4096) _Atomic int state; /* enum worker_state */
    _Atomic pid_t pid;                /* master; owner, at its start: it may be faster */
    uint32_t role, generation;
    _Atomic int64_t fork_ns;  /* master: monotonic */
    _Atomic int64_t ready_ns; /* owner */
    _Atomic int64_t beat_ns;  /* owner: the loop turned at this time */
    _Atomic int connections;  /* owner; read by siblings that decide whether to accept */
    _Atomic int recycle;      /* owner: enum recycle, why it asks to be replaced; master: none, at the fork */
    _Atomic int64_t store_ok_ns, store_away_ns; /* owner: when /readyz last found the store, and when not; 0: never */
    int64_t rss_kb, cpu_us;                     /* owner, about once a second */
    int64_t anon_kb;                            /* owner, likewise: of rss_kb, what maps no file and so is its alone */
    _Atomic uint32_t
        order; /* owner: serial of the last order of the master that it carried out; master: of the last before the fork */
    struct window window;         /* owner, about once a second */
    uint32_t restarts, failures;  /* master; failures: boots in a row that failed */
    uint32_t death, death_status; /* master: enum death and wait(2) status of the last process that died unasked */
    int64_t death_us;             /* master: when, wall clock; 0: none has */
    char last_words[320];         /* owner: why its boot failed; master: "", at the fork */
    uint64_t stat[STAT_COUNT];
    struct route_score route[SCORE_ROUTES];
    struct cage_score cage[CAGE_FORMAT_COUNT];
    struct flight flight[SCORE_FLIGHTS];
};

#define DEATH_REASONS(X) X(exit) X(signal) X(hung) X(boot_timeout) X(boot_failed) X(oom)
enum death {
#define X(name) DEATH_##name,
    DEATH_REASONS(X)
#undef X
        DEATH_COUNT
};
const char *death_name(enum death why); /* "hung" */
/* How a process ended, from its wait(2) status: "exit 3", "signal 9 (KILL)". */
void death_describe(int status, char *out, size_t cap);

/* Why a worker asks to be replaced: X(reason). It goes on serving until its replacement is READY. */
#define RECYCLE_REASONS(X) X(none) X(requests) X(lifetime) X(rss)
enum recycle {
#define X(name) RECYCLE_##name,
    RECYCLE_REASONS(X)
#undef X
        RECYCLE_COUNT
};
const char *recycle_name(enum recycle why); /* "requests" */

struct scoreboard {
    uint32_t magic, version, capacity;
    uint64_t layout;                 /* equal in programs that mean the same by what is in here */
    _Atomic uint32_t slots;          /* master: see scoreboard_slots() */
    int64_t start_ns, start_wall_us; /* of the master */
    _Atomic int draining;            /* master: 1 once the server stops; /readyz answers 503 */
    _Atomic int handed_over;         /* master: 1 while another master of this server takes the connections */
    _Atomic int shedding;        /* master: 1 while memory is short; requests are refused, and /readyz answers 503 */
    _Atomic uint32_t sheddings;  /* master: times that this began */
    _Atomic uint32_t generation; /* master: current one */
    _Atomic uint64_t reloads_ok, reloads_failed, upgrades_ok, upgrades_failed;
    _Atomic uint32_t note_version;                        /* master; odd while it writes */
    _Atomic uint64_t note[SCORE_NOTE_WORDS];              /* master: common/note.h */
    _Atomic uint64_t deaths[ROLE_COUNT][DEATH_COUNT];     /* master */
    _Atomic uint64_t recycled[ROLE_COUNT][RECYCLE_COUNT]; /* master */
    struct slot slot[];
};

/* Maps a new scoreboard, the only one of this process. On success *fd is the memfd (CLOEXEC), the caller's to close. */
must_use int scoreboard_create(struct scoreboard **out, int *fd, unsigned slots, struct err *e);
/* Maps one that another release may have made, to go on with it; *slots becomes the number that it has. False, and
 * nothing is mapped, when that means something else by what is in it, or has less than *slots. The descriptor stays the
 * caller's. */
bool scoreboard_adopt(int fd, unsigned *slots, struct scoreboard **out);
/* What the layout depends on and common/ cannot see: the table of routes. Set once by main(). */
extern uint64_t scoreboard_routes;
uint64_t scoreboard_mix(uint64_t hash, const char *text); /* for it: begins with 0 */
void scoreboard_unmap(struct scoreboard *sb);

/* Slots that were ever taken: readers need not touch the others. Never more than are mapped. */
unsigned scoreboard_slots(const struct scoreboard *sb);
/* The time from `then`, as it was found in the scoreboard, to `now`, in their unit; 0 where that makes no sense. */
static inline int64_t score_age(int64_t then, int64_t now)
{
    return then > 0 && then < now ? now - then : 0;
}

/* The slot that this process writes. Before scoreboard_attach() it is a private one that nobody reads, so that code
 * under test and one-shot commands count as well. */
extern struct slot *slot_self;
void scoreboard_attach(struct scoreboard *sb, unsigned slot);
struct scoreboard *scoreboard_self(void); /* NULL before scoreboard_attach() */
/* Gives up the right to write anything but the own slot, so that who runs wild spoils no other. Not on machines whose
 * pages are larger than 4096 bytes. */
void scoreboard_lock(void);

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

uint64_t scoreboard_total(enum stat_id s); /* of all slots, whoever had them; before scoreboard_attach() the own one */

void score_request(unsigned route, int status, int64_t latency_ns);
void score_sample(int64_t now); /* moves the window; about once a second */

/* Flight recorder. Returns a handle for flight_end(); -1 when all places are taken (then nothing is recorded). */
int flight_begin(unsigned route, struct str method, struct str path, struct str request_id, int64_t start_ns);
void flight_end(int handle);
struct flight *flight_at(int handle);                 /* NULL for -1 */
void flight_asks(struct flight *f, const char *what); /* NULL accepted */
