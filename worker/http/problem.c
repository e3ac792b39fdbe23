/* The one place that turns an error into a reply: RFC 9457's members, and beside them the `error` object that clients of
 * OpenAI's API look for. */
#include "worker/http/exchange.h"
#include "worker/io/json.h"
#include <stdio.h>

enum { RETRY_DEFAULT_MS = 1000 };

static const char *error_type(int status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

/* The last part of the problem's type: its code, with hyphens. */
static void type_uri(struct buf *b, const char *base, const char *wire)
{
    buf_ch(b, '"');
    buf_str(b, str_of(base));
    buf_lit(b, "/problems/");
    for (; *wire; wire++)
        buf_ch(b, *wire == '_' ? '-' : *wire);
    buf_ch(b, '"');
}

static void retry_headers(struct request *r, const struct err *e, int status)
{
    char text[24];
    int ms = e->retry_after_ms ? e->retry_after_ms : RETRY_DEFAULT_MS;
    if (status == 409 && !err_retryable(e->code))
        reply_header(r, STR("x-should-retry"), STR("false"));
    if (!e->retry_after_ms && !(err_retryable(e->code) && (status == 429 || status == 503 || status == 409)))
        return;
    int n = snprintf(text, sizeof text, "%d", (ms + 999) / 1000);
    reply_header(r, STR("Retry-After"), (struct str){text, (size_t)n});
    n = snprintf(text, sizeof text, "%d", ms);
    reply_header(r, STR("retry-after-ms"), (struct str){text, (size_t)n});
}

/* The parameter that is at fault, as OpenAI's clients name it: the first member of a pointer into the body, or the name of
 * a query parameter. */
static struct str param_of(const struct err *e)
{
    struct str rest = str_of(e->pointer);
    if (rest.n && rest.p[0] == '/')
        rest = str_sub(rest, 1, SIZE_MAX);
    return str_cut(&rest, '/');
}

void reply_problem(struct request *r, const struct err *e)
{
    struct exchange *x = exchange_of(r);
    int status = err_status(e->code);
    const char *wire = err_wire(e->code);
    struct str message = e->msg[0] ? str_of(e->msg) : str_of(err_title(e->code));
    if (x->reply.phase > REPLY_BUILT) { /* the head has left: a cut connection is all that can tell */
        x->keep_alive = false;
        x->reply.left = 1;
        x->reply.phase = REPLY_SENT;
        return;
    }
    if (e->code == ERR_CANCELED) { /* nobody is there to read it */
        x->reply.status = status;
        x->reply.phase = REPLY_SENT;
        x->keep_alive = false;
        return;
    }
    retry_headers(r, e, status);
    struct buf *b =
        reply_begin(r, status, str_starts(r->path, STR("/v1/")) ? "application/json" : "application/problem+json");
    struct json_out o = json_out(b);
    jo_begin(&o, '{');
    jo_member(&o, "type");
    type_uri(b, r->cfg->server_base_path, wire);
    o.comma = true;
    jo_member(&o, "title");
    jo_strz(&o, err_title(e->code));
    jo_member(&o, "status");
    jo_i64(&o, status);
    jo_member(&o, "detail");
    jo_str(&o, message);
    jo_member(&o, "instance");
    jo_str(&o, str_sub(r->target, 0, 256));
    jo_member(&o, "code");
    jo_strz(&o, wire);
    jo_member(&o, "request_id");
    jo_strz(&o, r->id);
    if (e->pointer[0]) {
        jo_member(&o, "errors");
        jo_begin(&o, '[');
        jo_begin(&o, '{');
        jo_member(&o, "pointer");
        jo_strz(&o, e->pointer);
        jo_member(&o, "detail");
        jo_str(&o, message);
        jo_end(&o, '}');
        jo_end(&o, ']');
    }
    jo_member(&o, "error");
    jo_begin(&o, '{');
    jo_member(&o, "message");
    jo_str(&o, message);
    jo_member(&o, "type");
    jo_strz(&o, error_type(status));
    jo_member(&o, "param");
    struct str param = param_of(e);
    if (param.n)
        jo_str(&o, param);
    else
        jo_null(&o);
    jo_member(&o, "code");
    jo_strz(&o, wire);
    jo_end(&o, '}');
    jo_end(&o, '}');
    reply_finish(r);
}
