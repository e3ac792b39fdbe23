/* Golden sets and what was found with them. */
#include "worker/store/pg.h"

static void read_set(const struct pg_rows *r, int row, struct store_eval_set *out)
{
    struct cursor c = {r, row, 0};
    next_uuid(&c, &out->id);
    out->name = next_str(&c);
    out->questions = next_i64(&c);
    out->text = next_str(&c);
}

static suspends int one(struct store *st, struct arena *a, enum pg_statement stmt, struct pg_args *args,
                        struct store_eval_set *out, struct err *e)
{
    struct pg_rows r;
    if (pg_call(pg_of(st)->pg, stmt, args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return store_no_set(e);
    read_set(&r, 0, out);
    return 0;
}

suspends int pg_eval_set_get(struct store *st, struct arena *a, const struct uuid *id, struct str name,
                             struct store_eval_set *out, struct err *e)
{
    struct pg_args args;
    pg_args_init(&args, a);
    if (id)
        pg_arg_uuid(&args, id);
    else
        pg_arg_str(&args, name);
    return one(st, a, id ? S_EVAL_SET_GET : S_EVAL_SET_BY_NAME, &args, out, e);
}

/* Nothing was inserted: because of the name, or of the others? */
static suspends int why_not(struct store *st, struct arena *a, struct str name, int64_t max, struct err *e)
{
    struct store_eval_set other;
    struct err why = {0};
    if (pg_eval_set_get(st, a, NULL, name, &other, &why) == 0)
        return store_set_taken(name, e);
    if (why.code == ERR_NOT_FOUND)
        return store_sets_full(max, e);
    *e = why;
    return -1;
}

suspends int pg_eval_set_create(struct store *st, struct arena *a, const struct store_eval_set *in, int64_t max,
                                struct store_eval_set *out, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    struct store_eval_set now = {.id = uuid_v7(), .questions = in->questions};
    now.name = arena_dup(a, in->name);
    now.text = arena_dup(a, in->text);
    pg_args_init(&args, a);
    pg_arg_uuid(&args, &now.id);
    pg_arg_str(&args, now.name);
    pg_arg_i64(&args, now.questions);
    pg_arg_str(&args, now.text);
    pg_arg_i64(&args, max);
    if (pg_call(pg_of(st)->pg, S_EVAL_SET_CREATE, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return why_not(st, a, in->name, max, e);
    *out = now;
    return 0;
}

suspends int pg_eval_set_list(struct store *st, struct arena *a, const struct store_page *p,
                              struct store_eval_set **out, size_t *n, bool *more, struct err *e)
{
    struct pg_rows r;
    if (page_rows(st, a, p, S_EVAL_SETS_UP, S_EVAL_SETS_DOWN, &r, e) < 0)
        return -1;
    struct store_eval_set *rows = arena_alloc(a, (size_t)(r.n + 1) * sizeof *rows);
    for (int i = 0; i < r.n; i++)
        read_set(&r, i, &rows[i]);
    *n = (size_t)r.n;
    page_end(p, rows, sizeof *rows, n, more);
    *out = rows;
    return 0;
}

suspends int pg_eval_set_delete(struct store *st, const struct uuid *id, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    pg_arg_uuid(&args, id);
    int rc = pg_call(pg_of(st)->pg, S_EVAL_SET_DELETE, &args, &a, &r, e);
    if (rc == 0 && !r.n)
        rc = store_no_set(e);
    arena_fini(&a);
    return rc;
}

suspends int pg_eval_result_put(struct store *st, const struct uuid *job, const struct uuid *set, struct str result,
                                int keep, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    pg_arg_uuid(&args, job);
    pg_arg_uuid(&args, set);
    pg_arg_str(&args, result);
    pg_arg_i64(&args, keep);
    int rc = pg_call(pg_of(st)->pg, S_EVAL_RESULT_PUT, &args, &a, &r, e);
    if (rc == 0 && !r.n)
        rc = store_no_set(e);
    arena_fini(&a);
    return rc;
}

suspends int pg_eval_result_get(struct store *st, struct arena *a, const struct uuid *job, struct str *result,
                                struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, job);
    if (pg_call(pg_of(st)->pg, S_EVAL_RESULT_GET, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return store_no_result(e);
    struct cursor c = {&r, 0, 0};
    *result = next_str(&c);
    return 0;
}
