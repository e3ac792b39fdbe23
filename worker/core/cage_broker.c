#include "common/clock.h"
#include "common/log.h"
#include "common/title.h"
#include "worker/core/cage.h"
#include "worker/core/cage_cell.h"
#include "worker/core/cage_jail.h"
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* The broker: one thread that waits for requests, for cages that end and for their deadlines. It looks at no document. */

enum { CELLS_MAX = 64 };

struct cell {
    pid_t pid; /* also of its process group; 0: free */
    int verdict;
    int64_t deadline;
    bool late; /* it was killed for that */
    struct cell_shared *shared;
    struct cell_walls *walls;
};

static struct {
    int fd, signals;
    bool converters, lean;
    uint32_t lacks;
    struct cell cell[CELLS_MAX];
    int n;
} broker;

static void send_verdict(int fd, struct cage_verdict v)
{
    v.magic = CAGE_MAGIC;
    v.lacks = broker.lacks;
    ssize_t sent = send(fd, &v, sizeof v, MSG_NOSIGNAL); /* who does not listen any more needs none */
    (void)sent;
    close(fd);
}

/* ---- a cage begins ---- */

static void *map_shared(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void unmap(void *p, size_t n)
{
    if (p)
        munmap(p, n);
}

static void start_cell(struct cell *c, const struct cage_request *what, const int fds[static CAGE_FDS])
{
    struct cell_shared *shared = map_shared(sizeof *shared);
    struct cell_walls *walls = map_shared(sizeof *walls);
    pid_t pid = shared && walls ? _Fork() : -1;
    if (pid == 0)
        cell_run(what, fds[0], fds[1], shared, walls); /* does not return */
    close(fds[0]);
    close(fds[1]);
    if (pid < 0) {
        unmap(shared, sizeof *shared);
        unmap(walls, sizeof *walls);
        send_verdict(fds[2], (struct cage_verdict){.how = CAGE_FAILED});
        return;
    }
    setpgid(pid, pid); /* the child does the same: whoever comes first */
    *c = (struct cell){pid, fds[2], clock_ns() + what->limits.timeout_ms * MS, false, shared, walls};
    broker.n++;
}

static struct cell *free_cell(void)
{
    for (int i = 0; i < CELLS_MAX; i++)
        if (!broker.cell[i].pid)
            return &broker.cell[i];
    return NULL;
}

static int take_fds(struct msghdr *m, int fds[static CAGE_FDS])
{
    struct cmsghdr *h = CMSG_FIRSTHDR(m);
    if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
        return 0;
    size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(h), n * sizeof(int));
    return (int)n;
}

/* False: the worker is gone. */
static bool take_request(void)
{
    struct cage_request what;
    int fds[CAGE_FDS];
    union {
        char space[CMSG_SPACE(CAGE_FDS * sizeof(int))];
        struct cmsghdr align;
    } u;
    struct iovec iov = {&what, sizeof what};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.space, .msg_controllen = sizeof u.space};
    ssize_t n = recvmsg(broker.fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    int n_fds = take_fds(&m, fds);
    bool good = n == sizeof what && what.magic == CAGE_MAGIC && n_fds == CAGE_FDS;
    if (!good) {
        while (n_fds > 0)
            close(fds[--n_fds]);
        return true;
    }
    what.mime[sizeof what.mime - 1] = what.filename[sizeof what.filename - 1] = 0;
    if (what.limits.required && broker.lacks & (LACKS_FILTER | LACKS_LANDLOCK)) {
        close(fds[0]);
        close(fds[1]);
        send_verdict(fds[2], (struct cage_verdict){.how = CAGE_LACKS});
        return true;
    }
    start_cell(free_cell(), &what, fds);
    return true;
}

/* ---- a cage ends ---- */

static struct cage_verdict judge(const struct cell *c, int status)
{
    struct cage_verdict v = {.how = CAGE_CRASHED, .page = cell_page(c->shared)};
    if (c->walls->failed) {
        v.how = CAGE_WALLS;
        return v;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == CELL_PROGRAM && c->shared->signal > 0 && c->shared->signal < NSIG)
        v.signal = c->shared->signal;
    if (WIFEXITED(status)) {
        v.how = WEXITSTATUS(status) == CELL_DONE     ? CAGE_DONE
                : WEXITSTATUS(status) == CELL_MEMORY ? CAGE_MEMORY
                : WEXITSTATUS(status) == CELL_TIME   ? CAGE_TIMEOUT
                                                     : CAGE_CRASHED;
        return v;
    }
    v.signal = WTERMSIG(status);
    if (c->late || v.signal == SIGXCPU)
        v.how = CAGE_TIMEOUT;
    else if (v.signal == SIGKILL) /* by the kernel: it had the highest oom_score */
        v.how = CAGE_MEMORY;
    return v;
}

