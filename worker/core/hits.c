/* What is shown of the best entries of a ranking: chunks with their documents, words that were found, the reasons for the
 * score, and the text around. */
#include "worker/core/retrieve_private.h"
#include "worker/io/json.h"

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
    if (!lexical_has_term(m->q, t->text))
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

static int highlight(struct search *s, const struct ranked *x, struct retrieve_hit *h, struct err *e)
{
    struct search_part *p = &s->part[x->part - s->part];
    if (!p->q && lexical_terms(s, p, e))
        return -1;
    struct marks m = {.hit = h, .q = p->q, .a = s->a};
    analyze_indexed(p->q->an, h->chunk.text, mark_term, &m);
    return 0;
}

static void explain_vector(struct json_out *o, const struct ranked *x)
{
    jo_begin(o, '{');
    jo_member(o, "scorer"), jo_strz(o, "cosine");
    jo_member(o, "embedder"), jo_str(o, x->part->c.embedder);
    jo_member(o, "generation"), jo_i64(o, x->part->c.generation);
    jo_member(o, "cosine"), jo_f64(o, x->cosine);
    jo_member(o, "rank"), jo_i64(o, x->vector);
    jo_end(o, '}');
}

static void explain_fused(struct json_out *o, const struct ranked *x)
{
    jo_begin(o, '{');
    jo_member(o, "scorer"), jo_strz(o, "shares");
    jo_member(o, "lexical_share"), jo_f64(o, x->lexical_share);
    jo_member(o, "vector_share"), jo_f64(o, x->vector_share);
    jo_member(o, "k"), jo_i64(o, FUSE_K);
    jo_member(o, "rrf"), jo_f64(o, x->rrf);
    jo_member(o, "lexical"), x->candidate ? lexical_explain(o, x) : jo_null(o);
    jo_member(o, "vector"), x->vector ? explain_vector(o, x) : jo_null(o);
    jo_end(o, '}');
}

static struct str explain(struct search *s, const struct ranked *x)
{
    struct buf b = {0};
    struct json_out o = json_out(&b);
    if (x->rrf > 0)
        explain_fused(&o, x);
    else if (x->candidate)
        lexical_explain(&o, x);
    else if (x->vector)
        explain_vector(&o, x);
    else
        jo_begin(&o, '{'), jo_end(&o, '}');
    struct str json = arena_dup(s->a, buf_view(&b));
    buf_fini(&b);
    return json;
}

/* ---- context ---- */

/* Appends what `k` has of the document's text from byte *at on: chunks overlap, and what lies between two of them is
 * white space. */
static void append(struct buf *b, const struct store_chunk *k, int64_t *at, int64_t end)
{
    int64_t from = k->byte_start < *at ? *at : k->byte_start, to = k->byte_end < end ? k->byte_end : end;
    if (from >= to)
        return;
    if (from > *at)
        buf_ch(b, '\n');
    buf_str(b, str_sub(k->text, (size_t)(from - k->byte_start), (size_t)(to - from)));
    *at = to;
}

/* Bytes of a document. */
struct reach {
    int64_t from, to;
};

static void extend(struct reach *r, int64_t from, int64_t to)
{
    r->from = from < r->from ? from : r->from;
    r->to = to > r->to ? to : r->to;
}

static bool same_document(const struct store_chunk *a, const struct store_chunk *b)
{
    return a->no >> 20 == b->no >> 20;
}

/* How far the chunk reaches with its neighbours. */
static struct reach reach_of(const struct store_chunk *own, const struct store_chunk *near, size_t n)
{
    struct reach r = {own->byte_start, own->byte_end};
    for (size_t i = 0; i < n; i++)
        if (near[i].no && same_document(&near[i], own))
            extend(&r, near[i].byte_start, near[i].byte_end);
    return r;
}

static void surround(struct search *s, struct retrieve_hit *h, const struct store_chunk *near, size_t n)
{
    const struct store_chunk *own = &h->chunk;
    struct buf b = {0};
    int64_t at = -1;
    for (size_t i = 0; i < n; i++) {
        if (near[i].no == 0 || near[i].no >= own->no || !same_document(&near[i], own))
            continue;
        if (at < 0)
            at = near[i].byte_start;
        append(&b, &near[i], &at, own->byte_start);
    }
    h->before = arena_dup(s->a, buf_view(&b));
    b.n = 0;
    at = own->byte_end;
    for (size_t i = 0; i < n; i++)
        if (near[i].no > own->no && same_document(&near[i], own))
            append(&b, &near[i], &at, INT64_MAX);
    h->after = arena_dup(s->a, buf_view(&b));
    buf_fini(&b);
}

