#include "worker/core/eval_report.h"
#include <math.h>

enum { JSON_DEPTH = 8 };
#define SAME 1e-9 /* differences below are none */

int eval_base_read(struct arena *a, struct str json, struct eval_base *out, struct err *e)
{
    json_t *run, *q;
    size_t i;
    if (json_parse_object(a, json, JSON_DEPTH, &run, e) < 0)
        return -1;
    const json_t *questions = json_object_get(run, "questions"), *total = json_object_get(run, "ndcg@10");
    if (!json_is_array(questions) || !json_is_number(total))
        return err_set(e, ERR_VALIDATION, "is no run that `ragd eval --save` wrote");
    *out = (struct eval_base){.total = json_number_value(total),
                              .ndcg = arena_own(a, json_object(), (void (*)(void *))json_decref)};
    json_array_foreach (questions, i, q) {
        const char *id = json_string_value(json_object_get(q, "id"));
        if (id)
            json_object_set(out->ndcg, id, json_object_get(q, "ndcg@10"));
    }
    return 0;
}

double eval_report_before(const struct eval_report *r, size_t i)
{
    struct str id = r->set->question[i].id;
    const json_t *v = json_object_getn(r->base.ndcg, id.p, id.n);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

void eval_report_compare(struct eval_report *r)
{
    for (size_t i = 0; r->base.ndcg && i < r->set->n; i++) {
        double before = eval_report_before(r, i), now = r->score[i].ndcg;
        r->fresh += isnan(before);
        r->better += now > before + SAME;
        r->worse += now < before - SAME;
    }
}

void eval_total_write(const struct eval_total *t, struct json_out *j)
{
    jo_member(j, "recall@k"), jo_f64(j, t->recall);
    jo_member(j, "mrr"), jo_f64(j, t->mrr);
    jo_member(j, "ndcg@10"), jo_f64(j, t->ndcg);
}

static void write_question(const struct eval_report *r, size_t i, struct json_out *j)
{
    const struct eval_score *s = &r->score[i];
    jo_begin(j, '{');
    jo_member(j, "id"), jo_str(j, r->set->question[i].id);
    jo_member(j, "recall@k"), jo_f64(j, s->recall);
    jo_member(j, "rr"), jo_f64(j, s->rr);
    jo_member(j, "ndcg@10"), jo_f64(j, s->ndcg);
    if (r->base.ndcg)
        jo_member(j, "base_ndcg@10"), jo_f64(j, eval_report_before(r, i)); /* null: not in it */
    jo_end(j, '}');
}

void eval_report_write(const struct eval_report *r, struct json_out *j)
{
    const struct eval_total *t = &r->total;
    jo_member(j, "mode"), jo_strz(j, retrieve_mode_name(r->options->mode));
    jo_member(j, "k"), jo_i64(j, r->options->k);
    jo_member(j, "n"), jo_i64(j, (int64_t)r->set->n);
    eval_total_write(t, j);
    jo_member(j, "p50_ms"), jo_f64(j, (double)t->p50_us / 1000);
    jo_member(j, "p99_ms"), jo_f64(j, (double)t->p99_us / 1000);
    jo_member(j, "degraded"), jo_i64(j, (int64_t)t->degraded);
    jo_member(j, "absent"), jo_i64(j, (int64_t)t->absent);
    if (r->base.ndcg) {
        jo_member(j, "base_ndcg@10"), jo_f64(j, r->base.total);
        jo_member(j, "better"), jo_i64(j, (int64_t)r->better);
        jo_member(j, "worse"), jo_i64(j, (int64_t)r->worse);
        jo_member(j, "new"), jo_i64(j, (int64_t)r->fresh);
    }
    jo_member(j, "questions"), jo_begin(j, '[');
    for (size_t i = 0; i < r->set->n; i++)
        write_question(r, i, j);
    jo_end(j, ']');
}
