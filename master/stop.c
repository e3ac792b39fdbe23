/* Stopping: TERM waits, then drains; QUIT and INT end the waiting and the draining. */
#include "common/clock.h"
#include "common/log.h"
#include "master/master.h"

enum { STOP_MARGIN_MS = 1000 }; /* from the last KILL to the end of the last process */

int64_t master_worst_stop_ms(const struct config *cfg)
{
    return cfg->server_shutdown_delay + cfg->server_graceful_timeout + cfg->server_fast_timeout + STOP_MARGIN_MS;
}

/* Who left an older generation, or hangs, was perhaps given more time than this stop has. */
static void hurry(const struct master *m, struct worker *w, int64_t latest)
{
    int64_t fast = m->gen->cfg->server_fast_timeout;
    w->fast_ms = fast;
    w->abort_ms = w->abort_ms < fast ? w->abort_ms : fast;
    if (w->deadline > latest)
        w->deadline = latest;
}

static void stop_drain(struct master *m, int64_t now)
{
    const struct config *cfg = m->gen->cfg;
    m->stop.step = STOP_DRAIN;
    m->stop.deadline = now + (cfg->server_graceful_timeout + cfg->server_fast_timeout + STOP_MARGIN_MS) * MS;
    /* The workers hold the sockets, too, and close them when their queues are empty. Were they to stay open here,
     * clients would still connect and then wait for nobody. */
    listen_close_http(&m->gen->listen, &m->others);
    crew_for_each (w, &m->crew) {
        hurry(m, w, now + cfg->server_graceful_timeout * MS);
        if (w->role != ROLE_STATUS ||
            m->others.n) /* it answers probes to the end, unless another master is the server */
            crew_drain(m, w);
    }
}

static void stop_fast(struct master *m, int64_t now)
{
    m->stop.step = STOP_FAST;
    m->stop.deadline = now + (m->gen->cfg->server_fast_timeout + STOP_MARGIN_MS) * MS;
    listen_close(&m->gen->listen, &m->others);
    crew_for_each (w, &m->crew) {
        hurry(m, w, now + m->gen->cfg->server_fast_timeout * MS);
        crew_quit(m, w);
    }
}

/* The status process is the last to leave. */
static bool only_status_left(const struct master *m)
{
    crew_for_each (w, &m->crew)
        if (w->pid && w->role != ROLE_STATUS)
            return false;
    return true;
}

void master_stop(struct master *m, bool fast)
{
    int64_t now = clock_ns(), delay = m->gen->cfg->server_shutdown_delay;
    if (m->phase != MASTER_STOPPING) {
        if (m->phase == MASTER_RELOADING)
            reload_abandon(m);
        m->left = upgrade_stop(m);
        m->phase = MASTER_STOPPING;
        m->stop.step = STOP_DELAY;
        m->stop.deadline = now + delay * MS;
        if (m->left) {
            log_info("leaving: another master is the server");
        } else {
            atomic_store(&m->sb->draining, 1);
            log_info(fast ? "stopping at once" : "stopping: requests in flight are finished first");
            notify_stopping(m);
        }
        if (!fast && (delay == 0 || m->left))
            stop_drain(m, now);
    }
    if (fast && m->stop.step != STOP_FAST)
        stop_fast(m, now);
}

void master_stop_tick(struct master *m, int64_t now)
{
    if (m->stop.step == STOP_DELAY) {
        if (now >= m->stop.deadline)
            stop_drain(m, now);
        return;
    }
    if (m->stop.step == STOP_DRAIN && only_status_left(m))
        stop_fast(m, now);
    int left = crew_alive(&m->crew) + (m->upgrade.child.pid != 0);
    if (left && now >= m->stop.deadline)
        log_error("%d processes do not even end when killed: leaving without them", left);
    /* systemd believes MAINPID= of a process that still is there only. */
    bool unheard = m->left && notify_unsent();
    m->done = (left == 0 && !unheard) || now >= m->stop.deadline;
}
