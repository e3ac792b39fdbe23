/* What is made of a document's content: text, chunks and their entries in the lexical index. A usual document is indexed
 * in one transaction. A long one would keep everybody else from writing for seconds, so it is written and removed in
 * steps, hidden from searches from the first to the last. Whoever dies in between leaves hidden chunks, which the
 * next try or the removal of the document clears away. */
#include "worker/store/sqlite.h"
#include "common/buf.h"
#include "common/clock.h"

enum { TEXT_STEP = 8 };                /* parts of text written in one transaction */
#define STEP_LEASE_US (15 * 1000000LL) /* each step leaves the lease at least this long */

static int64_t first_chunk(int64_t no)
{
    return no << 20;
}

static int64_t last_chunk(int64_t no)
{
    return no << 20 | 0xfffff;
}

static int run_range(struct sqlite *db, const char *sql, int64_t from, int64_t to, struct err *e)
{
    struct stmt *s = stmt_get(db, sql);
    bind_i64(s, from);
    bind_i64(s, to);
    return stmt_run(s, e);
}

static int run_one(struct sqlite *db, const char *sql, int64_t no, struct err *e)
{
    struct stmt *s = stmt_get(db, sql);
    bind_i64(s, no);
    return stmt_run(s, e);
}

/* The chunk that has `n` others of its document before it. 1, 0: so many there are not, -1. */
static int nth_chunk(struct sqlite *db, int64_t no, int64_t n, int64_t *chunk, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT no FROM chunks WHERE no BETWEEN ? AND ? ORDER BY no LIMIT 1 OFFSET ?");
    bind_i64(s, first_chunk(no));
    bind_i64(s, last_chunk(no));
    bind_i64(s, n);
    int rc = stmt_row(s, e);
    if (rc > 0) {
        *chunk = col_i64(s);
        stmt_end(s);
    }
    return rc;
}

int document_is_long(struct sqlite *db, int64_t no, struct err *e)
{
    int64_t chunk;
    return nth_chunk(db, no, INDEX_STEP, &chunk, e);
}

int document_hide_chunks(struct sqlite *db, int64_t no, struct err *e)
{
    return run_one(db, "INSERT INTO hidden_chunks VALUES (?) ON CONFLICT DO NOTHING", no, e);
}

int document_show_chunks(struct sqlite *db, int64_t no, struct err *e)
{
    return run_one(db, "DELETE FROM hidden_chunks WHERE document = ?", no, e);
}

int document_unindex(struct sqlite *db, int64_t no, int64_t max, bool *left, struct err *e)
{
    int64_t from = first_chunk(no), to = last_chunk(no), next;
    int rc = nth_chunk(db, no, max, &next, e);
    if (rc < 0)
        return -1;
    if (rc > 0)
        to = next - 1;
    *left = rc > 0;
    if (run_range(db, "DELETE FROM chunk_index WHERE rowid BETWEEN ? AND ?", from, to, e) < 0 ||
        run_range(db, "DELETE FROM chunks WHERE no BETWEEN ? AND ?", from, to, e) < 0)
        return -1;
    if (*left)
        return 0;
    if (run_range(db, "DELETE FROM texts WHERE no BETWEEN ? AND ?", from, last_chunk(no), e) < 0)
        return -1;
    return document_show_chunks(db, no, e);
}

/* ---- a new index ---- */

struct commit_call {
    const struct uuid *job, *owner;
    const struct store_index_commit *in;
    struct arena a; /* ends with each transaction */
    bool in_steps, left, stale;
    size_t chunk, part; /* written so far */
};

/* The document that the held job is about, and the number of its collection. */
static int subject(struct sqlite *db, struct commit_call *c, struct store_document *d, int64_t *collection,
                   struct err *e)
{
    struct store_job j;
    arena_fini(&c->a);
    if (job_by_id(db, &c->a, c->job, &j, e) < 0 || document_by_id(db, &c->a, &j.document, d, e) < 0)
        return -1;
    return collection_no(db, &d->collection, collection, e);
}

static int keep_lease(struct sqlite *db, struct commit_call *c, struct err *e)
{
    struct stmt *s = stmt_get(db, "UPDATE jobs SET due_us = max(due_us, ?) WHERE id = ? AND owner = ? AND state = 1");
    bind_i64(s, clock_wall_us() + STEP_LEASE_US);
    bind_uuid(s, c->job);
    bind_uuid(s, c->owner);
    if (stmt_run(s, e) < 0)
        return -1;
    return sqlite3_changes(db->h) == 1 ? 0 : job_lease_lost(e);
}

static int insert_text(struct sqlite *db, struct commit_call *c, int64_t no, size_t max, struct err *e)
{
    for (size_t end = c->part + max; c->part < end; c->part++) {
        struct str piece = str_sub(c->in->text, c->part * STORE_PART, STORE_PART);
        if (piece.n == 0)
            return 0;
        struct stmt *s = stmt_get(db, "INSERT INTO texts (no, text) VALUES (?, ?)");
        bind_i64(s, first_chunk(no) | (int64_t)c->part);
        bind_blob(s, piece);
        if (stmt_run(s, e) < 0)
            return -1;
    }
    return 0;
}

