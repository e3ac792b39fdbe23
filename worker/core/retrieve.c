#include "worker/core/retrieve_private.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/embed/embed.h"
#include <errno.h>
#include <stdlib.h>

enum {
    COLLECTIONS_PAGE = 100,
    BEYOND = 16 /* what is asked for beyond the page: some documents may have changed, and is there more? */
};

static const char *const mode_names[] = {
#define X(name) #name,
    RETRIEVE_MODES(X)
#undef X
};

const char *retrieve_mode_name(enum retrieve_mode m)
{
    return mode_names[m];
}

bool retrieve_mode_parse(struct str s, enum retrieve_mode *out)
{
    for (int m = 0; m < RETRIEVE_MODE_COUNT; m++)
        if (str_eqz(s, mode_names[m])) {
            *out = (enum retrieve_mode)m;
            return true;
        }
    return false;
}

/* ---- the scope: which collections, and which of their documents ---- */

struct scoping {
    struct store *store;
    struct arena *a;
    struct retrieve_scope scope;
    size_t cap;
};

static void add(struct scoping *x, const struct store_collection *c)
{
    if (x->scope.n == x->cap) {
        x->cap = x->cap ? 2 * x->cap : 4;
        struct store_collection *grown = arena_alloc(x->a, x->cap * sizeof *grown);
        if (x->scope.n)
            memcpy(grown, x->scope.c, x->scope.n * sizeof *grown);
        x->scope.c = grown;
    }
    x->scope.c[x->scope.n++] = *c;
}

static int no_collection(const struct uuid *id, struct err *e)
{
    char text[UUID_TEXT_LEN];
    uuid_text(id, text);
    return err_set(e, ERR_NOT_FOUND, "No collection '%.*s'", UUID_TEXT_LEN, text);
}

suspends static int named(struct scoping *x, const struct uuid *id, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        struct store_collection c;
        bool twice = false;
        for (size_t j = 0; j < i; j++)
            twice |= uuid_eq(&id[i], &id[j]);
        if (twice)
            continue;
        if (STORE_CALL(x->store, collection_get, x->a, &id[i], &c, e))
            return e->code == ERR_NOT_FOUND ? no_collection(&id[i], e) : -1;
        add(x, &c);
    }
    return 0;
}

suspends static int every(struct scoping *x, struct err *e)
{
    struct store_page page = {.limit = COLLECTIONS_PAGE, .ascending = true};
    for (bool more = true; more;) {
        struct store_collection *c;
        size_t n;
        if (STORE_CALL(x->store, collection_list, x->a, &page, &c, &n, &more, e))
            return -1;
        for (size_t i = 0; i < n; i++)
            add(x, &c[i]);
        if (n == 0)
            break;
        page.has_after = true;
        page.after = c[n - 1].id;
    }
    return 0;
}

suspends int retrieve_scope_of(const struct backends *b, struct arena *a, const struct retrieve_query *q,
                               struct retrieve_scope *out, struct err *e)
{
    struct scoping x = {.store = b->store, .a = a};
    if (q->n_collections ? named(&x, q->collections, q->n_collections, e) : every(&x, e))
        return -1;
    *out = x.scope;
    return 0;
}

suspends int search_match(struct search *s, struct search_part *p, struct err *e)
{
    if (p->matched || (!s->q->filter && s->q->mode != RETRIEVE_metadata))
        return 0;
    if (STORE_CALL(s->store, document_match, s->a, &p->c.id, s->q->filter, &p->chunks, &p->allowed, &p->n_allowed, e)) {
        if (e->code != ERR_NOT_FOUND)
            return -1;
        p->allowed = arena_alloc(s->a, sizeof *p->allowed); /* the collection was deleted meanwhile */
        p->n_allowed = 0;
        p->chunks = 0;
    }
    p->matched = true;
    return 0;
}

