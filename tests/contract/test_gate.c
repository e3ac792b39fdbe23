/* Re-indexing with a gate: a generation that answers worse is not searched. */
#include "tests/contract/doubles.h"
#include "tests/contract/ingesting.h"
#include "worker/core/reindex_gate.h"

enum { DOCUMENTS = 7, AXES = 16, SHARP = 4096 };

/* To `contrary` each question is that of the next document, and of no other. */
static int embed_contrary(struct embedder *m, struct arena *a, enum embed_purpose purpose, const struct str *text,
                          size_t n, float **out, int *dim, struct err *e)
{
    float *v = arena_zalloc(a, n * AXES * sizeof *v);
    (void)e;
    for (size_t i = 0; i < n; i++) {
        int digit = text[i].p[text[i].n - 1] - '0';
        bool known = digit >= 0 && digit < DOCUMENTS;
        v[i * AXES + (size_t)(!known ? AXES - 1 : purpose == EMBED_QUERY ? (digit + 1) % DOCUMENTS : digit)] = 1;
    }
    ((struct fake_embedder *)(void *)m)->texts += (int)n;
    *out = v;
    *dim = AXES;
    return 0;
}
static const struct embed_ops contrary_ops = {.name = "contrary", .embed = embed_contrary};

static struct fake_embedder sharp, contrary; /* `sharp` tells all texts apart */
static struct doors vectors;

static struct store_collection filled(struct world *w, const char *name)
{
    struct store_collection c = a_collection(w, name);
    struct store_document d[DOCUMENTS];
    struct job_runner *r = start_ingest(w);
    for (int i = 0; i < DOCUMENTS; i++)
        d[i] = a_document(w, &c, arena_printf(&w->a, "Harbour %d", i).p);
    for (int i = 0; i < DOCUMENTS; i++)
        wait_for_job(w, &d[i].job, JOB_succeeded);
    stop(w, r);
    return collection_of(w, &c.id);
}

static void open_doubles(struct world *w)
{
    sharp = fake_embedder("sharp", SHARP);
    contrary = fake_embedder("contrary", AXES);
    contrary.base.ops = &contrary_ops;
    vectors = doors_open();
    w->b.embedder = &sharp.base;
    w->b.vectors = &vectors.base;
}

/* For each document the text that finds it. */
static struct eval_set golden(struct world *w, const struct store_collection *c)
{
    struct eval_set set = {.n = DOCUMENTS};
    struct store_document_query q = {.collection = c->id, .page = {.limit = DOCUMENTS, .ascending = true}};
    struct store_document *d;
    size_t n;
    bool more;
    ok(w, GET(w, document_list, &q, &d, &n, &more));
    same(w, n, DOCUMENTS);
    set.question = arena_zalloc(&w->a, DOCUMENTS * sizeof *set.question);
    for (size_t i = 0; i < DOCUMENTS; i++) {
        struct eval_judgement *j = arena_zalloc(&w->a, sizeof *j);
        *j = (struct eval_judgement){.kind = EVAL_DOCUMENT, .id = d[i].id, .grade = 1};
        set.question[i] = (struct eval_question){.query = arena_printf(&w->a, "Harbour %zu", i), .relevant = j, .n = 1};
    }
    return set;
}

