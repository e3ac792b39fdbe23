/* Requests and streams. A transfer belongs to one fiber: it sets it up, hands it to curl (httpc_multi.c), parks until the
 * callbacks below have filled it, and takes it back. */
#include "worker/io/httpc_impl.h"
#include "common/clock.h"
#include "common/scoreboard.h"
#include "version.h"
#include "worker/io/resolve.h"
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MAX_REPLY_DEFAULT = 64 << 20,
    STREAM_BUFFER = 256 << 10, /* a stream whose reader is slower than the network is paused at this */
    RETRY_AFTER_MAX_MS = 24 * 3600 * 1000
};

int httpc_check(const struct config *cfg, struct err *e)
{
    const char *file = cfg->outgoing_ca_file;
    if (!*file)
        return 0;
    if (access(file, R_OK) != 0) {
        int no = errno;
        return err_set(e, ERR_VALIDATION, "outgoing.ca_file: %.200s: %s", file, strerror(no));
    }
    X509_STORE *store = X509_STORE_new();
    bool good = store && X509_STORE_load_file(store, file) == 1;
    X509_STORE_free(store);
    ERR_clear_error();
    return good ? 0 : err_set(e, ERR_VALIDATION, "outgoing.ca_file: %.200s holds no certificates in PEM", file);
}

int httpc_open(const struct config *cfg, struct httpc **out, struct err *e)
{
    const struct config_list *l = &cfg->outgoing_allow_networks;
    if (httpc_check(cfg, e))
        return -1;
    struct httpc *c = calloc(1, sizeof *c);
    if (c)
        c->allowed = calloc((size_t)l->n + 1, sizeof *c->allowed);
    if (!c || !c->allowed)
        abort();
    for (int i = 0; i < l->n; i++)
        if (net_network_parse(str_of(l->v[i]), &c->allowed[c->n_allowed]))
            c->n_allowed++;
    c->cfg = cfg;
    c->refs = 1;
    list_init(&c->running);
    fiber_queue_init(&c->room);
    resolve_init(cfg);
    *out = c;
    return 0;
}

static void release(struct httpc *c)
{
    if (--c->refs > 0)
        return;
    free(c->allowed);
    free(c);
}

void httpc_close(struct httpc *c)
{
    if (!c)
        return;
    c->closing = true;
    while (!list_empty(&c->running)) {
        struct httpc_xfer *x = list_entry(c->running.next, struct httpc_xfer, link);
        httpc_multi_remove(x);
        if (x->waiter)
            fiber_wake(x->waiter);
    }
    fiber_queue_wake_all(&c->room);
    httpc_multi_free(c);
    release(c);
}

/* ---- callbacks of curl ---- */

static void tell(struct httpc_xfer *x)
{
    if (x->waiter)
        fiber_wake(x->waiter);
}

static size_t on_body(char *p, size_t one, size_t n, void *arg)
{
    struct httpc_xfer *x = arg;
    if (x->stream && x->in.n >= STREAM_BUFFER) {
        x->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    if (n > x->max - x->received) {
        x->too_large = true;
        return 0;
    }
    x->received += n;
    buf_add(&x->in, p, n);
    if (x->stream)
        tell(x);
    return n * one;
}

/* The empty line ends the headers; those of 1xx, and of a proxy's answer to CONNECT, are not the last. */
static size_t on_header(char *p, size_t one, size_t n, void *arg)
{
    struct httpc_xfer *x = arg;
    long status = 0;
    if (n <= 2 && (p[0] == '\r' || p[0] == '\n')) {
        curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
        x->headers = status >= 200;
        if (x->stream && x->headers)
            tell(x);
    }
    return n * one;
}

/* The last word on where a connection goes: whatever was looked up before, this is the address itself. */
static curl_socket_t on_connect(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    const struct httpc_xfer *x = arg;
    struct net_addr a = net_addr_of(&to->addr);
    (void)purpose;
    if (x->public_only && !httpc_address_allowed(x->c, &a)) {
        ((struct httpc_xfer *)arg)->refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* ---- setting up ---- */

static int add_header(struct httpc_xfer *x, struct arena *a, const char *name, struct str value, struct err *e)
{
    for (size_t i = 0; i < value.n; i++)
        if ((unsigned char)value.p[i] < ' ' && value.p[i] != '\t')
            return err_set(e, ERR_VALIDATION, "a header of an outgoing request contains control characters");
    struct curl_slist *l =
        curl_slist_append(x->header, arena_printf(a, value.n ? "%s: " STR_FMT : "%s;", name, STR_ARG(value)).p);
    if (!l)
        abort();
    x->header = l;
    return 0;
}

static int set_headers(struct httpc_xfer *x, struct arena *a, const struct httpc_request *q, bool home, struct err *e)
{
    static const char *const unwanted[] = {"Expect:", "Content-Type:"}; /* what curl adds by itself to a body */
    bool typed = false;
    for (size_t i = 0; home && i < q->n_header; i++) {
        typed |= str_ieq(str_of(q->header[i].name), STR("content-type"));
        if (add_header(x, a, q->header[i].name, q->header[i].value, e))
            return -1;
    }
    for (int i = 0; i < 2 - typed; i++) {
        struct curl_slist *l = curl_slist_append(x->header, unwanted[i]);
        if (!l)
            abort();
        x->header = l;
    }
    curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, x->header);
    return 0;
}

static void set_method(CURL *easy, const char *method, struct str body)
{
    bool posts = strcmp(method, "POST") == 0;
    if (strcmp(method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
        return;
    }
    if (body.n || posts || strcmp(method, "PUT") == 0) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.n);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body.p ? body.p : "");
    }
    if (!posts && strcmp(method, "GET") != 0)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
}

