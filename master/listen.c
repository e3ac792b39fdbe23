#include "master/listen.h"
#include "common/log.h"
#include "master/address.h"
#include "master/holder.h"
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int bind_one(struct bound *b, struct address *a, int backlog, struct err *e);

const struct bound *listen_find(const struct listen_set *set, const char *key)
{
    for (int i = 0; set && i < set->n; i++)
        if (strcmp(set->v[i].key, key) == 0)
            return &set->v[i];
    return NULL;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in6 sa = {0};
    socklen_t len = sizeof sa;
    if (getsockname(fd, (struct sockaddr *)&sa, &len) != 0)
        return 0;
    return sa.sin6_port; /* the same place in sockaddr_in */
}

/* Its key names it; and an activated [::] may take IPv4, too. */
static bool covered(const struct listen_set *set, const struct address *a)
{
    char both[40];
    int only_v6 = 1;
    socklen_t n = sizeof only_v6;
    if (listen_find(set, a->key))
        return true;
    if (a->sa.sa_family != AF_INET || a->v4.sin_addr.s_addr != htonl(INADDR_ANY))
        return false;
    snprintf(both, sizeof both, "%s[::]:%u", address_is_admin(a->key) ? ADDRESS_ADMIN : "", ntohs(a->v4.sin_port));
    const struct bound *b = listen_find(set, both);
    return b && b->activated && getsockopt(b->l.fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, &n) == 0 && !only_v6;
}

/* The sockets that the server was started with are served in any case. */
static int keep_activated(struct listen_set *set, const struct listen_set *old, const struct addresses *want,
                          struct err *e)
{
    for (int i = 0; old && i < old->n; i++) {
        const struct bound *b = &old->v[i];
        bool named = false;
        if (!b->activated)
            continue;
        for (int k = 0; want && k < want->n; k++)
            named |= strcmp(want->v[k].key, b->key) == 0;
        if (b->named && want && !named)
            return err_set(e, ERR_VALIDATION,
                           "server.bind: %s was given to this server by its service manager, no reload can leave it: "
                           "change the socket unit and restart both",
                           b->l.name);
        set->v[set->n] = *b;
        set->v[set->n++].named = named;
    }
    return 0;
}

/* Somebody has removed the file: nobody can connect to this one any more. */
static bool is_lost(const struct bound *b)
{
    return b->l.unix_socket && !b->activated && !listen_is_at(b->l.name + strlen("unix:"), b->dev, b->ino);
}

/* 0, -1 with *e, or 1: an optional address whose family this machine lacks. */
static int open_one(struct listen_set *set, struct address *a, const struct listen_set *old, int backlog, struct err *e)
{
    const struct bound *had = listen_find(old, a->key);
    if (had && !is_lost(had)) {
        struct bound *b = &set->v[set->n++];
        *b = *had;
        if (listen(b->l.fd, backlog) == 0) /* on a listening socket: only changes the backlog */
            b->rests = false;
        else
            log_warn("cannot listen on %s with another backlog: %s", b->l.name, strerror(errno));
        return 0;
    }
    if (a->paired && set->n && ((struct sockaddr_in *)&a->sa)->sin_port == 0)
        a->v6.sin6_port = port_of(set->v[set->n - 1].l.fd);
    int r = bind_one(&set->v[set->n], a, backlog, e);
    set->n += r == 0;
    return r;
}

bool listen_is_admin(const struct bound *b)
{
    return address_is_admin(b->key);
}

static bool any_http(const struct listen_set *set)
{
    for (int i = 0; i < set->n; i++)
        if (!listen_is_admin(&set->v[i]))
            return true;
    return false;
}

