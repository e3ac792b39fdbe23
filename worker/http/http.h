/* What a handler sees of HTTP: one request, its body as a stream, and the reply. A handler runs on a fiber of its own
 * and reads top to bottom; everything it allocates goes into the request's arena and ends with the request.
 *
 *     suspends int api_document_get(struct request *r, struct err *e)
 *     {
 *         struct store_document d;
 *         if (request_uuid(r, 0, &id, e) || STORE_CALL(r->app->store, document_get, &r->arena, &id, &d, e))
 *             return -1;
 *         struct buf *b = reply_begin(r, 200, "application/json");
 *         …write JSON into b…
 *         return 0;
 *     }
 *
 * Returning -1 discards what was begun, and worker/http/problem.c answers with the error. Returning 0 sends the reply. */
#pragma once
#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"
#include <sys/types.h>

struct app; /* the wiring of a worker: store, config, …; defined in worker/app.h, opaque to net and http */
struct http_conn;
struct route;

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_PATCH, HTTP_DELETE, HTTP_OPTIONS, HTTP_METHOD_COUNT };
struct str http_method_name(enum http_method m);

struct header {
    struct str name, value; /* value without surrounding white space; field order kept */
};

enum { REQUEST_PARAMS = 6 };

struct request {
    struct arena arena;
    struct app *app;
    const struct config *cfg;
    const struct route *route; /* NULL until routed */
    enum http_method method;
    int minor;                      /* HTTP/1.minor */
    struct str method_name, target; /* as sent */
    struct str path;                /* percent-decoded, without server.base_path; starts with '/' */
    struct str query;               /* raw, without '?' */
    struct header *header;
    size_t n_header;
    struct str param[REQUEST_PARAMS]; /* {names} of the route's path, in order, decoded */
    char id[129];                     /* request id: the client's X-Request-Id if it is acceptable, or made here */
    struct str client;                /* address of the client: the peer's, or what a trusted proxy says */
    int64_t start_ns;
    int64_t content_length; /* -1: none given (no body, or chunked) */
    bool chunked;
    struct http_conn *conn; /* private to worker/http and worker/net */
    void *priv;             /* private to worker/http */
};

/* ---- reading ---- */
struct str request_header(const struct request *r, struct str name); /* first of that name, or empty with p = NULL */
bool request_accepts(const struct request *r, struct str type);      /* Accept allows it (RFC 9110 section 12.5.1) */
/* Query parameter, decoded into the arena. false: absent. First of that name; ERR_BAD_REQUEST on a bad escape. */
bool request_query(struct request *r, struct str name, struct str *out);
/* All parameters must be among `allowed` (NULL-terminated names); else ERR_VALIDATION naming the stranger. */
must_use int request_query_only(struct request *r, const char *const *allowed, struct err *e);
must_use int request_query_int(struct request *r, const char *name, int64_t def, int64_t min, int64_t max, int64_t *out,
                               struct err *e);

/* Whether a body follows at all, and its media type without parameters, lower case. */
bool request_has_body(const struct request *r);
struct str request_media_type(struct request *r);

/* Reading the body and streaming the reply may go on at the same time in two fibers of one request: an import answers
 * the first lines while it still reads the last. */

/* Next bytes of the body: > 0 how many, 0 at its end, -1 with ERR_TIMEOUT, ERR_TOO_LARGE, ERR_BAD_REQUEST (bad chunk),
 * ERR_CANCELED (peer gone). Sends 100 Continue first where it is waited for. */
suspends must_use ssize_t body_read(struct request *r, void *buf, size_t cap, struct err *e);
/* The whole body, in the arena; ERR_TOO_LARGE beyond `max` (at once if Content-Length says so). */
suspends must_use int body_all(struct request *r, size_t max, struct str *out, struct err *e);
/* Reads the whole body into a spool of the request. From then on body_read() and all that build on it deliver it from
 * there, and from its start again after each body_rewind(). For Idempotency-Key, which must know the body before the
 * handler does. */
suspends must_use int body_spool(struct request *r, struct err *e);
void body_rewind(struct request *r);
/* Lowers or raises the bound of this body, which starts as limits.json_body; before the first read. */
void body_limit(struct request *r, int64_t max);

/* ---- multipart/form-data (RFC 7578), streamed ---- */
struct multipart;
struct multipart_part {
    struct str name, filename, content_type; /* filename.p NULL: absent; a path in it is reduced to its last part */
};
/* NULL with ERR_MEDIA_TYPE or ERR_BAD_REQUEST if the request is none. Belongs to the arena. */
struct multipart *multipart_open(struct request *r, struct err *e);
suspends must_use int multipart_next(struct multipart *m, struct multipart_part *out, bool *more, struct err *e);
suspends must_use ssize_t multipart_read(struct multipart *m, void *buf, size_t cap,
                                         struct err *e); /* 0: end of part */

/* A body or part collected: in memory up to 64 KB, beyond that in an unlinked temporary file. */
struct spool {
    struct buf mem;
    int fd; /* -1: all in mem */
    int64_t size;
};
void spool_init(struct spool *s, struct arena *a);                                            /* joins the arena */
suspends must_use int spool_add(struct spool *s, const void *p, size_t n, struct err *e);     /* ERR_STORAGE_FULL */
must_use int spool_read(struct spool *s, int64_t offset, void *buf, size_t n, struct err *e); /* exactly n bytes */

/* ---- replying ---- */
/* Begins a reply that is built in memory and sent with its length when the handler returns. The buffer is valid until
 * then; nothing else may write to it. 204 and 304 take no body (`type` NULL). */