static void set_target(struct httpc_xfer *x, const struct httpc_target *t)
{
    CURL *easy = x->easy;
    const struct config *cfg = x->c->cfg;
    curl_easy_setopt(easy, CURLOPT_URL, t->url.p);
    curl_easy_setopt(easy, CURLOPT_PROXY, t->proxy.n ? t->proxy.p : ""); /* "": not from the environment either */
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
    if (t->pin.n) {
        x->pin = curl_slist_append(NULL, t->pin.p);
        if (!x->pin)
            abort();
        curl_easy_setopt(easy, CURLOPT_RESOLVE, x->pin);
    }
    if (*cfg->outgoing_ca_file) { /* and no other: curl would add the system's directory */
        curl_easy_setopt(easy, CURLOPT_CAINFO, cfg->outgoing_ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
        curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, cfg->outgoing_ca_file);
        curl_easy_setopt(easy, CURLOPT_PROXY_CAPATH, NULL);
    }
    if (x->public_only && !t->proxy.n) { /* never a connection that was made for somebody with more rights */
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
        curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    }
    x->public_only &= !t->proxy.n; /* the connection is to the proxy */
}

static void set_rest(struct httpc_xfer *x)
{
    CURL *easy = x->easy;
    const struct config *cfg = x->c->cfg;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, x);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, x->problem);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "ragd/" RAGD_VERSION);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)cfg->outgoing_connect_timeout);
    if (!x->stream) /* what waits in curl for a reader is bounded only without */
        curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    if (cfg->outgoing_keepalive)
        curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)(cfg->outgoing_keepalive + 999) / 1000);
    else
        curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_connect);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, x);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
}

static struct httpc_xfer *xfer_new(struct httpc *c, const struct httpc_request *q, bool stream)
{
    struct httpc_xfer *x = calloc(1, sizeof *x);
    if (!x || !(x->easy = curl_easy_init()))
        abort();
    list_init(&x->link);
    x->c = c;
    x->max = q->max_reply ? q->max_reply : MAX_REPLY_DEFAULT;
    x->stream = stream;
    x->public_only = q->public_only;
    c->refs++;
    c->n_running++;
    STAT_ADD(outgoing_requests, 1);
    return x;
}

static void xfer_free(struct httpc_xfer *x)
{
    struct httpc *c = x->c;
    httpc_multi_remove(x);
    curl_slist_free_all(x->header);
    curl_slist_free_all(x->pin);
    buf_fini(&x->in);
    free(x);
    c->n_running--;
    STAT_SUB(outgoing_requests, 1);
    fiber_queue_wake_one(&c->room);
    release(c);
}

/* ---- waiting ---- */

static int gave_up(int rc, struct err *e)
{
    if (rc == -ETIMEDOUT)
        return err_set(e, ERR_DEADLINE, "a server did not answer in time");
    return err_set(e, ERR_CANCELED, "canceled");
}

/* What an operator can do about a certificate whose signer is not trusted; "" for everything else. */
static const char *remedy(const struct httpc_xfer *x)
{
    long verdict = 0;
    curl_easy_getinfo(x->easy, CURLINFO_SSL_VERIFYRESULT, &verdict);
    if (x->code == CURLE_SSL_CACERT_BADFILE)
        return "; see outgoing.ca_file";
    if (x->code != CURLE_PEER_FAILED_VERIFICATION)
        return "";
    switch (verdict) {
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: return "; outgoing.ca_file names the authorities to trust";
    default: return "";
    }
}

