#include "master/spawn.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/child.h"
#include "master/master.h"
#include "master/oom.h"
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FLIGHTS_LOGGED = 8, HOPELESS = 3, DELAY_FIRST_MS = 100, DELAY_MAX_MS = 30000 };

#define EACH(w, c) (struct worker *w = (c)->v; w < (c)->v + (c)->n; w++)

static void fork_worker(struct master *m, struct worker *w, int64_t now);
static void watch(struct master *m, struct worker *w, int64_t now);
static void bury(struct master *m, struct worker *w, int status);

int crew_init(struct crew *c, unsigned slots, struct err *e)
{
    c->v = calloc(slots, sizeof *c->v);
    if (!c->v)
        return err_errno(e, "no memory for %u workers", slots);
    c->n = slots;
    for (unsigned i = 0; i < slots; i++)
        c->v[i].slot = i;
    return 0;
}

void crew_fini(struct crew *c)
{
    free(c->v);
    c->v = NULL;
    c->n = 0;
}

static struct slot *slot_of(const struct master *m, const struct worker *w)
{
    return &m->sb->slot[w->slot];
}

/* An entry that had this role before keeps its counters meaningful; then one never used; then any. */
struct worker *crew_add(struct master *m, const struct generation *g, enum role role)
{
    struct worker *best = NULL;
    int best_rank = 0;
    for
        EACH(w, &m->crew)
        {
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
    *best = (struct worker){.slot = best->slot, .role = role, .gen = g, .cause = DEATH_COUNT};
    return best;
}

static void release(struct master *m, struct worker *w)
{
    w->gen = NULL;
    w->failures = 0;
    if (!w->pid)
        atomic_store(&slot_of(m, w)->state, WORKER_FREE);
}

static void ask(struct worker *w, enum ask what, int64_t within_ms)
{
    static const int number[] = {0, SIGTERM, SIGABRT, SIGQUIT, SIGKILL};
    w->asked = what;
    w->deadline = within_ms < 0 ? 0 : clock_ns() + within_ms * MS;
    if (kill(w->pid, number[what]) != 0) /* it is ours and not reaped: nothing else can be meant */
        log_error("cannot signal worker %d: %s", (int)w->pid, strerror(errno));
}

void crew_drain(struct master *m, struct worker *w)
{
    int64_t graceful = w->gen ? w->gen->cfg->server_graceful_timeout : 0;
    release(m, w);
    if (!w->pid || w->asked >= ASK_TERM)
        return;
    if (atomic_load(&slot_of(m, w)->ready_ns))
        ask(w, ASK_TERM, graceful);
    else /* still booting, and perhaps stuck in it: it has no request to finish */
        ask(w, ASK_KILL, -1);
}

void crew_quit(struct master *m, struct worker *w)
{
    release(m, w);
    if (w->pid && w->asked < ASK_QUIT)
        ask(w, ASK_QUIT, w->fast_ms);
}

void crew_reap(struct master *m)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        struct worker *found = NULL;
        for
            EACH(w, &m->crew)
        if (w->pid == pid)
            found = w;
        if (found)
            bury(m, found, status);
        else
            log_debug("collected process %d, which is none of ours", (int)pid); /* as PID 1: anybody's orphan */
    }
}

void crew_tick(struct master *m, int64_t now)
{
    for
        EACH(w, &m->crew)
        {
            if (w->pid)
                watch(m, w, now);
            else if (w->gen && w->respawn_at <= now)
                fork_worker(m, w, now);
        }
}

static struct worker *youngest(struct master *m, enum role role)
{
    struct worker *best = NULL;
    for
        EACH(w, &m->crew)
    if (w->gen == m->gen && w->role == role && (!best || w->fork_ns > best->fork_ns || (best->pid && !w->pid)))
        best = w;
    return best;
}

void crew_level(struct master *m)
{
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++) {
        int n = crew_count(m, m->gen, role, false);
        for (; n < m->gen->target[role]; n++)
            if (!crew_add(m, m->gen, role))
                break; /* all slots hold processes that are leaving: one of them will end */
        for (; n > m->gen->target[role]; n--)
            crew_drain(m, youngest(m, role));
    }
}

