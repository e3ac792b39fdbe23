#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include "worker/io/json.h"

static struct arena arena;

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void assert_buf(struct buf *b, const char *want)
{
    buf_ch(b, 0);
    assert_string_equal(b->p, want);
    buf_fini(b);
}

static void round_trips(void **state)
{
    const char *texts[] = {
        "null",
        "true",
        "-17",
        "0.1",
        "5.0",
        "1e+300",
        "\"\"",
        "[]",
        "{}",
        "{\"z\":1,\"a\":[1,2.5,\"x\",null,{\"k\":false}]}",
        "\"\\u0001\\b\\t\\n\\f\\r\\\"\\\\/\x7f\"",
        "\"\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80\"",
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *v;
        struct err e = {0};
        if (json_parse(&arena, str_of(texts[i]), 64, &v, &e))
            fail_msg("%s: %s", texts[i], e.msg);
        assert_string_equal(json_text(&arena, v).p, texts[i]);
    }
}

static void refuses(const char *text, int depth, const char *want)
{
    json_t *v = NULL;
    struct err e = {0};
    assert_int_equal(json_parse(&arena, str_of(text), depth, &v, &e), -1);
    assert_int_equal(e.code, ERR_BAD_REQUEST);
    assert_null(v);
    if (!strstr(e.msg, want))
        fail_msg("%s: '%s' lacks '%s'", text, e.msg, want);
}

static void malformed_texts_are_named(void **state)
{
    (void)state;
    refuses("", 64, "found nothing");
    refuses("  ", 64, "found nothing");
    refuses("{\"a\":1,\n \"a\":2}", 64, "line 2, column 4: duplicate object key near '\"a\"'");
    refuses("{\"a\":}", 64, "line 1, column 6");
    refuses("{} x", 64, "end of file expected");
    refuses("{'a':1}", 64, "line 1");
    refuses("[1,]", 64, "line 1, column 4");
    refuses("\"a", 64, "line 1");
    refuses("\"\\u0000\"", 64, "column 8: \\u0000 is not allowed");
    refuses("{\"\\u0000\":1}", 64, "\\u0000");
    refuses("\"\\ud800\"", 64, "invalid Unicode");
    refuses("\"\xff\"", 64, "0xff");
    refuses("\"\x01\"", 64, "control character");
    refuses("1e999", 64, "overflow");
    refuses("99999999999999999999", 64, "too big");
    refuses("NaN", 64, "line 1");
}

static void a_byte_order_mark_is_skipped(void **state)
{
    (void)state;
    json_t *v;
    struct err e;
    assert_int_equal(json_parse(&arena, STR("\xef\xbb\xbf[1]"), 64, &v, &e), 0);
    refuses("\xef\xbb\xbf", 64, "found nothing");
    refuses("[\xef\xbb\xbf]", 64, "line 1, column 2");
}

static void depth_is_bounded_before_parsing(void **state)
{
    (void)state;
    json_t *v;
    struct err e;
    assert_int_equal(json_parse(&arena, STR("[[[1]]]"), 3, &v, &e), 0);
    refuses("[[[[1]]]]", 3, "deeper than 3 levels at line 1, column 4");
    refuses("{\"\xc3\xa9\":\n [[{\"b\":[1]}]]}", 4, "line 2, column 9");
    /* Brackets in strings are no nesting, also behind escaped quotes. */
    assert_int_equal(json_parse(&arena, STR("[\"[[[[{{{{\",\"\\\"[[[[\",\"\\\\\",[]]"), 2, &v, &e), 0);
    size_t n = 1 << 20;
    char *deep = arena_alloc(&arena, n);
    memset(deep, '[', n);
    assert_int_equal(json_parse(&arena, (struct str){deep, n}, 64, &v, &e), -1);
    assert_int_equal(json_parse(&arena, STR("\"\\"), 64, &v, &e), -1);
}

static void objects_only(void **state)
{
    json_t *v;
    struct err e;
    (void)state;
    assert_int_equal(json_parse_object(&arena, STR("[1]"), 64, &v, &e), -1);
    assert_string_equal(e.msg, "Expected a JSON object, found an array");
    assert_int_equal(json_parse_object(&arena, STR(" {\"a\":1} "), 64, &v, &e), 0);
}

struct body {
    struct str name;
    int64_t limit;
    double score;
    bool explain, has_name, has_limit, has_filter;
    json_t *filter, *tags, *any;
};

static int members(const char *text, struct body *b, bool lenient, struct err *e)
{
    const struct json_member table[] = {
        {"name", JSON_STR, .required = true, .min = 1, .max = 4, .out = &b->name, .present = &b->has_name},
        {"limit", JSON_INT64, .min = 1, .max = 100, .out = &b->limit, .present = &b->has_limit},
        {"score", JSON_DOUBLE, .out = &b->score},
        {"explain", JSON_BOOLEAN, .out = &b->explain},
        {"filter", JSON_OBJ, .nullable = true, .out = &b->filter, .present = &b->has_filter},
        {"tags", JSON_ARR, .max = 2, .out = &b->tags},
        {"any/~", JSON_ANY, .out = &b->any},
    };
    json_t *v;
    *b = (struct body){.limit = 7};
    if (json_parse_object(&arena, str_of(text), 64, &v, e))
        fail_msg("%s: %s", text, e->msg);
    return json_members(&arena, v, "/query", table, sizeof table / sizeof *table, lenient, e);
}

