/* The master: reads the configuration, binds, forks, and keeps its workers alive. One thread, one loop, one struct. It
 * never blocks, never reads from the network and never opens a database. Signals only set bits; everything that
 * happens is decided in one place, the tick. */
#pragma once
#include "common/heritage.h"
#include "config/config.h"
#include "master/listen.h"
#include "master/pidfile.h"
#include "master/spawn.h"
#include <event2/event.h>
#include <event2/event_struct.h>

/* Exit codes of every command. */
enum {
    EXIT_STOPPED = 0,
    EXIT_INTERNAL = 1,
    EXIT_USAGE = 2,
    EXIT_NO_BOOT = 3, /* no worker ever became ready */
    EXIT_BIND = 5,
    EXIT_LOCKED = 6, /* another instance holds the pidfile */
    EXIT_CONFIG = 78,
};

#define MASTER_PHASES(X) X(IDLE) X(RELOADING) X(STOPPING)
enum master_phase {
#define X(name) MASTER_##name,
    MASTER_PHASES(X)
#undef X
};
const char *master_phase_name(enum master_phase phase); /* "IDLE" */

/* One configuration and what was made from it. The old one lives on until the new one has proved itself. */
struct generation {
    uint32_t number;
    struct config *cfg;
    struct listen_set listen;
    int access_fd;
    int target[ROLE_COUNT]; /* workers to keep */
};

/* What the command line said; a reload reads the same again. */
struct master_args {
    struct config_args config;
    bool http, ingest; /* --role */
};

enum reload_step { RELOAD_CANARY, RELOAD_ROLL };
struct reload {
    enum reload_step step;
    struct generation *next;
    struct worker *canary;
    int64_t start_ns, progress_ns;
    int ready;              /* new workers READY when progress was last seen */
    int before[ROLE_COUNT]; /* old workers when the reload began */
    bool again;             /* HUP came meanwhile */
    char failed[640];       /* outcome of the last reload: "" = it went well, else "stage: reason" */
    uint64_t count_ok, count_failed;
};

enum stop_step { STOP_DELAY, STOP_DRAIN, STOP_FAST };
struct stop {
    enum stop_step step;
    int64_t deadline; /* end of the delay, or when to leave although a worker has not ended */
};

struct control;
struct notify;

struct master {
    enum master_phase phase;
    pid_t pid;
    struct master_args args;
    struct generation *gen; /* current */
    struct reload reload;
    struct stop stop;
    struct crew crew;

    struct scoreboard *sb;
    int sb_fd, jobs_fd;
    int life[2]; /* pipe that nobody writes to: workers see EOF when the master is gone */
    struct pidfile pidfile;
    struct control *control;

    struct event_base *base;
    struct event signal_event, timer;
    int signal_fd;
    uint64_t signals; /* bit n: signal n came since the last tick */

    int64_t start_ns, tick_ns, tick_due_ns;
    bool was_ready; /* some worker has been READY since the start */
    bool announced; /* enough workers were READY to say so */
    bool degraded;  /* and later were not, which was said, too */
    bool done;
    int exit_code;
    int64_t oom_kills; /* as last read: oom.h */
    unsigned killed;   /* workers that had to be killed during the stop */
};

/* Runs the server; returns the exit code. The one who calls it ends the process with it. */
int master_run(const struct master_args *args);

struct generation *generation_new(const struct master *m, uint32_t number, struct config *cfg);
/* Opens the access log and the listeners; shares with `old` (may be NULL) what both have. */
must_use int generation_open(struct generation *g, const struct generation *old, struct err *e);
/* Closes what `keep` (may be NULL) does not share, and frees it. */
void generation_free(struct generation *g, const struct generation *keep);

void master_stop(struct master *m, bool fast);
int64_t master_worst_stop_ms(const struct config *cfg);
bool master_degraded(const struct master *m); /* nobody can answer a request */

/* reload.c: HUP. Nothing old is touched before a worker of the new generation is READY. */
void reload_start(struct master *m);
void reload_tick(struct master *m, int64_t now);
void reload_abandon(struct master *m); /* a stop came: forget the new generation */
