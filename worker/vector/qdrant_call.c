#include "worker/vector/qdrant.h"
#include "common/clock.h"
#include "common/scoreboard.h"
#include <stdlib.h>

enum { PAUSE_MS = 100, PAUSE_MAX_MS = 2000, PROBE_MS = 2000, REPLY_DEPTH = 64, REPLY_MAX = 64 << 20 };

/* "status":{"error":"…"} of the envelope, for the operator. */
static struct str reason_of(struct arena *a, struct str body)
{
    json_t *json, *error;
    struct err ignored;
    if (json_parse_object(a, body, REPLY_DEPTH, &json, &ignored) == 0 &&
        (error = json_object_get(json_object_get(json, "status"), "error")) && json_is_string(error))
        return str_of(json_string_value(error));
    return str_sub(body, 0, 200);
}

static int refuse(struct arena *a, const struct httpc_reply *r, struct str path, struct err *e)
{
    struct str why = reason_of(a, r->body);
    switch (r->status) {
    case 401:
    case 403: err_set(e, ERR_NOT_READY, "Qdrant refuses the API key (vectors.api_key)"); break;
    case 507: err_set(e, ERR_STORAGE_FULL, "Qdrant has no room left"); break;
    case 400:
    case 413:
    case 422: err_set(e, ERR_PROVIDER, "Qdrant does not accept the request"); break;
    default:
        err_set(e, ERR_NOT_READY, "Qdrant cannot answer now");
        if (e && r->retry_after_ms > 0)
            e->retry_after_ms = (int)(r->retry_after_ms < 60000 ? r->retry_after_ms : 60000);
    }
    return err_log(e, STR_FMT ": status %d: " STR_FMT, STR_ARG(path), r->status, STR_ARG(why));
}

static bool worth_again(int status)
{
    return status == 429 || (status >= 500 && status != 507);
}

/* One try. A status that is worth another is reported like a connection that failed: *again. */
static suspends int try_once(struct qdrant *q, struct arena *a, const struct httpc_request *rq, struct str path,
                             struct httpc_reply *r, bool *again, struct err *e)
{
    *again = false;
    if (httpc_do(q->http, a, rq, r, e) != 0) {
        if (e && e->code == ERR_DEADLINE && fiber_time_left() > 0)
            e->code = ERR_NOT_READY;       /* its own time-out, not that of the request */
        if (e && e->code == ERR_NOT_READY) /* the log keeps why */
            snprintf(e->msg, sizeof e->msg, "Qdrant cannot be reached");
        *again = e && e->code == ERR_NOT_READY;
        return -1;
    }
    if ((r->status >= 200 && r->status < 300) || r->status == 404 || r->status == 409)
        return 0;
    *again = worth_again(r->status);
    return refuse(a, r, path, e);
}

static suspends int try_often(struct qdrant *q, struct arena *a, const struct httpc_request *rq, struct str path,
                              int retries, struct httpc_reply *r, struct err *e)
{
    bool again;
    for (int i = 0;; i++) {
        STAT_ADD(vector_calls_total, 1);
        if (try_once(q, a, rq, path, r, &again, e) == 0)
            return 0;
        STAT_ADD(vector_errors_total, 1);
        if (!again || i >= retries)
            return -1;
        int64_t pause = PAUSE_MS << (i < 6 ? i : 6);
        pause = pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS;
        pause = e->retry_after_ms > pause ? e->retry_after_ms : pause / 2 + random() % (pause / 2 + 1);
        if (fiber_sleep(pause * MS) != 0)
            return fiber_time_left() == 0 ? err_set(e, ERR_DEADLINE, "Qdrant took too long")
                                          : err_set(e, ERR_CANCELED, "Canceled");
    }
}

suspends int qdrant_call(struct qdrant *q, struct arena *a, const char *method, struct str path, struct str body,
                         bool fast, struct qdrant_reply *out, struct err *e)
{
    struct err own = {0};
    struct httpc_header header[2] = {{"Content-Type", STR("application/json")},
                                     {"api-key", str_of(q->cfg->vectors_api_key)}};
    struct httpc_request rq = {.method = method,
                               .url = arena_printf(a, "%s" STR_FMT, q->cfg->vectors_url, STR_ARG(path)),
                               .header = header,
                               .n_header = *q->cfg->vectors_api_key ? 2 : 1,
                               .body = body,
                               .timeout_ms = q->cfg->vectors_timeout,
                               .max_reply = REPLY_MAX};
    struct httpc_reply r;
    json_t *json;
    if (fast && rq.timeout_ms > PROBE_MS)
        rq.timeout_ms = PROBE_MS;
    if (try_often(q, a, &rq, path, fast ? 0 : (int)q->cfg->vectors_retries, &r, &own) != 0) {
        if (e)
            *e = own;
        return -1;
    }
    *out = (struct qdrant_reply){.status = r.status};
    if (fast || r.status >= 300)
        return 0;
    if (json_parse_object(a, r.body, REPLY_DEPTH, &json, &own) != 0) {
        err_set(e, ERR_PROVIDER, "Qdrant's answer is not what was expected");
        return err_log(e, STR_FMT ": %s", STR_ARG(path), own.msg);
    }
    out->result = json_object_get(json, "result");
    return 0;
}

suspends int qdrant_update(struct qdrant *q, struct arena *a, const char *method, struct str path, struct str body,
                           bool *missing, struct err *e)
{
    static const char *const orderings[] = {"weak", "medium", "strong"};
    struct qdrant_reply r;
    path = arena_printf(a, STR_FMT "?wait=true&ordering=%s", STR_ARG(path), orderings[q->cfg->vectors_write_ordering]);
    if (qdrant_call(q, a, method, path, body, false, &r, e))
        return -1;
    *missing = r.status == 404;
    const char *status = json_string_value(json_object_get(r.result, "status"));
    if (*missing || (status && strcmp(status, "completed") == 0))
        return 0;
    err_set(e, ERR_NOT_READY, "Qdrant has not finished a change in time");
    return err_log(e, STR_FMT ": status %d, %s", STR_ARG(path), r.status, status ? status : "no status");
}
