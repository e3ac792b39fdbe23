#include "worker/core/eval.h"
#include "worker/io/json.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEPTH = 10 /* of nDCG */, QUESTIONS_MAX = 1000000, RELEVANT_MAX = 1000, GRADE_MAX = 100, JSON_DEPTH = 8 };

/* ---- the golden set ---- */

static int judgement(struct arena *a, json_t *v, const char *pointer, struct eval_question *q, struct err *e)
{
    struct eval_judgement *j = &q->relevant[q->n];
    struct str external = {0}, document = {0}, chunk = {0};
    double grade = 1;
    const struct json_member table[] = {
        {.name = "external_id", .kind = JSON_STR, .out = &external},
        {.name = "document_id", .kind = JSON_STR, .out = &document},
        {.name = "chunk_id", .kind = JSON_STR, .out = &chunk},
        {.name = "grade", .kind = JSON_DOUBLE, .min = 0, .max = GRADE_MAX, .out = &grade},
    };
    if (json_is_string(v))
        external = (struct str){json_string_value(v), json_string_length(v)};
    else if (json_is_object(v) && json_members(a, v, pointer, table, sizeof table / sizeof *table, false, e) < 0)
        return -1;
    if ((external.n > 0) + (document.n > 0) + (chunk.n > 0) != 1)
        return err_set(e, ERR_VALIDATION,
                       "relevant: an element is an external id, or an object with one of external_id, "
                       "document_id and chunk_id");
    *j = (struct eval_judgement){.external_id = external,
                                 .kind = external.n   ? EVAL_EXTERNAL
                                         : document.n ? EVAL_DOCUMENT
                                                      : EVAL_CHUNK,
                                 .grade = grade};
    if (!external.n && !uuid_parse(document.n ? document : chunk, &j->id))
        return err_set(e, ERR_VALIDATION, "relevant: \"%.40s\" is not an id", document.n ? document.p : chunk.p);
    q->chunks |= j->kind == EVAL_CHUNK;
    q->n += grade > 0; /* sets of judgements also say what is wrong, with 0 */
    return 0;
}

/* `strict`: there are no other members, and the query is one that clients can search for. Files, of other tools too, and
 * sets of older releases may have both. */
static int question(struct arena *a, json_t *object, const char *pointer, bool strict, struct eval_question *q,
                    struct err *e)
{
    json_t *relevant = NULL, *v;
    char at[sizeof e->pointer];
    size_t i;
    const struct json_member table[] = {
        {.name = "query",
         .kind = JSON_STR,
         .required = true,
         .min = 1,
         .max = strict ? RETRIEVE_QUERY_MAX : 65536,
         .out = &q->query},
        {.name = "relevant", .kind = JSON_ARR, .required = true, .min = 1, .max = RELEVANT_MAX, .out = &relevant},
        {.name = "id", .kind = JSON_STR, .min = 1, .max = 1024, .out = &q->id},
    };
    if (json_members(a, object, pointer, table, sizeof table / sizeof *table, !strict, e) < 0)
        return -1;
    json_pointer(at, sizeof at, pointer, "relevant");
    q->relevant = arena_zalloc(a, json_array_size(relevant) * sizeof *q->relevant);
    json_array_foreach (relevant, i, v)
        if (judgement(a, v, at, q, e) < 0)
            return -1;
    if (!q->n)
        return err_set(e, ERR_VALIDATION, "relevant: nothing has a grade above 0");
    if (!q->id.n)
        q->id = q->query;
    return 0;
}

int eval_parse(struct arena *a, struct str text, struct eval_set *out, struct err *e)
{
    struct eval_set set = {0};
    size_t lines = 1, number = 0;
    for (size_t i = 0; i < text.n; i++)
        lines += text.p[i] == '\n';
    if (lines > QUESTIONS_MAX)
        return err_set(e, ERR_VALIDATION, "more than %d lines", (int)QUESTIONS_MAX);
    set.question = arena_zalloc(a, lines * sizeof *set.question);
    while (text.n) {
        struct str line = str_trim(str_cut(&text, '\n'));
        struct err why;
        json_t *object;
        number++;
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (!line.n)
            continue;
        if (json_parse_object(a, line, JSON_DEPTH, &object, &why) < 0 ||
            question(a, object, "", false, &set.question[set.n], &why) < 0)
            return err_set(e, ERR_VALIDATION, "line %zu: %s%s%s", number, why.pointer, why.pointer[0] ? ": " : "",
                           why.msg);
        set.n++;
    }
    if (!set.n)
        return err_set(e, ERR_VALIDATION, "there is no question");
    *out = set;
    return 0;
}

