#include "worker/store/pg.h"
#include "common/buf.h"
#include <stdlib.h>

static int not_found(struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, NO_DOCUMENT);
}

static suspends int collection_exists(struct store *st, struct arena *a, const struct uuid *id, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    if (pg_call(pg_of(st)->pg, S_COLLECTION_EXISTS, &args, a, &r, e) < 0)
        return -1;
    return r.n ? 0 : err_set(e, ERR_NOT_FOUND, NO_COLLECTION);
}

suspends int pg_document_by_external_id(struct store *st, struct arena *a, const struct uuid *collection,
                                        struct str external_id, struct store_document *out, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, collection);
    pg_arg_str(&args, external_id);
    if (pg_call(pg_of(st)->pg, S_DOCUMENT_BY_EXTERNAL_ID, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return collection_exists(st, a, collection, e) < 0 ? -1 : not_found(e);
    read_document(&r, 0, out);
    return 0;
}

/* ---- lists ---- */

/* The plain page: prepared, and bounded, so the fast lane takes it. */
static suspends int list_page(struct store *st, struct arena *a, const struct store_document_query *q,
                              const struct page *page, struct pg_rows *r, struct err *e)
{
    struct pg_args args;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, &q->collection);
    pg_arg_uuid(&args, page->up ? &page->lo : &page->hi);
    pg_arg_i64(&args, q->page.limit + 1);
    return pg_call(pg_of(st)->pg, page->up ? S_DOCUMENTS_UP : S_DOCUMENTS_DOWN, &args, a, r, e);
}

static void and_filter(struct query *s, const struct filter *f)
{
    if (!f)
        return;
    buf_lit(&s->sql, " AND ");
    filter_sql(s, f);
}

static void predicates(struct query *s, const struct store_document_query *q)
{
    if (q->has_state) /* a literal lets the partial index serve it */
        buf_printf(&s->sql, " AND d.state = %d", (int)q->state);
    if (q->has_sha256) {
        arg_sha(&s->args, &q->sha256);
        buf_printf(&s->sql, " AND (d.dedup = $%d::bytea OR (d.dedup IS NULL AND d.sha256 = $%d::bytea))", s->args.n,
                   s->args.n);
    }
    if (q->external_id.n) {
        pg_arg_str(&s->args, q->external_id);
        buf_printf(&s->sql, " AND d.external_id = $%d::text", s->args.n);
    }
    if (q->tag.n) {
        pg_arg_str(&s->args, q->tag);
        buf_printf(&s->sql, " AND d.tags::jsonb ? $%d::text", s->args.n);
    }
    if (q->q.n) { /* ASCII only, as the other store does it: lower() under "C" */
        pg_arg_str(&s->args, q->q);
        buf_printf(&s->sql,
                   " AND position(lower($%d::text COLLATE \"C\") IN lower((d.title || E'\\x01' || d.filename || "
                   "E'\\x01' || coalesce(d.external_id, '')) COLLATE \"C\")) > 0",
                   s->args.n);
    }
    and_filter(s, q->filter);
}

static void query_init(struct query *s, struct arena *a)
{
    s->sql = (struct buf){0};
    pg_args_init(&s->args, a);
}

static suspends int query_run(struct store *st, struct query *s, bool write, struct arena *a, struct pg_rows *r,
                              struct err *e)
{
    buf_ch(&s->sql, 0);
    arena_own(a, s->sql.p, free);
    return pg_query(pg_of(st)->pg, s->sql.p, write, &s->args, a, r, e);
}

#define IN_COLLECTION "d.collection = (SELECT no FROM collections WHERE id = $1::uuid AND NOT deleted)"

static suspends int list_query(struct store *st, struct arena *a, const struct store_document_query *q,
                               const struct page *page, struct pg_rows *r, struct err *e)
{
    struct query s;
    query_init(&s, a);
    pg_arg_uuid(&s.args, &q->collection);
    pg_arg_uuid(&s.args, &page->lo);
    pg_arg_uuid(&s.args, &page->hi);
    pg_arg_i64(&s.args, q->page.limit + 1);
    buf_lit(&s.sql, "SELECT " D_COLUMNS D_FROM D_RANGE("$2::uuid", "$3::uuid"));
    predicates(&s, q);
    const char *order = page->up ? "ASC" : "DESC";
    buf_printf(&s.sql, " ORDER BY d.collection %s, d.id %s LIMIT $4::bigint", order, order);
    return query_run(st, &s, false, a, r, e);
}

