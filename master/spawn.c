#include "master/spawn.h"
#include "common/channel.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/child.h"
#include "master/master.h"
#include "master/oom.h"
#include "master/spawn_impl.h"
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HOPELESS = 3, DELAY_FIRST_MS = 100, DELAY_MAX_MS = 30000 };

static const int signal_of[] = {
    [ASK_NOTHING] = 0, [ASK_TERM] = SIGTERM, [ASK_ABRT] = SIGABRT, [ASK_QUIT] = SIGQUIT, [ASK_KILL] = SIGKILL,
};

static void fork_worker(struct master *m, struct worker *w, int64_t now);
static void tune(struct worker *w);
static void bury(struct master *m, struct worker *w, int status);

int crew_init(struct crew *c, unsigned slots, struct err *e)
{
    c->v = calloc(slots, sizeof *c->v);
    if (!c->v)
        return err_errno(e, "no memory for %u workers", slots);
    c->n = slots;
    for (unsigned i = 0; i < slots; i++)
        c->v[i] = (struct worker){.slot = i, .channel = -1};
    return 0;
}

void crew_fini(struct crew *c)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->v[i].channel >= 0)
            close(c->v[i].channel);
    free(c->v);
    c->v = NULL;
    c->n = 0;
}

struct slot *crew_slot(const struct master *m, const struct worker *w)
{
    return &m->sb->slot[w->slot];
}

/* An entry that had this role before keeps its counters meaningful; then one never used; then any. */
struct worker *crew_add(struct master *m, const struct generation *g, enum role role)
{
    struct worker *best = NULL;
    int best_rank = 0;
    crew_for_each (w, &m->crew) {
        if (w->pid || w->gen)
            continue;
        int rank = w->role == role ? 3 : w->role == ROLE_MASTER ? 2 : 1;
        if (rank > best_rank) {
            best = w;
            best_rank = rank;
        }
    }
    if (!best)
        return NULL;
    *best = (struct worker){.slot = best->slot, .role = role, .gen = g, .channel = -1, .cause = DEATH_COUNT};
    return best;
}

void crew_stand_in(struct master *m, struct worker *w)
{
    if (crew_ready(m, w))
        crew_release(m, w);
    else
        crew_drain(m, w);
}

void crew_release(struct master *m, struct worker *w)
{
    w->gen = NULL;
    w->failures = 0;
    if (!w->pid)
        atomic_store(&crew_slot(m, w)->state, WORKER_FREE);
}

void crew_ask(struct worker *w, enum ask what, int64_t within_ms)
{
    w->asked = what;
    w->deadline = within_ms < 0 ? 0 : clock_ns() + within_ms * MS;
    if (kill(w->pid, signal_of[what]) != 0) /* it is ours and not reaped: nothing else can be meant */
        log_error("cannot signal worker %d: %s", (int)w->pid, strerror(errno));
}

void crew_drain(struct master *m, struct worker *w)
{
    int64_t graceful = (w->gen ? w->gen : m->gen)->cfg->server_graceful_timeout;
    crew_release(m, w);
    if (!w->pid || w->asked >= ASK_TERM)
        return;
    if (atomic_load(&crew_slot(m, w)->ready_ns))
        crew_ask(w, ASK_TERM, graceful);
    else /* still booting, and perhaps stuck in it: it has no request to finish */
        crew_ask(w, ASK_KILL, -1);
}

void crew_quit(struct master *m, struct worker *w)
{
    crew_release(m, w);
    if (w->pid && w->asked < ASK_QUIT)
        crew_ask(w, ASK_QUIT, w->fast_ms);
}

void crew_reap(struct master *m)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        struct worker *found = NULL;
        crew_for_each (w, &m->crew)
            if (w->pid == pid)
                found = w;
        if (found)
            bury(m, found, status);
        else if (!hooks_reap(&m->hooks, pid, status) && !candidate_reaped(&m->upgrade.child, pid, status))
            log_debug("collected process %d, which is none of ours", (int)pid); /* as PID 1: anybody's orphan */
    }
}

void crew_tick(struct master *m, int64_t now)
{
    crew_for_each (w, &m->crew) {
        if (w->pid)
            watch_worker(m, w, now);
        else if (w->gen && w->respawn_at <= now)
            fork_worker(m, w, now);
    }
}

