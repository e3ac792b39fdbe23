/* A probe that containers run every few seconds: plain blocking sockets, no loop, no store. */
#include "common/clock.h"
#include "worker/cli/commands.h"
#include "worker/cli/session.h"
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { REPLY_MAX = 4096 };

/* Connects without waiting beyond `end`. The descriptor, or -1 with errno. */
static int connect_until(const struct sockaddr *addr, socklen_t len, int64_t end)
{
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), failed = 0;
    socklen_t size = sizeof failed;
    if (fd < 0)
        return -1;
    if (connect(fd, addr, len) == 0)
        return fd;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int64_t left = (end - clock_ns()) / MS;
    if (errno != EINPROGRESS)
        failed = errno;
    else if (left <= 0 || poll(&p, 1, (int)left) <= 0)
        failed = ETIMEDOUT;
    else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size) != 0)
        failed = errno;
    if (!failed)
        return fd;
    close(fd);
    errno = failed;
    return -1;
}

static int connect_unix(struct str path, int64_t end, struct err *e)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    str_copyz(addr.sun_path, sizeof addr.sun_path, path); /* its length was checked with the configuration */
    int fd = connect_until((struct sockaddr *)&addr, sizeof addr, end);
    return fd >= 0 ? fd : err_set(e, ERR_NOT_READY, "unix:%s: %s", addr.sun_path, strerror(errno));
}

/* An address that means "all" is asked on the loopback. */
static int connect_tcp(struct str bind, int64_t end, struct err *e)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    char text[256], *host = text, *port;
    struct addrinfo *list;
    int fd = -1;
    str_copyz(text, sizeof text, bind);
    port = strrchr(text, ':');
    *port++ = 0;
    if (*host == '[') {
        host++;
        host[strlen(host) - 1] = 0;
    }
    if (strcmp(port, "0") == 0)
        return err_set(e, ERR_NOT_READY, STR_FMT ": port 0 is chosen at the start, so it cannot be asked",
                       STR_ARG(bind));
    if (!*host || strcmp(host, "0.0.0.0") == 0)
        host = "127.0.0.1";
    else if (strcmp(host, "::") == 0)
        host = "::1";
    int rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0)
        return err_set(e, ERR_NOT_READY, "%s: %s", host, gai_strerror(rc));
    errno = 0;
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
        fd = connect_until(a->ai_addr, a->ai_addrlen, end);
    int saved = errno;
    freeaddrinfo(list);
    return fd >= 0 ? fd : err_set(e, ERR_NOT_READY, "%s port %s: %s", host, port, strerror(saved));
}

/* The whole answer; we ask for a connection that closes behind it. */
static int exchange(int fd, const char *request, char *reply, size_t cap, int64_t end, struct err *e)
{
    size_t sent = 0, want = strlen(request), n = 0;
    while (n < cap - 1) {
        struct pollfd p = {.fd = fd, .events = sent < want ? POLLOUT : POLLIN};
        int64_t left = (end - clock_ns()) / MS;
        int ready = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return err_set(e, ERR_NOT_READY, "no answer in time");
        ssize_t r =
            sent < want ? send(fd, request + sent, want - sent, MSG_NOSIGNAL) : read(fd, reply + n, cap - 1 - n);
        if (r < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (r < 0)
            return err_set(e, ERR_NOT_READY, "%s", strerror(errno));
        if (sent < want)
            sent += (size_t)r;
        else if (r == 0)
            break;
        else
            n += (size_t)r;
    }
    reply[n] = 0;
    return 0;
}

static int ask(const struct config *cfg, const char *path, struct str bind, int64_t end, struct err *e)
{
    char request[512], reply[REPLY_MAX];
    bool local = str_starts(bind, STR("unix:"));
    int fd = local ? connect_unix(str_sub(bind, 5, SIZE_MAX), end, e) : connect_tcp(bind, end, e), status = 0;
    if (fd < 0)
        return -1;
    snprintf(request, sizeof request,
             "GET %s%s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ragd-health\r\nConnection: close\r\n\r\n",
             cfg->server_base_path, path);
    int failed = exchange(fd, request, reply, sizeof reply, end, e);
    close(fd);
    if (failed)
        return -1;
    if (sscanf(reply, "HTTP/1.%*1d %3d", &status) != 1)
        return err_set(e, ERR_NOT_READY, STR_FMT " does not speak HTTP", STR_ARG(bind));
    if (status == 200)
        return 0;
    const char *text = strstr(reply, "\r\n\r\n");
    return err_set(e, ERR_NOT_READY, "%s answered %d: %.200s", path, status, text ? text + 4 : "");
}

int cli_health(int argc, char **argv, const struct config *cfg)
{
    int ready = 0, timeout_s = 5, c;
    const struct option table[] = {
        {"ready", no_argument, &ready, 1}, {"timeout", required_argument, NULL, 't'}, {NULL, 0, NULL, 0}};
    while ((c = session_option(argc, argv, table)) != -1)
        if (c == '?' || (c == 't' && !session_number(argv[0], "--timeout", optarg, 1, 600, &timeout_s)))
            return CLI_USAGE;
    if (optind < argc)
        return session_usage(argv[0], "unexpected \"%s\"", argv[optind]);
    struct err first, e;
    int64_t end = clock_ns() + timeout_s * SEC;
    for (int i = 0; i < cfg->server_bind.n; i++) {
        if (ask(cfg, ready ? "/readyz" : "/livez", str_of(cfg->server_bind.v[i]), end, i ? &e : &first) == 0) {
            printf("%s\n", ready ? "ready" : "alive");
            return CLI_OK;
        }
    }
    return session_error(argv[0], &first);
}
