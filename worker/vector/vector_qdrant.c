/* Qdrant, over its REST interface. All collections of a generation and dimension share one Qdrant collection,
 * PREFIX_gGENERATION_dDIMENSION, where the payload says whose a point is (an indexed tenant key); the alias PREFIX_ID
 * leads from a collection's id to the one that is searched:
 *
 *     id: store_chunk_id()   vector: {"dense": […]}
 *     payload: collection, document (ids) · document_no, version, ordinal · metadata, tags
 *
 * A document's new points are written first, then all others of it are deleted: between the two a search meets both
 * versions, and the caller drops the one that the store does not have.
 *
 * Words are searched in the store, and core fuses both lists; there are no sparse vectors here. They would be a second
 * lexical index with other answers: the weight of a word would hold the average length that the collection had when it was
 * written, and Qdrant's idf counts all collections that share a Qdrant collection. Qdrant's own fusion names no rank of
 * either list, and what is checked against the store afterwards, versions and filters, would leave holes in it. And the
 * store's lexical index knows a change as soon as it is made, and answers while Qdrant is away. */
#include "common/scoreboard.h"
#include "worker/vector/qdrant.h"
#include <stdlib.h>

enum {
    BATCH = 256,
    BATCH_BYTES = 8 << 20,
    NUMBERS_MAX = 1000,
    PAGE = 1000,
    TURNS_MAX = 16,
    ALLOWED_MAX = 10000,
    FLOATS_A_TURN = 4096
};

static suspends int qdrant_put(struct vectors *, const struct vector_space *, const struct vector_document *,
                               struct err *);
static suspends int qdrant_remove(struct vectors *, const struct vector_space *, const int64_t *document_no, size_t n,
                                  struct err *);
static suspends int qdrant_describe(struct vectors *, const struct vector_space *, const struct vector_document *,
                                    struct err *);
static suspends int qdrant_drop(struct vectors *, const struct vector_space *, struct err *);
static suspends int qdrant_search(struct vectors *, struct arena *, const struct vector_space *,
                                  const struct vector_query *, struct vector_hit **out, size_t *n, struct err *);
static suspends int qdrant_list(struct vectors *, struct arena *, const struct vector_space *, int64_t after,
                                size_t max, struct vector_entry **out, size_t *n, struct err *);
static suspends int qdrant_check(struct vectors *, struct err *);
static void qdrant_free(struct vectors *);

static const struct vector_ops qdrant_ops = {
    .name = "qdrant",
    .says = qdrant_says,
    .put = qdrant_put,
    .remove = qdrant_remove,
    .describe = qdrant_describe,
    .drop = qdrant_drop,
    .search = qdrant_search,
    .list = qdrant_list,
    .check = qdrant_check,
    .alias = qdrant_alias_set,
    .has_alias = qdrant_alias_is_set,
    .stray = qdrant_stray,
    .free = qdrant_free,
};

int vectors_qdrant_open(const struct config *cfg, struct httpc *http, struct vectors **out, struct err *e)
{
    struct qdrant *q = calloc(1, sizeof *q);
    if (!q)
        return err_set(e, ERR_INTERNAL, "No memory for the vector index");
    q->base.ops = &qdrant_ops;
    q->cfg = cfg;
    q->http = http;
    *out = &q->base;
    return 0;
}

static void qdrant_free(struct vectors *v)
{
    free(v);
}

/* ---- conditions ---- */

static void of_collection(struct buf *b, const struct vector_space *s)
{
    char id[UUID_TEXT_LEN];
    uuid_text(&s->collection, id);
    buf_lit(b, "{\"key\":\"collection\",\"match\":{\"value\":\"");
    buf_add(b, id, sizeof id);
    buf_lit(b, "\"}}");
}

static void of_documents(struct buf *b, const int64_t *no, size_t n)
{
    buf_lit(b, ",{\"key\":\"document_no\",\"match\":{\"any\":[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_ch(b, ',');
        buf_i64(b, no[i]);
    }
    buf_lit(b, "]}}");
}

