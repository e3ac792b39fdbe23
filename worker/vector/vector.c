#include "worker/vector/vector.h"
#include <stdlib.h>

static bool is_embedded(const struct config *cfg)
{
    return strcmp(cfg->vectors_url, "embedded:") == 0; /* config/ has checked it */
}

int vectors_open(const struct config *cfg, struct httpc *http, struct vectors **out, struct err *e)
{
    return is_embedded(cfg) ? vectors_embedded_open(cfg, out, e) : vectors_qdrant_open(cfg, http, out, e);
}

int vectors_check(const struct config *cfg, struct err *e)
{
    if (is_embedded(cfg) || cfg->vectors_write_consistency <= cfg->vectors_replicas)
        return 0;
    return err_set(e, ERR_VALIDATION, "vectors.write_consistency: %d is more than vectors.replicas (%d)",
                   (int)cfg->vectors_write_consistency, (int)cfg->vectors_replicas);
}

void vectors_close(struct vectors *v)
{
    if (v)
        v->ops->free(v);
}

int vectors_hit_order(const void *a, const void *b)
{
    const struct vector_hit *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return (x->no > y->no) - (x->no < y->no);
}

/* Points of another version of a document, which the caller drops, take nothing from it. */
static int by_document(const void *a, const void *b)
{
    const struct vector_hit *x = a, *y = b;
    if (x->no >> 20 != y->no >> 20)
        return x->no < y->no ? -1 : 1;
    if (x->content_version != y->content_version)
        return x->content_version < y->content_version ? -1 : 1;
    return vectors_hit_order(a, b);
}

size_t vectors_best_of_each(struct vector_hit *hit, size_t n)
{
    size_t kept = 0;
    if (n)
        qsort(hit, n, sizeof *hit, by_document);
    for (size_t i = 0; i < n; i++)
        if (!kept || hit[kept - 1].no >> 20 != hit[i].no >> 20 ||
            hit[kept - 1].content_version != hit[i].content_version)
            hit[kept++] = hit[i];
    if (kept)
        qsort(hit, kept, sizeof *hit, vectors_hit_order);
    return kept;
}
