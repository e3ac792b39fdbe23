/* The listening sockets. The master binds them, every worker inherits them. A reload binds the new set beside the old
 * one: addresses that both have keep their socket, so nothing that waits in its queue is lost. */
#pragma once
#include "common/heritage.h"
#include "config/config.h"
#include <sys/types.h>

struct bound {
    struct listener l;         /* l.name shows the port that was really given */
    char key[LISTEN_NAME_MAX]; /* the address as asked for: "127.0.0.1:0"; equal keys share a socket */
    dev_t dev;                 /* of a unix socket's file, so that only our own is unlinked */
    ino_t ino;
};

struct listen_set {
    struct bound v[LISTEN_MAX];
    int n;
};

/* Reads the addresses of `cfg` without binding anything. ERR_VALIDATION names the address and what is wrong. */
must_use int listen_check(const struct config *cfg, struct err *e);

/* Binds what `cfg` names; what `old` (may be NULL) has already is shared with it. On failure only the sockets that this
 * call opened are closed. ERR_VALIDATION: a bad address; anything else: cannot bind, with the holder's name if known. */
must_use int listen_open(struct listen_set *out, const struct config *cfg, const struct listen_set *old, struct err *e);

/* Closes the sockets that `keep` (may be NULL) does not share and unlinks their files; empties the set. */
void listen_close(struct listen_set *set, const struct listen_set *keep);

/* Binds one unix socket at `path` with `mode`, replacing the file that a dead server left. Non-blocking, CLOEXEC,
 * listening. Returns the descriptor or -1; *dev and *ino identify the file. ERR_BUSY: somebody listens there. */
int listen_unix(const char *path, mode_t mode, int backlog, dev_t *dev, ino_t *ino, struct err *e);
/* Unlinks `path` if it is still the file that listen_unix() made. */
void listen_unlink(const char *path, dev_t dev, ino_t ino);
