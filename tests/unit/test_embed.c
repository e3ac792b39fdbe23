/* Embedding through a server that speaks OpenAI's API, and misbehaves (worker/embed). */
#include "tests/unit/model_server.h"
#include "common/scoreboard.h"
#include "worker/embed/embed.h"
#include "worker/embed/embed_wire.h"
#include <math.h>

enum { DIM = 32 };
static struct embedder *model;
static float *v;
static int dim;

static void open_model(void)
{
    assert_int_equal(embed_open(cfg, http, &model, &e), 0);
    assert_non_null(model);
}

static void close_model(void)
{
    embed_close(model);
}

static suspends int embed(enum embed_purpose purpose, const struct str *text, size_t n)
{
    return model->ops->embed(model, &arena, purpose, text, n, &v, &dim, &e);
}

static suspends int embed_one(const char *text)
{
    struct str s = str_of(text);
    return embed(EMBED_DOCUMENT, &s, 1);
}

static double dot(int i, int k)
{
    double sum = 0;
    for (int x = 0; x < dim; x++)
        sum += (double)v[i * dim + x] * v[k * dim + x];
    return sum;
}

static const struct str three[] = {
    {"the kettle boils water", 22}, {"parliament passed a law", 23}, {"water in a kettle", 17}};

/* Also: the server lists them in another order, and not of length 1. */
static suspends void vectors_of_similar_texts_are_near(void)
{
    assert_int_equal(embed(EMBED_DOCUMENT, three, 3), 0);
    assert_int_equal(dim, DIM);
    for (int i = 0; i < 3; i++)
        assert_true(fabs(dot(i, i) - 1) < 1e-5);
    assert_true(dot(0, 2) > dot(0, 1) + 0.2);
    assert_int_equal(seen_int("requests"), 1);
    assert_int_equal(model->ops->state(model, &e), 0);
}
MODEL_TEST(vectors_of_similar_texts_are_near)

static suspends void floats_are_as_good_as_base64(void)
{
    vectors_of_similar_texts_are_near();
    assert_string_equal(json_string_value(json_object_get(seen("last"), "encoding_format")), "float");
}
MODEL_TEST(floats_are_as_good_as_base64, "embedding.encoding=float")

static suspends void what_is_sent(void)
{
    struct str s = STR("tea");
    assert_int_equal(embed(EMBED_QUERY, &s, 1), 0);
    assert_int_equal(dim, 7);
    json_t *last = seen("last");
    assert_string_equal(json_string_value(json_object_get(last, "model")), "m1");
    assert_string_equal(json_string_value(json_array_get(json_object_get(last, "input"), 0)), "q: tea");
    assert_int_equal(json_integer_value(json_object_get(last, "dimensions")), 7);
    assert_int_equal(embed_one("tea"), 0);
    assert_string_equal(json_string_value(json_array_get(json_object_get(seen("last"), "input"), 0)), "d: tea");
    assert_true(str_eqz(model->model, "m1 (document_prefix \"d: \")")); /* without it other vectors would come */
    assert_int_equal(model->dim, 7);
}
MODEL_TEST(what_is_sent, "embedding.model=m1", "embedding.dimensions=7",
           "embedding.query_prefix=q: ", "embedding.document_prefix=d: ")

static suspends void queries_and_lengths_are_no_part_of_the_identity(void)
{
    assert_true(str_eqz(model->model, "m1"));
    assert_int_equal(model->dim, 0);
}
MODEL_TEST(queries_and_lengths_are_no_part_of_the_identity, "embedding.model=m1", "embedding.dimensions=7",
           "embedding.query_prefix=q: ", "embedding.max_input_tokens=16")

static suspends void batches_are_bounded(void)
{
    struct str text[10];
    for (int i = 0; i < 10; i++)
        text[i] = arena_printf(&arena, "word%d", i);
    order("{\"delay\": 0.05}");
    uint64_t before = slot_self->stat[STAT_embedding_texts_total];
    assert_int_equal(embed(EMBED_DOCUMENT, text, 10), 0);
    assert_int_equal(slot_self->stat[STAT_embedding_texts_total] - before, 10);
    assert_int_equal(seen_int("largest_batch"), 3);
    assert_int_equal(seen_int("embeddings"), 4);
    assert_true(seen_int("most_at_once") <= 2);
    float *all = v;
    for (int i = 0; i < 10; i++) { /* each its own */
        assert_int_equal(embed_one(text[i].p), 0);
        assert_memory_equal(all + i * DIM, v, DIM * sizeof *v);
    }
}
MODEL_TEST(batches_are_bounded, "embedding.batch_size=3", "embedding.concurrency=2")

