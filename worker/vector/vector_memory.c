/* The test double: everything on the heap of one process, searched without any art. What the products must answer is
 * what this one answers. */
#include "worker/vector/vector.h"
#include <stdlib.h>

struct held {
    int64_t no, version;
    size_t n;
    float *v;
};

struct held_space {
    struct held_space *next;
    struct uuid collection;
    int64_t generation;
    int dim;
    struct held *d; /* by number */
    size_t n;
};

struct memory {
    struct vectors base;
    struct held_space *spaces;
};

static void *grown(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (!p)
        abort();
    return p;
}

static struct held_space **find(struct vectors *v, const struct vector_space *s)
{
    struct held_space **at = &((struct memory *)v)->spaces;
    while (*at && !((*at)->generation == s->generation && uuid_eq(&(*at)->collection, &s->collection)))
        at = &(*at)->next;
    return at;
}

/* The first document with this number or a higher one. */
static size_t place(const struct held_space *h, int64_t no)
{
    size_t i = 0;
    while (i < h->n && h->d[i].no < no)
        i++;
    return i;
}

static void take_out(struct held_space *h, int64_t no)
{
    size_t i = place(h, no);
    if (i == h->n || h->d[i].no != no)
        return;
    free(h->d[i].v);
    memmove(&h->d[i], &h->d[i + 1], (--h->n - i) * sizeof *h->d);
}

static int same_dim(const struct held_space *h, const struct vector_space *s, struct err *e)
{
    return h->dim == s->dim ? 0
                            : err_set(e, ERR_CONFLICT, "The index has vectors of length %d, not %d", h->dim, s->dim);
}

static int memory_put(struct vectors *v, const struct vector_space *s, const struct vector_document *d, struct err *e)
{
    struct held_space **at = find(v, s), *h = *at;
    if (!h) {
        h = *at = grown(NULL, sizeof *h);
        *h = (struct held_space){.collection = s->collection, .generation = s->generation, .dim = s->dim};
    }
    if (same_dim(h, s, e))
        return -1;
    take_out(h, d->no);
    size_t i = place(h, d->no), bytes = d->n * (size_t)s->dim * sizeof(float);
    h->d = grown(h->d, (h->n + 1) * sizeof *h->d);
    memmove(&h->d[i + 1], &h->d[i], (h->n++ - i) * sizeof *h->d);
    h->d[i] = (struct held){.no = d->no, .version = d->content_version, .n = d->n, .v = grown(NULL, bytes)};
    if (bytes)
        memcpy(h->d[i].v, d->v, bytes);
    return 0;
}

static int memory_remove(struct vectors *v, const struct vector_space *s, const int64_t *no, size_t n, struct err *e)
{
    struct held_space *h = *find(v, s);
    (void)e;
    for (size_t i = 0; h && i < n; i++)
        take_out(h, no[i]);
    return 0;
}

static int memory_describe(struct vectors *v, const struct vector_space *s, const struct vector_document *d,
                           struct err *e)
{
    (void)v, (void)s, (void)d, (void)e;
    return 0;
}

static int memory_drop(struct vectors *v, const struct vector_space *s, struct err *e)
{
    struct held_space **at = find(v, s), *h = *at;
    (void)e;
    if (!h)
        return 0;
    *at = h->next;
    while (h->n)
        take_out(h, h->d[0].no);
    free(h->d);
    free(h);
    return 0;
}

static bool is_allowed(const struct vector_query *q, int64_t no)
{
    for (size_t i = 0; q->allowed && i < q->n_allowed; i++)
        if (q->allowed[i] == no)
            return true;
    return !q->allowed;
}

static int memory_search(struct vectors *v, struct arena *a, const struct vector_space *s, const struct vector_query *q,
                         struct vector_hit **out, size_t *n, struct err *e)
{
    struct held_space *h = *find(v, s);
    size_t all = 0, k = 0;
    if (h && same_dim(h, s, e))
        return -1;
    for (size_t i = 0; h && i < h->n; i++)
        all += h->d[i].n;
    struct vector_hit *hit = arena_alloc(a, all * sizeof *hit);
    for (size_t i = 0; h && i < h->n; i++)
        for (size_t j = 0; is_allowed(q, h->d[i].no) && j < h->d[i].n; j++) {
            double sum = 0;
            for (int x = 0; x < h->dim; x++)
                sum += (double)q->v[x] * (double)h->d[i].v[j * (size_t)h->dim + (size_t)x];
            hit[k++] = (struct vector_hit){h->d[i].no << 20 | (int64_t)j, h->d[i].version, (float)sum};
        }
    qsort(hit, k, sizeof *hit, vectors_hit_order);
    if (q->by_document)
        k = vectors_best_of_each(hit, k);
    *out = hit;
    *n = k < (size_t)q->k ? k : (size_t)q->k;
    return 0;
}

static int memory_list(struct vectors *v, struct arena *a, const struct vector_space *s, int64_t after, size_t max,
                       struct vector_entry **out, size_t *n, struct err *e)
{
    struct held_space *h = *find(v, s);
    struct vector_entry *entry = arena_alloc(a, (h ? h->n : 0) * sizeof *entry);
    (void)e;
    *n = 0;
    for (size_t i = 0; h && i < h->n && *n < max; i++)
        if (h->d[i].no > after)
            entry[(*n)++] = (struct vector_entry){h->d[i].no, h->d[i].version, (int64_t)h->d[i].n};
    *out = entry;
    return 0;
}

static int memory_check(struct vectors *v, struct err *e)
{
    (void)v, (void)e;
    return 0;
}

static void memory_free(struct vectors *v)
{
    struct memory *m = (struct memory *)v;
    while (m->spaces)
        memory_drop(v, &(struct vector_space){.collection = m->spaces->collection, .generation = m->spaces->generation},
                    NULL);
    free(m);
}

static const struct vector_ops memory_ops = {.name = "memory",
                                             .put = memory_put,
                                             .remove = memory_remove,
                                             .describe = memory_describe,
                                             .drop = memory_drop,
                                             .search = memory_search,
                                             .list = memory_list,
                                             .check = memory_check,
                                             .free = memory_free};

struct vectors *vectors_memory_open(void)
{
    struct memory *m = grown(NULL, sizeof *m);
    *m = (struct memory){.base.ops = &memory_ops};
    return &m->base;
}
