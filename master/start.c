/* The start, step by step, each with its exit code, and the end. What an upgrade passes on comes in here, too: inherit.h,
 * reexec.h. */
#include "common/clock.h"
#include "common/log.h"
#include "master/activate.h"
#include "master/control.h"
#include "master/fibers.h"
#include "master/master.h"
#include "master/oom.h"
#include "master/reexec.h"
#include "master/signals.h"
#include "version.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

static int fail(struct master *m, int code, const char *what, struct err *e)
{
    if (m->gen)
        config_locate(m->gen->cfg, e);
    str_copyz(m->heir.reason, sizeof m->heir.reason, str_of(e->msg));
    log_err(LOG_ERROR, what, e);
    return code;
}

static int make_shared(struct master *m, unsigned slots, struct err *e)
{
    if (scoreboard_create(&m->sb, &m->sb_fd, slots, e) != 0 || crew_init(&m->crew, slots, e) != 0)
        return -1;
    atomic_store(&m->sb->slots, 0); /* grows with the forks */
    m->jobs_fd = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    return m->jobs_fd < 0 ? err_errno(e, "eventfd") : 0;
}

static int open_shared(struct master *m, struct err *e)
{
    unsigned slots = 4 * (unsigned)m->gen->cfg->server_max_workers + 8; /* two roles, two generations, and a reserve */
    if (slots > SCORE_SLOTS_MAX)
        slots = SCORE_SLOTS_MAX;
    if ((reexec_adopts(m) ? reexec_shared(m, slots, e) : make_shared(m, slots, e)) != 0 || heir_places(m, e) != 0)
        return -1;
    atomic_store(&m->sb->generation, m->gen->number);
    if (signals_open(&m->signal_fd, e) != 0)
        return -1;
    m->base = event_base_new();
    if (!m->base)
        return err_set(e, ERR_INTERNAL, "cannot make an event loop");
    event_assign(&m->signal_event, m->base, m->signal_fd, EV_READ | EV_PERSIST, on_signal_fd, m);
    event_assign(&m->timer, m->base, -1, 0, on_timer, m);
    return event_add(&m->signal_event, NULL) == 0 ? 0 : err_set(e, ERR_INTERNAL, "cannot watch for signals");
}

static void log_listening(const struct generation *g, const char *what, bool admin)
{
    struct buf b = {0};
    for (int i = 0; i < g->listen.n; i++)
        if (listen_is_admin(&g->listen.v[i]) == admin)
            buf_printf(&b, "%s%s%s", b.n ? ", " : "", g->listen.v[i].l.unix_socket ? "" : "http://",
                       g->listen.v[i].l.name);
    log_info("%s " STR_FMT, what, STR_ARG(buf_view(&b)));
    buf_fini(&b);
}

static void log_start(const struct master *m)
{
    const struct generation *g = m->gen;
    struct buf b = {0};
    log_info("ragd %s (%s), pid %d, configuration %s", RAGD_VERSION, RAGD_COMMIT, (int)m->pid,
             g->cfg->file ? g->cfg->file : "without a file");
    log_listening(g, "running on", false);
    if (generation_wants_status(g))
        log_listening(g, "status on", true);
    log_info("%d http and %d ingest workers; a stop takes at most %.1f s", g->target[ROLE_HTTP], g->target[ROLE_INGEST],
             (double)master_worst_stop_ms(g->cfg) / 1000);
    config_warnings(g->cfg, &b);
    privileges_warnings(&m->privileges, g->cfg, &b);
    struct str rest = buf_view(&b);
    while (rest.n) {
        struct str line = str_cut(&rest, '\n');
        if (line.n)
            log_warn(STR_FMT, STR_ARG(line));
    }
    buf_fini(&b);
}

void master_log_to(struct master *m, const struct generation *g)
{
    if (dup2(logfiles_events(&g->logs, m->stderr_fd), STDERR_FILENO) < 0)
        log_error("log.file: cannot write to %s: %s", g->cfg->log_file, strerror(errno));
}

