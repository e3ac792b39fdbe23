#include "tests/unit/cm.h"
#include "worker/store/filter.h"
#include <stdio.h>
#include <stdlib.h>

static struct arena a;
static struct err e;

static int teardown(void **state)
{
    (void)state;
    arena_fini(&a);
    return 0;
}

static json_t *json(const char *text)
{
    json_t *out;
    if (json_parse(&a, str_of(text), 64, &out, &e) < 0)
        fail_msg("%s: %s", text, e.msg);
    return out;
}

static struct filter *good(const char *text)
{
    struct filter *f;
    if (filter_parse(&a, json(text), "/filter", &f, &e) < 0)
        fail_msg("%s: %s %s", text, e.pointer, e.msg);
    return f;
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *pointer, *says;
    } bad[] = {
        {"[]", "/filter", "object"},
        {"null", "/filter", "object"},
        {"{}", "/filter/type", "eq, ne"},
        {"{\"type\": 3}", "/filter/type", "eq, ne"},
        {"{\"type\": \"like\", \"key\": \"k\", \"value\": 1}", "/filter/type", "eq, ne"},
        {"{\"type\": \"EQ\", \"key\": \"k\", \"value\": 1}", "/filter/type", "eq, ne"},
        {"{\"type\": \"eq\", \"value\": 1}", "/filter/key", "string"},
        {"{\"type\": \"eq\", \"key\": 1, \"value\": 1}", "/filter/key", "string"},
        {"{\"type\": \"eq\", \"key\": \"\", \"value\": 1}", "/filter/key", "name"},
        {"{\"type\": \"eq\", \"key\": \".a\", \"value\": 1}", "/filter/key", "name"},
        {"{\"type\": \"eq\", \"key\": \"a..b\", \"value\": 1}", "/filter/key", "name"},
        {"{\"type\": \"eq\", \"key\": \"a.\", \"value\": 1}", "/filter/key", "dot"},
        {"{\"type\": \"eq\", \"key\": \"k\"}", "/filter/value", "Required"},
        {"{\"type\": \"eq\", \"key\": \"k\", \"value\": null}", "/filter/value", "string, a number"},
        {"{\"type\": \"eq\", \"key\": \"k\", \"value\": {}}", "/filter/value", "string, a number"},
        {"{\"type\": \"eq\", \"key\": \"k\", \"value\": [1]}", "/filter/value", "in and nin"},
        {"{\"type\": \"in\", \"key\": \"k\", \"value\": 1}", "/filter/value", "list"},
        {"{\"type\": \"in\", \"key\": \"k\", \"value\": []}", "/filter/value", "list"},
        {"{\"type\": \"in\", \"key\": \"k\", \"value\": [1, null]}", "/filter/value/1", "string, a number"},
        {"{\"type\": \"nin\", \"key\": \"k\", \"value\": [[1]]}", "/filter/value/0", "in and nin"},
        {"{\"type\": \"gt\", \"key\": \"k\", \"value\": true}", "/filter/value", "order"},
        {"{\"type\": \"eq\", \"key\": \"k\", \"value\": 1, \"filters\": []}", "/filter/filters", "Unknown"},
        {"{\"type\": \"and\", \"filters\": [], \"key\": \"k\"}", "/filter/key", "Unknown"},
        {"{\"type\": \"and\"}", "/filter/filters", "at least one"},
        {"{\"type\": \"or\", \"filters\": []}", "/filter/filters", "at least one"},
        {"{\"type\": \"or\", \"filters\": {}}", "/filter/filters", "at least one"},
        {"{\"type\": \"or\", \"filters\": [{\"type\": \"eq\", \"key\": \"k\", \"value\": 1}, 3]}", "/filter/filters/1",
         "object"},
        {"{\"type\": \"or\", \"filters\": [{\"type\": \"lt\", \"key\": \"k\", \"value\": false}]}",
         "/filter/filters/0/value", "order"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct filter *f;
        assert_int_equal(filter_parse(&a, json(bad[i].text), "/filter", &f, &e), -1);
        assert_int_equal(e.code, ERR_VALIDATION);
        if (strcmp(e.pointer, bad[i].pointer) != 0 || !strstr(e.msg, bad[i].says))
            fail_msg("%s: %s %s", bad[i].text, e.pointer, e.msg);
    }
}

