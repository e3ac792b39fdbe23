#include "worker/api/api.h"
#include "worker/core/recall.h"
#include "worker/core/reindex.h"
#include "worker/core/retrieve.h"
#include <stdio.h>

enum { COLLECTIONS = 100 };

static void write_ids(struct json_out *o, const struct uuid *ids, size_t n)
{
    jo_member(o, "collections"), jo_begin(o, '[');
    for (size_t i = 0; i < n; i++)
        jo_uuid(o, &ids[i]);
    jo_end(o, ']');
}

/* What is searched now, so that the job knows what it has done already. 1, which most have, goes without saying. */
static void write_generations(struct json_out *o, const struct retrieve_scope *scope)
{
    char id[UUID_TEXT_LEN];
    jo_member(o, "from"), jo_begin(o, '{');
    for (size_t i = 0; i < scope->n; i++)
        if (scope->c[i].generation != 1) {
            uuid_text(&scope->c[i].id, id);
            jo_key(o, (struct str){id, sizeof id}), jo_i64(o, scope->c[i].generation);
        }
    jo_end(o, '}');
}

suspends static int queue(struct request *r, struct str type, struct buf *payload, struct err *e)
{
    struct store_job job;
    struct str text = arena_dup(&r->arena, buf_view(payload));
    buf_fini(payload);
    if (STORE_CALL(r->app->store, job_create, &r->arena, type, NULL, text, &job, e))
        return -1;
    return api_job_reply(r, &job, e);
}

/* {"golden_set", "min_delta"}, as the job has it. */
suspends static int write_gate(struct request *r, struct json_out *o, json_t *gate, struct err *e)
{
    struct str which;
    double min_delta = 0;
    struct store_eval_set set;
    struct uuid id;
    const struct json_member table[] = {
        {"golden_set", JSON_STR, true, false, 1, 200, &which, NULL},
        {"min_delta", JSON_DOUBLE, false, false, -1, 1, &min_delta, NULL},
    };
    if (json_members(&r->arena, gate, "/gate", table, COUNT(table), false, e))
        return -1;
    bool by_id = uuid_parse(which, &id);
    if (STORE_CALL(r->app->store, eval_set_get, &r->arena, by_id ? &id : NULL, which, &set, e))
        return api_failed("golden set", which, e);
    jo_member(o, "gate"), jo_begin(o, '{');
    jo_member(o, "set"), jo_uuid(o, &set.id);
    jo_member(o, "min_delta"), jo_f64(o, min_delta);
    jo_end(o, '}');
    return 0;
}

suspends int api_admin_reindex(struct request *r, struct err *e)
{
    json_t *body, *list = NULL, *gate = NULL;
    struct str embedder = STR("");
    bool promote = true;
    struct uuid ids[COLLECTIONS];
    struct buf b = {0};
    const struct json_member table[] = {
        {"collections", JSON_ARR, false, false, 1, COLLECTIONS, &list, NULL},
        {"embedder", JSON_STR, false, false, 1, 200, &embedder, NULL},
        {"promote", JSON_BOOLEAN, false, false, 0, 0, &promote, NULL},
        {"gate", JSON_OBJ, false, true, 0, 0, &gate, NULL},
    };
    if (api_body(r, true, &body, e) || json_members(&r->arena, body, "", table, COUNT(table), false, e) ||
        api_collection_ids(r, list, ids, e))
        return -1;
    struct str model = reindex_model(&r->app->backends);
    if (!model.n)
        return err_set(e, ERR_CONFLICT, "embedding.url is none: there is nothing to embed with");
    if (embedder.n && !str_eq(embedder, model) && !str_eqz(embedder, r->cfg->embedding_model))
        return err_at(e, "/embedder", "must be the model that embedding.model names: " STR_FMT,
                      STR_ARG(str_sub(model, 0, 100)));
    if (gate && !promote)
        return err_at(e, "/gate", "A gate decides about promotion, so 'promote' cannot be false");
    const struct retrieve_query which = {.collections = ids, .n_collections = json_array_size(list)};
    struct retrieve_scope scope;
    if (retrieve_scope_of(&r->app->backends, &r->arena, &which, &scope, e))
        return -1;
    struct json_out o = json_out(&b);
    jo_begin(&o, '{');
    jo_member(&o, "promote"), jo_bool(&o, promote);
    write_generations(&o, &scope);
    if (list)
        write_ids(&o, ids, json_array_size(list));
    if (gate && write_gate(r, &o, gate, e)) {
        buf_fini(&b);
        return -1;
    }
    jo_end(&o, '}');
    return queue(r, STR("reindex"), &b, e);
}

suspends int api_admin_fsck(struct request *r, struct err *e)
{
    json_t *body;
    bool repair = false;
    struct buf b = {0};
    const struct json_member table[] = {{"repair", JSON_BOOLEAN, false, false, 0, 0, &repair, NULL}};
    if (api_body(r, true, &body, e) || json_members(&r->arena, body, "", table, COUNT(table), false, e))
        return -1;
    buf_printf(&b, "{\"repair\":%s}", repair ? "true" : "false");
    return queue(r, STR("fsck"), &b, e);
}

/* Of Redis this takes as long as it has keys, each step within cache.timeout. */
suspends int api_admin_cache_flush(struct request *r, struct err *e)
{
    json_t *body;
    struct recall_flushed done;
    if (api_body(r, true, &body, e) || json_members(&r->arena, body, "", NULL, 0, false, e) ||
        recall_flush(&r->app->backends, &done, e))
        return -1;
    struct json_out o = api_reply(r, 200);
    jo_begin(&o, '{');
    jo_member(&o, "cache"), jo_strz(&o, done.cache);
    jo_member(&o, "shared"), jo_bool(&o, done.shared);
    jo_member(&o, "removed"), jo_i64(&o, done.removed);
    jo_end(&o, '}');
    return 0;
}

/* ---- generations ---- */

suspends static int flip(struct request *r, bool back, struct err *e)
{
    json_t *body;
    struct str which;
    struct uuid id;
    struct store_collection c;
    int64_t generation;
    const struct json_member table[] = {{"collection", JSON_STR, true, false, 1, 200, &which, NULL}};
    if (!str_to_i64(r->param[0], &generation) || generation < 1)
        return err_set(e, ERR_NOT_FOUND, "A generation is a number from 1");
    if (api_body(r, false, &body, e) || json_members(&r->arena, body, "", table, COUNT(table), false, e) ||
        api_collection_id(r, which, &id, e))
        return -1;
    if (reindex_flip(&r->app->backends, &r->arena, &id, generation, back, &c, e))
        return api_failed("collection", which, e);
    struct json_out o = api_reply(r, 200);
    api_write_collection(&o, &c);
    return 0;
}

suspends int api_admin_promote(struct request *r, struct err *e)
{
    return flip(r, false, e);
}

suspends int api_admin_rollback(struct request *r, struct err *e)
{
    return flip(r, true, e);
}
