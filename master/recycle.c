#include "master/recycle.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/master.h"

/* Those that still drain count: their memory is not given back yet. */
static int under_way(const struct master *m)
{
    int n = 0;
    crew_for_each (w, &m->crew)
        n += w->pid && w->recycle != RECYCLE_none;
    return n;
}

/* A worker that is too large as soon as it has booted would be replaced without end. */
static bool too_soon(const struct slot *s, const struct worker *w, enum recycle why, int64_t now)
{
    return why == RECYCLE_rss && score_age(atomic_load(&s->ready_ns), now) < w->uptime_ms * MS;
}

static enum recycle wish(const struct master *m, const struct worker *w, int64_t now)
{
    const struct slot *s = &m->sb->slot[w->slot];
    int why = atomic_load(&s->recycle);
    if (why <= RECYCLE_none || why >= RECYCLE_COUNT || too_soon(s, w, (enum recycle)why, now))
        return RECYCLE_none;
    return (enum recycle)why;
}

static bool may_go(const struct master *m, const struct worker *w)
{
    return w->gen == m->gen && crew_ready(m, w);
}

/* The oldest of those that ask. By their order in the table, the same few would be replaced for ever where workers ask
 * faster than others boot, and the rest never. */
static struct worker *next_in_turn(struct master *m, int64_t now)
{
    struct worker *oldest = NULL;
    crew_for_each (w, &m->crew)
        if (may_go(m, w) && w->recycle == RECYCLE_none && wish(m, w, now) != RECYCLE_none &&
            (!oldest || w->fork_ns < oldest->fork_ns))
            oldest = w;
    return oldest;
}

static void take_up(struct master *m, struct worker *w, int64_t now)
{
    w->recycle = wish(m, w, now);
    log_info("worker %u (%s, pid %d) asks to be replaced: %s; age %.1f s, %lld MB", w->slot, role_name(w->role),
             (int)w->pid, recycle_name(w->recycle), (double)(now - w->fork_ns) / SEC,
             (long long)m->sb->slot[w->slot].anon_kb / 1024);
}

static void release_if_spare(struct master *m, struct worker *w)
{
    if (crew_count(m, m->gen, w->role, true) <= m->gen->target[w->role])
        return;
    log_info("worker %u (%s, pid %d) is replaced and drains", w->slot, role_name(w->role), (int)w->pid);
    atomic_fetch_add(&m->sb->recycled[w->role][w->recycle], 1);
    crew_drain(m, w);
}

void recycle_tick(struct master *m, int64_t now)
{
    struct worker *w;
    crew_for_each (old, &m->crew)
        if (may_go(m, old) && old->recycle != RECYCLE_none)
            release_if_spare(m, old);
    for (int n = under_way(m); n < m->gen->cfg->server_max_recycling && (w = next_in_turn(m, now)) != NULL; n++)
        take_up(m, w, now);
}
