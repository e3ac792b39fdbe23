#include "worker/api/api.h"
#include "worker/core/chunk.h"

enum { NAME_MAX_BYTES = 128, DESCRIPTION_MAX = 4096, PATCH_TRIES = 8 };

/* What a client may set, as it stands in the body. */
struct fields {
    struct str name, description, language;
    json_t *metadata, *chunking;
    bool has_name, has_description, has_language, has_metadata, has_chunking;
};

static int read_fields(struct request *r, json_t *body, bool creating, struct fields *f, struct err *e)
{
    bool null = !creating; /* a merge patch resets members to their defaults by null */
    const struct json_member table[] = {
        {"name", JSON_STR, creating, false, 1, NAME_MAX_BYTES, &f->name, &f->has_name},
        {"description", JSON_STR, false, null, 0, DESCRIPTION_MAX, &f->description, &f->has_description},
        {"language", JSON_STR, false, null, 0, 0, &f->language, &f->has_language},
        {"metadata", JSON_OBJ, false, null, 0, 0, &f->metadata, &f->has_metadata},
        {"chunking", JSON_OBJ, false, null, 0, 0, &f->chunking, &f->has_chunking},
    };
    *f = (struct fields){.name = STR(""), .description = STR(""), .language = STR("")};
    return json_members(&r->arena, body, "", table, COUNT(table), false, e);
}

static int check_fields(struct request *r, const struct fields *f, struct str *chunking, struct err *e)
{
    struct chunking parsed;
    if (f->has_name && api_check_name(f->name, NAME_MAX_BYTES, e))
        return -1;
    if (!str_is_utf8(f->description))
        return err_at(e, "/description", "'description' must be valid UTF-8");
    if (api_check_language(f->language, "/language", e))
        return -1;
    *chunking = f->chunking ? json_text(&r->arena, f->chunking) : STR("{}");
    if (f->chunking && chunking_parse(&r->arena, *chunking, r->cfg, &parsed, e))
        return -1;
    return 0;
}

static void reply_collection(struct request *r, int status, const struct store_collection *c)
{
    struct json_out o = api_reply(r, status);
    reply_etag(r, c->version);
    api_write_collection(&o, c);
}

suspends int api_collection_create(struct request *r, struct err *e)
{
    struct store_collection in = {0}, out;
    struct fields f;
    json_t *body;
    char id[UUID_TEXT_LEN];
    if (api_body(r, false, &body, e) || read_fields(r, body, true, &f, e) || check_fields(r, &f, &in.chunking, e))
        return -1;
    in.name = f.name;
    in.description = f.description;
    in.language = f.language.n ? f.language : str_of(r->cfg->ingest_language); /* of now, whatever it will be later */
    in.metadata = STR("{}");
    if (f.metadata && api_metadata(r, &r->arena, f.metadata, "/metadata", &in.metadata, e))
        return -1;
    if (STORE_CALL(r->app->store, collection_create, &r->arena, &in, &out, e))
        return -1;
    reply_collection(r, 201, &out);
    uuid_text(&out.id, id);
    api_location(r, "/api/v1/collections/%.*s", UUID_TEXT_LEN, id);
    return 0;
}

suspends int api_collection_list(struct request *r, struct err *e)
{
    static const char *const allowed[] = {API_PAGE_QUERY, NULL};
    struct store_collection *c;
    struct store_page page;
    size_t n;
    bool more;
    if (request_query_only(r, allowed, e) || api_page(r, &page, e) ||
        STORE_CALL(r->app->store, collection_list, &r->arena, &page, &c, &n, &more, e))
        return -1;
    struct json_out o = api_list_begin(r);
    for (size_t i = 0; i < n; i++)
        api_write_collection(&o, &c[i]);
    api_list_end(&o, n ? &c[0].id : NULL, n ? &c[n - 1].id : NULL, more);
    return 0;
}

/* The collection of the path, by id or by name. */
suspends static int find(struct request *r, struct store_collection *c, struct err *e)
{
    struct uuid id;
    int failed = uuid_parse(r->param[0], &id)
                     ? STORE_CALL(r->app->store, collection_get, &r->arena, &id, c, e)
                     : STORE_CALL(r->app->store, collection_by_name, &r->arena, r->param[0], c, e);
    return failed ? api_failed("collection", r->param[0], e) : 0;
}

suspends int api_collection_get(struct request *r, struct err *e)
{
    struct store_collection c;
    if (find(r, &c, e))
        return -1;
    if (!reply_not_modified(r, c.version))
        reply_collection(r, 200, &c);
    return 0;
}

suspends static int patch_once(struct request *r, const struct fields *f, struct store_collection_patch *p,
                               int64_t if_version, struct err *e)
{
    struct store_collection c;
    struct json_t *merged;
    if (find(r, &c, e))
        return -1;
    if (if_version && if_version != c.version)
        return err_set(e, ERR_VERSION, "The collection is at version %lld now", (long long)c.version);
    if (f->has_metadata) {
        p->metadata = STR("{}");
        if (f->metadata && (api_merge(r, c.metadata, f->metadata, &merged, e) ||
                            api_metadata(r, &r->arena, merged, "/metadata", &p->metadata, e)))
            return -1;
    }
    if (STORE_CALL(r->app->store, collection_patch, &r->arena, &c.id, p, c.version, &c, e))
        return api_failed("collection", r->param[0], e);
    if (f->has_language)
        jobs_announce(r->app->jobs_fd);
    reply_collection(r, 200, &c);
    return 0;
}

suspends int api_collection_patch(struct request *r, struct err *e)
{
    struct store_collection_patch p = {0};
    struct fields f;
    json_t *body;
    int64_t if_version;
    if (api_if_match(r, &if_version, e) || api_body(r, false, &body, e) || read_fields(r, body, false, &f, e) ||
        check_fields(r, &f, &p.chunking, e))
        return -1;
    p.set_name = f.has_name;
    p.set_description = f.has_description;
    p.set_language = f.has_language;
    p.set_metadata = f.has_metadata;
    p.set_chunking = f.has_chunking;
    p.name = f.name;
    p.description = f.description;
    p.language = f.language.n ? f.language : str_of(r->cfg->ingest_language);
    for (int i = 0; i < PATCH_TRIES; i++) {
        if (!patch_once(r, &f, &p, if_version, e))
            return 0;
        if (e->code != ERR_VERSION || if_version)
            return -1;
    }
    return err_set(e, ERR_BUSY, "The collection is being changed by others all the time; try again");
}

suspends int api_collection_delete(struct request *r, struct err *e)
{
    struct store_job job;
    struct uuid id;
    int64_t if_version;
    if (api_if_match(r, &if_version, e) || api_collection_id(r, r->param[0], &id, e))
        return -1;
    if (STORE_CALL(r->app->store, collection_delete, &r->arena, &id, if_version, &job, e))
        return api_failed("collection", r->param[0], e);
    return api_job_reply(r, &job, e);
}
