/* Jobs as the worker that holds their lease sees them. */
#include "worker/store/sqlite.h"
#include "common/clock.h"

#define HELD " WHERE id = ? AND owner = ? AND state = 1"

int job_lease_lost(struct err *e)
{
    return err_set(e, ERR_CONFLICT, "The lease of the job is lost");
}

int job_end_held(struct sqlite *db, const struct uuid *job, const struct uuid *owner, enum job_state state,
                 const struct document_end *end, struct err *e)
{
    struct stmt *s = stmt_get(db, "UPDATE jobs SET state = ?, error_code = ?, error_stage = ?, error_message = ?,"
                                  " owner = NULL, due_us = 0, finished_us = ?5, updated_us = ?5"
                                  " WHERE id = ?6 AND owner IS ?7 AND state = 1");
    bind_i64(s, state);
    bind_str(s, end->code);
    bind_str(s, end->stage);
    bind_str(s, end->message);
    bind_i64(s, clock_wall_us());
    bind_uuid(s, job);
    bind_uuid(s, owner);
    if (stmt_run(s, e) < 0)
        return -1;
    return sqlite3_changes(db->h) == 1 ? 0 : job_lease_lost(e);
}

int job_held(struct sqlite *db, const struct uuid *job, const struct uuid *owner, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT 1 FROM jobs" HELD);
    bind_uuid(s, job);
    bind_uuid(s, owner);
    int rc = stmt_row(s, e);
    if (rc > 0)
        stmt_end(s);
    return rc < 0 ? -1 : rc ? 0 : job_lease_lost(e);
}

/* ---- lease ---- */

struct lease_call {
    struct arena *a;
    const struct uuid *owner;
    int64_t lease_us;
    size_t max;
    struct store_job *job;
    size_t n;
};

static int due(struct sqlite *db, struct uuid *id, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT id FROM jobs WHERE state < 2 AND due_us <= ? ORDER BY due_us, id LIMIT 1");
    bind_i64(s, clock_wall_us());
    int rc = stmt_row(s, e);
    if (rc > 0) {
        col_uuid(s, id);
        stmt_end(s);
    }
    return rc;
}

/* A job that nobody wants any more: its holder died after the cancellation, or its collection has been deleted. */
static int abandoned(struct sqlite *db, struct arena *a, const struct store_job *j, struct store_document *d,
                     struct err *e)
{
    struct err why;
    *d = (struct store_document){.content_version = 0};
    if (j->cancel_requested)
        return 1;
    if (!j->has_document || document_by_id(db, a, &j->document, d, &why) == 0)
        return 0;
    if (why.code == ERR_NOT_FOUND)
        return 1;
    if (e)
        *e = why;
    return -1;
}

static int drop(struct sqlite *db, const struct store_job *j, struct err *e)
{
    struct document_end end = {.state = DOCUMENT_cancelled};
    struct stmt *s = stmt_get(db, "UPDATE jobs SET state = 4, owner = NULL, due_us = 0, finished_us = ?1,"
                                  " updated_us = ?1 WHERE id = ?2");
    bind_i64(s, clock_wall_us());
    bind_uuid(s, &j->id);
    if (stmt_run(s, e) < 0)
        return -1;
    return j->has_document ? document_finish(db, &j->document, &j->id, &end, e) : 0;
}

static int take(struct sqlite *db, const struct lease_call *c, struct store_job *j, int64_t content_version,
                struct err *e)
{
    int64_t now = clock_wall_us();
    struct stmt *s = stmt_get(db, "UPDATE jobs SET state = 1, owner = ?, due_us = ?, started_us = ?,"
                                  " attempts = attempts + 1, stage = '', done = 0, content_version = ?,"
                                  " updated_us = ? WHERE id = ?");
    j->state = JOB_running;
    j->attempts++;
    j->run_after_us = 0;
    j->lease_expires_us = now + c->lease_us;
    j->started_us = now;
    j->updated_us = now;
    j->stage = STR("");
    j->done = 0;
    bind_uuid(s, c->owner);
    bind_i64(s, j->lease_expires_us);
    bind_i64(s, j->started_us);
    bind_i64(s, content_version);
    bind_i64(s, now);
    bind_uuid(s, &j->id);
    return stmt_run(s, e);
}

static int lease(struct sqlite *db, void *arg, struct err *e)
{
    struct lease_call *c = arg;
    struct store_document d;
    struct uuid id;
    c->n = 0;
    for (int looked = 0; looked < 100 && c->n < c->max; looked++) {
        struct store_job *j = &c->job[c->n];
        int rc = due(db, &id, e);
        if (rc <= 0)
            return rc;
        if (job_by_id(db, c->a, &id, j, e) < 0)
            return -1;
        rc = abandoned(db, c->a, j, &d, e);
        if (rc < 0)
            return -1;
        if (rc > 0) {
            if (drop(db, j, e) < 0)
                return -1;
            continue;
        }
        bool light = j->has_document && j->attempts == 0 && d.bytes > 0 && d.bytes <= STORE_LIGHT;
        if (c->n && !light)
            return 0;
        if (take(db, c, j, d.content_version, e) < 0)
            return -1;
        c->n++;
        if (!light)
            return 0;
    }
    return 0;
}