static void members_are_taken(void **state)
{
    struct body b;
    struct err e = {0};
    (void)state;
    const char *text =
        "{\"name\":\"abcd\",\"limit\":1e1,\"score\":3,\"explain\":true,\"filter\":{},\"tags\":[1,2],\"any/~\":0}";
    assert_int_equal(members(text, &b, false, &e), 0);
    assert_true(str_eq(b.name, STR("abcd")));
    assert_int_equal(b.limit, 10);
    assert_true(b.score > 2.9 && b.score < 3.1 && b.explain && b.has_name && b.has_limit && b.has_filter);
    assert_non_null(b.filter);
    assert_int_equal(json_array_size(b.tags), 2);
    assert_non_null(b.any);

    assert_int_equal(members("{\"name\":\"a\",\"filter\":null}", &b, false, &e), 0);
    assert_int_equal(b.limit, 7);
    assert_true(b.has_filter && !b.has_limit && !b.filter);
}

static void wrong(const char *text, const char *pointer, const char *msg)
{
    struct body b;
    struct err e = {0};
    assert_int_equal(members(text, &b, false, &e), -1);
    assert_int_equal(e.code, ERR_VALIDATION);
    assert_string_equal(e.pointer, pointer);
    assert_string_equal(e.msg, msg);
}

static void wrong_members_are_named(void **state)
{
    struct body b;
    struct err e;
    (void)state;
    wrong("{}", "/query/name", "'name' is required");
    wrong("{\"nmae\":\"a\"}", "/query/nmae", "Unknown member 'nmae'; did you mean 'name'?");
    wrong("{\"name\":\"a\",\"whatever\":1}", "/query/whatever", "Unknown member 'whatever'");
    wrong("{\"name\":\"a\",\"a/b~c\":1}", "/query/a~1b~0c", "Unknown member 'a/b~c'");
    wrong("{\"name\":5}", "/query/name", "'name' must be a string, not a number");
    wrong("{\"name\":null}", "/query/name", "'name' must be a string, not null");
    wrong("{\"name\":\"\"}", "/query/name", "'name' must have 1 to 4 bytes");
    wrong("{\"name\":\"abcde\"}", "/query/name", "'name' must have 1 to 4 bytes");
    wrong("{\"name\":\"a\",\"limit\":101}", "/query/limit", "'limit' must be 1 to 100");
    wrong("{\"name\":\"a\",\"limit\":1.5}", "/query/limit", "'limit' must be an integer, not a number");
    wrong("{\"name\":\"a\",\"score\":\"x\"}", "/query/score", "'score' must be a number, not a string");
    wrong("{\"name\":\"a\",\"explain\":1}", "/query/explain", "'explain' must be true or false, not a number");
    wrong("{\"name\":\"a\",\"filter\":[]}", "/query/filter", "'filter' must be an object, not an array");
    wrong("{\"name\":\"a\",\"tags\":[1,2,3]}", "/query/tags", "'tags' must have 0 to 2 elements");
    wrong("{\"name\":\"a\",\"tags\":{}}", "/query/tags", "'tags' must be an array, not an object");
    assert_int_equal(members("{\"name\":\"a\",\"nmae\":1}", &b, true, &e), 0);
}

static void pointers_are_cut_not_overrun(void **state)
{
    char at[12];
    (void)state;
    for (size_t cap = 1; cap <= sizeof at; cap++) {
        memset(at, 'x', sizeof at);
        json_pointer(at, cap, "/abc", "d~/efghij");
        assert_true(strlen(at) < cap);
    }
    json_pointer(at, sizeof at, "", "a~b");
    assert_string_equal(at, "/a~0b");
}

static void escapes(const char *in, size_t n, const char *want)
{
    struct buf b = {0};
    json_escape(&b, (struct str){in, n});
    assert_buf(&b, want);
}

static void strings_are_escaped(void **state)
{
    char text[64], want[80];
    (void)state;
    escapes(NULL, 0, "\"\"");
    escapes("a\0b", 3, "\"a\\u0000b\"");
    escapes("\x1f\x7f", 2, "\"\\u001f\x7f\"");
    escapes("\xff", 1, "\"\xef\xbf\xbd\"");
    escapes("\xc3", 1, "\"\xef\xbf\xbd\"");                                             /* cut short */
    escapes("\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");             /* a surrogate */
    escapes("ab\xe4\xb8\xad\xe4\xb8", 7, "\"ab\xe4\xb8\xad\xef\xbf\xbd\xef\xbf\xbd\""); /* whole, then cut */
    /* One special byte at every offset of the words that are looked at together. */
    for (size_t n = 1; n < 24; n++)
        for (size_t at = 0; at < n; at++) {
            memset(text, 'a', n);
            text[at] = '"';
            snprintf(want, sizeof want, "\"%.*s\\\"%.*s\"", (int)at, text, (int)(n - at - 1), text + at + 1);
            escapes(text, n, want);
        }
}