suspends int search_breathe(struct err *e)
{
    int rc = fiber_self() ? fiber_yield() : 0;
    if (rc == -ETIMEDOUT)
        return err_set(e, ERR_DEADLINE, "the search took too long");
    return rc ? err_set(e, ERR_CANCELED, "the search was cancelled") : 0;
}

int number_order(const void *x, const void *y)
{
    const int64_t *a = x, *b = y;
    return (*a > *b) - (*a < *b);
}

int ranked_by_score(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return (a->no > b->no) - (a->no < b->no);
}

/* ---- without a query ---- */

static int newest_first(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    return (a->no < b->no) - (a->no > b->no);
}

/* The first chunk of each document. */
suspends static int newest(struct search *s, struct ranking *out, struct err *e)
{
    struct ranking r = {0};
    for (size_t i = 0; i < s->n_parts; i++) {
        if (search_match(s, &s->part[i], e))
            return -1;
        r.n += s->part[i].n_allowed;
    }
    r.r = arena_zalloc(s->a, (r.n + 1) * sizeof *r.r);
    r.total = (int64_t)r.n;
    r.n = 0;
    for (size_t i = 0; i < s->n_parts; i++)
        for (size_t k = 0; k < s->part[i].n_allowed; k++)
            r.r[r.n++] = (struct ranked){.no = s->part[i].allowed[k] << 20, .part = &s->part[i]};
    qsort(r.r, r.n, sizeof *r.r, newest_first);
    *out = r;
    return 0;
}

/* ---- with vectors ---- */

static bool has_arm(const struct search *s)
{
    return s->b->embedder && s->b->vectors;
}

/* Entries that each arm contributes. */
static size_t arm_size(const struct search *s)
{
    size_t k = (size_t)s->cfg->search_vector_candidates;
    while (k < (size_t)s->q->offset + (size_t)s->q->top_k)
        k *= 2;
    return k;
}

/* What has too low a score stands at the end. */
static void narrow(const struct search *s, struct ranking *r)
{
    size_t kept = 0;
    while (kept < r->n && r->r[kept].score >= s->q->min_score)
        kept++;
    if (kept < r->n)
        r->total = (int64_t)kept;
    r->n = kept;
}

suspends static int by_vectors(struct search *s, struct ranking *out, struct retrieve_result *r, struct err *e)
{
    if (!has_arm(s))
        return err_at(e, "/mode", "Mode 'vector' needs an embedder: configure embedding.url, or use lexical or hybrid");
    size_t page = (size_t)s->q->offset + (size_t)s->q->top_k;
    if (nearest_rank(s, page + BEYOND, out, r, e))
        return -1;
    if (r->degraded && !r->generation)
        return err_at(e, "/mode",
                      "These collections have no vectors of the model '%.80s': run ragd reindex, or wait until "
                      "it is done",
                      arena_dup(s->a, s->b->embedder->model).p);
    narrow(s, out);
    return 0;
}

struct arm {
    struct search *s;
    struct ranking found;
    struct retrieve_result told;
    size_t k;
    struct err e;
};

suspends static int lexical_arm(void *arg)
{
    struct arm *x = arg;
    return lexical_rank(x->s, x->k, 0, &x->found, &x->e);
}

/* Has a time of its own, and never fails: what it cannot tell is done without. */
suspends static int vector_arm(void *arg)
{
    struct arm *x = arg;
    struct fiber *self = fiber_self();
    int64_t before = fiber_deadline(self), own = clock_ns() + x->s->cfg->search_vector_timeout * MS;
    if (!before || own < before)
        fiber_set_deadline(self, own);
    if (nearest_rank(x->s, x->k, &x->found, &x->told, &x->e)) {
        if (!x->told.degraded)
            x->told.degraded = RETRIEVE_NO_VECTORS;
        log_err(LOG_DEBUG, "search without vectors", &x->e);
    }
    fiber_set_deadline(self, before);
    return 0;
}

