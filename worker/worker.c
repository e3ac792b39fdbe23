#include "worker/worker.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/title.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"
#include "worker/fiber/loop.h"
#include "worker/orders.h"
#include "worker/recycle.h"
#include "worker/role.h"
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

enum { EXIT_PLANNED = 0, EXIT_BOOT = 3, EXIT_INTERNAL = 70, CRASH_STACK = 64 * 1024 };
enum {
    DRAIN_POLL_MS = 20,
    DRAIN_TICK_MS = 250, /* as often as the master looks whether it was stopped */
    LAST_RESORT_MS = 1000,
};

static struct {
    const struct heritage *h;
    const struct role_ops *role;
    struct event term, quit, intr, beat, drain_poll;
    struct loop_hook flush, turn;
    int64_t sampled_ns;
    _Atomic int64_t drain_end_ns, tick_due_ns; /* a signal handler moves them */
    volatile sig_atomic_t told;                /* to leave: the time for it runs */
    bool draining, canceled, boot_failed;
} w;

/* ---- state ---- */

static void show_title(void)
{
    bool jobs = w.h->role == ROLE_INGEST;
    uint64_t busy = slot_self->stat[jobs ? STAT_jobs_running : STAT_requests_in_flight];
    title_set("ragd: %s %u, generation %u, %s, %llu %s", role_name(w.h->role), w.h->slot, slot_self->generation,
              worker_state_name((enum worker_state)atomic_load(&slot_self->state)), (unsigned long long)busy,
              jobs ? "jobs" : "in flight");
}

static void set_state(enum worker_state to)
{
    enum worker_state from = (enum worker_state)atomic_load(&slot_self->state);
    log_debug("state %s -> %s", worker_state_name(from), worker_state_name(to));
    atomic_store(&slot_self->state, to);
    show_title();
}

/* ---- the last words of a worker: async-signal-safe only ---- */

static void say(const char *s)
{
    ssize_t n = write(STDERR_FILENO, s, strlen(s));
    (void)n;
}

static void say_number(uint64_t v)
{
    char text[21];
    size_t i = sizeof text - 1;
    text[i] = 0;
    do
        text[--i] = (char)('0' + v % 10);
    while (v /= 10);
    say(text + i);
}

static void on_crash(int sig)
{
    void *frames[48];
    int64_t now = clock_ns();
    say("ragd worker ");
    say_number((uint64_t)getpid());
    say(" ends by signal ");
    say_number((uint64_t)sig);
    say("; requests in flight:\n");
    for (int i = 0; i < SCORE_FLIGHTS; i++) {
        struct flight *f = &slot_self->flight[i];
        int64_t start = atomic_load(&f->start_ns);
        if (!start)
            continue;
        say("  ");
        say(f->request_id);
        say(" ");
        say(f->method);
        say(" ");
        say(f->path);
        say(f->asked[0] ? ", last asked for " : "");
        say(f->asked);
        say(", since ");
        say_number((uint64_t)((now - start) / MS));
        say(" ms\n");
    }
    backtrace_symbols_fd(frames, backtrace(frames, (int)(sizeof frames / sizeof *frames)), STDERR_FILENO);
    signal(sig, SIG_DFL);
    raise(sig);
}

static void watch_crashes(void)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    static char stack[CRASH_STACK];
    void *frame[1];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction sa = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK | SA_RESETHAND | SA_NODEFER};
    (void)backtrace(frame, 1); /* loads libgcc now: not safe to do in a handler */
    sigaltstack(&alt, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &sa, NULL);
}

/* ---- ending ---- */

static void poll_soon(void)
{
    struct timeval tv = {0, DRAIN_POLL_MS * 1000};
    event_add(&w.drain_poll, &tv);
}

/* The last resort needs no loop: a second after the time is up, SIGALRM's default action ends even a worker that
 * spins. A tick that comes late tells that the process was stopped, before the loop sees what time it is. */
static void on_drain_tick(int sig)
{
    int64_t now = clock_ns();
    w.drain_end_ns += clock_gap(w.tick_due_ns, now);
    w.tick_due_ns = now + DRAIN_TICK_MS * MS;
    if (now < w.drain_end_ns + LAST_RESORT_MS * MS)
        return;
    signal(sig, SIG_DFL);
    raise(sig);
}

/* Async-signal-safe, as is all that the tick does. */
static void start_ticks(void)
{
    static const struct itimerval every = {{0, DRAIN_TICK_MS * 1000}, {0, DRAIN_TICK_MS * 1000}};
    struct sigaction sa = {.sa_handler = on_drain_tick, .sa_flags = SA_RESTART | SA_NODEFER | SA_ONSTACK};
    w.tick_due_ns = clock_ns() + DRAIN_TICK_MS * MS;
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
}

static void cancel_all(void)
{
    if (w.canceled)
        return;
    w.canceled = true;
    w.drain_end_ns = clock_ns() + w.h->cfg->server_fast_timeout * MS;
    w.role->cancel();
}