/* The rest of the section that a chunk was cut from, where the collection keeps such sections, and of the neighbours what
 * reaches beyond it. */
suspends static int add_parent(struct search *s, struct retrieve_hit *h, struct reach r, struct err *e)
{
    const struct store_chunk *c = &h->chunk;
    const struct store_span *p = &c->parent;
    struct str text;
    if (p->byte_end <= p->byte_start || p->byte_start > c->byte_start || p->byte_end < c->byte_end)
        return 0;
    extend(&r, p->byte_start, p->byte_end);
    if (STORE_CALL(s->store, document_span, s->a, h->document.no, r.from, (size_t)(r.to - r.from), &text, e))
        return -1;
    h->before = str_sub(text, 0, (size_t)(c->byte_start - r.from));
    h->after = str_sub(text, (size_t)(c->byte_end - r.from), text.n);
    h->has_parent = true;
    return 0;
}

/* The neighbours of all hits in one call; each hit's reach with them. */
suspends static int add_neighbours(struct search *s, struct retrieve_result *out, struct reach *reach, struct err *e)
{
    const struct retrieve_query *q = s->q;
    size_t each = (size_t)(q->before + q->after), n = out->n * each, k = 0;
    for (size_t i = 0; i < out->n; i++)
        reach[i] = reach_of(&out->hit[i].chunk, NULL, 0);
    if (!n)
        return 0;
    int64_t *nos = arena_alloc(s->a, n * sizeof *nos);
    struct store_chunk *near = arena_zalloc(s->a, n * sizeof *near);
    struct store_document *documents = arena_zalloc(s->a, n * sizeof *documents);
    for (size_t i = 0; i < out->n; i++) {
        const struct store_chunk *c = &out->hit[i].chunk;
        for (int d = -q->before; d <= q->after; d++)
            if (d && c->ordinal + d >= 0 && c->ordinal + d <= 0xfffff)
                nos[k++] = c->no + d;
            else if (d)
                nos[k++] = 0; /* there is no such chunk */
    }
    if (STORE_CALL(s->store, search_fetch, s->a, nos, n, near, documents, e))
        return -1;
    for (size_t i = 0; i < out->n; i++) {
        reach[i] = reach_of(&out->hit[i].chunk, near + i * each, each);
        surround(s, &out->hit[i], near + i * each, each);
    }
    return 0;
}

suspends static int add_context(struct search *s, struct retrieve_result *out, struct err *e)
{
    struct reach *reach = arena_alloc(s->a, (out->n + 1) * sizeof *reach);
    if (add_neighbours(s, out, reach, e))
        return -1;
    for (size_t i = 0; i < out->n; i++)
        if (add_parent(s, &out->hit[i], reach[i], e))
            return -1;
    return 0;
}

suspends int hits_fetch(struct search *s, const struct ranked *r, size_t n, int first_rank, struct retrieve_result *out,
                        struct err *e)
{
    int64_t *nos = arena_alloc(s->a, (n + 1) * sizeof *nos);
    struct store_chunk *chunks = arena_zalloc(s->a, (n + 1) * sizeof *chunks);
    struct store_document *documents = arena_zalloc(s->a, (n + 1) * sizeof *documents);
    for (size_t i = 0; i < n; i++)
        nos[i] = r[i].no;
    if (n && STORE_CALL(s->store, search_fetch, s->a, nos, n, chunks, documents, e))
        return -1;
    out->hit = arena_zalloc(s->a, (n + 1) * sizeof *out->hit);
    out->n = 0;
    for (size_t i = 0; i < n; i++) {
        if (!chunks[i].no)
            continue; /* removed meanwhile */
        struct retrieve_hit *h = &out->hit[out->n++];
        h->chunk = chunks[i];
        h->document = documents[i];
        h->language = search_language(s, r[i].part);
        h->score = r[i].score;
        h->bm25 = r[i].bm25;
        h->cosine = r[i].cosine;
        h->rrf = r[i].rrf;
        h->lexical = r[i].lexical;
        h->vector = r[i].vector;
        h->rank = first_rank + (int)i;
        if (s->q->highlight && highlight(s, &r[i], h, e))
            return -1;
        if (s->q->explain)
            h->explain = explain(s, &r[i]);
    }
    return add_context(s, out, e);
}
