#include "worker/core/retrieve.h"
#include "worker/core/analyze.h"
#include "worker/core/bm25.h"
#include "worker/io/json.h"
#include <errno.h>
#include <stdlib.h>

enum {
    COLLECTIONS_PAGE = 100,
    YIELD_EVERY = 8192, /* candidates scored between two turns of the loop */
    IGNORED_MAX = 64,   /* ignored terms that are named */
};

/* The query in one language. */
struct query_terms {
    struct query_terms *next;
    struct str language;
    struct analyzer *an;
    struct str *term; /* distinct */
    size_t n, max;
    struct str ignored[IGNORED_MAX];
    size_t n_ignored;
    struct arena *a;
};

struct search_part { /* one collection */
    struct store_collection c;
    const struct query_terms *q;
    struct bm25 model;
    int64_t *df;
    double *idf;
};

struct scored {
    double score;
    const struct store_candidate *candidate;
    const struct search_part *part;
};

struct search {
    const struct config *cfg;
    struct store *store;
    struct arena *a;
    const struct retrieve_query *q;
    struct query_terms *languages;
    struct scored *top; /* a heap, the worst one first */
    size_t n_top, max_top;
    size_t left; /* candidates that may still be scored */
    int64_t total;
    bool truncated;
};

/* ---- the query ---- */

static bool known(const struct str *list, size_t n, struct str t)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(list[i], t))
            return true;
    return false;
}

static bool take_term(void *arg, const struct term *t)
{
    struct query_terms *q = arg;
    if (known(q->term, q->n, t->text))
        return true;
    if (q->n < q->max)
        q->term[q->n++] = arena_dup(q->a, t->text);
    else if (q->n_ignored < IGNORED_MAX && !known(q->ignored, q->n_ignored, t->text))
        q->ignored[q->n_ignored++] = arena_dup(q->a, t->text);
    return true;
}

static void free_analyzer(void *a)
{
    analyzer_free(a);
}

/* The terms of the query in the language of a collection; analysed once per language. */
static struct query_terms *terms_in(struct search *s, struct str language, struct err *e)
{
    for (struct query_terms *q = s->languages; q; q = q->next)
        if (str_eq(q->language, language))
            return q;
    struct analyzer *an = analyzer_new(language, e);
    if (!an)
        return NULL;
    struct query_terms *q = arena_zalloc(s->a, sizeof *q);
    q->a = s->a;
    q->an = arena_own(s->a, an, free_analyzer);
    q->language = arena_dup(s->a, language);
    q->max = (size_t)s->cfg->limits_query_terms;
    q->term = arena_alloc(s->a, q->max * sizeof *q->term);
    analyze(an, s->q->query, take_term, q);
    q->next = s->languages;
    s->languages = q;
    return q;
}

static struct str ignored_json(const struct search *s)
{
    struct buf b = {0};
    struct str seen[IGNORED_MAX];
    size_t n = 0;
    buf_ch(&b, '[');
    for (const struct query_terms *q = s->languages; q; q = q->next)
        for (size_t i = 0; i < q->n_ignored && n < IGNORED_MAX; i++) {
            if (known(seen, n, q->ignored[i]))
                continue;
            if (n)
                buf_ch(&b, ',');
            json_escape(&b, q->ignored[i]);
            seen[n++] = q->ignored[i];
        }
    buf_ch(&b, ']');
    struct str json = arena_dup(s->a, buf_view(&b));
    buf_fini(&b);
    return json;
}

/* ---- the best ones: a heap ---- */

/* Equal scores are ordered by number, which is the order of creation in every store. */
static bool better(const struct scored *x, const struct scored *y)
{
    if (x->score != y->score)
        return x->score > y->score;
    return x->candidate->no < y->candidate->no;
}

static void sift_down(struct scored *h, size_t n, size_t i)
{
    for (;;) {
        size_t worst = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2; child++)
            if (child < n && better(&h[worst], &h[child]))
                worst = child;
        if (worst == i)
            return;
        struct scored t = h[i];
        h[i] = h[worst];
        h[worst] = t;
        i = worst;
    }
}

