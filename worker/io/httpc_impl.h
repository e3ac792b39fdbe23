/* What the files of io/httpc share. */
#pragma once
#include "common/buf.h"
#include "common/list.h"
#include "worker/fiber/loop.h"
#include "worker/io/httpc.h"
#include "worker/net/addr.h"
#include <curl/curl.h>

struct httpc {
    const struct config *cfg;
    struct net_network *allowed; /* outgoing.allow_networks */
    int n_allowed;
    CURLM *multi; /* made for the first request: TLS takes memory that a worker without one shall not need */
    CURLSH *share;
    struct event timer;
    struct list running; /* struct httpc_xfer */
    int n_running;
    struct fiber_queue room; /* fibers that wait for outgoing.max_requests */
    int refs;                /* the owner, and fibers at work with it */
    bool closing;
};

/* Where a request goes. */
struct httpc_target {
    struct str url;    /* in curl's normal form */
    struct str origin; /* scheme://host:port */
    struct str proxy;  /* "" = none */
    struct str pin;    /* for CURLOPT_RESOLVE; "" = nothing to resolve */
};

/* One exchange with one server. Callbacks of curl fill it; the fiber that owns it reads. */
struct httpc_xfer {
    struct list link;
    struct httpc *c;
    CURL *easy;           /* NULL: not begun, or the client was closed */
    struct fiber *waiter; /* parked, else NULL */
    struct buf in;        /* body that the fiber has not taken */
    size_t received, max;
    bool stream, public_only;
    bool headers; /* those of the answer are complete */
    bool done;
    bool paused;    /* the buffer of a stream is full */
    bool too_large; /* the answer exceeds `max` */
    bool refused;   /* the address is not public */
    CURLcode code;
    struct curl_slist *header, *pin;
    char problem[CURL_ERROR_SIZE];
};

/* httpc_target.c */
suspends int httpc_target_find(struct httpc *c, struct arena *a, struct str url, bool public_only,
                               struct httpc_target *out, struct err *e);
bool httpc_address_allowed(const struct httpc *c, const struct net_addr *a);

/* httpc_multi.c: hands a transfer to curl, and takes it back. Both may be called at any time outside of callbacks. */
must_use int httpc_multi_add(struct httpc_xfer *x, struct err *e);
void httpc_multi_remove(struct httpc_xfer *x);
void httpc_multi_free(struct httpc *c);
