#include "master/control.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "master/listen.h"
#include "master/master.h"
#include "version.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 32 };

enum waits_for { WAITS_NOT, WAITS_RELOAD, WAITS_STOP };

struct control {
    struct master *m;
    int fd, clients;
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
    enum waits_for waits_for;
    struct event in, out;
    struct buf request, reply;
};

static void on_accept(evutil_socket_t fd, short what, void *arg);
static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void execute(struct client *cl, const char *line, size_t n);

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

struct control *control_open(struct master *m)
{
    struct err e;
    char path[512];
    control_path(m->gen->cfg, path, sizeof path);
    if (!*path)
        return NULL;
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->m = m;
    list_init(&c->all);
    c->fd = listen_unix(path, 0600, 16, &c->dev, &c->ino, &e);
    if (c->fd < 0) {
        log_warn("no control socket, `ragd status` and its kin will not work: %s", e.msg);
        free(c);
        return NULL;
    }
    str_copyz(c->path, sizeof c->path, str_of(path));
    event_assign(&c->accept, m->base, c->fd, EV_READ | EV_PERSIST, on_accept, c);
    event_add(&c->accept, NULL);
    return c;
}

static void drop(struct client *cl)
{
    event_del(&cl->in);
    event_del(&cl->out);
    list_del(&cl->link);
    cl->c->clients--;
    close(cl->fd);
    buf_fini(&cl->request);
    buf_fini(&cl->reply);
    free(cl);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;
    (void)what;
    int s = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (s < 0)
        return; /* gone again, or no descriptors left: the next turn tries again */
    struct client *cl = c->clients < CLIENTS_MAX ? calloc(1, sizeof *cl) : NULL;
    if (!cl) {
        close(s);
        return;
    }
    cl->c = c;
    cl->fd = s;
    event_assign(&cl->in, c->m->base, s, EV_READ | EV_PERSIST, on_readable, cl);
    event_assign(&cl->out, c->m->base, s, EV_WRITE, on_writable, cl);
    event_add(&cl->in, NULL);
    list_add_tail(&c->all, &cl->link);
    c->clients++;
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
    for (char *nl; (nl = memchr(cl->request.p, '\n', cl->request.n));) {
        size_t len = (size_t)(nl - cl->request.p);
        execute(cl, cl->request.p, len);
        buf_drop(&cl->request, len + 1);
        if (!cl->request.n)
            break;
    }
    on_writable(fd, EV_WRITE, cl);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct client *cl = arg;
    (void)what;
    while (cl->reply.n) {
        ssize_t n = send(fd, cl->reply.p, cl->reply.n, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            event_add(&cl->out, NULL);
            return;
        }
        if (n < 0) {
            drop(cl);
            return;
        }
        buf_drop(&cl->reply, (size_t)n);
    }
}

/* -- answers */

static void answer(struct client *cl, json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT);
    if (text) {
        buf_str(&cl->reply, str_of(text));
        buf_ch(&cl->reply, '\n');
        free(text);
    }
    json_decref(o);
}

static uint64_t requests_of(const struct slot *s)
{
    uint64_t n = 0;
    for (int i = 0; i < SCORE_ROUTES; i++)
        for (int k = 0; k < SCORE_CLASSES; k++)
            n += s->route[i].by_class[k];
    return n;
}

static json_t *worker_json(const struct worker *w, const struct slot *s, int64_t now)
{
    return json_pack("{s:i,s:s,s:i,s:s,s:i,s:f,s:i,s:I,s:I,s:I,s:I,s:i,s:i}", "slot", (int)w->slot, "role",
                     role_name((enum role)s->role), "pid", (int)w->pid, "state",
                     worker_state_name((enum worker_state)atomic_load(&s->state)), "generation", (int)s->generation,
                     "uptime_s", w->pid ? (double)(now - w->fork_ns) / SEC : 0.0, "connections",
                     atomic_load(&s->connections), "in_flight", (json_int_t)s->stat[STAT_requests_in_flight],
                     "requests", (json_int_t)requests_of(s), "rss_kb", (json_int_t)s->rss_kb, "cpu_ms",
                     (json_int_t)(s->cpu_us / 1000), "restarts", (int)s->restarts, "failures", (int)w->failures);
}

