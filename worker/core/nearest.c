/* The vector arm: the query becomes a vector, and the index of each collection says which chunks are nearest to it. What
 * it says is held against the store: entries of documents that have changed since, or that the filter does not let
 * through, are dropped. */
#include "worker/core/retrieve_private.h"
#include "worker/core/recall.h"
#include "worker/embed/embed.h"
#include "worker/vector/vector.h"
#include <stdlib.h>

enum {
    AT_ONCE = 8,          /* collections asked at the same time */
    DOCUMENTS_MAX = 1000, /* of one look into the store */
    K_MAX = 1000,         /* that an index is asked for */
};

struct nearest {
    struct search *s;
    const float *v;
    int dim;
    size_t k;
};

/* Of one collection. */
struct near_part {
    const struct nearest *n;
    struct search_part *p;
    struct ranked *r;
    size_t found;
    int64_t total;
    bool full; /* the index gave as much as it is asked for at most: there may be more */
    bool lost; /* it has nothing of a collection that has chunks */
    struct err e;
};

static bool has_vectors(const struct search *s, const struct search_part *p)
{
    return p->c.generation > 0 && p->c.dim > 0 && str_eq(p->c.embedder, s->b->embedder->model);
}

/* ---- the hits of a collection, as far as they hold ---- */

static int64_t document_of(const struct vector_hit *h)
{
    return h->no >> 20;
}

static int by_document(const void *x, const void *y)
{
    const struct vector_hit *a = x, *b = y;
    if (a->no != b->no)
        return a->no < b->no ? -1 : 1;
    return (a->content_version < b->content_version) - (a->content_version > b->content_version);
}

static bool let_through(struct search *s, const struct search_part *p, const struct store_document *d)
{
    json_t *metadata;
    struct err e;
    if (!s->q->filter)
        return true;
    if (p->matched)
        return bsearch(&d->no, p->allowed, p->n_allowed, sizeof d->no, number_order) != NULL;
    return json_parse_object(s->a, d->metadata.n ? d->metadata : STR("{}"), 64, &metadata, &e) == 0 &&
           filter_matches(s->q->filter, metadata);
}

/* Keeps of `n` hits those whose document is as it was when its vectors were made, each chunk once. */
suspends static int keep_live(struct near_part *x, struct vector_hit *h, size_t n, struct err *e)
{
    struct search *s = x->n->s;
    qsort(h, n, sizeof *h, by_document);
    int64_t *nos = arena_alloc(s->a, (n + 1) * sizeof *nos);
    size_t n_docs = 0, d = 0;
    for (size_t i = 0; i < n; i++)
        if (!n_docs || nos[n_docs - 1] != document_of(&h[i]))
            nos[n_docs++] = document_of(&h[i]);
    struct store_document *docs = arena_zalloc(s->a, (n_docs + 1) * sizeof *docs);
    for (size_t from = 0, some; from < n_docs; from += some) {
        some = n_docs - from < DOCUMENTS_MAX ? n_docs - from : DOCUMENTS_MAX;
        if (STORE_CALL(s->store, documents_by_no, s->a, nos + from, some, docs + from, e))
            return -1;
    }
    x->r = arena_zalloc(s->a, (n + 1) * sizeof *x->r);
    x->found = 0;
    for (size_t i = 0; i < n; i++) {
        while (nos[d] != document_of(&h[i]))
            d++;
        bool first = !x->found || x->r[x->found - 1].no != h[i].no;
        bool live =
            docs[d].no && docs[d].indexed_version == h[i].content_version && uuid_eq(&docs[d].collection, &x->p->c.id);
        if (!first || !live || !let_through(s, x->p, &docs[d]))
            continue;
        x->r[x->found++] = (struct ranked){.no = h[i].no, .score = h[i].score, .part = x->p, .cosine = h[i].score};
    }
    return 0;
}

/* How long the list would be, for every vector is somewhat near. Where the index has not given everything, as many as the
 * store has chunks, although some may be without a vector. */
suspends static int count_all(struct near_part *x, bool all, struct err *e)
{
    struct search_part *p = x->p;
    bool by_document = x->n->s->q->group_by_document;
    x->total = (int64_t)x->found;
    if (all)
        return 0;
    if (search_match(x->n->s, p, e))
        return -1;
    int64_t more = by_document ? p->c.documents - p->c.failed : p->c.chunks;
    if (p->matched)
        more = by_document ? (int64_t)p->n_allowed : p->chunks;
    if (x->total < more)
        x->total = more;
    return 0;
}

