#include "master/master.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/control.h"
#include "master/notify.h"
#include "master/oom.h"
#include "master/signals.h"
#include "version.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    TICK_MS = 250,    /* the longest the master sleeps */
    TICK_BUSY_MS = 5, /* while a worker boots: READY is seen in the scoreboard */
    ASLEEP_MS = 1000, /* a tick later than this: the machine or the master was stopped */
    STOP_MARGIN_MS = 1000,
};

static const char *const phase_names[] = {
#define X(name) #name,
    MASTER_PHASES(X)
#undef X
};

static int set_up(struct master *m);
static void tear_down(struct master *m);
static void tick(struct master *m);
static void arm(struct master *m, int64_t now);

const char *master_phase_name(enum master_phase phase)
{
    return phase_names[phase];
}

int master_run(const struct master_args *args)
{
    struct master m = {
        .args = *args, .sb_fd = -1, .jobs_fd = -1, .life = {-1, -1}, .pidfile = {.fd = -1}, .signal_fd = -1};
    signals_block();
    m.exit_code = set_up(&m);
    m.done = m.exit_code != EXIT_STOPPED;
    while (!m.done) {
        tick(&m);
        arm(&m, clock_ns());
        if (!m.done && event_base_loop(m.base, EVLOOP_ONCE) < 0) {
            log_error("the event loop failed: %s", strerror(errno));
            m.exit_code = EXIT_INTERNAL;
            break;
        }
    }
    tear_down(&m);
    return m.exit_code;
}

/* All that happens is decided here, in this order. */
static void on_wake(struct master *m, int64_t now);
static void on_signals(struct master *m);
static void announce(struct master *m);
static void stop_tick(struct master *m, int64_t now);

static void tick(struct master *m)
{
    int64_t now = clock_ns();
    on_wake(m, now);
    on_signals(m); /* before the dead are collected: Ctrl-C reaches the workers, too, and is no reason to fork again */
    crew_reap(m);
    if (m->phase == MASTER_RELOADING)
        reload_tick(m, now);
    if (m->phase == MASTER_IDLE || (m->phase == MASTER_STOPPING && m->stop.step == STOP_DELAY))
        crew_level(m);
    crew_tick(m, now);
    if (m->phase == MASTER_STOPPING) {
        stop_tick(m, now);
    } else if (!m->was_ready && crew_hopeless(&m->crew)) {
        log_error("no worker has ever become ready, and each has failed three times: giving up");
        m->exit_code = EXIT_NO_BOOT;
        master_stop(m, true);
    } else {
        announce(m);
    }
    control_tick(m->control);
}

static void arm(struct master *m, int64_t now)
{
    int64_t due = crew_next_due(&m->crew), longest = now + TICK_MS * MS;
    if (crew_booting(&m->crew))
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
    int64_t gap = m->tick_due_ns ? now - m->tick_due_ns : 0;
    if (gap < ASLEEP_MS * MS)
        return;
    log_warn("the master was stopped for %.1f s: all deadlines are moved by as much", (double)gap / SEC);
    crew_shift(&m->crew, gap, now);
    m->stop.deadline += gap;
    m->reload.progress_ns += gap;
}

static bool came(struct master *m, int number)
{
    bool yes = m->signals >> number & 1;
    m->signals &= ~(1ULL << number);
    return yes;
}

static void scale(struct master *m, int by)
{
    int to = m->gen->target[ROLE_HTTP] + by, max = (int)m->gen->cfg->server_max_workers;
    if (m->phase != MASTER_IDLE || !m->args.http || to < 1 || to > max) {
        log_warn("the number of http workers stays at %d%s", m->gen->target[ROLE_HTTP],
                 m->phase == MASTER_IDLE ? "" : ": a reload or stop is under way");
        return;
    }
    m->gen->target[ROLE_HTTP] = to;
    log_info("%d http workers from now on, until the next reload", to);
}

static void on_signals(struct master *m)
{
    bool quit = came(m, SIGQUIT), interrupt = came(m, SIGINT);
    if (quit || interrupt)
        master_stop(m, true);
    if (came(m, SIGTERM))
        master_stop(m, false);
    if (came(m, SIGHUP))
        reload_start(m);
    if (came(m, SIGTTIN))
        scale(m, 1);
    if (came(m, SIGTTOU))
        scale(m, -1);
    came(m, SIGCHLD); /* the tick collects them in any case */
    for (int number = 1; m->signals; number++)
        if (came(m, number))
            log_info("signal %s has no effect on this version", sigabbrev_np(number));
}

/* During a reload both generations serve. */
static int ready(const struct master *m, enum role role)
{
    int n = crew_count(m, m->gen, role, true);
    return m->phase == MASTER_RELOADING ? n + crew_count(m, m->reload.next, role, true) : n;
}