static void reap(void)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        for (int i = 0; i < CELLS_MAX; i++) {
            struct cell *c = &broker.cell[i];
            if (c->pid != pid)
                continue;
            kill(-pid, SIGKILL); /* a program that it has started */
            send_verdict(c->verdict, judge(c, status));
            unmap(c->shared, sizeof *c->shared);
            unmap(c->walls, sizeof *c->walls);
            *c = (struct cell){.pid = 0};
            broker.n--;
        }
    }
}

static void kill_cell(struct cell *c)
{
    kill(-c->pid, SIGKILL);
    kill(c->pid, SIGKILL); /* it may not have its group yet */
}

/* ---- the loop ---- */

/* Milliseconds to the next deadline; -1: none. Kills those whose time is up. */
static int next_deadline(void)
{
    int64_t now = clock_ns(), next = INT64_MAX;
    for (int i = 0; i < CELLS_MAX; i++) {
        struct cell *c = &broker.cell[i];
        if (!c->pid || c->late)
            continue;
        if (c->deadline <= now) {
            c->late = true;
            kill_cell(c);
        } else if (c->deadline < next) {
            next = c->deadline;
        }
    }
    return next == INT64_MAX ? -1 : (int)((next - now) / MS + 1);
}

static void drain_signals(void)
{
    struct signalfd_siginfo info;
    while (read(broker.signals, &info, sizeof info) > 0)
        ;
}

/* 0: the worker has gone. 1: the broker cannot go on. */
static int serve(void)
{
    for (;;) {
        struct pollfd p[CELLS_MAX + 2];
        struct cell *of[CELLS_MAX + 2];
        nfds_t n = 2;
        int timeout = next_deadline();
        p[0] = (struct pollfd){broker.n < CELLS_MAX ? broker.fd : -1, POLLIN, 0};
        p[1] = (struct pollfd){broker.signals, POLLIN, 0};
        for (int i = 0; i < CELLS_MAX; i++)
            if (broker.cell[i].pid && !broker.cell[i].late) {
                of[n] = &broker.cell[i];
                p[n++] = (struct pollfd){broker.cell[i].verdict, POLLIN, 0};
            }
        if (poll(p, n, timeout) < 0 && errno != EINTR)
            return 1;
        for (nfds_t i = 2; i < n; i++)
            if (p[i].revents) { /* the job was given up: nobody waits for the verdict */
                of[i]->late = true;
                kill_cell(of[i]);
            }
        if (p[1].revents)
            drain_signals();
        reap();
        if (p[0].revents && !take_request())
            return 0;
    }
}

static int begin(int fd, bool forked)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE, SIGTTIN, SIGTTOU};
    static const int ours[] = {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGALRM, SIGCHLD};
    sigset_t chld;
    /* It ends when its worker does, not with the signals that a terminal or a service manager sends to all. */
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        signal(ours[i], SIG_DFL);
    alarm(0);
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_SETMASK, &chld, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    broker.fd = fd;
    broker.signals = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
    if (broker.signals < 0)
        return -1;
    jail_namespaces();
    broker.lacks = jail_lacks();
    if (!(broker.lacks & LACKS_FILTER) && jail_prepare())
        return -1;
    if (broker.converters)
        cell_prepare();
    broker.lean = !forked && lean_prepare();
    malloc_trim(0); /* what was freed is merged now, and not in each cage, which would copy the pages for it */
    return 0;
}

int cage_broker(int fd, bool converters, bool forked)
{
    for (int i = STDERR_FILENO + 1; i < fd; i++)
        close(i);
    close_range((unsigned)fd + 1, ~0U, 0);
    if (forked)
        clearenv();
    title_set(converters ? "ragd: cage broker, charsets" : "ragd: cage broker");
    broker.converters = converters;
    if (begin(fd, forked))
        return 1;
    int rc = serve();
    for (int i = 0; i < CELLS_MAX; i++)
        if (broker.cell[i].pid)
            kill_cell(&broker.cell[i]);
    if (broker.lean)
        _exit(rc);
    return rc;
}

int cage_broker_main(const char *what)
{
    struct str rest = str_of(what), number = str_cut(&rest, ',');
    int64_t fd;
    if (!str_to_i64(number, &fd) || fd <= STDERR_FILENO || fd > 1 << 20 || (rest.n && !str_eqz(rest, "charsets")))
        return 2;
    return cage_broker((int)fd, rest.n > 0, false);
}