/* The time runs from the first word, whoever says it again: a master that dies after its TERM makes the kernel send
 * another. Async-signal-safe. */
static void start_clock(void)
{
    if (w.told)
        return;
    w.told = 1;
    w.drain_end_ns = clock_ns() + w.h->cfg->server_graceful_timeout * MS;
    start_ticks();
}

/* Runs in the signal handler itself: a loop that spins would never come to its events, and without a master nobody
 * else would end it. */
static void (*loop_handler)(int sig);
static void on_term_at_once(int sig)
{
    int saved = errno;
    start_clock();
    loop_handler(sig);
    errno = saved;
}

static void hook_term(void)
{
    struct sigaction sa;
    signal(SIGALRM, SIG_DFL);
    sigaction(SIGTERM, NULL, &sa);
    loop_handler = sa.sa_handler;
    sa.sa_handler = on_term_at_once;
    sigaction(SIGTERM, &sa, NULL);
}

static void begin_drain(void)
{
    if (w.draining)
        return;
    w.draining = true;
    set_state(WORKER_DRAINING);
    start_clock();
    w.role->drain();
    poll_soon();
}

static void on_drain_poll(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    if (w.role->idle()) {
        loop_stop();
        return;
    }
    if (clock_ns() >= w.drain_end_ns) {
        if (w.canceled) {
            log_warn("some work could not be cancelled in time");
            loop_stop();
            return;
        }
        log_warn("requests are still running after server.graceful_timeout: cancelled");
        cancel_all();
    }
    poll_soon();
}

static void on_term(evutil_socket_t sig, short what, void *arg)
{
    (void)sig, (void)what, (void)arg;
    begin_drain();
}

static void on_quit(evutil_socket_t sig, short what, void *arg)
{
    (void)sig, (void)what, (void)arg;
    begin_drain();
    cancel_all();
}

static void on_orphaned(void)
{
    log_warn("the master is gone: draining");
    begin_drain();
}

/* ---- every turn, every beat ---- */

/* Mapped files (libraries, the vector index) are resident, but not the worker's: another process that replaces it maps
 * them as well. */
