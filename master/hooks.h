/* Programs that the master runs when something happens, so that somebody is told. They run beside it: nobody waits for
 * them, at most HOOKS_MAX at a time, none longer than hooks.timeout. They are the workers' user, but in the master's root
 * directory and free to gain rights (sudo); stdin is /dev/null, what they print goes to stderr. Their environment is PATH,
 * LANG, LC_ALL and TZ, and what it is about:
 *
 *   RAGD_EVENT         ready, reload_failed, worker_hung, worker_died
 *   RAGD_PID           the master; RAGD_GENERATION the current one
 *   RAGD_REASON        in words
 *   RAGD_WORKER_PID, RAGD_WORKER_SLOT, RAGD_ROLE, RAGD_REQUESTS   of the worker; the last is how many it was answering */
#pragma once
#include "config/config.h"
#include <jansson.h>
#include <sys/types.h>

struct master;
struct worker;

#define HOOK_EVENTS(X) X(ready) X(reload_failed) X(worker_hung) X(worker_died)
enum hook_event {
#define X(name) HOOK_##name,
    HOOK_EVENTS(X)
#undef X
        HOOK_COUNT
};

enum { HOOKS_MAX = 4 };

struct hook_run {
    pid_t pid; /* of the process and its group; 0: none runs here */
    enum hook_event event;
    int64_t deadline; /* 0: it was killed already */
};

struct hooks {
    struct hook_run run[HOOKS_MAX];
    uint64_t dropped; /* not run, because HOOKS_MAX were */
};

/* ERR_VALIDATION: the key names something that is no executable file. */
must_use int hook_check(const struct config *cfg, enum hook_event event, struct err *e);
must_use int hooks_check(const struct config *cfg, struct err *e); /* all of them, up to the first error */

/* Starts the program that the current configuration names for this event, if any. `w` NULL: it is about no worker. */
void hooks_fire(struct master *m, enum hook_event event, const struct worker *w, const char *reason);

bool hooks_reap(struct hooks *h, pid_t pid, int status); /* true: it was one of them */
void hooks_tick(struct hooks *h, int64_t now);
void hooks_shift(struct hooks *h, int64_t gap);
void hooks_end(struct hooks *h); /* those that still run are killed */

/* Those that run, for another image of this process, whose children they are. Another release may name other events. */
json_t *hooks_describe(const struct hooks *h);
void hooks_adopt(struct hooks *h, const json_t *all);