int listen_open(struct listen_set *out, const struct config *cfg, const struct listen_set *old, struct err *e)
{
    struct addresses want;
    struct listen_set set = {.n = 0};
    bool given = config_given(cfg, KEY_server_bind);
    if (addresses_of(&want, cfg, e) != 0 || keep_activated(&set, old, given ? &want : NULL, e) != 0)
        return -1;
    bool no_default = any_http(&set) && !given; /* activated sockets take its place */
    for (int i = 0; i < want.n; i++) {
        int r = 0;
        if (covered(&set, &want.v[i]) || (no_default && !address_is_admin(want.v[i].key)))
            continue;
        if (set.n == LISTEN_MAX)
            r = err_set(e, ERR_VALIDATION,
                        "server.bind, server.admin_bind: more than %d addresses, with those of the service manager",
                        LISTEN_MAX);
        else if ((r = open_one(&set, &want.v[i], old, (int)cfg->server_backlog, e)) < 0)
            err_prefix(e, "%s: ", address_setting(&want.v[i], cfg));
        if (r < 0) {
            listen_close(&set, old);
            return -1;
        }
    }
    if (!any_http(&set)) {
        listen_close(&set, old);
        return err_set(e, ERR_INTERNAL, "server.bind: none of the addresses can be bound on this machine");
    }
    *out = set;
    return 0;
}

int listen_adopt(struct listen_set *set, int fd, const char *key, bool admin, struct err *e)
{
    struct address a;
    struct stat st;
    char own_key[LISTEN_NAME_MAX];
    int flags = fcntl(fd, F_GETFL);
    if (set->n == LISTEN_MAX)
        return err_set(e, ERR_VALIDATION, "more than %d sockets", LISTEN_MAX);
    if (address_of_socket(&a, fd, e) != 0)
        return -1;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return err_errno(e, "cannot set up descriptor %d", fd);
    if (key)
        snprintf(own_key, sizeof own_key, "%s", key);
    else
        snprintf(own_key, sizeof own_key, "%s%.*s", admin ? ADDRESS_ADMIN : "", LISTEN_NAME_MAX - 8, a.key);
    if (listen_find(set, own_key)) { /* nobody would accept from it */
        log_warn("%s was passed twice: one of the sockets is closed", a.key);
        close(fd);
        return 0;
    }
    struct bound *b = &set->v[set->n++];
    *b = (struct bound){.l = {.fd = fd, .unix_socket = a.sa.sa_family == AF_UNIX}, .activated = !key, .stored = key};
    snprintf(b->l.name, sizeof b->l.name, "%s", a.sa.sa_family == AF_UNIX && key ? address_shown(key) : a.key);
    memcpy(b->key, own_key, sizeof own_key);
    if (b->l.unix_socket && lstat(b->l.name + strlen("unix:"), &st) == 0) {
        b->dev = st.st_dev;
        b->ino = st.st_ino;
    }
    return 0;
}

void listen_give(const struct listen_set *set, uid_t uid, gid_t gid)
{
    for (int i = 0; i < set->n; i++) {
        const struct bound *b = &set->v[i];
        if (!b->l.unix_socket || b->activated || lchown(b->l.name + strlen("unix:"), uid, gid) == 0)
            continue;
        log_warn("cannot give %s to the user of the workers: %s", b->l.name, strerror(errno));
    }
}

bool listen_shares(const struct listen_set *set, const struct bound *b)
{
    const struct bound *same = listen_find(set, b->key);
    return same && same->l.fd == b->l.fd;
}

static void close_one(struct bound *b, const struct listen_set *keep)
{
    if (listen_shares(keep, b))
        return;
    if (b->l.unix_socket && !b->activated && !b->stored)
        listen_unlink(b->l.name + strlen("unix:"), b->dev, b->ino);
    close(b->l.fd);
}

void listen_close(struct listen_set *set, const struct listen_set *keep)
{
    for (int i = 0; i < set->n; i++)
        close_one(&set->v[i], keep);
    set->n = 0;
}

void listen_close_http(struct listen_set *set, const struct listen_set *keep)
{
    int left = 0;
    for (int i = 0; i < set->n; i++)
        if (listen_is_admin(&set->v[i]))
            set->v[left++] = set->v[i];
        else
            close_one(&set->v[i], keep);
    set->n = left;
}

/* A listening socket that is shut down for reading is one that is bound, as before listen(): see tcp_disconnect() of the
 * kernel, which lets go only of a port that it has chosen itself. One of a unix socket would never listen again. */