/* Deletes what `filter` names, given as the members of a filter object. */
static suspends int delete_where(struct qdrant *q, struct arena *a, struct str name, struct str filter, struct err *e)
{
    bool missing;
    struct str body = arena_printf(a, "{\"filter\":{" STR_FMT "}}", STR_ARG(filter));
    if (qdrant_update(q, a, "POST", qdrant_path(a, name, "/points/delete"), body, &missing, e))
        return -1;
    if (missing)
        qdrant_forget(q, name);
    return 0;
}

/* ---- verbs that write ---- */

static void add_vector(struct buf *b, const float *v, int dim)
{
    buf_lit(b, "\"vector\":{\"dense\":[");
    for (int x = 0; x < dim; x++)
        buf_printf(b, x ? ",%.9g" : "%.9g", (double)v[x]);
    buf_lit(b, "]}");
}

static void add_described(struct json_out *o, const struct vector_document *d)
{
    jo_member(o, "metadata");
    jo_raw(o, d->metadata.n ? d->metadata : STR("{}"));
    jo_member(o, "tags");
    jo_raw(o, d->tags.n ? d->tags : STR("[]"));
}

static void add_point(struct buf *b, const struct vector_space *s, const struct vector_document *d, size_t i)
{
    struct json_out o = json_out(b);
    jo_begin(&o, '{');
    jo_member(&o, "id");
    jo_uuid(&o, &d->chunk[i]);
    buf_ch(b, ',');
    add_vector(b, d->v + i * (size_t)s->dim, s->dim);
    jo_member(&o, "payload");
    jo_begin(&o, '{');
    jo_member(&o, "collection");
    jo_uuid(&o, &s->collection);
    jo_member(&o, "document");
    jo_uuid(&o, &d->id);
    jo_member(&o, "document_no");
    jo_i64(&o, d->no);
    jo_member(&o, "version");
    jo_i64(&o, d->content_version);
    jo_member(&o, "ordinal");
    jo_i64(&o, (int64_t)i);
    add_described(&o, d);
    jo_end(&o, '}');
    jo_end(&o, '}');
}

/* Points from `from` on, as many as a call takes; returns the first that is left. Printing floats takes time, so the loop
 * turns in between. */
static suspends size_t add_points(struct buf *b, const struct vector_space *s, const struct vector_document *d,
                                  size_t from)
{
    size_t i = from, floats = 0;
    buf_lit(b, "{\"points\":[");
    for (; i < d->n && i - from < BATCH && b->n < BATCH_BYTES; i++) {
        if (i > from)
            buf_ch(b, ',');
        add_point(b, s, d, i);
        floats += (size_t)s->dim;
        if (floats < FLOATS_A_TURN)
            continue;
        floats = 0;
        fiber_yield();
    }
    buf_lit(b, "]}");
    return i;
}

/* *missing: the collection is gone, and all must be written again. */
static suspends int upsert(struct qdrant *q, struct arena *a, struct str name, const struct vector_space *s,
                           const struct vector_document *d, bool *missing, struct err *e)
{
    int rc = 0;
    *missing = false;
    for (size_t i = 0; i < d->n && rc == 0 && !*missing;) {
        struct buf b = {0};
        i = add_points(&b, s, d, i);
        rc = qdrant_update(q, a, "PUT", qdrant_path(a, name, "/points"), buf_view(&b), missing, e);
        buf_fini(&b);
    }
    return rc;
}

static suspends int delete_others(struct qdrant *q, struct arena *a, struct str name, const struct vector_space *s,
                                  const struct vector_document *d, struct err *e)
{
    struct buf b = {0};
    buf_lit(&b, "\"must\":[");
    of_collection(&b, s);
    of_documents(&b, &d->no, 1);
    buf_printf(&b,
               "],\"must_not\":[{\"must\":[{\"key\":\"version\",\"match\":{\"value\":%lld}},"
               "{\"key\":\"ordinal\",\"range\":{\"lt\":%zu}}]}]",
               (long long)d->content_version, d->n);
    int rc = delete_where(q, a, name, buf_view(&b), e);
    buf_fini(&b);
    return rc;
}

