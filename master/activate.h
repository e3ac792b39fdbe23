/* Sockets that the service manager binds for us, or keeps for us: systemd's protocols without its library. */
#pragma once
#include "master/listen.h"

/* Takes the sockets that LISTEN_FDS passes, if LISTEN_PID means this process, and removes the variables. One that is named
 * `admin` is the status process's. The others serve HTTP; among them those that activate_store() has given away before. */
must_use int activate_take(struct listen_set *set, struct err *e);

/* Gives the service manager a copy of each socket in `now` that we have bound ourselves, where it offers that (FDSTORE):
 * the next start gets them back, and until then connections wait in their queues. Takes back what `before` (may be NULL)
 * has and `now` has not. */
void activate_store(struct listen_set *now, struct listen_set *before);
