/* The master: reads the configuration, binds, forks, and keeps its workers alive. One thread, one loop, one struct. It
 * never blocks, never reads from the network and never opens a database. Signals only set bits; everything that
 * happens is decided in one place, the tick. */
#pragma once
#include "common/heritage.h"
#include "common/note.h"
#include "config/config.h"
#include "master/hooks.h"
#include "master/inherit.h"
#include "master/launch.h"
#include "master/listen.h"
#include "master/logfile.h"
#include "master/notify.h"
#include "master/pidfile.h"
#include "master/pressure.h"
#include "master/privilege.h"
#include "master/spawn.h"
#include "master/upgrade.h"
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
    EXIT_TRIAL = 7,  /* the new master of an upgrade could not take over */
    EXIT_CONFIG = 78,
};

/* IDLE       the current generation serves; deaths are made good, targets are kept
 * RELOADING  the next generation exists beside it and takes over worker by worker, or is given up: reload.c
 * UPGRADING  another master exists beside this one: a newer one (upgrade.c), or the older one that it takes over from
 *            (inherit.c)
 * STOPPING   all workers leave, and then the master; pre-empts the others, and there is no way back: stop.c */
#define MASTER_PHASES(X) X(IDLE) X(RELOADING) X(UPGRADING) X(STOPPING)
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
    const struct privileges *privileges; /* the master's */
    struct listen_set listen;
    struct logfiles logs;
    int target[ROLE_COUNT];             /* workers to keep */
    bool scaled;                        /* TTIN, TTOU or `ragd scale` said so, not cfg */
    char sha256[CONFIG_SHA256_LEN + 1]; /* of cfg */
};

/* What the command line said; a reload reads the same again. */
struct master_args {
    struct config_args config;
    bool http, ingest; /* --role */
    char *const *argv; /* as the process was started */
};

enum reload_step {
    RELOAD_WAIT,   /* as many old generations drain as may: one shall have ended, within server.boot_timeout */
    RELOAD_CANARY, /* one worker of the next generation boots; the others do not know of it */
    RELOAD_ROLL,   /* it was READY: for each new one that is, an old one leaves */
};
struct reload_end {
    uint32_t generation; /* that is current since */
    char failed[640];    /* "" = it went well, else "stage: reason" */
};
struct reload {
    enum reload_step step;
    struct generation *next;
    struct worker *canary;
    struct pidfile pidfile; /* of the next generation, where it names another one */
    int64_t start_ns, progress_ns;
    int ready;                /* new workers READY when progress was last seen */
    int before[ROLE_COUNT];   /* old workers when the reload began */
    bool paused;              /* new workers die, which was said */
    bool again;               /* HUP came meanwhile */
    uint32_t begun, ended;    /* reloads so far */
    struct reload_end end[2]; /* of the last two, by number & 1: both may end in one tick */
    struct verdict last;      /* the last one for others to read */
};

enum stop_step {
    STOP_DELAY, /* server.shutdown_delay: serves on, and /readyz says that it will not for long */
    STOP_DRAIN, /* workers finish what is in flight */
    STOP_FAST,  /* workers drop it */
};
struct stop {
    enum stop_step step;
    int64_t deadline; /* end of the delay, or when to leave although a worker has not ended */
};

struct control;
struct fibers;

struct master {
    enum master_phase phase;
    pid_t pid;
    struct master_args args;
    struct generation *gen; /* current */
    struct privileges privileges;
    struct listen_set passed; /* sockets that the process was started with, until the first generation has them */
    struct reload reload;
    struct upgrade upgrade;
    struct heir heir;
    struct stop stop;
    struct crew crew;
    struct hooks hooks;
    struct launch launch;
    struct pressure pressure;

    struct scoreboard *sb;
    struct places *places; /* for connections to the database; shared with another master of this server */
    int sb_fd, places_fd, jobs_fd;
    int stderr_fd;  /* where stderr led at the start; -1: not yet saved */
    uint32_t order; /* serial of the last order given to the workers */
    struct pidfile pidfile;
    struct notify notify;
    struct control *control;
    struct fibers *fibers;    /* the last round of questions; NULL: there was none */
    struct listen_set others; /* sockets that another master of this server has, too, and is to keep */

    struct event_base *base;
    struct event signal_event, timer;
    int signal_fd;
    uint64_t signals; /* bit n: signal n came since the last tick */

    /* tick_ns: when this tick began; tick_due_ns: when the next one shall */
    int64_t start_ns, tick_ns, tick_due_ns;
    bool was_ready; /* some worker has been READY since the start */
    bool announced; /* enough workers were READY to say so */
    bool degraded;  /* and later were not, which was said, too */
    bool left;      /* stopping, and another master goes on serving */
    bool parked;    /* WINCH: no workers on purpose; the sockets stay open and connections queue in them */
    bool done;
    int exit_code;
    int64_t oom_kills; /* as last read: oom.h */
    unsigned killed;   /* workers that had to be killed during the stop */
};

/* Runs the server; returns the exit code. The one who calls it ends the process with it. */
int master_run(const struct master_args *args);

/* start.c: 0, or the exit code, with the reason in the log; the end, also of a start that failed. */
int master_set_up(struct master *m);
void master_tear_down(struct master *m);
void master_log_to(struct master *m, const struct generation *g); /* its own lines go where those of g's workers go */

struct generation *generation_new(const struct master *m, uint32_t number, struct config *cfg);
int generation_wants_status(const struct generation *g); /* 1 where there are addresses for a status process, else 0 */
/* Opens the listeners; shares with `have` what that has already: listen_open(). */
must_use int generation_open(struct generation *g, const struct listen_set *have, struct err *e);
/* Closes what `keep` (may be NULL) does not share, and frees it. */
void generation_free(struct generation *g, const struct generation *keep);

void master_stop(struct master *m, bool fast);
void master_stop_tick(struct master *m, int64_t now);
/* Keeps `to` workers of this role until the next reload. ERR_VALIDATION with the reason when it cannot be. */
must_use int master_scale(struct master *m, enum role role, int64_t to, struct err *e);

/* Drains all workers and keeps the sockets; brings the workers back. Both may be called again. */
void master_park(struct master *m);
void master_unpark(struct master *m);

int64_t master_worst_stop_ms(const struct config *cfg);
/* Says when the server can serve, for the first time, not any more, and again. */
void master_announce(struct master *m);
int master_ready(const struct master *m, enum role role); /* workers READY, of all generations that serve */
bool master_degraded(const struct master *m);             /* nobody can answer a request */

/* reload.c: HUP. Nothing old is touched before a worker of the new generation is READY. */
/* Begins one, or has one follow what is under way. Returns its number: reload.ended tells when its end is known. */
uint32_t reload_start(struct master *m);
const struct reload_end *reload_end_of(const struct master *m, uint32_t number); /* the last two only */
void reload_tick(struct master *m, int64_t now);
void reload_abandon(struct master *m); /* a stop came: forget the new generation */