static suspends int qdrant_put(struct vectors *v, const struct vector_space *s, const struct vector_document *d,
                               struct err *e)
{
    struct qdrant *q = (struct qdrant *)v;
    struct arena a = {0};
    struct str name = qdrant_name(q, &a, s);
    bool missing = true;
    int rc = 0;
    STAT_ADD(vector_writes_total, 1);
    for (int i = 0; i < 2 && rc == 0 && missing; i++) {
        rc = qdrant_ensure(q, &a, name, s->dim, e) || upsert(q, &a, name, s, d, &missing, e) ? -1 : 0;
        if (rc == 0 && missing)
            qdrant_forget(q, name);
    }
    if (rc == 0 && missing)
        rc = err_set(e, ERR_NOT_READY, "Qdrant's collection vanished while it was written");
    if (rc == 0)
        rc = delete_others(q, &a, name, s, d, e);
    arena_fini(&a);
    return rc;
}

static suspends int qdrant_remove(struct vectors *v, const struct vector_space *s, const int64_t *document_no, size_t n,
                                  struct err *e)
{
    struct qdrant *q = (struct qdrant *)v;
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i += NUMBERS_MAX) {
        struct arena a = {0};
        struct buf b = {0};
        buf_lit(&b, "\"must\":[");
        of_collection(&b, s);
        of_documents(&b, document_no + i, n - i < NUMBERS_MAX ? n - i : NUMBERS_MAX);
        buf_lit(&b, "]");
        rc = delete_where(q, &a, qdrant_name(q, &a, s), buf_view(&b), e);
        buf_fini(&b);
        arena_fini(&a);
    }
    return rc;
}

static suspends int qdrant_describe(struct vectors *v, const struct vector_space *s, const struct vector_document *d,
                                    struct err *e)
{
    struct qdrant *q = (struct qdrant *)v;
    struct arena a = {0};
    struct buf b = {0};
    struct json_out o = json_out(&b);
    bool missing;
    jo_begin(&o, '{');
    jo_member(&o, "payload");
    jo_begin(&o, '{');
    add_described(&o, d);
    jo_end(&o, '}');
    buf_lit(&b, ",\"filter\":{\"must\":[");
    of_collection(&b, s);
    of_documents(&b, &d->no, 1);
    buf_lit(&b, "]}}");
    int rc = qdrant_update(q, &a, "POST", qdrant_path(&a, qdrant_name(q, &a, s), "/points/payload"), buf_view(&b),
                           &missing, e);
    buf_fini(&b);
    arena_fini(&a);
    return rc;
}

/* Qdrant's collection itself. */
static suspends int drop_place(struct qdrant *q, struct arena *a, const struct vector_space *s, struct err *e)
{
    struct qdrant_reply r;
    struct str name = qdrant_name(q, a, s);
    qdrant_forget(q, name);
    return qdrant_call(q, a, "DELETE", qdrant_path(a, name, ""), STR(""), false, &r, e);
}

static suspends int qdrant_drop(struct vectors *v, const struct vector_space *s, struct err *e)
{
    struct qdrant *q = (struct qdrant *)v;
    struct arena a = {0};
    struct buf b = {0};
    if (uuid_is_zero(&s->collection)) {
        int done = drop_place(q, &a, s, e);
        arena_fini(&a);
        return done;
    }
    buf_lit(&b, "\"must\":[");
    of_collection(&b, s);
    buf_lit(&b, "]");
    int rc = qdrant_alias_drop(q, &a, s, e) || delete_where(q, &a, qdrant_name(q, &a, s), buf_view(&b), e) ? -1 : 0;
    buf_fini(&b);
    arena_fini(&a);
    return rc;
}

/* ---- verbs that read ---- */

static int64_t number_of(const json_t *point, const char *member)
{
    return json_integer_value(json_object_get(json_object_get(point, "payload"), member));
}

