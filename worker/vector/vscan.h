/* One search of a view, in slices: all codes are compared with the query's, the best candidates are kept, and these are
 * compared again as floats. Owned by a search in vector_embedded.c. */
#pragma once
#include "worker/vector/dot.h"
#include "worker/vector/vector.h"
#include "worker/vector/vview.h"

enum { VSCAN_BEST = 4 }; /* candidates for the best chunk of a document */

struct vscan_candidate {
    float score; /* by codes, times a constant */
    int64_t no, content_version;
    const float *floats;
};

struct vscan {
    const struct vview *view;
    const struct vector_query *q;
    dot_fn *dot;
    int8_t *code; /* of the query */
    struct vcursor at;
    size_t allowed;                /* place in q->allowed */
    const struct vfile_entry *doc; /* the one in progress */
    size_t point;                  /* of it, next */
    struct vscan_candidate *heap;  /* the worst on top */
    size_t n, max;
    struct vscan_candidate best[VSCAN_BEST]; /* of `doc`, best first, where its best chunk is wanted */
    size_t n_best;
    uint64_t scanned; /* points */
    struct vector_hit *hit;
    bool away; /* goes on in helper threads, as what it looks at is on the disk */
};

/* Memory comes from the arena. `dot` NULL: the best. */
void vscan_begin(struct vscan *s, struct arena *a, const struct vview *v, const struct vector_query *q, dot_fn *dot);
/* Looks at about so many bytes of codes. 1: all done, 0: there is more, -1: the file is damaged. */
int vscan_step(struct vscan *s, size_t bytes);
/* The k best of the candidates, best first. In a helper thread if their floats may have to be read: of a large file, and
 * `away`. */
suspends void vscan_end(struct vscan *s, struct arena *a, struct vector_hit **out, size_t *n);