/* `n` times `open`, the middle, `n` times `close`. */
static const char *nested(int n, const char *open, const char *middle, const char *close)
{
    struct str s = STR("");
    for (int i = 0; i < n; i++)
        s = arena_printf(&a, STR_FMT "%s", STR_ARG(s), open);
    s = arena_printf(&a, STR_FMT "%s", STR_ARG(s), middle);
    for (int i = 0; i < n; i++)
        s = arena_printf(&a, STR_FMT "%s", STR_ARG(s), close);
    return s.p;
}

#define LEAF "{\"type\":\"eq\",\"key\":\"k\",\"value\":1}"

static int parse(const char *text)
{
    struct filter *f;
    return filter_parse(&a, json(text), "", &f, &e);
}

static void test_limits(void **state)
{
    (void)state;
    const char *open = "{\"type\":\"and\",\"filters\":[";
    assert_int_equal(parse(nested(FILTER_MAX_DEPTH - 1, open, LEAF, "]}")), 0);
    assert_int_equal(parse(nested(FILTER_MAX_DEPTH, open, LEAF, "]}")), -1);
    assert_non_null(strstr(e.msg, "nested deeper"));
    assert_int_equal(parse(nested(1, open, nested(FILTER_MAX_NODES - 2, LEAF ",", LEAF, ""), "]}")), 0);
    assert_int_equal(parse(nested(1, open, nested(FILTER_MAX_NODES - 1, LEAF ",", LEAF, ""), "]}")), -1);
    assert_non_null(strstr(e.msg, "Too many"));
    /* many groups of many: counted over all of them */
    const char *group = nested(1, open, nested(60, LEAF ",", LEAF, ""), "]}");
    assert_int_equal(parse(nested(1, open, arena_printf(&a, "%s,%s", group, group).p, "]}")), 0);
    assert_int_equal(parse(nested(1, open, arena_printf(&a, "%s,%s,%s", group, group, group).p, "]}")), -1);
    const char *in = "{\"type\":\"in\",\"key\":\"k\",\"value\":[";
    assert_int_equal(parse(nested(1, in, nested(FILTER_MAX_VALUES - 1, "1,", "1", ""), "]}")), 0);
    assert_int_equal(parse(nested(1, in, nested(FILTER_MAX_VALUES, "1,", "1", ""), "]}")), -1);
    char key[FILTER_MAX_KEY + 2];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = 0;
    assert_int_equal(parse(arena_printf(&a, "{\"type\":\"eq\",\"key\":\"%s\",\"value\":1}", key).p), -1);
    key[FILTER_MAX_KEY] = 0;
    assert_int_equal(parse(arena_printf(&a, "{\"type\":\"eq\",\"key\":\"%s\",\"value\":1}", key).p), 0);
}

