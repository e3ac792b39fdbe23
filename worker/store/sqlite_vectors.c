/* Embeddings by the hash of their text, and the outbox of the vector index. */
#include "worker/store/sqlite.h"
#include "common/clock.h"

#define TOUCH_US (24 * 3600 * 1000000LL) /* a vector is kept at least this long */

/* ---- documents by number, spans of their text ---- */

static int by_numbers(struct sqlite *db, struct arena *a, const int64_t *nos, size_t n, struct store_document *out,
                      struct err *e)
{
    struct err why;
    for (size_t i = 0; i < n; i++) {
        out[i] = (struct store_document){0};
        if (document_by_no(db, a, nos[i], &out[i], &why) == 0 || why.code == ERR_NOT_FOUND)
            continue;
        if (e)
            *e = why;
        return -1;
    }
    return 0;
}

suspends int sqlite_documents_by_no(struct store *st, struct arena *a, const int64_t *nos, size_t n,
                                    struct store_document *out, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY_MANY(db, e, by_numbers(db, a, nos, n, out, e));
}

static int span(struct sqlite *db, struct arena *a, int64_t no, int64_t from, size_t n, struct str *out, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT text FROM texts WHERE no BETWEEN ? AND ? ORDER BY no");
    char *to = arena_alloc(a, n + 1);
    size_t have = 0, skip = (size_t)(from % STORE_PART);
    int rc;
    bind_i64(s, no << 20 | from / STORE_PART);
    bind_i64(s, no << 20 | (from + (int64_t)n) / STORE_PART);
    while ((rc = stmt_row(s, e)) > 0) {
        struct str part = str_sub(col_peek(s), skip, n - have);
        memcpy(to + have, part.p, part.n);
        have += part.n;
        skip = 0;
    }
    to[have] = 0;
    *out = (struct str){to, have};
    return rc;
}

suspends int sqlite_document_span(struct store *st, struct arena *a, int64_t no, int64_t from, size_t n,
                                  struct str *out, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, span(db, a, no, from, n, out, e));
}

/* ---- embeddings ---- */

static int get_given(struct sqlite *db, struct arena *a, struct str model, int *dim, int64_t document, int from,
                     const struct sha256 *chunks, size_t n, const float **out, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT ordinal, sha256, vector FROM given_vectors WHERE document = ?"
                                  " AND ordinal >= ? AND ordinal < ? AND model = ?");
    int rc;
    bind_i64(s, document);
    bind_i64(s, from);
    bind_i64(s, from + (int64_t)n);
    bind_str(s, model);
    while ((rc = stmt_row(s, e)) > 0) {
        int64_t i = col_i64(s) - from;
        struct sha256 sha;
        col_sha(s, &sha);
        if (memcmp(&sha, &chunks[i], sizeof sha) == 0)
            out[i] = store_vector(a, col_peek(s), dim);
    }
    return rc;
}

static int get(struct sqlite *db, struct arena *a, struct str model, int *dim, int64_t document, int from,
               const struct sha256 *chunks, size_t n, const float **out, struct err *e)
{
    memset(out, 0, n * sizeof *out);
    if (get_given(db, a, model, dim, document, from, chunks, n, out, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (out[i])
            continue;
        struct stmt *s = stmt_get(db, "SELECT vector FROM embeddings WHERE sha256 = ? AND model = ?");
        bind_sha(s, &chunks[i]);
        bind_str(s, model);
        int rc = stmt_row(s, e);
        if (rc < 0)
            return -1;
        if (rc == 0)
            continue;
        out[i] = store_vector(a, col_peek(s), dim);
        stmt_end(s);
    }
    return 0;
}

suspends int sqlite_embeddings_get(struct store *st, struct arena *a, struct str model, int *dim, int64_t document_no,
                                   int from, const struct sha256 *chunks, size_t n, const float **out, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, get(db, a, model, dim, document_no, from, chunks, n, out, e));
}

int given_vectors_put(struct sqlite *db, int64_t document, const struct store_given *g, bool *changed, struct err *e)
{
    size_t size = (size_t)g->dim * sizeof *g->v;
    *changed = false;
    for (size_t i = 0; i < g->n; i++) {
        struct stmt *s = stmt_get(db, "INSERT INTO given_vectors (document, ordinal, model, sha256, vector)"
                                      " VALUES (?, ?, ?, ?, ?) ON CONFLICT (document, ordinal, model)"
                                      " DO UPDATE SET sha256 = excluded.sha256, vector = excluded.vector"
                                      " WHERE sha256 <> excluded.sha256 OR vector <> excluded.vector");
        bind_i64(s, document);
        bind_i64(s, g->ordinal[i]);
        bind_str(s, g->model);
        bind_sha(s, &g->sha[i]);
        bind_blob(s, (struct str){(const char *)(g->v + i * (size_t)g->dim), size});
        if (stmt_run(s, e) < 0)
            return -1;
        *changed |= sqlite3_changes(db->h) > 0;
    }
    return 0;
}