/* Workers of the current generation that nobody is about to replace. */
static bool stays(const struct master *m, const struct worker *w, enum role role)
{
    return w->gen == m->gen && w->role == role && w->recycle == RECYCLE_none;
}

static int staying(const struct master *m, enum role role)
{
    int n = 0;
    crew_for_each (w, &m->crew)
        n += stays(m, w, role);
    return n;
}

/* The first to leave: one without a process, else one that does not serve, else the youngest. */
static struct worker *least_missed(struct master *m, enum role role)
{
    struct worker *best = NULL;
    int best_rank = 0;
    crew_for_each (w, &m->crew) {
        int rank = !stays(m, w, role) ? 0 : !w->pid ? 3 : !crew_ready(m, w) ? 2 : 1;
        if (rank > best_rank || (rank == best_rank && rank && w->fork_ns > best->fork_ns)) {
            best = w;
            best_rank = rank;
        }
    }
    return best;
}

static bool stands_in(const struct master *m, const struct worker *w, enum role role)
{
    return !w->gen && w->role == role && crew_ready(m, w);
}

/* Sends those away that stand in for workers of the current generation, as far as these serve by now. */
static void relieve(struct master *m, enum role role, int target)
{
    int ready = crew_count(m, m->gen, role, true);
    crew_for_each (w, &m->crew)
        ready += stands_in(m, w, role);
    crew_for_each (w, &m->crew)
        if (ready > target && stands_in(m, w, role)) {
            crew_drain(m, w);
            ready--;
        }
}

void crew_level(struct master *m)
{
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++) {
        int n = staying(m, role), target = m->gen->target[role];
        if (m->parked && role != ROLE_STATUS)
            target = 0;
        for (; n < target; n++)
            if (!crew_add(m, m->gen, role))
                break; /* all slots hold processes that are leaving: one of them will end */
        for (; n > target; n--)
            crew_drain(m, least_missed(m, role));
        relieve(m, role, target);
    }
}

void crew_adopt(struct master *m, const struct generation *from, const struct generation *to)
{
    crew_for_each (w, &m->crew)
        if (w->gen == from) {
            int64_t granted = w->watchdog_ms;
            w->gen = to;
            crew_slot(m, w)->generation = to->number;
            tune(w);
            if (w->watchdog_ms < granted) /* until it has read the order, it beats once a second */
                w->beat_floor = clock_ns() + SEC;
        }
}

void crew_shift(struct crew *c, int64_t gap, int64_t now)
{
    crew_for_each (w, c) {
        if (w->deadline)
            w->deadline += gap;
        if (w->respawn_at)
            w->respawn_at += gap;
        w->beat_floor = now;
    }
}

int64_t crew_next_due(const struct crew *c)
{
    int64_t due = INT64_MAX;
    crew_for_each (w, c) {
        int64_t t = w->pid ? w->deadline : w->gen ? w->respawn_at : 0;
        if (t && t < due)
            due = t;
    }
    return due;
}

bool crew_ready(const struct master *m, const struct worker *w)
{
    return w->pid && w->asked == ASK_NOTHING && atomic_load(&crew_slot(m, w)->state) == WORKER_READY;
}

int crew_count(const struct master *m, const struct generation *g, enum role role, bool ready_only)
{
    int n = 0;
    crew_for_each (w, &m->crew)
        n += w->gen == g && w->role == role && (!ready_only || crew_ready(m, w));
    return n;
}

bool crew_complete(const struct master *m, const struct generation *g)
{
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++)
        if (crew_count(m, g, role, true) < g->target[role])
            return false;
    return true;
}

int crew_alive(const struct crew *c)
{
    int n = 0;
    crew_for_each (w, c)
        n += w->pid != 0;
    return n;
}

void crew_was_ready(struct master *m, struct worker *w)
{
    w->was_ready = true;
    m->was_ready |= w->role != ROLE_STATUS;
}

bool crew_booting(const struct crew *c)
{
    crew_for_each (w, c)
        if (w->pid && !w->was_ready)
            return true;
    return false;
}

const struct worker *crew_hopeless(const struct crew *c, bool all)
{
    const struct worker *hopeless = NULL;
    crew_for_each (w, c) {
        if (!w->gen || w->role == ROLE_STATUS)
            continue;
        if (w->failures >= HOPELESS)
            hopeless = w;
        else if (all)
            return NULL;
    }
    return hopeless;
}