suspends static int search_part(struct near_part *x, struct err *e)
{
    struct search *s = x->n->s;
    struct vectors *v = s->b->vectors;
    const struct vector_space space = {
        .collection = x->p->c.id, .collection_no = x->p->c.no, .generation = x->p->c.generation, .dim = x->p->c.dim};
    struct vector_query q = {
        .v = x->n->v, .k = (int)x->n->k, .by_document = s->q->group_by_document, .filter = s->q->filter};
    bool says = q.filter && v->ops->says && v->ops->says(q.filter);
    if (!says && search_match(s, x->p, e))
        return -1;
    q.allowed = x->p->allowed;
    q.n_allowed = x->p->n_allowed;
    if (q.allowed && !q.n_allowed)
        return 0;
    for (int again = 0;; again++) {
        struct vector_hit *h;
        size_t n;
        if (VECTORS_CALL(v, search, s->a, &space, &q, &h, &n, e) || keep_live(x, h, n, e))
            return -1;
        x->full = n >= K_MAX;
        x->lost = n == 0 && !s->q->filter;
        if (again || x->found >= x->n->k || x->found == n || n < (size_t)q.k)
            return count_all(x, n < (size_t)q.k, e);
        q.k = K_MAX; /* ghosts have taken the places of others */
    }
}

suspends static int search_task(void *arg)
{
    struct near_part *x = arg;
    return search_part(x, &x->e);
}

/* ---- all of them ---- */

suspends static int search_parts(const struct nearest *n, struct near_part *x, size_t parts, struct err *e)
{
    struct fiber_task tasks[AT_ONCE];
    int failed = 0;
    if (parts == 1)
        return search_part(&x[0], e);
    for (size_t from = 0, some; from < parts; from += some) {
        some = parts - from < AT_ONCE ? parts - from : AT_ONCE;
        for (size_t i = 0; i < some; i++) {
            x[from + i].n = n;
            tasks[i] = (struct fiber_task){.fn = search_task, .arg = &x[from + i]};
        }
        fiber_all(tasks, some);
        for (size_t i = 0; i < some; i++)
            if (tasks[i].result) {
                *e = x[from + i].e;
                failed = -1;
            }
    }
    return failed;
}

static void merge(struct search *s, const struct near_part *x, size_t parts, size_t k, struct ranking *out)
{
    struct ranking r = {0};
    for (size_t i = 0; i < parts; i++) {
        r.n += x[i].found;
        r.total += x[i].total;
        r.truncated |= x[i].full;
    }
    r.r = arena_alloc(s->a, (r.n + 1) * sizeof *r.r);
    r.n = 0;
    for (size_t i = 0; i < parts; i++)
        for (size_t j = 0; j < x[i].found; j++)
            r.r[r.n++] = x[i].r[j];
    qsort(r.r, r.n, sizeof *r.r, ranked_by_score);
    if (r.n > k)
        r.n = k;
    for (size_t i = 0; i < r.n; i++)
        r.r[i].vector = (int)i + 1;
    *out = r;
}

suspends int nearest_rank(struct search *s, size_t k, struct ranking *out, struct retrieve_result *told, struct err *e)
{
    struct nearest n = {.s = s, .k = k < K_MAX ? k : K_MAX};
    struct near_part *x = arena_zalloc(s->a, (s->n_parts + 1) * sizeof *x);
    size_t parts = 0;
    for (size_t i = 0; i < s->n_parts; i++)
        if (s->part[i].c.chunks == 0)
            continue;
        else if (has_vectors(s, &s->part[i]))
            x[parts++] = (struct near_part){.n = &n, .p = &s->part[i]};
        else
            told->degraded |= RETRIEVE_NO_VECTORS;
    *out = (struct ranking){0};
    for (size_t i = 0; i < parts; i++)
        if (x[i].p->c.incomplete)
            told->degraded |= RETRIEVE_NO_VECTORS;
    if (!parts)
        return 0;
    if (recall_vector(s->b, s->a, s->q->query, &n.v, &n.dim, e)) {
        told->degraded |= RETRIEVE_NO_EMBEDDER;
        return -1;
    }
    size_t fit = 0;
    for (size_t i = 0; i < parts; i++)
        if (x[i].p->c.dim == n.dim)
            x[fit++] = x[i];
        else
            told->degraded |= RETRIEVE_NO_VECTORS; /* the server has another model under the same name by now */
    for (size_t i = 0; i < fit; i++)
        if (x[i].p->c.generation > told->generation)
            told->generation = x[i].p->c.generation;
    int failed = fit ? search_parts(&n, x, fit, e) : 0;
    for (size_t i = 0; i < fit; i++)
        if (failed || x[i].lost)
            told->degraded |= RETRIEVE_NO_VECTORS;
    merge(s, x, fit, k, out);
    return failed;
}
