/* What is told of an evaluation: the figures, and how each question did, also beside an earlier run. The JSON is that of
 * `ragd eval --json` and --save, and of evaluation jobs. Nothing here suspends. */
#pragma once
#include "worker/core/eval.h"

/* An earlier run: what each question reached. */
struct eval_base {
    json_t *ndcg; /* question's id -> nDCG; NULL: there is none */
    double total;
};
/* From the JSON that eval_report_write() made. ERR_VALIDATION. The arena owns it. */
must_use int eval_base_read(struct arena *a, struct str json, struct eval_base *out, struct err *e);

struct eval_report {
    const struct eval_set *set;
    const struct eval_options *options;
    const struct eval_score *score;
    struct eval_total total;
    struct eval_base base;
    size_t better, worse, fresh; /* questions: than in the base; not in it */
};
/* Counts the last three. */
void eval_report_compare(struct eval_report *r);
/* nDCG of a question in the base; NaN: it has no such question. */
double eval_report_before(const struct eval_report *r, size_t i);
/* recall@k, mrr, ndcg@10, as members of an object. */
void eval_total_write(const struct eval_total *t, struct json_out *j);
/* The members of an object that is open. */
void eval_report_write(const struct eval_report *r, struct json_out *j);