static json_t *status_json(struct master *m)
{
    int64_t now = clock_ns();
    json_t *workers = json_array(), *listeners = json_array();
    for (unsigned i = 0; i < m->crew.n; i++) {
        const struct worker *w = &m->crew.v[i];
        if (w->pid || w->gen)
            json_array_append_new(workers, worker_json(w, &m->sb->slot[i], now));
    }
    for (int i = 0; i < m->gen->listen.n; i++)
        json_array_append_new(listeners, json_string(m->gen->listen.v[i].l.name));
    return json_pack(
        "{s:b,s:s,s:i,s:s,s:b,s:f,s:i,s:s?,s:o,s:{s:i,s:i},s:{s:I,s:I,s:s},s:o}", "ok", 1, "version", RAGD_VERSION,
        "pid", (int)m->pid, "phase", master_phase_name(m->phase), "degraded", master_degraded(m), "uptime_s",
        (double)(now - m->start_ns) / SEC, "generation", (int)m->gen->number, "config", m->gen->cfg->file, "listeners",
        listeners, "target", "http", m->gen->target[ROLE_HTTP], "ingest", m->gen->target[ROLE_INGEST], "reloads", "ok",
        (json_int_t)atomic_load(&m->sb->reloads_ok), "failed", (json_int_t)atomic_load(&m->sb->reloads_failed),
        "last_error", m->reload.failed, "workers", workers);
}

static void execute(struct client *cl, const char *line, size_t n)
{
    struct master *m = cl->c->m;
    json_error_t bad;
    json_t *o = json_loadb(line, n, 0, &bad);
    const char *cmd = json_string_value(json_object_get(o, "cmd"));
    if (!cmd) {
        answer(cl, json_pack("{s:b,s:s}", "ok", 0, "error", "expected one line of JSON: {\"cmd\":\"status\"}"));
    } else if (strcmp(cmd, "status") == 0) {
        answer(cl, status_json(m));
    } else if (strcmp(cmd, "reload") == 0 && m->phase == MASTER_STOPPING) {
        answer(cl, json_pack("{s:b,s:s}", "ok", 0, "error", "the server is stopping"));
    } else if (strcmp(cmd, "reload") == 0) {
        cl->waits_for = WAITS_RELOAD;
        reload_start(m);
    } else if (strcmp(cmd, "stop") == 0) {
        cl->waits_for = WAITS_STOP;
        master_stop(m, json_is_true(json_object_get(o, "fast")));
    } else {
        answer(cl, json_pack("{s:b,s:s}", "ok", 0, "error", "unknown command; known: status, reload, stop"));
    }
    json_decref(o);
}

static void report_reload(struct client *cl)
{
    const struct master *m = cl->c->m;
    cl->waits_for = WAITS_NOT;
    answer(cl, json_pack("{s:b,s:i,s:s}", "ok", !m->reload.failed[0], "generation", (int)m->gen->number, "error",
                         m->reload.failed));
    on_writable(cl->fd, EV_WRITE, cl);
}

void control_tick(struct control *c)
{
    if (!c || c->m->phase == MASTER_RELOADING)
        return;
    list_for_each_safe (it, &c->all) {
        struct client *cl = list_entry(it, struct client, link);
        if (cl->waits_for == WAITS_RELOAD)
            report_reload(cl);
    }
}

void control_close(struct control *c)
{
    if (!c)
        return;
    list_for_each_safe (it, &c->all) {
        struct client *cl = list_entry(it, struct client, link);
        if (cl->waits_for == WAITS_STOP) {
            answer(cl, json_pack("{s:b,s:i,s:i}", "ok", 1, "exit_code", c->m->exit_code, "killed", (int)c->m->killed));
            (void)send(cl->fd, cl->reply.p, cl->reply.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        drop(cl);
    }
    event_del(&c->accept);
    listen_unlink(c->path, c->dev, c->ino);
    close(c->fd);
    free(c);
}
