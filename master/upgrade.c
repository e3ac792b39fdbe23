#include "master/upgrade.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/candidate.h"
#include "master/control.h"
#include "master/inherit.h"
#include "master/master.h"
#include "master/notify.h"
#include "master/orders.h"
#include "master/reexec.h"
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { HANDOVER_MS = 5000, MARGIN_MS = 2000 };

static void start(struct master *m, int64_t now);
static void boot(struct master *m, int64_t now);
static void end_trial(struct master *m);
static void exchange(struct master *m);
static void hand_over(struct master *m, const char *ready, int64_t now);
static void park(struct master *m, int64_t now);
static void come_back(struct master *m, int64_t now);
static void back(struct master *m, int64_t now);
static void refuse_rollback(struct master *m, const char *reason);
static void restore(struct master *m);
static void conclude(struct master *m);
static void fail(struct master *m, const char *stage, const char *reason);

void upgrade_init(struct upgrade *u)
{
    u->hand.fd = u->child.output = -1;
}

void upgrade_fini(struct upgrade *u)
{
    handshake_close(&u->hand);
    candidate_fini(&u->child);
}

void upgrade_request(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    if (m->phase == MASTER_UPGRADING || u->resuming) {
        log_warn("an upgrade is under way: this one is ignored");
    } else if (m->phase != MASTER_STOPPING) {
        u->wanted = true;
        if (m->phase == MASTER_RELOADING)
            log_info("a reload is under way: the upgrade follows it");
    }
}

void upgrade_ended(struct master *m, const char *stage, const char *reason)
{
    struct upgrade *u = &m->upgrade;
    verdict_set(&u->last, u->start_ns, stage, reason);
    snprintf(u->failed, sizeof u->failed, "%s%s%s", stage ? stage : "", stage ? ": " : "", stage ? reason : "");
    str_utf8_fix(u->failed); /* it may quote what somebody wrote, and be cut within a character */
    atomic_fetch_add(stage ? &m->sb->upgrades_failed : &m->sb->upgrades_ok, 1);
}

/* One piece of news: what the new master said, or that the candidate died. Its last words come first. */
struct news {
    char text[HANDSHAKE_MAX]; /* "" = nothing was said */
    bool died;
};

static bool next_news(struct master *m, struct news *n)
{
    struct upgrade *u = &m->upgrade;
    int r = handshake_receive(&u->hand, n->text);
    if (r <= 0) /* the end of the handshake is no news: the end of the process is */
        n->text[0] = 0;
    n->died = r == 0 && candidate_died(&u->child);
    return r != 0 || n->died;
}

/* CHECK: NEW `check` says whether it can work with this configuration. BOOT: the new master, with the same sockets, boots
 * workers; both serve. TRIAL: this is PID 1, and what has booted was a trial, which ends now; then the new binary takes
 * over this process. HANDOVER: the new master was told to take over, and every way back is still short. WINDOW: it is the
 * server; the sockets stay open here, too, and the workers here leave. BACK: they are forked again, and the new master
 * serves until they are READY. RETURN: it gives back what it took over.
 *
 * Whatever goes wrong before TAKEN ends the new master and changes nothing; the end of the new master within the window
 * brings the workers back at once. */
