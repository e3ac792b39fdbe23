/* The files that the master opens for itself and its workers to write to. A new file belongs to the workers' user, and when
 * that is not the master's, nothing is opened that this user could have put there to gain rights: no symbolic and no hard
 * link. */
#pragma once
#include "master/privilege.h"

struct logfiles {
    int access; /* log.access; -1: off */
    int events; /* log.file; STDERR_FILENO: where stderr led when the server was started */
};
#define LOGFILES_NONE              \
    {                              \
        .access = -1, .events = -1 \
    }

/* All or none: on failure *out is not touched. */
must_use int logfiles_open(struct logfiles *out, const struct config *cfg, const struct privileges *p, struct err *e);
void logfiles_close(struct logfiles *l);
/* What stderr is to lead to; `stderr_fd` is where it led at the start. */
int logfiles_events(const struct logfiles *l, int stderr_fd);
/* Tells whether they could be opened, without opening or making anything. */
must_use int logfiles_check(const struct config *cfg, struct err *e);
/* The same for one file that `key` names. */
must_use int file_check(const char *key, const char *path, struct err *e);
