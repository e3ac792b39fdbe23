#include "worker/api/api.h"
#include "worker/api/upload.h"

enum { PATCH_TRIES = 8, CHUNKS_DEFAULT = 20 };

static void reply_document(struct request *r, const struct store_document *d)
{
    struct json_out o = api_reply(r, 200);
    reply_etag(r, d->version);
    api_write_document(&o, d);
}

suspends static int find(struct request *r, struct store_document *d, struct err *e)
{
    struct uuid id;
    if (api_id(r, 0, "document", &id, e))
        return -1;
    if (STORE_CALL(r->app->store, document_get, &r->arena, &id, d, e))
        return api_failed("document", r->param[0], e);
    return 0;
}

suspends int api_document_get(struct request *r, struct err *e)
{
    struct store_document d;
    if (find(r, &d, e))
        return -1;
    if (!reply_not_modified(r, d.version))
        reply_document(r, &d);
    return 0;
}

suspends int api_document_by_external_id(struct request *r, struct err *e)
{
    struct store_document d;
    struct uuid collection;
    if (api_collection_id(r, r->param[0], &collection, e))
        return -1;
    if (STORE_CALL(r->app->store, document_by_external_id, &r->arena, &collection, r->param[1], &d, e))
        return api_failed("document with external id", r->param[1], e);
    if (!reply_not_modified(r, d.version))
        reply_document(r, &d);
    return 0;
}

static int read_query(struct request *r, struct store_document_query *q, struct err *e)
{
    struct str text;
    if (api_page(r, &q->page, e))
        return -1;
    q->has_state = request_query(r, STR("status"), &text);
    if (q->has_state && !document_state_parse(text, &q->state))
        return err_at(e, "status",
                      "'status' must be queued, parsing, chunking, embedding, indexing, ready, failed or "
                      "cancelled");
    q->has_sha256 = request_query(r, STR("sha256"), &text);
    if (q->has_sha256 && !sha256_parse(text, &q->sha256))
        return err_at(e, "sha256", "'sha256' must be 64 hexadecimal digits");
    request_query(r, STR("tag"), &q->tag);
    request_query(r, STR("external_id"), &q->external_id);
    request_query(r, STR("q"), &q->q);
    if (request_query(r, STR("filter"), &text) && api_filter_text(r, text, &q->filter, e))
        return -1;
    return 0;
}

suspends int api_document_list(struct request *r, struct err *e)
{
    static const char *const allowed[] = {API_PAGE_QUERY, "status", "sha256", "tag",
                                          "external_id",  "q",      "filter", NULL};
    struct store_document_query q = {0};
    struct store_document *d;
    size_t n;
    bool more;
    if (request_query_only(r, allowed, e) || read_query(r, &q, e) ||
        api_collection_id(r, r->param[0], &q.collection, e))
        return -1;
    if (STORE_CALL(r->app->store, document_list, &r->arena, &q, &d, &n, &more, e))
        return api_failed("collection", r->param[0], e);
    struct json_out o = api_list_begin(r);
    for (size_t i = 0; i < n; i++)
        api_write_document(&o, &d[i]);
    api_list_end(&o, n ? &d[0].id : NULL, n ? &d[n - 1].id : NULL, more);
    return 0;
}

/* ---- change ---- */
struct change {
    struct str title, language;
    json_t *metadata, *tags;
    bool has_metadata;
};

suspends static int patch_once(struct request *r, const struct change *c, struct store_document_patch *p,
                               int64_t if_version, struct err *e)
{
    struct store_document d;
    json_t *merged;
    if (find(r, &d, e))
        return -1;
    if (if_version && if_version != d.version)
        return err_set(e, ERR_VERSION, "The document is at version %lld now", (long long)d.version);
    if (c->has_metadata) {
        p->metadata = STR("{}");
        if (c->metadata && (api_merge(r, d.metadata, c->metadata, &merged, e) ||
                            api_metadata(r, &r->arena, merged, "/metadata", &p->metadata, e)))
            return -1;
    }
    if (STORE_CALL(r->app->store, document_patch, &r->arena, &d.id, p, d.version, &d, e))
        return api_failed("document", r->param[0], e);
    reply_document(r, &d);
    return 0;
}

