/* Re-indexing with a gate: the new generation is searched only if it answers a golden set well enough beside the one that
 * is searched now. Both are measured as this server would search them, in mode hybrid, with those questions of the set
 * whose right answers the collection has. A generation of another model than the configured one is measured by words
 * alone, as searches of it are. */
#pragma once
#include "worker/core/eval.h"
#include "worker/core/reindex.h"

struct reindex_gate {
    const struct eval_set *set;
    double min_delta;                /* nDCG@10 of the new generation may be that much below (< 0), or must be above */
    const struct index_watch *watch; /* of measuring: questions; NULL: nobody asks */
    /* What came of it. */
    bool shut; /* ERR_CONFLICT is for the gate: it did not let the generation pass */
    size_t questions;
    struct eval_total now, next; /* of the generation that is searched, and of the new one */
};
/* As reindex_collection(), with promotion. ERR_CONFLICT and `shut`, with both figures: the generation is complete and
 * kept, to be promoted or dropped, and the other one is searched on. ERR_PROVIDER: something was away while it was
 * measured. */
suspends must_use int reindex_gated(const struct backends *b, struct arena *a, const struct uuid *id,
                                    struct reindex_gate *gate, const struct index_watch *watch,
                                    struct store_collection *c, struct err *e);
