#include "worker/core/upkeep.h"
#include "worker/core/fsck.h"
#include "worker/core/reindex_gate.h"
#include "worker/io/json.h"

enum { COLLECTIONS = 100 };

static int permanent(struct job_context *ctx, const char *code)
{
    ctx->permanent = true;
    ctx->code = code;
    return -1;
}

struct step {
    struct job_context *ctx;
    const char *name;
};

suspends static int report(void *arg, int64_t done, int64_t total, struct err *e)
{
    struct step *s = arg;
    return job_progress(s->ctx, DOCUMENT_indexing, s->name, done, total, e);
}

static void set_result(struct job_context *ctx, struct buf *b)
{
    ctx->result = arena_dup(ctx->arena, buf_view(b));
    buf_fini(b);
}

/* ---- reindex ---- */

struct reindex {
    struct job_context *ctx;
    bool promote;
    const json_t *from;
    struct eval_set set;
    struct reindex_gate gate;
    bool gated;
    int64_t n; /* collections that are done */
};

static bool is_promoted(const struct reindex *x, const struct store_collection *c)
{
    char id[UUID_TEXT_LEN + 1] = {0};
    uuid_text(&c->id, id);
    const json_t *from = json_object_get(x->from, id);
    return x->promote && x->from && c->generation != (from ? json_integer_value(from) : 1) &&
           str_eq(c->embedder, reindex_model(x->ctx->backends));
}

suspends static int bring(struct reindex *x, const struct uuid *id, struct err *e)
{
    struct job_context *ctx = x->ctx;
    struct store_collection c;
    struct step step = {ctx, "reindex"};
    struct index_watch watch = {report, &step}, measuring = {report, &(struct step){ctx, "gate"}};
    if (STORE_CALL(ctx->store, collection_get, ctx->arena, id, &c, e))
        return -1;
    if (is_promoted(x, &c))
        return 0;
    x->gate.watch = &measuring;
    return x->gated ? reindex_gated(ctx->backends, ctx->arena, id, &x->gate, &watch, &c, e)
                    : reindex_collection(ctx->backends, ctx->arena, id, x->promote, &watch, &c, e);
}

suspends static int one(struct reindex *x, const struct uuid *id, struct err *e)
{
    struct job_context *ctx = x->ctx;
    struct err why = {0};
    if (bring(x, id, &why) == 0) {
        x->n++;
        return 0;
    }
    if (why.code == ERR_NOT_FOUND) /* deleted meanwhile */
        return 0;
    *e = why;
    if (why.code == ERR_CONFLICT && x->gate.shut && !job_lost(ctx))
        return permanent(ctx, "gate_not_passed");
    if (why.code == ERR_VALIDATION || (why.code == ERR_CONFLICT && !job_lost(ctx)))
        return permanent(ctx, "reindex_refused");
    return -1;
}

suspends static int named(struct reindex *x, const json_t *ids, struct err *e)
{
    size_t i;
    json_t *id;
    struct uuid collection;
    json_array_foreach (ids, i, id)
        if (uuid_parse(str_of(json_string_value(id) ? json_string_value(id) : ""), &collection) &&
            one(x, &collection, e))
            return -1;
    return 0;
}

suspends static int all(struct reindex *x, struct err *e)
{
    struct job_context *ctx = x->ctx;
    struct store_page page = {.limit = COLLECTIONS, .ascending = true};
    bool more = true;
    while (more) {
        struct store_collection *c;
        size_t found;
        if (STORE_CALL(ctx->store, collection_list, ctx->arena, &page, &c, &found, &more, e))
            return -1;
        for (size_t i = 0; i < found; i++)
            if (one(x, &c[i].id, e))
                return -1;
        if (found) {
            page.has_after = true;
            page.after = c[found - 1].id;
        }
    }
    return 0;
}

suspends static int read_gate(struct reindex *x, const json_t *gate, struct err *e)
{
    struct job_context *ctx = x->ctx;
    struct store_eval_set stored;
    struct uuid id;
    const char *set = json_string_value(json_object_get(gate, "set"));
    if (!gate)
        return 0;
    if (!set || !uuid_parse(str_of(set), &id))
        return err_set(e, ERR_VALIDATION, "the payload of the job makes no sense"), permanent(ctx, "invalid_payload");
    if (STORE_CALL(ctx->store, eval_set_get, ctx->arena, &id, STR(""), &stored, e))
        return e->code == ERR_NOT_FOUND ? permanent(ctx, "set_gone") : -1;
    if (eval_parse(ctx->arena, stored.text, &x->set, e))
        return permanent(ctx, "invalid_set");
    x->gate = (struct reindex_gate){.set = &x->set, .min_delta = json_number_value(json_object_get(gate, "min_delta"))};
    x->gated = true;
    return 0;
}

suspends int upkeep_reindex_run(struct job_context *ctx, struct err *e)
{
    json_t *payload;
    if (json_parse_object(ctx->arena, ctx->job->payload, (int)ctx->cfg->limits_json_depth, &payload, e))
        return permanent(ctx, "invalid_payload");
    const json_t *ids = json_object_get(payload, "collections");
    struct reindex x = {.ctx = ctx,
                        .promote = !json_is_false(json_object_get(payload, "promote")),
                        .from = json_object_get(payload, "from")};
    if (read_gate(&x, json_object_get(payload, "gate"), e) || (ids ? named(&x, ids, e) : all(&x, e)))
        return -1;
    struct buf b = {0};
    buf_printf(&b, "{\"collections\":%lld,\"promoted\":%s}", (long long)x.n, x.promote ? "true" : "false");
    set_result(ctx, &b);
    return 0;
}

/* ---- fsck ---- */

suspends int upkeep_fsck_run(struct job_context *ctx, struct err *e)
{
    json_t *payload;
    struct fsck_counts counts;
    struct step step = {ctx, "fsck"};
    struct index_watch watch = {report, &step};
    if (json_parse_object(ctx->arena, ctx->job->payload, (int)ctx->cfg->limits_json_depth, &payload, e))
        return permanent(ctx, "invalid_payload");
    if (fsck(ctx->backends, json_is_true(json_object_get(payload, "repair")), &counts, &watch, e))
        return e->code == ERR_CONFLICT && !job_lost(ctx) ? permanent(ctx, "not_repaired") : -1;
    struct buf b = {0};
    fsck_result(&b, &counts);
    set_result(ctx, &b);
    return 0;
}