suspends int api_document_patch(struct request *r, struct err *e)
{
    struct store_document_patch p = {.tags = STR("[]")};
    struct change c = {.title = STR(""), .language = STR("")};
    const struct json_member table[] = {
        {"title", JSON_STR, false, true, 0, UPLOAD_TITLE_MAX, &c.title, &p.set_title},
        {"language", JSON_STR, false, true, 0, 0, &c.language, &p.set_language},
        {"metadata", JSON_OBJ, false, true, 0, 0, &c.metadata, &p.set_metadata},
        {"tags", JSON_ARR, false, true, 0, 0, &c.tags, &p.set_tags},
    };
    json_t *body;
    int64_t if_version;
    if (api_if_match(r, &if_version, e) || api_body(r, false, &body, e) ||
        json_members(&r->arena, body, "", table, COUNT(table), false, e) ||
        api_check_text(c.title, UPLOAD_TITLE_MAX, "/title", "title", e) ||
        api_check_language(c.language, "/language", e) || (c.tags && api_tags(&r->arena, c.tags, "/tags", &p.tags, e)))
        return -1;
    p.title = c.title;
    p.language = c.language;
    c.has_metadata = p.set_metadata;
    for (int i = 0; i < PATCH_TRIES; i++) {
        if (!patch_once(r, &c, &p, if_version, e))
            return 0;
        if (e->code != ERR_VERSION || if_version)
            return -1;
    }
    return err_set(e, ERR_BUSY, "The document is being changed by others all the time; try again");
}

suspends int api_document_delete(struct request *r, struct err *e)
{
    struct uuid id;
    int64_t if_version;
    if (api_id(r, 0, "document", &id, e) || api_if_match(r, &if_version, e))
        return -1;
    if (STORE_CALL(r->app->store, document_delete, &id, if_version, e))
        return api_failed("document", r->param[0], e);
    reply_begin(r, 204, NULL);
    return 0;
}

suspends int api_documents_delete(struct request *r, struct err *e)
{
    struct filter *filter;
    struct store_job job;
    struct uuid id;
    json_t *body, *json = NULL;
    bool dry_run = false;
    int64_t matched;
    const struct json_member table[] = {
        {"filter", JSON_OBJ, true, false, 0, 0, &json, NULL},
        {"dry_run", JSON_BOOLEAN, false, false, 0, 0, &dry_run, NULL},
    };
    if (api_collection_id(r, r->param[0], &id, e) || api_body(r, false, &body, e) ||
        json_members(&r->arena, body, "", table, COUNT(table), false, e) ||
        filter_parse(&r->arena, json, "/filter", &filter, e))
        return -1;
    if (STORE_CALL(r->app->store, document_count_matching, &id, filter, &matched, e))
        return api_failed("collection", r->param[0], e);
    if (!dry_run) {
        struct str payload = arena_printf(&r->arena, "{\"filter\":%s}", json_text(&r->arena, json).p);
        if (STORE_CALL(r->app->store, job_create, &r->arena, STR("delete_documents"), &id, payload, &job, e) ||
            api_job_await(r, api_prefer(r).wait_ns, &job, e))
            return -1;
    }
    struct json_out o = api_reply(r, dry_run || api_job_over(&job) ? 200 : 202);
    jo_begin(&o, '{');
    jo_member(&o, "matched"), jo_i64(&o, matched);
    jo_member(&o, "dry_run"), jo_bool(&o, dry_run);
    jo_member(&o, "job");
    dry_run ? jo_null(&o) : api_write_job(&o, &job);
    jo_end(&o, '}');
    return 0;
}

suspends int api_document_reprocess(struct request *r, struct err *e)
{
    struct store_job job;
    struct uuid id;
    json_t *body;
    if (api_id(r, 0, "document", &id, e) || api_body(r, true, &body, e) ||
        json_members(&r->arena, body, "", NULL, 0, false, e))
        return -1;
    if (STORE_CALL(r->app->store, document_reprocess, &r->arena, &id, &job, e))
        return api_failed("document", r->param[0], e);
    return api_job_reply(r, &job, e);
}

