/* The processes that work on the queue while `ragd ingest` fills it. A keeper, forked before anything is opened, forks
 * them and replaces those that die (a file that crashes its reader must not end the command: the job is tried again and
 * then quarantined). All of them end when the command does, however it ends: they watch a pipe that it holds. */
#pragma once
#include "config/config.h"
#include <sys/types.h>

struct hands {
    pid_t keeper;
    int pipe_fd; /* write end; never written */
    int jobs_fd; /* eventfd by which idle workers are woken */
};

must_use int hands_start(struct hands *h, const struct config *cfg, int n, struct err *e);
/* False when the keeper has given up, because its workers die as soon as they begin. */
bool hands_alive(struct hands *h);
/* Ends them; jobs in progress are put back. */
void hands_stop(struct hands *h);
