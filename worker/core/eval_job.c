#include "worker/core/eval_job.h"
#include "worker/core/eval_report.h"

enum { JSON_DEPTH = 8, K_MAX = 1000 };

/* ---- the payload ---- */

static bool read_id(const json_t *v, struct uuid *out)
{
    return json_is_string(v) && uuid_parse(str_of(json_string_value(v)), out);
}

int eval_job_parse(struct arena *a, struct str payload, struct eval_job *out, struct err *e)
{
    struct eval_job job = {.options = {.mode = RETRIEVE_hybrid, .k = 10}};
    struct str mode = STR("hybrid");
    json_t *object, *collections = NULL, *set = NULL, *base = NULL;
    int64_t k = 10;
    const struct json_member table[] = {
        {.name = "set", .kind = JSON_ANY, .required = true, .out = &set},
        {.name = "mode", .kind = JSON_STR, .out = &mode},
        {.name = "k", .kind = JSON_INT64, .min = 1, .max = K_MAX, .out = &k},
        {.name = "collections", .kind = JSON_ARR, .out = &collections},
        {.name = "base", .kind = JSON_ANY, .out = &base},
    };
    if (json_parse_object(a, payload, JSON_DEPTH, &object, e) < 0 ||
        json_members(a, object, "", table, sizeof table / sizeof *table, true, e) < 0)
        return -1;
    size_t n = json_array_size(collections);
    struct uuid *ids = arena_zalloc(a, (n + 1) * sizeof *ids);
    job.has_base = base != NULL;
    bool good =
        read_id(set, &job.set) && (!base || read_id(base, &job.base)) && retrieve_mode_parse(mode, &job.options.mode);
    for (size_t i = 0; i < n; i++)
        good = good && read_id(json_array_get(collections, i), &ids[i]);
    if (!good)
        return err_set(e, ERR_VALIDATION, "the payload of the job makes no sense");
    job.options.k = (int)k;
    job.options.collections = ids;
    job.options.n_collections = n;
    *out = job;
    return 0;
}

void eval_job_payload(const struct eval_job *job, struct buf *out)
{
    struct json_out j = json_out(out);
    jo_begin(&j, '{');
    jo_member(&j, "set"), jo_uuid(&j, &job->set);
    jo_member(&j, "mode"), jo_strz(&j, retrieve_mode_name(job->options.mode));
    jo_member(&j, "k"), jo_i64(&j, job->options.k);
    if (job->options.n_collections) {
        jo_member(&j, "collections"), jo_begin(&j, '[');
        for (size_t i = 0; i < job->options.n_collections; i++)
            jo_uuid(&j, &job->options.collections[i]);
        jo_end(&j, ']');
    }
    if (job->has_base)
        jo_member(&j, "base"), jo_uuid(&j, &job->base);
    jo_end(&j, '}');
}

/* ---- the run ---- */

static int permanent(struct job_context *ctx, const char *code)
{
    ctx->permanent = true;
    ctx->code = code;
    return -1;
}

suspends static int report(void *arg, int64_t done, int64_t total, struct err *e)
{
    return job_progress(arg, DOCUMENT_indexing, "eval", done, total, e);
}

suspends static int read_all(struct job_context *ctx, const struct eval_job *job, struct eval_set *set,
                             struct eval_base *base, struct err *e)
{
    struct store_eval_set stored;
    struct str earlier;
    if (STORE_CALL(ctx->store, eval_set_get, ctx->arena, &job->set, STR(""), &stored, e))
        return e->code == ERR_NOT_FOUND ? permanent(ctx, "set_gone") : -1;
    if (eval_parse(ctx->arena, stored.text, set, e))
        return permanent(ctx, "invalid_set");
    if (!job->has_base)
        return 0;
    if (STORE_CALL(ctx->store, eval_result_get, ctx->arena, &job->base, &earlier, e))
        return e->code == ERR_NOT_FOUND ? permanent(ctx, "base_gone") : -1;
    return eval_base_read(ctx->arena, earlier, base, e) ? permanent(ctx, "base_gone") : 0;
}

/* What each question reached goes to the store, the figures to the job. */
suspends static int keep(struct job_context *ctx, const struct eval_job *job, const struct eval_report *r,
                         struct err *e)
{
    struct buf whole = {0}, figures = {0};
    struct json_out j = json_out(&whole), f = json_out(&figures);
    jo_begin(&j, '{');
    eval_report_write(r, &j);
    jo_end(&j, '}');
    int rc = STORE_CALL(ctx->store, eval_result_put, &ctx->job->id, &job->set, buf_view(&whole),
                        (int)ctx->cfg->limits_eval_results, e);
    buf_fini(&whole);
    if (rc)
        return e->code == ERR_NOT_FOUND ? permanent(ctx, "set_gone") : -1;
    jo_begin(&f, '{');
    jo_member(&f, "n"), jo_i64(&f, (int64_t)r->set->n);
    eval_total_write(&r->total, &f);
    jo_end(&f, '}');
    ctx->result = arena_dup(ctx->arena, buf_view(&figures));
    buf_fini(&figures);
    return 0;
}

suspends int eval_job_run(struct job_context *ctx, struct err *e)
{
    struct eval_job job;
    struct eval_set set;
    struct eval_report r = {.set = &set, .options = &job.options};
    struct index_watch watch = {report, ctx};
    if (eval_job_parse(ctx->arena, ctx->job->payload, &job, e))
        return permanent(ctx, "invalid_payload");
    if (read_all(ctx, &job, &set, &r.base, e))
        return -1;
    struct eval_score *score = arena_zalloc(ctx->arena, set.n * sizeof *score);
    r.score = score;
    if (eval_run(ctx->backends, &set, &job.options, &watch, score, &r.total, e))
        return e->code == ERR_VALIDATION || e->code == ERR_NOT_FOUND ? permanent(ctx, "eval_refused") : -1;
    eval_report_compare(&r);
    return keep(ctx, &job, &r, e);
}
