/* Accepting connections from the listeners that all workers share, so that every worker gets its part. libevent has
 * no EPOLLEXCLUSIVE, and the fastest worker would take nearly everything: a worker that has more connections than the
 * least loaded READY one of its role holds back for a tick of 1 ms and then accepts ONE. It does not wait longer,
 * because the least loaded one may hang. The counts are in the scoreboard. */
#pragma once
#include "common/heritage.h"
#include "worker/fiber/loop.h"
#include "worker/net/addr.h"

struct acceptor {
    struct event ev[LISTEN_MAX];
    int n;
    struct event tick;
    bool holding; /* listeners are off until the tick */
    bool opened, closed;
    int64_t max, open; /* connections */
    int64_t complained_ns;
    void (*accepted)(void *arg, int fd, const struct net_addr *peer);
    void *arg;
};

/* For the heritage's listeners. `accepted` owns the non-blocking descriptor that it is handed. */
void acceptor_init(struct acceptor *a, const struct heritage *h, int64_t max,
                   void (*accepted)(void *arg, int fd, const struct net_addr *peer), void *arg);
must_use int acceptor_open(struct acceptor *a, struct err *e); /* begins to watch them */
void acceptor_adopt(struct acceptor *a, int fd);               /* as if it had been accepted, from a unix socket */
void acceptor_released(struct acceptor *a);                    /* a connection has ended */
/* Takes what the kernel has queued, then closes the listeners: nobody who connected in time is reset. */
void acceptor_close(struct acceptor *a);