bool master_degraded(const struct master *m)
{
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++)
        if (m->gen->target[role] > 0 && ready(m, role) == 0)
            return true;
    return false;
}

/* Says when the server can serve, for the first time, not any more, and again. */
static void announce(struct master *m)
{
    bool degraded = master_degraded(m);
    if (m->announced ? degraded == m->degraded : degraded)
        return;
    if (!m->announced)
        log_info("ready after %lld ms", (long long)((clock_ns() - m->start_ns) / MS));
    else if (degraded)
        log_warn("degraded: no %s worker is ready", ready(m, ROLE_HTTP) || !m->args.http ? "ingest" : "http");
    else
        log_info("not degraded any more");
    m->announced = true;
    m->degraded = degraded;
    notify_send("%sSTATUS=%s%d http and %d ingest workers", degraded ? "" : "READY=1\n", degraded ? "degraded; " : "",
                m->gen->target[ROLE_HTTP], m->gen->target[ROLE_INGEST]);
}

/* -- stopping: TERM waits, then drains; QUIT and INT end the waiting and the draining */

int64_t master_worst_stop_ms(const struct config *cfg)
{
    return cfg->server_shutdown_delay + cfg->server_graceful_timeout + cfg->server_fast_timeout + STOP_MARGIN_MS;
}

#define EACH_WORKER(w, m) (struct worker *w = (m)->crew.v; w < (m)->crew.v + (m)->crew.n; w++)

static void stop_drain(struct master *m, int64_t now)
{
    const struct config *cfg = m->gen->cfg;
    m->stop.step = STOP_DRAIN;
    m->stop.deadline = now + (cfg->server_graceful_timeout + cfg->server_fast_timeout + STOP_MARGIN_MS) * MS;
    /* The workers hold the sockets, too, and close them when their queues are empty. Were they to stay open here,
     * clients would still connect and then wait for nobody. */
    listen_close(&m->gen->listen, NULL);
    for
        EACH_WORKER(w, m)
    crew_drain(m, w);
}

static void stop_fast(struct master *m, int64_t now)
{
    m->stop.step = STOP_FAST;
    m->stop.deadline = now + (m->gen->cfg->server_fast_timeout + STOP_MARGIN_MS) * MS;
    listen_close(&m->gen->listen, NULL);
    for
        EACH_WORKER(w, m)
    crew_quit(m, w);
}

void master_stop(struct master *m, bool fast)
{
    int64_t now = clock_ns(), delay = m->gen->cfg->server_shutdown_delay;
    if (m->phase != MASTER_STOPPING) {
        if (m->phase == MASTER_RELOADING)
            reload_abandon(m);
        m->phase = MASTER_STOPPING;
        m->stop.step = STOP_DELAY;
        m->stop.deadline = now + delay * MS;
        atomic_store(&m->sb->draining, 1);
        log_info(fast ? "stopping at once" : "stopping: requests in flight are finished first");
        notify_send("STOPPING=1");
        if (!fast && delay == 0)
            stop_drain(m, now);
    }
    if (fast && m->stop.step != STOP_FAST)
        stop_fast(m, now);
}

static void stop_tick(struct master *m, int64_t now)
{
    if (m->stop.step == STOP_DELAY) {
        if (now >= m->stop.deadline)
            stop_drain(m, now);
        return;
    }
    int left = crew_alive(&m->crew);
    if (left && now >= m->stop.deadline)
        log_error("%d workers do not even end when killed: leaving without them", left);
    m->done = left == 0 || now >= m->stop.deadline;
}

/* -- generations */

