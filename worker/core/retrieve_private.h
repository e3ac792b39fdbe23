/* What the files of retrieval share: one search in progress, and the ranked lists that its arms make.
 *
 * retrieve.c reads the scope and puts the arms together; lexical.c ranks by words, nearest.c by vectors; fuse.c makes one
 * list of two; hits.c fetches what is shown of the best. */
#pragma once
#include "worker/core/analyze.h"
#include "worker/core/bm25.h"
#include "worker/core/retrieve.h"

enum { IGNORED_MAX = 64 }; /* ignored terms that are named */

/* The query in one language. */
struct query_terms {
    struct query_terms *next;
    struct str language;
    struct analyzer *an;
    struct str *term; /* distinct */
    size_t n, max;
    struct str ignored[IGNORED_MAX];
    size_t n_ignored;
    struct arena *a;
};

struct search_part { /* one collection */
    struct store_collection c;
    bool matched; /* `allowed` is known */
    int64_t
        *allowed; /* numbers of the documents with chunks that the filter lets through, ascending; NULL: no filter */
    size_t n_allowed;
    int64_t chunks; /* theirs together */
    /* Set by the lexical arm. */
    const struct query_terms *q;
    const struct posting_list **lists; /* of its terms; NULL: the store is asked */
    struct bm25 model;
    int64_t *df;
    double *idf;
};

struct search {
    const struct backends *b;
    const struct config *cfg;
    struct store *store;
    struct arena *a;
    const struct retrieve_query *q;
    struct search_part *part;
    size_t n_parts;
    struct query_terms *languages;
};

/* An entry of a ranked list. */
struct ranked {
    int64_t no; /* chunk */
    double score;
    const struct search_part *part;
    const struct store_candidate *candidate; /* of the lexical arm, or NULL */
    double bm25, cosine, rrf;
    double lexical_share, vector_share; /* of what the arm has to give, see fuse() */
    int lexical, vector;                /* rank in the arm, 1 = best; 0: not found by it */
};
struct ranking {
    struct ranked *r;
    size_t n;
    int64_t total; /* that match, ranked or not */
    bool truncated;
};
static inline int64_t ranked_document(const struct ranked *r)
{
    return r->no >> 20;
}

/* Equal scores are ordered by number, which is the order of creation in every store. For qsort(). */
int ranked_by_score(const void *x, const void *y);
int number_order(const void *x, const void *y); /* of int64_t, ascending */
/* Lets the loop turn, in long computations. */
suspends must_use int search_breathe(struct err *e);
static inline struct str search_language(const struct search *s, const struct search_part *p)
{
    return p->c.language.n ? p->c.language : str_of(s->cfg->ingest_language);
}
/* Finds out `allowed`, once. */
suspends must_use int search_match(struct search *s, struct search_part *p, struct err *e);

/* ---- lexical.c ---- */
/* The best `k` chunks by BM25, or, grouped by document, the best chunks of the best `k` documents. */
suspends must_use int lexical_rank(struct search *s, size_t k, double min_score, struct ranking *out, struct err *e);
/* The terms of the query in the language of a collection; analysed once per language. */
must_use int lexical_terms(struct search *s, struct search_part *p, struct err *e);
bool lexical_has_term(const struct query_terms *q, struct str term);
struct str lexical_ignored(const struct search *s); /* as a JSON array */
void lexical_explain(struct json_out *o, const struct ranked *x);

/* ---- nearest.c ---- */
/* The `k` chunks nearest to the query, or, grouped by document, those of the `k` nearest documents; there must be an
 * embedder and an index. What could not be asked is told in `told->degraded`, also on failure; then *out has what was found
 * nevertheless. */
suspends must_use int nearest_rank(struct search *s, size_t k, struct ranking *out, struct retrieve_result *told,
                                   struct err *e);

/* ---- fuse.c ---- */
/* Each arm has one vote, of its weight, and divides it among the first `eligible` chunks of its list in proportion to the
 * square of what their scores have above that of a chunk which is not among them. So an arm that is sure of a few chunks
 * says so, and one in whose list everything is equally near does not drown the other, as it does where only ranks count
 * (figures: tests/bench/retrieval.md). The score is the sum over that of a chunk which is first in both, so that it lies
 * between 0 and 1. What neither arm votes for comes after these, by the better of its ranks: so the list begins like that
 * which longer lists of the arms would give. `rrf` is told besides: reciprocal rank fusion (Cormack, Clarke and Büttcher,
 * SIGIR 2009), the sum of weight / (60 + rank).
 *
 * by_document: both lists have one chunk of each document, and the votes are for documents. Of its two chunks the one with
 * the larger vote stands for it; the other's score and rank are told all the same. */
enum { FUSE_K = 60 };
void fuse(struct arena *a, struct ranking *lexical, struct ranking *vector, double lexical_weight, double vector_weight,
          size_t eligible, bool by_document, struct ranking *out);

/* ---- hits.c ---- */
/* Entries become hits, with their text and documents; those that are gone meanwhile are left out. */
suspends must_use int hits_fetch(struct search *s, const struct ranked *r, size_t n, int first_rank,
                                 struct retrieve_result *out, struct err *e);