static suspends void tokens_bound_batches_too(void)
{
    struct str text[4] = {STR("forty bytes are ten tokens, so they say"),
                          STR("of two such texts none fits with another"),
                          STR("into a request of at most sixteen tokens"), STR("")};
    assert_int_equal(embed(EMBED_DOCUMENT, text, 4), 0);
    assert_int_equal(seen_int("largest_batch"), 2); /* the empty one fits beside another */
    assert_int_equal(seen_int("embeddings"), 3);
}
MODEL_TEST(tokens_bound_batches_too, "embedding.batch_tokens=16")

/* ---- faults ---- */

static suspends void one_fault_is_not_noticed(void)
{
    static const char *const faults[] = {
        "{\"kind\": \"status\", \"status\": 500}",
        "{\"kind\": \"status\", \"status\": 429, \"retry_after\": 0}",
        "{\"kind\": \"status\", \"status\": 503, \"retry_after\": 1}",
        "{\"kind\": \"cut\"}",
        "{\"kind\": \"cut_body\"}",
        "{\"kind\": \"json\"}",
        "{\"kind\": \"dimension\"}",
        "{\"kind\": \"missing\"}",
        "{\"kind\": \"nan\"}",
    };
    assert_int_equal(embed(EMBED_DOCUMENT, three, 3), 0);
    float *want = v;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        int before = seen_int("embeddings");
        order(arena_printf(&arena, "{\"faults\": [%s]}", faults[i]).p);
        assert_int_equal(embed(EMBED_DOCUMENT, three, 3), 0);
        assert_memory_equal(v, want, 3 * DIM * sizeof *v);
        assert_int_equal(seen_int("embeddings"), before + 2);
    }
    assert_int_equal(model->ops->state(model, &e), 0);
}
MODEL_TEST(one_fault_is_not_noticed)

static suspends void slow_ones_are_asked_again(void)
{
    order("{\"faults\": [{\"kind\": \"hang\"}]}");
    assert_int_equal(embed_one("a"), 0);
    assert_true(seen_int("embeddings") >= 2);
}
MODEL_TEST(slow_ones_are_asked_again, "embedding.timeout=300ms", "embedding.retries=20")

static suspends void faults_that_stay_are_told(void)
{
    order("{\"faults\": [{\"kind\": \"status\", \"status\": 500, \"times\": 3}]}");
    fails_with(ERR_NOT_READY, embed_one("a"));
    assert_int_equal(seen_int("embeddings"), 3);
    assert_int_equal(model->ops->state(model, &e), -1);
    assert_non_null(strstr(e.log, "status 500"));
    order("{\"faults\": [{\"kind\": \"json\", \"times\": 3}]}");
    fails_with(ERR_PROVIDER, embed_one("a"));
    order("{\"faults\": [{\"kind\": \"status\", \"status\": 400}]}");
    fails_with(ERR_PROVIDER, embed_one("a"));
    assert_int_equal(seen_int("embeddings"), 7); /* refused for good: once */
    assert_int_equal(embed_one("a"), 0);
    assert_int_equal(model->ops->state(model, &e), 0);
    order("{\"key\": \"another\"}");
    fails_with(ERR_NOT_READY, embed_one("a"));
    assert_non_null(strstr(e.msg, "API key"));
    assert_int_equal(seen_int("embeddings"), 9);
}
MODEL_TEST(faults_that_stay_are_told, "embedding.retries=2", "embedding.breaker_failures=100")

static suspends void the_breaker_opens(void)
{
    order("{\"faults\": [{\"kind\": \"status\", \"status\": 500, \"times\": 2}]}");
    fails_with(ERR_NOT_READY, embed_one("a"));
    fails_with(ERR_NOT_READY, embed_one("a"));
    fails_with(ERR_NOT_READY, embed_one("a"));
    assert_true(e.retry_after_ms > 0);
    assert_int_equal(seen_int("embeddings"), 2); /* the third call did not reach it */
}
MODEL_TEST(the_breaker_opens, "embedding.retries=0", "embedding.breaker_failures=2", "embedding.breaker_pause=1h")

