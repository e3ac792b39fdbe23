/* An embedder for tests, and documents with vectors: it knows that some words mean the same, and can be away, slow, or of
 * another length. The vector index is that of tests. */
#pragma once
#include "tests/contract/contract.h"
#include "worker/core/analyze.h"
#include "worker/embed/embed.h"
#include "worker/vector/vector.h"
#include <math.h>

enum { DIM = 24 };

/* ---- an embedder: each meaning is a direction ---- */

static const struct {
    const char *word;
    int meaning;
} words[] = {{"car", 1},    {"automobile", 1}, {"vehicle", 1},   {"boat", 2}, {"ship", 2},  {"vessel", 2},
             {"doctor", 3}, {"medic", 3},      {"physician", 3}, {"king", 4}, {"ruler", 4}, {"monarch", 4}};

struct fake {
    struct embedder base;
    int dim, calls;
    enum err_code failure; /* ERR_NONE: it answers */
    bool hangs;
};

static bool add_meaning(void *arg, const struct term *t)
{
    float *v = arg;
    unsigned h = 5;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (str_eqz(t->text, words[i].word)) {
            v[words[i].meaning] += 1;
            return true;
        }
    for (size_t i = 0; i < t->text.n; i++)
        h = h * 31 + (unsigned char)t->text.p[i];
    v[5 + h % (DIM - 5)] += 0.2F;
    return true;
}

static suspends int fake_embed(struct embedder *m, struct arena *a, enum embed_purpose purpose, const struct str *text,
                               size_t n, float **out, int *dim, struct err *e)
{
    struct fake *f = (struct fake *)m;
    struct analyzer *an = analyzer_new(STR("none"), e);
    (void)purpose;
    f->calls++;
    if (f->failure || f->hangs) {
        analyzer_free(an);
        if (f->hangs && fiber_park("a slow embedder") == -ETIMEDOUT)
            return err_set(e, ERR_DEADLINE, "slow");
        return err_set(e, f->failure ? f->failure : ERR_CANCELED, "ordered by the test");
    }
    float *v = arena_zalloc(a, n * (size_t)f->dim * sizeof *v);
    for (size_t i = 0; i < n; i++) {
        float *x = v + i * (size_t)f->dim, length = 0;
        x[0] = 0.01F;
        analyze(an, text[i], add_meaning, x);
        for (int k = 0; k < f->dim; k++)
            length += x[k] * x[k];
        for (int k = 0; k < f->dim; k++)
            x[k] /= sqrtf(length);
    }
    analyzer_free(an);
    *out = v;
    *dim = f->dim;
    return 0;
}

static const struct embed_ops fake_ops = {.name = "fake", .embed = fake_embed};
static struct fake fake;

static inline void begin(struct world *w)
{
    fake = (struct fake){.base = {&fake_ops, STR("m1"), 0}, .dim = DIM};
    w->b.embedder = &fake.base;
    w->b.vectors = vectors_memory_open();
}

static inline void end(struct world *w)
{
    vectors_close(w->b.vectors);
    w->b.vectors = NULL;
    w->b.embedder = NULL;
}

/* ---- documents with vectors ---- */

static inline struct store_document add(struct world *w, const struct store_collection *c, const char *text)
{
    struct store_document_new in = new_document(c, text);
    struct store_document out;
    enum store_created what;
    struct store_job job;
    in.on_duplicate = DUP_LINK;
    in.metadata = arena_printf(&w->a, "{\"n\":%zu}", strlen(text));
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    const char *terms[] = {text};
    index_document(w, &out.id, terms, 1);
    return document_of(w, &out.id);
}

static inline struct vector_space space_of(struct world *w, const struct store_collection *c)
{
    struct store_collection now = collection_of(w, &c->id);
    return (struct vector_space){now.id, now.no, now.generation, now.dim};
}

static inline void put(struct world *w, const struct store_collection *c, const struct store_document *d)
{
    struct store_chunk *k;
    size_t n;
    float *v;
    int dim;
    ok(w, DO(w, collection_set_embedder, &c->id, fake.base.model, DIM));
    ok(w, GET(w, document_chunks, &d->id, 0, 100, &k, &n));
    struct str *text = arena_alloc(&w->a, (n + 1) * sizeof *text);
    struct uuid *ids = arena_alloc(&w->a, (n + 1) * sizeof *ids);
    for (size_t i = 0; i < n; i++) {
        text[i] = k[i].text;
        ids[i] = k[i].id;
    }
    ok(w, fake_embed(&fake.base, &w->a, EMBED_DOCUMENT, text, n, &v, &dim, &w->e));
    struct vector_space space = space_of(w, c);
    struct vector_document x = {.no = d->no, .id = d->id, .content_version = d->content_version, .n = n, .chunk = ids};
    x.metadata = d->metadata;
    x.tags = d->tags;
    x.v = v;
    ok(w, VECTORS_CALL(w->b.vectors, put, &space, &x, &w->e));
    struct store_outbox *rows; /* that wants the same */
    ok(w, GET(w, outbox_take, 60 * 1000000LL, 100, &rows, &n));
    for (size_t i = 0; i < n; i++)
        if (rows[i].document_no == d->no)
            ok(w, DO(w, outbox_done, &rows[i].no, 1));
}

static inline struct store_document add_both(struct world *w, const struct store_collection *c, const char *text)
{
    struct store_document d = add(w, c, text);
    put(w, c, &d);
    return d;
}
