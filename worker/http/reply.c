#include "worker/http/exchange.h"
#include "common/clock.h"
#include "worker/fiber/loop.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { QUEUE_MAX = 256 * 1024, QUEUE_LOW = 64 * 1024 };

static const struct status_line {
    int status;
    struct str line;
} status_lines[] = {
#define LINE(status, reason)                                                                         \
    {                                                                                                \
        status,                                                                                      \
        {                                                                                            \
            "HTTP/1.1 " #status " " reason "\r\n", sizeof("HTTP/1.1 " #status " " reason "\r\n") - 1 \
        }                                                                                            \
    }
    LINE(200, "OK"),
    LINE(201, "Created"),
    LINE(202, "Accepted"),
    LINE(204, "No Content"),
    LINE(206, "Partial Content"),
    LINE(301, "Moved Permanently"),
    LINE(302, "Found"),
    LINE(303, "See Other"),
    LINE(304, "Not Modified"),
    LINE(307, "Temporary Redirect"),
    LINE(308, "Permanent Redirect"),
    LINE(400, "Bad Request"),
    LINE(401, "Unauthorized"),
    LINE(403, "Forbidden"),
    LINE(404, "Not Found"),
    LINE(405, "Method Not Allowed"),
    LINE(406, "Not Acceptable"),
    LINE(408, "Request Timeout"),
    LINE(409, "Conflict"),
    LINE(411, "Length Required"),
    LINE(412, "Precondition Failed"),
    LINE(413, "Content Too Large"),
    LINE(414, "URI Too Long"),
    LINE(415, "Unsupported Media Type"),
    LINE(416, "Range Not Satisfiable"),
    LINE(417, "Expectation Failed"),
    LINE(422, "Unprocessable Content"),
    LINE(428, "Precondition Required"),
    LINE(429, "Too Many Requests"),
    LINE(431, "Request Header Fields Too Large"),
    LINE(500, "Internal Server Error"),
    LINE(501, "Not Implemented"),
    LINE(502, "Bad Gateway"),
    LINE(503, "Service Unavailable"),
    LINE(504, "Gateway Timeout"),
    LINE(505, "HTTP Version Not Supported"),
    LINE(507, "Insufficient Storage"),
#undef LINE
};

static void status_line(struct buf *b, int status)
{
    for (size_t i = 0; i < sizeof status_lines / sizeof *status_lines; i++)
        if (status_lines[i].status == status) {
            buf_str(b, status_lines[i].line);
            return;
        }
    buf_printf(b, "HTTP/1.1 %d Status\r\n", status);
}

/* Rendered once a second. */
static struct str date_line(void)
{
    static char line[] = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    static int64_t next_ns;
    if (loop_now() >= next_ns) {
        int64_t wall = clock_wall_us();
        clock_http_date(line + 6, wall);
        next_ns = loop_now() + (1000000 - wall % 1000000) * 1000;
    }
    return (struct str){line, sizeof line - 1};
}

/* ---- what handlers say ---- */

struct buf *reply_begin(struct request *r, int status, const char *type)
{
    struct reply *p = &exchange_of(r)->reply;
    assert(p->phase <= REPLY_BUILT);
    p->phase = REPLY_BUILT;
    p->status = status;
    p->type = type;
    p->body.n = 0;
    return &p->body;
}

static void add_clean(struct buf *b, struct str s)
{
    size_t from = b->n;
    buf_str(b, s);
    for (size_t i = from; i < b->n; i++)
        if (b->p[i] == '\r' || b->p[i] == '\n' || !b->p[i])
            b->p[i] = ' ';
}

void reply_header(struct request *r, struct str name, struct str value)
{
    struct buf *b = &exchange_of(r)->reply.fields;
    buf_str(b, name);
    buf_lit(b, ": ");
    add_clean(b, value);
    buf_lit(b, "\r\n");
}

void reply_etag(struct request *r, int64_t version)
{
    char etag[32];
    int n = snprintf(etag, sizeof etag, "\"v%lld\"", (long long)version);
    reply_header(r, STR("ETag"), (struct str){etag, (size_t)n});
}

bool reply_built(const struct request *r, int *status, struct str *type, struct str *body)
{
    const struct reply *p = &exchange_of(r)->reply;
    if (p->phase != REPLY_BUILT)
        return false;
    *status = p->status;
    *type = str_of(p->type);
    *body = buf_view(&p->body);
    return true;
}

struct str reply_header_value(const struct request *r, struct str name)
{
    struct str rest = buf_view(&exchange_of(r)->reply.fields);
    while (rest.n) {
        struct str value = str_cut(&rest, '\n'), key = str_cut(&value, ':');
        if (str_ieq(key, name))
            return str_sub(value, 1, value.n - 2); /* between ": " and CRLF */
    }
    return (struct str){NULL, 0};
}

void reply_reset(struct request *r)
{
    struct reply *p = &exchange_of(r)->reply;
    if (p->phase > REPLY_BUILT)
        return;
    p->phase = REPLY_NONE;
    p->body.n = p->fields.n = 0;
}

int reply_status(const struct request *r)
{
    return exchange_of(r)->reply.status;
}

int64_t reply_bytes(const struct request *r)
{
    return exchange_of(r)->reply.sent;
}

/* ---- the head ---- */