static suspends void the_breaker_closes(void)
{
    order("{\"faults\": [{\"kind\": \"status\", \"status\": 500, \"times\": 3}]}");
    while (embed_one("a"))
        assert_int_equal(fiber_sleep(1 * MS), 0);
    assert_int_equal(seen_int("embeddings"), 4);
    assert_int_equal(model->ops->state(model, &e), 0);
}
MODEL_TEST(the_breaker_closes, "embedding.retries=0", "embedding.breaker_failures=2", "embedding.breaker_pause=10ms")

static suspends void a_long_retry_after_is_the_callers(void)
{
    order("{\"faults\": [{\"kind\": \"status\", \"status\": 429, \"retry_after\": 100}]}");
    fails_with(ERR_NOT_READY, embed_one("a"));
    assert_in_range(e.retry_after_ms, 60000, 100000);
    fails_with(ERR_NOT_READY, embed_one("a"));
    assert_in_range(e.retry_after_ms, 60000, 100000);
    assert_int_equal(seen_int("embeddings"), 1);
}
MODEL_TEST(a_long_retry_after_is_the_callers)

static suspends void queries_are_impatient(void)
{
    struct str s = STR("tea");
    order("{\"faults\": [{\"kind\": \"hang\"}]}");
    fails_with(ERR_NOT_READY, embed(EMBED_QUERY, &s, 1));
    order("{\"faults\": [{\"kind\": \"hang\"}]}");
    fiber_set_deadline(fiber_self(), clock_ns() + 50 * MS);
    fails_with(ERR_DEADLINE, embed(EMBED_DOCUMENT, &s, 1));
    fiber_set_deadline(fiber_self(), 0);
}
MODEL_TEST(queries_are_impatient, "embedding.query_timeout=100ms")

static bool gone;
static suspends void embeds_for_ever(void *arg)
{
    struct arena a = {0};
    struct err why = {0};
    float *out;
    int d;
    assert_int_equal(model->ops->embed(model, &a, EMBED_DOCUMENT, arg, 3, &out, &d, &why), -1);
    assert_int_equal(why.code, ERR_CANCELED);
    arena_fini(&a);
    gone = true;
}

static suspends void calls_can_be_canceled(void)
{
    order("{\"faults\": [{\"kind\": \"hang\", \"times\": 3}]}");
    gone = false;
    struct fiber *f = fiber_spawn("embeds", embeds_for_ever, (void *)(uintptr_t)three);
    while (seen_int("embeddings") < 2)
        assert_int_equal(fiber_sleep(1 * MS), 0);
    fiber_cancel(f);
    while (!gone)
        assert_int_equal(fiber_sleep(1 * MS), 0);
    order("{\"faults\": []}");
    assert_int_equal(model->ops->state(model, &e), 0); /* nothing was learnt about the server */
}
MODEL_TEST(calls_can_be_canceled, "embedding.batch_size=1", "embedding.concurrency=2")

/* ---- long texts ---- */

static struct str many_words(int n)
{
    struct buf b = {0};
    for (int i = 0; i < n; i++)
        buf_printf(&b, "word%d ", i % 10);
    struct str s = arena_dup(&arena, buf_view(&b));
    buf_fini(&b);
    return s;
}

/* Of repeated words the direction stays, however it is cut. */
static suspends void long_texts_are_averaged(void)
{
    struct str text[] = {many_words(500), many_words(10), STR("other")};
    order("{\"max_tokens\": 60}");
    assert_int_equal(embed(EMBED_DOCUMENT, text, 3), 0);
    assert_true(dot(0, 1) > 0.95);
    assert_true(dot(0, 2) < 0.6);
    assert_true(fabs(dot(0, 0) - 1) < 1e-5);
    assert_int_equal(model->ops->state(model, &e), 0);
    order("{\"max_tokens\": 0}");
    fails_with(ERR_PROVIDER, embed_one("short"));
}
MODEL_TEST(long_texts_are_averaged)

static suspends void texts_are_cut_beforehand(void)
{
    struct str text[] = {many_words(500), STR("\xe6\xbc\xa2\xe5\xad\x97")};
    order("{\"max_tokens\": 60}");
    assert_int_equal(embed(EMBED_DOCUMENT, text, 2), 0);
    assert_int_equal(seen_int("embeddings"), 1); /* nothing was refused */
    assert_true(seen_int("inputs") > 20);
}
MODEL_TEST(texts_are_cut_beforehand, "embedding.max_input_tokens=32", "embedding.batch_size=200")

