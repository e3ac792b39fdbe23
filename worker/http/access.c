#include "worker/http/access.h"
#include "common/clock.h"
#include "common/log.h"
#include "worker/fiber/loop.h"
#include "worker/io/json.h"
#include <stdio.h>
#include <time.h>

enum { VALUE_MAX = 1024 };

static struct buf line; /* reused for every line */

/* "[22/Nov/2026:07:17:48 +0000]", rendered once a second. */
static struct str clf_time(void)
{
    static char text[40];
    static size_t n;
    static int64_t next_ns;
    if (loop_now() >= next_ns) {
        int64_t wall = clock_wall_us();
        time_t sec = (time_t)(wall / 1000000);
        struct tm tm;
        gmtime_r(&sec, &tm);
        n = strftime(text, sizeof text, "[%d/%b/%Y:%H:%M:%S +0000]", &tm);
        next_ns = loop_now() + (1000000 - wall % 1000000) * 1000;
    }
    return (struct str){text, n};
}

/* Between double quotes: controls, quotes, backslashes and bytes beyond ASCII as \xHH. */
static void clf_quoted(struct buf *b, struct str s)
{
    static const char digits[] = "0123456789abcdef";
    s = str_sub(s, 0, VALUE_MAX);
    size_t from = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= ' ' && c < 0x7f && c != '"' && c != '\\')
            continue;
        char esc[4] = {'\\', 'x', digits[c >> 4], digits[c & 15]};
        buf_add(b, s.p + from, i - from);
        buf_add(b, esc, sizeof esc);
        from = i + 1;
    }
    buf_add(b, s.p + from, s.n - from);
}

static void clf_field(struct buf *b, struct str s)
{
    buf_lit(b, " \"");
    if (s.n)
        clf_quoted(b, s);
    else
        buf_ch(b, '-');
    buf_ch(b, '"');
}

static void clf(struct buf *b, const struct request *r, int64_t us)
{
    buf_str(b, r->client);
    buf_lit(b, " - - ");
    buf_str(b, clf_time());
    buf_lit(b, " \"");
    clf_quoted(b, r->method_name);
    buf_ch(b, ' ');
    clf_quoted(b, r->target);
    buf_add(b, r->minor ? " HTTP/1.1\" " : " HTTP/1.0\" ", 11);
    buf_u64(b, (uint64_t)reply_status(r));
    buf_ch(b, ' ');
    buf_u64(b, (uint64_t)reply_bytes(r));
    clf_field(b, request_header(r, STR("referer")));
    clf_field(b, request_header(r, STR("user-agent")));
    buf_ch(b, ' ');
    buf_str(b, r->id[0] ? str_of(r->id) : STR("-"));
    buf_ch(b, ' ');
    buf_u64(b, (uint64_t)us);
}

static void json(struct buf *b, const struct request *r, int64_t us)
{
    struct json_out o = json_out(b);
    jo_begin(&o, '{');
    jo_member(&o, "ts");
    jo_time(&o, clock_wall_us());
    jo_member(&o, "client");
    jo_str(&o, r->client);
    jo_member(&o, "method");
    jo_str(&o, str_sub(r->method_name, 0, 32));
    jo_member(&o, "target");
    jo_str(&o, str_sub(r->target, 0, VALUE_MAX));
    jo_member(&o, "route");
    jo_strz(&o, r->route ? r->route->name : NULL);
    jo_member(&o, "status");
    jo_i64(&o, reply_status(r));
    jo_member(&o, "bytes");
    jo_i64(&o, reply_bytes(r));
    jo_member(&o, "us");
    jo_i64(&o, us);
    jo_member(&o, "request_id");
    jo_strz(&o, r->id);
    jo_member(&o, "referer");
    jo_str(&o, str_sub(request_header(r, STR("referer")), 0, VALUE_MAX));
    jo_member(&o, "user_agent");
    jo_str(&o, str_sub(request_header(r, STR("user-agent")), 0, VALUE_MAX));
    jo_end(&o, '}');
}

void access_log(const struct request *r, int64_t now_ns)
{
    if (!log_access_on())
        return;
    int64_t us = (now_ns - r->start_ns) / 1000;
    line.n = 0;
    if (r->cfg->log_access_format == 0)
        clf(&line, r, us);
    else
        json(&line, r, us);
    log_access(buf_view(&line));
}
