/* Answers in words through a server that speaks OpenAI's API, and misbehaves (worker/llm). */
#include "tests/unit/model_server.h"
#include "common/scoreboard.h"
#include "worker/llm/llm.h"
#include "worker/llm/llm_wire.h"

static struct llm *model;
static struct buf said;
static int pieces, enough;
static struct llm_usage usage;

static void open_model(void)
{
    assert_int_equal(llm_open(cfg, http, &model, &e), 0);
    assert_non_null(model);
}

static void close_model(void)
{
    llm_close(model);
    buf_fini(&said);
}

static int on_piece(void *arg, struct str text)
{
    (void)arg;
    buf_str(&said, text);
    return ++pieces == enough;
}

static suspends int chat(int max_tokens)
{
    struct llm_message messages[] = {{"system", STR("Be brief.")}, {"user", STR("How are you?")}};
    struct llm_request q = {.message = messages, .n = 2, .max_tokens = max_tokens};
    said.n = 0;
    pieces = enough = 0;
    return model->ops->chat(model, &arena, &q, on_piece, NULL, &usage, &e);
}

#define says(text) assert_true(str_eqz(buf_view(&said), text))

static suspends void answers_come_in_pieces(void)
{
    uint64_t before = slot_self->stat[STAT_llm_completion_tokens_total];
    assert_int_equal(chat(9), 0);
    says("You asked: How are you?");
    assert_int_equal(usage.prompt_tokens, 5);
    assert_int_equal(usage.completion_tokens, 5);
    assert_int_equal(slot_self->stat[STAT_llm_completion_tokens_total] - before, 5);
    json_t *last = seen("last");
    assert_string_equal(json_string_value(json_object_get(last, "model")), "m2");
    assert_int_equal(json_integer_value(json_object_get(last, "max_tokens")), 9);
    assert_true(json_real_value(json_object_get(last, "temperature")) == 0.5);
    assert_int_equal(json_array_size(json_object_get(last, "messages")), 2);
}
MODEL_TEST(answers_come_in_pieces, "llm.model=m2", "llm.temperature=0.5")

static suspends void parameters_can_be_left_out(void)
{
    assert_int_equal(chat(0), 0);
    json_t *last = seen("last");
    assert_null(json_object_get(last, "temperature"));
    assert_null(json_object_get(last, "max_tokens"));
    assert_int_equal(json_integer_value(json_object_get(last, "max_completion_tokens")), 77);
}
MODEL_TEST(parameters_can_be_left_out, "llm.temperature=-1", "llm.limit_parameter=max_completion_tokens",
           "llm.max_tokens=77")

/* What goes wrong before the first piece is tried again, and never after. */
static suspends void faults(void)
{
    static const char *const passing[] = {"{\"kind\": \"status\", \"status\": 500}", "{\"kind\": \"cut\"}",
                                          "{\"kind\": \"status\", \"status\": 429, \"retry_after\": 0}"};
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) {
        int before = seen_int("chat");
        order(arena_printf(&arena, "{\"faults\": [%s]}", passing[i]).p);
        assert_int_equal(chat(0), 0);
        says("You asked: How are you?");
        assert_int_equal(seen_int("chat"), before + 2);
    }
    order("{\"faults\": [{\"kind\": \"cut_body\"}]}");
    fails_with(ERR_PROVIDER, chat(0));
    assert_true(said.n > 0);
    assert_int_equal(model->ops->state(model, &e), -1);
    order("{\"faults\": [{\"kind\": \"json\"}]}");
    fails_with(ERR_PROVIDER, chat(0));
    order("{\"faults\": [{\"kind\": \"status\", \"status\": 400}]}");
    fails_with(ERR_PROVIDER, chat(0));
    assert_non_null(strstr(e.log, "ordered by the test"));
    order("{\"faults\": [{\"kind\": \"status\", \"status\": 500, \"times\": 3}]}");
    fails_with(ERR_NOT_READY, chat(0));
    order("{\"faults\": [{\"kind\": \"hang\"}]}");
    fiber_set_deadline(fiber_self(), clock_ns() + 50 * MS);
    fails_with(ERR_DEADLINE, chat(0));
    fiber_set_deadline(fiber_self(), 0);
    assert_int_equal(chat(0), 0);
    assert_int_equal(model->ops->state(model, &e), 0);
}
MODEL_TEST(faults, "llm.retries=2")

static suspends void readers_may_go(void)
{
    struct llm_message message = {"user", STR("one two three four five six seven eight nine ten")};
    struct llm_request q = {.message = &message, .n = 1};
    pieces = 0;
    enough = 1;
    fails_with(ERR_CANCELED, model->ops->chat(model, &arena, &q, on_piece, NULL, &usage, &e));
    assert_int_equal(pieces, 1);
    assert_int_equal(model->ops->state(model, &e), 0);
}
MODEL_TEST(readers_may_go)

/* ---- without a server ---- */

/* The bytes arrive in pieces of every length, as they may. */
static int read_all(const char *type, const char *text)
{
    int rc = 0;
    for (size_t size = 1; size < 40; size += 13) {
        struct llm_reader r;
        struct str rest = str_of(text);
        llm_reader_init(&r, str_of(type));
        for (rc = 0; rc == 0 && rest.n; rest = str_sub(rest, size, SIZE_MAX))
            rc = llm_reader_feed(&r, str_sub(rest, 0, size), &e);
        if (rc == 0)
            rc = llm_reader_end(&r, &e);
        said.n = 0;
        buf_str(&said, buf_view(&r.text));
        usage = r.usage;
        llm_reader_fini(&r);
    }
    return rc;
}

static void test_all_forms_are_read(void **state)
{
    (void)state;
    assert_int_equal(read_all("text/event-stream",
                              ": hello\r\n\r\nevent: x\r\n"
                              "data:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n"
                              "data: {\"choices\":[{\"delta\":{\"content\":null}, \"finish_reason\":\"stop\"}]}\n\n"
                              "data: {\"choices\":[], \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}"),
                     0);
    says("a");
    assert_int_equal(usage.completion_tokens, 4);
    assert_int_equal(
        read_all("application/json; charset=utf-8", "{\"choices\":[{\"message\":{\"content\":\"b\\n\"}}]}\n"), 0);
    says("b\n");
    assert_int_equal(usage.prompt_tokens, -1);
    fails_with(ERR_PROVIDER,
               read_all("text/event-stream", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"));
    fails_with(ERR_PROVIDER, read_all("text/event-stream", "data: {\"error\":{\"message\":\"overloaded\"}}\n\n"));
    assert_non_null(strstr(e.log, "overloaded"));
    fails_with(ERR_PROVIDER, read_all("text/event-stream", "data: {\n\n"));
    fails_with(ERR_PROVIDER, read_all("application/json", "{\"choices\":[]}"));
    fails_with(ERR_PROVIDER, read_all("", ""));
    buf_fini(&said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_answers_come_in_pieces), TEST(test_parameters_can_be_left_out), TEST(test_faults),
        TEST(test_readers_may_go),         TEST(test_all_forms_are_read),
    };
    signal(SIGPIPE, SIG_IGN);
    test_open = open_model;
    test_close = close_model;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
