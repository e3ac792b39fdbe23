/* Search by words and vectors together, on real stores, with the vector index of tests and an embedder made here: it knows
 * that some words mean the same, and can be away, slow, or of another model. */
#include "tests/contract/meanings.h"
#include "worker/core/retrieve.h"
#include <math.h>

static struct retrieve_result search(struct world *w, const struct retrieve_query *q)
{
    struct retrieve_result r;
    ok(w, retrieve(&w->b, &w->a, q, &r, &w->e));
    return r;
}

static void finds(struct world *w, const struct retrieve_result *r, size_t n, const char *const *texts)
{
    same(w, r->n, n);
    for (size_t i = 0; i < n; i++)
        same_str(w, r->hit[i].chunk.text, texts[i]);
}
#define FINDS(w, r, ...)                                     \
    do {                                                     \
        const char *const texts_[] = {__VA_ARGS__};          \
        finds(w, r, sizeof texts_ / sizeof *texts_, texts_); \
    } while (0)

/* ---- */

static void words_and_meanings_are_fused(struct world *w)
{
    begin(w);
    struct store_collection c = a_collection(w, "c");
    add_both(w, &c, "car wash");
    add_both(w, &c, "automobile repair");
    add_both(w, &c, "boat harbour");
    struct retrieve_query q = {.mode = RETRIEVE_vector, .query = STR("car"), .top_k = 2};
    struct retrieve_result r = search(w, &q);
    same(w, r.n, 2);
    must(w, r.hit[0].cosine > 0.9 && r.hit[1].cosine > 0.9 && r.hit[0].score == r.hit[0].cosine);
    must(w, r.hit[0].vector == 1 && r.hit[1].vector == 2 && r.hit[0].lexical == 0 && r.generation == 1);
    q.mode = RETRIEVE_lexical;
    r = search(w, &q);
    FINDS(w, &r, "car wash");
    q = (struct retrieve_query){.query = STR("car"), .top_k = 3, .explain = true};
    r = search(w, &q);
    same(w, r.n, 3);
    same_str(w, r.hit[0].chunk.text, "car wash");
    same_str(w, r.hit[1].chunk.text, "automobile repair");
    same(w, r.degraded, 0);
    must(w, r.hit[0].lexical == 1 && r.hit[1].lexical == 0 && r.hit[1].vector > 0);
    must(w, fabs(r.hit[0].rrf - (1.0 / 61 + 1.0 / (60 + r.hit[0].vector))) < 1e-12);
    must(w, r.hit[0].score > 0.99 && r.hit[0].score <= 1 && r.hit[1].score < 0.5 && r.hit[1].score > r.hit[2].score);
    must(w, memmem(r.hit[1].explain.p, r.hit[1].explain.n, "\"lexical\":null", 14));
    q.weights.vector = 1; /* and nothing for words */
    r = search(w, &q);
    must(w, fabs(r.hit[0].score - 1) < 1e-12 && r.hit[0].lexical == 0);
    same(w, r.total, 3);
    q.weights.vector = 0;
    q.weights.lexical = 1; /* and the other way round: what has no word of the query is no hit */
    r = search(w, &q);
    FINDS(w, &r, "car wash");
    must(w, fabs(r.hit[0].score - 1) < 1e-12 && r.hit[0].vector == 0 && r.degraded == 0 && r.generation == 0);
    same(w, r.total, 1);
    q.query = STR("vehicle");
    same(w, search(w, &q).n, 0);
    q = (struct retrieve_query){.query = STR("car"), .top_k = 3, .min_score = 0.6};
    r = search(w, &q);
    FINDS(w, &r, "car wash");
    end(w);
}

static void ghosts_are_dropped(struct world *w)
{
    begin(w);
    struct store_collection c = a_collection(w, "c");
    struct store_document d = add_both(w, &c, "car wash"), gone = add_both(w, &c, "vehicle park");
    ok(w, DO(w, document_delete, &gone.id, 0));
    struct retrieve_query q = {.mode = RETRIEVE_vector, .query = STR("automobile"), .top_k = 5};
    struct retrieve_result r = search(w, &q);
    FINDS(w, &r, "car wash");
    struct store_document_new in =
        new_document(&c, "physician at work"); /* a new version: its vectors are still the old */
    struct store_document out;
    enum store_created what;
    struct store_job job;
    in.external_id = STR("x");
    in.by_external_id = true;
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    const char *first[] = {"physician at work"}, *second[] = {"king of the hill"};
    index_document(w, &out.id, first, 1);
    out = document_of(w, &out.id);
    put(w, &c, &out);
    q.query = STR("medic");
    same_str(w, search(w, &q).hit[0].chunk.text, "physician at work");
    in = new_document(&c, "king of the hill");
    in.external_id = STR("x");
    in.by_external_id = true;
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    index_document(w, &out.id, second, 1);
    r = search(w, &q);
    FINDS(w, &r, "car wash");
    q.mode = RETRIEVE_hybrid;
    q.query = STR("king");
    q.weights.lexical = 1;
    same_id(w, search(w, &q).hit[0].document.id, out.id);
    (void)d;
    end(w);
}

