/* A server on a free port of 127.0.0.1 for tests of clients: a thread for each connection reads requests and hands them
 * to a function of the test, which writes whatever it likes. Threads touch only this struct, never cmocka. With TLS, where
 * the test has set `tls`: before tiny_start(), whose caller ignores SIGPIPE. */
#pragma once
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TINY_CONNECTIONS = 64, TINY_REQUEST_MAX = 65536 };

struct tiny_server;
struct tiny_request {
    struct tiny_server *server;
    int fd;
    SSL *tls;                        /* NULL: plain */
    char text[TINY_REQUEST_MAX + 1]; /* head and body */
    const char *path;                /* in `text`, ends with a space */
    const char *body;
};
/* True: the connection goes on. */
typedef bool tiny_handler(struct tiny_request *r);

struct tiny_server {
    int fd, port;
    tiny_handler *handler;
    SSL_CTX *tls; /* owned by the test */
    pthread_t acceptor, thread[TINY_CONNECTIONS];
    int connection[TINY_CONNECTIONS];
    atomic_int connections, requests;
    atomic_llong sent;
};

static inline bool tiny_send(struct tiny_request *r, const void *p, size_t n)
{
    while (n) {
        ssize_t k = r->tls ? SSL_write(r->tls, p, (int)n) : send(r->fd, p, n, MSG_NOSIGNAL);
        if (k <= 0)
            return false;
        atomic_fetch_add(&r->server->sent, k);
        p = (const char *)p + k;
        n -= (size_t)k;
    }
    return true;
}

static inline bool tiny_text(struct tiny_request *r, const char *text)
{
    return tiny_send(r, text, strlen(text));
}

/* A whole reply; `head` holds further header lines. */
static inline bool tiny_reply(struct tiny_request *r, const char *status, const char *head, const char *body)
{
    char top[2048];
    snprintf(top, sizeof top, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n", status, strlen(body), head);
    return tiny_text(r, top) && tiny_text(r, body);
}

static inline bool tiny_is(const struct tiny_request *r, const char *path)
{
    size_t n = strlen(path);
    return strncmp(r->path, path, n) == 0 && strchr(" ?", r->path[n]);
}

/* Reads one request; false at the end of the connection. */
static inline bool tiny_read(struct tiny_request *r)
{
    size_t n = 0, want = 0;
    for (;;) {
        ssize_t k = r->tls ? SSL_read(r->tls, r->text + n, (int)(TINY_REQUEST_MAX - n))
                           : recv(r->fd, r->text + n, TINY_REQUEST_MAX - n, 0);
        if (k <= 0)
            return false;
        r->text[n += (size_t)k] = 0;
        char *end = strstr(r->text, "\r\n\r\n"), *length = strcasestr(r->text, "\r\nContent-Length:");
        if (end && !want)
            want = (size_t)(end + 4 - r->text) + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
        if (end && (n >= want || n == TINY_REQUEST_MAX)) {
            r->path = strchr(r->text, ' ') + 1;
            r->body = end + 4;
            return true;
        }
    }
}

static inline bool tiny_begin(struct tiny_request *r)
{
    if (!r->server->tls)
        return true;
    r->tls = SSL_new(r->server->tls);
    if (!r->tls || SSL_set_fd(r->tls, r->fd) != 1)
        abort();
    return SSL_accept(r->tls) == 1;
}

static inline void *tiny_connection(void *arg)
{
    struct tiny_request *r = arg;
    bool open = tiny_begin(r);
    while (open && tiny_read(r)) {
        atomic_fetch_add(&r->server->requests, 1);
        open = r->server->handler(r);
    }
    SSL_free(r->tls);
    shutdown(r->fd, SHUT_RDWR);
    free(r);
    return NULL;
}

static inline void *tiny_accept(void *arg)
{
    struct tiny_server *s = arg;
    for (int n = 0; n < TINY_CONNECTIONS; n++) {
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            break;
        struct tiny_request *r = calloc(1, sizeof *r);
        if (!r)
            abort();
        r->server = s;
        r->fd = s->connection[n] = fd;
        if (pthread_create(&s->thread[n], NULL, tiny_connection, r))
            abort();
        atomic_fetch_add(&s->connections, 1);
    }
    return NULL;
}

static inline void tiny_start(struct tiny_server *s, tiny_handler *handler)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    *s = (struct tiny_server){.handler = handler, .tls = s->tls};
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&a, n) || listen(s->fd, 64) ||
        getsockname(s->fd, (struct sockaddr *)&a, &n) || pthread_create(&s->acceptor, NULL, tiny_accept, s))
        abort();
    s->port = ntohs(a.sin_port);
}

static inline void tiny_stop(struct tiny_server *s)
{
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->acceptor, NULL);
    for (int i = 0; i < atomic_load(&s->connections); i++) {
        shutdown(s->connection[i], SHUT_RDWR);
        pthread_join(s->thread[i], NULL);
        close(s->connection[i]);
    }
    close(s->fd);
}
