/* Searches whose answers are kept in the cache. The key of an answer names all that it depends on: the query, the settings,
 * and of each collection the revision, which every change that a search could notice raises. So a write makes what was
 * kept before unreachable at once. Answers that are degraded because something is away are never kept. */
#pragma once
#include "worker/core/retrieve.h"

/* Turns a result into the text that is kept. */
typedef void recall_render(void *arg, struct buf *out, const struct retrieve_result *r);

/* Appends the text to `out`. *hit: it was made before. There must be a cache. Errors are those of retrieve(). */
suspends must_use int recall_search(const struct backends *b, struct arena *a, const struct retrieve_query *q,
                                    recall_render *render, void *arg, struct buf *out, bool *hit, struct err *e);

/* The vector of a query, from the cache if it has one. Errors are the embedder's. */
suspends must_use int recall_vector(const struct backends *b, struct arena *a, struct str query, const float **out,
                                    int *dim, struct err *e);

/* Forgets all searches and vectors that are kept, of ragd's own keys only: those of everybody who shares the Redis, or
 * those of all workers of this server. */
struct recall_flushed {
    const char *cache; /* "redis", "memory" */
    bool shared;       /* else `removed` is only what this process had; the others forget theirs when they next look */
    int64_t removed;   /* keys */
};
/* ERR_CONFLICT without a cache; what the cache says when it is away. */
suspends must_use int recall_flush(const struct backends *b, struct recall_flushed *out, struct err *e);