static void worse_is_shut_out(struct world *w)
{
    open_doubles(w);
    struct store_collection c = filled(w, "c");
    struct eval_set set = golden(w, &c);
    struct reindex_gate gate = {.set = &set, .min_delta = -0.01};
    w->b.embedder = &contrary.base;
    fails(w, ERR_CONFLICT, reindex_gated(&w->b, &w->a, &c.id, &gate, NULL, &c, &w->e));
    must(w, gate.shut && gate.questions == DOCUMENTS);
    must(w, gate.now.ndcg > 0.999 && gate.next.ndcg < 0.9);
    must(w, gate.now.degraded == DOCUMENTS); /* by words alone: nobody asks its model any more */
    must(w, gate.next.degraded == 0);
    must(w, strstr(w->e.msg, arena_printf(&w->a, "nDCG@10 is %.4f", gate.next.ndcg).p) != NULL);
    must(w, strstr(w->e.msg, arena_printf(&w->a, "searched %.4f by words alone;", gate.now.ndcg).p) != NULL);
    c = collection_of(w, &c.id);
    same(w, c.generation, 1);
    same(w, c.shadow.no, 2);
    must(w, c.shadow_built);
    /* it was measured again, not built again; and a gate that allows as much lets it pass */
    int made = contrary.texts;
    gate.min_delta = -1;
    ok(w, reindex_gated(&w->b, &w->a, &c.id, &gate, NULL, &c, &w->e));
    must(w, !gate.shut && contrary.texts - made == 1 + DOCUMENTS); /* how long a vector is, and the questions */
    same(w, c.generation, 2);
    same(w, c.previous.no, 1);
    /* what is no worse passes one that allows nothing */
    gate.min_delta = 0;
    w->b.embedder = &sharp.base;
    ok(w, reindex_gated(&w->b, &w->a, &c.id, &gate, NULL, &c, &w->e));
    must(w, gate.next.ndcg > 0.999);
    same(w, c.generation, 3);
    doors_close(&vectors);
}

static void only_its_own_questions_count(struct world *w)
{
    open_doubles(w);
    struct store_collection c = filled(w, "c"), other = a_collection(w, "other");
    struct eval_set set = golden(w, &c);
    struct eval_judgement *elsewhere = set.question[0].relevant;
    *elsewhere = (struct eval_judgement){.kind = EVAL_DOCUMENT, .id = uuid_v7(), .grade = 1};
    struct reindex_gate gate = {.set = &set};
    ok(w, reindex_gated(&w->b, &w->a, &c.id, &gate, NULL, &c, &w->e));
    same(w, gate.questions, DOCUMENTS - 1);
    same(w, c.generation, 2);
    must(w, gate.now.degraded == 0 && gate.now.ndcg > 0.999 && gate.next.ndcg > 0.999);
    /* an empty collection has nothing to measure */
    ok(w, reindex_gated(&w->b, &w->a, &other.id, &gate, NULL, &other, &w->e));
    same(w, gate.questions, 0);
    /* one with documents that nobody asks for is not promoted unmeasured */
    for (size_t i = 0; i < set.n; i++)
        set.question[i].relevant[0].id = uuid_v7();
    fails(w, ERR_CONFLICT, reindex_gated(&w->b, &w->a, &c.id, &gate, NULL, &c, &w->e));
    must(w, gate.shut && strstr(w->e.msg, "no question"));
    same(w, collection_of(w, &c.id).generation, 2);
    doors_close(&vectors);
}

suspends static int goes_away(void *arg, int64_t done, int64_t total, struct err *e)
{
    (void)arg, (void)total, (void)e;
    vectors.away = done > 0;
    return 0;
}

/* What is away while it measures is no verdict. */
static void no_verdict_without_vectors(struct world *w)
{
    open_doubles(w);
    struct store_collection c = filled(w, "c");
    struct eval_set set = golden(w, &c);
    struct reindex_gate gate = {.set = &set, .min_delta = -1};
    ok(w, reindex_collection(&w->b, &w->a, &c.id, false, NULL, &c, &w->e));
    must(w, c.shadow_built);
    struct index_watch watch = {goes_away, NULL};
    gate.watch = &watch;
    fails(w, ERR_PROVIDER, reindex_gated(&w->b, &w->a, &c.id, &gate, NULL, &c, &w->e));
    must(w, !gate.shut && strstr(w->e.msg, "6 of 7"));
    vectors.away = false;
    same(w, collection_of(w, &c.id).generation, 1);
    doors_close(&vectors);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {TEST(worse_is_shut_out), TEST(only_its_own_questions_count),
                                    TEST(no_verdict_without_vectors)};
    return contract_main("gate of re-indexing", tests, sizeof tests / sizeof *tests, argc, argv);
}