static void filters_hold_for_both(struct world *w)
{
    begin(w);
    struct store_collection c = a_collection(w, "c");
    add_both(w, &c, "car wash");
    add_both(w, &c, "automobile repair");
    add_both(w, &c, "car automobile vehicle of long text");
    json_t *json;
    struct filter *filter;
    ok(w, json_parse(&w->a, STR("{\"type\":\"gt\",\"key\":\"n\",\"value\":10}"), 8, &json, &w->e));
    ok(w, filter_parse(&w->a, json, "/filter", &filter, &w->e));
    struct retrieve_query q = {.query = STR("car"), .top_k = 9, .filter = filter};
    struct retrieve_result r = search(w, &q);
    FINDS(w, &r, "car automobile vehicle of long text", "automobile repair");
    q.mode = RETRIEVE_vector;
    same(w, search(w, &q).n, 2);
    ok(w, json_parse(&w->a, STR("{\"type\":\"gt\",\"key\":\"n\",\"value\":1000}"), 8, &json, &w->e));
    ok(w, filter_parse(&w->a, json, "/filter", &filter, &w->e));
    q.filter = filter;
    same(w, search(w, &q).n, 0);
    end(w);
}

/* An index that was lost says that it has nothing: that is no answer of a collection that has chunks. */
static void a_lost_index_is_noticed(struct world *w)
{
    begin(w);
    struct store_collection c = a_collection(w, "c"), empty = a_collection(w, "empty");
    add_both(w, &c, "car wash");
    ok(w, DO(w, collection_set_embedder, &empty.id, fake.base.model, DIM));
    struct retrieve_query q = {.query = STR("car"), .top_k = 9};
    same(w, search(w, &q).degraded, 0);
    c = collection_of(w, &c.id);
    struct vector_space s = {.collection = c.id, .collection_no = c.no, .generation = c.generation, .dim = c.dim};
    ok(w, VECTORS_CALL(w->b.vectors, drop, &s, &w->e));
    struct retrieve_result r = search(w, &q);
    FINDS(w, &r, "car wash");
    same(w, r.degraded, RETRIEVE_NO_VECTORS);
    q.mode = RETRIEVE_vector;
    r = search(w, &q);
    same(w, r.n, 0);
    same(w, r.degraded, RETRIEVE_NO_VECTORS);
    end(w);
}

static void collections_of_other_models_are_searched_by_words(struct world *w)
{
    begin(w);
    struct store_collection a = a_collection(w, "a"), b = a_collection(w, "b"), c = a_collection(w, "c");
    add_both(w, &a, "car wash");
    add(w, &b, "car without vectors");
    add(w, &c, "car of another model");
    ok(w, DO(w, collection_set_embedder, &c.id, STR("other"), DIM));
    struct retrieve_query q = {.query = STR("car"), .top_k = 9};
    struct retrieve_result r = search(w, &q);
    same(w, r.n, 3);
    same_str(w, r.hit[0].chunk.text, "car wash");
    same(w, r.degraded, RETRIEVE_NO_VECTORS);
    q.collections = &a.id;
    q.n_collections = 1;
    same(w, search(w, &q).degraded, 0);
    q.mode = RETRIEVE_vector;
    same(w, search(w, &q).n, 1);
    add(w, &a, "car that the outbox has to put"); /* nothing is said to be complete until then */
    r = search(w, &q);
    same(w, r.n, 1);
    same(w, r.degraded, RETRIEVE_NO_VECTORS);
    q.collections = &c.id;
    fails(w, ERR_VALIDATION, retrieve(&w->b, &w->a, &q, &r, &w->e));
    must(w, strstr(w->e.msg, "reindex"));
    struct store_collection empty = a_collection(w, "empty");
    q.collections = &empty.id;
    same(w, search(w, &q).n, 0);
    end(w);
}