/* Why it ended without a whole answer. What names hosts is for the operator. */
static int failed(const struct httpc_xfer *x, struct err *e)
{
    curl_off_t connected = 0;
    char *url = NULL;
    STAT_ADD(outgoing_errors_total, 1);
    if (x->refused)
        return err_set(e, ERR_VALIDATION, "the URL leads to an address that is not public");
    if (x->too_large)
        return err_set(e, ERR_TOO_LARGE, "the answer of a server is larger than %zu bytes", x->max);
    curl_easy_getinfo(x->easy, CURLINFO_CONNECT_TIME_T, &connected);
    curl_easy_getinfo(x->easy, CURLINFO_EFFECTIVE_URL, &url);
    if (x->code == CURLE_OPERATION_TIMEDOUT && connected)
        err_set(e, ERR_DEADLINE, "a server did not answer in time");
    else
        err_set(e, ERR_NOT_READY, "no whole answer from another server: %s", curl_easy_strerror(x->code));
    struct str where = str_of(url ? url : "");
    for (size_t i = 8; i < where.n; i++) /* the path may be long, and tell more than the place */
        if (where.p[i] == '/' || where.p[i] == '?')
            where.n = i;
    for (size_t i = where.n; i > 0; i--) /* user and password */
        if (where.p[i - 1] == '@') {
            where = str_sub(where, i, SIZE_MAX);
            break;
        }
    return err_log(e, STR_FMT ": %s%s", STR_ARG(where), *x->problem ? x->problem : curl_easy_strerror(x->code),
                   remedy(x));
}

/* Until the transfer is done or, of a stream, until `enough`. */
static suspends int wait_for(struct httpc_xfer *x, bool (*enough)(const struct httpc_xfer *), struct err *e)
{
    int rc = 0;
    while (rc == 0 && x->easy && !x->done && !enough(x)) {
        x->waiter = fiber_self();
        rc = fiber_park("HTTP answer");
        x->waiter = NULL;
    }
    if (!x->easy)
        return gave_up(-ECANCELED, e);
    if (x->done && x->code != CURLE_OK && (!enough(x) || x->too_large))
        return failed(x, e);
    return rc < 0 && !x->done && !enough(x) ? gave_up(rc, e) : 0;
}

static bool never(const struct httpc_xfer *x)
{
    (void)x;
    return false;
}

static bool has_headers(const struct httpc_xfer *x)
{
    return x->headers;
}

static bool has_body(const struct httpc_xfer *x)
{
    return x->in.n > 0;
}

/* The earlier of the fiber's deadline and `ms` from now; returns what was before, to be set again. */
static int64_t narrow_deadline(int64_t ms)
{
    int64_t before = fiber_deadline(fiber_self()), within = clock_ns() + ms * MS;
    if (ms > 0 && (!before || before > within))
        fiber_set_deadline(fiber_self(), within);
    return before;
}

/* ---- one exchange ---- */

static int64_t retry_after(CURL *easy)
{
    struct curl_header *h;
    int64_t ms = -1, at;
    uint64_t v;
    if (curl_easy_header(easy, "retry-after-ms", 0, CURLH_HEADER, -1, &h) == CURLHE_OK &&
        str_to_u64(str_of(h->value), &v))
        ms = v < RETRY_AFTER_MAX_MS ? (int64_t)v : RETRY_AFTER_MAX_MS;
    else if (curl_easy_header(easy, "retry-after", 0, CURLH_HEADER, -1, &h) != CURLHE_OK)
        return -1;
    else if (str_to_u64(str_of(h->value), &v))
        ms = v < RETRY_AFTER_MAX_MS / 1000 ? (int64_t)v * 1000 : RETRY_AFTER_MAX_MS;
    else if (clock_parse_http_date(h->value, strlen(h->value), &at) == 0)
        ms = (at - clock_wall_us()) / 1000;
    else
        return -1;
    return ms < 0 ? 0 : ms < RETRY_AFTER_MAX_MS ? ms : RETRY_AFTER_MAX_MS;
}

static void read_reply(struct httpc_xfer *x, struct arena *a, struct httpc_reply *out)
{
    long status = 0;
    char *type = NULL, *url = NULL;
    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(x->easy, CURLINFO_CONTENT_TYPE, &type);
    curl_easy_getinfo(x->easy, CURLINFO_EFFECTIVE_URL, &url);
    *out = (struct httpc_reply){.status = (int)status,
                                .content_type = arena_dup(a, str_of(type ? type : "")),
                                .url = arena_dup(a, str_of(url ? url : "")),
                                .retry_after_ms = retry_after(x->easy)};
}

static suspends int begin(struct httpc *c, struct arena *a, const struct httpc_request *q, bool stream, bool home,
                          const struct httpc_target *t, struct httpc_xfer **out, struct err *e)
{
    while (!c->closing && c->n_running >= c->cfg->outgoing_max_requests) {
        int rc = fiber_queue_wait(&c->room, "outgoing.max_requests");
        if (rc < 0) {
            fiber_queue_wake_one(&c->room); /* the turn may have been this one's */
            return gave_up(rc, e);
        }
    }
    if (c->closing)
        return gave_up(-ECANCELED, e);
    struct httpc_xfer *x = xfer_new(c, q, stream);
    set_rest(x);
    set_target(x, t);
    set_method(x->easy, q->method, q->body);
    if (!stream && q->timeout_ms > 0) /* ends also what a fiber waits for that is shielded */
        curl_easy_setopt(x->easy, CURLOPT_TIMEOUT_MS, (long)q->timeout_ms);
    if (set_headers(x, a, q, home, e) || httpc_multi_add(x, e)) {
        xfer_free(x);
        return -1;
    }
    STAT_ADD(outgoing_requests_total, 1);
    *out = x;
    return 0;
}

