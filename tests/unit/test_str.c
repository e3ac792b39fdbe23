#include "tests/unit/cm.h"
#include "common/str.h"

static void assert_str(struct str s, const char *expected)
{
    assert_int_equal(s.n, strlen(expected));
    assert_true(str_eqz(s, expected));
}

static void slices(void **state)
{
    (void)state;
    assert_true(str_eq((struct str){NULL, 0}, STR("")));
    assert_false(str_eq(STR("ab"), STR("abc")));
    assert_str(str_sub(STR("hello"), 1, 3), "ell");
    assert_str(str_sub(STR("hello"), 3, SIZE_MAX), "lo");
    assert_str(str_sub(STR("hello"), 9, 2), "");
    assert_str(str_sub((struct str){NULL, 0}, 3, 2), "");
    assert_true(str_ieq(STR("Content-Type"), STR("content-TYPE")));
    assert_false(str_ieq(STR("K"), STR("\xe2\x84\xaa"))); /* the Kelvin sign folds to k in Unicode, not in ASCII */
    assert_true(str_starts(STR("abc"), STR("")));
    assert_true(str_starts((struct str){NULL, 0}, (struct str){NULL, 0}));
    assert_false(str_starts(STR("ab"), STR("abc")));
    assert_str(str_trim(STR(" \t a b\t ")), "a b");
    assert_str(str_trim(STR(" \t ")), "");
    assert_str(str_trim(STR("\n")), "\n");
}

static void cut(void **state)
{
    struct str rest = STR("a,,b");
    (void)state;
    assert_str(str_cut(&rest, ','), "a");
    assert_str(str_cut(&rest, ','), "");
    assert_str(str_cut(&rest, ','), "b");
    assert_str(rest, "");
    rest = (struct str){NULL, 0};
    assert_str(str_cut(&rest, ','), "");
    assert_str(rest, "");
}

static void numbers(void **state)
{
    static const char *const bad[] = {"", "-", "+1", " 1", "1 ", "0x1", "1.0", "18446744073709551616", "--1"};
    uint64_t u = 7;
    int64_t i = 7;
    (void)state;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        assert_false(str_to_u64(str_of(bad[k]), &u));
        assert_false(str_to_i64(str_of(bad[k]), &i));
    }
    assert_int_equal(u, 7); /* left alone on failure */
    assert_int_equal(i, 7);
    assert_true(str_to_u64(STR("18446744073709551615"), &u));
    assert_true(u == UINT64_MAX);
    assert_true(str_to_i64(STR("-9223372036854775808"), &i));
    assert_true(i == INT64_MIN);
    assert_true(str_to_i64(STR("9223372036854775807"), &i));
    assert_true(i == INT64_MAX);
    assert_false(str_to_i64(STR("9223372036854775808"), &i));
    assert_false(str_to_i64(STR("-9223372036854775809"), &i));
    assert_false(str_to_u64(STR("-1"), &u));
}

/* RFC 3629, and the table of ill-formed sequences in Unicode's chapter 3. */
static void utf8(void **state)
{
    static const struct {
        const char *text;
        size_t valid;
    } cases[] = {
        {"", 0},
        {"plain", 5},
        {"\xc3\xa9", 2},
        {"\xe2\x82\xac", 3},
        {"\xf0\x9f\x98\x80", 4},
        {"\xf4\x8f\xbf\xbf", 4},
        {"a\xff", 1},
        {"a\x80", 1},
        {"\xc0\x80", 0},         /* overlong NUL */
        {"\xc1\xbf", 0},         /* overlong */
        {"\xe0\x9f\xbf", 0},     /* overlong */
        {"\xf0\x8f\xbf\xbf", 0}, /* overlong */
        {"\xed\xa0\x80", 0},     /* surrogate */
        {"\xed\x9f\xbf", 3},     /* the last before the surrogates */
        {"\xf4\x90\x80\x80", 0}, /* beyond U+10FFFF */
        {"\xf5\x80\x80\x80", 0},
        {"ab\xe2\x82", 2}, /* cut short */
        {"ab\xe2\x28\xa1", 2},
    };
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        assert_int_equal(str_utf8_valid_prefix(str_of(cases[k].text)), cases[k].valid);
    assert_true(str_is_utf8((struct str){"a\0b", 3}));
    char broken[] = "a\xffz\xc3\xa4\xe2\x82";
    str_utf8_fix(broken);
    assert_string_equal(broken, "a?z\xc3\xa4??");
}

static void copy(void **state)
{
    char small[4];
    (void)state;
    assert_int_equal(str_copyz(small, sizeof small, STR("abcdef")), 3);
    assert_string_equal(small, "abc");
    assert_int_equal(str_copyz(small, sizeof small, (struct str){NULL, 0}), 0);
    assert_string_equal(small, "");
}

static void distance(void **state)
{
    (void)state;
    assert_int_equal(str_distance("workers", "workers"), 0);
    assert_int_equal(str_distance("wrokers", "workers"), 1); /* a transposition is one slip */
    assert_int_equal(str_distance("worker", "workers"), 1);
    assert_int_equal(str_distance("", "abc"), 3);
    assert_int_equal(str_distance("kitten", "sitting"), 3);
    assert_int_equal(str_distance("completely", "different things"), 8); /* bounded */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices), cmocka_unit_test(cut),  cmocka_unit_test(numbers),
        cmocka_unit_test(utf8),   cmocka_unit_test(copy), cmocka_unit_test(distance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
