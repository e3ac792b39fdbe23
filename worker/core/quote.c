#include "worker/core/quote.h"
#include "worker/core/analyze.h"
#include "worker/core/bm25.h"
#include "worker/core/sentence.h"
#include "worker/io/json.h"
#include <errno.h>
#include <stdlib.h>

enum {
    SENTENCE_MAX = 600, /* bytes */
    TERMS_MAX = 64,     /* of the question */
    HEADING_MAX = 200,  /* bytes */
};

/* The question in one language. */
struct question {
    struct question *next;
    struct str language;
    struct analyzer *an;
    struct str term[TERMS_MAX];
    size_t n;
    int64_t df[TERMS_MAX]; /* sentences that have it */
    struct arena *a;
};

struct sentence {
    struct quote q;
    const struct question *in;
    int length, asked; /* terms; those of them that are of the question */
    bool fragment;     /* a paragraph without an end: perhaps a heading */
    uint8_t tf[TERMS_MAX];
};

struct quoting {
    struct arena *a;
    const struct config *cfg;
    struct str text; /* of the question */
    struct question *languages;
    struct sentence *s;
    size_t n, cap;
    int64_t tokens;
};

static bool add_term(void *arg, const struct term *t)
{
    struct question *q = arg;
    for (size_t i = 0; i < q->n; i++)
        if (str_eq(q->term[i], t->text))
            return true;
    q->term[q->n++] = arena_dup(q->a, t->text);
    return q->n < TERMS_MAX;
}

static void free_analyzer(void *a)
{
    analyzer_free(a);
}

static struct question *question_in(struct quoting *g, struct str language, struct err *e)
{
    for (struct question *q = g->languages; q; q = q->next)
        if (str_eq(q->language, language))
            return q;
    struct analyzer *an = analyzer_new(language, e);
    if (!an)
        return NULL;
    struct question *q = arena_zalloc(g->a, sizeof *q);
    q->a = g->a;
    q->an = arena_own(g->a, an, free_analyzer);
    q->language = language;
    analyze(an, g->text, add_term, q);
    q->next = g->languages;
    g->languages = q;
    return q;
}

/* ---- sentences ---- */

struct counting {
    const struct question *q;
    struct sentence *s;
};

static bool count_term(void *arg, const struct term *t)
{
    struct counting *c = arg;
    c->s->length++;
    for (size_t i = 0; i < c->q->n; i++)
        if (str_eq(c->q->term[i], t->text)) {
            c->s->tf[i] += c->s->tf[i] < UINT8_MAX;
            c->s->asked++;
        }
    return true;
}

static void add_sentence(struct quoting *g, struct question *q, struct str text, size_t hit, size_t from, size_t to)
{
    if (g->n == g->cap) {
        g->cap = g->cap ? 2 * g->cap : 64;
        struct sentence *grown = arena_alloc(g->a, g->cap * sizeof *grown);
        if (g->n)
            memcpy(grown, g->s, g->n * sizeof *grown);
        g->s = grown;
    }
    struct sentence *s = &g->s[g->n++];
    *s = (struct sentence){.q = {.hit = hit, .from = from, .to = to}, .in = q};
    struct counting c = {q, s};
    analyze_indexed(q->an, str_sub(text, from, to - from), count_term, &c);
    for (size_t i = 0; i < q->n; i++)
        q->df[i] += s->tf[i] > 0;
    g->tokens += s->length;
}

static bool space(char c)
{
    return c == ' ' || c == '\n' || c == '\t';
}

/* Where the paragraph that begins at `from` ends: at an empty line. */
static size_t paragraph(struct str text, size_t from)
{
    struct str rest = str_sub(text, from, text.n);
    const char *gap = memmem(rest.p, rest.n, "\n\n", 2);
    return gap ? (size_t)(gap - text.p) : text.n;
}

