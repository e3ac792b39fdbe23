/* Whether the server serves: READY for the first time, degraded, parked; and who is told. */
#include "common/clock.h"
#include "common/log.h"
#include "master/master.h"

/* During a reload both generations serve, and after one that failed those that stand in. */
int master_ready(const struct master *m, enum role role)
{
    int n = 0;
    crew_for_each (w, &m->crew)
        n += w->role == role && crew_ready(m, w);
    return n;
}

bool master_degraded(const struct master *m)
{
    for (enum role role = ROLE_HTTP; role <= ROLE_INGEST; role++)
        if (m->gen->target[role] > 0 && master_ready(m, role) == 0)
            return true;
    return false;
}

/* The service manager is told only when as many serve as were asked for. */
static bool enough(const struct master *m)
{
    int target = m->gen->target[ROLE_HTTP], need = (int)m->gen->cfg->server_min_ready; /* 0 = auto: all */
    return !master_degraded(m) && master_ready(m, ROLE_HTTP) >= (need == 0 || need > target ? target : need);
}

void master_announce(struct master *m)
{
    bool degraded = master_degraded(m);
    if (m->parked || (m->phase == MASTER_UPGRADING && !upgrade_speaks(m)))
        return;
    if (m->announced ? degraded == m->degraded : !enough(m))
        return;
    if (!m->announced)
        log_info("ready after %lld ms", (long long)((clock_ns() - m->start_ns) / MS));
    else if (degraded)
        log_warn("degraded: no %s worker is ready", master_ready(m, ROLE_HTTP) || !m->args.http ? "ingest" : "http");
    else
        log_info("not degraded any more");
    bool first = !m->announced;
    m->announced = true;
    m->degraded = degraded;
    if (first)
        notify_ready(m);
    if (!degraded)
        hooks_fire(m, HOOK_ready, NULL, first ? "started" : "not degraded any more");
}

void master_park(struct master *m)
{
    if (m->parked)
        return;
    m->parked = m->degraded = true;
    crew_for_each (w, &m->crew)
        if (w->role != ROLE_STATUS) /* it goes on answering probes */
            crew_drain(m, w);
    log_info("parked: all workers leave, new connections wait; HUP, TTIN or an upgrade brings the workers back");
}

void master_unpark(struct master *m)
{
    if (!m->parked)
        return;
    m->parked = false;
    crew_level(m);
    log_info("not parked any more: %d http and %d ingest workers come back", m->gen->target[ROLE_HTTP],
             m->gen->target[ROLE_INGEST]);
}
