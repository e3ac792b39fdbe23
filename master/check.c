#include "master/check.h"
#include "master/control.h"
#include "master/holder.h"
#include "master/hooks.h"
#include "master/listen.h"
#include "master/logfile.h"
#include "master/master.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PIDS = 3 };

/* Who may hold the addresses, by different ways to know him. */
struct instance {
    pid_t pid[PIDS];
    bool found;
};

static pid_t control_holder(const struct config *cfg)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct ucred peer = {.pid = 0};
    socklen_t n = sizeof peer;
    char path[512];
    control_path(cfg, path, sizeof path);
    if (!*path || strlen(path) >= sizeof sa.sun_path)
        return 0;
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0) /* of the process that made it listen */
        peer.pid = 0;
    close(fd);
    return peer.pid;
}

static struct instance find_instance(const struct config *cfg)
{
    const char *told = getenv("RAGD_PID"); /* by the master: this is the check before an upgrade, or in a hook */
    struct instance i = {.pid = {control_holder(cfg), told ? (pid_t)atoi(told) : 0}};
    if (*cfg->server_pidfile)
        i.pid[2] = pidfile_holder(cfg->server_pidfile);
    for (int k = 0; k < PIDS; k++)
        i.found |= i.pid[k] > 0;
    return i;
}

static bool holds(const struct instance *i, const struct address *a)
{
    bool yes = false;
    for (int k = 0; k < PIDS && !yes; k++) {
        if (i->pid[k] <= 0)
            continue;
        yes = a->sa.sa_family == AF_UNIX ? holder_has_unix(i->pid[k], a->un.sun_path)
                                         : holder_has_port(i->pid[k], a->sa.sa_family, ntohs(a->v4.sin_port));
    }
    return yes;
}

/* The first error wins: a wrong configuration is wrong also when its addresses are free. */
static void found(const struct config *cfg, int *code, int with, struct err *e, void (*tell)(const char *problem))
{
    config_locate(cfg, e);
    if (*code != EXIT_CONFIG)
        *code = with;
    tell(e->msg);
}

static void try_addresses(const struct config *cfg, int *code, void (*tell)(const char *problem))
{
    struct instance instance = find_instance(cfg);
    struct addresses want;
    struct err e = {.code = ERR_NONE};
    if (addresses_of(&want, cfg, &e) != 0) {
        found(cfg, code, EXIT_CONFIG, &e, tell);
        return;
    }
    int usable = 0;
    for (int i = 0; i < want.n; i++) {
        int r = listen_try(&want.v[i], &e);
        bool taken = r < 0 && e.code == ERR_BUSY;
        /* One that runs and does not hold its default was given other sockets by its service manager. */
        if (taken && (holds(&instance, &want.v[i]) || (instance.found && !config_given(cfg, KEY_server_bind))))
            r = 0;
        usable += r == 0;
        if (r < 0) {
            err_prefix(&e, "%s: ", address_setting(&want.v[i], cfg));
            found(cfg, code, EXIT_BIND, &e, tell);
        }
    }
    if (usable == 0 && *code == 0) {
        err_set(&e, ERR_INTERNAL, "server.bind: none of the addresses can be bound on this machine");
        found(cfg, code, EXIT_BIND, &e, tell);
    }
}

int check_start(const struct config *cfg, void (*tell)(const char *problem))
{
    struct privileges p;
    struct err e = {.code = ERR_NONE};
    int code = 0;
    if (privileges_resolve(&p, cfg, &e) != 0)
        found(cfg, &code, EXIT_CONFIG, &e, tell);
    if (privileges_check(&p, cfg, &e) != 0)
        found(cfg, &code, EXIT_CONFIG, &e, tell);
    for (enum hook_event event = HOOK_ready; event < HOOK_COUNT; event++)
        if (hook_check(cfg, event, &e) != 0)
            found(cfg, &code, EXIT_CONFIG, &e, tell);
    if (logfiles_check(cfg, &e) != 0)
        found(cfg, &code, EXIT_CONFIG, &e, tell);
    if (*cfg->server_pidfile && pidfile_check(cfg->server_pidfile, &e) != 0)
        found(cfg, &code, EXIT_CONFIG, &e, tell);
    try_addresses(cfg, &code, tell);
    return code;
}

void check_warnings(const struct config *cfg, struct buf *out)
{
    struct privileges p;
    config_warnings(cfg, out);
    if (privileges_resolve(&p, cfg, &(struct err){.code = ERR_NONE}) == 0)
        privileges_warnings(&p, cfg, out);
}
