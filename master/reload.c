/* Reload: read, bind, try one new worker, then exchange the rest; at every step the way back is open, because nothing
 * of the old generation is touched before the canary is READY and its config and sockets live until the end. */
#include "common/clock.h"
#include "common/log.h"
#include "master/activate.h"
#include "master/control.h"
#include "master/master.h"
#include "master/notify.h"
#include "master/orders.h"
#include <stdio.h>
#include <sys/wait.h>

enum { OLD_MAX = 2 }; /* generations that may drain at the same time */

static int prepare(struct master *m, struct generation **out, struct err *e, const char **stage);
static void fail(struct master *m, const char *stage, const char *reason);
static void give_up(struct master *m);
static void roll(struct master *m, int64_t now);
static void commit(struct master *m, int64_t now);
static bool only_pushed(const struct config *old, const struct config *new);
static void push(struct master *m);
static uint32_t oldest_kept(const struct master *m);
static bool has_new_sockets(const struct master *m);

const struct reload_end *reload_end_of(const struct master *m, uint32_t number)
{
    return &m->reload.end[number & 1];
}

/* `stage` NULL: it went well. */
static void conclude(struct master *m, const char *stage, const char *reason)
{
    struct reload *r = &m->reload;
    struct reload_end *end = &r->end[r->begun & 1];
    r->ended = r->begun;
    end->generation = m->gen->number;
    end->failed[0] = 0;
    if (stage)
        snprintf(end->failed, sizeof end->failed, "%s: %s", stage, reason);
    str_utf8_fix(end->failed); /* it may quote what somebody wrote, and be cut within a character */
    verdict_set(&r->last, r->start_ns, stage, reason);
}

uint32_t reload_start(struct master *m)
{
    struct reload *r = &m->reload;
    struct err e = {.code = ERR_NONE};
    const char *stage;
    if (m->phase == MASTER_STOPPING)
        return r->begun;
    if (m->phase == MASTER_RELOADING) {
        r->again = true;
        log_info("a reload is under way: another one follows it");
        return r->begun + 1;
    }
    if (m->phase == MASTER_UPGRADING) {
        r->again = true;
        upgrade_hup(m);
        return r->begun + 1;
    }
    uint32_t number = ++r->begun;
    master_unpark(m); /* with the configuration they had; should the new one be bad, they serve all the same */
    r->again = r->paused = false;
    r->start_ns = clock_ns();
    log_info("reloading the configuration");
    notify_reloading(m);
    if (prepare(m, &r->next, &e, &stage) != 0) {
        fail(m, stage, e.msg);
        return number;
    }
    if (only_pushed(m->gen->cfg, r->next->cfg) && !has_new_sockets(m)) {
        push(m);
        return number;
    }
    m->phase = MASTER_RELOADING;
    r->step = RELOAD_WAIT;
    r->progress_ns = r->start_ns;
    r->ready = 0;
    if (oldest_kept(m))
        log_info("the reload waits: workers of %d generations still drain", (int)OLD_MAX);
    reload_tick(m, r->start_ns);
    return number;
}

/* What a reload cannot change is refused by name, so that nobody believes that it was changed. */
static int refuse(const struct config *old, const struct config *new, struct err *e)
{
    for (int key = 0; key < KEY_COUNT; key++)
        if (config_key_apply((enum config_key)key) == CONFIG_REFUSE && !config_same(old, new, (enum config_key)key))
            return err_set(e, ERR_VALIDATION, "%s cannot be changed by a reload: it needs `ragd upgrade` or a restart",
                           config_key_name((enum config_key)key));
    return 0;
}

/* Of the old generations that drain as many are kept as may at the same time: the number of the oldest of these; 0: there
 * are not so many. */
static uint32_t oldest_kept(const struct master *m)
{
    uint32_t kept = m->gen->number;
    for (int i = 0; i < OLD_MAX && kept; i++) {
        uint32_t next = 0;
        crew_for_each (w, &m->crew) {
            uint32_t number = m->sb->slot[w->slot].generation;
            if (w->pid && !w->gen && number < kept && number > next)
                next = number;
        }
        kept = next;
    }
    return kept;
}

/* True when something has changed, and nothing that running workers could not be told. A HUP without any change exchanges
 * the workers: whoever sends it wants fresh ones. */
static bool only_pushed(const struct config *old, const struct config *new)
{
    int changed = 0;
    for (int key = 0; key < KEY_COUNT; key++) {
        if (config_same(old, new, (enum config_key)key))
            continue;
        if (config_key_apply((enum config_key)key) != CONFIG_HOT)
            return false;
        changed++;
    }
    return changed > 0;
}

/* The workers stay as they are and are told what is new. */
static void push(struct master *m)
{
    crew_adopt(m, m->gen, m->reload.next);
    commit(m, clock_ns());
    orders_config(m);
}

static bool moves_pidfile(const struct master *m, const struct config *next)
{
    return strcmp(m->gen->cfg->server_pidfile, next->server_pidfile) != 0;
}

