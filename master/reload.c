/* Reload: read, bind, try one new worker, then exchange the rest; at every step the way back is open, because nothing
 * of the old generation is touched before the canary is READY and its config and sockets live until the end. */
#include "common/clock.h"
#include "common/log.h"
#include "master/master.h"
#include "master/notify.h"
#include <stdio.h>
#include <sys/wait.h>

#define EACH_WORKER(w, m) (struct worker *w = (m)->crew.v; w < (m)->crew.v + (m)->crew.n; w++)

static int prepare(struct master *m, struct generation **out, struct err *e, const char **stage);
static void fail(struct master *m, const char *stage, const char *reason);
static void give_up(struct master *m);
static void roll(struct master *m, int64_t now);
static void commit(struct master *m, int64_t now);

void reload_start(struct master *m)
{
    struct reload *r = &m->reload;
    struct err e = {.code = ERR_NONE};
    const char *stage;
    if (m->phase == MASTER_STOPPING)
        return;
    if (m->phase == MASTER_RELOADING) {
        r->again = true;
        log_info("a reload is under way: another one follows it");
        return;
    }
    r->again = false;
    r->start_ns = clock_ns();
    log_info("reloading the configuration");
    notify_send("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)(r->start_ns / 1000));
    if (prepare(m, &r->next, &e, &stage) != 0) {
        fail(m, stage, e.msg);
        return;
    }
    m->phase = MASTER_RELOADING;
    r->step = RELOAD_CANARY;
    r->progress_ns = r->start_ns;
    r->ready = 0;
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++)
        r->before[role] = crew_count(m, m->gen, role, false);
    r->canary = crew_add(m, r->next, m->args.http ? ROLE_HTTP : ROLE_INGEST);
    if (!r->canary) {
        give_up(m);
        fail(m, "canary", "no slot is free: too many workers are still leaving");
        return;
    }
    r->canary->once = true;
}

/* What a reload cannot change is refused by name, so that nobody believes that it was changed. */
static int refuse(const struct config *old, const struct config *new, struct err *e)
{
    for (int key = 0; key < KEY_COUNT; key++)
        if (config_key_apply((enum config_key)key) == CONFIG_REFUSE && !config_same(old, new, (enum config_key)key))
            return err_set(e, ERR_VALIDATION, "%s cannot be changed by a reload: restart the server",
                           config_key_name((enum config_key)key));
    return 0;
}

static int prepare(struct master *m, struct generation **out, struct err *e, const char **stage)
{
    struct config *cfg;
    *stage = "configuration";
    if (config_load(&m->args.config, &cfg, e) != 0)
        return -1;
    if (refuse(m->gen->cfg, cfg, e) != 0) {
        config_free(cfg);
        return -1;
    }
    *stage = "listen";
    struct generation *g = generation_new(m, m->gen->number + 1, cfg);
    if (generation_open(g, m->gen, e) != 0) {
        generation_free(g, m->gen);
        return -1;
    }
    *out = g;
    return 0;
}

/* Leaves the new generation: its workers go, its sockets close. The old one was never told about it. */
static void give_up(struct master *m)
{
    struct reload *r = &m->reload;
    for
        EACH_WORKER(w, m)
    if (w->gen == r->next)
        crew_drain(m, w);
    generation_free(r->next, m->gen);
    r->next = NULL;
    r->canary = NULL;
    m->phase = MASTER_IDLE;
}

static void fail(struct master *m, const char *stage, const char *reason)
{
    struct reload *r = &m->reload;
    snprintf(r->failed, sizeof r->failed, "%s: %s", stage, reason);
    atomic_fetch_add(&m->sb->reloads_failed, 1);
    log_error("reload failed, everything stays as it was: %s", r->failed);
    notify_send("READY=1\nSTATUS=reload failed: %s", r->failed);
    if (r->again)
        reload_start(m);
}

void reload_abandon(struct master *m)
{
    m->reload.again = false;
    give_up(m);
    snprintf(m->reload.failed, sizeof m->reload.failed, "stopped: the server was stopped meanwhile");
    log_warn("the reload is abandoned");
}

static void canary_died(struct master *m)
{
    char how[64], reason[160];
    struct worker *w = m->reload.canary;
    crew_describe(w->status, how, sizeof how);
    snprintf(reason, sizeof reason, "the first worker with the new configuration did not become ready: %s",
             w->cause == DEATH_boot_timeout ? "boot timeout" : how);
    give_up(m);
    fail(m, "canary", reason);
}

void reload_tick(struct master *m, int64_t now)
{
    struct reload *r = &m->reload;
    if (r->step == RELOAD_CANARY) {
        if (r->canary->gen != r->next)
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

/* Drains old workers down to `keep`, those first that have not even a process. */
static void shrink(struct master *m, enum role role, int keep)
{
    int n = crew_count(m, m->gen, role, false);
    for
        EACH_WORKER(w, m)
    if (n > keep && w->gen == m->gen && w->role == role && !w->pid) {
        crew_drain(m, w);
        n--;
    }
    for
        EACH_WORKER(w, m)
    if (n > keep && w->gen == m->gen && w->role == role) {
        crew_drain(m, w);
        n--;
    }
}

/* One old worker leaves for each new one that is READY. */
static void roll(struct master *m, int64_t now)
{
    struct reload *r = &m->reload;
    int ready = 0, planned = 0, total = 0;
    bool complete = true;
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++) {
        int have = crew_count(m, r->next, role, true), target = r->next->target[role];
        int keep = have >= target ? 0 : r->before[role] - have;
        shrink(m, role, keep > 0 ? keep : 0);
        ready += have;
        planned += crew_count(m, r->next, role, false);
        total += target;
        complete &= have >= target;
    }
    if (ready > r->ready) {
        r->ready = ready;
        r->progress_ns = now;
    }
    if (complete) {
        commit(m, now);
    } else if (now - r->progress_ns > r->next->cfg->server_boot_timeout * MS) {
        give_up(m);
        fail(m, "exchange", "no new worker has become ready within server.boot_timeout");
    } else {
        grow(m, planned - ready, total < 8 ? 1 : total / 4);
    }
}

static void commit(struct master *m, int64_t now)
{
    struct reload *r = &m->reload;
    struct generation *old = m->gen;
    m->gen = r->next;
    r->next = NULL;
    r->canary = NULL;
    r->failed[0] = 0;
    m->phase = MASTER_IDLE;
    atomic_store(&m->sb->generation, m->gen->number);
    atomic_fetch_add(&m->sb->reloads_ok, 1);
    log_init((enum log_level)m->gen->cfg->log_level, m->gen->cfg->log_format == 1, "master");
    log_info("reloaded in %lld ms: generation %u, %d http and %d ingest workers", (long long)((now - r->start_ns) / MS),
             m->gen->number, m->gen->target[ROLE_HTTP], m->gen->target[ROLE_INGEST]);
    for (int i = 0; i < m->gen->listen.n; i++)
        log_debug("listening on %s", m->gen->listen.v[i].l.name);
    generation_free(old, m->gen);
    notify_send("READY=1\nSTATUS=%d http and %d ingest workers", m->gen->target[ROLE_HTTP],
                m->gen->target[ROLE_INGEST]);
    if (r->again)
        reload_start(m);
}