int64_t crew_delay_ms(unsigned failures)
{
    if (failures == 0)
        return 0;
    return failures > 9 ? DELAY_MAX_MS : DELAY_FIRST_MS << (failures - 1);
}

/* ±20 %, so that workers which failed together do not come back together. */
static int64_t jittered_ns(int64_t ms)
{
    return ms * MS * (80 + random() % 41) / 100;
}

/* What holds for its process also when its generation is gone. */
static void tune(struct worker *w)
{
    const struct config *cfg = w->gen->cfg;
    w->watchdog_ms = cfg->server_watchdog_timeout;
    w->fast_ms = cfg->server_fast_timeout;
    w->abort_ms = cfg->server_abort_grace;
    w->uptime_ms = cfg->server_min_uptime;
}

static void fork_failed(struct master *m, struct worker *w, int64_t now, const char *reason)
{
    w->failures++;
    w->respawn_at = now + jittered_ns(crew_delay_ms(w->failures));
    atomic_store(&crew_slot(m, w)->state, WORKER_EXITED);
    log_error("cannot fork a worker: %s", reason);
}

static void fork_worker(struct master *m, struct worker *w, int64_t now)
{
    struct slot *s = crew_slot(m, w);
    const struct config *cfg = w->gen->cfg;
    s->role = w->role;
    s->generation = w->gen->number;
    s->restarts += w->respawn_at != 0;
    atomic_store(&s->pid, 0);
    atomic_store(&s->fork_ns, now);
    atomic_store(&s->ready_ns, 0);
    atomic_store(&s->beat_ns, 0);
    atomic_store(&s->store_ok_ns, 0);
    atomic_store(&s->store_away_ns, 0);
    s->last_words[0] = 0;
    atomic_store(&s->recycle, RECYCLE_none);
    atomic_store(&s->order, m->order);
    atomic_store(&s->state, WORKER_FORKED);
    if (atomic_load(&m->sb->slots) <= w->slot)
        atomic_store(&m->sb->slots, w->slot + 1);
    int channel[2];
    struct err e = {.code = ERR_NONE};
    if (channel_open(channel, &e) != 0) {
        fork_failed(m, w, now, e.msg);
        return;
    }
    pid_t pid = fork();
    if (pid == 0)
        child_run(m, w, channel[1]); /* does not return */
    int error = errno;
    close(channel[1]);
    if (pid < 0) {
        close(channel[0]);
        fork_failed(m, w, now, strerror(error));
        return;
    }
    w->channel = channel[0];
    atomic_store(&s->pid, pid);
    w->pid = pid;
    w->fork_ns = w->beat_floor = now;
    w->was_ready = false;
    w->slow_upto = 0;
    w->blind = false;
    w->asked = ASK_NOTHING;
    w->deadline = now + cfg->server_boot_timeout * MS;
    tune(w);
    w->cause = DEATH_COUNT;
    w->recycle = RECYCLE_none;
    log_debug("forked %s worker %u as pid %d, generation %u", role_name(w->role), w->slot, (int)pid, w->gen->number);
}

/* When the place of a process that ends now is filled again. A healthy life clears its record. */
void crew_schedule(const struct master *m, struct worker *w, int64_t now)
{
    int64_t ready = atomic_load(&crew_slot(m, w)->ready_ns);
    bool healthy = ready && score_age(ready, now) >= w->uptime_ms * MS;
    w->failures = healthy ? 0 : w->failures + 1;
    w->respawn_at = now + jittered_ns(crew_delay_ms(w->failures));
}

void crew_describe_death(const struct master *m, const struct worker *w, char *out, size_t cap)
{
    const char *words = crew_slot(m, w)->last_words;
    size_t n = strnlen(words, sizeof crew_slot(m, w)->last_words);
    death_describe(w->status, out, cap);
    size_t at = strlen(out);
    if (n && at < cap)
        snprintf(out + at, cap - at, ": %.*s", (int)n, words);
    str_utf8_fix(out); /* they may be cut within a character */
}

/* The kernel does not say whom it killed for want of memory, only how many. */
static bool out_of_memory(struct master *m, const struct worker *w, int requests)
{
    char what[128];
    if (!WIFSIGNALED(w->status) || WTERMSIG(w->status) != SIGKILL)
        return false;
    struct oom now = oom_read("");
    bool more = now.kills > m->oom_kills && m->oom_kills >= 0;
    m->oom_kills = now.kills;
    if (!more)
        return false;
    oom_describe(&now, crew_slot(m, w)->rss_kb, requests, what, sizeof what);
    log_error("worker %u (%s, pid %d) was %s", w->slot, role_name(w->role), (int)w->pid, what);
    return true;
}

