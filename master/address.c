#include "master/address.h"
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

bool address_is_admin(const char *key)
{
    return strncmp(key, ADDRESS_ADMIN, strlen(ADDRESS_ADMIN)) == 0;
}

const char *address_shown(const char *key)
{
    return address_is_admin(key) ? key + strlen(ADDRESS_ADMIN) : key;
}

const char *address_setting(const struct address *a, const struct config *cfg)
{
    return address_is_admin(a->key) ? "server.admin_bind" : cfg->server_port ? "server.port" : "server.bind";
}

static int bad(const struct addresses *w, struct err *e, const char *spec, const char *why)
{
    return err_set(e, ERR_VALIDATION, "%s: '%s' %s; use host:port, [v6]:port, :port for all addresses, or unix:/path",
                   w->what, spec, why);
}

static struct address *add(struct addresses *w)
{
    struct address *a = &w->v[w->n++];
    memset(a, 0, sizeof *a);
    return a;
}

static void add_v4(struct addresses *w, struct in_addr ip, uint16_t port)
{
    struct address *a = add(w);
    char text[INET_ADDRSTRLEN];
    a->v4.sin_family = AF_INET;
    a->v4.sin_addr = ip;
    a->v4.sin_port = htons(port);
    snprintf(a->key, sizeof a->key, "%s%s:%u", w->mark, inet_ntop(AF_INET, &ip, text, sizeof text), port);
}

static void add_v6(struct addresses *w, struct in6_addr ip, uint16_t port, bool paired)
{
    struct address *a = add(w);
    char text[INET6_ADDRSTRLEN];
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_addr = ip;
    a->v6.sin6_port = htons(port);
    a->optional = a->paired = paired;
    snprintf(a->key, sizeof a->key, "%s[%s]:%u", w->mark, inet_ntop(AF_INET6, &ip, text, sizeof text), port);
}

static int parse_unix(struct addresses *w, const char *spec, struct err *e)
{
    const char *path = spec + strlen("unix:");
    struct address *a = add(w);
    if (!*path)
        return bad(w, e, spec, "has no path");
    if (strlen(path) >= sizeof a->un.sun_path)
        return err_set(e, ERR_VALIDATION, "%s: '%s' is too long: the path of a unix socket has at most %zu bytes",
                       w->what, spec, sizeof a->un.sun_path - 1);
    a->un.sun_family = AF_UNIX;
    memcpy(a->un.sun_path, path, strlen(path) + 1);
    snprintf(a->key, sizeof a->key, "%s%s", w->mark, spec);
    return 0;
}

/* Names are not looked up: a resolver that hangs must not hang the master. */
static int parse_one(struct addresses *w, const char *spec, struct err *e)
{
    char host[64];
    uint64_t port;
    struct in_addr v4;
    struct in6_addr v6;
    if (w->n + 2 > LISTEN_MAX)
        return err_set(e, ERR_VALIDATION, "%s: more than %d addresses", w->what, LISTEN_MAX - 1);
    if (str_starts(str_of(spec), STR("unix:")))
        return parse_unix(w, spec, e);
    const char *colon = strrchr(spec, ':');
    if (!colon)
        return bad(w, e, spec, "has no port");
    if (!str_to_u64(str_of(colon + 1), &port) || port > 65535)
        return bad(w, e, spec, "has a port that is not a number from 0 to 65535");
    struct str h = {spec, (size_t)(colon - spec)};
    if (h.n >= sizeof host)
        return bad(w, e, spec, "is not an IP address and port");
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
            return bad(w, e, spec, "is not an IPv6 address");
        add_v6(w, v6, (uint16_t)port, false);
    } else if (inet_pton(AF_INET, host, &v4) == 1) {
        add_v4(w, v4, (uint16_t)port);
    } else if (strchr(host, ':')) {
        return bad(w, e, spec, "is an IPv6 address without brackets");
    } else {
        return bad(w, e, spec, "names a host: listening needs an IP address of this machine (or `localhost`)");
    }
    return 0;
}

static int parse_list(struct addresses *w, const char *what, const char *mark, const struct config_list *specs,
                      struct err *e)
{
    w->what = what;
    w->mark = mark;
    for (int i = 0; i < specs->n; i++)
        if (parse_one(w, specs->v[i], e) != 0)
            return -1;
    return 0;
}

/* Sockets that are to get any free port are two also when they look the same. */
static bool twice(const struct address *a, const struct address *b)
{
    bool any_port = a->sa.sa_family != AF_UNIX && a->v4.sin_port == 0;
    return strcmp(a->key, b->key) == 0 || (!any_port && strcmp(address_shown(a->key), address_shown(b->key)) == 0);
}

int addresses_of(struct addresses *w, const struct config *cfg, struct err *e)
{
    char port[16];
    char *all[] = {port};
    *w = (struct addresses){.n = 0};
    snprintf(port, sizeof port, ":%d", (int)cfg->server_port);
    if (!cfg->server_port && cfg->server_bind.n == 0)
        return err_set(e, ERR_VALIDATION, "server.bind: no address; the default is 127.0.0.1:8000");
    if (parse_list(w, "server.bind", "", cfg->server_port ? &(struct config_list){all, 1} : &cfg->server_bind, e) !=
            0 ||
        parse_list(w, "server.admin_bind", ADDRESS_ADMIN, &cfg->server_admin_bind, e) != 0)
        return -1;
    for (int i = 0; i < w->n; i++)
        for (int k = i + 1; k < w->n; k++)
            if (twice(&w->v[i], &w->v[k]))
                return err_set(e, ERR_VALIDATION, "%s: %s is named twice%s",
                               address_is_admin(w->v[k].key) ? "server.admin_bind" : "server.bind",
                               address_shown(w->v[k].key),
                               address_is_admin(w->v[k].key) > address_is_admin(w->v[i].key) ? ": it serves HTTP" : "");
    return 0;
}

int address_of_socket(struct address *out, int fd, struct err *e)
{
    struct addresses w = {.what = "LISTEN_FDS", .mark = ""};
    struct address raw = {.optional = false};
    socklen_t len = sizeof raw.un;
    int type = 0, listening = 0;
    socklen_t n = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) != 0 || type != SOCK_STREAM ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) != 0 || !listening)
        return err_set(e, ERR_VALIDATION, "descriptor %d is not a listening stream socket", fd);
    if (getsockname(fd, &raw.sa, &len) != 0)
        return err_errno(e, "the address of descriptor %d", fd);
    if (raw.sa.sa_family == AF_INET) {
        add_v4(&w, raw.v4.sin_addr, ntohs(raw.v4.sin_port));
    } else if (raw.sa.sa_family == AF_INET6) {
        add_v6(&w, raw.v6.sin6_addr, ntohs(raw.v6.sin6_port), false);
    } else if (raw.sa.sa_family == AF_UNIX && len > sizeof raw.un.sun_family) {
        char path[sizeof raw.un.sun_path + 1] = "", spec[sizeof path + 8];
        memcpy(path, raw.un.sun_path, len - sizeof raw.un.sun_family);
        if (!*path)
            *path = '@'; /* abstract: not in the file system, and `ss` shows it so */
        snprintf(spec, sizeof spec, "unix:%s", path);
        if (parse_unix(&w, spec, e) != 0)
            return -1;
    } else {
        return err_set(e, ERR_VALIDATION, "descriptor %d is a socket of another kind than IPv4, IPv6 and unix", fd);
    }
    *out = w.v[0];
    return 0;
}