static void step(struct master *m, const struct news *n, int64_t now)
{
    struct upgrade *u = &m->upgrade;
    const char *rest;
    char why[400];
    candidate_describe(&u->child, why, sizeof why);
    bool late = now >= u->deadline;
    switch (u->step) {
    case UPGRADE_CHECK:
        if (n->died && u->child.status == 0)
            boot(m, now);
        else if (n->died || late)
            fail(m, "check", late ? "`check` of the new binary has not ended within server.check_timeout" : why);
        break;
    case UPGRADE_BOOT:
    case UPGRADE_HANDOVER:
        if (handshake_is(n->text, "READY", &rest) && u->step == UPGRADE_BOOT && m->pid == 1)
            end_trial(m);
        else if (handshake_is(n->text, "READY", &rest) && u->step == UPGRADE_BOOT)
            hand_over(m, rest, now);
        else if (handshake_is(n->text, "TAKEN", NULL) && u->step == UPGRADE_HANDOVER)
            park(m, now);
        else if (handshake_is(n->text, "FAILED", &rest))
            fail(m, "boot", rest);
        else if (n->died)
            fail(m, "boot", why);
        else if (late)
            fail(m, "boot", "the new master was not ready within server.upgrade_timeout");
        break;
    case UPGRADE_TRIAL:
        if (n->died)
            exchange(m);
        break;
    case UPGRADE_WINDOW:
        if (handshake_is(n->text, "ROLLBACK", NULL))
            come_back(m, now);
        else if (handshake_is(n->text, "STOP", NULL) || late)
            master_stop(m, false);
        else if (n->died)
            restore(m);
        else if (crew_alive(&m->crew) == 0)
            listen_rest(&m->gen->listen, &m->others);
        break;
    case UPGRADE_BACK:
        if (handshake_is(n->text, "STOP", NULL))
            master_stop(m, false);
        else if (n->died)
            restore(m);
        else if (crew_complete(m, m->gen))
            back(m, now);
        else if (late)
            refuse_rollback(m, "the old workers did not become ready within server.boot_timeout");
        break;
    case UPGRADE_RETURN:
        if (handshake_is(n->text, "STOP", NULL)) /* said before it heard BACK */
            master_stop(m, false);
        else if (handshake_is(n->text, "GIVEN", NULL) || n->died || late)
            conclude(m);
        break;
    }
}

void upgrade_tick(struct master *m, int64_t now)
{
    struct upgrade *u = &m->upgrade;
    struct news n = {.died = false};
    candidate_tick(&u->child, now);
    reexec_tick(m);
    if (m->phase == MASTER_IDLE && u->wanted && !u->child.pid)
        start(m, now);
    while (next_news(m, &n)) {
        if (m->phase != MASTER_UPGRADING) /* nothing that is said matters, but left unread it would wake us again */
            continue;
        if (handshake_is(n.text, "HUP", NULL))
            m->reload.again = true;
        else if (handshake_is(n.text, "REOPEN", NULL))
            (void)orders_logs(m, &(struct err){.code = ERR_NONE}); /* the reason is in the log */
        else
            step(m, &n, now);
    }
    n = (struct news){.died = false};
    if (m->phase == MASTER_UPGRADING)
        step(m, &n, now);
}

void upgrade_shift(struct upgrade *u, int64_t gap)
{
    u->deadline += gap;
    u->window_end += gap;
    if (u->child.deadline)
        u->child.deadline += gap;
}

/* -- until the hand-over */

static void start(struct master *m, int64_t now)
{
    struct upgrade *u = &m->upgrade;
    struct err e = {.code = ERR_NONE};
    u->wanted = false;
    u->step = UPGRADE_CHECK;
    u->start_ns = now;
    u->deadline = now + m->gen->cfg->server_check_timeout * MS;
    m->phase = MASTER_UPGRADING;
    log_info("upgrading to %s", m->launch.path);
    if (candidate_check(&u->child, m, &e) != 0)
        fail(m, "check", e.log[0] ? e.log : e.msg);
}

static void boot(struct master *m, int64_t now)
{
    struct upgrade *u = &m->upgrade;
    struct err e = {.code = ERR_NONE};
    u->step = UPGRADE_BOOT;
    u->deadline = now + m->gen->cfg->server_upgrade_timeout * MS;
    if (candidate_boot(&u->child, m, m->pid == 1 ? ESTATE_trial : ESTATE_successor, &u->hand, &e) != 0)
        fail(m, "boot", e.log[0] ? e.log : e.msg);
    else
        log_info(m->pid == 1 ? "pid %d tries the new binary" : "the new master is pid %d", (int)u->child.pid);
}

static void end_trial(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    const struct config *cfg = m->gen->cfg;
    u->step = UPGRADE_TRIAL;
    candidate_end(&u->child, SIGTERM, cfg->server_graceful_timeout + cfg->server_fast_timeout + MARGIN_MS);
}

static void exchange(struct master *m)
{
    struct err e = {.code = ERR_NONE};
    handshake_close(&m->upgrade.hand);
    (void)reexec(m, &e);
    fail(m, "exec", e.log[0] ? e.log : e.msg);
}

/* What the new master goes on using is not closed or removed here when this one leaves. */
static void lend(struct master *m, const char *ready)
{
    json_error_t bad;
    json_t *doc = json_loads(ready, 0, &bad), *keys = json_object_get(doc, "listen"), *key;
    size_t k;
    m->others.n = 0;
    json_array_foreach (keys, k, key) {
        const struct bound *b = listen_find(&m->gen->listen, json_string_value(key));
        if (b && m->others.n < LISTEN_MAX)
            m->others.v[m->others.n++] = *b;
    }
    m->pidfile.lent = json_is_true(json_object_get(doc, "pidfile"));
    json_decref(doc);
}