suspends int pg_document_list(struct store *st, struct arena *a, const struct store_document_query *q,
                              struct store_document **out, size_t *n, bool *more, struct err *e)
{
    struct page page = page_of(&q->page);
    struct pg_rows r;
    bool plain = !q->has_state && !q->has_sha256 && !q->tag.n && !q->external_id.n && !q->q.n && !q->filter &&
                 !(q->page.has_after && q->page.has_before);
    int rc = plain ? list_page(st, a, q, &page, &r, e) : list_query(st, a, q, &page, &r, e);
    if (rc < 0 || (r.n == 0 && collection_exists(st, a, &q->collection, e) < 0))
        return -1;
    struct store_document *rows = arena_alloc(a, (size_t)(r.n + 1) * sizeof *rows);
    for (int i = 0; i < r.n; i++)
        read_document(&r, i, &rows[i]);
    *n = (size_t)r.n;
    page_end(&q->page, rows, sizeof *rows, n, more);
    *out = rows;
    return 0;
}

/* ---- all that match ---- */

static suspends int match(struct store *st, struct arena *a, const char *columns, const struct uuid *collection,
                          const struct filter *f, const char *tail, struct pg_rows *r, struct err *e)
{
    struct query s;
    if (collection_exists(st, a, collection, e) < 0)
        return -1;
    query_init(&s, a);
    pg_arg_uuid(&s.args, collection);
    buf_printf(&s.sql, "SELECT %s FROM documents d WHERE " IN_COLLECTION, columns);
    and_filter(&s, f);
    buf_printf(&s.sql, "%s", tail);
    return query_run(st, &s, false, a, r, e);
}

suspends int pg_document_match(struct store *st, struct arena *a, const struct uuid *collection, const struct filter *f,
                               int64_t *chunks, int64_t **out, size_t *n, struct err *e)
{
    struct pg_rows r;
    const char *tail = chunks ? " AND d.chunks > 0 ORDER BY d.no" : " ORDER BY d.no";
    int64_t sum = 0;
    if (match(st, a, "d.no, d.chunks", collection, f, tail, &r, e) < 0)
        return -1;
    *out = arena_alloc(a, (size_t)(r.n + 1) * sizeof **out);
    for (int i = 0; i < r.n; i++) {
        (*out)[i] = pg_i64(&r, i, 0);
        sum += pg_i64(&r, i, 1);
    }
    if (chunks)
        *chunks = sum;
    *n = (size_t)r.n;
    return 0;
}

suspends int pg_document_count_matching(struct store *st, const struct uuid *collection, const struct filter *f,
                                        int64_t *n, struct err *e)
{
    struct arena a = {0};
    struct pg_rows r;
    int rc = match(st, &a, "count(*)", collection, f, "", &r, e);
    if (rc == 0)
        *n = pg_i64(&r, 0, 0);
    arena_fini(&a);
    return rc;
}

/* A document whose change is under way is looked at again when that has ended: it may match no more. */
static suspends int remove_matching(struct store *st, struct arena *a, const struct uuid *collection,
                                    const struct filter *f, int max, int64_t *left, struct err *e)
{
    struct query s;
    struct pg_rows r;
    if (collection_exists(st, a, collection, e) < 0)
        return -1;
    query_init(&s, a);
    pg_arg_uuid(&s.args, collection);
    pg_arg_i64(&s.args, max);
    buf_lit(&s.sql, "WITH found AS MATERIALIZED (SELECT d.no FROM documents d WHERE " IN_COLLECTION);
    and_filter(&s, f);
    buf_lit(&s.sql, "), doomed AS MATERIALIZED (SELECT d.no FROM documents d WHERE d.no = ANY (ARRAY("
                    "SELECT no FROM found ORDER BY no LIMIT $2::bigint))");
    and_filter(&s, f);
    buf_lit(&s.sql, " FOR UPDATE) SELECT (SELECT count(*) FROM found), "
                    "ragd_documents_remove(ARRAY(SELECT no FROM doomed))");
    if (query_run(st, &s, true, a, &r, e) < 0)
        return -1;
    int64_t n = pg_i64(&r, 0, 0);
    *left = n > max ? n - max : 0;
    return 0;
}

suspends int pg_document_delete_matching(struct store *st, const struct uuid *collection, const struct filter *f,
                                         int max, int64_t *left, struct err *e)
{
    struct arena a = {0};
    int rc = remove_matching(st, &a, collection, f, max, left, e);
    arena_fini(&a);
    return rc;
}

/* ---- change ---- */

suspends int pg_document_patch(struct store *st, struct arena *a, const struct uuid *id,
                               const struct store_document_patch *p, int64_t if_version, struct store_document *out,
                               struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    arg_if(&args, p->set_title, p->title);
    arg_if(&args, p->set_metadata, p->metadata);
    arg_if(&args, p->set_tags, p->tags);
    arg_if(&args, p->set_language, p->language);
    pg_arg_i64(&args, if_version);
    if (pg_call(pg_of(st)->pg, S_DOCUMENT_PATCH, &args, a, &r, e) < 0)
        return -1;
    if (r.n)
        return READ_BACK(e, pg_document_get(st, a, id, out, e));
    return pg_document_get(st, a, id, out, e) < 0 ? -1 : wrong_version(out->version, if_version, e);
}