static int open_access_log(const char *where, struct err *e)
{
    if (strcmp(where, "off") == 0)
        return -1;
    if (strcmp(where, "stdout") == 0)
        return STDOUT_FILENO;
    if (strcmp(where, "stderr") == 0)
        return STDERR_FILENO;
    int fd = open(where, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    return fd < 0 ? err_errno(e, "log.access: cannot open %s", where) : fd;
}

struct generation *generation_new(const struct master *m, uint32_t number, struct config *cfg)
{
    struct generation *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->number = number;
    g->cfg = cfg;
    g->access_fd = -1;
    g->target[ROLE_HTTP] = m->args.http ? config_http_workers(cfg) : 0;
    g->target[ROLE_INGEST] = m->args.ingest ? config_ingest_workers(cfg) : 0;
    return g;
}

int generation_open(struct generation *g, const struct generation *old, struct err *e)
{
    struct err log_failed = {.code = ERR_NONE};
    int fd = open_access_log(g->cfg->log_access, &log_failed);
    if (log_failed.code != ERR_NONE) {
        *e = log_failed;
        return -1;
    }
    g->access_fd = fd;
    return listen_open(&g->listen, g->cfg, old ? &old->listen : NULL, e);
}

void generation_free(struct generation *g, const struct generation *keep)
{
    if (!g)
        return;
    listen_close(&g->listen, keep ? &keep->listen : NULL);
    if (g->access_fd > STDERR_FILENO)
        close(g->access_fd);
    config_free(g->cfg);
    free(g);
}

/* -- start and end */

static void on_signal_fd(evutil_socket_t fd, short what, void *arg)
{
    struct master *m = arg;
    (void)what;
    m->signals |= signals_read(fd);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg; /* it only ends the wait; the tick does the rest */
}

static int fail(int code, const char *what, const struct err *e)
{
    log_err(LOG_ERROR, what, e);
    return code;
}

static int open_shared(struct master *m, struct err *e)
{
    unsigned slots = 4 * (unsigned)m->gen->cfg->server_max_workers + 8; /* two roles, two generations, and a reserve */
    if (slots > SCORE_SLOTS_MAX)
        slots = SCORE_SLOTS_MAX;
    if (scoreboard_create(&m->sb, &m->sb_fd, slots, e) != 0 || crew_init(&m->crew, slots, e) != 0)
        return -1;
    atomic_store(&m->sb->slots, 0); /* grows with the forks */
    atomic_store(&m->sb->generation, m->gen->number);
    m->jobs_fd = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    if (m->jobs_fd < 0)
        return err_errno(e, "eventfd");
    if (pipe2(m->life, O_CLOEXEC | O_NONBLOCK) != 0)
        return err_errno(e, "pipe");
    if (signals_open(&m->signal_fd, e) != 0)
        return -1;
    m->base = event_base_new();
    if (!m->base)
        return err_set(e, ERR_INTERNAL, "cannot make an event loop");
    event_assign(&m->signal_event, m->base, m->signal_fd, EV_READ | EV_PERSIST, on_signal_fd, m);
    event_assign(&m->timer, m->base, -1, 0, on_timer, m);
    return event_add(&m->signal_event, NULL) == 0 ? 0 : err_set(e, ERR_INTERNAL, "cannot watch for signals");
}

static void log_start(const struct master *m)
{
    const struct generation *g = m->gen;
    struct buf b = {0};
    log_info("ragd %s (%s), pid %d, configuration %s", RAGD_VERSION, RAGD_COMMIT, (int)m->pid,
             g->cfg->file ? g->cfg->file : "without a file");
    for (int i = 0; i < g->listen.n; i++)
        buf_printf(&b, "%s%s%s", i ? ", " : "", g->listen.v[i].l.unix_socket ? "" : "http://", g->listen.v[i].l.name);
    log_info("running on %.*s", (int)b.n, b.p);
    log_info("%d http and %d ingest workers; a stop takes at most %.1f s", g->target[ROLE_HTTP], g->target[ROLE_INGEST],
             (double)master_worst_stop_ms(g->cfg) / 1000);
    b.n = 0;
    config_warnings(g->cfg, &b);
    struct str rest = buf_view(&b);
    while (rest.n) {
        struct str line = str_cut(&rest, '\n');
        if (line.n)
            log_warn(STR_FMT, STR_ARG(line));
    }
    buf_fini(&b);
}

static int set_up(struct master *m)
{
    struct err e = {.code = ERR_NONE};
    struct config *cfg;
    m->pid = getpid();
    m->start_ns = clock_ns();
    srandom((unsigned)(m->start_ns ^ m->pid)); /* for the jitter of delays only */
    log_init(LOG_INFO, false, "master");
    if (config_load(&m->args.config, &cfg, &e) != 0)
        return fail(EXIT_CONFIG, "configuration", &e);
    log_init((enum log_level)cfg->log_level, cfg->log_format == 1, "master");
    m->gen = generation_new(m, 1, cfg);
    if (pidfile_open(&m->pidfile, cfg->server_pidfile, &e) != 0)
        return fail(e.code == ERR_BUSY ? EXIT_LOCKED : EXIT_INTERNAL, "start", &e);
    if (generation_open(m->gen, NULL, &e) != 0)
        return fail(e.code == ERR_VALIDATION ? EXIT_CONFIG : EXIT_BIND, "start", &e);
    if (open_shared(m, &e) != 0)
        return fail(EXIT_INTERNAL, "start", &e);
    m->oom_kills = oom_kills();
    m->control = control_open(m);
    log_start(m);
    return EXIT_STOPPED;
}

static void tear_down(struct master *m)
{
    if (m->phase == MASTER_STOPPING)
        log_info(m->killed ? "stopped; workers that had to be killed: %u" : "stopped", m->killed);
    control_close(m->control);
    generation_free(m->gen, NULL);
    if (m->base) {
        event_del(&m->signal_event);
        event_del(&m->timer);
        event_base_free(m->base);
    }
    pidfile_close(&m->pidfile);
    crew_fini(&m->crew);
    scoreboard_unmap(m->sb);
    int fds[] = {m->sb_fd, m->jobs_fd, m->life[0], m->life[1], m->signal_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}
