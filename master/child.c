#include "master/child.h"
#include "common/log.h"
#include "master/master.h"
#include "master/signals.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int (*child_main)(const struct heritage *h);

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* Closes all descriptors but stdin, stdout, stderr and those of the heritage: the loop of the master, its pidfile, its
 * control socket and the sockets of other generations are nothing that a worker may hold on to. */
static void close_others(const struct heritage *h)
{
    int keep[LISTEN_MAX + 8], n = 0;
    keep[n++] = STDIN_FILENO;
    keep[n++] = STDOUT_FILENO;
    keep[n++] = STDERR_FILENO;
    keep[n++] = h->jobs_fd;
    keep[n++] = h->master_fd;
    keep[n++] = h->access_fd;
    for (int i = 0; i < h->n_listen; i++)
        keep[n++] = h->listen[i].fd;
    qsort(keep, (size_t)n, sizeof *keep, by_number);
    unsigned from = 0;
    for (int i = 0; i < n; i++) {
        if (keep[i] < 0)
            continue;
        unsigned fd = (unsigned)keep[i];
        if (fd > from)
            close_range(from, fd - 1, 0);
        from = fd + 1;
    }
    close_range(from, ~0U, 0);
}

void child_run(const struct master *m, const struct worker *w)
{
    const struct generation *g = w->gen;
    struct heritage h = {
        .cfg = g->cfg,
        .sb = m->sb,
        .slot = w->slot,
        .role = w->role,
        .generation = g->number,
        .n_listen = g->listen.n,
        .jobs_fd = m->jobs_fd,
        .master_fd = m->life[0],
        .access_fd = g->access_fd,
    };
    char label[24];
    for (int i = 0; i < h.n_listen; i++)
        h.listen[i] = g->listen.v[i].l;
    close_others(&h);
    signals_child();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != m->pid) /* the master died before the line above */
        exit(0);
    snprintf(label, sizeof label, "%s:%u", role_name(w->role), w->slot);
    log_init((enum log_level)g->cfg->log_level, g->cfg->log_format == 1, label);
    exit(child_main(&h));
}
