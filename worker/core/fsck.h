/* Compares the vector index with the store: each space of a collection must hold, of each document that has chunks, one
 * point a chunk, of the version that is indexed; and nothing else. What differs for a moment, because a job or the outbox
 * is about to bring it, is looked at again before it counts. And where the product has aliases (Qdrant), that of a
 * collection must lead to what is searched, and nothing may be there that belongs to no collection. */
#pragma once
#include "worker/core/index.h"

struct fsck_counts {
    int64_t spaces, documents; /* looked at */
    int64_t missing;           /* in the store only */
    int64_t orphans;           /* in the index only */
    int64_t mismatched;        /* of another version, or with another number of points */
    int64_t aliases;           /* collections whose alias leads elsewhere, or is missing */
    int64_t strays;            /* of collections that are gone; with `repair` also places that nobody needs */
    int64_t repaired;
};

enum fsck_kind { FSCK_MISSING, FSCK_ORPHAN, FSCK_MISMATCHED };
/* What is wrong in one space, in order of the documents' numbers, each confirmed. `fn` below 0 ends the comparison. */
struct fsck_visit {
    suspends int (*fn)(void *arg, enum fsck_kind kind, int64_t document_no, struct err *e);
    void *arg;
    bool busy; /* also documents that a job is about to bring: it may not know of this space */
};
suspends must_use int fsck_space(const struct backends *b, const struct store_collection *c,
                                 const struct index_space *space, struct fsck_counts *counts,
                                 const struct fsck_visit *visit, const struct index_watch *watch, struct err *e);

/* All spaces of all collections, after the outbox has been drained; but of the model that is not the embedder's only those
 * that are searched. With `repair`, what is wrong is mended: vectors come from the store, or from the embedder if it is the
 * one of the space; ERR_CONFLICT, at the end, when that is not enough. */
suspends must_use int fsck(const struct backends *b, bool repair, struct fsck_counts *counts,
                           const struct index_watch *watch, struct err *e);
/* The part of it that looks for strays. *first: why something could not be mended. */
suspends must_use int fsck_strays(const struct backends *b, bool repair, struct fsck_counts *counts, struct err *first,
                                  struct err *e);
void fsck_result(struct buf *out, const struct fsck_counts *c); /* as a JSON object */