static void offer(struct search *s, const struct scored *x)
{
    if (s->n_top == s->max_top) {
        if (!better(x, &s->top[0]))
            return;
        s->top[0] = *x;
        sift_down(s->top, s->n_top, 0);
        return;
    }
    size_t i = s->n_top++;
    s->top[i] = *x;
    for (size_t up; i > 0 && better(&s->top[up = (i - 1) / 2], &s->top[i]); i = up) {
        struct scored t = s->top[i];
        s->top[i] = s->top[up];
        s->top[up] = t;
    }
}

static int by_rank(const void *x, const void *y)
{
    return better(x, y) ? -1 : better(y, x) ? 1 : 0;
}

/* ---- scoring ---- */

suspends static int breathe(struct err *e)
{
    int rc = fiber_self() ? fiber_yield() : 0;
    if (rc == -ETIMEDOUT)
        return err_set(e, ERR_DEADLINE, "the search took too long");
    return rc ? err_set(e, ERR_CANCELED, "the search was cancelled") : 0;
}

/* Document frequencies and the model of a collection. The candidates are all chunks that hold a term, so counting them
 * is exact, unless they were cut off. */
suspends static int make_model(struct search *s, struct search_part *p, const struct store_candidates *found,
                               struct err *e)
{
    p->df = arena_zalloc(s->a, (p->q->n + 1) * sizeof *p->df);
    p->idf = arena_zalloc(s->a, (p->q->n + 1) * sizeof *p->idf);
    for (size_t i = 0; i < found->n; i++) {
        const struct store_candidate *c = store_candidate_at(found, i);
        for (size_t t = 0; t < p->q->n; t++)
            p->df[t] += c->tf[t] > 0;
        if (i % YIELD_EVERY == YIELD_EVERY - 1 && breathe(e))
            return -1;
    }
    p->model = (struct bm25){
        .k1 = s->cfg->search_bm25_k1,
        .b = s->cfg->search_bm25_b,
        .n = (double)p->c.chunks,
        .avgdl = p->c.chunks > 0 && p->c.tokens > 0 ? (double)p->c.tokens / (double)p->c.chunks : 1,
    };
    for (size_t t = 0; t < p->q->n; t++)
        p->idf[t] = bm25_idf(&p->model, p->df[t]);
    return 0;
}

static double score_of(const struct search_part *p, const struct store_candidate *c)
{
    double score = 0;
    for (size_t t = 0; t < p->q->n; t++)
        if (c->tf[t])
            score += bm25_term(&p->model, p->idf[t], c->tf[t], c->length);
    return score;
}

static int64_t document_of(const struct store_candidate *c)
{
    return c->no >> 20;
}

/* Scores the candidates whose document is among `allowed` (sorted; NULL: all). Both run in ascending order of number, so
 * the chunks of a document also stand together: grouping keeps its best. */
suspends static int score_all(struct search *s, struct search_part *p, const struct store_candidates *found,
                              const int64_t *allowed, size_t n_allowed, struct err *e)
{
    struct scored best = {0};
    size_t at = 0;
    for (size_t i = 0; i < found->n; i++) {
        if (i % YIELD_EVERY == YIELD_EVERY - 1 && breathe(e))
            return -1;
        const struct store_candidate *c = store_candidate_at(found, i);
        while (allowed && at < n_allowed && allowed[at] < document_of(c))
            at++;
        if (allowed && (at == n_allowed || allowed[at] != document_of(c)))
            continue;
        struct scored x = {score_of(p, c), c, p};
        if (x.score < s->q->min_score)
            continue;
        s->total++;
        if (!s->q->group_by_document) {
            offer(s, &x);
            continue;
        }
        if (best.candidate && document_of(best.candidate) != document_of(c)) {
            offer(s, &best);
            best = x;
        } else if (!best.candidate || better(&x, &best)) {
            best = x;
        }
    }
    if (best.candidate)
        offer(s, &best);
    return 0;
}