/* What the next request looks like, when the answer is a redirect that may be followed. */
static bool follow(const struct httpc_xfer *x, struct arena *a, int status, struct httpc_request *q)
{
    char *to = NULL;
    bool rewrite = status == 303 || ((status == 301 || status == 302) && strcmp(q->method, "POST") == 0);
    if (status < 301 || status > 308 || (status > 303 && status < 307) || q->max_redirects < 1)
        return false;
    curl_easy_getinfo(x->easy, CURLINFO_REDIRECT_URL, &to);
    if (!to)
        return false;
    q->url = arena_dup(a, str_of(to));
    q->max_redirects--;
    if (rewrite) {
        q->method = strcmp(q->method, "HEAD") == 0 ? "HEAD" : "GET";
        q->body = (struct str){0};
    }
    return true;
}

/* From redirect to redirect, each address checked anew, until there is an answer: all of it, or a stream's headers. */
static suspends int exchange(struct httpc *c, struct arena *a, const struct httpc_request *asked, bool stream,
                             struct httpc_xfer **out, struct httpc_reply *reply, struct err *e)
{
    struct httpc_request q = *asked;
    struct str first = {0};
    for (;;) {
        struct httpc_target t;
        struct httpc_xfer *x = NULL;
        struct httpc_reply r;
        if (httpc_target_find(c, a, q.url, q.public_only, &t, e))
            return -1;
        if (!first.p)
            first = t.origin;
        if (begin(c, a, &q, stream, str_ieq(first, t.origin), &t, &x, e))
            return -1;
        if (wait_for(x, stream ? has_headers : never, e)) {
            xfer_free(x);
            return -1;
        }
        read_reply(x, a, &r);
        if (!follow(x, a, r.status, &q)) {
            *out = x;
            *reply = r;
            return 0;
        }
        xfer_free(x);
    }
}

suspends int httpc_do(struct httpc *c, struct arena *a, const struct httpc_request *q, struct httpc_reply *out,
                      struct err *e)
{
    struct httpc_xfer *x = NULL;
    int64_t before = narrow_deadline(q->timeout_ms);
    c->refs++;
    int rc = exchange(c, a, q, false, &x, out, e);
    fiber_set_deadline(fiber_self(), before);
    if (rc == 0) {
        buf_ch(&x->in, 0);
        out->body = (struct str){arena_own(a, x->in.p, free), x->in.n - 1};
        x->in = (struct buf){0};
        xfer_free(x);
    }
    release(c);
    return rc;
}

/* ---- streams ---- */

struct httpc_stream {
    struct httpc_xfer *x;
    struct buf piece; /* what the reader has */
    int64_t idle_ms;
};

suspends int httpc_stream_open(struct httpc *c, struct arena *a, const struct httpc_request *q,
                               struct httpc_stream **out, struct httpc_reply *reply, struct err *e)
{
    struct httpc_xfer *x = NULL;
    int64_t before = narrow_deadline(q->timeout_ms);
    c->refs++;
    int rc = exchange(c, a, q, true, &x, reply, e);
    fiber_set_deadline(fiber_self(), before);
    if (rc == 0) {
        struct httpc_stream *s = calloc(1, sizeof *s);
        if (!s)
            abort();
        *s = (struct httpc_stream){.x = x, .idle_ms = q->idle_timeout_ms ? q->idle_timeout_ms : q->timeout_ms};
        reply->body = STR("");
        *out = s;
    }
    release(c);
    return rc;
}

suspends int httpc_stream_read(struct httpc_stream *s, struct str *piece, struct err *e)
{
    struct httpc_xfer *x = s->x;
    s->piece.n = 0;
    if (!x->in.n && x->paused && x->easy) {
        x->paused = false;
        curl_easy_pause(x->easy, CURLPAUSE_CONT);
    }
    int64_t before = narrow_deadline(s->idle_ms);
    int rc = wait_for(x, has_body, e);
    fiber_set_deadline(fiber_self(), before);
    if (rc)
        return -1;
    struct buf taken = x->in;
    x->in = s->piece;
    s->piece = taken;
    *piece = buf_view(&s->piece);
    return 0;
}

void httpc_stream_close(struct httpc_stream *s)
{
    if (!s)
        return;
    xfer_free(s->x);
    buf_fini(&s->piece);
    free(s);
}