suspends int pg_document_delete(struct store *st, const struct uuid *id, int64_t if_version, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    pg_arg_uuid(&args, id);
    pg_arg_i64(&args, if_version);
    int rc = pg_call(pg_of(st)->pg, S_DOCUMENT_DELETE, &args, &a, &r, e);
    if (rc == 0 && pg_i64(&r, 0, 0) == -1)
        rc = not_found(e);
    else if (rc == 0 && pg_i64(&r, 0, 0) == -2)
        rc = wrong_version(pg_i64(&r, 0, 1), if_version, e);
    arena_fini(&a);
    return rc;
}

suspends int pg_document_reprocess(struct store *st, struct arena *a, const struct uuid *id, struct store_job *job,
                                   struct err *e)
{
    struct uuid job_id = uuid_v7();
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    pg_arg_uuid(&args, &job_id);
    if (pg_call(pg_of(st)->pg, S_DOCUMENT_REPROCESS, &args, a, &r, e) < 0)
        return -1;
    if (pg_i64(&r, 0, 0) == -1)
        return not_found(e);
    if (pg_i64(&r, 0, 0) < 0)
        return err_set(e, ERR_BUSY, "A job of this document is under way");
    pg_uuid(&r, 0, 1, &job_id);
    pg_announce(pg_of(st));
    return READ_BACK(e, pg_job_get(st, a, &job_id, job, e));
}

/* ---- what belongs to a document ---- */

suspends int pg_document_versions(struct store *st, struct arena *a, const struct uuid *id, struct store_version **out,
                                  size_t *n, struct err *e)
{
    struct store_document d;
    struct pg_args args;
    struct pg_rows r;
    if (pg_document_get(st, a, id, &d, e) < 0)
        return -1;
    pg_args_init(&args, a);
    pg_arg_i64(&args, d.no);
    if (pg_call(pg_of(st)->pg, S_DOCUMENT_VERSIONS, &args, a, &r, e) < 0)
        return -1;
    struct store_version *rows = arena_alloc(a, (size_t)(r.n + 1) * sizeof *rows);
    for (int i = 0; i < r.n; i++) {
        struct cursor c = {&r, i, 0};
        rows[i].version = next_i64(&c);
        next_sha(&c, &rows[i].sha256);
        rows[i].bytes = next_i64(&c);
        rows[i].filename = next_str(&c);
        rows[i].mime = next_str(&c);
        rows[i].created_us = next_i64(&c);
    }
    *out = rows;
    *n = (size_t)r.n;
    return 0;
}

suspends int pg_document_text(struct store *st, struct arena *a, const struct uuid *id, struct str *out, struct err *e)
{
    struct store_document d;
    struct pg_args args;
    struct pg_rows r;
    struct buf text = {0};
    if (pg_document_get(st, a, id, &d, e) < 0)
        return -1;
    if (!d.indexed_version)
        return err_set(e, ERR_CONFLICT, "The document is not ready: it is %s", document_state_name(d.state));
    pg_args_init(&args, a);
    pg_arg_i64(&args, d.no);
    if (pg_call(pg_of(st)->pg, S_DOCUMENT_TEXT, &args, a, &r, e) < 0)
        return -1;
    if (r.n == 1) {
        *out = pg_str(&r, 0, 0);
        return 0;
    }
    for (int i = 0; i < r.n; i++)
        buf_str(&text, pg_str(&r, i, 0));
    *out = buf_view(&text);
    if (text.p)
        arena_own(a, text.p, free);
    return 0;
}

suspends int pg_document_chunks(struct store *st, struct arena *a, const struct uuid *id, int from_ordinal, int limit,
                                struct store_chunk **out, size_t *n, struct err *e)
{
    struct store_document d;
    struct pg_args args;
    struct pg_rows r;
    if (pg_document_get(st, a, id, &d, e) < 0)
        return -1;
    pg_args_init(&args, a);
    pg_arg_i64(&args, d.no << 20 | (from_ordinal & 0xfffff));
    pg_arg_i64(&args, d.no << 20 | 0xfffff);
    pg_arg_i64(&args, limit);
    if (pg_call(pg_of(st)->pg, S_DOCUMENT_CHUNKS, &args, a, &r, e) < 0)
        return -1;
    struct store_chunk *rows = arena_alloc(a, (size_t)(r.n + 1) * sizeof *rows);
    for (int i = 0; i < r.n; i++) {
        read_chunk(&r, i, &rows[i]);
        rows[i].document = d.id;
    }
    *out = rows;
    *n = (size_t)r.n;
    return 0;
}

suspends int pg_chunk_get(struct store *st, struct arena *a, const struct uuid *id, struct store_chunk *out,
                          struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    if (pg_call(pg_of(st)->pg, S_CHUNK_GET, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return err_set(e, ERR_NOT_FOUND, "No such chunk");
    read_chunk(&r, 0, out);
    pg_uuid(&r, 0, 15, &out->document);
    return 0;
}
