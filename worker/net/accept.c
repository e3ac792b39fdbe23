#include "worker/net/accept.h"
#include "common/clock.h"
#include "common/log.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

/* A batch per wake-up bounds how long established connections wait. Of many connections, a sixteenth more or less
 * is as even as anybody needs. */
enum { BATCH = 16, SLACK_SHARE = 16, TICK_US = 1000, PAUSE_US = 100 * 1000 };

static int64_t least_loaded(const struct acceptor *a)
{
    struct scoreboard *sb = scoreboard_self();
    int64_t least = a->open;
    for (unsigned i = 0; sb && i < scoreboard_slots(sb); i++) {
        struct slot *s = &sb->slot[i];
        if (atomic_load_explicit(&s->state, memory_order_relaxed) != WORKER_READY || s->role != slot_self->role)
            continue;
        int64_t n = atomic_load_explicit(&s->connections, memory_order_relaxed);
        least = n < least ? n : least;
    }
    return least < 0 ? 0 : least;
}

static bool too_many(const struct acceptor *a)
{
    int64_t least = least_loaded(a);
    return a->open > least + least / SLACK_SHARE;
}

static void listen_off(struct acceptor *a, long us)
{
    struct timeval tv = {us / 1000000, us % 1000000};
    for (int i = 0; i < a->n; i++)
        event_del(&a->ev[i]);
    a->holding = true;
    event_add(&a->tick, &tv);
}

static void listen_on(struct acceptor *a)
{
    a->holding = false;
    for (int i = 0; i < a->n; i++)
        if (event_add(&a->ev[i], NULL) != 0)
            log_error("accept: cannot watch a listener: %s", strerror(errno));
}

static void took(struct acceptor *a, int fd, const struct sockaddr *sa)
{
    struct net_addr peer = net_addr_of(sa);
    a->open++;
    atomic_store_explicit(&slot_self->connections, (int)a->open, memory_order_relaxed);
    STAT_ADD(connections_total, 1);
    STAT_ADD(connections, 1);
    a->accepted(a->arg, fd, &peer);
}

/* 1: one accepted; 0: none waiting; -1: out of descriptors or memory. */
static int accept_one(struct acceptor *a, int lfd)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof ss;
    int fd = accept4(lfd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            if (loop_now() - a->complained_ns > 10 * SEC)
                log_error("accept: %s; connections wait (raise LimitNOFILE)", strerror(errno));
            a->complained_ns = loop_now();
            return -1;
        }
        return errno == EAGAIN ? 0 : 1; /* anything else is about that one connection, which is gone */
    }
    took(a, fd, (struct sockaddr *)&ss);
    return 1;
}

static void on_listener(evutil_socket_t fd, short what, void *arg)
{
    struct acceptor *a = arg;
    (void)what;
    for (int i = 0; i < BATCH; i++) {
        if (a->holding)
            return;
        if (a->open >= a->max || too_many(a)) {
            listen_off(a, a->open >= a->max ? PAUSE_US : TICK_US);
            return;
        }
        int r = accept_one(a, fd);
        if (r < 0)
            listen_off(a, PAUSE_US);
        if (r <= 0)
            return;
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct acceptor *a = arg;
    (void)fd;
    (void)what;
    if (a->open >= a->max) {
        listen_off(a, PAUSE_US);
        return;
    }
    if (too_many(a)) {
        int r = 0;
        for (int i = 0; i < a->n && r == 0; i++)
            r = accept_one(a, event_get_fd(&a->ev[i]));
        if (r < 0) {
            listen_off(a, PAUSE_US);
            return;
        }
    }
    listen_on(a);
}

void acceptor_init(struct acceptor *a, const struct heritage *h, int64_t max,
                   void (*accepted)(void *arg, int fd, const struct net_addr *peer), void *arg)
{
    int one = 1;
    *a = (struct acceptor){.n = h->n_listen, .max = max, .accepted = accepted, .arg = arg};
    evtimer_assign(&a->tick, loop_base(), on_tick, a);
    for (int i = 0; i < a->n; i++) {
        if (!h->listen[i].unix_socket) /* inherited by what is accepted: one call instead of one per connection */
            (void)setsockopt(h->listen[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        event_assign(&a->ev[i], loop_base(), h->listen[i].fd, EV_READ | EV_PERSIST, on_listener, a);
    }
}

int acceptor_open(struct acceptor *a, struct err *e)
{
    a->opened = true;
    for (int i = 0; i < a->n; i++)
        if (event_add(&a->ev[i], NULL) != 0)
            return err_errno(e, "watching a listener");
    return 0;
}

void acceptor_adopt(struct acceptor *a, int fd)
{
    took(a, fd, &(struct sockaddr){.sa_family = AF_UNIX});
}

void acceptor_released(struct acceptor *a)
{
    if (a->open-- == a->max && a->holding)
        listen_off(a, TICK_US);
    atomic_store_explicit(&slot_self->connections, (int)a->open, memory_order_relaxed);
    STAT_SUB(connections, 1);
}

void acceptor_close(struct acceptor *a)
{
    if (a->closed)
        return;
    a->closed = true;
    event_del(&a->tick);
    for (int i = 0; i < a->n; i++) {
        int fd = event_get_fd(&a->ev[i]);
        event_del(&a->ev[i]);
        while (a->opened && a->open < a->max && accept_one(a, fd) > 0)
            continue;
        close(fd);
    }
}
