#include "worker/vector/vscan.h"
#include <math.h>
#include <stdlib.h>

/* Codes err by some thousandth of a score. So many more candidates than hits make sure that the true ones are among
 * them. */
enum { EXTRA_TIMES = 4, EXTRA = 64, BATCH = 64 };

void vscan_begin(struct vscan *s, struct arena *a, const struct vview *v, const struct vector_query *q, dot_fn *dot)
{
    size_t stride = vfile_stride(v->map->dim);
    uint64_t all = v->at.points < (uint64_t)INT32_MAX ? v->at.points : INT32_MAX;
    float scale;
    *s = (struct vscan){.view = v, .q = q, .dot = dot ? dot : dot_best(), .code = arena_alloc(a, stride)};
    if (!dot_encode(q->v, v->map->dim, stride, s->code, &scale))
        memset(s->code, 0, stride);
    s->max = ((size_t)(q->k > 0 ? q->k : 0) * EXTRA_TIMES + EXTRA) * (q->by_document ? VSCAN_BEST : 1);
    s->max = s->max < all ? s->max : all;
    s->heap = arena_alloc(a, s->max * sizeof *s->heap);
}

static bool worse(const struct vscan_candidate *a, const struct vscan_candidate *b)
{
    return a->score < b->score || (a->score == b->score && a->no > b->no);
}

static void sift_down(struct vscan *s, struct vscan_candidate c)
{
    size_t i = 0, child;
    while ((child = 2 * i + 1) < s->n) {
        if (child + 1 < s->n && worse(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!worse(&s->heap[child], &c))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = c;
}

static void sift_up(struct vscan *s, struct vscan_candidate c)
{
    size_t i = s->n++;
    while (i > 0 && worse(&c, &s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = c;
}

/* Numbers ascend, so of equal ones the first stays: only what is better comes in. NaN never is. */
static bool is_wanted(const struct vscan *s, float score)
{
    return s->n < s->max ? score >= -INFINITY : s->n > 0 && score > s->heap[0].score;
}

static void keep(struct vscan *s, struct vscan_candidate c)
{
    if (s->n < s->max)
        sift_up(s, c);
    else
        sift_down(s, c);
}

static void keep_of_document(struct vscan *s, struct vscan_candidate c)
{
    size_t i = s->n_best;
    if (i == VSCAN_BEST && s->best[--i].score >= c.score)
        return;
    for (; i > 0 && s->best[i - 1].score < c.score; i--)
        s->best[i] = s->best[i - 1];
    s->best[i] = c;
    s->n_best += s->n_best < VSCAN_BEST;
}

static void end_document(struct vscan *s)
{
    for (size_t i = 0; i < s->n_best && is_wanted(s, s->best[i].score); i++)
        keep(s, s->best[i]);
    s->n_best = 0;
}

static void offer(struct vscan *s, const struct vfile_entry *d, size_t point, float score, const float *floats)
{
    struct vscan_candidate c = {.score = score,
                                .no = (int64_t)((uint64_t)d->document_no << 20 | point),
                                .content_version = d->content_version,
                                .floats = floats + point * s->view->map->dim};
    if (!is_wanted(s, score))
        return;
    if (s->q->by_document)
        keep_of_document(s, c);
    else
        keep(s, c);
}

static const struct vfile_entry *next_document(struct vscan *s)
{
    const struct vector_query *q = s->q;
    const struct vfile_entry *d;
    if (!q->allowed)
        return vview_next(s->view, &s->at, INT64_MIN);
    while (s->allowed < q->n_allowed && (d = vview_next(s->view, &s->at, q->allowed[s->allowed]))) {
        while (s->allowed < q->n_allowed && q->allowed[s->allowed] < d->document_no)
            s->allowed++;
        if (s->allowed < q->n_allowed && q->allowed[s->allowed] == d->document_no)
            return d;
    }
    return NULL;
}

static int scan_document(struct vscan *s, size_t points)
{
    const struct vfile_entry *d = s->doc;
    size_t stride = vfile_stride(s->view->map->dim), end = d->n - s->point < points ? d->n : s->point + points;
    const int8_t *codes;
    const float *scales, *floats;
    int32_t sums[BATCH];
    if (!vview_points(s->view, d, &codes, &scales, &floats))
        return -1;
    while (s->point < end) {
        size_t n = end - s->point < BATCH ? end - s->point : BATCH;
        s->dot(s->code, codes + s->point * stride, stride, n, sums);
        for (size_t i = 0; i < n; i++)
            offer(s, d, s->point + i, (float)sums[i] * scales[s->point + i], floats);
        s->point += n;
        s->scanned += n;
    }
    return 0;
}

int vscan_step(struct vscan *s, size_t bytes)
{
    size_t stride = vfile_stride(s->view->map->dim), budget = bytes / stride + 1;
    while (budget > 0) {
        uint64_t before = s->scanned;
        if (!s->doc || s->point >= s->doc->n) {
            end_document(s);
            s->doc = next_document(s);
            s->point = 0;
        }
        if (!s->doc)
            return 1;
        if (scan_document(s, budget) != 0)
            return -1;
        uint64_t cost = s->scanned - before + 1; /* a document costs also when it is empty */
        budget -= cost < budget ? cost : budget;
    }
    return 0;
}

static void rescore(void *scan)
{
    struct vscan *s = scan;
    for (size_t i = 0; i < s->n; i++)
        s->hit[i] = (struct vector_hit){.no = s->heap[i].no,
                                        .content_version = s->heap[i].content_version,
                                        .score = dot_exact(s->q->v, s->heap[i].floats, s->view->map->dim)};
    qsort(s->hit, s->n, sizeof *s->hit, vectors_hit_order);
    if (s->q->by_document)
        s->n = vectors_best_of_each(s->hit, s->n);
}

suspends void vscan_end(struct vscan *s, struct arena *a, struct vector_hit **out, size_t *n)
{
    s->hit = arena_alloc(a, s->n * sizeof *s->hit);
    if (s->away || vview_large(s->view))
        fiber_blocking(rescore, s);
    else
        rescore(s);
    *out = s->hit;
    *n = s->n < (size_t)(s->q->k > 0 ? s->q->k : 0) ? s->n : (size_t)s->q->k;
}
