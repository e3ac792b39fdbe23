#include "worker/core/given_vectors.h"
#include "worker/core/index.h"
#include "worker/embed/embed.h"
#include <math.h>
#include <stdio.h>

enum { POINTER = 96 };

/* ---- from JSON ---- */

/* How many are as long as the first one: there is memory for these only, the others are refused. */
static size_t count(const json_t *chunks)
{
    size_t n = 0, dim = 0, i;
    const json_t *item;
    json_array_foreach (chunks, i, item) {
        const json_t *list = json_object_get(item, "vector");
        dim = dim ? dim : json_array_size(list);
        n += list && json_array_size(list) == dim;
    }
    return n;
}

/* Numbers become a vector of length 1. */
static int read_vector(const json_t *list, const char *at, float *out, struct err *e)
{
    double sum = 0;
    size_t i;
    const json_t *x;
    json_array_foreach (list, i, x) {
        if (!json_is_number(x))
            return err_at(e, at, "The vector must have numbers only; the one at %zu is none", i);
        sum += json_number_value(x) * json_number_value(x);
    }
    if (!(sum > 0) || !isfinite(sum))
        return err_at(e, at,
                      "The vector must have a length: not all of its numbers may be 0, nor may they be so large");
    json_array_foreach (list, i, x)
        out[i] = (float)(json_number_value(x) / sqrt(sum));
    return 0;
}

static int take(struct arena *a, json_t *item, size_t ordinal, const char *at, size_t room, struct given_vectors *g,
                struct err *e)
{
    const json_t *list = json_object_get(item, "vector"), *text = json_object_get(item, "text");
    size_t dim = json_array_size(list);
    if (dim == 0 || dim > GIVEN_DIM_MAX)
        return err_at(e, at, "'vector' must be a list of 1 to %d numbers", (int)GIVEN_DIM_MAX);
    if (!g->v) {
        g->dim = (int)dim;
        g->v = arena_alloc(a, room * dim * sizeof *g->v); /* the JSON was longer */
        g->sha = arena_alloc(a, room * sizeof *g->sha);
        g->ordinal = arena_alloc(a, room * sizeof *g->ordinal);
    }
    if (dim != (size_t)g->dim)
        return err_at(e, at, "The vector has %zu dimensions, the one before it %d", dim, g->dim);
    if (read_vector(list, at, g->v + g->n * dim, e))
        return -1;
    if (json_is_string(text)) {
        sha256_of(json_string_value(text), json_string_length(text), &g->sha[g->n]);
        g->ordinal[g->n++] = (int)ordinal;
    }
    json_object_del(item, "vector");
    return 0;
}

int given_vectors_take(struct arena *a, json_t *chunks, const char *pointer, struct given_vectors *out, struct err *e)
{
    size_t room = count(chunks), i;
    json_t *item;
    char at[POINTER];
    *out = (struct given_vectors){.n = 0};
    json_array_foreach (chunks, i, item) {
        snprintf(at, sizeof at, "%.60s/%zu/vector", pointer, i);
        if (json_object_get(item, "vector") && take(a, item, i, at, room, out, e))
            return -1;
    }
    return 0;
}

/* ---- for the store ---- */

int given_vectors_dim(const struct backends *b, const struct store_collection *c)
{
    struct index_space to[INDEX_SPACES];
    for (int i = 0, n = b->embedder ? index_targets(b, c, to) : 0; i < n; i++)
        if (to[i].space.dim)
            return to[i].space.dim;
    return b->embedder ? (int)b->cfg->embedding_dimensions : 0;
}

suspends static int fits(const struct backends *b, const struct uuid *collection, const struct given_vectors *g,
                         const char *pointer, struct err *e)
{
    struct arena a = {0};
    struct store_collection c;
    struct index_space to[INDEX_SPACES];
    int rc = STORE_CALL(b->store, collection_get, &a, collection, &c, e);
    int dim = rc ? 0 : given_vectors_dim(b, &c);
    if (rc == 0 && index_targets(b, &c, to) == 0)
        rc = err_set(e, ERR_CONFLICT,
                     "The collection was embedded with " STR_FMT "; vectors are taken of embedding.model, " STR_FMT
                     ": run `ragd reindex` first",
                     STR_ARG(str_sub(c.embedder, 0, 60)), STR_ARG(str_sub(b->embedder->model, 0, 60)));
    else if (rc == 0 && dim && dim != g->dim)
        rc = err_at(e, pointer, "The vector has %d dimensions, those of the collection %d", g->dim, dim);
    arena_fini(&a);
    return rc;
}

suspends int given_vectors_check(const struct backends *b, const struct uuid *collection, const struct given_vectors *g,
                                 const char *pointer, struct store_given *out, struct err *e)
{
    if (g->n == 0)
        return 0;
    if (!b->embedder)
        return err_at(e, pointer,
                      "Vectors belong to a model that can embed queries, too: set embedding.url and embedding.model");
    if (fits(b, collection, g, pointer, e))
        return -1;
    *out = (struct store_given){b->embedder->model, g->dim, g->n, g->ordinal, g->sha, g->v};
    return 0;
}
