#include "worker/orders.h"
#include "common/channel.h"
#include "common/log.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"
#include "worker/fiber/loop.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

static struct {
    const struct heritage *h;
    const struct orders_ops *ops;
    struct event ev;
    int access_fd; /* of the access log; -1: off */
    char text[CHANNEL_TEXT_MAX];
} o = {.access_fd = -1};

/* What was logged so far belongs into the old file. */
static void switch_logs(struct channel_message *msg)
{
    log_flush();
    if (msg->fd_lost) {
        log_error("log.access: the old file is written to further: no descriptor is left for the new one");
        return;
    }
    log_access_open(msg->fd);
    if (o.access_fd > STDERR_FILENO) /* else the rotated file, once deleted, would keep its space */
        close(o.access_fd);
    o.access_fd = msg->fd;
    msg->fd = -1;
}

static void switch_events(const struct channel_message *msg)
{
    if (msg->fd_lost)
        log_error("log.file: the old file is written to further: no descriptor is left for the new one");
    else if (msg->fd >= 0 && dup2(msg->fd, STDERR_FILENO) < 0)
        log_error("log.file: %s", strerror(errno));
}

static void reconfigure(const struct channel_message *msg)
{
    struct err e = {.code = ERR_NONE};
    if (config_push(o.h->cfg, msg->text, &e) != 0) { /* the master has checked it */
        log_err(LOG_ERROR, "a pushed setting was not taken over", &e);
        return;
    }
    log_set_level((enum log_level)o.h->cfg->log_level, o.h->cfg->log_format == 1);
    o.ops->reconfigured();
    log_debug("changed settings taken over");
}

static void answer_fibers(const struct channel_message *msg)
{
    struct buf b = {0};
    fiber_dump(&b);
    if (channel_send(o.h->channel, CHANNEL_FIBERS, msg->serial, buf_view(&b), -1) != 0)
        log_warn("the list of fibers cannot be sent to the master: %s", strerror(errno));
    buf_fini(&b);
}

static void carry_out(struct channel_message *msg)
{
    switch (msg->kind) {
    case CHANNEL_LOGS: switch_logs(msg); break;
    case CHANNEL_EVENTS: switch_events(msg); break;
    case CHANNEL_CONFIG: reconfigure(msg); break;
    case CHANNEL_FIBERS: answer_fibers(msg); break;
    default: log_debug("an order of kind %u is unknown here", msg->kind);
    }
    if (msg->fd >= 0)
        close(msg->fd);
    atomic_store(&slot_self->order, msg->serial);
}

static void on_channel(evutil_socket_t fd, short what, void *arg)
{
    struct channel_message msg;
    int r;
    (void)what, (void)arg;
    while ((r = channel_receive(fd, o.text, &msg)) > 0)
        carry_out(&msg);
    if (r == 0)
        return;
    event_del(&o.ev);
    o.ops->orphaned();
}

void orders_start(const struct heritage *h, const struct orders_ops *ops)
{
    o.h = h;
    o.ops = ops;
    o.access_fd = h->access_fd;
    event_assign(&o.ev, loop_base(), h->channel, EV_READ | EV_PERSIST, on_channel, NULL);
    if (h->channel >= 0)
        event_add(&o.ev, NULL);
}

void orders_stop(void)
{
    if (o.h)
        event_del(&o.ev);
}
