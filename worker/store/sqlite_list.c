/* Documents of a collection by page, filter and match. What may have to look at many documents does so in slices and
 * lets the loop turn between them; each slice sees the store as it is then. */
#include "worker/store/sqlite.h"
#include <stdlib.h>

enum { SLICE = 1000 };

/* A walk over the documents of a collection in order of their ids. */
struct walk {
    int64_t collection;
    bool up;      /* oldest first */
    bool sliced;  /* otherwise everything is one slice */
    bool has_cur; /* documents behind `cur` only */
    bool has_stop;
    bool last;
    struct uuid cur;
    struct uuid stop; /* last document of this slice, unless it is the last one */
};

/* " AND d.id > ? AND d.id <= ?" of a slice; walk_bind() binds it. */
static const char *walk_where(const struct walk *w)
{
    static const char *const where[2][2][2] = {
        {{"", " AND d.id >= ?"}, {" AND d.id < ?", " AND d.id < ? AND d.id >= ?"}},
        {{"", " AND d.id <= ?"}, {" AND d.id > ?", " AND d.id > ? AND d.id <= ?"}},
    };
    return where[w->up][w->has_cur][w->has_stop];
}

static void walk_bind(struct stmt *s, const struct walk *w)
{
    if (w->has_cur)
        bind_uuid(s, &w->cur);
    if (w->has_stop)
        bind_uuid(s, &w->stop);
}

/* Finds where the slice behind `cur` stops. */
static int walk_slice(struct sqlite *db, struct walk *w, struct err *e)
{
    w->has_stop = false;
    w->last = true;
    if (!w->sliced)
        return 0;
    static const char *const sql[2][2] = {
        {"SELECT d.id FROM documents d WHERE d.collection = ? ORDER BY d.id DESC LIMIT 1 OFFSET ?",
         "SELECT d.id FROM documents d WHERE d.collection = ? AND d.id < ? ORDER BY d.id DESC LIMIT 1 OFFSET ?"},
        {"SELECT d.id FROM documents d WHERE d.collection = ? ORDER BY d.id LIMIT 1 OFFSET ?",
         "SELECT d.id FROM documents d WHERE d.collection = ? AND d.id > ? ORDER BY d.id LIMIT 1 OFFSET ?"},
    };
    struct stmt *s = stmt_get(db, sql[w->up][w->has_cur]);
    bind_i64(s, w->collection);
    walk_bind(s, w);
    bind_i64(s, SLICE - 1);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return rc;
    col_uuid(s, &w->stop);
    stmt_end(s);
    w->has_stop = true;
    w->last = false;
    return 0;
}

static suspends int walk_on(struct walk *w, struct err *e)
{
    w->cur = w->stop;
    w->has_cur = true;
    fiber_yield();
    if (fiber_check() == 0)
        return 0;
    return fiber_time_left() == 0 ? err_set(e, ERR_DEADLINE, "The search over documents took too long")
                                  : err_set(e, ERR_CANCELED, "Canceled");
}

/* ---- pages ---- */

struct page_walk {
    struct walk walk;
    const struct store_document_query *q;
    const char *where; /* predicates of the query */
    bool has_end;
    struct uuid end; /* exclusive */
    struct store_document *rows;
    size_t n, want;
};

/* The planner cannot see that `state = 6` implies the condition of the partial index, nor how few share a hash. */
static const char *index_hint(const struct store_document_query *q)
{
    if (q->has_sha256)
        return " INDEXED BY documents_sha256";
    if (q->has_state && q->state != DOCUMENT_ready)
        return " INDEXED BY documents_unready";
    return "";
}

static const char *predicates(struct arena *a, const struct store_document_query *q)
{
    const char *state = "";
    if (q->has_state)
        state =
            arena_printf(a, " AND d.state = %d%s", (int)q->state, q->state != DOCUMENT_ready ? " AND d.state <> 5" : "")
                .p;
    return arena_printf(a, "%s%s%s%s%s%s", state, q->has_sha256 ? " AND d.sha256 = ?" : "",
                        q->external_id.n ? " AND d.external_id = ?" : "",
                        q->tag.n ? " AND EXISTS (SELECT 1 FROM json_each(d.tags) t WHERE t.value = ?)" : "",
                        q->q.n ? " AND instr(lower(d.title || char(0) || d.filename || char(0) ||"
                                 " ifnull(d.external_id, '')), lower(?)) > 0"
                               : "",
                        q->filter ? " AND ragd_filter(d.metadata)" : "")
        .p;
}

