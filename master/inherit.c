#include "master/inherit.h"
#include "common/log.h"
#include "master/activate.h"
#include "master/control.h"
#include "master/master.h"
#include "master/notify.h"
#include "master/orders.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void hear(struct master *m, const char *text);
static void offer(struct master *m);
static void take_over(struct master *m);
static void orphaned(struct master *m);
static void settle(struct master *m);

int heir_receive(struct master *m, struct err *e)
{
    struct heir *h = &m->heir;
    h->hand.fd = -1;
    if (estate_read(&h->estate, e) != 0)
        return -1;
    if (h->estate.kind != ESTATE_successor && h->estate.kind != ESTATE_trial)
        return 0;
    h->step = HEIR_BOOT;
    h->trial = h->estate.kind == ESTATE_trial;
    h->hand.fd = h->estate.peer;
    h->estate.peer = -1;
    str_copyz(h->control, sizeof h->control, str_of(h->estate.control));
    m->others = h->estate.listen;
    m->phase = MASTER_UPGRADING;
    return 0;
}

void heir_limit(struct master *m)
{
    int *target = m->gen->target;
    if (!m->heir.trial)
        return;
    target[ROLE_INGEST] = target[ROLE_HTTP] == 0;
    target[ROLE_HTTP] = !target[ROLE_INGEST];
}

int heir_pidfile(struct master *m, struct err *e)
{
    struct pidfile *p = &m->heir.estate.pidfile;
    const char *path = m->gen->cfg->server_pidfile;
    if (m->heir.trial)
        return 0;
    if (p->fd < 0 || strcmp(path, p->path) != 0)
        return pidfile_open(&m->pidfile, path, e);
    m->pidfile = *p; /* the lock is shared; the text stays until this is the server */
    m->pidfile.lent = m->heir.pidfile_shared = m->heir.step != HEIR_NONE;
    *p = (struct pidfile){.fd = -1};
    return 0;
}

int heir_places(struct master *m, struct err *e)
{
    struct estate *s = &m->heir.estate;
    if (places_adopt(s->places, &m->places)) {
        m->places_fd = s->places;
        s->places = -1;
        return 0;
    }
    if (s->kind != ESTATE_none)
        log_warn("until the workers of the old release have left, there may be twice database.max_connections: it "
                 "counts them in another way");
    return places_create(&m->places, &m->places_fd, e);
}

int heir_begin(struct master *m, struct err *e)
{
    struct heir *h = &m->heir;
    if (h->step == HEIR_NONE)
        return 0;
    estate_release(&h->estate, &m->gen->listen);
    m->gen->target[ROLE_STATUS] = 0; /* probes are answered by that of the old master, as long as it is the server */
    return handshake_watch(&h->hand, m->base, e);
}

/* BOOT: nothing is said before every worker is READY. One that cannot boot is tried again; after three times in vain the
 * master gives up, as at any start. OFFER: the old master answers at once, or is gone. WINDOW: this is the server. A HUP
 * waits until it is known which of the two stays. The end of the handshake means that the old master is gone: by itself
 * when the window is over, else by an accident. */
void heir_tick(struct master *m, int64_t now)
{
    char text[HANDSHAKE_MAX];
    int r;
    (void)now;
    while ((r = handshake_receive(&m->heir.hand, text)) != 0) {
        if (m->phase !=
            MASTER_UPGRADING) /* it stops: nothing that is said matters, but left unread it would wake us again */
            continue;
        if (r > 0)
            hear(m, text);
        else
            orphaned(m);
    }
    if (m->phase == MASTER_UPGRADING && m->heir.step == HEIR_BOOT && crew_complete(m, m->gen))
        offer(m);
}

/* Says what of the old master's it goes on using. */
static void offer(struct master *m)
{
    json_t *listen = json_array(), *doc;
    for (int i = 0; i < m->gen->listen.n; i++)
        json_array_append_new(listen, json_string(m->gen->listen.v[i].key));
    doc = json_pack("{s:o,s:b}", "listen", listen, "pidfile", m->pidfile.fd >= 0 && m->pidfile.lent);
    char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    handshake_send(&m->heir.hand, "READY %s", text ? text : "{}");
    free(text);
    json_decref(doc);
    m->heir.step = HEIR_OFFER;
    log_info("the workers are ready: waiting for the old master to hand over");
}

static void give_up(struct master *m, int exit_code)
{
    m->exit_code = exit_code;
    master_stop(m, true);
}

/* The old master is the server again: what both have is not closed or removed here. */
static void leave_all(struct master *m)
{
    struct heir *h = &m->heir;
    h->back = true;
    h->asked = false;
    m->others = h->estate.listen;
    m->pidfile.lent = h->pidfile_shared;
    atomic_store(&m->sb->handed_over, 1);
}

