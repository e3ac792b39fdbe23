#include "worker/store/sqlite.h"
#include "common/clock.h"

#define COLUMNS                                                                                                    \
    "id, type, state, document, collection, payload, cancel_requested, stage, done, total, attempts, error_code, " \
    "error_stage, error_message, due_us, started_us, finished_us, updated_us, "                                    \
    "committed"

static void job_read(struct stmt *s, struct arena *a, struct store_job *out)
{
    *out = (struct store_job){0};
    col_uuid(s, &out->id);
    out->type = col_str(s, a);
    out->state = (enum job_state)col_i64(s);
    out->has_document = col_uuid(s, &out->document);
    out->has_collection = col_uuid(s, &out->collection);
    out->payload = col_str(s, a);
    out->cancel_requested = col_i64(s) != 0;
    out->stage = col_str(s, a);
    out->done = col_i64(s);
    out->total = col_i64(s);
    out->attempts = (int)col_i64(s);
    out->error_code = col_str(s, a);
    out->error_stage = col_str(s, a);
    out->error_message = col_str(s, a);
    int64_t due = col_i64(s);
    out->run_after_us = out->state == JOB_queued ? due : 0;
    out->lease_expires_us = out->state == JOB_running ? due : 0;
    out->started_us = col_i64(s);
    out->finished_us = col_i64(s);
    out->updated_us = col_i64(s);
    out->committed = col_i64(s);
}

int job_find(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_job *out, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT " COLUMNS " FROM jobs WHERE id = ?");
    bind_uuid(s, id);
    int rc = stmt_row(s, e);
    if (rc > 0) {
        job_read(s, a, out);
        stmt_end(s);
    }
    return rc;
}

int job_by_id(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_job *out, struct err *e)
{
    int rc = job_find(db, a, id, out, e);
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, NO_JOB);
    return rc < 0 ? -1 : 0;
}