suspends static int search_collection(struct search *s, const struct store_collection *c, struct err *e)
{
    struct search_part *p = arena_zalloc(s->a, sizeof *p);
    struct store_candidates found = {0};
    int64_t *allowed = NULL;
    size_t n_allowed = 0;
    p->c = *c;
    p->q = terms_in(s, c->language.n ? c->language : str_of(s->cfg->ingest_language), e);
    if (!p->q)
        return -1;
    if (p->q->n == 0 || c->chunks == 0)
        return 0;
    if (s->left == 0) {
        s->truncated = true;
        return 0;
    }
    if (s->q->filter) {
        if (STORE_CALL(s->store, document_match, s->a, &c->id, s->q->filter, &allowed, &n_allowed, e))
            return -1;
        if (n_allowed == 0)
            return 0;
    }
    if (STORE_CALL(s->store, search_candidates, s->a, c, p->q->term, p->q->n, s->left, &found, e))
        return -1;
    s->left -= found.n < s->left ? found.n : s->left;
    s->truncated |= found.truncated;
    if (make_model(s, p, &found, e))
        return -1;
    return score_all(s, p, &found, allowed, n_allowed, e);
}

static int no_collection(const struct uuid *id, struct err *e)
{
    char text[UUID_TEXT_LEN];
    uuid_text(id, text);
    return err_set(e, ERR_NOT_FOUND, "No collection '%.*s'", UUID_TEXT_LEN, text);
}

suspends static int search_named(struct search *s, struct err *e)
{
    const struct uuid *id = s->q->collections;
    for (size_t i = 0; i < s->q->n_collections; i++) {
        struct store_collection c;
        bool twice = false;
        for (size_t j = 0; j < i; j++)
            twice |= uuid_eq(&id[i], &id[j]);
        if (twice)
            continue;
        if (STORE_CALL(s->store, collection_get, s->a, &id[i], &c, e))
            return e->code == ERR_NOT_FOUND ? no_collection(&id[i], e) : -1;
        if (search_collection(s, &c, e))
            return -1;
    }
    return 0;
}

suspends static int search_every(struct search *s, struct err *e)
{
    struct store_page page = {.limit = COLLECTIONS_PAGE, .ascending = true};
    for (bool more = true; more;) {
        struct store_collection *c;
        size_t n;
        if (STORE_CALL(s->store, collection_list, s->a, &page, &c, &n, &more, e))
            return -1;
        for (size_t i = 0; i < n; i++)
            if (search_collection(s, &c[i], e))
                return -1;
        if (n == 0)
            break;
        page.has_after = true;
        page.after = c[n - 1].id;
    }
    return 0;
}

/* ---- hits ---- */

struct marks {
    struct retrieve_hit *hit;
    const struct query_terms *q;
    size_t cap;
    struct arena *a;
};

static bool mark_term(void *arg, const struct term *t)
{
    struct marks *m = arg;
    struct retrieve_hit *h = m->hit;
    if (!known(m->q->term, m->q->n, t->text))
        return true;
    if (h->n_highlight && t->from <= h->highlight[h->n_highlight - 1].to) { /* bigrams overlap */
        if (t->to > h->highlight[h->n_highlight - 1].to)
            h->highlight[h->n_highlight - 1].to = t->to;
        return true;
    }
    if (h->n_highlight == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 16;
        void *grown = arena_alloc(m->a, m->cap * sizeof *h->highlight);
        if (h->n_highlight)
            memcpy(grown, h->highlight, h->n_highlight * sizeof *h->highlight);
        h->highlight = grown;
    }
    h->highlight[h->n_highlight].from = t->from;
    h->highlight[h->n_highlight++].to = t->to;
    return true;
}