/* A death that nobody asked for: who it was, what it took with it, and when its place is filled again. */
static void mourn(struct master *m, struct worker *w, int64_t now)
{
    struct slot *s = crew_slot(m, w);
    char how[64], next[64];
    snprintf(next, sizeof next, w->asked != ASK_NOTHING && w->cause == DEATH_COUNT ? "it was leaving" : "not replaced");
    int requests = watch_flights(s, now, false);
    if (w->cause == DEATH_COUNT && out_of_memory(m, w, requests))
        w->cause = DEATH_oom;
    if (w->cause == DEATH_COUNT)
        w->cause = WIFSIGNALED(w->status) ? DEATH_signal : w->was_ready ? DEATH_exit : DEATH_boot_failed;
    atomic_fetch_add(&m->sb->deaths[w->role][w->cause], 1);
    s->death = w->cause;
    s->death_status = (uint32_t)w->status;
    s->death_us = clock_wall_us();
    if (w->cause == DEATH_hung || w->recycle != RECYCLE_none) {
        snprintf(next, sizeof next, "already replaced");
    } else if (w->gen && !w->once) {
        crew_schedule(m, w, now);
        snprintf(next, sizeof next, "next fork in %lld ms", (long long)((w->respawn_at - now) / MS));
    }
    death_describe(w->status, how, sizeof how);
    log_error("worker %u (%s, pid %d) died: %s, age %.1f s, %d requests in flight; %s", w->slot, role_name(w->role),
              (int)w->pid, how, (double)(now - w->fork_ns) / SEC, requests, next);
    if (w->cause == DEATH_hung) /* that was told before the abort */
        return;
    watch_flights(s, now, true);
    hooks_fire(m, HOOK_worker_died, w, w->cause == DEATH_oom ? "killed by the kernel for want of memory" : how);
}

/* One that crashes while it drains did not end as it was told, and takes its requests with it like any other. Its own
 * alarm is as good as our KILL, once we have told what it was busy with; so is a second Ctrl-C, which finds it without
 * handlers at its very end. One that was never READY has no requests. */
static bool ended_as_asked(const struct worker *w, int status)
{
    if (w->asked == ASK_NOTHING || w->cause != DEATH_COUNT)
        return false;
    if (!w->was_ready)
        return true;
    if (!WIFSIGNALED(status))
        return WEXITSTATUS(status) == 0;
    switch (WTERMSIG(status)) {
    case SIGTERM:
    case SIGINT:
    case SIGQUIT: return true;
    case SIGALRM: return w->asked > ASK_TERM;
    default: return WTERMSIG(status) == signal_of[w->asked];
    }
}

static void bury(struct master *m, struct worker *w, int status)
{
    struct slot *s = crew_slot(m, w);
    int64_t now = clock_ns();
    char how[64];
    if (atomic_load(&s->ready_ns)) /* it may have come and gone between two ticks */
        crew_was_ready(m, w);
    bool left = m->phase == MASTER_STOPPING && m->stop.step != STOP_DELAY && status == 0; /* TERM went to all of them */
    bool asked = ended_as_asked(w, status) || left;
    w->status = status;
    if (left)
        crew_release(m, w);
    if (asked) {
        death_describe(status, how, sizeof how);
        log_debug("worker %u (%s, pid %d) ended as asked: %s", w->slot, role_name(w->role), (int)w->pid, how);
    } else {
        mourn(m, w, now);
    }
    bool forced =
        WIFSIGNALED(status) && (WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGALRM); /* by its own alarm */
    m->killed += m->phase == MASTER_STOPPING && w->asked != ASK_NOTHING && forced && w->was_ready;
    w->pid = 0;
    w->deadline = 0;
    close(w->channel);
    w->channel = -1;
    atomic_store(&s->pid, 0);
    if (w->once || w->recycle != RECYCLE_none)
        w->gen = NULL;
    w->recycle = RECYCLE_none;
    atomic_store(&s->state, w->gen ? WORKER_EXITED : WORKER_FREE);
}