static void without_an_embedder_answers_are_lexical(struct world *w)
{
    begin(w);
    struct store_collection c = a_collection(w, "c");
    add_both(w, &c, "car wash");
    add_both(w, &c, "automobile repair");
    struct retrieve_query q = {.query = STR("car"), .top_k = 9};
    struct retrieve_result r;
    fake.failure = ERR_NOT_READY;
    r = search(w, &q);
    FINDS(w, &r, "car wash");
    same(w, r.degraded, RETRIEVE_NO_EMBEDDER);
    q.weights.vector = 1; /* words have none, but there is nothing else */
    r = search(w, &q);
    FINDS(w, &r, "car wash");
    same(w, r.degraded, RETRIEVE_NO_EMBEDDER);
    q.weights.vector = 0;
    q.mode = RETRIEVE_vector;
    fails(w, ERR_NOT_READY, retrieve(&w->b, &w->a, &q, &r, &w->e));
    q.mode = RETRIEVE_hybrid;
    fake.failure = ERR_NONE;
    fake.hangs = true;
    w->cfg->search_vector_timeout = 20;
    r = search(w, &q);
    FINDS(w, &r, "car wash");
    same(w, r.degraded, RETRIEVE_NO_EMBEDDER);
    same(w, fiber_check(), 0);
    fake.hangs = false;
    w->cfg->search_vector_timeout = 60000;
    fake.dim = DIM + 1; /* the model has changed behind its name */
    r = search(w, &q);
    FINDS(w, &r, "car wash");
    same(w, r.degraded, RETRIEVE_NO_VECTORS);
    w->b.embedder = NULL;
    r = search(w, &q);
    FINDS(w, &r, "car wash");
    must(w, r.hit[0].score == r.hit[0].bm25);
    q.mode = RETRIEVE_vector;
    fails(w, ERR_VALIDATION, retrieve(&w->b, &w->a, &q, &r, &w->e));
    must(w, strstr(w->e.msg, "embedding.url"));
    end(w);
}

static void pages_and_groups_are_of_one_list(struct world *w)
{
    begin(w);
    struct store_collection c = a_collection(w, "c");
    for (int i = 0; i < 30; i++)
        add_both(w, &c, arena_printf(&w->a, "%s number%d %s", i % 3 ? "car" : "vehicle", i, i % 2 ? "ship" : "boat").p);
    struct retrieve_query q = {.query = STR("car boat"), .top_k = 100};
    struct retrieve_result whole = search(w, &q);
    same(w, whole.n, 30);
    q.top_k = 7;
    for (q.offset = 0; q.offset < 35; q.offset += 7) {
        struct retrieve_result r = search(w, &q);
        same(w, r.n, q.offset > 28 ? 0 : q.offset == 28 ? 2 : 7);
        for (size_t i = 0; i < r.n; i++)
            same(w, r.hit[i].chunk.no, whole.hit[(size_t)q.offset + i].chunk.no);
    }
    q = (struct retrieve_query){.query = STR("car boat"), .top_k = 100, .group_by_document = true};
    same(w, search(w, &q).n, 30);          /* each has one chunk */
    w->cfg->search_vector_candidates = 10; /* what each arm contributes, unless more are asked for */
    q = (struct retrieve_query){.query = STR("car boat"), .top_k = 10};
    struct retrieve_result r = search(w, &q);
    same(w, r.n, 10);
    for (size_t i = 0; i < r.n; i++)
        must(w, r.hit[i].lexical <= 10 && r.hit[i].vector <= 10);
    end(w);
}

/* An index is asked for 1,000 at most. A list that ends there does not pretend to be whole. */
static void an_end_that_is_none_is_told(struct world *w)
{
    enum { CHUNKS = 1001 };
    begin(w);
    struct store_collection c = a_collection(w, "c");
    struct store_document d = add_both(w, &c, "car");
    struct retrieve_query q = {.mode = RETRIEVE_vector, .query = STR("car"), .top_k = 5};
    must(w, !search(w, &q).truncated);
    struct vector_space space = space_of(w, &c);
    struct uuid ids[CHUNKS];
    float *v = arena_zalloc(&w->a, CHUNKS * DIM * sizeof *v);
    for (int i = 0; i < CHUNKS; i++) {
        ids[i] = store_chunk_id(&d.id, 1, i);
        v[i * DIM + 1] = 1;
    }
    struct vector_document many = {
        .no = d.no, .id = d.id, .content_version = 1, .metadata = STR("{}"), .tags = STR("[]"), .chunk = ids, .v = v};
    many.n = CHUNKS;
    ok(w, VECTORS_CALL(w->b.vectors, put, &space, &many, &w->e));
    q.offset = 998;
    struct retrieve_result r = search(w, &q);
    same(w, r.total, 1000);
    must(w, r.truncated);
    q.mode = RETRIEVE_hybrid;
    must(w, search(w, &q).truncated);
    end(w);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(words_and_meanings_are_fused),
        TEST(ghosts_are_dropped),
        TEST(filters_hold_for_both),
        TEST(a_lost_index_is_noticed),
        TEST(collections_of_other_models_are_searched_by_words),
        TEST(without_an_embedder_answers_are_lexical),
        TEST(pages_and_groups_are_of_one_list),
        TEST(an_end_that_is_none_is_told),
    };
    return contract_main("hybrid", tests, sizeof tests / sizeof *tests, argc, argv);
}
