/* The heritage: all that a worker receives from the master across the fork, and nothing else. Descriptors are opened
 * by the master; the worker closes what its role does not use. Database connections and random state are made after
 * the fork. */
#pragma once
#include "common/scoreboard.h"

struct config;

enum { LISTEN_MAX = 16, LISTEN_NAME_MAX = 160 };

struct listener {
    int fd; /* listening, non-blocking */
    bool unix_socket;
    char name[LISTEN_NAME_MAX]; /* "127.0.0.1:8000", "[::1]:8000", "unix:/run/ragd/http.sock" */
};

struct heritage {
    const struct config *cfg; /* read-only from here on */
    struct scoreboard *sb;
    unsigned slot; /* index of this worker's slot */
    enum role role;
    uint32_t generation;
    struct listener listen[LISTEN_MAX];
    int n_listen;
    int jobs_fd;   /* eventfd (semaphore, non-blocking) shared by all: written when a job is queued, read by ingest */
    int master_fd; /* read end of a pipe nobody writes to: EOF means that the master is gone */
    int access_fd; /* access log, -1 = off */
};
