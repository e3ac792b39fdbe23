/* The estate: what one master leaves to the next, written as JSON into a memfd whose number stands in the environment.
 * Both sides of the format are here. Descriptors are passed by number, across exec. */
#pragma once
#include "master/listen.h"
#include "master/pidfile.h"
#include <jansson.h>

struct master;

#define ESTATE_KINDS(X) X(none) X(successor) X(trial) X(image) X(restored)
enum estate_kind {
#define X(name) ESTATE_##name,
    ESTATE_KINDS(X)
#undef X
        ESTATE_KIND_COUNT
};

enum { ESTATE_FDS_MAX = LISTEN_MAX + SCORE_SLOTS_MAX + 64 };

/* The descriptors that must survive the exec. */
struct estate_fds {
    int v[ESTATE_FDS_MAX], n;
};

struct estate {
    enum estate_kind kind; /* none: an ordinary start */
    struct listen_set listen;
    struct pidfile pidfile; /* locked by the other master, too */
    const char *control;    /* path of its control socket, "" = none */
    int peer;               /* handshake with the other master, or the image of the old binary; -1: taken */
    int places;             /* common/places.h; -1: taken, or the other master has none */
    int64_t upgrades_ok, upgrades_failed; /* so far; this one, which began then, not among them */
    int64_t upgrade_start_ns;
    json_t *doc; /* all of it */
    struct estate_fds fds;
};

/* Writes down what `m` leaves; the memfd, or -1. `fds` are those that it names. */
int estate_write(const struct master *m, enum estate_kind kind, int peer, struct estate_fds *fds, struct err *e);

/* Takes the estate that the environment names, and the name out of it: no configuration may see it. Without one: kind
 * none, and 0. All its descriptors are the caller's then. */
must_use int estate_read(struct estate *s, struct err *e);
/* Closes what nobody has taken: listeners that `used` has not, the pidfile unless its fd is -1 now. The list of listeners
 * stays, to know them by. May be called again. */
void estate_release(struct estate *s, const struct listen_set *used);

/* ---- for master/reexec.c ---- */

/* The same estate for somebody else; `reason` says why. */
int estate_rewrite(const struct estate *s, enum estate_kind kind, const char *reason, struct err *e);
int estate_pass(struct estate_fds *fds, int fd);            /* returns `fd` */
json_int_t estate_number(const json_t *o, const char *key); /* -1 when there is none */
const char *estate_text(const json_t *o, const char *key);  /* "" when there is none */