static int pidfile_exit(const struct err *e)
{
    return e->code == ERR_BUSY ? EXIT_LOCKED : e->code == ERR_VALIDATION ? EXIT_CONFIG : EXIT_INTERNAL;
}

/* 0, or the exit code. */
static int open_sockets(struct master *m, struct err *e)
{
    bool first = m->heir.estate.kind == ESTATE_none;
    if (reexec_adopts(m))
        return reexec_generation(m, e) == 0 ? 0 : EXIT_INTERNAL;
    if ((first && activate_take(&m->passed, e) != 0) ||
        generation_open(m->gen, first ? &m->passed : &m->heir.estate.listen, e) != 0)
        return e->code == ERR_VALIDATION ? EXIT_CONFIG : EXIT_BIND;
    if (first)
        activate_store(&m->gen->listen, &m->passed);
    listen_close(&m->passed, &m->gen->listen);
    return 0;
}

int master_set_up(struct master *m)
{
    struct err e = {.code = ERR_NONE};
    struct config *cfg;
    m->pid = getpid();
    m->start_ns = clock_ns();
    srandom((unsigned)(m->start_ns ^ m->pid)); /* for the jitter of delays only */
    m->stderr_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (m->stderr_fd < 0)
        return fail(m, EXIT_INTERNAL, "start", (err_errno(&e, "stderr"), &e));
    log_init(LOG_INFO, false, "master");
    launch_init(&m->launch, m->args.argv, m->args.config.environ);
    upgrade_init(&m->upgrade);
    if (heir_receive(m, &e) != 0)
        return fail(m, EXIT_TRIAL, "upgrade", &e);
    if (reexec_config(m, &cfg, &e) != 0)
        return fail(m, EXIT_CONFIG, "configuration", &e);
    log_init((enum log_level)cfg->log_level, cfg->log_format == 1, "master");
    m->gen = generation_new(m, 1, cfg);
    privileges_umask(cfg);
    if (privileges_resolve(&m->privileges, cfg, &e) != 0 || privileges_check(&m->privileges, cfg, &e) != 0 ||
        hooks_check(cfg, &e) != 0)
        return fail(m, EXIT_CONFIG, "start", &e);
    heir_limit(m);
    if (heir_pidfile(m, &e) != 0)
        return fail(m, pidfile_exit(&e), "start", &e);
    if (!reexec_adopts(m) && logfiles_open(&m->gen->logs, m->gen->cfg, m->gen->privileges, &e) != 0)
        return fail(m, EXIT_CONFIG, "start", &e);
    int code = open_sockets(m, &e);
    if (code != 0)
        return fail(m, code, "start", &e);
    if (open_shared(m, &e) != 0)
        return fail(m, EXIT_INTERNAL, "start", &e);
    m->oom_kills = oom_read("").kills;
    notify_start(m);
    if (heir_begin(m, &e) != 0)
        return fail(m, EXIT_INTERNAL, "start", &e);
    master_log_to(m, m->gen); /* until here, whoever starts the server shall read what is wrong */
    log_start(m);
    if (reexec_adopts(m))
        reexec_adopt(m);
    else if (m->heir.step == HEIR_NONE)
        m->control = control_open(m, NULL);
    return EXIT_STOPPED;
}

void master_tear_down(struct master *m)
{
    if (m->phase == MASTER_STOPPING)
        log_info(m->killed ? "stopped; workers that had to be killed: %u" : "stopped", m->killed);
    hooks_end(&m->hooks);
    heir_fini(m);
    upgrade_fini(&m->upgrade);
    if (m->gen)
        listen_close(&m->gen->listen, &m->others);
    pidfile_close(&m->pidfile);
    control_close(m->control); /* whoever waits for the stop may start the next server now */
    generation_free(m->gen, NULL);
    if (m->base) {
        event_del(&m->signal_event);
        event_del(&m->timer);
        event_base_free(m->base);
    }
    fibers_free(m);
    crew_fini(&m->crew);
    scoreboard_unmap(m->sb);
    places_unmap(m->places);
    int fds[] = {m->sb_fd, m->places_fd, m->jobs_fd, m->signal_fd, m->stderr_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    launch_fini(&m->launch);
}