suspends int sqlite_job_lease(struct store *st, struct arena *a, const struct uuid *owner, int64_t lease_us, size_t max,
                              struct store_job *out, size_t *n, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct lease_call c = {.a = a, .owner = owner, .lease_us = lease_us, .max = max, .job = out};
    struct uuid id;
    int rc = SQLITE_TRY(db, e, due(db, &id, e)); /* looking takes no lock */
    if (rc < 0 || (rc > 0 && sqlite_write(db, lease, &c, e) < 0))
        return -1;
    *n = c.n;
    return 0;
}

struct claim_call {
    const struct uuid *id;
    struct lease_call lease;
};

static int claim(struct sqlite *db, void *arg, struct err *e)
{
    struct claim_call *c = arg;
    struct lease_call *l = &c->lease;
    struct store_document d;
    if (job_by_id(db, l->a, c->id, l->job, e) < 0)
        return -1;
    int rc = l->job->state == JOB_queued ? abandoned(db, l->a, l->job, &d, e) : 1;
    if (rc > 0)
        return err_set(e, ERR_CONFLICT, "The job is %s", job_state_name(l->job->state));
    return rc < 0 ? -1 : take(db, l, l->job, d.content_version, e);
}

suspends int sqlite_job_claim(struct store *st, struct arena *a, const struct uuid *job, const struct uuid *owner,
                              int64_t lease_us, struct store_job *out, struct err *e)
{
    struct store_job found;
    struct claim_call c = {job, {.a = a, .owner = owner, .lease_us = lease_us, .job = &found}};
    if (sqlite_write(sqlite_of(st), claim, &c, e) < 0)
        return -1;
    *out = found;
    return 0;
}

/* ---- progress ---- */

struct renew_call {
    const struct uuid *job, *owner;
    int64_t lease_us;
    enum document_state state;
    struct str stage;
    int64_t done, total;
    bool cancel;
};

static int renew(struct sqlite *db, void *arg, struct err *e)
{
    struct renew_call *c = arg;
    struct uuid document;
    int64_t now = clock_wall_us();
    struct stmt *s = stmt_get(db, "UPDATE jobs SET due_us = ?, stage = ?, done = ?, total = ?, updated_us = ?" HELD
                                  " RETURNING cancel_requested, document");
    bind_i64(s, now + c->lease_us);
    bind_str(s, c->stage);
    bind_i64(s, c->done);
    bind_i64(s, c->total);
    bind_i64(s, now);
    bind_uuid(s, c->job);
    bind_uuid(s, c->owner);
    int rc = stmt_row(s, e);
    if (rc == 0)
        return job_lease_lost(e);
    if (rc < 0)
        return -1;
    c->cancel = col_i64(s) != 0;
    bool has_document = col_uuid(s, &document);
    stmt_end(s);
    if (!has_document)
        return 0;
    s = stmt_get(
        db,
        "UPDATE documents SET state = ?1, progress_done = ?2, progress_total = ?3, version = version + 1,"
        " updated_us = ?4 WHERE id = ?5 AND job = ?6 AND (state <> ?1 OR progress_done <> ?2 OR progress_total <> ?3)");
    bind_i64(s, c->state);
    bind_i64(s, c->done);
    bind_i64(s, c->total);
    bind_i64(s, now);
    bind_uuid(s, &document);
    bind_uuid(s, c->job);
    return stmt_run(s, e);
}

suspends int sqlite_job_renew(struct store *st, const struct uuid *job, const struct uuid *owner, int64_t lease_us,
                              enum document_state state, struct str stage, int64_t done, int64_t total, bool *cancel,
                              struct err *e)
{
    struct renew_call c = {job, owner, lease_us, state, stage, done, total, false};
    if (sqlite_write(sqlite_of(st), renew, &c, e) < 0)
        return -1;
    *cancel = c.cancel;
    return 0;
}

/* ---- ends ---- */

int job_requeue(struct sqlite *db, const struct uuid *job, const struct uuid *document, struct err *e)
{
    struct stmt *s = stmt_get(db, "UPDATE jobs SET state = 0, owner = NULL, due_us = ?1, attempts = 0, done = 0,"
                                  " stage = '', updated_us = ?1 WHERE id = ?2");
    bind_i64(s, clock_wall_us());
    bind_uuid(s, job);
    if (stmt_run(s, e) < 0)
        return -1;
    s = stmt_get(db, "UPDATE documents SET progress_done = 0, progress_total = 0 WHERE id = ?");
    bind_uuid(s, document);
    if (stmt_run(s, e) < 0)
        return -1;
    return document_finish(db, document, job, &(struct document_end){.state = DOCUMENT_queued}, e);
}

