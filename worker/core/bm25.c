#include "worker/core/bm25.h"
#include <math.h>

double bm25_idf(const struct bm25 *m, int64_t df)
{
    /* The counts of a collection and its candidates are read one after the other: chunks may have come in between. */
    double n = m->n < (double)df ? (double)df : m->n;
    return log(1 + (n - (double)df + 0.5) / ((double)df + 0.5));
}

double bm25_term(const struct bm25 *m, double idf, int tf, int length)
{
    double norm = m->k1 * (1 - m->b + m->b * length / m->avgdl);
    return tf ? idf * tf * (m->k1 + 1) / (tf + norm) : 0;
}
