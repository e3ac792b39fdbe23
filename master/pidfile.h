/* The pidfile: an open-file-description lock, kept for the life of the master, is the one test of whether it lives. The
 * text in the file is for people; it is never trusted. The file is written in place, so it is never absent. */
#pragma once
#include "common/err.h"
#include <sys/types.h>

struct pidfile {
    int fd; /* -1: none */
    char *path;
};

/* Locks and writes `path`; an empty path means none. ERR_BUSY: another instance holds it. */
must_use int pidfile_open(struct pidfile *p, const char *path, struct err *e);
/* Unlinks the file if it is still ours, and lets go of the lock. */
void pidfile_close(struct pidfile *p);

/* For commands: the pid in the file when somebody holds its lock, 0 when nobody does or there is no file. */
pid_t pidfile_holder(const char *path);
