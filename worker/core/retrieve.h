/* Retrieval: candidates from the store, ranked by one BM25 scorer with the statistics of the collections searched, so
 * that every store gives the same order. */
#pragma once
#include "worker/store/store.h"

struct retrieve_query {
    struct str query;
    const struct uuid *collections; /* n = 0: all */
    size_t n_collections;
    int top_k, offset;
    const struct filter *filter;
    double min_score;
    bool highlight, explain, group_by_document;
};
struct retrieve_hit {
    struct store_chunk chunk;
    struct store_document document;
    double score, bm25;
    int rank; /* 1 = best */
    struct {
        size_t from, to;
    } * highlight; /* bytes in chunk.text */
    size_t n_highlight;
    struct str explain; /* JSON object, or "" */
};
struct retrieve_result {
    struct retrieve_hit *hit;
    size_t n;
    int64_t total; /* chunks that match */
    bool truncated;
    struct str ignored_terms; /* JSON array of query terms beyond limits.query_terms */
};
suspends must_use int retrieve(const struct config *cfg, struct store *s, struct arena *a,
                               const struct retrieve_query *q, struct retrieve_result *out, struct err *e);
