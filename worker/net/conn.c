#include "worker/net/conn.h"
#include "common/scoreboard.h"
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SMALL = 16 * 1024, IOV = 8 };

struct net_in {
    size_t from, to, cap;
    char p[];
};

struct net_out {
    struct event ev;
    struct buf b;
    size_t from;
};

/* The read buffer of the worker and the connection whose unconsumed input is in it. */
static struct {
    struct net_conn *user;
    size_t from, to;
    char p[NET_READ_BUFFER];
} shared;

/* What a corked connection has written. */
static struct {
    struct net_conn *user;
    size_t n;
    char p[NET_SEND_BUFFER];
} cork;

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct net_conn *c = arg;
    (void)fd;
    (void)what;
    c->ops->readable(c);
}

int net_conn_init(struct net_conn *c, int fd, const struct net_addr *peer, const struct net_ops *ops)
{
    *c = (struct net_conn){.ops = ops, .peer = *peer};
    timeout_init(&c->timeout);
    event_assign(&c->ev, loop_base(), fd, EV_READ | EV_PERSIST, on_readable, c);
    if (event_add(&c->ev, NULL) == 0)
        return 0;
    close(fd);
    return -1;
}

static void out_free(struct net_conn *c)
{
    if (!c->out)
        return;
    event_del(&c->out->ev);
    buf_fini(&c->out->b);
    free(c->out);
    c->out = NULL;
}

void net_conn_fini(struct net_conn *c)
{
    int fd = net_fd(c);
    if (cork.user == c)
        cork.user = NULL;
    if (shared.user == c)
        shared.user = NULL;
    event_del(&c->ev);
    timeout_clear(&c->timeout);
    out_free(c);
    free(c->in);
    c->in = NULL;
    close(fd);
}

/* ---- in ---- */

struct str net_input(const struct net_conn *c)
{
    if (c->in)
        return (struct str){c->in->p + c->in->from, c->in->to - c->in->from};
    if (shared.user == c)
        return (struct str){shared.p + shared.from, shared.to - shared.from};
    return (struct str){NULL, 0};
}

void net_consume(struct net_conn *c, size_t n)
{
    if (c->in) {
        c->in->from += n;
        assert(c->in->from <= c->in->to);
        if (c->in->from == c->in->to) {
            free(c->in);
            c->in = NULL;
        }
    } else if (n) {
        assert(shared.user == c && n <= shared.to - shared.from);
        shared.from += n;
        if (shared.from == shared.to)
            shared.user = NULL;
    }
}

/* Room for `room` more bytes in an input buffer of its own, which takes over what is in the shared one. */
static void own_input(struct net_conn *c, size_t room)
{
    struct str s = net_input(c);
    size_t cap = 1024;
    if (c->in && c->in->cap - c->in->to >= room)
        return;
    while (cap < s.n + room)
        cap *= 2;
    struct net_in *in = malloc(sizeof *in + cap);
    if (!in)
        abort();
    *in = (struct net_in){.to = s.n, .cap = cap};
    if (s.n)
        memcpy(in->p, s.p, s.n);
    free(c->in);
    if (shared.user == c)
        shared.user = NULL;
    c->in = in;
}

/* One recv(2), counted and classified. */
static ssize_t receive(struct net_conn *c, void *p, size_t cap)
{
    ssize_t n;
    do
        n = recv(net_fd(c), p, cap, 0); /* read(2) takes a longer way to the same place */
    while (n < 0 && errno == EINTR);
    if (n > 0)
        STAT_ADD(bytes_received_total, (uint64_t)n);
    else if (n == 0)
        c->eof = true;
    else if (errno != EAGAIN)
        c->broken = true;
    return n;
}

ssize_t net_fill(struct net_conn *c)
{
    if (c->in || shared.user == c) {
        size_t have = net_input(c).n;
        own_input(c, have < NET_READ_BUFFER / 2 ? have + 1024 : NET_READ_BUFFER / 2);
        ssize_t n = receive(c, c->in->p + c->in->to, c->in->cap - c->in->to);
        if (n > 0)
            c->in->to += (size_t)n;
        return n;
    }
    if (shared.user)
        own_input(shared.user, 0);
    ssize_t n = receive(c, shared.p, sizeof shared.p);
    if (n > 0) {
        shared.user = c;
        shared.from = 0;
        shared.to = (size_t)n;
    }
    return n;
}

ssize_t net_read(struct net_conn *c, void *buf, size_t cap)
{
    struct str s = net_input(c);
    if (!s.n)
        return receive(c, buf, cap);
    size_t n = s.n < cap ? s.n : cap;
    memcpy(buf, s.p, n);
    net_consume(c, n);
    return (ssize_t)n;
}

void net_pause(struct net_conn *c)
{
    if (!c->paused)
        event_del(&c->ev);
    c->paused = true;
}

void net_resume(struct net_conn *c)
{
    if (c->paused && !c->eof && !c->broken) {
        c->paused = false;
        if (event_add(&c->ev, NULL) != 0)
            c->broken = true;
    }
}