struct buf *reply_begin(struct request *r, int status, const char *type);
void reply_header(
    struct request *r, struct str name,
    struct str
        value); /* before or after reply_begin, not while streaming; the value is copied; CR, LF and NUL become spaces */
void reply_etag(struct request *r, int64_t version); /* ETag: "v<version>" */
/* 304 for a GET or HEAD whose If-None-Match names the version: true, and the reply is complete. */
bool reply_not_modified(struct request *r, int64_t version);
/* If-Match: *version = the number in it, 0 if absent or `*`. ERR_VERSION on what can be none of ours. */
must_use int request_if_match(struct request *r, int64_t *version, struct err *e);

/* What the handler has built, before it is sent: for Idempotency-Key. false: nothing, or it was streamed. */
bool reply_built(const struct request *r, int *status, struct str *type, struct str *body);
struct str reply_header_value(const struct request *r, struct str name); /* as set above; p = NULL: not set */

/* Streams: length >= 0 is sent as Content-Length, -1 chunked (or until close for 1.0). Writing waits while the client
 * does not read: at most 256 KB are queued for it. A failure after this cannot become an error reply any more: the
 * connection is closed. HEAD: the head is sent, writes are swallowed. */
suspends must_use int reply_stream(struct request *r, int status, const char *type, int64_t length, struct err *e);
suspends must_use int reply_write(struct request *r, const void *p, size_t n, struct err *e);

/* Bytes of known size read piecewise, with Range, If-Range and conditional requests (RFC 9110 sections 13 and 14): one
 * range → 206, several → the whole, none satisfiable → 416. `read` delivers exactly n bytes at offset. */
struct reply_source {
    int64_t size;
    struct str etag; /* with quotes */
    int64_t modified_us;
    const char *type;
    suspends int (*read)(void *arg, int64_t offset, void *buf, size_t n, struct err *e);
    void *arg;
};
suspends must_use int reply_range(struct request *r, const struct reply_source *src, struct err *e);

/* Server-sent events. Comments every 15 s keep proxies patient. */
suspends must_use int sse_begin(struct request *r, struct err *e);
suspends must_use int sse_send(struct request *r, const char *event, const char *id, struct str data, struct err *e);
/* Waits up to `ns` while sending pings; -1 with ERR_CANCELED when the client left or the worker drains. */
suspends must_use int sse_wait(struct request *r, int64_t ns, struct err *e);
/* Runs `fn`, which begins and sends events, on a fiber of its own, pings while it waits for somebody else, and cancels it
 * when the client has gone. Until it begins it has the deadline of the request. Returns what it returned. */
suspends must_use int sse_run(struct request *r, int (*fn)(void *arg, struct err *e), void *arg, struct err *e);

/* ---- routes ---- */
typedef int handler_fn(struct request *r, struct err *e); /* the one typedef: routes.def names many */
enum route_access { ACCESS_OPEN, ACCESS_READ, ACCESS_WRITE, ACCESS_ADMIN };
enum route_body {
    BODY_NONE,
    BODY_JSON,
    BODY_UPLOAD,
    BODY_STREAM
}; /* default bound: 0, limits.json_body, limits.upload + 1 MB, none */
struct route {
    enum http_method method;
    const char *path; /* "/api/v1/documents/{document}/content" */
    enum route_access access;
    enum route_body body;
    bool idempotent_key; /* Idempotency-Key is honoured */
    handler_fn *handler;
    const char *name; /* of the handler: operationId, metrics label */
    const char *summary;
};
/* The table of worker/routes.def, and the router over it. Index 0 of statistics is "no route", i + 1 is routes[i]. */
struct router;
struct router *router_new(const struct route *routes, size_t n);
void router_free(struct router *r);
/* The route, with `param` filled with slices of `path`. NULL: *allow is a bit set (1 << method) of the methods that
 * the path does have: 0 → 404, else 405. HEAD falls back to GET. */
const struct route *router_find(const struct router *r, enum http_method m, struct str path, struct str *param,
                                unsigned *allow);
/* Until a request is routed, a slash that was percent-encoded separates nothing: it stands as the byte 1 in r->path and
 * what is cut from it. This makes slashes of them (a copy in the arena, if there are any). */
struct str path_decoded(struct request *r, struct str s);

/* ---- the server, for worker/role_http.c ---- */
struct http_server_ops {
    /* A request's head is complete: answer it. Runs on the request's fiber; see worker/dispatch.c. */
    suspends void (*request)(struct request *r);
};
struct http_server;
struct heritage;
must_use int http_server_start(const struct heritage *h, struct app *app, const struct http_server_ops *ops,
                               struct http_server **out, struct err *e);
must_use int http_server_open(struct http_server *s, struct err *e); /* accepts from now on */
void http_server_adopt(struct http_server *s, int fd);               /* serves this connection, too; owns `fd` */
/* Stops accepting after what the kernel has queued, closes idle connections, answers with Connection: close from now on. */
void http_server_drain(struct http_server *s);
void http_server_reconfigure(struct http_server *s); /* its cfg has changed */
bool http_server_idle(const struct http_server *s);  /* no connection left */
void http_server_close_all(struct http_server *s);   /* cancels every request */
void http_server_free(struct http_server *s);

/* Used by dispatch: sends what the handler built, or the problem document for an error (a reply that was begun is
 * discarded; one that is on its way can only be cut off). Headers set before reply_problem() are sent along. */
void reply_finish(struct request *r);
void reply_problem(struct request *r, const struct err *e);
void reply_reset(struct request *r);                /* forgets what was begun, headers included */
int64_t request_waited_ns(const struct request *r); /* for its client: to send the body, to take the answer */
int reply_status(const struct request *r);          /* 0: none yet */
int64_t reply_bytes(const struct request *r);       /* of its body, sent or queued */