suspends static int by_both(struct search *s, struct ranking *out, struct retrieve_result *r, struct err *e)
{
    const struct retrieve_query *q = s->q;
    struct arm lexical = {.s = s, .k = arm_size(s)}, vector = lexical;
    /* The filter is asked for once, before both want it. */
    for (size_t i = 0; i < s->n_parts; i++)
        if (s->part[i].c.chunks && search_match(s, &s->part[i], e))
            return -1;
    bool given = q->weights.lexical > 0 || q->weights.vector > 0;
    double words = given ? q->weights.lexical : 1, near = given ? q->weights.vector : 1;
    /* The vector arm first: it soon waits, while a store may answer at once. One without a weight has nothing to say. */
    struct fiber_task tasks[2];
    size_t n = 0;
    if (near > 0)
        tasks[n++] = (struct fiber_task){.fn = vector_arm, .arg = &vector};
    if (words > 0)
        tasks[n++] = (struct fiber_task){.fn = lexical_arm, .arg = &lexical};
    if (fiber_all(tasks, n)) {
        *e = lexical.e;
        return -1;
    }
    if (fiber_check())
        return err_set(e, fiber_check() == -ETIMEDOUT ? ERR_DEADLINE : ERR_CANCELED, "the search was cut short");
    if (words <= 0 && vector.told.degraded && !vector.found.n) { /* better than nothing */
        words = 1;
        if (lexical_rank(s, lexical.k, 0, &lexical.found, e))
            return -1;
    }
    fuse(s->a, &lexical.found, &vector.found, words, near, (size_t)s->cfg->search_vector_candidates,
         q->group_by_document, out);
    narrow(s, out);
    r->degraded = vector.told.degraded;
    r->generation = vector.told.generation;
    return 0;
}

suspends static int rank(struct search *s, struct ranking *out, struct retrieve_result *r, struct err *e)
{
    const struct retrieve_query *q = s->q;
    switch (q->mode) {
    case RETRIEVE_metadata: return newest(s, out, e);
    case RETRIEVE_vector: return by_vectors(s, out, r, e);
    case RETRIEVE_hybrid:
        if (has_arm(s))
            return by_both(s, out, r, e);
        r->degraded |= RETRIEVE_NO_VECTORS;
        break;
    default: break;
    }
    return lexical_rank(s, (size_t)q->offset + (size_t)q->top_k, q->min_score, out, e);
}

static void count(enum retrieve_mode m)
{
    switch (m) {
#define X(name) \
    case RETRIEVE_##name: STAT_ADD(searches_##name##_total, 1); break;
        RETRIEVE_MODES(X)
#undef X
    case RETRIEVE_MODE_COUNT: break;
    }
}

suspends int retrieve(const struct backends *b, struct arena *a, const struct retrieve_query *q,
                      struct retrieve_result *out, struct err *e)
{
    struct search s = {.b = b, .cfg = b->cfg, .store = b->store, .a = a, .q = q};
    struct retrieve_result r = {0};
    struct retrieve_scope scope;
    struct ranking found;
    count(q->mode);
    if (q->scope)
        scope = *q->scope;
    else if (retrieve_scope_of(b, a, q, &scope, e))
        return -1;
    s.n_parts = scope.n;
    s.part = arena_zalloc(a, (scope.n + 1) * sizeof *s.part);
    for (size_t i = 0; i < scope.n; i++)
        s.part[i].c = scope.c[i];
    if (rank(&s, &found, &r, e))
        return -1;
    size_t from = (size_t)q->offset < found.n ? (size_t)q->offset : found.n, n = found.n - from;
    if (n > (size_t)q->top_k)
        n = (size_t)q->top_k;
    if (hits_fetch(&s, found.r + from, n, (int)from + 1, &r, e))
        return -1;
    if (r.degraded)
        STAT_ADD(searches_degraded_total, 1);
    r.total = found.total;
    r.truncated = found.truncated;
    r.ignored_terms = lexical_ignored(&s);
    *out = r;
    return 0;
}