bool net_peek(struct net_conn *c)
{
    char byte;
    ssize_t n;
    do
        n = recv(net_fd(c), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        c->eof = true;
    else if (n < 0 && errno != EAGAIN)
        c->broken = true;
    return n > 0;
}

/* ---- out ---- */

static ssize_t transmit(struct net_conn *c, const struct iovec *iov, int n)
{
    struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
    ssize_t sent;
    do
        sent =
            n == 1 ? send(net_fd(c), iov->iov_base, iov->iov_len, MSG_NOSIGNAL) : sendmsg(net_fd(c), &m, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        STAT_ADD(bytes_sent_total, (uint64_t)sent);
        return sent;
    }
    if (errno == EAGAIN)
        return 0;
    c->broken = true;
    return -1;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct net_conn *c = arg;
    struct net_out *o = c->out;
    struct iovec iov = {o->b.p + o->from, o->b.n - o->from};
    (void)fd;
    (void)what;
    ssize_t sent = transmit(c, &iov, 1);
    if (sent > 0)
        o->from += (size_t)sent;
    if (sent < 0 || o->from == o->b.n) {
        out_free(c);
        c->ops->drained(c);
    } else if (sent > 0) {
        c->ops->wrote(c);
    }
}

static int out_start(struct net_conn *c)
{
    if (c->out)
        return 0;
    c->out = calloc(1, sizeof *c->out);
    if (!c->out)
        abort();
    event_assign(&c->out->ev, loop_base(), net_fd(c), EV_WRITE | EV_PERSIST, on_writable, c);
    if (event_add(&c->out->ev, NULL) == 0)
        return 0;
    out_free(c);
    c->broken = true;
    return -1;
}

static void out_add(struct net_out *o, const void *p, size_t n)
{
    if (o->from && o->from >= o->b.n / 2) {
        buf_drop(&o->b, o->from);
        o->from = 0;
    }
    buf_add(&o->b, p, n);
}

/* Queues what is left of `iov` behind its first `skip` bytes. */
static int queue(struct net_conn *c, const struct iovec *iov, int n, size_t skip)
{
    if (out_start(c) != 0)
        return -1;
    for (int i = 0; i < n; i++) {
        size_t len = iov[i].iov_len, from = skip < len ? skip : len;
        skip -= from;
        out_add(c->out, (const char *)iov[i].iov_base + from, len - from);
    }
    return 0;
}

static size_t total(const struct iovec *iov, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += iov[i].iov_len;
    return sum;
}

static size_t gather(char *to, const struct iovec *iov, int n)
{
    size_t at = 0;
    for (int i = 0; i < n; i++)
        if (iov[i].iov_len) {
            memcpy(to + at, iov[i].iov_base, iov[i].iov_len);
            at += iov[i].iov_len;
        }
    return at;
}

static int send_or_queue(struct net_conn *c, const struct iovec *iov, int n, size_t size)
{
    if (c->out)
        return queue(c, iov, n, 0);
    ssize_t sent = transmit(c, iov, n);
    if (sent < 0)
        return -1;
    return (size_t)sent == size ? 0 : queue(c, iov, n, (size_t)sent);
}

static int cork_flush(void)
{
    struct iovec iov = {cork.p, cork.n};
    cork.n = 0;
    return iov.iov_len ? send_or_queue(cork.user, &iov, 1, iov.iov_len) : 0;
}

int net_write(struct net_conn *c, const struct iovec *iov, int n)
{
    size_t size = total(iov, n);
    assert(n <= IOV);
    if (c->broken)
        return -1;
    if (cork.user == c) {
        if (size > sizeof cork.p - cork.n && cork_flush() != 0)
            return -1;
        if (size <= sizeof cork.p) {
            cork.n += gather(cork.p + cork.n, iov, n);
            return 0;
        }
    }
    if (n > 1 && size <= SMALL && !c->out && !cork.user) { /* one contiguous send(2) is cheaper than a gathering one */
        struct iovec one = {cork.p, gather(cork.p, iov, n)};
        return send_or_queue(c, &one, 1, size);
    }
    return send_or_queue(c, iov, n, size);
}

int net_write_buf(struct net_conn *c, struct str head, struct buf *body)
{
    struct iovec iov[2] = {{(char *)head.p, head.n}, {body->p, body->n}};
    size_t size = head.n + body->n;
    if (cork.user == c && size > SMALL && !c->broken && cork_flush() != 0)
        return -1;
    if (size <= SMALL || c->out || c->broken)
        return net_write(c, iov, body->n ? 2 : 1);
    ssize_t sent = transmit(c, iov, 2);
    if (sent < 0)
        return -1;
    if ((size_t)sent == size)
        return 0;
    if ((size_t)sent < head.n)
        return queue(c, iov, 2, (size_t)sent);
    if (out_start(c) != 0)
        return -1;
    c->out->b = *body;
    c->out->from = (size_t)sent - head.n;
    *body = (struct buf){0};
    return 0;
}

size_t net_queued(const struct net_conn *c)
{
    return c->out ? c->out->b.n - c->out->from : 0;
}

void net_acknowledge(struct net_conn *c)
{
    int one = 1;
    (void)setsockopt(net_fd(c), IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one); /* means nothing on a unix socket */
}

void net_cork(struct net_conn *c)
{
    assert(!cork.user || cork.user == c);
    cork.user = c;
}

void net_uncork(struct net_conn *c)
{
    if (cork.user != c)
        return;
    if (!c->broken)
        (void)cork_flush();
    cork.n = 0;
    cork.user = NULL;
}