static void hand_over(struct master *m, const char *ready, int64_t now)
{
    struct upgrade *u = &m->upgrade;
    u->step = UPGRADE_HANDOVER;
    u->deadline = now + HANDOVER_MS * MS;
    lend(m, ready);
    if (m->gen->cfg->server_rollback_window)
        pidfile_copy(&m->pidfile);
    notify_send("MAINPID=%d", (int)u->child.pid); /* systemd takes it from the old main process only */
    handshake_send(&u->hand, "GO");
    if (m->reload.again)
        handshake_send(&u->hand, "HUP");
}

static void drain_all(struct master *m)
{
    crew_for_each (w, &m->crew)
        crew_drain(m, w);
}

static void park(struct master *m, int64_t now)
{
    struct upgrade *u = &m->upgrade;
    int64_t window = m->gen->cfg->server_rollback_window;
    u->step = UPGRADE_WINDOW;
    u->deadline = u->window_end = now + window * MS;
    u->successor = u->child.pid;
    upgrade_ended(m, NULL, NULL);
    log_info("upgraded in %lld ms: pid %d is the server; the workers here drain", (long long)((now - u->start_ns) / MS),
             (int)u->child.pid);
    if (window)
        log_info("`ragd rollback` brings them back, for the next %.1f s", (double)window / 1000);
    atomic_store(&m->sb->handed_over, 1);
    drain_all(m);
    m->parked = false; /* the new master is not, and should this one come back, its workers are to serve */
}

/* -- the ways back */

/* Takes back what the new master may have taken. */
static void reclaim(struct master *m)
{
    struct err e = {.code = ERR_NONE};
    m->others.n = 0;
    atomic_store(&m->sb->handed_over, 0);
    if (pidfile_take(&m->pidfile, &e) != 0)
        log_err(LOG_ERROR, "rollback", &e);
    if (listen_wake(&m->gen->listen, (int)m->gen->cfg->server_backlog, &e) != 0)
        log_err(LOG_ERROR, "rollback", &e);
    pidfile_copy_remove(&m->pidfile);
    control_take(m->control);
    notify_send("MAINPID=%d", (int)m->pid);
}

/* Whatever comes of it, it is over. */
static void conclude(struct master *m)
{
    handshake_close(&m->upgrade.hand);
    m->phase = MASTER_IDLE;
    notify_ready(m);
    if (m->reload.again)
        reload_start(m);
}

static void end_candidate(struct master *m, int number, int64_t within_ms)
{
    candidate_end(&m->upgrade.child, number, within_ms + MARGIN_MS);
    (void)candidate_died(&m->upgrade.child);
}

static void fail(struct master *m, const char *stage, const char *reason)
{
    struct upgrade *u = &m->upgrade;
    upgrade_ended(m, stage, reason);
    handshake_send(&u->hand, "ABORT");
    end_candidate(m, u->step == UPGRADE_CHECK ? SIGKILL : SIGQUIT, m->gen->cfg->server_fast_timeout);
    if (u->step == UPGRADE_HANDOVER)
        reclaim(m);
    log_error("upgrade failed, everything stays as it was: %s", u->failed);
    conclude(m);
}

/* The new master is dead. */
static void restore(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    char how[64], why[128];
    death_describe(u->child.status, how, sizeof how);
    snprintf(why, sizeof why, "the new master ended: %s", how);
    upgrade_ended(m, "rollback", why);
    reclaim(m);
    log_error("the new master, which was the server, ended (%s): the workers of this one come back", how);
    conclude(m);
}

static void come_back(struct master *m, int64_t now)
{
    struct upgrade *u = &m->upgrade;
    struct err e = {.code = ERR_NONE};
    if (listen_wake(&m->gen->listen, (int)m->gen->cfg->server_backlog, &e) != 0) {
        refuse_rollback(m, e.msg);
        return;
    }
    u->step = UPGRADE_BACK;
    u->refused[0] = 0;
    u->deadline = now + m->gen->cfg->server_boot_timeout * MS;
    log_info("rolling back: the workers come back");
}