static void sample_memory(void)
{
    char text[64];
    ssize_t n = pread(w.h->statm_fd, text, sizeof text - 1, 0);
    if (n <= 0)
        return;
    struct str rest = {text, (size_t)n};
    uint64_t resident, shared, page_kb = (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
    (void)str_cut(&rest, ' ');
    if (!str_to_u64(str_cut(&rest, ' '), &resident) || !str_to_u64(str_cut(&rest, ' '), &shared))
        return;
    slot_self->rss_kb = (int64_t)(resident * page_kb);
    slot_self->anon_kb = resident > shared ? (int64_t)((resident - shared) * page_kb) : 0;
}

static void sample(int64_t now)
{
    struct rusage u;
    w.sampled_ns = now;
    score_sample(now);
    if (getrusage(RUSAGE_SELF, &u) == 0)
        slot_self->cpu_us =
            (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000LL + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
    sample_memory();
}

static void on_beat(evutil_socket_t fd, short what, void *arg)
{
    int64_t now = clock_ns();
    (void)fd, (void)what, (void)arg;
    atomic_store(&slot_self->beat_ns, now);
    slot_self->stat[STAT_fibers] = fiber_count();
    show_title();
    if (now - w.sampled_ns >= SEC)
        sample(now);
    recycle_beat(w.h->cfg, now);
}

static void on_turn(void *arg)
{
    (void)arg;
    int64_t took = clock_ns() - loop_now();
    STAT_ADD(loop_turns_total, 1);
    if (took > w.h->cfg->server_loop_stall_warn * MS) {
        STAT_ADD(loop_stalls_total, 1);
        log_warn("a turn of the loop took %lld ms", (long long)(took / MS));
    }
}

static void on_flush(void *arg)
{
    (void)arg;
    log_flush();
}

/* ---- booting ---- */

/* RAGD_FAULT_BOOT=delay:MS|exit:CODE|hang|die:MS, several with commas, or @FILE for the file that says so; for tests of the
 * master; RAGD_FAULT_ROLE limits it to one. Whether this one is wanted, and the number behind it. */
static bool fault_wanted(const char *name, int *number)
{
    static char text[64];
    const char *fault = getenv("RAGD_FAULT_BOOT"), *role = getenv("RAGD_FAULT_ROLE");
    if (!fault || !w.h->cfg->debug_faults || (role && strcmp(role, role_name(w.h->role)) != 0))
        return false;
    if (*fault == '@') {
        int fd = open(fault + 1, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0)
            close(fd);
        text[n > 0 ? n : 0] = 0;
        fault = text;
    }
    struct str rest = str_of(fault);
    while (rest.n) {
        struct str item = str_cut(&rest, ',');
        if (!str_eq(str_cut(&item, ':'), str_of(name)))
            continue;
        *number = item.n ? atoi(item.p) : 0; /* ends at the comma or the end */
        log_warn("RAGD_FAULT_BOOT=%s", fault);
        return true;
    }
    return false;
}

static void fault_boot(void)
{
    int number;
    if (fault_wanted("delay", &number))
        usleep((useconds_t)number * 1000);
    if (fault_wanted("exit", &number))
        _exit(number);
    if (fault_wanted("hang", &number))
        for (;;)
            pause();
}

static void on_fault_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    log_flush();
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

/* die:MS: so long after READY. */
static void fault_ready(void)
{
    int ms;
    if (!fault_wanted("die", &ms))
        return;
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    event_base_once(loop_base(), -1, EV_TIMEOUT, on_fault_due, NULL, &tv);
}

static void watch_signal(struct event *ev, int sig, event_callback_fn fn)
{
    evsignal_assign(ev, loop_base(), sig, fn, NULL);
    event_add(ev, NULL);
}

static void watch_signals(void)
{
    static const int ignored[] = {SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGTTIN, SIGTTOU, SIGPIPE};
    sigset_t none;
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    watch_crashes();
    watch_signal(&w.term, SIGTERM, on_term);
    hook_term();
    watch_signal(&w.quit, SIGQUIT, on_quit);
    watch_signal(&w.intr, SIGINT, on_quit);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Several beats within the time that the watchdog grants. */
static void set_beat(void)
{
    int64_t ms = w.h->cfg->server_watchdog_timeout / 8;
    ms = ms < 100 ? 100 : ms > 1000 ? 1000 : ms;
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    event_add(&w.beat, &tv);
}

static void on_reconfigured(void)
{
    set_beat();
    if (w.role->reconfigured)
        w.role->reconfigured();
}

static void watch_loop(void)
{
    static const struct orders_ops orders = {on_reconfigured, on_orphaned};
    event_assign(&w.beat, loop_base(), -1, EV_PERSIST, on_beat, NULL);
    set_beat();
    evtimer_assign(&w.drain_poll, loop_base(), on_drain_poll, NULL);
    orders_start(w.h, &orders);
    w.turn.fn = on_turn;
    w.flush.fn = on_flush;
    loop_hook_add(&w.turn, LOOP_FLUSH_LOGS);
    loop_hook_add(&w.flush, LOOP_FLUSH_LOGS);
    on_beat(-1, 0, NULL);
}

static suspends void boot(void *arg)
{
    struct err e = {0};
    (void)arg;
    if (w.role->start(w.h, &e)) {
        log_err(LOG_ERROR, "the worker cannot start", &e);
        str_copyz(slot_self->last_words, sizeof slot_self->last_words, str_of(e.msg));
        w.boot_failed = true;
        loop_stop();
        return;
    }
    if (w.draining) { /* told to stop while booting */
        w.role->drain();
        return;
    }
    atomic_store(&slot_self->ready_ns, clock_ns());
    set_state(WORKER_READY);
    fault_ready();
}

static void forget_events(void)
{
    struct event *all[] = {&w.term, &w.quit, &w.intr, &w.beat, &w.drain_poll};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        event_del(all[i]);
    orders_stop();
}

int worker_main(const struct heritage *h)
{
    struct err e = {0};
    char role[24];
    w.h = h;
    w.role = h->role == ROLE_HTTP ? &role_http : h->role == ROLE_INGEST ? &role_ingest : &role_status;
    snprintf(role, sizeof role, "%s:%u", role_name(h->role), h->slot);
    log_init((enum log_level)h->cfg->log_level, h->cfg->log_format == 1, role);
    log_access_open(h->access_fd);
    scoreboard_attach(h->sb, h->slot);
    if (h->role != ROLE_STATUS && places_join(h->places, h->places_fd, &e)) {
        log_err(LOG_ERROR, "the worker cannot start", &e);
        return EXIT_BOOT;
    }
    scoreboard_lock();
    srandom((unsigned)(clock_ns() ^ getpid())); /* for jitter only: no two workers have the same */
    recycle_start();
    mallopt(M_ARENA_MAX, 1); /* helper threads are few; a heap for each would keep what its largest document took */
    set_state(WORKER_BOOTING);
    if (loop_init(&e)) {
        log_err(LOG_ERROR, "the worker cannot start", &e);
        return EXIT_BOOT;
    }
    watch_signals();
    fault_boot();
    watch_loop();
    if (!fiber_spawn("boot", boot, NULL))
        return EXIT_INTERNAL;
    loop_run();
    bool left = !w.role->idle();
    if (!left || w.boot_failed)
        w.role->stop();
    loop_stop(); /* one turn more, in which what stop() has cancelled unwinds */
    loop_run();
    set_state(WORKER_EXITED);
    log_flush();
    if (left && !w.boot_failed) /* fibers that would not end: their memory goes with the process */
        return EXIT_PLANNED;
    if (fiber_count() != 0) /* that wait in helper threads, for a name server say: nobody shall wait for these */
        return w.boot_failed ? EXIT_BOOT : EXIT_PLANNED;
    forget_events();
    fiber_fini();
    loop_fini();
    return w.boot_failed ? EXIT_BOOT : EXIT_PLANNED;
}
