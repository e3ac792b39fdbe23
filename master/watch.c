/* The watchdog: who boots for too long, does not leave in time, whose loop stands still, which request takes long. It reads
 * the worker's slot; a worker that is stuck needs to do nothing for it. */
#include "common/clock.h"
#include "common/log.h"
#include "master/master.h"
#include "master/spawn_impl.h"
#include <stdio.h>
#include <string.h>

enum { FLIGHTS_LOGGED = 8 };

/* Copies a flight record. Its owner may be writing: what is torn is only text. False: nothing is in flight there. */
static bool flight_of(const struct slot *s, int i, struct flight *out)
{
    int64_t start = atomic_load(&s->flight[i].start_ns);
    if (start <= 0)
        return false;
    memcpy(out, &s->flight[i], sizeof *out);
    str_utf8_end(out->method, sizeof out->method);
    str_utf8_end(out->path, sizeof out->path);
    str_utf8_end(out->request_id, sizeof out->request_id);
    str_utf8_end(out->asked, sizeof out->asked);
    out->start_ns = start;
    return atomic_load(&s->flight[i].start_ns) == start;
}

int watch_flights(const struct slot *s, int64_t now, bool print)
{
    int n = 0;
    for (int i = 0; i < SCORE_FLIGHTS; i++) {
        struct flight f;
        if (!flight_of(s, i, &f))
            continue;
        if (n++ >= FLIGHTS_LOGGED || !print)
            continue;
        log_warn("  in flight for %.1f s: %s %s, request %s%s%s", (double)score_age(f.start_ns, now) / SEC, f.method,
                 f.path, f.request_id, f.asked[0] ? ", last asked the database for " : "", f.asked);
    }
    if (print && n > FLIGHTS_LOGGED)
        log_warn("  and %d more", n - FLIGHTS_LOGGED);
    return n;
}

/* The replacement does not wait for the end of the one that hangs. */
static void abort_hung(struct master *m, struct worker *w, int64_t now, int64_t beat)
{
    const struct generation *g = w->once || w->recycle != RECYCLE_none ? NULL : w->gen;
    crew_schedule(m, w, now);
    unsigned failures = w->failures;
    int64_t respawn_at = w->respawn_at;
    atomic_store(&crew_slot(m, w)->state, WORKER_HUNG);
    char reason[64];
    snprintf(reason, sizeof reason, "its loop has not turned for %.1f s", (double)(now - beat) / SEC);
    log_error("worker %u (%s, pid %d) hangs: %s; aborting it", w->slot, role_name(w->role), (int)w->pid, reason);
    watch_flights(crew_slot(m, w), now, true);
    hooks_fire(m, HOOK_worker_hung, w, reason);
    w->cause = DEATH_hung;
    crew_release(m, w);
    crew_ask(w, ASK_ABRT, w->abort_ms);
    atomic_store(&crew_slot(m, w)->state, WORKER_ABORTING);
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
        crew_ask(w, ASK_KILL, -1);
        break;
    case ASK_TERM:
        log_warn("worker %u (%s, pid %d) has not drained in time: ending it", w->slot, role_name(w->role), (int)w->pid);
        watch_flights(crew_slot(m, w), now, true);
        crew_ask(w, ASK_QUIT, w->fast_ms);
        break;
    case ASK_ABRT:
    case ASK_QUIT:
        log_warn("worker %u (%s, pid %d) does not end: killing it", w->slot, role_name(w->role), (int)w->pid);
        atomic_store(&crew_slot(m, w)->state, WORKER_KILLED);
        crew_ask(w, ASK_KILL, -1);
        break;
    case ASK_KILL: break;
    }
}

/* One line for each request that becomes slow. Those that began at the same time become slow at the same time, so it is
 * enough to know how far one has looked; and a loop that does not turn is not looked at: that is another matter. */
static void watch_slow(const struct master *m, struct worker *w, int64_t beat)
{
    const struct slot *s = crew_slot(m, w);
    int64_t limit = m->gen->cfg->server_slow_request * MS, upto = beat - limit;
    struct flight f;
    if (!limit || upto <= w->slow_upto)
        return;
    for (int i = 0; i < SCORE_FLIGHTS; i++)
        if (flight_of(s, i, &f) && f.start_ns > w->slow_upto && f.start_ns <= upto)
            log_warn("worker %u (%s, pid %d) has a slow request, %.1f s so far: %s %s, request %s%s%s", w->slot,
                     role_name(w->role), (int)w->pid, (double)(beat - f.start_ns) / SEC, f.method, f.path, f.request_id,
                     f.asked[0] ? ", last asked the database for " : "", f.asked);
    w->slow_upto = upto;
}

void watch_worker(struct master *m, struct worker *w, int64_t now)
{
    struct slot *s = crew_slot(m, w);
    int state = atomic_load(&s->state);
    if (!w->was_ready && (state == WORKER_READY || atomic_load(&s->ready_ns))) {
        crew_was_ready(m, w);
        if (w->asked == ASK_NOTHING)
            w->deadline = 0;
        log_debug("worker %u (%s, pid %d) is ready after %lld ms", w->slot, role_name(w->role), (int)w->pid,
                  (long long)((now - w->fork_ns) / MS));
    }
    int64_t beat = atomic_load(&s->beat_ns);
    if (beat > now) /* a loop that turned since then; or nonsense, which must not keep it from being watched */
        beat = now;
    if (beat < w->beat_floor)
        beat = w->beat_floor;
    if (w->deadline && now >= w->deadline)
        overdue(m, w, now);
    else if (w->was_ready && !w->blind && w->asked <= ASK_TERM && now - beat > w->watchdog_ms * MS)
        abort_hung(m, w, now, beat);
    else if (w->was_ready)
        watch_slow(m, w, beat);
}
