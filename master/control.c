#include "master/control.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "master/commands.h"
#include "master/estate.h"
#include "master/listen.h"
#include "master/master.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 32, RETRY_MS = 100 };

struct control {
    struct master *m;
    int fd, clients;
    int64_t retry_at; /* no connection could be accepted: when to try again; 0 = it is watched */
    dev_t dev;
    ino_t ino;
    char path[CONTROL_PATH_MAX];
    struct event accept;
    struct list all;
};

struct client {
    struct list link;
    struct control *c;
    int fd;
    struct event in, out;
    struct buf request;
    struct caller caller;
};

static void on_accept(evutil_socket_t fd, short what, void *arg);
static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void serve(struct client *cl);

void control_path(const struct config *cfg, char *out, size_t cap)
{
    const char *run = getenv("RUNTIME_DIRECTORY");
    if (*cfg->server_control)
        snprintf(out, cap, "%s", cfg->server_control);
    else if (run && *run == '/')
        snprintf(out, cap, "%.*s/ragd.ctl", (int)strcspn(run, ":"), run);
    else
        snprintf(out, cap, "%s", access("/run/ragd", W_OK) == 0 ? "/run/ragd/ragd.ctl" : "");
}

static void watch(struct control *c, int fd)
{
    c->fd = fd;
    event_assign(&c->accept, c->m->base, fd, EV_READ | EV_PERSIST, on_accept, c);
    event_add(&c->accept, NULL);
}

static struct control *control_new(struct master *m, const char *path)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->m = m;
    list_init(&c->all);
    str_copyz(c->path, sizeof c->path, str_of(path));
    return c;
}

struct control *control_open(struct master *m, const char *instead)
{
    struct err e;
    char path[512];
    int fd = -1;
    control_path(m->gen->cfg, path, sizeof path);
    if (!*path)
        return NULL;
    struct control *c = control_new(m, path);
    if (strcmp(c->path, path) != 0)
        err_set(&e, ERR_VALIDATION, "%s: the path is too long", path);
    else
        fd = listen_unix(path, 0600, 16, instead && strcmp(instead, path) == 0, &c->dev, &c->ino, &e);
    if (fd < 0) {
        log_warn("no control socket, `ragd status` and its kin will not work: server.control: %s", e.msg);
        free(c);
        return NULL;
    }
    watch(c, fd);
    return c;
}

static void bind_again(struct control *c, bool replace)
{
    struct err e;
    if (listen_is_at(c->path, c->dev, c->ino))
        return;
    int fd = listen_unix(c->path, 0600, 16, replace, &c->dev, &c->ino, &e);
    if (fd < 0) {
        log_err(LOG_ERROR, "control socket", &e);
        return;
    }
    event_del(&c->accept);
    close(c->fd);
    watch(c, fd);
}

void control_take(struct control *c)
{
    if (c)
        bind_again(c, true);
}

void control_restore(struct master *m)
{
    if (m->control)
        bind_again(m->control, false);
    else
        m->control = control_open(m, NULL);
}

static void drop(struct client *cl)
{
    event_del(&cl->in);
    event_del(&cl->out);
    list_del(&cl->link);
    cl->c->clients--;
    close(cl->fd);
    buf_fini(&cl->request);
    buf_fini(&cl->caller.reply);
    free(cl);
}

static struct client *welcome(struct control *c, int s)
{
    struct client *cl = calloc(1, sizeof *cl);
    if (!cl)
        abort();
    cl->c = c;
    cl->fd = s;
    cl->caller.m = c->m;
    event_assign(&cl->in, c->m->base, s, EV_READ | EV_PERSIST, on_readable, cl);
    event_assign(&cl->out, c->m->base, s, EV_WRITE, on_writable, cl);
    event_add(&cl->in, NULL);
    list_add_tail(&c->all, &cl->link);
    c->clients++;
    return cl;
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;
    (void)what;
    int s = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (s < 0) {
        /* Gone again; or no descriptors are left. Then it goes on waiting, and would wake us all the time. */
        event_del(&c->accept);
        c->retry_at = clock_ns() + RETRY_MS * MS;
        return;
    }
    if (c->clients < CLIENTS_MAX) {
        welcome(c, s);
        return;
    }
    static const char full[] = "{\"ok\":false,\"error\":\"too many commands wait for an answer: try again\"}\n";
    (void)!send(s, full, sizeof full - 1, MSG_NOSIGNAL);
    close(s);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct client *cl = arg;
    char chunk[CONTROL_LINE_MAX];
    (void)what;
    ssize_t n = recv(fd, chunk, sizeof chunk, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || cl->request.n + (size_t)n > CONTROL_LINE_MAX) {
        drop(cl);
        return;
    }
    buf_add(&cl->request, chunk, (size_t)n);
    serve(cl);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    serve(arg);
}

