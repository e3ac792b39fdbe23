/* The lexical arm: candidates from the store, scored by one BM25 with the statistics of their own collection, so that
 * every store gives the same order. */
#include "worker/core/postings.h"
#include "worker/core/retrieve_private.h"
#include "worker/io/json.h"
#include <math.h>
#include <stdlib.h>

enum { YIELD_EVERY = 8192 }; /* candidates scored between two turns of the loop */

struct scored {
    double score;
    const struct store_candidate *candidate;
    const struct search_part *part;
};

struct scoring {
    struct search *s;
    struct scored *top; /* a heap, the worst one first */
    size_t n_top, max_top;
    size_t left; /* candidates that may still be scored */
    int64_t total;
    double min_score;
    bool by_document, truncated;
};

/* ---- the query ---- */

static bool known(const struct str *list, size_t n, struct str t)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(list[i], t))
            return true;
    return false;
}

bool lexical_has_term(const struct query_terms *q, struct str term)
{
    return known(q->term, q->n, term);
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

int lexical_terms(struct search *s, struct search_part *p, struct err *e)
{
    struct str language = search_language(s, p);
    for (struct query_terms *q = s->languages; q; q = q->next)
        if (str_eq(q->language, language)) {
            p->q = q;
            return 0;
        }
    struct analyzer *an = analyzer_new(language, e);
    if (!an)
        return -1;
    struct query_terms *q = arena_zalloc(s->a, sizeof *q);
    q->a = s->a;
    q->an = arena_own(s->a, an, free_analyzer);
    q->language = arena_dup(s->a, language);
    q->max = (size_t)s->cfg->limits_query_terms;
    q->term = arena_alloc(s->a, q->max * sizeof *q->term);
    analyze(an, s->q->query, take_term, q);
    q->next = s->languages;
    s->languages = q;
    p->q = q;
    return 0;
}

struct str lexical_ignored(const struct search *s)
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

static void offer(struct scoring *g, const struct scored *x)
{
    if (g->n_top == g->max_top) {
        if (!better(x, &g->top[0]))
            return;
        g->top[0] = *x;
        sift_down(g->top, g->n_top, 0);
        return;
    }
    size_t i = g->n_top++;
    g->top[i] = *x;
    for (size_t up; i > 0 && better(&g->top[up = (i - 1) / 2], &g->top[i]); i = up) {
        struct scored t = g->top[i];
        g->top[i] = g->top[up];
        g->top[up] = t;
    }
}

static int by_rank(const void *x, const void *y)
{
    return better(x, y) ? -1 : better(y, x) ? 1 : 0;
}

/* ---- scoring ---- */

static void make_model(struct scoring *g, struct search_part *p)
{
    const struct config *cfg = g->s->cfg;
    p->df = arena_zalloc(g->s->a, (p->q->n + 1) * sizeof *p->df);
    p->idf = arena_zalloc(g->s->a, (p->q->n + 1) * sizeof *p->idf);
    p->model = (struct bm25){
        .k1 = cfg->search_bm25_k1,
        .b = cfg->search_bm25_b,
        .n = (double)p->c.chunks,
        .avgdl = p->c.chunks > 0 && p->c.tokens > 0 ? (double)p->c.tokens / (double)p->c.chunks : 1,
    };
}

static void weigh_terms(struct search_part *p)
{
    for (size_t t = 0; t < p->q->n; t++)
        p->idf[t] = bm25_idf(&p->model, p->df[t]);
}

suspends static int candidates(struct search *s, struct search_part *p, const bool *optional, size_t max,
                               struct store_candidates *out, struct err *e)
{
    if (p->lists)
        return postings_merge(p->lists, optional, p->q->n, max, s->a, out, e);
    return STORE_CALL(s->store, search_candidates, s->a, &p->c, p->q->term, optional, p->q->n, max, out, e);
}

/* Document frequencies. The candidates are all chunks that hold a term, so counting them is exact, unless they were cut
 * off. */
suspends static int count_terms(struct search_part *p, const struct store_candidates *found, struct err *e)
{
    memset(p->df, 0, p->q->n * sizeof *p->df);
    for (size_t i = 0; i < found->n; i++) {
        const struct store_candidate *c = store_candidate_at(found, i);
        for (size_t t = 0; t < p->q->n; t++)
            p->df[t] += c->tf[t] > 0;
        if (i % YIELD_EVERY == YIELD_EVERY - 1 && search_breathe(e))
            return -1;
    }
    weigh_terms(p);
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

/* Scores the candidates whose document is allowed. Both lists run in ascending order of number, so the chunks of a
 * document also stand together: grouping keeps its best. */
suspends static int score_all(struct scoring *g, struct search_part *p, const struct store_candidates *found,
                              struct err *e)
{
    struct scored best = {0};
    size_t at = 0;
    for (size_t i = 0; i < found->n; i++) {
        if (i % YIELD_EVERY == YIELD_EVERY - 1 && search_breathe(e))
            return -1;
        const struct store_candidate *c = store_candidate_at(found, i);
        while (p->allowed && at < p->n_allowed && p->allowed[at] < document_of(c))
            at++;
        if (p->allowed && (at == p->n_allowed || p->allowed[at] != document_of(c)))
            continue;
        struct scored x = {score_of(p, c), c, p};
        if (x.score < g->min_score)
            continue;
        bool next = !g->by_document || !best.candidate || document_of(best.candidate) != document_of(c);
        g->total += next;
        if (!g->by_document) {
            offer(g, &x);
            continue;
        }
        if (best.candidate && next) {
            offer(g, &best);
            best = x;
        } else if (!best.candidate || better(&x, &best)) {
            best = x;
        }
    }
    if (best.candidate)
        offer(g, &best);
    return 0;
}

/* ---- without the chunks that have only frequent words ----
 * MaxScore (Turtle and Flood, Query evaluation: strategies and optimizations, 1995): what a term contributes is bounded,
 * the less the more frequent it is. Chunks that hold nothing but such terms need not be looked at when enough others score
 * more than all of these could give. The result is the same; only how many chunks match is then estimated. */

enum { DENSE = 16 };                    /* a term in every 16th chunk is worth leaving out */
static const double BOUND_SHARE = 0.35; /* of what the other terms can give: more is not likely to be beaten */
enum { PRUNE_FROM = 1024 };             /* chunks: fewer are read at once */

static double most_of(const struct search_part *p, size_t t)
{
    return p->df[t] ? p->idf[t] * (p->model.k1 + 1) : 0;
}

/* Flags the terms that may be left out, the most frequent ones; returns what they can give together, 0: there are none. */
static double choose_optional(const struct search_part *p, bool *optional)
{
    double left = 0, bound = 0;
    for (size_t t = 0; t < p->q->n; t++)
        left += most_of(p, t);
    for (;;) {
        size_t next = p->q->n;
        for (size_t t = 0; t < p->q->n; t++)
            if (!optional[t] && (next == p->q->n || p->df[t] > p->df[next]))
                next = t;
        if (next == p->q->n || p->df[next] * DENSE < p->c.chunks)
            return bound;
        double more = most_of(p, next);
        if (bound + more > BOUND_SHARE * (left - more))
            return bound;
        optional[next] = true;
        bound += more;
        left -= more;
    }
}

/* As if whether a chunk holds a term did not depend on the others; of what was looked at, `scored` passed the filter. */
static int64_t estimate(const struct search_part *p, size_t found, int64_t scored)
{
    double none = 1;
    for (size_t t = 0; t < p->q->n; t++)
        none *= 1 - fmin(1, (double)p->df[t] / (double)p->c.chunks);
    double all = (1 - none) * (double)p->c.chunks;
    return found > 0 && all > (double)found ? (int64_t)(all * (double)scored / (double)found) : scored;
}

/* How many chunks hold each term; *known false: that is found out with the candidates only. */
suspends static int ask_counts(struct search *s, struct search_part *p, bool *known, struct err *e)
{
    *known = p->lists != NULL;
    for (size_t t = 0; p->lists && t < p->q->n; t++)
        p->df[t] = posting_count(p->lists[t]);
    if (p->lists || !s->store->ops->search_counts)
        return 0;
    return STORE_CALL(s->store, search_counts, &p->c, p->q->term, p->q->n, p->df, known, e);
}

/* 1: that was not possible, and nothing has changed. */
suspends static int score_pruned(struct scoring *g, struct search_part *p, struct err *e)
{
    struct search *s = g->s;
    struct store_candidates found = {0};
    const struct scoring before = *g;
    bool known = false, *optional = arena_zalloc(s->a, p->q->n * sizeof *optional);
    if (p->c.chunks < PRUNE_FROM)
        return 1;
    if (postings_get(s->b->postings, s->store, s->a, &p->c, p->q->term, p->q->n, (size_t)s->cfg->search_max_candidates,
                     &p->lists, e) ||
        ask_counts(s, p, &known, e))
        return -1;
    weigh_terms(p);
    double bound = known ? choose_optional(p, optional) : 0;
    if (bound <= 0)
        return 1;
    struct scored *top = arena_alloc(s->a, (g->n_top + 1) * sizeof *top);
    memcpy(top, g->top, g->n_top * sizeof *top);
    if (candidates(s, p, optional, g->left, &found, e) || score_all(g, p, &found, e))
        return -1;
    bool enough =
        g->min_score > bound || (g->n_top > 0 && g->n_top == g->max_top && g->top[0].score > bound * (1 + 1e-9));
    if (found.truncated || !enough) {
        memcpy(g->top, top, before.n_top * sizeof *top);
        *g = before;
        return 1;
    }
    g->left -= found.n;
    if (g->min_score <= bound)
        g->total = before.total + estimate(p, found.n, g->total - before.total);
    return 0;
}

suspends static int score_collection(struct scoring *g, struct search_part *p, struct err *e)
{
    struct search *s = g->s;
    struct store_candidates found = {0};
    if (lexical_terms(s, p, e))
        return -1;
    if (p->q->n == 0 || p->c.chunks == 0)
        return 0;
    if (g->left == 0) {
        g->truncated = true;
        return 0;
    }
    if (search_match(s, p, e))
        return -1;
    if (p->allowed && p->n_allowed == 0)
        return 0;
    make_model(g, p);
    int rc = score_pruned(g, p, e);
    if (rc <= 0)
        return rc;
    if (candidates(s, p, NULL, g->left, &found, e))
        return -1;
    g->left -= found.n < g->left ? found.n : g->left;
    g->truncated |= found.truncated;
    return count_terms(p, &found, e) || score_all(g, p, &found, e) ? -1 : 0;
}

suspends int lexical_rank(struct search *s, size_t k, double min_score, struct ranking *out, struct err *e)
{
    struct scoring g = {
        .s = s,
        .top = arena_alloc(s->a, (k + 1) * sizeof *g.top),
        .max_top = k,
        .left = (size_t)s->cfg->search_max_candidates,
        .min_score = min_score,
        .by_document = s->q->group_by_document,
    };
    for (size_t i = 0; i < s->n_parts; i++)
        if (score_collection(&g, &s->part[i], e))
            return -1;
    qsort(g.top, g.n_top, sizeof *g.top, by_rank);
    struct ranking r = {.n = g.n_top, .total = g.total, .truncated = g.truncated};
    r.r = arena_zalloc(s->a, (r.n + 1) * sizeof *r.r);
    for (size_t i = 0; i < r.n; i++) {
        const struct scored *x = &g.top[i];
        r.r[i] = (struct ranked){.no = x->candidate->no, .score = x->score, .part = x->part, .candidate = x->candidate};
        r.r[i].bm25 = x->score;
        r.r[i].lexical = (int)i + 1;
    }
    *out = r;
    return 0;
}

void lexical_explain(struct json_out *o, const struct ranked *x)
{
    const struct search_part *p = x->part;
    jo_begin(o, '{');
    jo_member(o, "scorer"), jo_strz(o, "bm25");
    jo_member(o, "k1"), jo_f64(o, p->model.k1);
    jo_member(o, "b"), jo_f64(o, p->model.b);
    jo_member(o, "chunks"), jo_i64(o, p->c.chunks);
    jo_member(o, "avgdl"), jo_f64(o, p->model.avgdl);
    jo_member(o, "length"), jo_i64(o, x->candidate->length);
    jo_member(o, "terms"), jo_begin(o, '[');
    for (size_t t = 0; t < p->q->n; t++) {
        int tf = x->candidate->tf[t];
        jo_begin(o, '{');
        jo_member(o, "term"), jo_str(o, p->q->term[t]);
        jo_member(o, "tf"), jo_i64(o, tf);
        jo_member(o, "df"), jo_i64(o, p->df[t]);
        jo_member(o, "idf"), jo_f64(o, p->idf[t]);
        jo_member(o, "contribution"), jo_f64(o, bm25_term(&p->model, p->idf[t], tf, x->candidate->length));
        jo_end(o, '}');
    }
    jo_end(o, ']'), jo_end(o, '}');
}
