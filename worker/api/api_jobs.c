#include "worker/api/api.h"
#include <stdio.h>

enum { POLL_NS = 200000000 };

suspends static int read_query(struct request *r, struct store_job_query *q, struct err *e)
{
    struct str text;
    if (api_page(r, &q->page, e))
        return -1;
    q->has_state = request_query(r, STR("status"), &text);
    if (q->has_state && !job_state_parse(text, &q->state))
        return err_at(e, "status", "'status' must be queued, running, succeeded, failed or cancelled");
    q->has_document = request_query(r, STR("document"), &text);
    if (q->has_document && !uuid_parse(text, &q->document))
        return err_at(e, "document", "'document' must be the id of a document");
    request_query(r, STR("type"), &q->type);
    q->has_collection = request_query(r, STR("collection"), &text);
    if (q->has_collection && api_collection_id(r, text, &q->collection, e))
        return -1;
    return 0;
}

suspends int api_job_list(struct request *r, struct err *e)
{
    static const char *const allowed[] = {API_PAGE_QUERY, "status", "type", "collection", "document", NULL};
    struct store_job_query q = {0};
    struct store_job *j;
    size_t n;
    bool more;
    if (request_query_only(r, allowed, e) || read_query(r, &q, e) ||
        STORE_CALL(r->app->store, job_list, &r->arena, &q, &j, &n, &more, e))
        return -1;
    struct json_out o = api_list_begin(r);
    for (size_t i = 0; i < n; i++)
        api_write_job(&o, &j[i]);
    api_list_end(&o, n ? &j[0].id : NULL, n ? &j[n - 1].id : NULL, more);
    return 0;
}

suspends static int find(struct request *r, struct arena *a, struct store_job *j, struct err *e)
{
    struct uuid id;
    if (api_id(r, 0, "job", &id, e))
        return -1;
    return STORE_CALL(r->app->store, job_get, a, &id, j, e) ? api_failed("job", r->param[0], e) : 0;
}

suspends int api_job_get(struct request *r, struct err *e)
{
    struct store_job j;
    if (find(r, &r->arena, &j, e))
        return -1;
    struct json_out o = api_reply(r, 200);
    api_write_job(&o, &j);
    return 0;
}

suspends static int no_body(struct request *r, struct err *e)
{
    json_t *body;
    return api_body(r, true, &body, e) || json_members(&r->arena, body, "", NULL, 0, false, e) ? -1 : 0;
}

suspends int api_job_cancel(struct request *r, struct err *e)
{
    struct store_job j;
    struct uuid id;
    if (api_id(r, 0, "job", &id, e) || no_body(r, e))
        return -1;
    if (STORE_CALL(r->app->store, job_cancel, &r->arena, &id, &j, e))
        return api_failed("job", r->param[0], e);
    return api_job_reply(r, &j, e);
}

suspends int api_job_retry(struct request *r, struct err *e)
{
    struct store_job j;
    struct uuid id;
    if (api_id(r, 0, "job", &id, e) || no_body(r, e))
        return -1;
    if (STORE_CALL(r->app->store, job_retry, &r->arena, &id, &j, e))
        return api_failed("job", r->param[0], e);
    return api_job_reply(r, &j, e);
}

/* The id of an event is the time of the job's last change, so that a client that comes back is told only of changes it
 * has not seen. A job that is over and was seen is answered with 204, which ends an EventSource for good. */
static bool seen(struct request *r, const struct store_job *j)
{
    uint64_t id;
    return str_to_u64(request_header(r, STR("Last-Event-ID")), &id) && (int64_t)id >= j->updated_us;
}

suspends static int send(struct request *r, const struct store_job *j, struct err *e)
{
    struct buf b = {0};
    struct json_out o = json_out(&b);
    char id[24];
    snprintf(id, sizeof id, "%lld", (long long)j->updated_us);
    api_write_job(&o, j);
    int failed = sse_send(r, api_job_over(j) ? "end" : "progress", id, buf_view(&b), e);
    buf_fini(&b);
    return failed;
}

suspends int api_job_events(struct request *r, struct err *e)
{
    struct arena a = {0}; /* of one look at the job: the stream may last for hours */
    struct store_job j;
    int64_t told_us = 0;
    if (find(r, &r->arena, &j, e))
        return -1;
    if (seen(r, &j)) {
        told_us = j.updated_us;
        if (api_job_over(&j)) {
            reply_begin(r, 204, NULL);
            return 0;
        }
    }
    fiber_set_deadline(fiber_self(), 0);
    if (sse_begin(r, e))
        return -1;
    int failed = 0;
    for (;;) {
        if (j.updated_us != told_us)
            failed = send(r, &j, e);
        told_us = j.updated_us;
        if (failed || api_job_over(&j) || (failed = sse_wait(r, POLL_NS, e)))
            break;
        arena_fini(&a);
        if ((failed = find(r, &a, &j, e)))
            break;
    }
    arena_fini(&a);
    return failed;
}