/* false: the client is gone. */
static bool send_reply(struct client *cl)
{
    struct buf *reply = &cl->caller.reply;
    while (reply->n) {
        ssize_t n = send(cl->fd, reply->p, reply->n, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            event_add(&cl->out, NULL);
            return true;
        }
        if (n < 0) {
            drop(cl);
            return false;
        }
        buf_drop(reply, (size_t)n);
    }
    return true;
}

/* Answers what has been asked, one command after the other: the next one waits until the outcome of the last is known
 * and its answer is read. */
static void serve(struct client *cl)
{
    struct buf *request = &cl->request;
    char *nl;
    if (!send_reply(cl))
        return;
    while (!cl->caller.waits && !cl->caller.reply.n && request->n && (nl = memchr(request->p, '\n', request->n))) {
        size_t len = (size_t)(nl - request->p);
        command_run(&cl->caller, request->p, len);
        buf_drop(request, len + 1);
        if (!send_reply(cl))
            return;
    }
}

void control_tick(struct control *c)
{
    if (!c)
        return;
    if (c->retry_at && clock_ns() >= c->retry_at) {
        c->retry_at = 0;
        event_add(&c->accept, NULL);
    }
    list_for_each_safe (it, &c->all) /* all of them, before one of them gets on with its next command */
        if (list_entry(it, struct client, link)->caller.waits)
            command_tick(&list_entry(it, struct client, link)->caller);
    list_for_each_safe (it, &c->all)
        if (list_entry(it, struct client, link)->caller.reply.n)
            serve(list_entry(it, struct client, link));
}

bool control_waits(const struct control *c)
{
    for (struct list *it = c ? c->all.next : NULL; c && it != &c->all; it = it->next)
        if (list_entry(it, struct client, link)->caller.waits)
            return true;
    return false;
}

json_t *control_describe(const struct control *c, struct estate_fds *fds)
{
    json_t *callers = json_array();
    if (!c || !fds)
        return json_pack("{s:o,s:i,s:o}", "path", json_string_nocheck(c ? c->path : ""), "fd", -1, "callers", callers);
    list_for_each_safe (it, &c->all) {
        const struct client *cl = list_entry(it, struct client, link);
        if (command_waits_for(&cl->caller, "upgrade"))
            json_array_append_new(callers, json_integer(estate_pass(fds, cl->fd)));
    }
    return json_pack("{s:o,s:i,s:I,s:I,s:o}", "path", json_string_nocheck(c->path), "fd", estate_pass(fds, c->fd),
                     "dev", (json_int_t)c->dev, "ino", (json_int_t)c->ino, "callers", callers);
}

struct control *control_adopt(struct master *m, const json_t *o)
{
    char path[512];
    size_t i;
    json_t *caller;
    struct control *c = NULL;
    int fd = (int)estate_number(o, "fd");
    dev_t dev = (dev_t)estate_number(o, "dev");
    ino_t ino = (ino_t)estate_number(o, "ino");
    control_path(m->gen->cfg, path, sizeof path);
    if (fd >= 0 && strcmp(path, estate_text(o, "path")) == 0) {
        c = control_new(m, path);
        c->dev = dev;
        c->ino = ino;
        watch(c, fd);
    } else {
        if (fd >= 0) {
            listen_unlink(estate_text(o, "path"), dev, ino);
            close(fd);
        }
        c = control_open(m, NULL);
    }
    json_array_foreach (json_object_get(o, "callers"), i, caller) {
        int s = (int)json_integer_value(caller);
        if (c)
            command_wait_for(&welcome(c, s)->caller, "upgrade");
        else
            close(s);
    }
    return c;
}

void control_close(struct control *c)
{
    if (!c)
        return;
    list_for_each_safe (it, &c->all) {
        struct client *cl = list_entry(it, struct client, link);
        command_end(&cl->caller);
        if (cl->caller.reply.n)
            (void)send(cl->fd, cl->caller.reply.p, cl->caller.reply.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        drop(cl);
    }
    event_del(&c->accept);
    listen_unlink(c->path, c->dev, c->ino);
    close(c->fd);
    free(c);
}