/* Until the commit there are both. */
static int open_pidfile(struct master *m, const struct config *next, struct err *e)
{
    return moves_pidfile(m, next) ? pidfile_open(&m->reload.pidfile, next->server_pidfile, e) : 0;
}

static int prepare(struct master *m, struct generation **out, struct err *e, const char **stage)
{
    struct config *cfg;
    *stage = "configuration";
    if (config_load(&m->args.config, &cfg, e) != 0)
        return -1;
    if (refuse(m->gen->cfg, cfg, e) != 0 || privileges_check(&m->privileges, cfg, e) != 0 || hooks_check(cfg, e) != 0) {
        config_locate(cfg, e);
        config_free(cfg);
        return -1;
    }
    struct generation *g = generation_new(m, m->gen->number + 1, cfg);
    if (logfiles_open(&g->logs, cfg, g->privileges, e) == 0 && open_pidfile(m, cfg, e) == 0) {
        *stage = "listen";
        if (generation_open(g, &m->gen->listen, e) == 0) {
            *out = g;
            return 0;
        }
    }
    config_locate(cfg, e);
    pidfile_close(&m->reload.pidfile);
    generation_free(g, m->gen);
    return -1;
}

/* Workers of the new generation hold its sockets: an address that the old one does not have must be free again. */
static bool has_new_sockets(const struct master *m)
{
    const struct listen_set *next = &m->reload.next->listen;
    for (int i = 0; i < next->n; i++)
        if (!listen_shares(&m->gen->listen, &next->v[i]))
            return true;
    return false;
}

/* Leaves the new generation: its sockets close, its workers go, if they may at once, else when the old ones that have
 * left are back: crew_level(). The old generation was never told about it. */
static void give_up(struct master *m)
{
    struct reload *r = &m->reload;
    bool at_once = has_new_sockets(m);
    crew_for_each (w, &m->crew) {
        if (w->gen != r->next)
            continue;
        if (at_once)
            crew_drain(m, w);
        else
            crew_stand_in(m, w);
    }
    pidfile_close(&r->pidfile);
    generation_free(r->next, m->gen);
    r->next = NULL;
    r->canary = NULL;
    m->phase = MASTER_IDLE;
}

static void fail(struct master *m, const char *stage, const char *reason)
{
    conclude(m, stage, reason);
    const char *failed = reload_end_of(m, m->reload.ended)->failed;
    atomic_fetch_add(&m->sb->reloads_failed, 1);
    log_error("reload failed, everything stays as it was: %s", failed);
    hooks_fire(m, HOOK_reload_failed, NULL, failed);
    notify_ready(m);
    if (m->reload.again)
        reload_start(m);
}

void reload_abandon(struct master *m)
{
    m->reload.again = false;
    give_up(m);
    conclude(m, "stopped", "the server was stopped meanwhile");
    log_warn("the reload is abandoned");
}

/* It has died, or there never was a process: to try again until it can be forked might take for ever. */
static void canary_died(struct master *m)
{
    char how[360], reason[480];
    struct worker *w = m->reload.canary;
    crew_describe_death(m, w, how, sizeof how);
    snprintf(reason, sizeof reason, "the first worker with the new configuration did not become ready: %s",
             !w->fork_ns                      ? "it cannot be forked, the log says why"
             : w->cause == DEATH_boot_timeout ? "boot timeout"
                                              : how);
    give_up(m);
    fail(m, "canary", reason);
}

static void send_canary(struct master *m, int64_t now)
{
    struct reload *r = &m->reload;
    r->step = RELOAD_CANARY;
    r->progress_ns = now;
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++)
        r->before[role] = crew_count(m, m->gen, role, false);
    r->canary = crew_add(m, r->next, m->args.http ? ROLE_HTTP : ROLE_INGEST);
    if (r->canary) {
        r->canary->once = true;
        return;
    }
    give_up(m);
    fail(m, "canary", "no slot is free: too many workers are still leaving");
}

void reload_tick(struct master *m, int64_t now)
{
    struct reload *r = &m->reload;
    if (r->step == RELOAD_WAIT) {
        if (!oldest_kept(m) || now - r->progress_ns > r->next->cfg->server_boot_timeout * MS)
            send_canary(m, now);
        return;
    }
    if (r->step == RELOAD_CANARY) {
        if (r->canary->gen != r->next || r->canary->failures)
            canary_died(m);
        if (m->phase != MASTER_RELOADING || !r->next || !crew_ready(m, r->canary))
            return;
        r->canary->once = false;
        r->step = RELOAD_ROLL;
        r->progress_ns = now;
    }
    roll(m, now);
}

/* Starts new workers, at most `surge` at once. */
static int grow(struct master *m, int booting, int surge)
{
    const struct generation *next = m->reload.next;
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++)
        for (int n = crew_count(m, next, role, false); n < next->target[role] && booting < surge; n++, booting++)
            if (!crew_add(m, next, role))
                return booting;
    return booting;
}

/* Who leaves before whom: what has no process, what does not serve, what has asked to be replaced, anybody. */
static int rank_to_leave(const struct master *m, const struct worker *w)
{
    return !w->pid ? 4 : !crew_ready(m, w) ? 3 : w->recycle != RECYCLE_none ? 2 : 1;
}

