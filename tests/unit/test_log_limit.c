/* Of lines of one kind, one a second. */
#include "tests/unit/cm.h"
#include "common/clock.h"
#include "common/log_limit.h"

static void one_a_second_tells_of_the_others(void **state)
{
    (void)state;
    struct log_limit l = {0};
    char told[LOG_LIMIT_TEXT];
    int64_t t = 100 * SEC;
    assert_true(log_limit(&l, t, told));
    assert_string_equal(told, "");
    for (int i = 1; i <= 512; i++)
        assert_false(log_limit(&l, t + i * MS, told));
    assert_true(log_limit(&l, t + SEC, told));
    assert_string_equal(told, " and 512 more in the last 1.0 s");
    assert_true(log_limit(&l, t + 60 * SEC, told));
    assert_string_equal(told, "");
}

static void what_is_left_is_told_in_the_end(void **state)
{
    (void)state;
    struct log_limit l = {0};
    char told[LOG_LIMIT_TEXT];
    int64_t t = 100 * SEC;
    assert_true(log_limit(&l, t, told));
    assert_false(log_limit_rest(&l, t + 10 * SEC, told));
    assert_false(log_limit(&l, t + SEC / 2, told));
    assert_false(log_limit_rest(&l, t + SEC, told));
    assert_true(log_limit_rest(&l, t + 2 * SEC, told));
    assert_string_equal(told, " and 1 more in the last 2.0 s");
    assert_false(log_limit_rest(&l, t + 10 * SEC, told));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_a_second_tells_of_the_others),
        cmocka_unit_test(what_is_left_is_told_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