static void query_body(struct buf *b, const struct vector_space *s, const struct vector_query *q, int limit,
                       const struct vector_hit *but, size_t n_but)
{
    buf_lit(b, "{\"query\":[");
    for (int x = 0; x < s->dim; x++)
        buf_printf(b, x ? ",%.9g" : "%.9g", (double)q->v[x]);
    buf_printf(b, "],\"using\":\"dense\",\"limit\":%d,\"with_vector\":false,", limit);
    buf_lit(b, "\"with_payload\":[\"document_no\",\"version\",\"ordinal\"],\"filter\":{\"must\":[");
    of_collection(b, s);
    /* A filter that can be said in part only is a list of documents, unless that is too long. */
    if (q->allowed && !(q->filter && (q->n_allowed > ALLOWED_MAX || qdrant_says(q->filter)))) {
        of_documents(b, q->allowed, q->n_allowed);
    } else if (q->filter) {
        size_t before = b->n;
        buf_ch(b, ',');
        if (!qdrant_filter(b, q->filter))
            b->n = before;
    }
    buf_ch(b, ']');
    for (size_t i = 0; i < n_but; i++) {
        buf_str(b, i ? STR(",") : STR(",\"must_not\":[{\"key\":\"document_no\",\"match\":{\"any\":["));
        buf_i64(b, but[i].no >> 20);
    }
    buf_str(b, n_but ? STR("]}}]}}") : STR("}}"));
}

/* One call: the nearest points of documents that are not among `but`. */
static suspends int nearest(struct qdrant *q, struct arena *a, const struct vector_space *s,
                            const struct vector_query *query, int limit, const struct vector_hit *but, size_t n_but,
                            struct vector_hit **out, size_t *n, struct err *e)
{
    struct qdrant_reply r;
    struct buf b = {0};
    query_body(&b, s, query, limit, but, n_but);
    int rc =
        qdrant_call(q, a, "POST", qdrant_path(a, qdrant_name(q, a, s), "/points/query"), buf_view(&b), false, &r, e);
    buf_fini(&b);
    if (rc)
        return -1;
    const json_t *points = json_object_get(r.result, "points");
    size_t found = json_array_size(points); /* 0 for a collection that is not there */
    struct vector_hit *hit = arena_alloc(a, found * sizeof *hit);
    for (size_t i = 0; i < found; i++) {
        const json_t *p = json_array_get(points, i);
        hit[i] =
            (struct vector_hit){.no = (int64_t)((uint64_t)number_of(p, "document_no") << 20) | number_of(p, "ordinal"),
                                .content_version = number_of(p, "version"),
                                .score = (float)json_number_value(json_object_get(p, "score"))};
    }
    qsort(hit, found, sizeof *hit, vectors_hit_order);
    *out = hit;
    *n = found;
    return 0;
}

/* The best of each document: asks for the nearest points, then for those of documents that were not among them, and so on.
 * Qdrant's own groups are found in the same way, but it gives up after five times. Each time finds a document at least. */
static suspends int nearest_of_each(struct qdrant *q, struct arena *a, const struct vector_space *s,
                                    const struct vector_query *query, struct vector_hit **out, size_t *n, struct err *e)
{
    size_t k = (size_t)query->k, all = 0, more;
    struct vector_hit *hit = arena_alloc(a, (k + PAGE) * sizeof *hit), *some;
    for (int i = 0, limit = query->k; i < TURNS_MAX && all < k; i++, limit = PAGE) {
        if (nearest(q, a, s, query, limit, hit, all, &some, &more, e))
            return -1;
        bool last = more < (size_t)limit;
        more = vectors_best_of_each(some, more);
        if (more)
            memcpy(hit + all, some, more * sizeof *hit);
        all += more;
        if (last)
            break;
    }
    qsort(hit, all, sizeof *hit, vectors_hit_order);
    *out = hit;
    *n = all < k ? all : k;
    return 0;
}

static suspends int qdrant_search(struct vectors *v, struct arena *a, const struct vector_space *s,
                                  const struct vector_query *query, struct vector_hit **out, size_t *n, struct err *e)
{
    struct qdrant *q = (struct qdrant *)v;
    STAT_ADD(vector_searches_total, 1);
    if (query->k < 1 || (query->allowed && query->n_allowed == 0)) {
        *n = 0;
        return 0;
    }
    return query->by_document ? nearest_of_each(q, a, s, query, out, n, e)
                              : nearest(q, a, s, query, query->k, NULL, 0, out, n, e);
}

