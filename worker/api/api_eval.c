#include "worker/api/api.h"
#include "worker/core/eval_job.h"

/* Golden sets, and runs of them, which are jobs. */
enum { NAME_MAX_BYTES = 128, COLLECTIONS = 64 };

/* ---- sets ---- */

static void write_questions(struct json_out *o, struct str text)
{
    jo_begin(o, '[');
    while (text.n)
        jo_raw(o, str_cut(&text, '\n'));
    jo_end(o, ']');
}

/* `whole`: with its questions. */
static void write_set(struct json_out *o, const struct store_eval_set *s, bool whole)
{
    jo_begin(o, '{');
    jo_member(o, "id"), jo_uuid(o, &s->id);
    jo_member(o, "object"), jo_strz(o, "eval_set");
    jo_member(o, "name"), jo_str(o, s->name);
    jo_member(o, "count"), jo_i64(o, s->questions);
    jo_member(o, "created_at"), jo_time(o, uuid_time_us(&s->id));
    if (whole)
        jo_member(o, "questions"), write_questions(o, s->text);
    jo_end(o, '}');
}

/* By id or by name. */
suspends static int find(struct request *r, struct str which, struct store_eval_set *out, struct err *e)
{
    struct uuid id;
    bool by_id = uuid_parse(which, &id);
    return STORE_CALL(r->app->store, eval_set_get, &r->arena, by_id ? &id : NULL, which, out, e)
               ? api_failed("golden set", which, e)
               : 0;
}

static void free_buf(void *b)
{
    buf_fini(b);
}

/* One question a line, as `ragd eval` has them in a file. */
static struct str as_lines(struct arena *a, const json_t *questions)
{
    struct buf *b = arena_own(a, arena_zalloc(a, sizeof *b), free_buf);
    size_t i;
    const json_t *v;
    json_array_foreach (questions, i, v) {
        json_dump(b, v);
        buf_ch(b, '\n');
    }
    return buf_view(b);
}

suspends int api_eval_set_create(struct request *r, struct err *e)
{
    json_t *body, *questions;
    struct store_eval_set in = {0}, set;
    struct eval_set checked;
    char id[UUID_TEXT_LEN];
    const struct json_member table[] = {
        {"name", JSON_STR, true, false, 1, NAME_MAX_BYTES, &in.name, NULL},
        {"questions", JSON_ARR, true, false, 1, r->cfg->limits_eval_questions, &questions, NULL},
    };
    if (api_body(r, false, &body, e) || json_members(&r->arena, body, "", table, COUNT(table), false, e) ||
        api_check_name(in.name, NAME_MAX_BYTES, e) || eval_take(&r->arena, questions, "/questions", &checked, e))
        return -1;
    in.questions = (int64_t)checked.n;
    in.text = as_lines(&r->arena, questions);
    if (STORE_CALL(r->app->store, eval_set_create, &r->arena, &in, r->cfg->limits_eval_sets, &set, e))
        return -1;
    struct json_out o = api_reply(r, 201);
    uuid_text(&set.id, id);
    api_location(r, "/api/v1/eval/sets/%.*s", UUID_TEXT_LEN, id);
    write_set(&o, &set, false);
    return 0;
}

suspends int api_eval_set_list(struct request *r, struct err *e)
{
    static const char *const allowed[] = {API_PAGE_QUERY, NULL};
    struct store_eval_set *s;
    struct store_page page;
    size_t n;
    bool more;
    if (request_query_only(r, allowed, e) || api_page(r, &page, e) ||
        STORE_CALL(r->app->store, eval_set_list, &r->arena, &page, &s, &n, &more, e))
        return -1;
    struct json_out o = api_list_begin(r);
    for (size_t i = 0; i < n; i++)
        write_set(&o, &s[i], false);
    api_list_end(&o, n ? &s[0].id : NULL, n ? &s[n - 1].id : NULL, more);
    return 0;
}

suspends int api_eval_set_get(struct request *r, struct err *e)
{
    struct store_eval_set set;
    if (find(r, r->param[0], &set, e))
        return -1;
    struct json_out o = api_reply(r, 200);
    write_set(&o, &set, true);
    return 0;
}

suspends int api_eval_set_delete(struct request *r, struct err *e)
{
    struct store_eval_set set;
    if (find(r, r->param[0], &set, e))
        return -1;
    if (STORE_CALL(r->app->store, eval_set_delete, &set.id, e))
        return api_failed("golden set", r->param[0], e);
    reply_begin(r, 204, NULL);
    return 0;
}

/* ---- runs ---- */

static void write_run(struct json_out *o, const struct store_job *j, const struct eval_job *run, struct str result)
{
    jo_begin(o, '{');
    jo_member(o, "id"), jo_uuid(o, &j->id);
    jo_member(o, "object"), jo_strz(o, "eval_run");
    jo_member(o, "set_id"), jo_uuid(o, &run->set);
    jo_member(o, "mode"), jo_strz(o, retrieve_mode_name(run->options.mode));
    jo_member(o, "k"), jo_i64(o, run->options.k);
    jo_member(o, "collections"), jo_begin(o, '[');
    for (size_t i = 0; i < run->options.n_collections; i++)
        jo_uuid(o, &run->options.collections[i]);
    jo_end(o, ']');
    jo_member(o, "base"), run->has_base ? jo_uuid(o, &run->base) : jo_null(o);
    jo_member(o, "job"), api_write_job(o, j);
    jo_member(o, "result"), result.n ? jo_raw(o, result) : jo_null(o);
    jo_end(o, '}');
}

