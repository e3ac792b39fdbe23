/* An embedder and a vector index for contract tests: the first makes vectors out of hashes and counts, the second is the one
 * in memory; both can be away, or call a function when they are asked. */
#pragma once
#include "tests/contract/contract.h"
#include "worker/embed/embed.h"
#include "worker/vector/vector.h"

struct fake_embedder {
    struct embedder base; /* must be first */
    int dim;
    int calls, texts; /* since it was made */
    bool away;
    void (*asked)(void);
};

static inline int fake_embed(struct embedder *m, struct arena *a, enum embed_purpose purpose, const struct str *text,
                             size_t n, float **out, int *dim, struct err *e)
{
    struct fake_embedder *f = (struct fake_embedder *)(void *)m;
    (void)purpose;
    f->calls++;
    if (f->asked)
        f->asked();
    if (f->away)
        return err_set(e, ERR_NOT_READY, "the embedder is away");
    float *v = arena_zalloc(a, n * (size_t)f->dim * sizeof *v);
    for (size_t i = 0; i < n; i++) { /* a unit vector along an axis that the text chooses */
        struct sha256 sha;
        sha256_of(text[i].p, text[i].n, &sha);
        v[i * (size_t)f->dim + sha.b[0] % (size_t)f->dim] = 1;
    }
    f->texts += (int)n;
    m->dim = f->dim;
    *out = v;
    *dim = f->dim;
    return 0;
}

static const struct embed_ops fake_embed_ops = {.name = "fake", .embed = fake_embed};

static inline struct fake_embedder fake_embedder(const char *model, int dim)
{
    return (struct fake_embedder){.base = {&fake_embed_ops, str_of(model), 0}, .dim = dim};
}

/* The index in memory, with a door in front of it. */
struct doors {
    struct vectors base; /* must be first */
    struct vectors *inner;
    bool away;
    int puts, removes, describes, drops;
    int64_t alias[32]; /* by number of the collection: the generation to which it leads; 0 = none */
    void (*before_put)(void), (*after_put)(void), (*before_alias)(void);
};

static inline struct doors *doors_of(struct vectors *v)
{
    return (struct doors *)(void *)v;
}

static inline int64_t *doors_alias_of(struct doors *d, const struct vector_space *s)
{
    return &d->alias[(size_t)s->collection_no % (sizeof d->alias / sizeof *d->alias)];
}

static inline int doors_shut(struct doors *d, struct err *e)
{
    return d->away ? err_set(e, ERR_NOT_READY, "the vector index is away") : 0;
}

static inline int doors_put(struct vectors *v, const struct vector_space *s, const struct vector_document *x,
                            struct err *e)
{
    struct doors *d = doors_of(v);
    if (d->before_put)
        d->before_put();
    if (doors_shut(d, e) || VECTORS_CALL(d->inner, put, s, x, e))
        return -1;
    d->puts++;
    if (d->after_put)
        d->after_put();
    return 0;
}

static inline int doors_remove(struct vectors *v, const struct vector_space *s, const int64_t *nos, size_t n,
                               struct err *e)
{
    struct doors *d = doors_of(v);
    d->removes++;
    return doors_shut(d, e) ? -1 : VECTORS_CALL(d->inner, remove, s, nos, n, e);
}

static inline int doors_describe(struct vectors *v, const struct vector_space *s, const struct vector_document *x,
                                 struct err *e)
{
    struct doors *d = doors_of(v);
    d->describes++;
    return doors_shut(d, e) ? -1 : VECTORS_CALL(d->inner, describe, s, x, e);
}

static inline int doors_drop(struct vectors *v, const struct vector_space *s, struct err *e)
{
    struct doors *d = doors_of(v);
    d->drops++;
    if (!d->away && *doors_alias_of(d, s) == s->generation)
        *doors_alias_of(d, s) = 0;
    return doors_shut(d, e) ? -1 : VECTORS_CALL(d->inner, drop, s, e);
}

static inline int doors_search(struct vectors *v, struct arena *a, const struct vector_space *s,
                               const struct vector_query *q, struct vector_hit **out, size_t *n, struct err *e)
{
    return doors_shut(doors_of(v), e) ? -1 : VECTORS_CALL(doors_of(v)->inner, search, a, s, q, out, n, e);
}

static inline int doors_list(struct vectors *v, struct arena *a, const struct vector_space *s, int64_t after,
                             size_t max, struct vector_entry **out, size_t *n, struct err *e)
{
    return doors_shut(doors_of(v), e) ? -1 : VECTORS_CALL(doors_of(v)->inner, list, a, s, after, max, out, n, e);
}

static inline int doors_alias(struct vectors *v, const struct vector_space *s, bool anew, bool *changed, struct err *e)
{
    struct doors *d = doors_of(v);
    if (d->before_alias)
        d->before_alias();
    if (doors_shut(d, e))
        return -1;
    *changed = anew || *doors_alias_of(d, s) != s->generation;
    *doors_alias_of(d, s) = s->generation;
    return 0;
}

static inline int doors_has_alias(struct vectors *v, const struct vector_space *s, bool *yes, struct err *e)
{
    *yes = *doors_alias_of(doors_of(v), s) == s->generation;
    return doors_shut(doors_of(v), e);
}

static const struct vector_ops doors_ops = {.name = "doors",
                                            .put = doors_put,
                                            .remove = doors_remove,
                                            .describe = doors_describe,
                                            .drop = doors_drop,
                                            .search = doors_search,
                                            .list = doors_list,
                                            .alias = doors_alias,
                                            .has_alias = doors_has_alias};

static inline struct doors doors_open(void)
{
    return (struct doors){.base = {&doors_ops}, .inner = vectors_memory_open()};
}

static inline void doors_close(struct doors *d)
{
    vectors_close(d->inner);
}

/* How many points a space has of a document in this version; -1: of another version. */
static inline int64_t points_of(struct world *w, struct doors *d, const struct store_collection *c, int64_t generation,
                                const struct store_document *doc)
{
    struct vector_space s = {.collection = c->id, .collection_no = c->no, .generation = generation, .dim = c->dim};
    struct vector_entry *list;
    size_t n;
    if (VECTORS_CALL(d->inner, list, &w->a, &s, doc->no - 1, 1, &list, &n, &w->e))
        fail_at(w, __LINE__, "list: %s", w->e.msg);
    if (n == 0 || list->document_no != doc->no)
        return 0;
    return list->content_version == doc->indexed_version ? list->points : -1;
}
