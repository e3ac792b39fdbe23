#include "master/child.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/master.h"
#include "master/signals.h"
#include <execinfo.h>
#include <fcntl.h>
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
    keep[n++] = h->channel;
    keep[n++] = h->access_fd;
    keep[n++] = h->places_fd;
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

enum { NEWS_S = 60 }; /* probes ask more often */

/* As those that serve have said last, and lately, when they were asked for /readyz. */
static bool store_away(const struct master *m)
{
    int64_t ok = 0, away = 0;
    crew_for_each (w, &m->crew) {
        const struct slot *s = &m->sb->slot[w->slot];
        if (w->gen != m->gen || !crew_ready(m, w))
            continue;
        ok = s->store_ok_ns > ok ? s->store_ok_ns : ok;
        away = s->store_away_ns > away ? s->store_away_ns : away;
    }
    return away > ok && clock_ns() - away < NEWS_S * SEC;
}

void child_run(const struct master *m, const struct worker *w, int channel)
{
    const struct generation *g = w->gen;
    struct heritage h = {
        .cfg = g->cfg,
        .sb = m->sb,
        .places = m->places,
        .places_fd = m->places_fd,
        .slot = w->slot,
        .role = w->role,
        .jobs_fd = m->jobs_fd,
        .channel = channel,
        .access_fd = g->logs.access,
        .prove = w->once || m->heir.step == HEIR_BOOT,
        .no_store = store_away(m),
        .migrate = m->phase != MASTER_UPGRADING && !m->upgrade.resuming,
    };
    char label[24];
    void *frame[1];
    struct err e = {.code = ERR_NONE};
    for (int i = 0; w->role != ROLE_INGEST && i < g->listen.n; i++)
        if (listen_is_admin(&g->listen.v[i]) == (w->role == ROLE_STATUS))
            h.listen[h.n_listen++] = g->listen.v[i].l;
    if (dup2(logfiles_events(&g->logs, m->stderr_fd), STDERR_FILENO) < 0)
        exit(EXIT_NO_BOOT); /* and nowhere to say it */
    close_others(&h);
    signals_child();
    snprintf(label, sizeof label, "%s:%u", role_name(w->role), w->slot);
    log_init((enum log_level)g->cfg->log_level, g->cfg->log_format == 1, label);
    h.statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    (void)backtrace(frame, 1); /* loads libgcc, for the last words of a worker, while its file can be found */
    if (privileges_drop(&m->privileges, g->cfg, &e) != 0) {
        log_err(LOG_ERROR, "the worker cannot start", &e);
        exit(EXIT_NO_BOOT);
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* not before: a change of user clears it */
    if (getppid() != m->pid)          /* the master died before the line above */
        exit(0);
    exit(child_main(&h));
}
