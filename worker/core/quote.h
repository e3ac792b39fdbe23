/* Quotes: the sentences of passages that match a question best. They are exact pieces of a chunk's text, so that
 * `verify` can confirm them. What an answer without a model is made of, and what every citation shows. */
#pragma once
#include "worker/core/retrieve.h"

struct quote {
    size_t hit;      /* index of the passage */
    size_t from, to; /* bytes of its chunk's text */
    double score;    /* 0: no word of the question is in it */
};
/* All sentences of the passages but their headings, best first; equal ones in their order. */
suspends must_use int quotes_rank(struct arena *a, const struct config *cfg, struct str question,
                                  const struct retrieve_hit *hits, size_t n, struct quote **out, size_t *n_out,
                                  struct err *e);
/* The best one of the passage, or its beginning when it has none. */
struct quote quote_of(const struct quote *ranked, size_t n, const struct retrieve_hit *hits, size_t hit);
