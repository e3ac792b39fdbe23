#include "worker/cli/hands.h"
#include "common/clock.h"
#include "common/log.h"
#include "worker/cli/session.h"
#include "worker/fiber/loop.h"
#include "worker/kinds.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    YOUNG_MS = 1000, /* a worker that dies younger did not die of a document alone */
    GIVE_UP = 50,    /* so many young deaths in a row */
    PAUSE_MS = 100,  /* before a replacement */
};

struct hand {
    int stop_fd, jobs_fd;
};

static int keep(const struct config *cfg, int n, int stop_fd, int jobs_fd);

int hands_start(struct hands *h, const struct config *cfg, int n, struct err *e)
{
    int fd[2];
    h->jobs_fd = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    if (h->jobs_fd < 0)
        return err_errno(e, "eventfd");
    if (pipe2(fd, O_CLOEXEC) != 0) {
        err_errno(e, "pipe");
        close(h->jobs_fd);
        return -1;
    }
    h->keeper = fork();
    if (h->keeper == 0) {
        close(fd[1]);
        _exit(keep(cfg, n, fd[0], h->jobs_fd));
    }
    close(fd[0]);
    h->pipe_fd = fd[1];
    if (h->keeper > 0)
        return 0;
    err_errno(e, "fork");
    close(fd[1]);
    close(h->jobs_fd);
    return -1;
}

bool hands_alive(struct hands *h)
{
    if (h->keeper > 0 && waitpid(h->keeper, NULL, WNOHANG) == h->keeper)
        h->keeper = 0;
    return h->keeper > 0;
}

void hands_stop(struct hands *h)
{
    close(h->pipe_fd);
    while (h->keeper > 0 && waitpid(h->keeper, NULL, 0) < 0 && errno == EINTR)
        continue;
    h->keeper = 0;
    close(h->jobs_fd);
}

/* ---- one worker ---- */

static suspends int work(struct session *s, void *arg, struct err *e)
{
    const struct hand *h = arg;
    struct job_runner *runner = job_runner_start(s->cfg, s->store, &s->backends, h->jobs_fd, job_kinds, n_job_kinds);
    (void)e;
    fiber_wait_fd(h->stop_fd, EV_READ, "end of the command");
    job_runner_cancel(runner);
    while (!job_runner_idle(runner))
        if (fiber_sleep(5 * MS))
            break;
    job_runner_free(runner);
    return CLI_OK;
}

/* ---- the keeper ---- */

static pid_t start_one(const struct config *cfg, struct hand *h)
{
    pid_t pid = fork();
    if (pid == 0) {
        log_init(LOG_ERROR, false, "ingest"); /* the outcome of every file is in the command's report */
        _exit(session_run("ingest", cfg, work, h));
    }
    return pid;
}

/* Sleeps, at most until the command ends. True: it has ended. */
static bool ended(int stop_fd, int ms)
{
    struct pollfd p = {.fd = stop_fd, .events = POLLIN};
    return poll(&p, 1, ms) > 0;
}

static int keep(const struct config *cfg, int n, int stop_fd, int jobs_fd)
{
    struct hand hand = {stop_fd, jobs_fd};
    int alive = 0, young = 0, status;
    int64_t last_start = 0;
    for (;;) {
        while (alive < n && !ended(stop_fd, 0)) {
            last_start = clock_ns();
            if (start_one(cfg, &hand) > 0)
                alive++;
            else if (alive || ended(stop_fd, 1000)) /* out of processes: those that are there go on */
                break;
        }
        if (alive == 0)
            return 0;
        if (waitpid(-1, &status, 0) < 0) {
            if (errno == EINTR)
                continue;
            return 1;
        }
        alive--;
        if (ended(stop_fd, 0))
            continue;
        if (WIFSIGNALED(status))
            log_warn("a worker died: %s; another takes its place", strsignal(WTERMSIG(status)));
        else
            log_warn("a worker ended with code %d; another takes its place", WEXITSTATUS(status));
        young = clock_ns() - last_start < YOUNG_MS * MS ? young + 1 : 0;
        if (young == GIVE_UP || ended(stop_fd, PAUSE_MS))
            n = 0; /* no more replacements: wait for the rest */
    }
}
