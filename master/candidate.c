#include "master/candidate.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/master.h"
#include "master/signals.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* -- what the check writes */

static void keep_last_line(struct candidate *c, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\n') {
            c->line_ended = true;
            continue;
        }
        if (c->line_ended)
            c->n = 0;
        c->line_ended = false;
        if (c->n < sizeof c->line - 1)
            c->line[c->n++] = p[i];
    }
    c->line[c->n] = 0;
}

static void close_output(struct candidate *c)
{
    if (c->output < 0)
        return;
    event_del(&c->ev);
    close(c->output);
    c->output = -1;
}

static void read_output(struct candidate *c)
{
    char chunk[1024];
    while (c->output >= 0) {
        ssize_t n = read(c->output, chunk, sizeof chunk);
        if (n > 0)
            keep_last_line(c, chunk, (size_t)n);
        else if (n == 0 || errno != EINTR) {
            if (n == 0 || errno != EAGAIN)
                close_output(c);
            return;
        }
    }
}

static void on_output(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    read_output(arg);
}

/* -- starting */

/* Addresses that this master holds are no problem: master/check.h. */
static char **with_pid(char *const *envp, pid_t pid)
{
    size_t n = 0;
    while (envp[n])
        n++;
    char **out = calloc(n + 2, sizeof *out);
    if (!out || asprintf(&out[n], "RAGD_PID=%d", (int)pid) < 0)
        _exit(EXIT_INTERNAL);
    memcpy(out, envp, n * sizeof *out);
    return out;
}

/* In the child. What goes wrong from here on is written where stderr leads to. */
static __attribute__((noreturn)) void run_check(const struct master *m, int err)
{
    const struct config_args *a = &m->args.config;
    const char **argv = calloc(2 * (size_t)a->n_set + 5, sizeof *argv);
    size_t n = 0;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    signals_default();
    if (!argv || null < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(EXIT_INTERNAL);
    argv[n++] = m->launch.argv[0];
    argv[n++] = "check";
    if (a->file) {
        argv[n++] = "-c";
        argv[n++] = a->file;
    }
    for (int i = 0; i < a->n_set; i++) {
        argv[n++] = "--set";
        argv[n++] = a->set[i];
    }
    struct launch l = m->launch;
    l.envp = with_pid(l.envp, m->pid);
    launch_exec(&l, l.path, -1, (char *const *)argv, NULL, 0, -1);
    dprintf(STDERR_FILENO, "cannot execute %s: %s\n", m->launch.path, strerror(errno));
    _exit(EXIT_INTERNAL);
}

static void forked(struct candidate *c, pid_t pid)
{
    c->pid = pid;
    c->ended = false;
    c->deadline = 0;
    c->n = 0;
    c->line[0] = 0;
}

int candidate_check(struct candidate *c, const struct master *m, struct err *e)
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC | O_NONBLOCK) != 0)
        return err_errno(e, "pipe");
    pid_t pid = fork();
    if (pid == 0)
        run_check(m, fd[1]); /* does not return */
    int error = errno;
    close(fd[1]);
    if (pid < 0) {
        close(fd[0]);
        errno = error;
        return err_errno(e, "fork");
    }
    forked(c, pid);
    c->output = fd[0];
    event_assign(&c->ev, m->base, fd[0], EV_READ | EV_PERSIST, on_output, c);
    event_add(&c->ev, NULL); /* were it to fail: the end of the process is noticed all the same, and then it is read */
    return 0;
}

static __attribute__((noreturn)) void run_master(const struct master *m, const struct estate_fds *keep, int estate,
                                                 int handshake)
{
    char text[HANDSHAKE_MAX];
    signals_default_blocked();
    (void)!dup2(m->stderr_fd, STDERR_FILENO); /* it opens log.file itself, when its start has succeeded */
    launch_exec(&m->launch, m->launch.path, -1, NULL, keep->v, keep->n, estate);
    int n = snprintf(text, sizeof text, "FAILED cannot execute %s: %s", m->launch.path, strerror(errno));
    (void)!write(handshake, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    _exit(EXIT_TRIAL);
}

int candidate_boot(struct candidate *c, const struct master *m, enum estate_kind kind, struct handshake *h,
                   struct err *e)
{
    int pair[2];
    struct estate_fds keep;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        return err_errno(e, "socketpair");
    int estate = estate_write(m, kind, pair[1], &keep, e);
    pid_t pid = estate < 0 ? -1 : fork();
    if (pid == 0)
        run_master(m, &keep, estate, pair[1]); /* does not return */
    if (pid < 0 && estate >= 0)
        err_errno(e, "fork");
    close(pair[1]);
    if (estate >= 0)
        close(estate);
    if (pid < 0) {
        close(pair[0]);
        return -1;
    }
    forked(c, pid);
    h->fd = pair[0];
    return handshake_watch(h, m->base, e);
}

/* -- ending */

void candidate_end(struct candidate *c, int number, int64_t within_ms)
{
    if (!c->pid)
        return;
    c->deadline = clock_ns() + within_ms * MS;
    if (kill(c->pid, number) != 0) /* it is ours and not reaped: nothing else can be meant */
        log_error("cannot signal pid %d: %s", (int)c->pid, strerror(errno));
}

void candidate_tick(struct candidate *c, int64_t now)
{
    if (!c->pid || !c->deadline || now < c->deadline)
        return;
    log_warn("pid %d does not end: killing it", (int)c->pid);
    kill(c->pid, SIGKILL);
    c->deadline = 0;
}

bool candidate_reaped(struct candidate *c, pid_t pid, int status)
{
    if (!c->pid || pid != c->pid)
        return false;
    read_output(c);
    close_output(c); /* a child of its own may hold the other end for long */
    c->pid = 0;
    c->status = status;
    c->ended = true;
    return true;
}

bool candidate_died(struct candidate *c)
{
    bool yes = c->ended;
    c->ended = false;
    return yes;
}

void candidate_describe(const struct candidate *c, char *out, size_t cap)
{
    const char *own = "ragd: "; /* what our own messages begin with */
    if (c->n)
        snprintf(out, cap, "%s", strncmp(c->line, own, strlen(own)) == 0 ? c->line + strlen(own) : c->line);
    else
        death_describe(c->status, out, cap);
}

void candidate_fini(struct candidate *c)
{
    close_output(c);
}
