/* The pidfile: an open-file-description lock, kept for the life of the master, is the one test of whether it lives. The
 * text in the file is for people; it is never trusted. The file is written in place, so it is never absent. */
#pragma once
#include "common/err.h"
#include <sys/types.h>

struct pidfile {
    int fd; /* -1: none */
    char *path;
    bool lent; /* another master has it, too, and will keep it: it stays when this one closes it */
};

/* Locks and writes `path`; an empty path means none. ERR_BUSY: another instance holds it;
 * ERR_VALIDATION: it cannot be opened, or is no pidfile. */
must_use int pidfile_open(struct pidfile *p, const char *path, struct err *e);
/* Tells whether it could be opened, without taking or making anything. */
must_use int pidfile_check(const char *path, struct err *e);
/* Makes the file again where somebody has removed it; a failure is a warning in the log. */
void pidfile_restore(struct pidfile *p);
/* Unlinks the file if it is still ours, and lets go of the lock. */
void pidfile_close(struct pidfile *p);

/* For upgrades, all without effect when there is no pidfile. Two masters share the lock then. */
must_use int pidfile_take(struct pidfile *p, struct err *e); /* this one is the server now: writes its pid */
void pidfile_copy(const struct pidfile *p);                  /* PATH.oldbin says where the old one is */
void pidfile_copy_remove(const struct pidfile *p);

/* For commands: the pid in the file when somebody holds its lock, 0 when nobody does or there is no file. */
pid_t pidfile_holder(const char *path);
