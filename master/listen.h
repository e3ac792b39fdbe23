/* The listening sockets. The master binds them, every worker inherits them. A reload binds the new set beside the old
 * one: addresses that both have keep their socket, so nothing that waits in its queue is lost. */
#pragma once
#include "common/heritage.h"
#include "config/config.h"
#include "master/address.h"
#include <sys/types.h>

struct bound {
    struct listener l;         /* l.name shows the port that was really given */
    char key[LISTEN_NAME_MAX]; /* the address as asked for: "127.0.0.1:0", "admin:127.0.0.1:9000"; equal keys share a
                                  socket */
    dev_t dev;                 /* of a unix socket's file, so that only our own is unlinked */
    ino_t ino;
    bool activated; /* passed to the process at its start: no reload gives it up, its file is never unlinked */
    bool named;     /* activated, and server.bind names it, too */
    bool rests;     /* bound, and does not listen: listen_rest() */
    bool stored;    /* the service manager keeps a copy for the next start: the file must outlive us */
};

struct listen_set {
    struct bound v[LISTEN_MAX];
    int n;
};

/* Binds what `cfg` names, for the http workers and for the status process; what `old` (may be NULL) has already is shared
 * with it: the set of the generation before, or at the start the sockets that were adopted. Activated ones of `old` are
 * always part of the result, and server.bind at its default then adds nothing. On failure only the sockets that this call
 * opened are closed. ERR_VALIDATION: a bad address, or an activated one that was named and is not any more; anything else:
 * cannot bind, with the holder's name if known. */
must_use int listen_open(struct listen_set *out, const struct config *cfg, const struct listen_set *old, struct err *e);

/* Adds a listening stream socket that was inherited. `key` NULL: it is activated, and known by its address, with `admin` as
 * one of the status process; else it is one of our own, stored under this key. ERR_VALIDATION: the descriptor is something
 * else. */
must_use int listen_adopt(struct listen_set *set, int fd, const char *key, bool admin, struct err *e);

/* Whether listen_open() could bind this address, without listening there and with nothing left behind: 0 yes, -1 no (*e;
 * ERR_BUSY: it is taken), 1: its optional family is missing on this machine. */
must_use int listen_try(const struct address *a, struct err *e);

/* Makes the files of our unix sockets this user's, as those that the workers use are. */
void listen_give(const struct listen_set *set, uid_t uid, gid_t gid);

/* Closes the sockets that `keep` (may be NULL) does not share and unlinks their files; empties the set. */
void listen_close(struct listen_set *set, const struct listen_set *keep);

/* The same, but those of the status process stay as they are. */
void listen_close_http(struct listen_set *set, const struct listen_set *keep);
bool listen_is_admin(const struct bound *b); /* one of the status process */

/* While nobody serves them, the TCP sockets that `keep` does not share refuse connections instead of letting them wait.
 * They stay bound, for listen_wake(), which fails when another process listens there meanwhile. */
void listen_rest(struct listen_set *set, const struct listen_set *keep);
must_use int listen_wake(struct listen_set *set, int backlog, struct err *e);

/* The one with this key, or NULL. */
const struct bound *listen_find(const struct listen_set *set, const char *key);
bool listen_shares(const struct listen_set *set,
                   const struct bound *b); /* it has the same socket, not only the address */

/* Binds one unix socket at `path` with `mode`, replacing the file that a dead server left, or with `replace` anybody's. It
 * is never absent meanwhile. Non-blocking, CLOEXEC, listening. Returns the descriptor or -1; *dev and *ino identify the
 * file. ERR_BUSY: somebody listens there. */
int listen_unix(const char *path, mode_t mode, int backlog, bool replace, dev_t *dev, ino_t *ino, struct err *e);
/* Unlinks `path` if it is still the file that listen_unix() made. */
bool listen_is_at(const char *path, dev_t dev, ino_t ino); /* it still is that file */
void listen_unlink(const char *path, dev_t dev, ino_t ino);