static int page_slice(struct sqlite *db, struct arena *a, struct page_walk *p, struct err *e)
{
    const struct store_document_query *q = p->q;
    size_t before = p->n;
    int rc;
    if (walk_slice(db, &p->walk, e) < 0)
        return -1;
    const char *end = !p->has_end ? "" : p->walk.up ? " AND d.id < ?" : " AND d.id > ?";
    struct stmt *s =
        stmt_get(db, arena_printf(a,
                                  "SELECT " DOCUMENT_COLUMNS " FROM documents d%s" DOCUMENT_JOIN
                                  "WHERE d.collection = ?%s%s%s ORDER BY d.id %s LIMIT ?",
                                  index_hint(q), walk_where(&p->walk), end, p->where, p->walk.up ? "ASC" : "DESC")
                         .p);
    bind_i64(s, p->walk.collection);
    walk_bind(s, &p->walk);
    if (p->has_end)
        bind_uuid(s, &p->end);
    if (q->has_sha256)
        bind_sha(s, &q->sha256);
    if (q->external_id.n)
        bind_str(s, q->external_id);
    if (q->tag.n)
        bind_str(s, q->tag);
    if (q->q.n)
        bind_str(s, q->q);
    bind_i64(s, (int64_t)(p->want - p->n));
    db->filter = q->filter;
    while ((rc = stmt_row(s, e)) > 0)
        document_read(s, a, &p->rows[p->n++]);
    if (rc < 0)
        p->n = before;
    return rc;
}

suspends int sqlite_document_list(struct store *st, struct arena *a, const struct store_document_query *q,
                                  struct store_document **out, size_t *n, bool *more, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    const struct store_page *page = &q->page;
    bool backwards = page->has_before && !page->has_after;
    struct page_walk p = {.q = q, .where = predicates(a, q), .want = (size_t)page->limit + 1};
    p.walk.up = page->ascending != backwards;
    p.walk.has_cur = page->has_after || page->has_before;
    p.walk.cur = backwards ? page->before : page->after;
    p.has_end = page->has_after && page->has_before;
    p.end = page->before;
    p.walk.sliced = q->tag.n || q->q.n || q->filter || (q->has_state && q->state == DOCUMENT_ready);
    p.rows = arena_alloc(a, p.want * sizeof *p.rows);
    if (SQLITE_TRY(db, e, collection_no(db, &q->collection, &p.walk.collection, e)) < 0)
        return -1;
    for (;;) {
        if (SQLITE_TRY(db, e, page_slice(db, a, &p, e)) < 0)
            return -1;
        if (p.n == p.want || p.walk.last)
            break;
        if (walk_on(&p.walk, e) < 0)
            return -1;
    }
    *more = p.n > (size_t)page->limit;
    *n = *more ? (size_t)page->limit : p.n;
    page_turn(page, p.rows, *n, sizeof *p.rows);
    *out = p.rows;
    return 0;
}

/* ---- all that match ---- */

struct numbers {
    int64_t *v;
    size_t n, cap;
    bool indexed;   /* only of documents that have chunks */
    int64_t chunks; /* theirs together */
};

static void number_add(struct numbers *l, int64_t no)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 256;
        l->v = realloc(l->v, l->cap * sizeof *l->v);
        if (!l->v)
            abort();
    }
    l->v[l->n++] = no;
}