int job_insert(struct sqlite *db, struct store_job *j, struct err *e)
{
    j->id = uuid_v7();
    j->state = JOB_queued;
    j->updated_us = uuid_time_us(&j->id);
    if (!j->run_after_us)
        j->run_after_us = j->updated_us;
    struct stmt *s = stmt_get(db, "INSERT INTO jobs (id, type, document, collection, payload, total, due_us,"
                                  " updated_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    bind_uuid(s, &j->id);
    bind_str(s, j->type);
    bind_uuid(s, j->has_document ? &j->document : NULL);
    bind_uuid(s, j->has_collection ? &j->collection : NULL);
    bind_str(s, j->payload);
    bind_i64(s, j->total);
    bind_i64(s, j->run_after_us);
    bind_i64(s, j->updated_us);
    return stmt_run(s, e);
}

static struct store_job ingest_job(const struct store_document *d)
{
    return (struct store_job){.type = STR("ingest"),
                              .has_document = true,
                              .document = d->id,
                              .has_collection = true,
                              .collection = d->collection,
                              .payload = STR("{}")};
}

int job_for_document(struct sqlite *db, struct arena *a, const struct store_document *d, struct store_job *out,
                     struct err *e)
{
    int rc = job_find(db, a, &d->job, out, e);
    if (rc < 0)
        return -1;
    if (rc > 0 && (out->state == JOB_queued || (out->state == JOB_running && !out->cancel_requested)))
        return 0;
    *out = ingest_job(d);
    return job_insert(db, out, e);
}

/* A job that waits, or else a new one: a job that runs does not know of this URL. */
int job_to_fetch(struct sqlite *db, struct arena *a, const struct store_document *d, struct str url,
                 struct store_job *out, struct err *e)
{
    int rc = job_find(db, a, &d->job, out, e);
    if (rc < 0)
        return -1;
    if (rc == 0 || out->state != JOB_queued) {
        *out = ingest_job(d);
        if (job_insert(db, out, e) < 0)
            return -1;
    }
    struct stmt *s = stmt_get(db, "UPDATE jobs SET payload = json_object('url', ?) WHERE id = ?");
    bind_str(s, url);
    bind_uuid(s, &out->id);
    return stmt_run(s, e);
}

int job_instead_of_fetch(struct sqlite *db, struct arena *a, const struct store_document *d, struct store_job *out,
                         struct err *e)
{
    struct store_job fetch;
    int rc = job_find(db, a, &d->job, &fetch, e);
    if (rc <= 0 || str_eq(fetch.payload, STR("{}")) || (fetch.state != JOB_queued && fetch.state != JOB_running))
        return rc < 0 ? -1 : 0;
    *out = fetch.state == JOB_queued ? fetch : ingest_job(d);
    rc = fetch.state == JOB_queued ? job_fetch_nothing(db, &fetch.id, e) : job_insert(db, out, e);
    return rc < 0 ? -1 : 1;
}

int job_fetch_nothing(struct sqlite *db, const struct uuid *job, struct err *e)
{
    struct stmt *s = stmt_get(db, "UPDATE jobs SET payload = '{}' WHERE id = ? AND payload <> '{}'");
    bind_uuid(s, job);
    return stmt_run(s, e);
}

int job_forget_document(struct sqlite *db, int64_t document, struct err *e)
{
    struct stmt *s = stmt_get(db, "DELETE FROM jobs WHERE document = (SELECT id FROM documents WHERE no = ?)"
                                  " AND state NOT IN (0, 1)");
    bind_i64(s, document);
    if (stmt_run(s, e) < 0)
        return -1;
    s = stmt_get(db, "UPDATE jobs SET state = 4, owner = NULL, due_us = 0, finished_us = ?2, updated_us = ?2,"
                     " error_code = 'document_deleted', error_message = 'The document was deleted'"
                     " WHERE document = (SELECT id FROM documents WHERE no = ?1)");
    bind_i64(s, document);
    bind_i64(s, clock_wall_us());
    return stmt_run(s, e);
}

/* ---- create, read ---- */

static int create(struct sqlite *db, void *arg, struct err *e)
{
    struct store_job *j = arg;
    int64_t no;
    if (j->has_collection && collection_no(db, &j->collection, &no, e) < 0)
        return -1;
    return job_insert(db, j, e);
}

suspends int sqlite_job_create(struct store *st, struct arena *a, struct str type, const struct uuid *collection,
                               struct str payload, struct store_job *out, struct err *e)
{
    struct store_job j = {.type = arena_dup(a, type), .payload = payload.n ? arena_dup(a, payload) : STR("{}")};
    if (collection) {
        j.has_collection = true;
        j.collection = *collection;
    }
    if (sqlite_write(sqlite_of(st), create, &j, e) < 0)
        return -1;
    *out = j;
    return 0;
}

suspends int sqlite_job_get(struct store *st, struct arena *a, const struct uuid *id, struct store_job *out,
                            struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, job_by_id(db, a, id, out, e));
}

static int list(struct sqlite *db, struct arena *a, const struct store_job_query *q, struct store_job *rows, size_t *n,
                struct err *e)
{
    struct page_sql page = page_sql(a, &q->page, "id");
    const char *state = "", *hint = "";
    int rc;
    if (q->has_state)
        state =
            arena_printf(a, " AND state = %d%s", (int)q->state, q->state != JOB_succeeded ? " AND state <> 2" : "").p;
    if (q->has_state && q->state != JOB_succeeded && !q->has_document && !q->has_collection)
        hint = " INDEXED BY jobs_unsuccessful"; /* the planner cannot see that it serves */
    struct stmt *s = stmt_get(db, arena_printf(a, "SELECT " COLUMNS " FROM jobs%s WHERE 1%s%s%s%s%s%s LIMIT ?", hint,
                                               state, q->has_document ? " AND document = ?" : "",
                                               q->has_collection ? " AND collection = ?" : "",
                                               q->type.n ? " AND type = ?" : "", page.where.p, page.order.p)
                                      .p);
    if (q->has_document)
        bind_uuid(s, &q->document);
    if (q->has_collection)
        bind_uuid(s, &q->collection);
    if (q->type.n)
        bind_str(s, q->type);
    page_bind(s, &q->page);
    bind_i64(s, q->page.limit + 1);
    *n = 0;
    while ((rc = stmt_row(s, e)) > 0)
        job_read(s, a, &rows[(*n)++]);
    return rc;
}

