/* One connection to Redis, from a name to the first PONG: socket, TLS, Sentinel, AUTH, SELECT. */
#include "worker/io/redis_impl.h"
#include "worker/io/resolve.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ_BYTES = 4096, SILENT_MS = 10000 };

static int away(struct err *e, const char *peer, const char *why)
{
    err_set(e, ERR_NOT_READY, "the cache cannot be reached");
    return err_log(e, "Redis at %s: %s", peer, why);
}

static suspends int wait_for(struct redis_conn *c, short what, struct err *e)
{
    int rc = fiber_wait_fd(c->fd, what, "connection to Redis");
    return rc == 0 ? 0 : away(e, c->peer, rc == -ETIMEDOUT ? "no answer in time" : "given up");
}

/* ---- TLS ---- */

int redis_tls_new(const struct config *cfg, SSL_CTX **out, struct err *e)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx)
        abort();
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    int ok =
        *cfg->cache_ca_file ? SSL_CTX_load_verify_file(ctx, cfg->cache_ca_file) : SSL_CTX_set_default_verify_paths(ctx);
    ERR_clear_error();
    if (ok != 1) {
        SSL_CTX_free(ctx);
        return err_set(e, ERR_VALIDATION, "cache.ca_file: %.200s holds no certificates in PEM, or cannot be read",
                       cfg->cache_ca_file);
    }
    *out = ctx;
    return 0;
}

/* The signer is not trusted; else the certificate itself is wrong. */
static bool is_stranger(long verdict)
{
    return verdict == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT || verdict == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN ||
           verdict == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY ||
           verdict == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE;
}

static int tls_failed(struct redis_conn *c, struct err *e)
{
    char why[200] = "the connection ended";
    long verdict = SSL_get_verify_result(c->tls);
    unsigned long code = ERR_get_error();
    if (verdict != X509_V_OK)
        snprintf(why, sizeof why, "its certificate is not accepted: %s%s", X509_verify_cert_error_string(verdict),
                 is_stranger(verdict) ? "; cache.ca_file names the authorities to trust" : "");
    else if (code)
        ERR_error_string_n(code, why, sizeof why);
    ERR_clear_error();
    return away(e, c->peer, why);
}

/* The certificate must be for the host as it stands in the URL, name or address. */
static suspends int start_tls(struct redis_conn *c, SSL_CTX *ctx, const char *host, struct err *e)
{
    unsigned char scratch[sizeof(struct in6_addr)];
    bool literal = inet_pton(AF_INET, host, scratch) == 1 || inet_pton(AF_INET6, host, scratch) == 1;
    c->tls = SSL_new(ctx);
    if (!c->tls || SSL_set_fd(c->tls, c->fd) != 1)
        return tls_failed(c, e);
    if (literal ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(c->tls), host) != 1
                : SSL_set1_host(c->tls, host) != 1 || SSL_set_tlsext_host_name(c->tls, host) != 1)
        return tls_failed(c, e);
    for (;;) {
        ERR_clear_error();
        int rc = SSL_connect(c->tls), why = SSL_get_error(c->tls, rc);
        if (rc == 1)
            return 0;
        if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
            return tls_failed(c, e);
        if (wait_for(c, why == SSL_ERROR_WANT_READ ? EV_READ : EV_WRITE, e) < 0)
            return -1;
    }
}

/* ---- bytes ---- */

/* What a failed call of OpenSSL or of the socket means: not now, or the end. */
static ssize_t not_moved(struct redis_conn *c, int rc, struct err *e)
{
    if (c->tls) {
        int why = SSL_get_error(c->tls, rc);
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
            return 0;
        return tls_failed(c, e);
    }
    if (rc < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    return away(e, c->peer, rc == 0 ? "closed the connection" : strerror(errno));
}

ssize_t redis_conn_read(struct redis_conn *c, char *to, size_t n, struct err *e)
{
    ERR_clear_error();
    ssize_t rc = c->tls ? SSL_read(c->tls, to, (int)n) : recv(c->fd, to, n, 0);
    return rc > 0 ? rc : not_moved(c, (int)rc, e);
}

ssize_t redis_conn_write(struct redis_conn *c, const char *from, size_t n, struct err *e)
{
    enum { RECORD = 1 << 20 };
    ERR_clear_error();
    ssize_t rc = c->tls ? SSL_write(c->tls, from, (int)(n < RECORD ? n : RECORD)) : send(c->fd, from, n, MSG_NOSIGNAL);
    return rc > 0 ? rc : not_moved(c, (int)rc, e);
}

void redis_conn_free(struct redis_conn *c)
{
    if (!c)
        return;
    SSL_free(c->tls);
    if (c->fd >= 0)
        close(c->fd);
    redisReaderFree(c->reader);
    free(c);
}

/* ---- the socket ---- */

static suspends int connect_to(struct redis_conn *c, const struct sockaddr *sa, socklen_t n, struct err *e)
{
    int one = 1, silent = SILENT_MS, failed = 0;
    socklen_t size = sizeof failed;
    c->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return away(e, c->peer, strerror(errno));
    if (sa->sa_family != AF_UNIX) {
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
        setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silent, sizeof silent);
    }
    if (connect(c->fd, sa, n) == 0)
        return 0;
    if (errno != EINPROGRESS && errno != EINTR)
        return away(e, c->peer, strerror(errno));
    if (wait_for(c, EV_WRITE, e) < 0)
        return -1;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failed, &size) < 0 || failed)
        return away(e, c->peer, strerror(failed ? failed : errno));
    return 0;
}

