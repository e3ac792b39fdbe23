/* BM25, one scorer for every store. `df` and the lengths are of the collection that holds the chunk. The inverse document
 * frequency is Lucene's, which is never negative: ln(1 + (N - df + 0.5) / (df + 0.5)). */
#pragma once
#include <stdint.h>

struct bm25 {
    double k1, b;
    double n;     /* chunks of the collection */
    double avgdl; /* their average length in tokens; > 0 */
};

double bm25_idf(const struct bm25 *m, int64_t df);
/* What a term contributes to the score of a chunk of `length` tokens that holds it `tf` times. */
double bm25_term(const struct bm25 *m, double idf, int tf, int length);