/* A page of points, ascending by document, of documents behind `after`. */
static suspends int scroll(struct qdrant *q, struct arena *a, const struct vector_space *s, int64_t after,
                           json_t **points, struct err *e)
{
    struct qdrant_reply r;
    struct buf b = {0};
    buf_lit(&b, "{\"filter\":{\"must\":[");
    of_collection(&b, s);
    if (after != INT64_MIN)
        buf_printf(&b, ",{\"key\":\"document_no\",\"range\":{\"gt\":%lld}}", (long long)after);
    buf_printf(&b,
               "]},\"order_by\":{\"key\":\"document_no\",\"direction\":\"asc\"},\"limit\":%d,"
               "\"with_payload\":[\"document_no\",\"version\"],\"with_vector\":false}",
               PAGE);
    int rc =
        qdrant_call(q, a, "POST", qdrant_path(a, qdrant_name(q, a, s), "/points/scroll"), buf_view(&b), false, &r, e);
    buf_fini(&b);
    *points = rc == 0 ? json_object_get(r.result, "points") : NULL;
    return rc;
}

static suspends int count(struct qdrant *q, struct arena *a, const struct vector_space *s, int64_t no, int64_t *out,
                          struct err *e)
{
    struct qdrant_reply r;
    struct buf b = {0};
    buf_lit(&b, "{\"exact\":true,\"filter\":{\"must\":[");
    of_collection(&b, s);
    of_documents(&b, &no, 1);
    buf_lit(&b, "]}}");
    int rc =
        qdrant_call(q, a, "POST", qdrant_path(a, qdrant_name(q, a, s), "/points/count"), buf_view(&b), false, &r, e);
    buf_fini(&b);
    if (rc == 0)
        *out = json_integer_value(json_object_get(r.result, "count"));
    return rc;
}

/* Adds the documents of a page, each with all its points; one with several versions counts under the newest, with the
 * points of all, so that it differs from what the store has. The last one of a full page may go on behind it, and is
 * counted. */
static suspends int add_page(struct qdrant *q, struct arena *a, const struct vector_space *s, const json_t *points,
                             struct vector_entry *entry, size_t *n, size_t max, struct err *e)
{
    size_t found = json_array_size(points);
    for (size_t i = 0; i < found; i++) {
        const json_t *p = json_array_get(points, i);
        int64_t no = number_of(p, "document_no"), version = number_of(p, "version");
        if (*n == 0 || entry[*n - 1].document_no != no) {
            if (*n == max)
                return 0;
            entry[(*n)++] = (struct vector_entry){.document_no = no};
        }
        struct vector_entry *at = &entry[*n - 1];
        at->points++;
        at->content_version = version > at->content_version ? version : at->content_version;
    }
    if (found < PAGE)
        return 0;
    return count(q, a, s, entry[*n - 1].document_no, &entry[*n - 1].points, e);
}

static suspends int qdrant_list(struct vectors *v, struct arena *a, const struct vector_space *s, int64_t after,
                                size_t max, struct vector_entry **out, size_t *n, struct err *e)
{
    struct qdrant *q = (struct qdrant *)v;
    struct buf found = {0}; /* entries: how many there are is not known before */
    size_t page = PAGE;
    *n = 0;
    while (page == PAGE && *n < max) {
        struct arena own = {0};
        struct vector_entry some[PAGE];
        size_t more = 0;
        json_t *points;
        int rc = scroll(q, &own, s, after, &points, e) ||
                         add_page(q, &own, s, points, some, &more, max - *n < PAGE ? max - *n : PAGE, e)
                     ? -1
                     : 0;
        page = json_array_size(points);
        arena_fini(&own);
        if (rc != 0) {
            buf_fini(&found);
            return -1;
        }
        buf_add(&found, some, more * sizeof *some);
        *n += more;
        if (more > 0)
            after = some[more - 1].document_no;
    }
    *out = found.p ? arena_own(a, found.p, free) : NULL;
    return 0;
}

static suspends int qdrant_check(struct vectors *v, struct err *e)
{
    struct arena a = {0};
    struct qdrant_reply r;
    int rc = qdrant_call((struct qdrant *)v, &a, "GET", STR("/readyz"), STR(""), true, &r, e);
    if (rc == 0 && r.status >= 300)
        rc = err_set(e, ERR_NOT_READY, "What answers at vectors.url is not Qdrant");
    arena_fini(&a);
    return rc;
}