/* Any bytes become a JSON string that a strict parser takes. */
static void every_pair_of_bytes_parses(void **state)
{
    (void)state;
    for (int i = 1; i < 65536; i++) {
        char text[4] = {'x', (char)(i >> 8), (char)i, 'y'};
        struct buf b = {0};
        struct err e;
        json_t *v;
        if (!text[1] || !text[2])
            continue; /* NUL is escaped, but never parsed */
        json_escape(&b, (struct str){text, sizeof text});
        if (json_parse(&arena, buf_view(&b), 4, &v, &e))
            fail_msg("%04x: %s", i, e.msg);
        buf_fini(&b);
    }
}

static void writers_set_commas(void **state)
{
    struct buf b = {0};
    struct json_out o = json_out(&b);
    struct uuid u;
    (void)state;
    assert_true(uuid_parse(STR("01890a5d-ac96-774b-bcce-b302099a8057"), &u));
    jo_begin(&o, '{');
    jo_member(&o, "a"), jo_i64(&o, INT64_MIN);
    jo_member(&o, "b"), jo_begin(&o, '[');
    jo_bool(&o, true), jo_null(&o), jo_strz(&o, NULL), jo_strz(&o, "x"), jo_str(&o, STR("y"));
    jo_begin(&o, '{'), jo_end(&o, '}'), jo_begin(&o, '['), jo_end(&o, ']');
    jo_f64(&o, 0.1), jo_f64(&o, 3), jo_f64(&o, 1.0 / 3), jo_f64(&o, 1.0 / 0.0);
    jo_end(&o, ']');
    jo_member(&o, "c"), jo_raw(&o, STR("{\"r\": 1}"));
    jo_member(&o, "d"), jo_uuid(&o, &u);
    jo_member(&o, "e"), jo_time(&o, 1000001);
    jo_member(&o, "f"), jo_time(&o, 0);
    jo_end(&o, '}');
    assert_buf(&b,
               "{\"a\":-9223372036854775808,\"b\":[true,null,null,\"x\",\"y\",{},[],0.1,3.0,0.3333333333333333,null],"
               "\"c\":{\"r\": 1},\"d\":\"01890a5d-ac96-774b-bcce-b302099a8057\","
               "\"e\":\"1970-01-01T00:00:01.000001Z\",\"f\":null}");
}

static void a_long_string_is_lifted(void **state)
{
    static const struct {
        const char *text, *value; /* NULL: left in the object */
    } cases[] = {
        {"{\"a\": 1, \"text\" : \"plain\", \"b\": {\"text\": \"inner\"}}", "plain"},
        {"{\"b\": [\"text\", {\"text\": \"inner\"}], \"text\":\"q\\\"\\\\\\n\\u00e9\\ud83d\\ude00\\/\"}", "q\"\\\né😀/"},
        {"{\"text\": \"\"}", NULL},
        {"{\"text\": 5}", NULL},
        {"{\"b\": {\"text\": \"inner\"}}", NULL},
        {"{\"b\": \"text\"}", NULL},
        {"{\"te\\u0078t\": \"x\"}", NULL},
    };
    static const char *const refused[] = {
        "{\"text\": \"x\", \"text\": \"y\"}",
        "{\"text\": \"x\\u0000\"}",
        "{\"text\": \"x\\ud800\"}",
        "{\"text\": \"x\ny\"}",
        "{\"text\": \"\xff\"}",
        "{\"text\": \"x\"",
        "{\"text\": \"x\", }",
        "[\"text\", \"x\"]",
        "\"text\"",
    };
    json_t *object;
    struct str lifted;
    struct err e, plain;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(json_parse_lifting(&arena, str_of(cases[i].text), 8, "text", &object, &lifted, &e), 0);
        if (!cases[i].value) {
            assert_null(lifted.p);
            continue;
        }
        assert_true(str_eqz(lifted, cases[i].value));
        assert_null(json_object_get(object, "text"));
        assert_non_null(json_object_get(object, "b"));
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_int_equal(json_parse_lifting(&arena, str_of(refused[i]), 8, "text", &object, &lifted, &e), -1);
        assert_int_equal(json_parse_object(&arena, str_of(refused[i]), 8, &object, &plain), -1);
        assert_string_equal(e.msg, plain.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(round_trips, teardown),
        cmocka_unit_test_teardown(a_long_string_is_lifted, teardown),
        cmocka_unit_test_teardown(malformed_texts_are_named, teardown),
        cmocka_unit_test_teardown(a_byte_order_mark_is_skipped, teardown),
        cmocka_unit_test_teardown(depth_is_bounded_before_parsing, teardown),
        cmocka_unit_test_teardown(objects_only, teardown),
        cmocka_unit_test_teardown(members_are_taken, teardown),
        cmocka_unit_test_teardown(wrong_members_are_named, teardown),
        cmocka_unit_test(pointers_are_cut_not_overrun),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test_teardown(every_pair_of_bytes_parses, teardown),
        cmocka_unit_test(writers_set_commas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
