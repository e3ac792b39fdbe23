/* The HTTP client: libcurl's multi interface on the worker's loop; the only user of libcurl. One instance a process.
 * Names are resolved by resolve.h, never by curl, so that nothing blocks and the address that was checked is the one
 * that is used. Proxies, a private CA file and networks that `public_only` may reach are the settings outgoing.*.
 * At most outgoing.max_requests are under way at once, open streams included; further ones wait within their time.
 *
 * Errors: ERR_VALIDATION for a URL that makes no sense or, with `public_only`, leads to an address that is not public;
 * ERR_NOT_READY when no connection came about or it broke before the answer was whole; ERR_DEADLINE, ERR_CANCELED;
 * ERR_TOO_LARGE when the answer exceeds `max_reply`. A status of 400 or more is an answer, no error. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"

struct httpc;

must_use int httpc_open(const struct config *cfg, struct httpc **out, struct err *e);
/* What httpc_open() would say about the settings. */
must_use int httpc_check(const struct config *cfg, struct err *e);
void httpc_close(struct httpc *c); /* what still runs gets ERR_CANCELED; NULL accepted */

struct httpc_header {
    const char *name;
    struct str value;
};
struct httpc_request {
    const char *method; /* "GET" */
    struct str url;     /* http:// or https:// */
    const struct httpc_header *header;
    size_t n_header;
    struct str
        body; /* sent with its length when n > 0 or the method is POST or PUT; stays until the call or stream ends */
    int64_t timeout_ms; /* of the whole exchange; the fiber's deadline also counts. For a stream: until its headers */
    int64_t idle_timeout_ms; /* of a stream: between two pieces; 0 = timeout_ms */
    size_t max_reply;        /* bytes of body; 0 = 64 MB */
    int max_redirects; /* 0: a redirect is the answer. Another server gets neither `header` nor a user of the URL */
    bool public_only;  /* refuse addresses that are not public, also after each redirect (SSRF) */
};
struct httpc_reply {
    int status;
    struct str body;         /* in the arena, NUL-terminated behind its length; "" for a stream */
    struct str content_type; /* "" = none */
    struct str url;          /* the last one, after redirects */
    int64_t retry_after_ms;  /* from Retry-After or retry-after-ms; -1 = none */
};
suspends must_use int httpc_do(struct httpc *c, struct arena *a, const struct httpc_request *q, struct httpc_reply *out,
                               struct err *e);

/* Whether a request to this URL with `public_only` would be sent at all, as far as can be told without sending it. */
suspends must_use int httpc_check_url(struct httpc *c, struct arena *a, struct str url, struct err *e);

/* The same with a body that is read piece by piece, with back-pressure: a server-sent stream, a large download. */
struct httpc_stream;
suspends must_use int httpc_stream_open(struct httpc *c, struct arena *a, const struct httpc_request *q,
                                        struct httpc_stream **s, struct httpc_reply *out, struct err *e);
/* The next bytes, valid until the next call; *n = 0 at the end. */
suspends must_use int httpc_stream_read(struct httpc_stream *s, struct str *piece, struct err *e);
void httpc_stream_close(struct httpc_stream *s); /* at any time; NULL accepted */