static void test_meaning(void **state)
{
    static const struct {
        const char *type, *key, *value, *metadata;
        bool yes;
    } cases[] = {
        {"eq", "k", "1", "{\"k\": 1}", true},
        {"eq", "k", "1", "{\"k\": 1.0}", true},
        {"eq", "k", "1", "{\"k\": 2}", false},
        {"eq", "k", "1", "{\"k\": \"1\"}", false},
        {"eq", "k", "1", "{\"k\": true}", false},
        {"eq", "k", "1", "{\"k\": null}", false},
        {"eq", "k", "1", "{}", false},
        {"eq", "k", "9007199254740993", "{\"k\": 9007199254740992}", true}, /* as doubles */
        {"eq", "k", "\"a\"", "{\"k\": \"a\"}", true},
        {"eq", "k", "\"a\"", "{\"k\": \"A\"}", false},
        {"eq", "k", "\"a\"", "{\"k\": [\"b\", \"a\"]}", true},
        {"eq", "k", "\"a\"", "{\"k\": [[\"a\"]]}", false},
        {"eq", "k", "true", "{\"k\": true}", true},
        {"eq", "k", "true", "{\"k\": false}", false},
        {"eq", "a.b", "1", "{\"a\": {\"b\": 1}}", true},
        {"eq", "a.b", "1", "{\"a.b\": 1}", false},
        {"eq", "a.b", "1", "{\"a\": [{\"b\": 1}]}", false},
        {"eq", "a", "1", "{\"a\": {\"b\": 1}}", false},
        {"ne", "k", "1", "{\"k\": 1}", false},
        {"ne", "k", "1", "{}", true},
        {"ne", "k", "1", "{\"k\": \"1\"}", true},
        {"ne", "k", "1", "{\"k\": [1, 2]}", false},
        {"gt", "k", "1", "{\"k\": 1}", false},
        {"gt", "k", "1", "{\"k\": 1.5}", true},
        {"gt", "k", "1", "{\"k\": \"2\"}", false},
        {"gt", "k", "1", "{\"k\": [2]}", false},
        {"gt", "k", "1", "{}", false},
        {"gte", "k", "1", "{\"k\": 1}", true},
        {"lt", "k", "-1", "{\"k\": -1.5}", true},
        {"lte", "k", "-1", "{\"k\": -1}", true},
        {"lte", "k", "-1", "{\"k\": 0}", false},
        {"gt", "k", "\"a\"", "{\"k\": \"aa\"}", true},
        {"lt", "k", "\"b\"", "{\"k\": \"B\"}", true}, /* bytes */
        {"lt", "k", "\"z\"", "{\"k\": \"\\u00e9\"}", false},
        {"lt", "k", "\"\"", "{\"k\": \"\"}", false},
        {"in", "k", "[1, \"a\"]", "{\"k\": \"a\"}", true},
        {"in", "k", "[1, \"a\"]", "{\"k\": 2}", false},
        {"in", "k", "[1, \"a\"]", "{\"k\": [2, \"a\"]}", true},
        {"nin", "k", "[1, \"a\"]", "{\"k\": \"a\"}", false},
        {"nin", "k", "[1, \"a\"]", "{}", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text = arena_printf(&a, "{\"type\": \"%s\", \"key\": \"%s\", \"value\": %s}", cases[i].type,
                                        cases[i].key, cases[i].value)
                               .p;
        if (filter_matches(good(text), json(cases[i].metadata)) != cases[i].yes)
            fail_msg("%s on %s is not %d", text, cases[i].metadata, cases[i].yes);
    }
}

static bool matches(const char *type, const char *one, const char *two, json_t *metadata)
{
    return filter_matches(good(arena_printf(&a, "{\"type\": \"%s\", \"filters\": [%s, %s]}", type, one, two).p),
                          metadata);
}

/* What holds of any filters: ne is not eq, nin is not in, in is or of eq, and obeys De Morgan. */
static void test_laws(void **state)
{
    static const char *const values[] = {"1", "2.5", "\"a\"", "\"b\"", "true", "false", "\"\""};
    static const char *const members[] = {"1",    "2.5",        "\"a\"",      "\"b\"", "true", "false",
                                          "null", "[1, \"a\"]", "{\"x\": 1}", "\"\"",  "[]"};
    (void)state;
    for (size_t m = 0; m < sizeof members / sizeof *members; m++)
        for (size_t i = 0; i < sizeof values / sizeof *values; i++)
            for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
                json_t *metadata = json(arena_printf(&a, "{\"k\": %s}", members[m]).p);
                char text[2][4][128];
                const char *v[2] = {values[i], values[k]};
                for (int n = 0; n < 2; n++) {
                    snprintf(text[n][0], 128, "{\"type\": \"eq\", \"key\": \"k\", \"value\": %s}", v[n]);
                    snprintf(text[n][1], 128, "{\"type\": \"ne\", \"key\": \"k\", \"value\": %s}", v[n]);
                }
                snprintf(text[0][2], 128, "{\"type\": \"in\", \"key\": \"k\", \"value\": [%s, %s]}", v[0], v[1]);
                snprintf(text[0][3], 128, "{\"type\": \"nin\", \"key\": \"k\", \"value\": [%s, %s]}", v[0], v[1]);
                bool eq = filter_matches(good(text[0][0]), metadata), in = filter_matches(good(text[0][2]), metadata);
                assert_int_equal(filter_matches(good(text[0][1]), metadata), !eq);
                assert_int_equal(filter_matches(good(text[0][3]), metadata), !in);
                assert_int_equal(matches("or", text[0][0], text[1][0], metadata), in);
                assert_int_equal(matches("and", text[0][1], text[1][1], metadata), !in);
                assert_int_equal(matches("and", text[0][0], text[1][0], metadata),
                                 !matches("or", text[0][1], text[1][1], metadata));
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_refused, teardown),
        cmocka_unit_test_teardown(test_limits, teardown),
        cmocka_unit_test_teardown(test_meaning, teardown),
        cmocka_unit_test_teardown(test_laws, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
