#include "master/ctl.h"
#include "common/buf.h"
#include "config/config.h"
#include "master/control.h"
#include "master/pidfile.h"
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_TIMEOUT_S = 5 };

/* A connection to the master, or -1 with the reason on stderr unless `quiet`. */
static int dial(const struct config *cfg, bool quiet)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    char path[512];
    control_path(cfg, path, sizeof path);
    if (!*path || strlen(path) >= sizeof sa.sun_path) {
        if (!quiet)
            fprintf(stderr, "ragd: %s\n",
                    *path ? "the path of server.control is too long"
                          : "no control socket: set server.control (or RAGD_SERVER_CONTROL), for the server and here");
        return -1;
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
        return fd;
    if (!quiet)
        fprintf(stderr, "ragd: no server answers at %s: %s\n", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Sends one line and reads one; NULL, with a message, when no answer comes. */
static json_t *call(int fd, const char *line)
{
    struct buf b = {0};
    char chunk[16384];
    json_t *o = NULL;
    json_error_t bad;
    if (send(fd, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line)) {
        for (ssize_t n; (n = recv(fd, chunk, sizeof chunk, 0)) != 0;) {
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                break;
            buf_add(&b, chunk, (size_t)n);
            if (memchr(chunk, '\n', (size_t)n)) {
                o = json_loadb(b.p, b.n, JSON_DISABLE_EOF_CHECK, &bad);
                break;
            }
        }
    }
    if (!o)
        fprintf(stderr, "ragd: the server gave no answer\n");
    buf_fini(&b);
    close(fd);
    return o;
}

static const char *text(const json_t *o, const char *key)
{
    const char *z = json_string_value(json_object_get(o, key));
    return z ? z : "";
}

static long long number(const json_t *o, const char *key)
{
    return (long long)json_number_value(json_object_get(o, key));
}

static void print_status(const json_t *o)
{
    size_t i;
    json_t *w, *listener;
    const json_t *target = json_object_get(o, "target"), *reloads = json_object_get(o, "reloads");
    printf("ragd %s, pid %lld, %s%s, up %lld s, generation %lld, configuration %s\n", text(o, "version"),
           number(o, "pid"), text(o, "phase"), json_is_true(json_object_get(o, "degraded")) ? " (degraded)" : "",
           number(o, "uptime_s"), number(o, "generation"), *text(o, "config") ? text(o, "config") : "without a file");
    json_array_foreach(json_object_get(o, "listeners"), i, listener)
        printf("listening on %s\n", json_string_value(listener));
    printf("workers wanted: %lld http, %lld ingest; reloads: %lld ok, %lld failed%s%s\n\n", number(target, "http"),
           number(target, "ingest"), number(reloads, "ok"), number(reloads, "failed"),
           *text(reloads, "last_error") ? "; last: " : "", text(reloads, "last_error"));
    printf("%4s  %-6s  %7s  %-8s  %3s  %9s  %6s  %9s  %10s  %8s  %8s\n", "SLOT", "ROLE", "PID", "STATE", "GEN",
           "UPTIME", "CONNS", "IN FLIGHT", "REQUESTS", "RSS KB", "RESTARTS");
    json_array_foreach(json_object_get(o, "workers"), i, w)
        printf("%4lld  %-6s  %7lld  %-8s  %3lld  %8llds  %6lld  %9lld  %10lld  %8lld  %8lld\n", number(w, "slot"),
               text(w, "role"), number(w, "pid"), text(w, "state"), number(w, "generation"), number(w, "uptime_s"),
               number(w, "connections"), number(w, "in_flight"), number(w, "requests"), number(w, "rss_kb"),
               number(w, "restarts"));
}

int ctl_status(const struct config *cfg, bool json)
{
    struct timeval patience = {.tv_sec = STATUS_TIMEOUT_S};
    int fd = dial(cfg, false);
    if (fd >= 0) /* a master that was stopped still has its socket */
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    json_t *o = fd < 0 ? NULL : call(fd, "{\"cmd\":\"status\"}\n");
    if (!o)
        return 1;
    if (json) {
        json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_status(o);
    }
    json_decref(o);
    return 0;
}

int ctl_reload(const struct config *cfg)
{
    int fd = dial(cfg, false);
    json_t *o = fd < 0 ? NULL : call(fd, "{\"cmd\":\"reload\"}\n");
    if (!o)
        return 1;
    bool ok = json_is_true(json_object_get(o, "ok"));
    if (ok)
        printf("reloaded: generation %lld\n", number(o, "generation"));
    else
        fprintf(stderr, "ragd: reload failed, everything stays as it was: %s\n", text(o, "error"));
    json_decref(o);
    return ok ? 0 : 1;
}

/* The lock is the truth: when it is free, the master is gone. */
static int stop_by_pidfile(const char *path, bool fast)
{
    pid_t pid = *path ? pidfile_holder(path) : 0;
    if (pid <= 0) {
        fprintf(stderr, "ragd: no running server found through server.control or server.pidfile\n");
        return 1;
    }
    if (kill(pid, fast ? SIGQUIT : SIGTERM) != 0) {
        fprintf(stderr, "ragd: cannot signal pid %d: %s\n", (int)pid, strerror(errno));
        return 1;
    }
    while (pidfile_holder(path) == pid)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    return 0;
}

int ctl_stop(const struct config *cfg, bool fast)
{
    int fd = dial(cfg, true);
    if (fd < 0)
        return stop_by_pidfile(cfg->server_pidfile, fast);
    json_t *o = call(fd, fast ? "{\"cmd\":\"stop\",\"fast\":true}\n" : "{\"cmd\":\"stop\"}\n");
    if (number(o, "killed") > 0)
        fprintf(stderr, "ragd: stopped; workers that had to be killed: %lld\n", number(o, "killed"));
    json_decref(o); /* no answer but the end of the connection: it is gone all the same */
    return 0;
}
