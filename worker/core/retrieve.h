/* Retrieval: the passages of some collections that fit a query best, in one of the modes below. Ranking by words is done
 * here, with one BM25 and the statistics of the collections searched, so that every store gives the same order. */
#pragma once
#include "worker/core/backends.h"

#define RETRIEVE_MODES(X) X(hybrid) X(lexical) X(vector) X(metadata)
enum retrieve_mode {
#define X(name) RETRIEVE_##name,
    RETRIEVE_MODES(X)
#undef X
        RETRIEVE_MODE_COUNT
};
const char *retrieve_mode_name(enum retrieve_mode m);
bool retrieve_mode_parse(struct str s, enum retrieve_mode *out);

enum { RETRIEVE_QUERY_MAX = 8192 }; /* bytes of a query that a client may send */

struct retrieve_scope { /* the collections that are searched, as they are now */
    struct store_collection *c;
    size_t n;
};
struct retrieve_query {
    enum retrieve_mode mode;
    struct str query;               /* not for `metadata`: all documents that the filter lets through, newest first */
    const struct uuid *collections; /* n = 0: all */
    size_t n_collections;
    const struct retrieve_scope *scope; /* NULL: it is read from `collections` */
    int top_k, offset;
    const struct filter *filter;
    double min_score; /* of the score of the mode */
    struct {
        double lexical, vector;
    } weights;         /* of the arms in mode hybrid, which finds nothing by one of 0; both 0: equal */
    int before, after; /* neighbouring chunks to show */
    bool highlight, explain, group_by_document;
};
struct retrieve_hit {
    struct store_chunk chunk;
    struct store_document document;
    struct str language; /* of its collection: a stemmer's name */
    double score;        /* lexical: BM25; vector: cosine; hybrid: 0 to 1, see fuse() */
    double bm25, cosine, rrf;
    int rank;            /* 1 = best */
    int lexical, vector; /* rank in that arm; 0: not found by it */
    struct {
        size_t from, to;
    } * highlight; /* bytes in chunk.text */
    size_t n_highlight;
    struct str before,
        after; /* text around the chunk, without what it has itself: of its neighbours, of its parent, or of both */
    bool has_parent;
    struct str explain; /* JSON object, or "" */
};
/* What could not be asked, and was done without. */
enum retrieve_degraded { RETRIEVE_NO_VECTORS = 1, RETRIEVE_NO_EMBEDDER = 2, RETRIEVE_NO_LLM = 4 /* of answers */ };
struct retrieve_result {
    struct retrieve_hit *hit;
    size_t n;
    int64_t total; /* chunks that match; of mode metadata, and grouped: documents */
    bool truncated;
    struct str ignored_terms; /* JSON array of query terms beyond limits.query_terms */
    int64_t generation;       /* of the vectors that were searched, the highest; 0 = none */
    unsigned degraded;        /* set of enum retrieve_degraded */
};
/* Reads the collections of a query; ERR_NOT_FOUND for one that is not there. */
suspends must_use int retrieve_scope_of(const struct backends *b, struct arena *a, const struct retrieve_query *q,
                                        struct retrieve_scope *out, struct err *e);
/* ERR_NOT_FOUND for a collection that is not there, ERR_VALIDATION for a mode that is not configured. */
suspends must_use int retrieve(const struct backends *b, struct arena *a, const struct retrieve_query *q,
                               struct retrieve_result *out, struct err *e);