struct put_call {
    struct str model;
    int dim;
    const struct sha256 *chunks;
    size_t n;
    const float *v;
};

static int put(struct sqlite *db, void *arg, struct err *e)
{
    struct put_call *c = arg;
    size_t size = (size_t)c->dim * sizeof *c->v;
    for (size_t i = 0; i < c->n; i++) {
        struct stmt *s = stmt_get(db, "INSERT INTO embeddings (sha256, model, vector, touched_us) VALUES (?, ?, ?, ?)"
                                      " ON CONFLICT (sha256, model) DO UPDATE SET vector = excluded.vector,"
                                      " touched_us = excluded.touched_us");
        bind_sha(s, &c->chunks[i]);
        bind_str(s, c->model);
        bind_blob(s, (struct str){(const char *)(c->v + i * (size_t)c->dim), size});
        bind_i64(s, clock_wall_us());
        if (stmt_run(s, e) < 0)
            return -1;
    }
    return 0;
}

suspends int sqlite_embeddings_put(struct store *st, struct str model, int dim, const struct sha256 *chunks, size_t n,
                                   const float *v, struct err *e)
{
    struct put_call c = {model, dim, chunks, n, v};
    return sqlite_write(sqlite_of(st), put, &c, e);
}

struct sweep_call {
    struct sha256 cursor;
    int max;
    int64_t removed;
};

static int sweep(struct sqlite *db, void *arg, struct err *e)
{
    struct sweep_call *c = arg;
    struct sha256 from = c->cursor, to;
    c->removed = 0;
    struct stmt *s = stmt_get(db, "SELECT sha256 FROM embeddings WHERE sha256 > ? ORDER BY sha256 LIMIT 1 OFFSET ?");
    bind_sha(s, &from);
    bind_i64(s, c->max - 1);
    int rc = stmt_row(s, e);
    if (rc < 0)
        return -1;
    memset(&to, 0xff, sizeof to);
    if (rc > 0) {
        col_sha(s, &to);
        stmt_end(s);
    }
    s = stmt_get(db, "DELETE FROM embeddings WHERE sha256 > ?1 AND sha256 <= ?2 AND touched_us < ?3 AND ("
                     "NOT EXISTS (SELECT 1 FROM chunks k WHERE k.sha256 = embeddings.sha256 AND k.embedded = 1)"
                     " OR NOT EXISTS (SELECT 1 FROM spaces v WHERE v.model = embeddings.model))");
    bind_sha(s, &from);
    bind_sha(s, &to);
    bind_i64(s, clock_wall_us() - TOUCH_US);
    if (stmt_run(s, e) < 0)
        return -1;
    c->removed = sqlite3_changes(db->h);
    c->cursor = rc > 0 ? to : (struct sha256){{0}};
    return 0;
}

suspends int sqlite_embeddings_sweep(struct store *st, struct sha256 *cursor, int max, int64_t *removed, struct err *e)
{
    struct sweep_call c = {.cursor = *cursor, .max = max};
    if (sqlite_write(sqlite_of(st), sweep, &c, e) < 0)
        return -1;
    *cursor = c.cursor;
    *removed = c.removed;
    return 0;
}

static int embedded(struct sqlite *db, void *arg, struct err *e)
{
    const int64_t *no = arg;
    struct stmt *s = stmt_get(db, "UPDATE chunks SET embedded = 1 WHERE no BETWEEN ? AND ? AND embedded = 0");
    bind_i64(s, *no << 20);
    bind_i64(s, *no << 20 | 0xfffff);
    return stmt_run(s, e);
}

suspends int sqlite_document_embedded(struct store *st, int64_t document_no, struct err *e)
{
    return sqlite_write(sqlite_of(st), embedded, &document_no, e);
}

/* ---- outbox ---- */

struct take_call {
    struct arena *a;
    int64_t lease_us;
    int max;
    struct store_outbox *rows;
    size_t n;
};

static int due(struct sqlite *db, int64_t now, struct take_call *c, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT no, kind, collection, document, collection_no, document_no, generation, dim,"
                                  " tries FROM vector_outbox WHERE due_us <= ? ORDER BY due_us, no LIMIT ?");
    int rc;
    bind_i64(s, now);
    bind_i64(s, c->max);
    for (c->n = 0; (rc = stmt_row(s, e)) > 0; c->n++) {
        struct store_outbox *o = &c->rows[c->n];
        o->no = col_i64(s);
        o->kind = (enum outbox_kind)col_i64(s);
        col_uuid(s, &o->collection);
        col_uuid(s, &o->document);
        o->collection_no = col_i64(s);
        o->document_no = col_i64(s);
        o->generation = col_i64(s);
        o->dim = (int)col_i64(s);
        o->tries = (int)col_i64(s) + 1;
    }
    return rc;
}