int eval_take(struct arena *a, const json_t *questions, const char *pointer, struct eval_set *out, struct err *e)
{
    struct eval_set set = {.n = json_array_size(questions)};
    char at[sizeof e->pointer], number[24];
    set.question = arena_zalloc(a, (set.n + 1) * sizeof *set.question);
    for (size_t i = 0; i < set.n; i++) {
        json_t *v = json_array_get(questions, i);
        snprintf(number, sizeof number, "%zu", i);
        json_pointer(at, sizeof at, pointer, number);
        if (!json_is_object(v))
            return err_at(e, at, "A question is an object with 'query' and 'relevant'");
        if (question(a, v, at, true, &set.question[i], e) < 0)
            goto failed;
    }
    *out = set;
    return 0;
failed:
    if (!e->pointer[0])
        snprintf(e->pointer, sizeof e->pointer, "%s", at);
    return -1;
}

/* ---- scores ---- */

static double discount(size_t rank) /* 1 = first */
{
    return 1 / log2((double)rank + 1);
}

static int higher_first(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* What the best order would reach. */
static double ideal(const struct eval_question *q)
{
    double grade[RELEVANT_MAX], sum = 0;
    for (size_t i = 0; i < q->n; i++)
        grade[i] = q->relevant[i].grade;
    qsort(grade, q->n, sizeof *grade, higher_first);
    for (size_t i = 0; i < q->n && i < DEPTH; i++)
        sum += grade[i] * discount(i + 1);
    return sum;
}

void eval_rate(const struct eval_question *q, const double *gain, size_t n, int k, struct eval_score *out)
{
    double dcg = 0;
    size_t found = 0, first = 0;
    for (size_t i = 0; i < n; i++) {
        if (gain[i] <= 0)
            continue;
        first = first ? first : i + 1;
        found += i < (size_t)k;
        dcg += i < DEPTH ? gain[i] * discount(i + 1) : 0;
    }
    out->recall = (double)found / (double)q->n;
    out->rr = first ? 1 / (double)first : 0;
    out->ndcg = dcg / ideal(q);
}

/* ---- a run ---- */

static bool is_meant(const struct eval_judgement *j, const struct retrieve_hit *h)
{
    switch (j->kind) {
    case EVAL_EXTERNAL: return str_eq(j->external_id, h->document.external_id);
    case EVAL_DOCUMENT: return uuid_eq(&j->id, &h->document.id);
    case EVAL_CHUNK: return uuid_eq(&j->id, &h->chunk.id);
    }
    return false;
}

/* A judgement counts once, for the best result that it is about; `used` has a flag for each. */
static void gains(const struct eval_question *q, const struct retrieve_result *r, bool *used, double *gain)
{
    for (size_t i = 0; i < r->n; i++) {
        gain[i] = 0;
        for (size_t k = 0; k < q->n && gain[i] == 0; k++)
            if (!used[k] && is_meant(&q->relevant[k], &r->hit[i])) {
                used[k] = true;
                gain[i] = q->relevant[k].grade;
            }
    }
}

static bool in_scope(const struct retrieve_scope *scope, const struct uuid *collection)
{
    for (size_t i = 0; i < scope->n; i++)
        if (uuid_eq(&scope->c[i].id, collection))
            return true;
    return false;
}

/* Whether what a judgement names is there, in one of the collections that are searched. */
suspends static int look_for(struct store *s, struct arena *a, const struct retrieve_scope *scope,
                             const struct eval_judgement *j, bool *there, struct err *e)
{
    struct store_document d;
    struct store_chunk k;
    *there = false;
    if (j->kind == EVAL_EXTERNAL) {
        for (size_t i = 0; i < scope->n && !*there; i++) {
            *there = !STORE_CALL(s, document_by_external_id, a, &scope->c[i].id, j->external_id, &d, e);
            if (!*there && e->code != ERR_NOT_FOUND)
                return -1;
        }
        return 0;
    }
    if ((j->kind == EVAL_CHUNK && STORE_CALL(s, chunk_get, a, &j->id, &k, e)) ||
        STORE_CALL(s, document_get, a, j->kind == EVAL_CHUNK ? &k.document : &j->id, &d, e))
        return e->code == ERR_NOT_FOUND ? 0 : -1;
    *there = in_scope(scope, &d.collection);
    return 0;
}

/* What was not found may not be there at all: then the set is wrong, and not the search. */
suspends static int count_absent(const struct backends *b, struct arena *a, const struct eval_question *q,
                                 const struct retrieve_query *query, const bool *used, size_t *absent, struct err *e)
{
    struct retrieve_scope scope = {0};
    bool known = query->scope != NULL, there;
    if (known)
        scope = *query->scope;
    for (size_t i = 0; i < q->n; i++) {
        if (used[i])
            continue;
        if ((!known && retrieve_scope_of(b, a, query, &scope, e)) ||
            look_for(b->store, a, &scope, &q->relevant[i], &there, e))
            return -1;
        known = true;
        *absent += !there;
    }
    return 0;
}

suspends static int ask(const struct backends *b, const struct eval_question *q, const struct eval_options *o,
                        struct eval_score *score, struct err *e)
{
    struct arena a = {0};
    struct retrieve_result r;
    struct retrieve_query query = {
        .mode = o->mode,
        .query = q->query,
        .collections = o->collections,
        .n_collections = o->n_collections,
        .scope = o->scope,
        .top_k = o->k > DEPTH ? o->k : DEPTH,
        .group_by_document = !q->chunks,
    };
    int64_t begin = clock_ns();
    int rc = retrieve(b, &a, &query, &r, e);
    if (rc == 0) {
        double *gain = arena_zalloc(&a, (r.n + 1) * sizeof *gain);
        bool *used = arena_zalloc(&a, q->n * sizeof *used);
        score->took_us = (clock_ns() - begin) / 1000;
        score->degraded = r.degraded != 0;
        gains(q, &r, used, gain);
        eval_rate(q, gain, r.n, o->k, score);
        rc = count_absent(b, &a, q, &query, used, &score->absent, e);
    }
    arena_fini(&a);
    return rc;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void add_up(const struct eval_score *score, size_t n, struct eval_total *total)
{
    struct arena a = {0};
    int64_t *took = arena_alloc(&a, n * sizeof *took);
    *total = (struct eval_total){0};
    for (size_t i = 0; i < n; i++) {
        total->recall += score[i].recall;
        total->mrr += score[i].rr;
        total->ndcg += score[i].ndcg;
        total->degraded += score[i].degraded;
        total->absent += score[i].absent;
        took[i] = score[i].took_us;
    }
    total->recall /= (double)n; /* once: a tenth ten times is less than 1 */
    total->mrr /= (double)n;
    total->ndcg /= (double)n;
    qsort(took, n, sizeof *took, by_time);
    total->p50_us = took[n / 2];
    total->p99_us = took[n * 99 / 100];
    arena_fini(&a);
}

suspends int eval_run(const struct backends *b, const struct eval_set *set, const struct eval_options *o,
                      const struct index_watch *watch, struct eval_score *score, struct eval_total *total,
                      struct err *e)
{
    for (size_t i = 0; i < set->n; i++) {
        if (fiber_check())
            return err_set(e, ERR_CANCELED, "interrupted");
        if ((watch && watch->fn(watch->arg, (int64_t)i, (int64_t)set->n, e) < 0) ||
            ask(b, &set->question[i], o, &score[i], e) < 0)
            return -1;
    }
    add_up(score, set->n, total);
    return 0;
}