static void hand_back(struct master *m)
{
    struct heir *h = &m->heir;
    leave_all(m);
    log_info("the upgrade is rolled back: the old master serves, this one drains");
    notify_send("MAINPID=%d", (int)getppid()); /* systemd may listen to the main process alone: still this one */
    handshake_send(&h->hand, "GIVEN");
    master_stop(m, false);
}

static void hear(struct master *m, const char *text)
{
    struct heir *h = &m->heir;
    const char *rest;
    if (handshake_is(text, "GO", NULL) && h->step == HEIR_OFFER) {
        take_over(m);
    } else if (handshake_is(text, "ABORT", NULL)) {
        log_info(h->trial ? "the trial is over" : "the upgrade has failed: leaving");
        if (h->step == HEIR_WINDOW) /* the old one has not waited for TAKEN */
            leave_all(m);
        give_up(m, h->trial ? EXIT_STOPPED : EXIT_TRIAL);
    } else if (handshake_is(text, "END", NULL)) {
        settle(m);
    } else if (handshake_is(text, "HUP", NULL)) {
        m->reload.again = true;
    } else if (handshake_is(text, "REOPEN", NULL)) {
        (void)orders_logs(m, &(struct err){.code = ERR_NONE}); /* the reason is in the log */
    } else if (handshake_is(text, "BACK", NULL) && h->step == HEIR_WINDOW) {
        hand_back(m);
    } else if (handshake_is(text, "REFUSED", &rest)) {
        h->asked = false;
        str_copyz(m->upgrade.refused, sizeof m->upgrade.refused, str_of(rest));
        log_error("the upgrade is not rolled back: %s", rest);
    }
}

/* From now on nothing is the old master's any more. Both the pidfile and the control socket were there all the time. */
static void own(struct master *m)
{
    m->heir.step = HEIR_WINDOW;
    m->others.n = 0;
    m->gen->target[ROLE_STATUS] = generation_wants_status(m->gen);
    m->control = control_open(m, m->heir.control);
}

static void take_over(struct master *m)
{
    struct err e = {.code = ERR_NONE};
    if (pidfile_take(&m->pidfile, &e) != 0) {
        str_copyz(m->heir.reason, sizeof m->heir.reason, str_of(e.msg));
        log_err(LOG_ERROR, "cannot take over", &e);
        give_up(m, EXIT_TRIAL);
        return;
    }
    own(m);
    verdict_set(&m->upgrade.last, m->heir.estate.upgrade_start_ns, NULL, NULL);
    atomic_store(&m->sb->upgrades_ok, m->heir.estate.upgrades_ok + 1);
    atomic_store(&m->sb->upgrades_failed, m->heir.estate.upgrades_failed);
    m->announced = true;
    notify_ready(m);
    hooks_fire(m, HOOK_ready, NULL, "upgraded");
    handshake_send(&m->heir.hand, "TAKEN");
    log_info("this is the server now");
}

/* The upgrade is over, and this is the server. */
static void settle(struct master *m)
{
    struct heir *h = &m->heir;
    handshake_close(&h->hand);
    if (h->asked)
        str_copyz(m->upgrade.refused, sizeof m->upgrade.refused, STR("the old master has left"));
    h->asked = false;
    h->step = HEIR_NONE;
    m->phase = MASTER_IDLE;
    pidfile_copy_remove(&m->pidfile);
    activate_store(&m->gen->listen, &h->estate.listen);
    if (m->reload.again)
        reload_start(m);
}

static void orphaned(struct master *m)
{
    struct err e = {.code = ERR_NONE};
    if (m->heir.trial) {
        give_up(m, EXIT_TRIAL);
        return;
    }
    if (m->heir.step < HEIR_WINDOW) {
        log_warn("the old master is gone without a word: this one takes its place; systemd does not know, because only "
                 "the old one could have told it");
        if (pidfile_take(&m->pidfile, &e) != 0)
            log_err(LOG_ERROR, "start", &e);
        own(m);
    }
    settle(m);
}

bool heir_stop(struct master *m)
{
    struct heir *h = &m->heir;
    if (h->step != HEIR_WINDOW || h->back)
        return h->step != HEIR_NONE;
    handshake_send(&h->hand, "STOP");
    return false;
}

void heir_fini(struct master *m)
{
    struct heir *h = &m->heir;
    if (h->step == HEIR_BOOT || h->step == HEIR_OFFER)
        handshake_send(&h->hand, "FAILED %s", *h->reason ? h->reason : "it was stopped");
    handshake_close(&h->hand);
    estate_release(&h->estate, &h->estate.listen);
}

bool heir_rollback(struct master *m)
{
    struct heir *h = &m->heir;
    if (h->step != HEIR_WINDOW || h->hand.fd < 0)
        return false;
    h->asked = true;
    m->upgrade.refused[0] = 0;
    handshake_send(&h->hand, "ROLLBACK");
    return true;
}
