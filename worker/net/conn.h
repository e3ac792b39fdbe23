/* A connection: bytes in and bytes out, without a notion of what they mean. An idle one costs this struct and nothing
 * else: input is read into one buffer of the worker, and only what is left over when another connection needs that
 * buffer is copied into one of its own; output goes straight to the socket, and only what the kernel does not take is
 * queued, with an event of its own.
 *
 * Embedded in the struct of its protocol, which gets events through `ops`. Nothing here parks. */
#pragma once
#include "common/buf.h"
#include "worker/fiber/loop.h"
#include "worker/net/addr.h"
#include "worker/net/timeouts.h"
#include <sys/types.h>
#include <sys/uio.h>

struct net_conn;
struct net_in;
struct net_out;

struct net_ops {
    void (*readable)(struct net_conn *c); /* input, end or failure: net_fill() tells */
    void (*drained)(struct net_conn *c);  /* queued output went down to zero, or broke: net_broken() tells */
    void (*wrote)(struct net_conn *c);    /* some queued output was taken, not all */
};

struct net_conn {
    struct event ev; /* EV_READ | EV_PERSIST; unless paused */
    const struct net_ops *ops;
    struct net_in *in;   /* NULL: nothing left over */
    struct net_out *out; /* NULL: nothing queued */
    struct timeout timeout;
    struct net_addr peer;
    bool paused;
    bool eof;    /* the peer has finished sending */
    bool broken; /* reset or write failure: nothing goes out any more */
};

enum {
    NET_READ_BUFFER = 64 * 1024, /* one a worker */
    NET_SEND_BUFFER = 64 * 1024, /* one a worker */
};

/* Owns `fd` (non-blocking) from here on. -1: out of memory or descriptors in the kernel; fd is closed. */
must_use int net_conn_init(struct net_conn *c, int fd, const struct net_addr *peer, const struct net_ops *ops);
void net_conn_fini(struct net_conn *c); /* closes; the struct may still be referred to by this turn's events */
static inline int net_fd(const struct net_conn *c)
{
    return event_get_fd(&c->ev);
}

/* ---- in ---- */
struct str net_input(const struct net_conn *c); /* received and not consumed; valid until the next net_ call */
void net_consume(struct net_conn *c, size_t n);
/* Reads once, behind what is there. > 0: how much; 0: end (also c->eof); -1: nothing now, or c->broken. */
ssize_t net_fill(struct net_conn *c);
/* The same into memory of the caller; what was received before comes first. */
ssize_t net_read(struct net_conn *c, void *buf, size_t cap);
/* No read events while nobody wants input, so that the kernel's window pushes back. */
void net_pause(struct net_conn *c);
void net_resume(struct net_conn *c);
/* Looks without taking: true if there is input. Sets c->eof or c->broken. */
bool net_peek(struct net_conn *c);

/* ---- out ---- */
/* Sends or queues; the bytes are copied as far as they are queued. -1: c->broken. */
int net_write(struct net_conn *c, const struct iovec *iov, int n);
/* `head`, then the content of `body`; if that must be queued and is large, its memory is taken, and *body is empty. */
int net_write_buf(struct net_conn *c, struct str head, struct buf *body);
/* Acknowledges what has arrived now: a client that sends its head alone may hold back the body until then (Nagle), and
 * the kernel would take 40 ms. */
void net_acknowledge(struct net_conn *c);
size_t net_queued(const struct net_conn *c);
/* Between the two, writes of this connection are collected and leave together. One at a time in a worker, and
 * never across a turn. */
void net_cork(struct net_conn *c);
void net_uncork(struct net_conn *c);
