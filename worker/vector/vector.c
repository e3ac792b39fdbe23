#include "worker/vector/vector.h"

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