static int match_slice(struct sqlite *db, struct arena *a, struct walk *w, const struct filter *f, struct numbers *out,
                       struct err *e)
{
    const struct numbers before = *out;
    int rc;
    if (walk_slice(db, w, e) < 0)
        return -1;
    struct stmt *s = stmt_get(db, arena_printf(a, "SELECT d.no, d.chunks FROM documents d WHERE d.collection = ?%s%s%s",
                                               walk_where(w), out->indexed ? " AND d.chunks > 0" : "",
                                               f ? " AND ragd_filter(d.metadata)" : "")
                                      .p);
    bind_i64(s, w->collection);
    walk_bind(s, w);
    db->filter = f;
    while ((rc = stmt_row(s, e)) > 0) {
        number_add(out, col_i64(s));
        out->chunks += col_i64(s);
    }
    if (rc < 0) {
        out->n = before.n;
        out->chunks = before.chunks;
    }
    return rc;
}

static suspends int match_all(struct sqlite *db, const struct uuid *collection, const struct filter *f,
                              struct numbers *out, struct err *e)
{
    struct walk w = {.up = true, .sliced = true};
    struct arena scratch = {0};
    int rc = SQLITE_TRY(db, e, collection_no(db, collection, &w.collection, e));
    while (rc == 0) {
        rc = SQLITE_TRY(db, e, match_slice(db, &scratch, &w, f, out, e));
        arena_fini(&scratch);
        if (rc < 0 || w.last)
            break;
        rc = walk_on(&w, e);
    }
    return rc;
}

static int by_number(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

suspends int sqlite_document_match(struct store *st, struct arena *a, const struct uuid *collection,
                                   const struct filter *f, int64_t *chunks, int64_t **out, size_t *n, struct err *e)
{
    struct numbers found = {.indexed = chunks != NULL};
    int rc = match_all(sqlite_of(st), collection, f, &found, e);
    if (rc == 0) {
        if (chunks)
            *chunks = found.chunks;
        if (found.n)
            qsort(found.v, found.n, sizeof *found.v, by_number);
        *out = arena_alloc(a, found.n * sizeof **out);
        if (found.n)
            memcpy(*out, found.v, found.n * sizeof **out);
        *n = found.n;
    }
    free(found.v);
    return rc;
}

suspends int sqlite_document_count_matching(struct store *st, const struct uuid *collection, const struct filter *f,
                                            int64_t *n, struct err *e)
{
    struct numbers found = {0};
    int rc = match_all(sqlite_of(st), collection, f, &found, e);
    if (rc == 0)
        *n = (int64_t)found.n;
    free(found.v);
    return rc;
}

struct delete_call {
    const struct numbers *found;
    const struct filter *filter;
    int max;
    int64_t handled;
};

/* The metadata may have changed since it was found to match. */
static int still_matches(struct sqlite *db, int64_t no, const struct filter *f, int64_t *chunks, struct err *e)
{
    struct stmt *s = stmt_get(db, f ? "SELECT chunks FROM documents d WHERE no = ? AND ragd_filter(d.metadata)"
                                    : "SELECT chunks FROM documents d WHERE no = ?");
    bind_i64(s, no);
    db->filter = f;
    int rc = stmt_row(s, e);
    if (rc > 0) {
        *chunks = col_i64(s);
        stmt_end(s);
    }
    return rc;
}

static int delete_found(struct sqlite *db, void *arg, struct err *e)
{
    struct delete_call *c = arg;
    int64_t chunks, budget = SLICE;
    c->handled = 0;
    for (size_t i = 0; i < c->found->n && i < (size_t)c->max && budget > 0; i++) {
        int rc = still_matches(db, c->found->v[i], c->filter, &chunks, e);
        if (rc < 0 || (rc > 0 && document_remove(db, c->found->v[i], e) < 0))
            return -1;
        c->handled++;
        if (rc > 0)
            budget -= chunks;
    }
    return 0;
}

suspends int sqlite_document_delete_matching(struct store *st, const struct uuid *collection, const struct filter *f,
                                             int max, int64_t *left, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct numbers found = {0};
    struct delete_call c = {.found = &found, .filter = f, .max = max};
    int rc = match_all(db, collection, f, &found, e);
    if (rc == 0)
        rc = sqlite_write(db, delete_found, &c, e);
    if (rc == 0)
        *left = (int64_t)found.n - c.handled;
    free(found.v);
    return rc;
}