/* `headings` is JSON: an array of strings. */
static bool is_heading(struct str headings, struct str paragraph)
{
    struct buf json = {0};
    if (headings.n == 0 || paragraph.n == 0 || paragraph.n > HEADING_MAX)
        return false;
    json_escape(&json, paragraph);
    bool found = memmem(headings.p, headings.n, json.p, json.n);
    buf_fini(&json);
    return found;
}

static bool ends_sentence(struct str s)
{
    static const char *const marks[] = {".", "!", "?", ":", ";", "\"", "\xe3\x80\x82", "\xe2\x80\x9d"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (s.n >= strlen(marks[i]) && str_eqz(str_sub(s, s.n - strlen(marks[i]), s.n), marks[i]))
            return true;
    return false;
}

static void cut(struct quoting *g, struct question *q, struct str text, struct str headings, size_t hit)
{
    for (size_t at = 0; at < text.n;) {
        size_t begin = at, end = paragraph(text, at);
        if (is_heading(headings, str_trim(str_sub(text, at, end - at))))
            at = end;
        while (at < end) {
            if (space(text.p[at])) {
                at++;
                continue;
            }
            size_t to = at + sentence_next(str_sub(text, at, end - at), false, SENTENCE_MAX), next = to;
            while (to > at + 1 && space(text.p[to - 1]))
                to--;
            add_sentence(g, q, text, hit, at, to);
            g->s[g->n - 1].fragment = at == begin && next == end && !ends_sentence(str_sub(text, at, to - at));
            at = next;
        }
        while (at < text.n && space(text.p[at]))
            at++;
    }
}

/* ---- ranking ---- */

static int best_first(const void *x, const void *y)
{
    const struct quote *a = x, *b = y;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    if (a->hit != b->hit)
        return a->hit < b->hit ? -1 : 1;
    return (a->from > b->from) - (a->from < b->from);
}

/* BM25 among the sentences; those of passages that rank high count a little more. A heading that only repeats words of the
 * question answers nothing. */
static double score_of(const struct quoting *g, const struct sentence *s)
{
    if (s->fragment && s->asked == s->length)
        return 0;
    struct bm25 m = {.k1 = g->cfg->search_bm25_k1,
                     .b = g->cfg->search_bm25_b,
                     .n = (double)g->n,
                     .avgdl = g->tokens > 0 ? (double)g->tokens / (double)g->n : 1};
    double score = 0;
    for (size_t i = 0; i < s->in->n; i++)
        if (s->tf[i])
            score += bm25_term(&m, bm25_idf(&m, s->in->df[i]), s->tf[i], s->length);
    return score * (1 + 1 / (1 + (double)s->q.hit));
}

suspends int quotes_rank(struct arena *a, const struct config *cfg, struct str question,
                         const struct retrieve_hit *hits, size_t n, struct quote **out, size_t *n_out, struct err *e)
{
    struct quoting g = {.a = a, .cfg = cfg, .text = question};
    for (size_t i = 0; i < n; i++) {
        struct question *q = question_in(&g, hits[i].language, e);
        if (!q)
            return -1;
        cut(&g, q, hits[i].chunk.text, hits[i].chunk.headings, i);
        int rc = fiber_yield();
        if (rc)
            return err_set(e, rc == -ETIMEDOUT ? ERR_DEADLINE : ERR_CANCELED, "The answer took too long");
    }
    struct quote *r = arena_alloc(a, (g.n + 1) * sizeof *r);
    for (size_t i = 0; i < g.n; i++) {
        r[i] = g.s[i].q;
        r[i].score = score_of(&g, &g.s[i]);
    }
    qsort(r, g.n, sizeof *r, best_first);
    *out = r;
    *n_out = g.n;
    return 0;
}

struct quote quote_of(const struct quote *ranked, size_t n, const struct retrieve_hit *hits, size_t hit)
{
    struct str text = hits[hit].chunk.text;
    for (size_t i = 0; i < n; i++)
        if (ranked[i].hit == hit)
            return ranked[i];
    return (struct quote){.hit = hit, .to = text.n};
}
