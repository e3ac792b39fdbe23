/* JSON that strangers send. What parses must print as text that parses to an equal value; members are checked by a
 * table; and any bytes at all become a string that a strict parser takes. */
#include "worker/io/json.h"
#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_members(struct arena *a, json_t *object)
{
    struct str s = {0};
    json_t *v = NULL;
    int64_t i = 0;
    double d = 0;
    bool b = false, present;
    const struct json_member table[] = {
        {"query", JSON_STR, false, true, 1, 100, &s, &present}, {"limit", JSON_INT64, false, false, 1, 100, &i, NULL},
        {"score", JSON_DOUBLE, false, false, 0, 0, &d, NULL},   {"explain", JSON_BOOLEAN, false, false, 0, 0, &b, NULL},
        {"filter", JSON_OBJ, false, false, 0, 0, &v, NULL},     {"tags", JSON_ARR, false, false, 0, 3, &v, NULL},
        {"value", JSON_ANY, false, false, 0, 0, &v, NULL},
    };
    struct err e = {0};
    if (json_members(a, object, "", table, sizeof table / sizeof *table, false, &e)) {
        assert(e.code == ERR_VALIDATION && e.pointer[0] == '/' && e.msg[0]);
        return;
    }
    assert(!i || (i >= 1 && i <= 100));
    assert(!s.p || (s.n >= 1 && s.n <= 100 && str_is_utf8(s)));
}

static void read_back(struct arena *a, json_t *v)
{
    json_t *again;
    struct err e;
    /* One level more than the bound of the first: none is added by printing. */
    if (json_parse(a, json_text(a, v), 64, &again, &e))
        abort();
    assert(json_equal(v, again));
}

/* Lifting a member changes how it is read, never what. */
static void lift(struct arena *a, struct str text)
{
    json_t *whole, *rest, *v;
    struct str lifted;
    struct err e, e2;
    int rc = json_parse_object(a, text, 64, &whole, &e);
    if (json_parse_lifting(a, text, 64, "text", &rest, &lifted, &e2)) {
        assert(rc && strcmp(e.msg, e2.msg) == 0);
        return;
    }
    assert(rc == 0);
    if (lifted.p) {
        v = json_object_get(whole, "text");
        assert(v && str_eq(lifted, (struct str){json_string_value(v), json_string_length(v)}));
        json_object_del(whole, "text");
    }
    assert(json_equal(whole, rest));
}

static void escape(struct arena *a, struct str bytes)
{
    struct buf b = {0};
    json_t *v;
    struct err e;
    json_escape(&b, bytes);
    if (!memchr(bytes.p, 0, bytes.n)) { /* NUL is escaped, and refused when read */
        if (json_parse(a, buf_view(&b), 1, &v, &e))
            abort();
        if (str_is_utf8(bytes))
            assert(str_eq(bytes, (struct str){json_string_value(v), json_string_length(v)}));
    }
    buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {0};
    struct err e = {0};
    json_t *v;
    /* Through a copy, so that a read beyond the end is seen. */
    char *copy = malloc(size ? size : 1);
    assert(copy);
    if (size)
        memcpy(copy, data, size);
    struct str text = {copy, size};
    if (json_parse(&a, text, 64, &v, &e)) {
        assert(e.code == ERR_BAD_REQUEST && e.msg[0]);
    } else {
        read_back(&a, v);
        if (json_is_object(v))
            check_members(&a, v);
    }
    lift(&a, text);
    escape(&a, text);
    arena_fini(&a);
    free(copy);
    return 0;
}