static int insert_chunk(struct sqlite *db, const struct store_document *d, const struct store_chunk_new *k, int ordinal,
                        bool embedded, struct err *e)
{
    struct uuid id = store_chunk_id(&d->id, d->content_version, ordinal);
    struct stmt *s = stmt_get(db, "INSERT INTO chunks (no, id, text, headings, sha256, tokens, page, char_start,"
                                  " char_end, byte_start, byte_end, embedded, parent_char_start, parent_char_end,"
                                  " parent_byte_start, parent_byte_end)"
                                  " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    bind_i64(s, first_chunk(d->no) | ordinal);
    bind_uuid(s, &id);
    bind_str(s, k->text);
    bind_str(s, k->headings.n ? k->headings : STR("[]"));
    bind_sha(s, &k->sha256);
    bind_i64(s, k->tokens);
    bind_i64(s, k->page);
    bind_i64(s, k->char_start);
    bind_i64(s, k->char_end);
    bind_i64(s, k->byte_start);
    bind_i64(s, k->byte_end);
    bind_i64(s, embedded);
    bind_i64(s, k->parent.char_start);
    bind_i64(s, k->parent.char_end);
    bind_i64(s, k->parent.byte_start);
    bind_i64(s, k->parent.byte_end);
    return stmt_run(s, e);
}

static int insert_chunks(struct sqlite *db, struct commit_call *c, const struct store_document *d, int64_t collection,
                         size_t max, struct err *e)
{
    struct buf body = {0};
    int rc = 0;
    for (size_t end = c->chunk + max; rc == 0 && c->chunk < c->in->n && c->chunk < end; c->chunk++) {
        const struct store_chunk_new *k = &c->in->chunks[c->chunk];
        body.n = 0;
        buf_i64(&body, collection);
        buf_ch(&body, ' ');
        buf_str(&body, k->terms);
        rc = insert_chunk(db, d, k, (int)c->chunk, c->in->vectors_due, e);
        if (rc < 0)
            break;
        struct stmt *s = stmt_get(db, "INSERT INTO chunk_index (rowid, body) VALUES (?, ?)");
        bind_i64(s, first_chunk(d->no) | (int64_t)c->chunk);
        bind_str(s, buf_view(&body));
        rc = stmt_run(s, e);
    }
    buf_fini(&body);
    return rc;
}

/* What is told of it stays that of its newest job, which is another one when a URL was named meanwhile. */
static int make_ready(struct sqlite *db, const struct store_document *d, const struct uuid *job,
                      const struct store_index_commit *in, struct err *e)
{
    int64_t tokens = 0;
    for (size_t i = 0; i < in->n; i++)
        tokens += in->chunks[i].tokens;
    struct stmt *s = stmt_get(
        db, "UPDATE documents SET chunks = ?1, tokens = ?2, pages = ?3, title = ?4,"
            " language = ?5, mime = ?6, state = iif(job = ?11, ?9, state),"
            " progress_done = iif(job = ?11, ?10, progress_done),"
            " progress_total = iif(job = ?11, ?1, progress_total),"
            " error_code = iif(job = ?11, '', error_code),"
            " error_stage = iif(job = ?11, '', error_stage),"
            " error_message = iif(job = ?11, '', error_message),"
            " error_page = iif(job = ?11, 0, error_page), indexed_version = content_version, indexings = indexings + 1,"
            " version = version + 1, updated_us = ?7"
            " WHERE no = ?8");
    bind_i64(s, (int64_t)in->n);
    bind_i64(s, tokens);
    bind_i64(s, in->pages);
    bind_str(s, in->title.n ? in->title : d->title);
    bind_str(s, in->language.n ? in->language : d->language);
    bind_str(s, in->mime.n ? in->mime : d->mime);
    bind_i64(s, clock_wall_us());
    bind_i64(s, d->no);
    bind_i64(s, in->vectors_due ? DOCUMENT_indexing : DOCUMENT_ready);
    bind_i64(s, in->vectors_due ? 0 : (int64_t)in->n);
    bind_uuid(s, job);
    if (stmt_run(s, e) < 0)
        return -1;
    return document_show_chunks(db, d->no, e);
}

int document_want_vectors(struct sqlite *db, const struct store_document *d, int64_t collection, struct err *e)
{
    struct stmt *s = stmt_get(db, "INSERT INTO vector_outbox (kind, collection_no, collection, generation, dim,"
                                  " document_no, document) SELECT 2, collection, id, generation, dim, ?, ? FROM spaces"
                                  " WHERE collection = ?");
    bind_i64(s, d->no);
    bind_uuid(s, &d->id);
    bind_i64(s, collection);
    return stmt_run(s, e);
}

/* The job has done its part, or the first half of it. */
static int end_job(struct sqlite *db, struct commit_call *c, struct err *e)
{
    struct document_end well = {0};
    struct stmt *s = stmt_get(db, "UPDATE jobs SET error_code = '', error_stage = '', error_message = '',"
                                  " committed = ?1, stage = iif(?2, stage, ''), done = iif(?2, done, ?3),"
                                  " total = iif(?2, total, ?3) WHERE id = ?4");
    bind_i64(s, c->in->content_version);
    bind_i64(s, c->in->vectors_due);
    bind_i64(s, (int64_t)c->in->n);
    bind_uuid(s, c->job);
    if (stmt_run(s, e) < 0)
        return -1;
    return c->in->vectors_due ? 0 : job_end_held(db, c->job, c->owner, JOB_succeeded, &well, e);
}

/* Ends the job and makes the document ready, in one transaction with all that is not written yet. */
static int commit(struct sqlite *db, void *arg, struct err *e)
{
    struct commit_call *c = arg;
    struct store_document d;
    int64_t collection;
    c->stale = false;
    if (!c->in_steps)
        c->chunk = c->part = 0; /* it may run a second time */
    if (job_held(db, c->job, c->owner, e) < 0 || subject(db, c, &d, &collection, e) < 0)
        return -1;
    if (d.content_version != c->in->content_version) {
        c->stale = true;
        return job_requeue(db, c->job, &d.id, e);
    }
    if (!c->in_steps && (document_unindex(db, d.no, INDEX_STEP, &c->left, e) < 0 ||
                         insert_text(db, c, d.no, SIZE_MAX - c->part, e) < 0 ||
                         insert_chunks(db, c, &d, collection, SIZE_MAX - c->chunk, e) < 0))
        return -1;
    if (make_ready(db, &d, c->job, c->in, e) < 0 ||
        (!c->in->vectors_due && document_want_vectors(db, &d, collection, e) < 0))
        return -1;
    return end_job(db, c, e); /* last, as in sqlite_lease.c */
}

/* Hides the document's chunks and removes a step of the old ones. */
static int clear_step(struct sqlite *db, void *arg, struct err *e)
{
    struct commit_call *c = arg;
    struct store_document d;
    int64_t collection;
    if (keep_lease(db, c, e) < 0 || subject(db, c, &d, &collection, e) < 0 ||
        document_unindex(db, d.no, INDEX_STEP, &c->left, e) < 0 || document_hide_chunks(db, d.no, e) < 0)
        return -1;
    return run_one(db, "UPDATE documents SET chunks = 0, tokens = 0, indexed_version = 0 WHERE no = ?", d.no, e);
}

static int write_step(struct sqlite *db, void *arg, struct err *e)
{
    struct commit_call *c = arg;
    struct store_document d;
    int64_t collection;
    size_t chunk = c->chunk, part = c->part;
    if (keep_lease(db, c, e) == 0 && subject(db, c, &d, &collection, e) == 0 &&
        insert_text(db, c, d.no, TEXT_STEP, e) == 0 && insert_chunks(db, c, &d, collection, INDEX_STEP / 2, e) == 0)
        return 0;
    c->chunk = chunk;
    c->part = part;
    return -1;
}

static int needs_steps(struct sqlite *db, struct commit_call *c, struct err *e)
{
    struct store_document d;
    int64_t collection;
    if (subject(db, c, &d, &collection, e) < 0)
        return -1;
    int rc = document_is_long(db, d.no, e);
    c->in_steps = rc > 0 || c->in->n > INDEX_STEP || c->in->text.n > (size_t)TEXT_STEP * STORE_PART;
    return rc < 0 ? -1 : 0;
}

static suspends int commit_in_steps(struct sqlite *db, struct commit_call *c, struct err *e)
{
    do {
        if (sqlite_write(db, clear_step, c, e) < 0)
            return -1;
    } while (c->left);
    while (c->chunk < c->in->n || c->part * STORE_PART < c->in->text.n)
        if (sqlite_write(db, write_step, c, e) < 0)
            return -1;
    return 0;
}

suspends int sqlite_job_commit_index(struct store *st, const struct uuid *job, const struct uuid *owner,
                                     const struct store_index_commit *in, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct commit_call c = {.job = job, .owner = owner, .in = in};
    if (in->n > 0xfffff)
        return err_set(e, ERR_VALIDATION, "A document has more chunks than can be numbered");
    int rc = SQLITE_TRY(db, e, needs_steps(db, &c, e));
    if (rc < 0 && e && e->code == ERR_NOT_FOUND) /* the document was deleted, and its job ended with it */
        rc = job_lease_lost(e);
    if (rc == 0 && c.in_steps)
        rc = commit_in_steps(db, &c, e);
    if (rc == 0)
        rc = sqlite_write(db, commit, &c, e);
    arena_fini(&c.a);
    if (rc == 0 && c.stale)
        return err_set(e, ERR_CONFLICT, "The document has changed meanwhile: it is indexed again");
    return rc;
}