/* A run that failed, or whose result is not kept any more, has none: "". */
suspends static int result_of(struct request *r, const struct store_job *j, struct str *out, struct err *e)
{
    *out = STR("");
    if (j->state != JOB_succeeded || STORE_CALL(r->app->store, eval_result_get, &r->arena, &j->id, out, e) == 0)
        return 0;
    return e->code == ERR_NOT_FOUND ? 0 : -1;
}

suspends static int check_base(struct request *r, struct str base, struct eval_job *run, struct err *e)
{
    struct str unused;
    if (!base.p)
        return 0;
    run->has_base = true;
    if (!uuid_parse(base, &run->base))
        return err_at(e, "/base", "'base' must be the id of a run");
    if (STORE_CALL(r->app->store, eval_result_get, &r->arena, &run->base, &unused, e) == 0)
        return 0;
    return e->code == ERR_NOT_FOUND ? err_at(e, "/base", "There is no such run, it has no result yet, or none any more")
                                    : -1;
}

suspends static int read_run(struct request *r, struct eval_job *run, struct err *e)
{
    json_t *body, *list = NULL;
    struct str set, mode = STR("hybrid"), base = {0};
    struct store_eval_set found;
    struct retrieve_scope scope;
    struct uuid *ids = arena_alloc(&r->arena, COLLECTIONS * sizeof *ids);
    int64_t k = 10;
    const struct json_member table[] = {
        {"set", JSON_STR, true, false, 1, 200, &set, NULL},
        {"mode", JSON_STR, false, false, 0, 0, &mode, NULL},
        {"k", JSON_INT64, false, false, 1, r->cfg->limits_top_k, &k, NULL},
        {"collections", JSON_ARR, false, false, 1, COLLECTIONS, &list, NULL},
        {"base", JSON_STR, false, true, 0, 0, &base, NULL},
    };
    *run = (struct eval_job){0};
    if (api_body(r, false, &body, e) || json_members(&r->arena, body, "", table, COUNT(table), false, e))
        return -1;
    if (!retrieve_mode_parse(mode, &run->options.mode) || run->options.mode == RETRIEVE_metadata)
        return err_at(e, "/mode", "'mode' must be hybrid, lexical or vector");
    if (run->options.mode == RETRIEVE_vector && !r->app->backends.embedder)
        return err_at(e, "/mode", "Mode 'vector' needs an embedder: configure embedding.url");
    if (find(r, set, &found, e) || check_base(r, base, run, e) || api_collection_ids(r, list, ids, e))
        return -1;
    run->set = found.id;
    run->options.k = (int)k;
    run->options.collections = ids;
    run->options.n_collections = json_array_size(list);
    const struct retrieve_query which = {.collections = ids, .n_collections = run->options.n_collections};
    return retrieve_scope_of(&r->app->backends, &r->arena, &which, &scope, e); /* they are there */
}

suspends int api_eval_run_create(struct request *r, struct err *e)
{
    struct eval_job run;
    struct store_job job;
    struct buf b = {0};
    struct str payload, result;
    char id[UUID_TEXT_LEN];
    if (read_run(r, &run, e))
        return -1;
    eval_job_payload(&run, &b);
    payload = arena_dup(&r->arena, buf_view(&b));
    buf_fini(&b);
    if (STORE_CALL(r->app->store, job_create, &r->arena, STR("eval"), NULL, payload, &job, e) ||
        api_job_await(r, api_prefer(r).wait_ns, &job, e) || result_of(r, &job, &result, e))
        return -1;
    struct json_out o = api_reply(r, api_job_over(&job) ? 200 : 202);
    uuid_text(&job.id, id);
    api_location(r, "/api/v1/eval/runs/%.*s", UUID_TEXT_LEN, id);
    write_run(&o, &job, &run, result);
    return 0;
}

suspends int api_eval_run_get(struct request *r, struct err *e)
{
    struct uuid id;
    struct store_job job;
    struct eval_job run;
    struct str result;
    if (api_id(r, 0, "run", &id, e))
        return -1;
    if (STORE_CALL(r->app->store, job_get, &r->arena, &id, &job, e))
        return api_failed("run", r->param[0], e);
    if (!str_eqz(job.type, "eval")) {
        err_set(e, ERR_NOT_FOUND, "another job");
        return api_failed("run", r->param[0], e);
    }
    if (eval_job_parse(&r->arena, job.payload, &run, e) || result_of(r, &job, &result, e))
        return -1;
    struct json_out o = api_reply(r, 200);
    write_run(&o, &job, &run, result);
    return 0;
}
