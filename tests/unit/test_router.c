#include "tests/unit/cm.h"
#include "worker/http/http.h"

static int nothing(struct request *r, struct err *e)
{
    (void)r;
    return err_set(e, ERR_INTERNAL, "never called");
}

#define R(method, path)                                                            \
    {                                                                              \
        HTTP_##method, path, ACCESS_OPEN, BODY_NONE, false, nothing, "nothing", "" \
    }
static const struct route table[] = {
    R(GET, "/"),          R(GET, "/a"),       R(POST, "/a"),       R(GET, "/a/{x}"),       R(DELETE, "/a/{x}"),
    R(POST, "/a/delete"), R(GET, "/a/{x}/b"), R(PUT, "/a/by/{y}"), R(GET, "/a/{x}/{y}/c"),
};

static struct str param[REQUEST_PARAMS];
static unsigned allow;

static const char *find(const struct router *r, enum http_method m, const char *path)
{
    const struct route *found = router_find(r, m, str_of(path), param, &allow);
    return found ? found->path : NULL;
}

static void routes_and_parameters(void **state)
{
    struct router *r = router_new(table, sizeof table / sizeof *table);
    (void)state;
    assert_string_equal(find(r, HTTP_GET, "/"), "/");
    assert_string_equal(find(r, HTTP_GET, "/a"), "/a");
    assert_string_equal(find(r, HTTP_GET, "/a/17"), "/a/{x}");
    assert_true(str_eqz(param[0], "17"));
    assert_string_equal(find(r, HTTP_GET, "/a/1/2/c"), "/a/{x}/{y}/c");
    assert_true(str_eqz(param[0], "1") && str_eqz(param[1], "2"));
    assert_string_equal(find(r, HTTP_HEAD, "/a/1/b"), "/a/{x}/b");
    router_free(r);
}

static void literals_before_parameters(void **state)
{
    struct router *r = router_new(table, sizeof table / sizeof *table);
    (void)state;
    assert_string_equal(find(r, HTTP_POST, "/a/delete"), "/a/delete");
    assert_string_equal(find(r, HTTP_GET, "/a/delete"), "/a/{x}"); /* the literal has no GET */
    assert_true(str_eqz(param[0], "delete"));
    assert_string_equal(find(r, HTTP_PUT, "/a/by/1"), "/a/by/{y}");
    assert_string_equal(find(r, HTTP_GET, "/a/by/b/c"), "/a/{x}/{y}/c"); /* back from a literal that leads nowhere */
    assert_true(str_eqz(param[0], "by") && str_eqz(param[1], "b"));
    router_free(r);
}

static void nothing_and_wrong_methods(void **state)
{
    static const char *const nowhere[] = {"", "a", "/b", "/a/", "//", "/a//b", "/a/1/b/", "/a/1/2/3", "/a/1/2/c/d"};
    struct router *r = router_new(table, sizeof table / sizeof *table);
    (void)state;
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
        assert_null(find(r, HTTP_GET, nowhere[i]));
        assert_int_equal(allow, 0);
    }
    assert_null(find(r, HTTP_PUT, "/a"));
    assert_int_equal(allow, 1 << HTTP_GET | 1 << HTTP_HEAD | 1 << HTTP_POST);
    assert_null(find(r, HTTP_PATCH, "/a/delete"));
    assert_int_equal(allow, 1 << HTTP_GET | 1 << HTTP_HEAD | 1 << HTTP_POST | 1 << HTTP_DELETE);
    router_free(r);
    router_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_and_parameters),
        cmocka_unit_test(literals_before_parameters),
        cmocka_unit_test(nothing_and_wrong_methods),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