void crew_shift(struct crew *c, int64_t gap, int64_t now)
{
    for
        EACH(w, c)
        {
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
    for
        EACH(w, c)
        {
            int64_t t = w->pid ? w->deadline : w->gen ? w->respawn_at : 0;
            if (t && t < due)
                due = t;
        }
    return due;
}

bool crew_ready(const struct master *m, const struct worker *w)
{
    return w->pid && w->asked == ASK_NOTHING && atomic_load(&slot_of(m, w)->state) == WORKER_READY;
}

int crew_count(const struct master *m, const struct generation *g, enum role role, bool ready_only)
{
    int n = 0;
    for
        EACH(w, &m->crew)
    n += w->gen == g && w->role == role && (!ready_only || crew_ready(m, w));
    return n;
}

int crew_alive(const struct crew *c)
{
    int n = 0;
    for
        EACH(w, c)
    n += w->pid != 0;
    return n;
}

bool crew_booting(const struct crew *c)
{
    for
        EACH(w, c)
    if (w->pid && !w->was_ready)
        return true;
    return false;
}

bool crew_hopeless(const struct crew *c)
{
    int n = 0;
    for
        EACH(w, c)
        {
            if (w->gen && w->failures < HOPELESS)
                return false;
            n += w->gen != NULL;
        }
    return n > 0;
}

int64_t crew_delay_ms(unsigned failures)
{
    if (failures == 0)
        return 0;
    return failures > 9 ? DELAY_MAX_MS : DELAY_FIRST_MS << (failures - 1);
}

void crew_describe(int status, char *out, size_t cap)
{
    if (WIFSIGNALED(status))
        snprintf(out, cap, "signal %d (%s)%s", WTERMSIG(status), sigabbrev_np(WTERMSIG(status)),
                 WCOREDUMP(status) ? ", core dumped" : "");
    else
        snprintf(out, cap, "exit %d", WEXITSTATUS(status));
}

/* ±20 %, so that workers which failed together do not come back together. */
static int64_t jittered_ns(int64_t ms)
{
    return ms * MS * (80 + random() % 41) / 100;
}

static void fork_worker(struct master *m, struct worker *w, int64_t now)
{
    struct slot *s = slot_of(m, w);
    const struct config *cfg = w->gen->cfg;
    s->role = w->role;
    s->generation = w->gen->number;
    s->restarts += w->respawn_at != 0;
    atomic_store(&s->pid, 0);
    atomic_store(&s->fork_ns, now);
    atomic_store(&s->ready_ns, 0);
    atomic_store(&s->beat_ns, 0);
    atomic_store(&s->state, WORKER_FORKED);
    if (atomic_load(&m->sb->slots) <= w->slot)
        atomic_store(&m->sb->slots, w->slot + 1);
    pid_t pid = fork();
    if (pid == 0)
        child_run(m, w); /* does not return */
    if (pid < 0) {
        w->failures++;
        w->respawn_at = now + jittered_ns(crew_delay_ms(w->failures));
        atomic_store(&s->state, WORKER_EXITED);
        log_error("cannot fork a worker: %s", strerror(errno));
        return;
    }
    atomic_store(&s->pid, pid);
    w->pid = pid;
    w->fork_ns = w->beat_floor = now;
    w->was_ready = false;
    w->asked = ASK_NOTHING;
    w->deadline = now + cfg->server_boot_timeout * MS;
    w->watchdog_ms = cfg->server_watchdog_timeout;
    w->fast_ms = cfg->server_fast_timeout;
    w->abort_ms = cfg->server_abort_grace;
    w->uptime_ms = cfg->server_min_uptime;
    w->cause = DEATH_COUNT;
    log_debug("forked %s worker %u as pid %d, generation %u", role_name(w->role), w->slot, (int)pid, w->gen->number);
}

/* The requests a worker is busy with, from its flight records. Their owner may be writing: what is torn is only text. */
static int log_flights(const struct slot *s, int64_t now, bool print)
{
    int n = 0;
    for (int i = 0; i < SCORE_FLIGHTS; i++) {
        struct flight f;
        int64_t start = atomic_load(&s->flight[i].start_ns);
        if (!start)
            continue;
        if (n++ >= FLIGHTS_LOGGED || !print)
            continue;
        memcpy(&f, &s->flight[i], sizeof f);
        f.method[sizeof f.method - 1] = f.path[sizeof f.path - 1] = f.request_id[sizeof f.request_id - 1] = 0;
        log_warn("  in flight for %.1f s: %s %s, request %s", (double)(now - start) / SEC, f.method, f.path,
                 f.request_id);
    }
    if (print && n > FLIGHTS_LOGGED)
        log_warn("  and %d more", n - FLIGHTS_LOGGED);
    return n;
}

/* When the place of a process that ends now is filled again. A healthy life clears its record. */
static void schedule(const struct master *m, struct worker *w, int64_t now)
{
    int64_t ready = atomic_load(&slot_of(m, w)->ready_ns);
    bool healthy = ready && now - ready >= w->uptime_ms * MS;
    w->failures = healthy ? 0 : w->failures + 1;
    w->respawn_at = now + jittered_ns(crew_delay_ms(w->failures));
}

/* The replacement does not wait for the end of the one that hangs. */
static void abort_hung(struct master *m, struct worker *w, int64_t now, int64_t beat)
{
    const struct generation *g = w->once ? NULL : w->gen;
    schedule(m, w, now);
    unsigned failures = w->failures;
    int64_t respawn_at = w->respawn_at;
    atomic_store(&slot_of(m, w)->state, WORKER_HUNG);
    log_error("worker %u (%s, pid %d) hangs: its loop has not turned for %.1f s; aborting it", w->slot,
              role_name(w->role), (int)w->pid, (double)(now - beat) / SEC);
    log_flights(slot_of(m, w), now, true);
    w->cause = DEATH_hung;
    release(m, w);
    ask(w, ASK_ABRT, w->abort_ms);
    atomic_store(&slot_of(m, w)->state, WORKER_ABORTING);
    struct worker *heir = g ? crew_add(m, g, w->role) : NULL;
    if (heir) {
        heir->failures = failures;
        heir->respawn_at = respawn_at;
    }
}

static void overdue(struct master *m, struct worker *w, int64_t now)
{
    switch (w->asked) {
    case ASK_NOTHING:
        log_error("worker %u (%s, pid %d) is not ready after %.1f s: killing it", w->slot, role_name(w->role),
                  (int)w->pid, (double)(now - w->fork_ns) / SEC);
        w->cause = DEATH_boot_timeout;
        ask(w, ASK_KILL, -1);
        break;
    case ASK_TERM:
        log_warn("worker %u (%s, pid %d) has not drained in time: ending it", w->slot, role_name(w->role), (int)w->pid);
        log_flights(slot_of(m, w), now, true);
        ask(w, ASK_QUIT, w->fast_ms);
        break;
    case ASK_ABRT:
    case ASK_QUIT:
        log_warn("worker %u (%s, pid %d) does not end: killing it", w->slot, role_name(w->role), (int)w->pid);
        atomic_store(&slot_of(m, w)->state, WORKER_KILLED);
        ask(w, ASK_KILL, -1);
        break;
    case ASK_KILL: break;
    }
}

static void watch(struct master *m, struct worker *w, int64_t now)
{
    struct slot *s = slot_of(m, w);
    int state = atomic_load(&s->state);
    if (!w->was_ready && (state == WORKER_READY || atomic_load(&s->ready_ns))) {
        w->was_ready = m->was_ready = true;
        if (w->asked == ASK_NOTHING)
            w->deadline = 0;
        log_debug("worker %u (%s, pid %d) is ready after %lld ms", w->slot, role_name(w->role), (int)w->pid,
                  (long long)((now - w->fork_ns) / MS));
    }
    int64_t beat = atomic_load(&s->beat_ns);
    if (beat < w->beat_floor)
        beat = w->beat_floor;
    if (w->deadline && now >= w->deadline)
        overdue(m, w, now);
    else if (w->was_ready && w->asked <= ASK_TERM && now - beat > w->watchdog_ms * MS)
        abort_hung(m, w, now, beat);
}

/* The kernel does not say whom it killed for want of memory, only how many. */
static bool out_of_memory(struct master *m, int status)
{
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        return false;
    int64_t before = m->oom_kills;
    m->oom_kills = oom_kills();
    return m->oom_kills > before && before >= 0;
}

/* A death that nobody asked for: who it was, what it took with it, and when its place is filled again. */
static void mourn(struct master *m, struct worker *w, int64_t now)
{
    struct slot *s = slot_of(m, w);
    char how[64], next[64] = "not replaced";
    if (w->cause == DEATH_COUNT && out_of_memory(m, w->status)) {
        w->cause = DEATH_oom;
        log_error(
            "the kernel killed worker %u for want of memory: it had %lld MB, and the limit of its cgroup is reached",
            w->slot, (long long)s->rss_kb / 1024);
    }
    if (w->cause == DEATH_COUNT)
        w->cause = WIFSIGNALED(w->status) ? DEATH_signal : w->was_ready ? DEATH_exit : DEATH_boot_failed;
    atomic_fetch_add(&m->sb->deaths[w->role][w->cause], 1);
    if (w->cause == DEATH_hung) {
        snprintf(next, sizeof next, "already replaced");
    } else if (w->gen && !w->once) {
        schedule(m, w, now);
        snprintf(next, sizeof next, "next fork in %lld ms", (long long)((w->respawn_at - now) / MS));
    }
    crew_describe(w->status, how, sizeof how);
    log_error("worker %u (%s, pid %d) died: %s, age %.1f s, %d requests in flight; %s", w->slot, role_name(w->role),
              (int)w->pid, how, (double)(now - w->fork_ns) / SEC, log_flights(s, now, false), next);
    if (w->cause != DEATH_hung) /* there they were listed before the abort */
        log_flights(s, now, true);
}

static void bury(struct master *m, struct worker *w, int status)
{
    struct slot *s = slot_of(m, w);
    int64_t now = clock_ns();
    char how[64];
    if (atomic_load(&s->ready_ns)) /* it may have come and gone between two ticks */
        w->was_ready = m->was_ready = true;
    bool asked = w->asked != ASK_NOTHING && w->cause == DEATH_COUNT;
    w->status = status;
    s->last_status = (uint32_t)status;
    if (asked) {
        crew_describe(status, how, sizeof how);
        log_debug("worker %u (%s, pid %d) ended as asked: %s", w->slot, role_name(w->role), (int)w->pid, how);
    } else {
        mourn(m, w, now);
    }
    m->killed += m->phase == MASTER_STOPPING && w->asked == ASK_KILL && w->was_ready;
    w->pid = 0;
    w->deadline = 0;
    atomic_store(&s->pid, 0);
    if (w->once)
        w->gen = NULL;
    atomic_store(&s->state, w->gen ? WORKER_EXITED : WORKER_FREE);
}