struct finish_call {
    const struct uuid *job, *owner;
    enum job_state state;
    struct document_end end;
};

/* Document of a held job, and whether its content is another one than when the job was leased. 1, 0: none, -1. */
static int document_of(struct sqlite *db, const struct uuid *job, struct uuid *document, bool *changed, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT d.id, d.content_version <> j.content_version FROM jobs j"
                                  " JOIN documents d ON d.id = j.document WHERE j.id = ?");
    bind_uuid(s, job);
    int rc = stmt_row(s, e);
    if (rc > 0) {
        col_uuid(s, document);
        *changed = col_i64(s) != 0;
        stmt_end(s);
    }
    return rc;
}

static int make_ready(struct sqlite *db, const struct uuid *document, const struct uuid *job, struct err *e)
{
    struct stmt *s = stmt_get(db, "UPDATE documents SET state = 5, progress_done = chunks, progress_total = chunks,"
                                  " error_code = '', error_stage = '', error_message = '', error_page = 0,"
                                  " version = version + 1, updated_us = ? WHERE id = ? AND job = ?"
                                  " AND indexed_version = content_version");
    bind_i64(s, clock_wall_us());
    bind_uuid(s, document);
    bind_uuid(s, job);
    if (stmt_run(s, e) < 0)
        return -1;
    s = stmt_get(db, "UPDATE jobs SET stage = '', (done, total) = (SELECT chunks, chunks FROM documents WHERE id = ?1)"
                     " WHERE id = ?2");
    bind_uuid(s, document);
    bind_uuid(s, job);
    return stmt_run(s, e);
}

/* The job comes last: its end is what webhooks are told of (see jobs_ended in the migrations). */
static int finish(struct sqlite *db, void *arg, struct err *e)
{
    struct finish_call *c = arg;
    struct uuid document;
    bool changed;
    if (job_held(db, c->job, c->owner, e) < 0)
        return -1;
    int rc = document_of(db, c->job, &document, &changed, e);
    if (rc > 0 && changed && c->state != JOB_cancelled) /* what ended is not what is there now */
        return job_requeue(db, c->job, &document, e);
    if (rc > 0)
        rc = c->state == JOB_succeeded ? make_ready(db, &document, c->job, e)
                                       : document_finish(db, &document, c->job, &c->end, e);
    return rc < 0 ? -1 : job_end_held(db, c->job, c->owner, c->state, &c->end, e);
}

suspends int sqlite_job_finish(struct store *st, const struct uuid *job, const struct uuid *owner, enum job_state state,
                               struct str code, struct str stage, struct str message, int page, struct err *e)
{
    struct finish_call c = {job, owner, state, {DOCUMENT_failed, code, stage, message, page}};
    if (state == JOB_cancelled)
        c.end.state = DOCUMENT_cancelled;
    return sqlite_write(sqlite_of(st), finish, &c, e);
}

struct put_back_call {
    const struct uuid *job, *owner;
    int64_t delay_us;
    bool count_attempt;
    struct document_end end;
};

static int put_back(struct sqlite *db, void *arg, struct err *e)
{
    struct put_back_call *c = arg;
    struct uuid document;
    bool changed;
    int64_t now = clock_wall_us();
    struct stmt *s = stmt_get(db, "UPDATE jobs SET state = 0, owner = NULL, due_us = ?, attempts = attempts - ?,"
                                  " done = 0, error_code = ?, error_stage = ?, error_message = ?, updated_us = ?" HELD);
    bind_i64(s, now + c->delay_us);
    bind_i64(s, !c->count_attempt);
    bind_str(s, c->end.code);
    bind_str(s, c->end.stage);
    bind_str(s, c->end.message);
    bind_i64(s, now);
    bind_uuid(s, c->job);
    bind_uuid(s, c->owner);
    if (stmt_run(s, e) < 0)
        return -1;
    if (sqlite3_changes(db->h) != 1)
        return job_lease_lost(e);
    int rc = document_of(db, c->job, &document, &changed, e);
    return rc <= 0 ? rc : document_finish(db, &document, c->job, &c->end, e);
}

suspends int sqlite_job_put_back(struct store *st, const struct uuid *job, const struct uuid *owner, int64_t delay_us,
                                 bool count_attempt, struct str code, struct str stage, struct str message,
                                 struct err *e)
{
    struct put_back_call c = {job, owner, delay_us, count_attempt, {DOCUMENT_queued, code, stage, message, 0}};
    return sqlite_write(sqlite_of(st), put_back, &c, e);
}