/* ---- without a server ---- */

static void test_nonsense_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "null",
        "{\"data\": 1}",
        "{\"data\": [1, 2]}",
        "{\"data\": [{\"embedding\": [1]}]}",
        "{\"data\": [{\"embedding\": [1]}, {\"embedding\": []}]}",
        "{\"data\": [{\"embedding\": [1]}, {\"embedding\": [1, 2]}]}",
        "{\"data\": [{\"embedding\": [1]}, {\"embedding\": [\"1\"]}]}",
        "{\"data\": [{\"embedding\": [1]}, {\"embedding\": [0]}]}",
        "{\"data\": [{\"embedding\": [1]}, {\"embedding\": [1], \"index\": 0}]}",
        "{\"data\": [{\"embedding\": [1], \"index\": 2}, {\"embedding\": [1]}]}",
        "{\"data\": [{\"embedding\": \"AAAA\"}, {\"embedding\": \"AAAA\"}]}",
        "{\"data\": [{\"embedding\": \"AACAfw==\"}, {\"embedding\": \"AACAPw==\"}]}", /* infinity */
        "{\"data\": [{\"embedding\": \"!!!!!!==\"}, {\"embedding\": \"AACAPw==\"}]}",
    };
    int64_t tokens;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        fails_with(ERR_PROVIDER, embed_wire_read(&arena, str_of(bad[i]), 2, &v, &dim, &tokens, &e));
    assert_int_equal(
        embed_wire_read(&arena, STR("{\"data\": [{\"embedding\": \"AACAPw==\"}]}"), 1, &v, &dim, &tokens, &e), 0);
    assert_int_equal(dim, 1);
    assert_true(v[0] == 1.0f);
    arena_fini(&arena);
}

static void test_refusals_for_length_are_known(void **state)
{
    (void)state;
    assert_true(embed_wire_too_long(413, STR("")));
    assert_true(embed_wire_too_long(400, STR("This model's maximum context length is 8192 tokens")));
    assert_true(embed_wire_too_long(500, STR("the request exceeds the available context size")));
    assert_false(embed_wire_too_long(400, STR("unknown model")));
    assert_true(embed_wire_too_long(422, STR("inputs are too long")));
    assert_false(embed_wire_too_long(200, STR("too long")));
    assert_false(embed_wire_too_long(429, STR("Too many tokens, please wait before trying again.")));
    assert_false(embed_wire_too_long(500, STR("Application took too long to respond")));
    assert_false(embed_wire_too_long(503, STR("the model is too large to be loaded")));
}

static void test_none_is_none(void **state)
{
    char *env[] = {"OPENAI_API_KEY=secret", NULL};
    (void)state;
    assert_int_equal(config_load(&(struct config_args){.environ = env}, &cfg, &e), 0);
    assert_string_equal(cfg->embedding_api_key, "secret");
    assert_string_equal(cfg->llm_api_key, "secret");
    assert_int_equal(embed_open(cfg, NULL, &model, &e), 0);
    assert_null(model);
    config_free(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_vectors_of_similar_texts_are_near),
        TEST(test_floats_are_as_good_as_base64),
        TEST(test_what_is_sent),
        TEST(test_queries_and_lengths_are_no_part_of_the_identity),
        TEST(test_batches_are_bounded),
        TEST(test_tokens_bound_batches_too),
        TEST(test_one_fault_is_not_noticed),
        TEST(test_slow_ones_are_asked_again),
        TEST(test_faults_that_stay_are_told),
        TEST(test_the_breaker_opens),
        TEST(test_the_breaker_closes),
        TEST(test_a_long_retry_after_is_the_callers),
        TEST(test_queries_are_impatient),
        TEST(test_calls_can_be_canceled),
        TEST(test_long_texts_are_averaged),
        TEST(test_texts_are_cut_beforehand),
        TEST(test_nonsense_is_refused),
        TEST(test_refusals_for_length_are_known),
        TEST(test_none_is_none),
    };
    signal(SIGPIPE, SIG_IGN);
    test_open = open_model;
    test_close = close_model;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
