#include "master/listen.h"
#include "common/log.h"
#include "master/holder.h"
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* One address to bind. One entry of the configuration can name two: ":8000" is 0.0.0.0 and [::]. */
struct address {
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un un;
    };
    bool optional; /* its address family may be missing on this machine */
    bool paired;   /* takes the port that the address before it was given, when it asks for port 0 */
    char key[LISTEN_NAME_MAX];
};

struct wanted {
    struct address v[LISTEN_MAX];
    int n;
};

static int parse_all(struct wanted *w, const struct config *cfg, struct err *e);
static int bind_one(struct bound *b, struct address *a, int backlog, struct err *e);

int listen_check(const struct config *cfg, struct err *e)
{
    struct wanted w = {.n = 0};
    return parse_all(&w, cfg, e);
}

static const struct bound *find(const struct listen_set *set, const char *key)
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

int listen_open(struct listen_set *out, const struct config *cfg, const struct listen_set *old, struct err *e)
{
    struct wanted w = {.n = 0};
    struct listen_set set = {.n = 0};
    int backlog = (int)cfg->server_backlog;
    if (parse_all(&w, cfg, e) != 0)
        return -1;
    for (int i = 0; i < w.n; i++) {
        struct address *a = &w.v[i];
        const struct bound *had = find(old, a->key);
        if (had) {
            set.v[set.n] = *had;
            if (listen(had->l.fd, backlog) != 0) /* on a listening socket: only changes the backlog */
                log_warn("cannot change the backlog of %s: %s", had->l.name, strerror(errno));
            set.n++;
            continue;
        }
        if (a->paired && set.n && ((struct sockaddr_in *)&a->sa)->sin_port == 0)
            a->v6.sin6_port = port_of(set.v[set.n - 1].l.fd);
        int r = bind_one(&set.v[set.n], a, backlog, e);
        if (r == 1)
            continue;
        if (r != 0) {
            listen_close(&set, old);
            return -1;
        }
        set.n++;
    }
    if (set.n == 0)
        return err_set(e, ERR_INTERNAL, "server.bind: none of the addresses can be bound on this machine");
    *out = set;
    return 0;
}

void listen_close(struct listen_set *set, const struct listen_set *keep)
{
    for (int i = 0; i < set->n; i++) {
        struct bound *b = &set->v[i];
        if (find(keep, b->key))
            continue;
        if (b->l.unix_socket)
            listen_unlink(b->l.name + strlen("unix:"), b->dev, b->ino);
        close(b->l.fd);
    }
    set->n = 0;
}

static int bad(struct err *e, const char *spec, const char *why)
{
    return err_set(e, ERR_VALIDATION,
                   "server.bind: '%s' %s; use host:port, [v6]:port, :port for all addresses, or unix:/path", spec, why);
}

static struct address *add(struct wanted *w)
{
    struct address *a = &w->v[w->n++];
    memset(a, 0, sizeof *a);
    return a;
}

static void add_v4(struct wanted *w, struct in_addr ip, uint16_t port)
{
    struct address *a = add(w);
    char text[INET_ADDRSTRLEN];
    a->v4.sin_family = AF_INET;
    a->v4.sin_addr = ip;
    a->v4.sin_port = htons(port);
    snprintf(a->key, sizeof a->key, "%s:%u", inet_ntop(AF_INET, &ip, text, sizeof text), port);
}

static void add_v6(struct wanted *w, struct in6_addr ip, uint16_t port, bool paired)
{
    struct address *a = add(w);
    char text[INET6_ADDRSTRLEN];
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_addr = ip;
    a->v6.sin6_port = htons(port);
    a->optional = a->paired = paired;
    snprintf(a->key, sizeof a->key, "[%s]:%u", inet_ntop(AF_INET6, &ip, text, sizeof text), port);
}