static socklen_t socket_address(const struct net_addr *a, int port, struct sockaddr_storage *out)
{
    *out = (struct sockaddr_storage){.ss_family = a->family};
    if (a->family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)out;
        v4->sin_port = htons((uint16_t)port);
        memcpy(&v4->sin_addr, a->b, sizeof v4->sin_addr);
        return sizeof *v4;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    v6->sin6_port = htons((uint16_t)port);
    memcpy(&v6->sin6_addr, a->b, sizeof v6->sin6_addr);
    return sizeof *v6;
}

/* The first address that takes the connection. */
static suspends int connect_host(struct redis_conn *c, const struct redis_host *h, struct err *e)
{
    struct sockaddr_storage sa;
    struct resolved found;
    struct err why;
    int rc = -1;
    snprintf(c->peer, sizeof c->peer, "%s:%d", h->name, h->port);
    if (resolve_name(str_of(h->name), &found, &why) < 0)
        return away(e, c->peer, why.log[0] ? why.log : why.msg);
    for (int i = 0; rc < 0 && i < found.n; i++) {
        socklen_t n = socket_address(&found.addr[i], h->port, &sa);
        if (c->fd >= 0)
            close(c->fd);
        c->fd = -1;
        rc = connect_to(c, (const struct sockaddr *)&sa, n, e);
    }
    return rc;
}

static suspends int connect_unix(struct redis_conn *c, const char *path, struct err *e)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    str_copyz(sa.sun_path, sizeof sa.sun_path, str_of(path));
    snprintf(c->peer, sizeof c->peer, "unix:%s", path);
    return connect_to(c, (const struct sockaddr *)&sa, sizeof sa, e);
}

/* ---- the session ---- */

static suspends int send_all(struct redis_conn *c, struct str bytes, struct err *e)
{
    while (bytes.n) {
        ssize_t n = redis_conn_write(c, bytes.p, bytes.n, e);
        if (n < 0 || (n == 0 && wait_for(c, EV_WRITE, e) < 0))
            return -1;
        bytes = str_sub(bytes, (size_t)n, SIZE_MAX);
    }
    return 0;
}

static suspends int next_reply(struct redis_conn *c, struct redis_reply **out, struct err *e)
{
    char bytes[READ_BYTES];
    *out = NULL;
    for (;;) {
        if (redis_reader_next(c->reader, out, e) < 0)
            return -1;
        if (*out)
            return 0;
        ssize_t n = redis_conn_read(c, bytes, sizeof bytes, e);
        if (n < 0 || (n == 0 && wait_for(c, EV_READ, e) < 0))
            return -1;
        if (n > 0 && redis_reader_feed(c->reader, (struct str){bytes, (size_t)n}, e) < 0)
            return -1;
    }
}

static int refused(struct redis_conn *c, const struct redis_value *v, struct err *e)
{
    struct str text = redis_reply_text(v);
    err_set(e, ERR_NOT_READY, "the cache refuses the connection");
    return err_log(e, "Redis at %s: " STR_FMT, c->peer, STR_ARG(text));
}

/* Sends all that opens a session, then reads all the answers. A server that is loading its data, or is a replica that
 * lost its master, says so to PING; -READONLY it says only to writes. */
