#include "master/master.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/title.h"
#include "master/control.h"
#include "master/recycle.h"
#include "master/reexec.h"
#include "master/orders.h"
#include "master/publish.h"
#include "master/signals.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum {
    TICK_MS = 250,    /* the longest the master sleeps */
    TICK_BUSY_MS = 5, /* while a worker boots, whose READY is seen in the scoreboard, or a command waits */
};

static const char *const phase_names[] = {
#define X(name) #name,
    MASTER_PHASES(X)
#undef X
};

static void tick(struct master *m);
static void arm(struct master *m, int64_t now);

const char *master_phase_name(enum master_phase phase)
{
    return phase_names[phase];
}

int master_run(const struct master_args *args)
{
    struct master m = {.args = *args, .stderr_fd = -1, .signal_fd = -1, .pidfile = {.fd = -1}};
    m.reload.pidfile.fd = -1;
    m.sb_fd = m.places_fd = m.jobs_fd = -1;
    signals_block();
    m.exit_code = master_set_up(&m);
    m.done = m.exit_code != EXIT_STOPPED;
    if (m.done)
        reexec_back(&m, m.heir.reason);
    while (!m.done) {
        tick(&m);
        arm(&m, m.tick_ns);
        if (!m.done && event_base_loop(m.base, EVLOOP_ONCE) < 0) {
            log_error("the event loop failed: %s", strerror(errno));
            m.exit_code = EXIT_INTERNAL;
            break;
        }
    }
    master_tear_down(&m);
    return m.exit_code;
}

/* All that happens is decided here, in this order. */
static void on_wake(struct master *m, int64_t now);
static void on_signals(struct master *m);

/* Whether deaths are made good and missing workers forked, by the targets of the current generation. */
static bool keeps_crew(const struct master *m)
{
    return m->phase == MASTER_IDLE || (m->phase == MASTER_UPGRADING && upgrade_serves(m)) ||
           (m->phase == MASTER_STOPPING && m->stop.step == STOP_DELAY);
}

static void show_title(const struct master *m)
{
    bool idle = m->phase == MASTER_IDLE;
    title_set("ragd: master [%s], generation %u%s%s", m->gen->cfg->file ? m->gen->cfg->file : "no file", m->gen->number,
              idle && !m->parked ? "" : ", ",
              !idle       ? master_phase_name(m->phase)
              : m->parked ? "parked"
                          : "");
}

/* Whoever takes over for another needs all workers; a server that starts, one. */
static const struct worker *hopeless(const struct master *m)
{
    bool heir = m->heir.step == HEIR_BOOT;
    return m->was_ready && !heir ? NULL : crew_hopeless(&m->crew, !heir);
}

static void give_up(struct master *m, const struct worker *w)
{
    char how[320];
    crew_describe_death(m, w, how, sizeof how);
    if (m->heir.step == HEIR_BOOT)
        log_error("an %s worker has failed three times: giving up", role_name(w->role));
    else
        log_error("no worker has ever become ready, and each has failed three times: giving up");
    snprintf(m->heir.reason, sizeof m->heir.reason, "an %s worker could not boot: %s", role_name(w->role), how);
    m->exit_code = EXIT_NO_BOOT;
    master_stop(m, true);
}

static void tick(struct master *m)
{
    const struct worker *failed;
    int64_t now = m->tick_ns = clock_ns();
    on_wake(m, now);
    on_signals(m); /* before the dead are collected: Ctrl-C reaches the workers, too, and is no reason to fork again */
    crew_reap(m);
    if (m->phase == MASTER_RELOADING)
        reload_tick(m, now);
    if (m->heir.step != HEIR_NONE)
        heir_tick(m, now);
    else
        upgrade_tick(m, now);
    if (keeps_crew(m))
        crew_level(m);
    if (m->phase == MASTER_IDLE || (m->phase == MASTER_UPGRADING && m->heir.step == HEIR_WINDOW))
        recycle_tick(m, now); /* a rollback window may last for days */
    crew_tick(m, now);
    hooks_tick(&m->hooks, now);
    pressure_tick(m, now);
    if (m->phase == MASTER_STOPPING) {
        master_stop_tick(m, now);
    } else if ((failed = hopeless(m))) {
        give_up(m, failed);
    } else {
        master_announce(m);
    }
    publish(m);
    control_tick(m->control);
    notify_tick(m, now);
    show_title(m);
}

