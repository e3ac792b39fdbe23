/* Private to worker/http: a connection that speaks HTTP, and the exchange of one request and its reply on it.
 *
 * conn.c drives the connection from events: heads in, one exchange at a time, timeouts, the end. Each exchange has a
 * fiber; body.c and reply.c run on it. An event callback never touches the exchange, it only wakes its fiber. */
#pragma once
#include "worker/http/http.h"
#include "worker/http/chunked.h"
#include "worker/http/parser.h"
#include "worker/net/accept.h"
#include "worker/net/conn.h"

/* IDLE    between requests; nothing of the next has arrived
 * HEAD    a part of a head has arrived, or a complete one waits for its turn
 * BUSY    a fiber works on the exchange
 * FLUSH   the exchange is over, its reply is still queued
 * LINGER  nothing more is answered; what the client still sends is thrown away, so that it reads the reply
 * CLOSED  waits for the end of the turn */
#define CONN_STATES(X) X(IDLE) X(HEAD) X(BUSY) X(FLUSH) X(LINGER) X(CLOSED)
enum conn_state {
#define X(name) CONN_##name,
    CONN_STATES(X)
#undef X
};

/* Every connection is in exactly one of these lists of net/timeouts.h. */
enum conn_list {
    LIST_IDLE,        /* http.keepalive_timeout → closed */
    LIST_HEAD,        /* http.header_timeout → 408 */
    LIST_BODY,        /* http.body_timeout → the reader gets ERR_TIMEOUT */
    LIST_WRITE,       /* http.write_timeout → cut off */
    LIST_HALF_CLOSED, /* the client has finished sending and waits, or is gone → canceled */
    LIST_LINGER,      /* → closed */
    LIST_BUSY,        /* no limit: the request has its own deadline */
    LIST_FRESH,       /* in a drain, accepted or just answered: a request may be on the way; then closed */
    LIST_LEAVING,     /* a drain found it between requests: closed at its point of time, not with all others at once */
    LIST_AGAIN,       /* no limit: has input and gets its turn in the next round */
    LISTS
};

struct http_conn {
    struct net_conn net;
    struct exchange *x; /* while BUSY */
    union {
        struct parser parser;
        struct loop_dead dead; /* when CLOSED */
    };
    uint8_t state, list;
    bool fresh;  /* no request has come yet */
    bool close;  /* after what is queued */
    bool linger; /* the client may still be sending a body that nobody wants */
};

enum exchange_wait { WAIT_INPUT, WAIT_OUTPUT, WAIT_EVENT, WAITS };
enum reply_phase { REPLY_NONE, REPLY_BUILT, REPLY_STREAM, REPLY_SENT };

struct body {
    int64_t left; /* of a body of known length */
    int64_t limit, got;
    struct chunked chunked;
    bool expect;         /* the client waits for 100 Continue */
    bool done, failed;   /* failed: nothing more can be read, and the connection must end */
    bool settle_waiting; /* a small rest is read after the reply */
    struct spool *spool; /* body_spool(): the whole body, read again from `at` */
    int64_t at;
};

struct reply {
    enum reply_phase phase;
    int status;
    const char *type;
    struct buf body, fields; /* fields: complete header lines */
    int64_t left;            /* stream of known length: what is still to come; -1: unknown */
    int64_t sent;            /* bytes of body, for the log */
    int64_t ping_ns;         /* server-sent events: when the next ping is due */
    bool chunked;
};

struct exchange {
    struct request r; /* first: r->priv points here as well */
    struct http_conn *conn;
    struct fiber *fiber;
    struct fiber *waiter[WAITS]; /* who waits for each, or NULL; most requests have one fiber only */
    int64_t waited_ns;           /* for the client */
    bool timed_out;              /* LIST_BODY expired while the fiber waited */
    bool keep_alive;             /* as far as request and errors decide */
    bool rejected;               /* `error` is answered without asking anybody */
    struct body body;
    struct reply reply;
    char client[NET_ADDR_TEXT];
    struct exchange *next; /* in the pool */
    struct err error;
};

struct http_server {
    const struct config *cfg;
    struct app *app;
    const struct http_server_ops *ops;
    struct acceptor acceptor;
    struct timeouts timeouts;
    struct timeout_list lists[LISTS];
    struct parser_limits limits;
    struct event again; /* for LIST_AGAIN */
    struct net_network *proxies;
    int n_proxies;
    bool draining;
    int64_t drain_ns;       /* when the drain began */
    size_t leaving, spread; /* idle connections that have their point of time, and the number of such points */
};

/* ---- server.c ---- */
struct http_server *server(void); /* of this worker */
struct exchange *exchange_new(struct http_conn *c);
void exchange_free(struct exchange *x);
static inline struct exchange *exchange_of(const struct request *r)
{
    return r->priv;
}

/* ---- conn.c ---- */
void conn_accepted(void *arg, int fd, const struct net_addr *peer);
void conn_expired(void *arg, struct timeout *t, int list);
void conn_again(evutil_socket_t fd, short what, void *arg);
void conn_drain(struct http_conn *c); /* an idle one is closed soon */
void conn_abort(struct http_conn *c); /* closes at once, or cancels the fiber and closes after it */
static inline struct http_conn *conn_of_timeout(struct timeout *t)
{
    return list_entry(t, struct http_conn, net.timeout);
}
/* Parks the calling fiber until the peer does what is waited for. Time spent so does not count against the request's
 * deadline: slowness of the peer has limits of its own. ERR_CANCELED, ERR_TIMEOUT, ERR_DEADLINE. */
suspends must_use int conn_wait(struct exchange *x, enum exchange_wait what, const char *why, struct err *e);
/* Parks until the absolute time, or until the client goes or the server drains. ERR_CANCELED when cancelled. */
suspends must_use int conn_wait_until(struct exchange *x, int64_t ns, const char *why, struct err *e);
void conn_output(struct http_conn *c); /* after net_write: watches over what is queued */

/* ---- reply.c ---- */
/* Queues a piece of a stream without waiting for the client to take it. */
must_use int reply_put(struct exchange *x, const void *data, size_t n, struct err *e);

/* ---- request.c ---- */
void request_make_id(char *out);
/* Everything of `r` that follows from the head; target, path and query are checked and decoded. */
must_use int request_fill(struct request *r, struct head *h, struct err *e);
enum { PATH_SLASH = 1 }; /* see path_decoded() */

/* ---- proxy.c ---- */
must_use int proxy_init(struct http_server *s, struct err *e);
void proxy_client(const struct http_server *s, struct request *r, const struct net_addr *peer, char *text);

/* ---- body.c ---- */
void body_begin(struct exchange *x, const struct head *h);
/* Before the reply's head: can the connection go on after this body? Throws away what has arrived of it. */
bool body_settle(struct exchange *x);
suspends void body_settle_rest(struct exchange *x); /* after the reply */
