/* What the files of io/redis share. */
#pragma once
#include "worker/fiber/loop.h"
#include "worker/io/redis.h"
#include <hiredis/hiredis.h>
#include <openssl/ssl.h>

/* ---- redis_url.c ---- */

enum { REDIS_HOSTS_MAX = 8 };
struct redis_host {
    char name[256]; /* or a literal address */
    int port;
};
struct redis_url {
    bool tls;
    struct redis_host host[REDIS_HOSTS_MAX]; /* with `master`: the sentinels */
    int n_host;
    char path[108]; /* unix socket, or "" */
    char user[128], password[512], master[128];
    int db;
};
/* Of cache.url and what stands beside it. The message never repeats a password. */
must_use int redis_url_parse(const struct config *cfg, struct redis_url *out, struct err *e);

/* ---- redis_reply.c: replies as hiredis' reader builds them, each in an arena of its own ---- */

struct redis_reply {
    struct arena a;
    struct redis_value value;
};
redisReader *redis_reader_new(void);
/* Takes what was received. 0, or -1: the stream is broken, or a reply larger than anybody keeps. */
must_use int redis_reader_feed(redisReader *reader, struct str bytes, struct err *e);
/* The next whole reply, *out = NULL if there is none yet; redis_reply_free() it. */
must_use int redis_reader_next(redisReader *reader, struct redis_reply **out, struct err *e);
void redis_reply_free(struct redis_reply *r);
/* "OK", an error's text, …: for messages to the operator. */
struct str redis_reply_text(const struct redis_value *v);
void redis_copy(struct arena *a, const struct redis_value *from, struct redis_value *to);
void redis_command(struct buf *out, const struct str *argv, size_t n); /* appends it as it is sent */

/* ---- redis_conn.c: a connection that is set up ---- */

struct redis_conn {
    int fd;
    SSL *tls; /* NULL: plain */
    redisReader *reader;
    char peer[320]; /* for messages */
};
must_use int redis_tls_new(const struct config *cfg, SSL_CTX **out, struct err *e);
/* Connects, asking the sentinels if there are any, and authenticates; the server has answered a PING. `turn` chooses the
 * host to begin with. Bounded by the fiber's deadline. */
suspends must_use int redis_conn_open(const struct redis_url *url, SSL_CTX *tls, int turn, struct redis_conn **out,
                                      struct err *e);
/* Bytes moved; 0: not now; -1: the connection is over, closed by the peer included. */
ssize_t redis_conn_read(struct redis_conn *c, char *to, size_t n, struct err *e);
ssize_t redis_conn_write(struct redis_conn *c, const char *from, size_t n, struct err *e);
void redis_conn_free(struct redis_conn *c); /* NULL accepted */