void listen_rest(struct listen_set *set, const struct listen_set *keep)
{
    for (struct bound *b = set->v; b < set->v + set->n; b++) {
        size_t n = strlen(b->key);
        bool chosen = n > 2 && strcmp(b->key + n - 2, ":0") == 0;
        if (b->rests || b->l.unix_socket || chosen || b->activated || listen_find(keep, b->key))
            continue;
        b->rests = shutdown(b->l.fd, SHUT_RD) == 0;
        if (b->rests)
            log_info("%s refuses connections: the new master does not serve it", b->l.name);
    }
}

int listen_wake(struct listen_set *set, int backlog, struct err *e)
{
    int rc = 0;
    for (struct bound *b = set->v; b < set->v + set->n; b++) {
        b->rests = b->rests && listen(b->l.fd, backlog) != 0;
        if (b->rests)
            rc = err_errno(e, "cannot listen on %s again", b->l.name);
    }
    return rc;
}

/* The remedy belongs to the message: it is read by somebody whose server does not start. */
static int explain(struct err *e, const struct address *a, int port, int error)
{
    char who[120];
    pid_t pid;
    switch (error) {
    case EADDRINUSE:
        pid = holder_of_port(a->sa.sa_family, port, who, sizeof who);
        if (pid == getpid())
            return err_set(e, ERR_BUSY,
                           "cannot listen on %s: this server itself holds the port at another address; a reload cannot "
                           "move between overlapping addresses, restart instead",
                           address_shown(a->key));
        if (pid > 0)
            return err_set(e, ERR_BUSY,
                           "cannot listen on %s: the address is in use by pid %d (%s); stop it, or set another address",
                           address_shown(a->key), (int)pid, who);
        return err_set(e, ERR_BUSY,
                       "cannot listen on %s: the address is in use; see `ss -ltnp`, or set another address",
                       address_shown(a->key));
    case EACCES:
        return err_set(e, ERR_INTERNAL,
                       "cannot listen on %s: permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE",
                       address_shown(a->key));
    case EADDRNOTAVAIL:
        return err_set(e, ERR_INTERNAL,
                       "cannot listen on %s: this machine has no such address; `ip address` shows those that it has",
                       address_shown(a->key));
    default: errno = error; return err_errno(e, "cannot listen on %s", address_shown(a->key));
    }
}

/* A bound socket, that does not listen yet. -1 with *e; -2: an optional address whose family this machine lacks. */
static int bind_tcp(const struct address *a, struct err *e)
{
    int one = 1, family = a->sa.sa_family, port = ntohs(((const struct sockaddr_in *)&a->sa)->sin_port);
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 && a->optional && errno == EAFNOSUPPORT)
        return -2;
    if (fd < 0)
        return err_errno(e, "cannot make a socket for %s", address_shown(a->key));
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) != 0)) {
        err_errno(e, "cannot set up a socket for %s", address_shown(a->key));
        close(fd);
        return -1;
    }
    if (bind(fd, &a->sa, family == AF_INET6 ? sizeof a->v6 : sizeof a->v4) != 0) {
        int error = errno;
        close(fd);
        return a->optional && error == EADDRNOTAVAIL ? -2 : explain(e, a, port, error);
    }
    return fd;
}

/* 0, -1 with *e, or 1: an optional address whose family this machine lacks. */
static int listen_tcp(struct bound *b, const struct address *a, int backlog, struct err *e)
{
    int fd = bind_tcp(a, e);
    if (fd < 0)
        return fd == -2 ? 1 : -1;
    if (listen(fd, backlog) != 0) {
        int error = errno;
        close(fd);
        return explain(e, a, ntohs(((const struct sockaddr_in *)&a->sa)->sin_port), error);
    }
    b->l.fd = fd;
    char *colon = strrchr(b->l.name, ':');
    snprintf(colon, sizeof b->l.name - (size_t)(colon - b->l.name), ":%u", ntohs(port_of(fd)));
    return 0;
}

static int bind_one(struct bound *b, struct address *a, int backlog, struct err *e)
{
    *b = (struct bound){.l = {.fd = -1}};
    snprintf(b->key, sizeof b->key, "%s", a->key);
    snprintf(b->l.name, sizeof b->l.name, "%s", address_shown(a->key));
    if (a->sa.sa_family != AF_UNIX)
        return listen_tcp(b, a, backlog, e);
    b->l.unix_socket = true;
    /* As nginx and gunicorn do: who may connect is decided by the directory. */
    b->l.fd = listen_unix(a->un.sun_path, 0666, backlog, false, &b->dev, &b->ino, e);
    return b->l.fd < 0 ? -1 : 0;
}