suspends int api_document_versions(struct request *r, struct err *e)
{
    struct store_version *v;
    struct uuid id;
    size_t n;
    char hex[SHA256_TEXT_LEN];
    if (api_id(r, 0, "document", &id, e))
        return -1;
    if (STORE_CALL(r->app->store, document_versions, &r->arena, &id, &v, &n, e))
        return api_failed("document", r->param[0], e);
    struct json_out o = api_list_begin(r);
    for (size_t i = 0; i < n; i++) {
        sha256_text(&v[i].sha256, hex);
        jo_begin(&o, '{');
        jo_member(&o, "object"), jo_strz(&o, "document.version");
        jo_member(&o, "version"), jo_i64(&o, v[i].version);
        jo_member(&o, "filename"), v[i].filename.n ? jo_str(&o, v[i].filename) : jo_null(&o);
        jo_member(&o, "mime"), v[i].mime.n ? jo_str(&o, v[i].mime) : jo_null(&o);
        jo_member(&o, "bytes"), jo_i64(&o, v[i].bytes);
        jo_member(&o, "sha256"), jo_str(&o, (struct str){hex, sizeof hex});
        jo_member(&o, "created_at"), jo_time(&o, v[i].created_us);
        jo_end(&o, '}');
    }
    api_list_end(&o, NULL, NULL, false);
    return 0;
}

/* ---- chunks ---- */
/* `after` is the id of a chunk; where its document goes on is its ordinal. */
suspends static int first_ordinal(struct request *r, const struct uuid *document, int *from, struct err *e)
{
    struct store_chunk c;
    struct uuid after;
    struct str text;
    *from = 0;
    if (!request_query(r, STR("after"), &text))
        return 0;
    if (!uuid_parse(text, &after))
        return err_at(e, "after", "'after' must be the id of a chunk");
    if (STORE_CALL(r->app->store, chunk_get, &r->arena, &after, &c, e)) {
        if (e->code == ERR_NOT_FOUND)
            err_at(e, "after", "'after' names no chunk of this document; it may have been indexed again");
        return -1;
    }
    if (!uuid_eq(&c.document, document))
        return err_at(e, "after", "'after' names a chunk of another document");
    *from = c.ordinal + 1;
    return 0;
}

suspends int api_document_chunks(struct request *r, struct err *e)
{
    static const char *const allowed[] = {"limit", "after", NULL};
    struct store_chunk *c;
    struct uuid id;
    int64_t limit, max = r->cfg->limits_page;
    size_t n;
    int from;
    if (request_query_only(r, allowed, e) || api_id(r, 0, "document", &id, e) ||
        request_query_int(r, "limit", max < CHUNKS_DEFAULT ? max : CHUNKS_DEFAULT, 1, max, &limit, e) ||
        first_ordinal(r, &id, &from, e))
        return -1;
    if (STORE_CALL(r->app->store, document_chunks, &r->arena, &id, from, (int)limit + 1, &c, &n, e))
        return api_failed("document", r->param[0], e);
    bool more = n > (size_t)limit;
    n -= more;
    struct json_out o = api_list_begin(r);
    for (size_t i = 0; i < n; i++)
        api_write_chunk(&o, &c[i]);
    api_list_end(&o, n ? &c[0].id : NULL, n ? &c[n - 1].id : NULL, more);
    return 0;
}

suspends int api_chunk_get(struct request *r, struct err *e)
{
    struct store_chunk c;
    struct uuid document, id;
    if (api_id(r, 0, "document", &document, e) || api_id(r, 1, "chunk", &id, e))
        return -1;
    if (STORE_CALL(r->app->store, chunk_get, &r->arena, &id, &c, e))
        return api_failed("chunk", r->param[1], e);
    if (!uuid_eq(&c.document, &document)) {
        err_set(e, ERR_NOT_FOUND, "of another document");
        return api_failed("chunk", r->param[1], e);
    }
    struct json_out o = api_reply(r, 200);
    api_write_chunk(&o, &c);
    return 0;
}
