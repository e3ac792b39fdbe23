#include "worker/core/reindex_gate.h"
#include "worker/embed/embed.h"

enum { RECALL = 10 };
#define SAME 1e-9 /* differences below are none */

/* ---- the questions that the collection can answer ---- */

suspends static int look_up(const struct backends *b, struct arena *a, const struct store_collection *c,
                            const struct eval_judgement *j, struct store_document *d, struct err *e)
{
    struct store_chunk chunk;
    switch (j->kind) {
    case EVAL_EXTERNAL: return STORE_CALL(b->store, document_by_external_id, a, &c->id, j->external_id, d, e);
    case EVAL_DOCUMENT: return STORE_CALL(b->store, document_get, a, &j->id, d, e);
    case EVAL_CHUNK:
        if (STORE_CALL(b->store, chunk_get, a, &j->id, &chunk, e))
            return -1;
        return STORE_CALL(b->store, document_get, a, &chunk.document, d, e);
    }
    return err_set(e, ERR_INTERNAL, "a judgement of no kind");
}

suspends static int is_here(const struct backends *b, const struct store_collection *c, const struct eval_judgement *j,
                            bool *here, struct err *e)
{
    struct arena a = {0};
    struct store_document d;
    struct err why = {0};
    int rc = look_up(b, &a, c, j, &d, &why);
    *here = rc == 0 && uuid_eq(&d.collection, &c->id);
    arena_fini(&a);
    if (rc == 0 || why.code == ERR_NOT_FOUND)
        return 0;
    *e = why;
    return -1;
}

suspends static int of_collection(const struct backends *b, struct arena *a, const struct store_collection *c,
                                  const struct eval_set *all, struct eval_set *out, struct err *e)
{
    out->question = arena_zalloc(a, all->n * sizeof *out->question);
    out->n = 0;
    for (size_t i = 0; i < all->n; i++) {
        const struct eval_question *from = &all->question[i];
        struct eval_question *q = &out->question[out->n];
        *q = (struct eval_question){.id = from->id, .query = from->query};
        q->relevant = arena_zalloc(a, from->n * sizeof *q->relevant);
        for (size_t k = 0; k < from->n; k++) {
            bool here;
            if (is_here(b, c, &from->relevant[k], &here, e))
                return -1;
            if (here)
                q->relevant[q->n++] = from->relevant[k];
            q->chunks |= here && from->relevant[k].kind == EVAL_CHUNK;
        }
        out->n += q->n > 0;
    }
    return 0;
}

/* ---- measuring ---- */

/* As if `g` were what is searched. */
suspends static int measure(const struct backends *b, struct arena *a, const struct store_collection *c,
                            const struct store_generation *g, const struct eval_set *set,
                            const struct index_watch *watch, struct eval_total *total, struct err *e)
{
    struct store_collection as = *c;
    const struct retrieve_scope scope = {&as, 1};
    const struct eval_options o = {.mode = RETRIEVE_hybrid, .k = RECALL, .scope = &scope};
    as.generation = g->no;
    as.embedder = g->embedder;
    as.dim = g->dim;
    as.incomplete = c->incomplete && g->no == c->generation;
    struct eval_score *score = arena_zalloc(a, set->n * sizeof *score);
    if (eval_run(b, set, &o, watch, score, total, e))
        return -1;
    bool asked = str_eq(g->embedder, b->embedder->model) && g->dim == c->shadow.dim; /* else there is nothing to ask */
    if (asked && total->degraded)
        return err_set(e, ERR_PROVIDER,
                       "Generation %lld could not be measured: %zu of %zu questions were answered without its vectors",
                       (long long)g->no, total->degraded, set->n);
    return 0;
}

static int shut(struct reindex_gate *gate, const struct store_collection *c, struct err *e)
{
    const struct eval_total *now = &gate->now, *next = &gate->next;
    gate->shut = true;
    return err_set(e, ERR_CONFLICT,
                   "Generation %lld of '" STR_FMT "' does not pass: nDCG@10 is %.4f, that of the one that is searched "
                   "%.4f%s; %+.4f is less than %+.4f (recall@10 %.4f, %.4f; MRR %.4f, %.4f; %zu questions). "
                   "It is kept: promote or drop it",
                   (long long)c->shadow.no, STR_ARG(str_sub(c->name, 0, 40)), next->ndcg, now->ndcg,
                   now->degraded ? " by words alone" : "", next->ndcg - now->ndcg, gate->min_delta, next->recall,
                   now->recall, next->mrr, now->mrr, gate->questions);
}

suspends static int pass(const struct backends *b, struct arena *a, const struct store_collection *c,
                         struct reindex_gate *gate, struct err *e)
{
    const struct store_generation searched = {c->generation, c->embedder, c->dim};
    struct eval_set set;
    gate->questions = 0;
    if (c->documents == 0)
        return 0;
    if (of_collection(b, a, c, gate->set, &set, e))
        return -1;
    gate->questions = set.n;
    if (set.n == 0) {
        gate->shut = true;
        return err_set(e, ERR_CONFLICT,
                       "Generation %lld of '" STR_FMT
                       "' cannot be measured: the golden set has no question whose right "
                       "answer is in the collection. It is kept: promote or drop it",
                       (long long)c->shadow.no, STR_ARG(str_sub(c->name, 0, 40)));
    }
    if (measure(b, a, c, &searched, &set, gate->watch, &gate->now, e) ||
        measure(b, a, c, &c->shadow, &set, gate->watch, &gate->next, e))
        return -1;
    return gate->next.ndcg - gate->now.ndcg < gate->min_delta - SAME ? shut(gate, c, e) : 0;
}

suspends int reindex_gated(const struct backends *b, struct arena *a, const struct uuid *id, struct reindex_gate *gate,
                           const struct index_watch *watch, struct store_collection *c, struct err *e)
{
    gate->shut = false;
    if (reindex_collection(b, a, id, false, watch, c, e) || pass(b, a, c, gate, e))
        return -1;
    return reindex_flip(b, a, id, c->shadow.no, false, c, e);
}