static bool bodyless(int status)
{
    return status == 204 || status == 304 || status < 200;
}

/* Also during server.shutdown_delay: who comes back then comes back to somebody else. */
static bool stopping(void)
{
    const struct scoreboard *sb = scoreboard_self();
    return sb && atomic_load_explicit(&sb->draining, memory_order_relaxed);
}

/* Length: >= 0 Content-Length, -1 none. One buffer for all: it is written or copied before anything can park. */
static struct str head(struct exchange *x, int64_t length)
{
    static struct buf b;
    struct reply *p = &x->reply;
    x->keep_alive &= !server()->draining && !stopping();
    b.n = 0;
    status_line(&b, p->status);
    buf_str(&b, date_line());
    if (p->type) {
        buf_lit(&b, "Content-Type: ");
        buf_str(&b, str_of(p->type));
        buf_lit(&b, "\r\n");
    }
    if (length >= 0) {
        buf_lit(&b, "Content-Length: ");
        buf_u64(&b, (uint64_t)length);
        buf_lit(&b, "\r\n");
    }
    if (p->chunked)
        buf_lit(&b, "Transfer-Encoding: chunked\r\n");
    buf_str(&b, buf_view(&p->fields));
    if (x->r.id[0]) {
        buf_lit(&b, "X-Request-Id: ");
        buf_str(&b, str_of(x->r.id));
        buf_lit(&b, "\r\n");
    }
    if (!x->keep_alive)
        buf_lit(&b, "Connection: close\r\n");
    else if (x->r.minor == 0)
        buf_lit(&b, "Connection: keep-alive\r\n");
    buf_lit(&b, "\r\n");
    return buf_view(&b);
}

/* ---- built replies ---- */

static void send_built(struct exchange *x)
{
    struct reply *p = &x->reply;
    struct net_conn *c = &x->conn->net;
    struct buf none = {0};
    bool no_body = bodyless(p->status);
    if (!body_settle(x))
        x->keep_alive = false;
    struct str h = head(x, no_body ? -1 : (int64_t)p->body.n);
    if (no_body || x->r.method == HTTP_HEAD) {
        net_write_buf(c, h, &none);
    } else {
        p->sent = (int64_t)p->body.n;
        net_write_buf(c, h, &p->body);
    }
    p->phase = REPLY_SENT;
}

static void end_stream(struct exchange *x)
{
    struct reply *p = &x->reply;
    struct iovec end = {(char *)"0\r\n\r\n", 5};
    bool complete = p->left <= 0 || x->r.method == HTTP_HEAD;
    if (!body_settle(x)) /* not before: a handler may read the body while it writes the reply */
        x->keep_alive = false;
    if (complete && p->chunked && x->r.method != HTTP_HEAD)
        complete = net_write(&x->conn->net, &end, 1) == 0;
    if (!complete) /* the length was promised: only a cut connection tells that it was not kept */
        x->keep_alive = false;
    p->phase = REPLY_SENT;
    conn_output(x->conn);
}

void reply_finish(struct request *r)
{
    struct exchange *x = exchange_of(r);
    if (x->reply.phase == REPLY_BUILT)
        send_built(x);
    else if (x->reply.phase == REPLY_STREAM)
        end_stream(x);
}

/* ---- streams ---- */

suspends int reply_stream(struct request *r, int status, const char *type, int64_t length, struct err *e)
{
    struct exchange *x = exchange_of(r);
    struct reply *p = &x->reply;
    struct buf none = {0};
    assert(p->phase <= REPLY_BUILT);
    p->phase = REPLY_STREAM;
    p->status = status;
    p->type = type;
    p->left = length;
    p->chunked = length < 0 && r->minor == 1;
    if (length < 0 && r->minor == 0)
        x->keep_alive = false;
    if (net_write_buf(&x->conn->net, head(x, length), &none) != 0)
        return err_set(e, ERR_CANCELED, "the client is gone");
    conn_output(x->conn);
    return 0;
}

int reply_put(struct exchange *x, const void *data, size_t n, struct err *e)
{
    struct reply *p = &x->reply;
    char size[24];
    assert(p->phase == REPLY_STREAM);
    if (!n || x->r.method == HTTP_HEAD)
        return 0;
    if (p->left >= 0) {
        assert((int64_t)n <= p->left);
        p->left -= (int64_t)n;
    }
    int len = snprintf(size, sizeof size, "%zx\r\n", n);
    struct iovec iov[3] = {{size, (size_t)len}, {(void *)data, n}, {(char *)"\r\n", 2}};
    int rc = p->chunked ? net_write(&x->conn->net, iov, 3) : net_write(&x->conn->net, iov + 1, 1);
    if (rc)
        return err_set(e, ERR_CANCELED, "the client is gone");
    p->sent += (int64_t)n;
    conn_output(x->conn);
    return 0;
}

suspends int reply_write(struct request *r, const void *data, size_t n, struct err *e)
{
    struct exchange *x = exchange_of(r);
    if (reply_put(x, data, n, e))
        return -1;
    if (net_queued(&x->conn->net) <= QUEUE_MAX)
        return 0;
    while (net_queued(&x->conn->net) > QUEUE_LOW)
        if (conn_wait(x, WAIT_OUTPUT, "the client to read its reply", e))
            return -1;
    return 0;
}