static int parse_unix(struct wanted *w, const char *spec, struct err *e)
{
    const char *path = spec + strlen("unix:");
    struct address *a = add(w);
    if (!*path)
        return bad(e, spec, "has no path");
    if (strlen(path) >= sizeof a->un.sun_path)
        return err_set(e, ERR_VALIDATION,
                       "server.bind: '%s' is too long: the path of a unix socket has at most %zu bytes", spec,
                       sizeof a->un.sun_path - 1);
    a->un.sun_family = AF_UNIX;
    memcpy(a->un.sun_path, path, strlen(path) + 1);
    snprintf(a->key, sizeof a->key, "%s", spec);
    return 0;
}

/* Names are not looked up: a resolver that hangs must not hang the master. */
static int parse_one(struct wanted *w, const char *spec, struct err *e)
{
    char host[64];
    uint64_t port;
    struct in_addr v4;
    struct in6_addr v6;
    if (w->n + 2 > LISTEN_MAX)
        return err_set(e, ERR_VALIDATION, "server.bind: more than %d addresses", LISTEN_MAX - 1);
    if (str_starts(str_of(spec), STR("unix:")))
        return parse_unix(w, spec, e);
    const char *colon = strrchr(spec, ':');
    if (!colon)
        return bad(e, spec, "has no port");
    if (!str_to_u64(str_of(colon + 1), &port) || port > 65535)
        return bad(e, spec, "has a port that is not a number from 0 to 65535");
    struct str h = {spec, (size_t)(colon - spec)};
    if (h.n >= sizeof host)
        return bad(e, spec, "is not an IP address and port");
    str_copyz(host, sizeof host, h);
    if (!*host || strcmp(host, "*") == 0) {
        add_v4(w, (struct in_addr){INADDR_ANY}, (uint16_t)port);
        add_v6(w, in6addr_any, (uint16_t)port, true);
    } else if (strcmp(host, "localhost") == 0) {
        add_v4(w, (struct in_addr){htonl(INADDR_LOOPBACK)}, (uint16_t)port);
        add_v6(w, in6addr_loopback, (uint16_t)port, true);
    } else if (*host == '[' && h.n > 2 && host[h.n - 1] == ']') {
        host[h.n - 1] = 0;
        if (inet_pton(AF_INET6, host + 1, &v6) != 1)
            return bad(e, spec, "is not an IPv6 address");
        add_v6(w, v6, (uint16_t)port, false);
    } else if (inet_pton(AF_INET, host, &v4) == 1) {
        add_v4(w, v4, (uint16_t)port);
    } else if (strchr(host, ':')) {
        return bad(e, spec, "is an IPv6 address without brackets");
    } else {
        return bad(e, spec, "names a host: listening needs an IP address of this machine (or `localhost`)");
    }
    return 0;
}

static int parse_all(struct wanted *w, const struct config *cfg, struct err *e)
{
    if (cfg->server_port) {
        char spec[16];
        snprintf(spec, sizeof spec, ":%d", (int)cfg->server_port);
        return parse_one(w, spec, e);
    }
    if (cfg->server_bind.n == 0)
        return err_set(e, ERR_VALIDATION, "server.bind: no address; the default is 127.0.0.1:8000");
    for (int i = 0; i < cfg->server_bind.n; i++)
        if (parse_one(w, cfg->server_bind.v[i], e) != 0)
            return -1;
    for (int i = 0; i < w->n; i++)
        for (int k = i + 1; k < w->n; k++)
            if (strcmp(w->v[i].key, w->v[k].key) == 0)
                return err_set(e, ERR_VALIDATION, "server.bind: %s is named twice", w->v[i].key);
    return 0;
}