suspends int sqlite_job_list(struct store *st, struct arena *a, const struct store_job_query *q, struct store_job **out,
                             size_t *n, bool *more, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct store_job *rows = arena_alloc(a, ((size_t)q->page.limit + 1) * sizeof *rows);
    size_t found;
    if (SQLITE_TRY(db, e, list(db, a, q, rows, &found, e)) < 0)
        return -1;
    *more = found > (size_t)q->page.limit;
    *n = *more ? (size_t)q->page.limit : found;
    page_turn(&q->page, rows, *n, sizeof *rows);
    *out = rows;
    return 0;
}

static int counts(struct sqlite *db, int64_t out[JOB_STATE_COUNT], struct err *e)
{
    int64_t n[JOB_STATE_COUNT] = {0}, others = 0;
    int rc;
    struct stmt *s = stmt_get(db, "SELECT state, count(*) FROM jobs WHERE state <> 2 GROUP BY state");
    while ((rc = stmt_row(s, e)) > 0) {
        int64_t state = col_i64(s);
        if (state >= 0 && state < JOB_STATE_COUNT)
            others += n[state] = col_i64(s);
    }
    if (rc < 0)
        return -1;
    s = stmt_get(db, "SELECT count(*) FROM jobs");
    if (stmt_row(s, e) <= 0)
        return -1;
    n[JOB_succeeded] = col_i64(s) - others;
    stmt_end(s);
    memcpy(out, n, sizeof n);
    return 0;
}

suspends int sqlite_job_counts(struct store *st, int64_t out[JOB_STATE_COUNT], struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, counts(db, out, e));
}

/* ---- what clients ask of a job ---- */

struct change_call {
    struct arena *a;
    const struct uuid *id;
    struct store_job job;
};

static int cancel(struct sqlite *db, void *arg, struct err *e)
{
    struct change_call *c = arg;
    struct store_job *j = &c->job;
    if (job_by_id(db, c->a, c->id, j, e) < 0)
        return -1;
    if (j->state != JOB_queued && j->state != JOB_running)
        return err_set(e, ERR_CONFLICT, "The job is over: it has %s", job_state_name(j->state));
    j->updated_us = clock_wall_us();
    struct stmt *s;
    if (j->state == JOB_running) {
        j->cancel_requested = true;
        s = stmt_get(db, "UPDATE jobs SET cancel_requested = 1, updated_us = ? WHERE id = ?");
        bind_i64(s, j->updated_us);
        bind_uuid(s, c->id);
        return stmt_run(s, e);
    }
    j->state = JOB_cancelled;
    j->finished_us = j->updated_us;
    j->run_after_us = 0;
    s = stmt_get(db, "UPDATE jobs SET state = 4, due_us = 0, finished_us = ?1, updated_us = ?1 WHERE id = ?2");
    bind_i64(s, j->updated_us);
    bind_uuid(s, c->id);
    if (stmt_run(s, e) < 0)
        return -1;
    return j->has_document
               ? document_finish(db, &j->document, &j->id, &(struct document_end){.state = DOCUMENT_cancelled}, e)
               : 0;
}

suspends int sqlite_job_cancel(struct store *st, struct arena *a, const struct uuid *id, struct store_job *out,
                               struct err *e)
{
    struct change_call c = {.a = a, .id = id};
    if (sqlite_write(sqlite_of(st), cancel, &c, e) < 0)
        return -1;
    *out = c.job;
    return 0;
}

