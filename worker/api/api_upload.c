#include "worker/api/upload.h"

/* POST creates, PUT creates or replaces by external id; both take multipart or JSON, both answer the document and the job
 * that makes it searchable. */

suspends static int read_upload(struct request *r, struct upload *u, struct err *e)
{
    struct str type = request_media_type(r);
    struct str text;
    json_t *body;
    fiber_set_deadline(fiber_self(), 0); /* receiving is bounded by http.body_timeout and body_min_rate */
    if (str_eq(type, STR("multipart/form-data"))) {
        if (upload_from_multipart(r, u, e))
            return -1;
    } else if (str_eq(type, STR(JSON_TYPE))) {
        if (api_body_lifting(r, &body, &text, e) || upload_from_json(r, &r->arena, body, text, u, e))
            return -1;
    } else {
        return err_set(e, ERR_MEDIA_TYPE, "A document is sent as multipart/form-data or application/json, not '%.80s'",
                       arena_dup(&r->arena, type).p);
    }
    if (r->cfg->http_request_timeout)
        fiber_set_deadline(fiber_self(), clock_ns() + r->cfg->http_request_timeout * MS);
    return 0;
}

static void write_minimal(struct json_out *o, const struct uuid *id)
{
    jo_begin(o, '{');
    jo_member(o, "id"), jo_uuid(o, id);
    jo_end(o, '}');
}

static void write_result(struct request *r, int status, const struct store_document *d, enum store_created what,
                         const struct store_job *job, bool minimal)
{
    struct json_out o = api_reply(r, status);
    jo_begin(&o, '{');
    jo_member(&o, "document");
    minimal ? write_minimal(&o, &d->id) : api_write_document(&o, d);
    if (what == STORE_DUPLICATE)
        jo_member(&o, "duplicate_of"), jo_uuid(&o, &d->id);
    if (what == STORE_UNCHANGED)
        jo_member(&o, "unchanged"), jo_bool(&o, true);
    jo_member(&o, "job");
    if (!job)
        jo_null(&o);
    else
        minimal ? write_minimal(&o, &job->id) : api_write_job(&o, job);
    jo_end(&o, '}');
}

/* Status: what is new is 202 on POST (its job still runs) and 201 on PUT; everything else, and whatever Prefer: wait saw
 * through to its end, 200 or 201. */
suspends static int reply_upload(struct request *r, bool put, struct store_document *d, enum store_created what,
                                 struct store_job *job, struct err *e)
{
    static const struct uuid none;
    struct api_prefer prefer = api_prefer(r);
    bool has_job = !uuid_eq(&job->id, &none);
    char id[UUID_TEXT_LEN];
    int status = what == STORE_CREATED && put ? 201 : has_job && !put ? 202 : 200;
    if (has_job && prefer.wait_ns) {
        if (api_job_await(r, prefer.wait_ns, job, e) ||
            STORE_CALL(r->app->store, document_get, &r->arena, &d->id, d, e))
            return -1;
        if (api_job_over(job) && !put)
            status = what == STORE_CREATED ? 201 : 200;
    }
    write_result(r, status, d, what, has_job ? job : NULL, prefer.minimal);
    uuid_text(&d->id, id);
    api_location(r, "/api/v1/documents/%.*s", UUID_TEXT_LEN, id);
    reply_etag(r, d->version);
    return 0;
}

suspends int api_document_create(struct request *r, struct err *e)
{
    struct upload u = {0};
    struct store_document d;
    struct store_job job = {0};
    enum store_created what;
    if (api_collection_id(r, r->param[0], &u.doc.collection, e) || read_upload(r, &u, e))
        return -1;
    if (upload_store(r, &r->arena, &u, &d, &what, &job, e))
        return api_failed("collection", r->param[0], e);
    return reply_upload(r, false, &d, what, &job, e);
}

/* If-None-Match: * asks for a document that is new, If-Match: * for one that is there. */
suspends static int check_existence(struct request *r, struct upload *u, struct err *e)
{
    struct str match = request_header(r, STR("If-Match")), none = request_header(r, STR("If-None-Match"));
    struct store_document d;
    if (none.p && !str_eq(none, STR("*")))
        return err_set(e, ERR_BAD_REQUEST, "If-None-Match may only be * here: create, but do not replace");
    if (none.p) { /* left to the store, which refuses an external id that is taken */
        u->doc.by_external_id = false;
        if (!u->policy_given)
            u->doc.on_duplicate = DUP_LINK;
        u->policy_given = true;
        return 0;
    }
    if (!str_eq(match, STR("*")) ||
        !STORE_CALL(r->app->store, document_by_external_id, &r->arena, &u->doc.collection, r->param[1], &d, e))
        return 0;
    return e->code == ERR_NOT_FOUND ? err_set(e, ERR_VERSION, "There is no such document yet") : -1;
}

suspends int api_document_upsert(struct request *r, struct err *e)
{
    struct upload u = {.doc.by_external_id = true};
    struct store_document d;
    struct store_job job = {0};
    enum store_created what;
    if (api_if_match(r, &u.doc.if_version, e) || api_collection_id(r, r->param[0], &u.doc.collection, e) ||
        api_check_text(r->param[1], UPLOAD_EXTERNAL_ID_MAX, "external_id", "external_id", e) || read_upload(r, &u, e) ||
        check_existence(r, &u, e))
        return -1;
    if (u.doc.external_id.n && !str_eq(u.doc.external_id, r->param[1]))
        return err_at(e, "/external_id", "'external_id' is another one than that of the path");
    u.doc.external_id = r->param[1];
    if (upload_store(r, &r->arena, &u, &d, &what, &job, e)) {
        if (!u.doc.by_external_id && e->code == ERR_CONFLICT)
            e->code = ERR_VERSION;
        return api_failed("collection", r->param[0], e);
    }
    return reply_upload(r, true, &d, what, &job, e);
}