static struct str explain(struct search *s, const struct scored *x)
{
    const struct search_part *p = x->part;
    struct buf b = {0};
    struct json_out o = json_out(&b);
    jo_begin(&o, '{');
    jo_member(&o, "scorer"), jo_strz(&o, "bm25");
    jo_member(&o, "k1"), jo_f64(&o, p->model.k1);
    jo_member(&o, "b"), jo_f64(&o, p->model.b);
    jo_member(&o, "chunks"), jo_i64(&o, p->c.chunks);
    jo_member(&o, "avgdl"), jo_f64(&o, p->model.avgdl);
    jo_member(&o, "length"), jo_i64(&o, x->candidate->length);
    jo_member(&o, "terms"), jo_begin(&o, '[');
    for (size_t t = 0; t < p->q->n; t++) {
        int tf = x->candidate->tf[t];
        jo_begin(&o, '{');
        jo_member(&o, "term"), jo_str(&o, p->q->term[t]);
        jo_member(&o, "tf"), jo_i64(&o, tf);
        jo_member(&o, "df"), jo_i64(&o, p->df[t]);
        jo_member(&o, "idf"), jo_f64(&o, p->idf[t]);
        jo_member(&o, "contribution"), jo_f64(&o, bm25_term(&p->model, p->idf[t], tf, x->candidate->length));
        jo_end(&o, '}');
    }
    jo_end(&o, ']'), jo_end(&o, '}');
    struct str json = arena_dup(s->a, buf_view(&b));
    buf_fini(&b);
    return json;
}

/* The ranked ones from `offset` on become hits, with their text and documents. */
suspends static int fetch(struct search *s, struct retrieve_result *out, struct err *e)
{
    size_t from = (size_t)s->q->offset < s->n_top ? (size_t)s->q->offset : s->n_top, n = s->n_top - from;
    qsort(s->top, s->n_top, sizeof *s->top, by_rank);
    int64_t *nos = arena_alloc(s->a, (n + 1) * sizeof *nos);
    struct store_chunk *chunks = arena_zalloc(s->a, (n + 1) * sizeof *chunks);
    struct store_document *documents = arena_zalloc(s->a, (n + 1) * sizeof *documents);
    for (size_t i = 0; i < n; i++)
        nos[i] = s->top[from + i].candidate->no;
    if (n && STORE_CALL(s->store, search_fetch, s->a, nos, n, chunks, documents, e))
        return -1;
    out->hit = arena_zalloc(s->a, (n + 1) * sizeof *out->hit);
    out->n = 0;
    for (size_t i = 0; i < n; i++) {
        const struct scored *x = &s->top[from + i];
        if (!chunks[i].no)
            continue; /* removed meanwhile */
        struct retrieve_hit *h = &out->hit[out->n++];
        h->chunk = chunks[i];
        h->document = documents[i];
        h->score = h->bm25 = x->score;
        h->rank = (int)(from + i + 1);
        if (s->q->highlight) {
            struct marks m = {.hit = h, .q = x->part->q, .a = s->a};
            analyze(x->part->q->an, h->chunk.text, mark_term, &m);
        }
        if (s->q->explain)
            h->explain = explain(s, x);
    }
    return 0;
}

suspends int retrieve(const struct config *cfg, struct store *store, struct arena *a, const struct retrieve_query *q,
                      struct retrieve_result *out, struct err *e)
{
    struct search s = {
        .cfg = cfg,
        .store = store,
        .a = a,
        .q = q,
        .max_top = (size_t)q->offset + (size_t)q->top_k,
        .left = (size_t)cfg->search_max_candidates,
    };
    struct retrieve_result r = {0};
    s.top = arena_alloc(a, (s.max_top + 1) * sizeof *s.top);
    if ((q->n_collections ? search_named(&s, e) : search_every(&s, e)) || fetch(&s, &r, e))
        return -1;
    r.total = s.total;
    r.truncated = s.truncated;
    r.ignored_terms = ignored_json(&s);
    *out = r;
    return 0;
}