static int retry(struct sqlite *db, void *arg, struct err *e)
{
    struct change_call *c = arg;
    struct store_job *j = &c->job;
    struct store_document d;
    if (job_by_id(db, c->a, c->id, j, e) < 0)
        return -1;
    if (j->state != JOB_failed && j->state != JOB_cancelled)
        return err_set(e, ERR_CONFLICT, "Only failed and cancelled jobs can be retried: this one is %s",
                       job_state_name(j->state));
    if (j->has_document) {
        struct err gone;
        if (document_by_id(db, c->a, &j->document, &d, &gone) < 0)
            return gone.code == ERR_NOT_FOUND ? err_set(e, ERR_CONFLICT, "The document of this job is gone")
                                              : (e ? (*e = gone, -1) : -1);
        if (!uuid_eq(&d.job, &j->id))
            return err_set(e, ERR_CONFLICT, "The document has a newer job");
    }
    j->state = JOB_queued;
    j->run_after_us = j->updated_us = clock_wall_us();
    j->attempts = 0;
    j->done = j->total = j->started_us = j->finished_us = 0;
    j->cancel_requested = false;
    j->stage = j->error_code = j->error_stage = j->error_message = STR("");
    struct stmt *s = stmt_get(db, "UPDATE jobs SET state = 0, due_us = ?1, updated_us = ?1, attempts = 0, done = 0,"
                                  " total = 0, started_us = 0, finished_us = 0, cancel_requested = 0, stage = '',"
                                  " error_code = '', error_stage = '', error_message = '', owner = NULL"
                                  " WHERE id = ?2");
    bind_i64(s, j->updated_us);
    bind_uuid(s, c->id);
    if (stmt_run(s, e) < 0)
        return -1;
    return j->has_document
               ? document_finish(db, &j->document, &j->id, &(struct document_end){.state = DOCUMENT_queued}, e)
               : 0;
}

suspends int sqlite_job_retry(struct store *st, struct arena *a, const struct uuid *id, struct store_job *out,
                              struct err *e)
{
    struct change_call c = {.a = a, .id = id};
    if (sqlite_write(sqlite_of(st), retry, &c, e) < 0)
        return -1;
    *out = c.job;
    return 0;
}

/* ---- a document once more ---- */

int document_queue(struct sqlite *db, const struct store_document *d, const struct uuid *job, struct err *e)
{
    struct stmt *s = stmt_get(db, "UPDATE documents SET job = ?, progress_done = 0, progress_total = 0 WHERE no = ?");
    bind_uuid(s, job);
    bind_i64(s, d->no);
    if (stmt_run(s, e) < 0)
        return -1;
    return document_finish(db, &d->id, job, &(struct document_end){.state = DOCUMENT_queued}, e);
}

struct reprocess_call {
    struct arena *a;
    const struct uuid *id;
    struct store_job job;
};

static int reprocess(struct sqlite *db, void *arg, struct err *e)
{
    struct reprocess_call *c = arg;
    struct store_document d;
    struct store_job newest;
    if (document_by_id(db, c->a, c->id, &d, e) < 0)
        return -1;
    int rc = job_find(db, c->a, &d.job, &newest, e);
    if (rc < 0)
        return -1;
    if (rc > 0 && (newest.state == JOB_queued || newest.state == JOB_running))
        return err_set(e, ERR_BUSY, "A job of this document is under way");
    if (job_for_document(db, c->a, &d, &c->job, e) < 0)
        return -1;
    return document_queue(db, &d, &c->job.id, e);
}

suspends int sqlite_document_reprocess(struct store *st, struct arena *a, const struct uuid *id, struct store_job *job,
                                       struct err *e)
{
    struct reprocess_call c = {.a = a, .id = id};
    if (sqlite_write(sqlite_of(st), reprocess, &c, e) < 0)
        return -1;
    *job = c.job;
    return 0;
}