static suspends int set_up(struct redis_conn *c, const struct redis_url *url, struct err *e)
{
    struct buf out = {0};
    char db[12];
    int n = 0, rc = 0;
    if (url->password[0]) {
        struct str auth[3] = {STR("AUTH"), str_of(url->user), str_of(url->password)};
        if (!url->user[0])
            auth[1] = auth[2];
        redis_command(&out, auth, url->user[0] ? 3 : 2);
        n++;
    }
    if (url->db) {
        snprintf(db, sizeof db, "%d", url->db);
        redis_command(&out, (struct str[]){STR("SELECT"), str_of(db)}, 2);
        n++;
    }
    redis_command(&out, (struct str[]){STR("PING")}, 1);
    n++;
    rc = send_all(c, buf_view(&out), e);
    buf_fini(&out);
    while (rc == 0 && n--) {
        struct redis_reply *r = NULL;
        rc = next_reply(c, &r, e);
        if (rc == 0 && r->value.type == REDIS_ERROR)
            rc = refused(c, &r->value, e);
        redis_reply_free(r);
    }
    return rc;
}

static struct redis_conn *conn_new(void)
{
    struct redis_conn *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->fd = -1;
    c->reader = redis_reader_new();
    return c;
}

static suspends int open_host(const struct redis_host *h, SSL_CTX *tls, struct redis_conn **out, struct err *e)
{
    struct redis_conn *c = conn_new();
    if (connect_host(c, h, e) < 0 || (tls && start_tls(c, tls, h->name, e) < 0)) {
        redis_conn_free(c);
        return -1;
    }
    *out = c;
    return 0;
}

/* ---- Sentinel ---- */

/* Who one sentinel believes to be the master. */
static suspends int ask_sentinel(const struct redis_host *sentinel, SSL_CTX *tls, const char *master,
                                 struct redis_host *out, struct err *e)
{
    struct redis_conn *c;
    struct redis_reply *r = NULL;
    struct buf ask = {0};
    uint64_t port;
    if (open_host(sentinel, tls, &c, e) < 0)
        return -1;
    redis_command(&ask, (struct str[]){STR("SENTINEL"), STR("get-master-addr-by-name"), str_of(master)}, 3);
    int rc = send_all(c, buf_view(&ask), e);
    buf_fini(&ask);
    if (rc == 0)
        rc = next_reply(c, &r, e);
    if (rc == 0) {
        const struct redis_value *v = &r->value;
        if (v->type == REDIS_ARRAY && v->n == 2 && v->v[0].type == REDIS_STRING && v->v[1].type == REDIS_STRING &&
            v->v[0].s.n < sizeof out->name && str_to_u64(v->v[1].s, &port) && port - 1 < 65535) {
            str_copyz(out->name, sizeof out->name, v->v[0].s);
            out->port = (int)port;
        } else {
            rc = v->type == REDIS_ERROR ? refused(c, v, e) : away(e, c->peer, "this sentinel knows no such master");
        }
    }
    redis_reply_free(r);
    redis_conn_free(c);
    return rc;
}

/* A sentinel may not have noticed yet that the master was replaced: the server itself says what it is. */
static suspends int is_master(struct redis_conn *c, struct err *e)
{
    struct redis_reply *r = NULL;
    struct buf ask = {0};
    redis_command(&ask, (struct str[]){STR("ROLE")}, 1);
    int rc = send_all(c, buf_view(&ask), e);
    buf_fini(&ask);
    if (rc == 0)
        rc = next_reply(c, &r, e);
    if (rc == 0) {
        const struct redis_value *v = &r->value;
        if (v->type == REDIS_ERROR)
            rc = refused(c, v, e);
        else if (v->type != REDIS_ARRAY || !v->n || !str_eqz(redis_reply_text(&v->v[0]), "master"))
            rc = away(e, c->peer, "is not the master any more");
    }
    redis_reply_free(r);
    return rc;
}

/* ---- all of it ---- */

static suspends int open_once(const struct redis_url *url, SSL_CTX *tls, const struct redis_host *h,
                              struct redis_conn **out, struct err *e)
{
    struct redis_host master;
    struct redis_conn *c;
    if (url->path[0]) {
        c = conn_new();
        if (connect_unix(c, url->path, e) < 0) {
            redis_conn_free(c);
            return -1;
        }
    } else {
        if (url->master[0]) {
            if (ask_sentinel(h, tls, url->master, &master, e) < 0)
                return -1;
            h = &master;
        }
        if (open_host(h, tls, &c, e) < 0)
            return -1;
    }
    if (set_up(c, url, e) < 0 || (url->master[0] && is_master(c, e) < 0)) {
        redis_conn_free(c);
        return -1;
    }
    *out = c;
    return 0;
}

suspends int redis_conn_open(const struct redis_url *url, SSL_CTX *tls, int turn, struct redis_conn **out,
                             struct err *e)
{
    if (url->path[0])
        return open_once(url, NULL, NULL, out, e);
    for (int i = 0; i < url->n_host; i++)
        if (open_once(url, tls, &url->host[(turn + i) % url->n_host], out, e) == 0)
            return 0;
    return -1;
}