/* Drains old workers down to `keep`. */
static void shrink(struct master *m, enum role role, int keep)
{
    for (int n = crew_count(m, m->gen, role, false); n > keep; n--) {
        struct worker *first = NULL;
        crew_for_each (w, &m->crew)
            if (w->gen == m->gen && w->role == role && (!first || rank_to_leave(m, w) > rank_to_leave(m, first)))
                first = w;
        crew_drain(m, first);
    }
}

/* How often new workers have died or could not be forked; *last is one that has died, or NULL. */
static unsigned new_deaths(const struct master *m, const struct worker **last)
{
    unsigned n = 0;
    *last = NULL;
    crew_for_each (w, &m->crew)
        if (w->gen == m->reload.next && w->failures) {
            n += w->failures;
            if (w->fork_ns)
                *last = w;
        }
    return n;
}

static void roll_failed(struct master *m)
{
    char how[360] = "fork failed, see the log", reason[480];
    const struct worker *last;
    unsigned n = new_deaths(m, &last);
    if (last)
        crew_describe_death(m, last, how, sizeof how);
    snprintf(reason, sizeof reason,
             "no further worker has become ready within server.boot_timeout; %u attempts failed%s%s", n,
             n ? ", the last known: " : "", n ? how : "");
    give_up(m);
    fail(m, "exchange", reason);
}

/* One old worker leaves for each new one that is READY; the last of each role stays until all are: it still accepts
 * from the sockets that the new configuration does not have. */
static void roll(struct master *m, int64_t now)
{
    struct reload *r = &m->reload;
    int ready = 0, planned = 0, total = 0;
    bool complete = true;
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++) {
        int have = crew_count(m, r->next, role, true), target = r->next->target[role];
        int keep = have >= target ? 0 : r->before[role] - have;
        shrink(m, role, keep > 1 ? keep : 1);
        ready += have;
        planned += crew_count(m, r->next, role, false);
        total += target;
        complete &= have >= target;
    }
    if (ready > r->ready) {
        r->ready = ready;
        r->progress_ns = now;
    }
    int surge = r->next->cfg->server_surge ? (int)r->next->cfg->server_surge : total < 8 ? 1 : total / 4;
    const struct worker *last;
    if (complete) {
        commit(m, now);
    } else if (now - r->progress_ns > r->next->cfg->server_boot_timeout * MS) {
        roll_failed(m);
    } else {
        /* One that dies keeps its place among those that boot, and is forked again after its delay. So when more than
         * `surge` die, nothing else is begun, and no old worker leaves, until they live or the time is up. */
        grow(m, planned - ready, surge);
        if (!r->paused && new_deaths(m, &last) > (unsigned)surge) {
            r->paused = true;
            log_warn("the exchange of workers pauses: new ones die");
        }
    }
}

/* Long requests must not pile up generations: the oldest of those that drain end now. */
static void cap_old(struct master *m)
{
    uint32_t kept = oldest_kept(m);
    crew_for_each (w, &m->crew)
        if (w->pid && !w->gen && m->sb->slot[w->slot].generation < kept && w->asked < ASK_QUIT) {
            log_warn("worker %u (%s, pid %d) still drains, but two younger generations do so, too: ending it", w->slot,
                     role_name(w->role), (int)w->pid);
            crew_quit(m, w);
        }
}

static void commit(struct master *m, int64_t now)
{
    struct reload *r = &m->reload;
    struct generation *old = m->gen;
    /* First the master's own copies of the sockets that go: the workers empty the queues and close theirs. After them
     * there must be no socket left to which a client could connect and then wait for nobody. */
    activate_store(&r->next->listen, &old->listen);
    listen_close(&old->listen, &r->next->listen);
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++)
        shrink(m, role, 0);
    if (moves_pidfile(m, r->next->cfg)) {
        pidfile_close(&m->pidfile);
        m->pidfile = r->pidfile;
        r->pidfile = (struct pidfile){.fd = -1};
    } else {
        pidfile_restore(&m->pidfile);
    }
    m->gen = r->next;
    r->next = NULL;
    r->canary = NULL;
    conclude(m, NULL, NULL);
    m->phase = MASTER_IDLE;
    atomic_store(&m->sb->generation, m->gen->number);
    atomic_fetch_add(&m->sb->reloads_ok, 1);
    master_log_to(m, m->gen);
    log_init((enum log_level)m->gen->cfg->log_level, m->gen->cfg->log_format == 1, "master");
    log_info("reloaded in %lld ms: generation %u, %d http and %d ingest workers", (long long)((now - r->start_ns) / MS),
             m->gen->number, m->gen->target[ROLE_HTTP], m->gen->target[ROLE_INGEST]);
    if (old->scaled)
        log_info("the numbers of workers are those of the configuration again, not those that were asked for since");
    cap_old(m);
    for (int i = 0; i < m->gen->listen.n; i++)
        log_debug("listening on %s", m->gen->listen.v[i].l.name);
    generation_free(old, m->gen);
    control_restore(m);
    notify_ready(m);
    if (r->again)
        reload_start(m);
}
