/* Answers from the cache: the same as without it, never stale after a write, never degraded. */
#include "tests/contract/meanings.h"
#include "worker/cache/cache.h"
#include "worker/core/recall.h"

static void start(struct world *w)
{
    begin(w);
    static struct config cfg;
    cfg = *w->cfg;
    cfg.cache_url = "memory:";
    ok(w, cache_open(&cfg, &w->b.cache, &w->e));
}

static void stop(struct world *w)
{
    cache_close(w->b.cache);
    w->b.cache = NULL;
    end(w);
}

static void render(void *arg, struct buf *out, const struct retrieve_result *r)
{
    ++*(int *)arg;
    for (size_t i = 0; i < r->n; i++)
        buf_printf(out, STR_FMT "(" STR_FMT ") ", STR_ARG(r->hit[i].chunk.text), STR_ARG(r->hit[i].document.title));
    buf_printf(out, "degraded %u", r->degraded);
}

/* The text; *hit as recall_search() said, which must agree with whether it was made. */
static struct str ask(struct world *w, const struct retrieve_query *q, bool *hit)
{
    struct buf out = {0};
    int made = 0;
    ok(w, recall_search(&w->b, &w->a, q, render, &made, &out, hit, &w->e));
    must(w, made == !*hit);
    struct str text = arena_dup(&w->a, buf_view(&out));
    buf_fini(&out);
    return text;
}

static void gives(struct world *w, const struct retrieve_query *q, bool hit, const char *text)
{
    bool was;
    same_str(w, ask(w, q, &was), text);
    same(w, was, hit);
}

static void nothing_stale_is_served_after_a_write(struct world *w)
{
    start(w);
    struct store_collection c = a_collection(w, "c"), other = a_collection(w, "other");
    struct store_document d = add_both(w, &c, "car wash");
    struct retrieve_query q = {.query = STR("car"), .collections = &c.id, .n_collections = 1, .top_k = 5}, all = q;
    all.n_collections = 0;
    gives(w, &q, false, "car wash() degraded 0");
    gives(w, &q, true, "car wash() degraded 0");
    gives(w, &all, false, "car wash() degraded 0");
    gives(w, &all, true, "car wash() degraded 0");
    struct store_document_patch patch = {.set_title = true, .title = STR("T")};
    ok(w, GET(w, document_patch, &d.id, &patch, 0, &d)); /* a change of what is shown */
    gives(w, &q, false, "car wash(T) degraded 0");
    gives(w, &q, true, "car wash(T) degraded 0");
    struct store_document second = add_both(w, &c, "car park"); /* one document more */
    bool hit;
    struct str text = ask(w, &q, &hit);
    must(w, !hit && memmem(text.p, text.n, "car park", 8));
    ok(w, DO(w, document_delete, &second.id, 0));
    gives(w, &q, false, "car wash(T) degraded 0");
    ask(w, &all, &hit);
    gives(w, &all, true, "car wash(T) degraded 0");
    add_both(w, &other, "boat"); /* another collection: noticed only where it is searched */
    gives(w, &q, true, "car wash(T) degraded 0");
    ask(w, &all, &hit);
    must(w, !hit);
    stop(w);
}

static void other_queries_have_other_answers(struct world *w)
{
    start(w);
    struct store_collection c = a_collection(w, "c");
    add_both(w, &c, "car wash");
    add_both(w, &c, "car park");
    bool hit;
    struct retrieve_query q = {.query = STR("car"), .top_k = 5};
    ask(w, &q, &hit);
    const struct retrieve_query others[] = {
        {.query = STR("car "), .top_k = 5},
        {.query = STR("car"), .top_k = 1},
        {.query = STR("car"), .top_k = 5, .offset = 1},
        {.query = STR("car"), .top_k = 5, .mode = RETRIEVE_lexical},
        {.query = STR("car"), .top_k = 5, .min_score = 0.1},
        {.query = STR("car"), .top_k = 5, .weights = {1, 2}},
        {.query = STR("car"), .top_k = 5, .highlight = true},
        {.query = STR("car"), .top_k = 5, .before = 1},
        {.query = STR("car"), .top_k = 5, .group_by_document = true},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        ask(w, &others[i], &hit);
        must(w, !hit);
        ask(w, &others[i], &hit);
        must(w, hit);
    }
    const char *const filters[] = {"{\"type\":\"gt\",\"key\":\"n\",\"value\":1}",
                                   "{\"type\":\"gt\",\"key\":\"n\",\"value\":2}",
                                   "{\"type\":\"ne\",\"key\":\"n\",\"value\":\"1\"}",
                                   "{\"type\":\"and\",\"filters\":[{\"type\":\"gt\",\"key\":\"n\",\"value\":1}]}"};
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        json_t *json;
        struct filter *filter;
        ok(w, json_parse(&w->a, str_of(filters[i]), 8, &json, &w->e));
        ok(w, filter_parse(&w->a, json, "/filter", &filter, &w->e));
        q.filter = filter;
        ask(w, &q, &hit);
        must(w, !hit);
    }
    q.filter = NULL;
    struct config cfg = *w->b.cfg;
    w->b.cfg = &cfg;
    cfg.embedding_query_prefix = "query: ";
    ask(w, &q, &hit);
    must(w, !hit);
    cfg.vectors_url = "http://127.0.0.1:1";
    ask(w, &q, &hit);
    must(w, !hit);
    ask(w, &q, &hit);
    must(w, hit);
    w->b.cfg = w->cfg;
    stop(w);
}

static void degraded_answers_are_not_kept(struct world *w)
{
    start(w);
    struct store_collection c = a_collection(w, "c");
    add_both(w, &c, "car wash");
    struct retrieve_query q = {.query = STR("car"), .top_k = 5};
    fake.failure = ERR_NOT_READY;
    gives(w, &q, false, "car wash() degraded 2");
    gives(w, &q, false, "car wash() degraded 2");
    fake.failure = ERR_NONE;
    gives(w, &q, false, "car wash() degraded 0");
    gives(w, &q, true, "car wash() degraded 0");
    w->b.embedder = NULL; /* what a server without one has to say is kept */
    gives(w, &q, false, "car wash() degraded 1");
    gives(w, &q, true, "car wash() degraded 1");
    stop(w);
}

static void vectors_of_queries_are_kept(struct world *w)
{
    start(w);
    struct store_collection c = a_collection(w, "c");
    add_both(w, &c, "car wash");
    struct retrieve_query q = {.mode = RETRIEVE_vector, .query = STR("automobile"), .top_k = 5};
    struct retrieve_result r;
    int calls = fake.calls;
    ok(w, retrieve(&w->b, &w->a, &q, &r, &w->e));
    ok(w, retrieve(&w->b, &w->a, &q, &r, &w->e));
    same(w, fake.calls, calls + 1);
    same(w, r.n, 1);
    fake.base.model = STR("m2"); /* another model has other vectors */
    const float *v;
    int dim;
    ok(w, recall_vector(&w->b, &w->a, q.query, &v, &dim, &w->e));
    same(w, fake.calls, calls + 2);
    same(w, dim, DIM);
    stop(w);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(nothing_stale_is_served_after_a_write),
        TEST(other_queries_have_other_answers),
        TEST(degraded_answers_are_not_kept),
        TEST(vectors_of_queries_are_kept),
    };
    return contract_main("recall", tests, sizeof tests / sizeof *tests, argc, argv);
}