static int take(struct sqlite *db, void *arg, struct err *e)
{
    struct take_call *c = arg;
    int64_t now = clock_wall_us();
    if (due(db, now, c, e) < 0)
        return -1;
    for (size_t i = 0; i < c->n; i++) {
        struct stmt *s = stmt_get(db, "UPDATE vector_outbox SET due_us = ? + (? << max(min(tries - 3, 5), 0)),"
                                      " tries = tries + 1 WHERE no = ?");
        bind_i64(s, now);
        bind_i64(s, c->lease_us);
        bind_i64(s, c->rows[i].no);
        if (stmt_run(s, e) < 0)
            return -1;
    }
    return 0;
}

suspends int sqlite_outbox_take(struct store *st, struct arena *a, int64_t lease_us, int max, struct store_outbox **out,
                                size_t *n, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct take_call c = {.a = a, .lease_us = lease_us, .max = max};
    c.rows = arena_zalloc(a, (size_t)max * sizeof *c.rows);
    if (SQLITE_TRY(db, e, due(db, clock_wall_us(), &c, e)) < 0) /* looking takes no lock */
        return -1;
    if (c.n && sqlite_write(db, take, &c, e) < 0)
        return -1;
    *out = c.rows;
    *n = c.n;
    return 0;
}

struct done_call {
    const int64_t *nos;
    size_t n;
};

static int done(struct sqlite *db, void *arg, struct err *e)
{
    struct done_call *c = arg;
    for (size_t i = 0; i < c->n; i++) {
        struct stmt *s = stmt_get(db, "UPDATE collections SET revision = revision + 1 WHERE no ="
                                      " (SELECT collection_no FROM vector_outbox WHERE no = ? AND kind IN (1, 2))");
        bind_i64(s, c->nos[i]); /* what was put or described: a search may find other things now */
        if (stmt_run(s, e) < 0)
            return -1;
        s = stmt_get(db, "DELETE FROM vector_outbox WHERE no = ?");
        bind_i64(s, c->nos[i]);
        if (stmt_run(s, e) < 0)
            return -1;
    }
    return 0;
}

suspends int sqlite_outbox_done(struct store *st, const int64_t *nos, size_t n, struct err *e)
{
    struct done_call c = {nos, n};
    return n ? sqlite_write(sqlite_of(st), done, &c, e) : 0;
}

struct add_call {
    const struct store_outbox *in;
    size_t n;
};

static int add(struct sqlite *db, void *arg, struct err *e)
{
    struct add_call *c = arg;
    for (size_t i = 0; i < c->n; i++) {
        const struct store_outbox *o = &c->in[i];
        struct stmt *s = stmt_get(db, "INSERT INTO vector_outbox (kind, collection_no, collection, generation, dim,"
                                      " document_no, document) VALUES (?, ?, ?, ?, ?, ?, ?)");
        bind_i64(s, o->kind);
        bind_i64(s, o->collection_no);
        bind_uuid(s, &o->collection);
        bind_i64(s, o->generation);
        bind_i64(s, o->dim);
        bind_i64(s, o->document_no);
        bind_uuid(s, o->document_no ? &o->document : NULL);
        if (stmt_run(s, e) < 0)
            return -1;
    }
    return 0;
}

suspends int sqlite_outbox_add(struct store *st, const struct store_outbox *in, size_t n, struct err *e)
{
    struct add_call c = {in, n};
    return n ? sqlite_write(sqlite_of(st), add, &c, e) : 0;
}

static int count(struct sqlite *db, int64_t *n, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT count(*) FROM vector_outbox");
    if (stmt_row(s, e) <= 0)
        return -1;
    *n = col_i64(s);
    stmt_end(s);
    return 0;
}

suspends int sqlite_outbox_count(struct store *st, int64_t *n, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, count(db, n, e));
}

struct hasten_call {
    int64_t lease_us, n;
    int max;
};

static int hasten(struct sqlite *db, void *arg, struct err *e)
{
    struct hasten_call *c = arg;
    struct stmt *s =
        stmt_get(db, "UPDATE vector_outbox SET due_us = max(?1, due_us + ?2 - (?2 << max(min(tries - 4, 5), 0)))"
                     " WHERE no IN (SELECT no FROM vector_outbox WHERE due_us > ?1 + ?2 ORDER BY due_us, no"
                     " LIMIT ?3)"); /* the pause that take() gave, less all but one lease */
    bind_i64(s, clock_wall_us());
    bind_i64(s, c->lease_us);
    bind_i64(s, c->max);
    if (stmt_run(s, e) < 0)
        return -1;
    c->n = sqlite3_changes(db->h);
    return 0;
}

suspends int sqlite_outbox_hasten(struct store *st, int64_t lease_us, int max, int64_t *n, struct err *e)
{
    struct hasten_call c = {.lease_us = lease_us, .max = max};
    if (sqlite_write(sqlite_of(st), hasten, &c, e) < 0)
        return -1;
    *n = c.n;
    return 0;
}
