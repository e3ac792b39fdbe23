/* The heritage: all that a worker receives from the master across the fork, and nothing else. Descriptors are opened
 * by the master; the worker closes what its role does not use. Database connections and random state are made after
 * the fork. */
#pragma once
#include "common/places.h"
#include "common/scoreboard.h"

struct config;

enum { LISTEN_MAX = 16, LISTEN_NAME_MAX = 160 };

struct listener {
    int fd; /* listening, non-blocking */
    bool unix_socket;
    char name[LISTEN_NAME_MAX]; /* "127.0.0.1:8000", "[::1]:8000", "unix:/run/ragd/http.sock" */
};

struct heritage {
    struct config *cfg; /* this process's copy; only what a reload pushes is ever written to it */
    struct scoreboard *sb;
    struct places *places;
    int places_fd;
    unsigned slot; /* index of this worker's slot */
    enum role role;
    struct listener listen[LISTEN_MAX];
    int n_listen;  /* those of its role */
    int jobs_fd;   /* eventfd (semaphore, non-blocking) shared by all: written when a job is queued, read by ingest */
    int channel;   /* to the master: common/channel.h */
    int access_fd; /* access log, -1 = off */
    int statm_fd;  /* the worker's own /proc/self/statm, which its root directory may not have; -1: none */
    bool prove;    /* must have shown that it is ready before it serves: a reload or an upgrade hangs on it */
    bool no_store; /* those that serve now say that the store is away: nobody expects more of this one */
    bool migrate;  /* may change the schema of the database; not in an upgrade that is still undecided */
};