/* 1: somebody answers at `path`; 0: a dead socket or nothing; -1 with *e. */
static int probe_unix(const struct sockaddr_un *sa, struct err *e)
{
    struct stat st;
    if (lstat(sa->sun_path, &st) != 0)
        return errno == ENOENT ? 0 : err_errno(e, "cannot listen on unix:%s", sa->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return err_set(e, ERR_CONFLICT, "cannot listen on unix:%s: the file exists and is not a socket; remove it",
                       sa->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, "cannot make a socket for unix:%s", sa->sun_path);
    int r = connect(fd, (const struct sockaddr *)sa, sizeof *sa), error = errno;
    close(fd);
    return r == 0 || (error != ECONNREFUSED && error != ENOENT); /* one that lets nobody in is alive, too */
}

/* -1 with ERR_BUSY when somebody listens at `path`. */
static int check_free(const struct sockaddr_un *sa, struct err *e)
{
    char who[120];
    const char *path = sa->sun_path;
    int live = probe_unix(sa, e);
    if (live <= 0)
        return live;
    pid_t pid = holder_of_unix(path, who, sizeof who);
    if (pid > 0)
        return err_set(e, ERR_BUSY, "cannot listen on unix:%s: in use by pid %d (%s); stop it, or set another path",
                       path, (int)pid, who);
    return err_set(e, ERR_BUSY, "cannot listen on unix:%s: another process listens there; stop it, or set another path",
                   path);
}

int listen_unix(const char *path, mode_t mode, int backlog, bool replace, dev_t *dev, ino_t *ino, struct err *e)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX}, aside = {.sun_family = AF_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof sa.sun_path)
        return err_set(e, ERR_VALIDATION, "'%s' is too long for a unix socket: at most %zu bytes", path,
                       sizeof sa.sun_path - 1);
    memcpy(sa.sun_path, path, strlen(path) + 1);
    if (!replace && check_free(&sa, e) != 0)
        return -1;
    /* Bound aside and renamed into place: the path is never absent, and never has other rights than `mode`. */
    if (snprintf(aside.sun_path, sizeof aside.sun_path, "%s.%d", path, (int)getpid()) >= (int)sizeof aside.sun_path)
        aside = sa;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, "cannot make a socket for unix:%s", path);
    unlink(aside.sun_path);
    /* The file gets the mode of the socket. Changing the file's own would follow a link that somebody has put there. */
    mode_t mask = umask(0);
    int r = fchmod(fd, mode) == 0 ? bind(fd, (struct sockaddr *)&aside, sizeof aside) : -1;
    umask(mask);
    if (r != 0) {
        err_errno(e, "cannot listen on unix:%s", path);
        close(fd);
        return -1;
    }
    if (listen(fd, backlog) != 0 || lstat(aside.sun_path, &st) != 0 ||
        (strcmp(aside.sun_path, path) != 0 && rename(aside.sun_path, path) != 0)) {
        err_errno(e, "cannot listen on unix:%s", path);
        unlink(aside.sun_path);
        close(fd);
        return -1;
    }
    *dev = st.st_dev;
    *ino = st.st_ino;
    return fd;
}

int listen_try(const struct address *a, struct err *e)
{
    if (a->sa.sa_family != AF_UNIX) {
        int fd = bind_tcp(a, e);
        if (fd < 0)
            return fd == -2 ? 1 : -1;
        close(fd);
        return 0;
    }
    char dir[sizeof a->un.sun_path];
    if (check_free(&a->un, e) != 0)
        return -1;
    memcpy(dir, a->un.sun_path, sizeof dir);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    if (faccessat(AT_FDCWD, slash ? dir : ".", W_OK | X_OK, AT_EACCESS) != 0)
        return err_errno(e, "cannot listen on %s", address_shown(a->key));
    return 0;
}

bool listen_is_at(const char *path, dev_t dev, ino_t ino)
{
    struct stat st;
    return lstat(path, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void listen_unlink(const char *path, dev_t dev, ino_t ino)
{
    if (listen_is_at(path, dev, ino))
        unlink(path);
}
