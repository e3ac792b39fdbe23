/* How good retrieval is, measured: questions whose right answers are known, a golden set, are searched for, and where the
 * right documents or chunks stand in the results becomes recall, reciprocal rank and nDCG. For `ragd eval` and evaluation
 * jobs, which compare two states of a server: settings, chunking, a model of embeddings. */
#pragma once
#include "worker/core/index.h"
#include "worker/core/retrieve.h"
#include "worker/io/json.h"

/* What is right for a question, and how much: at least one of these. */
struct eval_judgement {
    struct str external_id;
    struct uuid id; /* of a document, or of a chunk */
    enum { EVAL_EXTERNAL, EVAL_DOCUMENT, EVAL_CHUNK } kind;
    double grade; /* > 0; 1 = right */
};
struct eval_question {
    struct str id, query;
    struct eval_judgement *relevant;
    size_t n;
    bool chunks; /* one of them is a chunk: then chunks are ranked, else documents */
};
struct eval_set {
    struct eval_question *question;
    size_t n;
};
/* One JSON object a line: {"query": "…", "relevant": ["EXTERNAL-ID", {"external_id": "…", "grade": 2},
 * {"document_id": "…"}, {"chunk_id": "…"}], "id": "…"}; without `id` the query is it. Empty lines are skipped. The set is
 * in the arena, and refers to `text`. ERR_VALIDATION with the number of the line. */
must_use int eval_parse(struct arena *a, struct str text, struct eval_set *out, struct err *e);
/* The same of a JSON array that a client sent, which stands at `pointer`; an error points into it. Unlike in files there
 * are no other members, and queries are not longer than those of searches. The set refers to the array. */
must_use int eval_take(struct arena *a, const json_t *questions, const char *pointer, struct eval_set *out,
                       struct err *e);

struct eval_options {
    enum retrieve_mode mode;
    const struct uuid *collections; /* n = 0: all */
    size_t n_collections;
    const struct retrieve_scope *scope; /* as in struct retrieve_query */
    int k;                              /* of recall, 1 to 1000; at least 10 results are looked at for nDCG@10 */
};
/* Of one question; between 0 and 1. */
struct eval_score {
    double recall; /* found among the first k, of those that are right */
    double rr;     /* 1 / rank of the first right one; 0: none was found */
    double ndcg;   /* at 10; gains are the grades themselves */
    int64_t took_us;
    size_t absent; /* of what is right, what is not in the collections that were searched */
    bool degraded;
};
struct eval_total {
    double recall, mrr, ndcg; /* means */
    int64_t p50_us, p99_us;
    size_t degraded; /* questions */
    size_t absent;   /* judgements */
};
/* score[] has a place for every question. `watch`, or NULL, is told the questions done. */
suspends must_use int eval_run(const struct backends *b, const struct eval_set *set, const struct eval_options *o,
                               const struct index_watch *watch, struct eval_score *score, struct eval_total *total,
                               struct err *e);

/* How the results of one question are scored, apart from how they were found: gain[i] is the grade of the i-th result, 0
 * for one that is not right. */
void eval_rate(const struct eval_question *q, const double *gain, size_t n, int k, struct eval_score *out);
