#include "worker/core/retrieve_private.h"
#include <stdlib.h>

static int by_number(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    return (a->no > b->no) - (a->no < b->no);
}

/* What either arm knows of the same chunk, or document; it is shown with the chunk that has more votes. */
static void join(struct ranked *to, const struct ranked *from)
{
    if (from->score > to->score)
        to->no = from->no;
    to->score += from->score;
    if (from->lexical) {
        to->lexical = from->lexical;
        to->bm25 = from->bm25;
        to->candidate = from->candidate;
        to->lexical_share = from->lexical_share;
    }
    if (from->vector) {
        to->vector = from->vector;
        to->cosine = from->cosine;
        to->vector_share = from->vector_share;
    }
}

/* The score of a chunk that is not among the first `n`: at most that of the last of them, and for words none where these
 * are all that match. Of vectors this is not known: even what has nothing to do with a query is somewhat near. */
static double floor_of(const struct ranking *r, size_t n, bool words)
{
    bool all = words && !r->truncated && r->total <= (int64_t)n;
    return n && !all ? r->r[n - 1].score : 0;
}

/* Fills in the shares of the first `n`; returns the largest, which is the first one's. */
static double divide(struct ranking *r, size_t n, bool words)
{
    n = n < r->n ? n : r->n;
    double floor = floor_of(r, n, words), sum = 0, first = 0;
    for (size_t i = 0; i < n; i++)
        sum += (r->r[i].score - floor) * (r->r[i].score - floor);
    for (size_t i = 0; i < n; i++) {
        double above = r->r[i].score - floor, share = sum > 0 ? above * above / sum : 1 / (double)n;
        *(words ? &r->r[i].lexical_share : &r->r[i].vector_share) = share;
        if (i == 0)
            first = share;
    }
    return first;
}

static int best_rank(const struct ranked *x)
{
    return !x->vector || (x->lexical && x->lexical < x->vector) ? x->lexical : x->vector;
}

static int by_score(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    if (a->score == b->score && best_rank(a) != best_rank(b))
        return best_rank(a) < best_rank(b) ? -1 : 1;
    return ranked_by_score(x, y);
}

void fuse(struct arena *a, struct ranking *lexical, struct ranking *vector, double lexical_weight, double vector_weight,
          size_t eligible, bool by_document, struct ranking *out)
{
    const int shift = by_document ? 20 : 0; /* chunks of a document have neighbouring numbers */
    size_t n = lexical->n + vector->n, kept = 0;
    struct ranked *r = arena_alloc(a, (n + 1) * sizeof *r);
    double most = lexical_weight * divide(lexical, eligible, true) + vector_weight * divide(vector, eligible, false);
    if (lexical->n)
        memcpy(r, lexical->r, lexical->n * sizeof *r);
    if (vector->n)
        memcpy(r + lexical->n, vector->r, vector->n * sizeof *r);
    for (size_t i = 0; i < n; i++)
        r[i].score = lexical_weight * r[i].lexical_share + vector_weight * r[i].vector_share;
    qsort(r, n, sizeof *r, by_number);
    for (size_t i = 0; i < n; i++)
        if (kept && r[kept - 1].no >> shift == r[i].no >> shift)
            join(&r[kept - 1], &r[i]);
        else
            r[kept++] = r[i];
    for (size_t i = 0; i < kept; i++) {
        r[i].rrf = (r[i].lexical ? lexical_weight / (FUSE_K + r[i].lexical) : 0) +
                   (r[i].vector ? vector_weight / (FUSE_K + r[i].vector) : 0);
        r[i].score = most > 0 ? r[i].score / most : 0;
    }
    qsort(r, kept, sizeof *r, by_score);
    *out = (struct ranking){
        .r = r,
        .n = kept,
        .total = lexical->total > (int64_t)kept ? lexical->total : (int64_t)kept,
        .truncated = lexical->truncated || vector->truncated,
    };
}