static void back(struct master *m, int64_t now)
{
    struct upgrade *u = &m->upgrade;
    const struct config *cfg = m->gen->cfg;
    upgrade_ended(m, "rollback", "it was asked for");
    reclaim(m);
    handshake_send(&u->hand, "BACK");
    log_info("rolled back: the workers are ready, and pid %d drains", (int)u->child.pid);
    candidate_end(&u->child, 0, cfg->server_graceful_timeout + cfg->server_fast_timeout + MARGIN_MS); /* by itself */
    u->step = UPGRADE_RETURN;
    u->deadline = now + HANDOVER_MS * MS;
}

static void refuse_rollback(struct master *m, const char *reason)
{
    struct upgrade *u = &m->upgrade;
    str_copyz(u->refused, sizeof u->refused, str_of(reason));
    handshake_send(&u->hand, "REFUSED %s", u->refused);
    log_error("not rolled back: %s", u->refused);
    u->step = UPGRADE_WINDOW;
    u->deadline = u->window_end;
    drain_all(m);
}

/* -- what else may come */

void upgrade_hup(struct master *m)
{
    log_info("an upgrade is under way: the reload follows it");
    if (m->heir.step == HEIR_WINDOW)
        handshake_send(&m->heir.hand, "HUP");
    else if (m->heir.step == HEIR_NONE && m->upgrade.step >= UPGRADE_HANDOVER)
        handshake_send(&m->upgrade.hand, "HUP");
}

void upgrade_reopen(struct master *m)
{
    handshake_send(&m->heir.hand, "REOPEN");
    handshake_send(&m->upgrade.hand, "REOPEN");
}

bool upgrade_stop(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    u->wanted = false;
    if (m->heir.step != HEIR_NONE)
        return heir_stop(m);
    if (m->phase == MASTER_UPGRADING && (u->step == UPGRADE_WINDOW || u->step == UPGRADE_BACK)) {
        handshake_send(&u->hand, "END");
        pidfile_copy_remove(&m->pidfile); /* the new one may have another pidfile */
        u->child.pid = 0;                 /* it does not depend on us any more */
        return true;
    }
    if (m->phase == MASTER_UPGRADING && u->step < UPGRADE_WINDOW) {
        upgrade_ended(m, "stopped", "the server was stopped meanwhile");
        handshake_send(&u->hand, "ABORT");
        if (u->step == UPGRADE_HANDOVER)
            reclaim(m);
        log_warn("the upgrade is abandoned");
    }
    end_candidate(m, SIGQUIT, m->gen->cfg->server_fast_timeout);
    return false;
}

bool upgrade_rollback(struct master *m)
{
    if (m->phase != MASTER_UPGRADING)
        return false;
    if (m->heir.step != HEIR_NONE)
        return heir_rollback(m);
    if (m->upgrade.step != UPGRADE_WINDOW)
        return false;
    come_back(m, clock_ns());
    return true;
}

bool upgrade_pending(const struct master *m)
{
    const struct upgrade *u = &m->upgrade;
    return u->wanted || u->resuming ||
           (m->phase == MASTER_UPGRADING && m->heir.step == HEIR_NONE && u->step < UPGRADE_WINDOW);
}

/* As PID 1 the old master is no more. */
int64_t upgrade_window_ms(const struct master *m)
{
    return m->phase == MASTER_UPGRADING ? m->gen->cfg->server_rollback_window : 0;
}

pid_t upgrade_window_holder(const struct master *m)
{
    if (m->phase != MASTER_UPGRADING)
        return 0;
    if (m->heir.step != HEIR_NONE)
        return m->heir.step == HEIR_WINDOW ? getppid() : 0;
    return m->upgrade.step == UPGRADE_WINDOW ? m->pid : 0;
}

bool upgrade_rolling_back(const struct master *m)
{
    return m->phase == MASTER_UPGRADING &&
           (m->heir.step == HEIR_NONE ? m->upgrade.step >= UPGRADE_BACK : m->heir.asked);
}

bool upgrade_serves(const struct master *m)
{
    return m->heir.step != HEIR_NONE || m->upgrade.step != UPGRADE_WINDOW;
}

bool upgrade_speaks(const struct master *m)
{
    enum upgrade_step step = m->upgrade.step;
    return m->heir.step == HEIR_NONE ? step < UPGRADE_WINDOW || step == UPGRADE_RETURN : m->heir.step == HEIR_WINDOW;
}
