#include "worker/store/pg.h"
#include "common/buf.h"
#include <stdlib.h>

suspends int pg_job_create(struct store *st, struct arena *a, struct str type, const struct uuid *collection,
                           struct str payload, struct store_job *out, struct err *e)
{
    struct store_job j = {.id = uuid_v7(),
                          .type = arena_dup(a, type),
                          .payload = payload.n ? arena_dup(a, payload) : STR("{}"),
                          .has_collection = collection != NULL};
    struct pg_args args;
    struct pg_rows r;
    j.run_after_us = j.updated_us = uuid_time_us(&j.id);
    pg_args_init(&args, a);
    pg_arg_uuid(&args, &j.id);
    pg_arg_str(&args, j.type);
    if (collection) {
        j.collection = *collection;
        pg_arg_uuid(&args, &j.collection);
    } else {
        pg_arg_null(&args);
    }
    pg_arg_str(&args, j.payload);
    pg_arg_i64(&args, j.updated_us);
    if (pg_call(pg_of(st)->pg, S_JOB_CREATE, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return err_set(e, ERR_NOT_FOUND, NO_COLLECTION);
    pg_announce(pg_of(st));
    *out = j;
    return 0;
}

suspends int pg_job_get(struct store *st, struct arena *a, const struct uuid *id, struct store_job *out, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    if (pg_call(pg_of(st)->pg, S_JOB_GET, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return err_set(e, ERR_NOT_FOUND, NO_JOB);
    read_job(&r, 0, out);
    return 0;
}

static void list_sql(struct query *s, const struct store_job_query *q, const struct page *page)
{
    pg_arg_uuid(&s->args, &page->lo);
    pg_arg_uuid(&s->args, &page->hi);
    pg_arg_i64(&s->args, q->page.limit + 1);
    buf_lit(&s->sql, "SELECT " J_COLUMNS "FROM jobs WHERE id > $1::uuid AND id < $2::uuid");
    if (q->has_state) /* a literal lets the partial indexes serve it */
        buf_printf(&s->sql, " AND state = %d", (int)q->state);
    if (q->has_document) {
        pg_arg_uuid(&s->args, &q->document);
        buf_printf(&s->sql, " AND document = $%d::uuid", s->args.n);
    }
    if (q->has_collection) {
        pg_arg_uuid(&s->args, &q->collection);
        buf_printf(&s->sql, " AND collection = $%d::uuid", s->args.n);
    }
    if (q->type.n) {
        pg_arg_str(&s->args, q->type);
        buf_printf(&s->sql, " AND type = $%d::text", s->args.n);
    }
    buf_printf(&s->sql, " ORDER BY id %s LIMIT $3::bigint", page->up ? "ASC" : "DESC");
    buf_ch(&s->sql, 0);
}

suspends int pg_job_list(struct store *st, struct arena *a, const struct store_job_query *q, struct store_job **out,
                         size_t *n, bool *more, struct err *e)
{
    struct page page = page_of(&q->page);
    struct query s = {0};
    struct pg_rows r;
    pg_args_init(&s.args, a);
    list_sql(&s, q, &page);
    int rc = pg_query(pg_of(st)->pg, s.sql.p, false, &s.args, a, &r, e);
    buf_fini(&s.sql);
    if (rc < 0)
        return -1;
    struct store_job *rows = arena_alloc(a, (size_t)(r.n + 1) * sizeof *rows);
    for (int i = 0; i < r.n; i++)
        read_job(&r, i, &rows[i]);
    *n = (size_t)r.n;
    page_end(&q->page, rows, sizeof *rows, n, more);
    *out = rows;
    return 0;
}

suspends int pg_job_counts(struct store *st, int64_t out[JOB_STATE_COUNT], struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    int rc = pg_call(pg_of(st)->pg, S_JOB_COUNTS, &args, &a, &r, e);
    if (rc == 0) {
        memset(out, 0, JOB_STATE_COUNT * sizeof *out);
        for (int i = 0; i < r.n; i++) {
            int64_t state = pg_i64(&r, i, 0);
            if (state >= 0 && state < JOB_STATE_COUNT)
                out[state] = pg_i64(&r, i, 1);
        }
    }
    arena_fini(&a);
    return rc;
}

/* ---- what clients ask of a job ---- */

static suspends int change(struct store *st, struct arena *a, enum pg_statement stmt, const struct uuid *id,
                           int64_t *outcome, enum job_state *state, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    if (pg_call(pg_of(st)->pg, stmt, &args, a, &r, e) < 0)
        return -1;
    *outcome = pg_i64(&r, 0, 0);
    *state = (enum job_state)pg_i64(&r, 0, 1);
    return *outcome == -1 ? err_set(e, ERR_NOT_FOUND, NO_JOB) : 0;
}

suspends int pg_job_cancel(struct store *st, struct arena *a, const struct uuid *id, struct store_job *out,
                           struct err *e)
{
    int64_t outcome;
    enum job_state state;
    if (change(st, a, S_JOB_CANCEL, id, &outcome, &state, e) < 0)
        return -1;
    if (outcome < 0)
        return err_set(e, ERR_CONFLICT, "The job is over: it has %s", job_state_name(state));
    return READ_BACK(e, pg_job_get(st, a, id, out, e));
}

suspends int pg_job_retry(struct store *st, struct arena *a, const struct uuid *id, struct store_job *out,
                          struct err *e)
{
    int64_t outcome;
    enum job_state state;
    if (change(st, a, S_JOB_RETRY, id, &outcome, &state, e) < 0)
        return -1;
    if (outcome == -3)
        return err_set(e, ERR_CONFLICT, "Only failed and cancelled jobs can be retried: this one is %s",
                       job_state_name(state));
    if (outcome == -4)
        return err_set(e, ERR_CONFLICT, "The document of this job is gone");
    if (outcome == -5)
        return err_set(e, ERR_CONFLICT, "The document has a newer job");
    pg_announce(pg_of(st));
    return READ_BACK(e, pg_job_get(st, a, id, out, e));
}

/* ---- jobs as the worker that holds their lease sees them ---- */

static int lease_lost(struct err *e)
{
    return err_set(e, ERR_CONFLICT, "The lease of the job is lost");
}

/* Looking first keeps idle workers out of the write lane. */
static suspends int anything_due(struct store *st, struct arena *a, bool *due, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    if (pg_call(pg_of(st)->pg, S_JOB_DUE, &args, a, &r, e) < 0)
        return -1;
    *due = r.n > 0;
    return 0;
}

suspends int pg_job_lease(struct store *st, struct arena *a, const struct uuid *owner, int64_t lease_us, size_t max,
                          struct store_job *out, size_t *n, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    bool due;
    if (anything_due(st, a, &due, e) < 0)
        return -1;
    *n = 0;
    if (!due)
        return 0;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, owner);
    pg_arg_i64(&args, lease_us);
    pg_arg_i64(&args, (int64_t)max);
    pg_arg_i64(&args, STORE_LIGHT);
    if (pg_call(pg_of(st)->pg, S_JOB_LEASE, &args, a, &r, e) < 0)
        return -1;
    for (; *n < max && (int)*n < r.n; ++*n)
        read_job(&r, (int)*n, &out[*n]);
    return 0;
}

suspends int pg_job_claim(struct store *st, struct arena *a, const struct uuid *job, const struct uuid *owner,
                          int64_t lease_us, struct store_job *out, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, job);
    pg_arg_uuid(&args, owner);
    pg_arg_i64(&args, lease_us);
    if (pg_call(pg_of(st)->pg, S_JOB_CLAIM, &args, a, &r, e) < 0)
        return -1;
    if (r.n) {
        read_job(&r, 0, out);
        return 0;
    }
    return pg_job_get(st, a, job, out, e) < 0 ? -1
                                              : err_set(e, ERR_CONFLICT, "The job is %s", job_state_name(out->state));
}

suspends int pg_job_renew(struct store *st, const struct uuid *job, const struct uuid *owner, int64_t lease_us,
                          enum document_state state, struct str stage, int64_t done, int64_t total, bool *cancel,
                          struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    pg_arg_uuid(&args, job);
    pg_arg_uuid(&args, owner);
    pg_arg_i64(&args, lease_us);
    pg_arg_i64(&args, state);
    pg_arg_str(&args, stage);
    pg_arg_i64(&args, done);
    pg_arg_i64(&args, total);
    int rc = pg_call(pg_of(st)->pg, S_JOB_RENEW, &args, &a, &r, e);
    if (rc == 0 && !r.n)
        rc = lease_lost(e);
    else if (rc == 0)
        *cancel = pg_bool(&r, 0, 0);
    arena_fini(&a);
    return rc;
}

/* Runs a statement whose one value is 0, or something else when the lease is lost. */
static suspends int end(struct store *st, struct arena *a, enum pg_statement stmt, struct pg_args *args, struct err *e)
{
    struct pg_rows r;
    int rc = pg_call(pg_of(st)->pg, stmt, args, a, &r, e);
    if (rc == 0 && pg_i64(&r, 0, 0) != 0)
        rc = lease_lost(e);
    arena_fini(a);
    return rc;
}

suspends int pg_job_finish(struct store *st, const struct uuid *job, const struct uuid *owner, enum job_state state,
                           struct str code, struct str stage, struct str message, int page, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    pg_args_init(&args, &a);
    pg_arg_uuid(&args, job);
    pg_arg_uuid(&args, owner);
    pg_arg_i64(&args, state);
    pg_arg_str(&args, code);
    pg_arg_str(&args, stage);
    pg_arg_str(&args, message);
    pg_arg_i64(&args, page);
    return end(st, &a, S_JOB_FINISH, &args, e);
}

suspends int pg_job_put_back(struct store *st, const struct uuid *job, const struct uuid *owner, int64_t delay_us,
                             bool count_attempt, struct str code, struct str stage, struct str message, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    pg_args_init(&args, &a);
    pg_arg_uuid(&args, job);
    pg_arg_uuid(&args, owner);
    pg_arg_i64(&args, delay_us);
    pg_arg_bool(&args, count_attempt);
    pg_arg_str(&args, code);
    pg_arg_str(&args, stage);
    pg_arg_str(&args, message);
    return end(st, &a, S_JOB_PUT_BACK, &args, e);
}