/* The next tick is due from the beginning of this one, so that also a stop in the middle of it is noticed. */
static void arm(struct master *m, int64_t now)
{
    int64_t due = crew_next_due(&m->crew), longest = now + TICK_MS * MS;
    if (crew_booting(&m->crew) || control_waits(m->control))
        longest = now + TICK_BUSY_MS * MS;
    if (m->phase == MASTER_STOPPING && m->stop.deadline < due)
        due = m->stop.deadline;
    if (due > longest)
        due = longest;
    if (due < now + MS)
        due = now + MS;
    m->tick_due_ns = due;
    struct timeval tv = {.tv_sec = (due - now) / SEC, .tv_usec = (due - now) % SEC / 1000};
    event_add(&m->timer, &tv);
}

/* After SIGSTOP, a frozen cgroup or a starved machine nobody has missed a deadline but the master itself. */
static void on_wake(struct master *m, int64_t now)
{
    int64_t gap = clock_gap(m->tick_due_ns, now);
    if (!gap)
        return;
    log_warn("the master was stopped for %.1f s: all deadlines are moved by as much", (double)gap / SEC);
    crew_shift(&m->crew, gap, now);
    hooks_shift(&m->hooks, gap);
    m->stop.deadline += gap;
    m->reload.progress_ns += gap;
    upgrade_shift(&m->upgrade, gap);
}

static bool came(struct master *m, int number)
{
    bool yes = m->signals >> number & 1;
    m->signals &= ~(1ULL << number);
    return yes;
}

int master_scale(struct master *m, enum role role, int64_t to, struct err *e)
{
    int64_t max = m->gen->cfg->server_max_workers;
    if (m->phase != MASTER_IDLE)
        return err_set(e, ERR_VALIDATION, "a reload, upgrade or stop is under way; try again when it has ended");
    if (m->gen->target[role] == 0)
        return err_set(e, ERR_VALIDATION, "this server runs no %s workers: it was started with --role",
                       role_name(role));
    if (to < 1 || to > max)
        return err_set(e, ERR_VALIDATION, "the number of %s workers stays at %d: 1 to %lld are possible%s",
                       role_name(role), m->gen->target[role], (long long)max, to < 1 ? "" : " (server.max_workers)");
    m->gen->target[role] = (int)to;
    m->gen->scaled = true;
    master_unpark(m);
    log_info("%d %s workers from now on, until the next reload", (int)to, role_name(role));
    return 0;
}

/* TTIN, TTOU */
static void scale(struct master *m, int by)
{
    struct err e;
    if (m->parked && by > 0 && m->phase == MASTER_IDLE)
        master_unpark(m);
    else if (master_scale(m, ROLE_HTTP, m->gen->target[ROLE_HTTP] + by, &e) != 0)
        log_warn("%s", e.msg);
}

static void wind_down(struct master *m)
{
    if (isatty(STDIN_FILENO))
        log_info("signal WINCH is ignored: stdin is a terminal, which sends it when its window changes");
    else if (m->phase == MASTER_IDLE)
        master_park(m);
    else
        log_warn("signal WINCH is ignored: a reload, upgrade or stop is under way");
}

static void on_signals(struct master *m)
{
    bool quit = came(m, SIGQUIT), interrupt = came(m, SIGINT);
    if (quit || interrupt)
        master_stop(m, true);
    if (came(m, SIGTERM))
        master_stop(m, false);
    if (came(m, SIGWINCH))
        wind_down(m);
    if (came(m, SIGHUP))
        reload_start(m);
    if (came(m, SIGUSR1))
        orders_reopen(m, &(struct err){.code = ERR_NONE});
    if (came(m, SIGUSR2))
        upgrade_request(m);
    if (came(m, SIGTTIN))
        scale(m, 1);
    if (came(m, SIGTTOU))
        scale(m, -1);
    came(m, SIGCHLD); /* the tick collects them in any case */
    for (int number = 1; m->signals; number++)
        if (came(m, number))
            log_info("signal %s has no effect on this version", sigabbrev_np(number));
}