/* The remedy belongs to the message: it is read by somebody whose server does not start. */
static int explain(struct err *e, const struct address *a, int port, int error)
{
    char who[160];
    pid_t pid;
    switch (error) {
    case EADDRINUSE:
        pid = holder_of_port(a->sa.sa_family, port, who, sizeof who);
        if (pid == getpid())
            return err_set(e, ERR_BUSY,
                           "cannot listen on %s: this server itself holds the port at another address; a reload cannot "
                           "move between overlapping addresses, restart instead",
                           a->key);
        if (pid > 0)
            return err_set(e, ERR_BUSY,
                           "cannot listen on %s: the address is in use by pid %d (%s); stop it, or set another "
                           "server.bind or server.port",
                           a->key, (int)pid, who);
        return err_set(e, ERR_BUSY,
                       "cannot listen on %s: the address is in use; see `ss -ltnp`, or set another server.bind or "
                       "server.port",
                       a->key);
    case EACCES:
        return err_set(e, ERR_INTERNAL,
                       "cannot listen on %s: permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE",
                       a->key);
    case EADDRNOTAVAIL:
        return err_set(e, ERR_INTERNAL, "cannot listen on %s: this machine has no such address", a->key);
    default: errno = error; return err_errno(e, "cannot listen on %s", a->key);
    }
}

/* 0, -1 with *e, or 1: an optional address whose family this machine lacks. */
static int bind_tcp(struct bound *b, const struct address *a, int backlog, struct err *e)
{
    int one = 1, family = a->sa.sa_family, port = ntohs(((const struct sockaddr_in *)&a->sa)->sin_port);
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return a->optional && errno == EAFNOSUPPORT ? 1 : err_errno(e, "cannot make a socket for %s", a->key);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) != 0)) {
        err_errno(e, "cannot set up a socket for %s", a->key);
        close(fd);
        return -1;
    }
    if (bind(fd, &a->sa, family == AF_INET6 ? sizeof a->v6 : sizeof a->v4) != 0 || listen(fd, backlog) != 0) {
        int error = errno;
        close(fd);
        return a->optional && error == EADDRNOTAVAIL ? 1 : explain(e, a, port, error);
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
    snprintf(b->l.name, sizeof b->l.name, "%s", a->key);
    if (a->sa.sa_family != AF_UNIX)
        return bind_tcp(b, a, backlog, e);
    b->l.unix_socket = true;
    /* As nginx and gunicorn do: who may connect is decided by the directory. */
    b->l.fd = listen_unix(a->un.sun_path, 0666, backlog, &b->dev, &b->ino, e);
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
    return r == 0 || error == EAGAIN || error == EINPROGRESS;
}

int listen_unix(const char *path, mode_t mode, int backlog, dev_t *dev, ino_t *ino, struct err *e)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX}, aside = {.sun_family = AF_UNIX};
    struct stat st;
    char who[160];
    if (strlen(path) >= sizeof sa.sun_path)
        return err_set(e, ERR_VALIDATION, "'%s' is too long for a unix socket: at most %zu bytes", path,
                       sizeof sa.sun_path - 1);
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int live = probe_unix(&sa, e);
    if (live < 0)
        return -1;
    if (live) {
        pid_t pid = holder_of_unix(path, who, sizeof who);
        if (pid > 0)
            return err_set(e, ERR_BUSY, "cannot listen on unix:%s: in use by pid %d (%s)", path, (int)pid, who);
        return err_set(e, ERR_BUSY, "cannot listen on unix:%s: another process listens there", path);
    }
    /* Bound aside and renamed into place: the path is never absent, and never has other rights than `mode`. */
    if (snprintf(aside.sun_path, sizeof aside.sun_path, "%s.%d", path, (int)getpid()) >= (int)sizeof aside.sun_path)
        aside = sa;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, "cannot make a socket for unix:%s", path);
    unlink(aside.sun_path);
    if (bind(fd, (struct sockaddr *)&aside, sizeof aside) != 0) {
        err_errno(e, "cannot listen on unix:%s", path);
        close(fd);
        return -1;
    }
    if (chmod(aside.sun_path, mode) != 0 || listen(fd, backlog) != 0 || stat(aside.sun_path, &st) != 0 ||
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

void listen_unlink(const char *path, dev_t dev, ino_t ino)
{
    struct stat st;
    if (lstat(path, &st) == 0 && st.st_dev == dev && st.st_ino == ino)
        unlink(path);
}
