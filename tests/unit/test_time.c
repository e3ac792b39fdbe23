/* clock and uuid: stamps that leave the process. */
#include "tests/unit/cm.h"
#include "common/clock.h"
#include "common/uuid.h"
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t parse(const char *text)
{
    int64_t us = INT64_MIN;
    return clock_parse_rfc3339(text, strlen(text), &us) == 0 ? us : INT64_MIN;
}

static void rfc3339(void **state)
{
    static const struct {
        int64_t us;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000000Z"},
        {1767351845678901, "2026-01-02T11:04:05.678901Z"},
        {951782400000000, "2000-02-29T00:00:00.000000Z"},
        {-1, "1969-12-31T23:59:59.999999Z"},
        {253402300799999999, "9999-12-31T23:59:59.999999Z"},
    };
    char out[CLOCK_RFC3339_LEN];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        clock_rfc3339(out, cases[i].us);
        assert_memory_equal(out, cases[i].text, sizeof out);
        assert_true(parse(cases[i].text) == cases[i].us);
    }
    assert_true(parse("2026-01-02T12:04:05+01:00") == parse("2026-01-02T11:04:05Z"));
    assert_true(parse("2026-01-02T11:04:05.5Z") == parse("2026-01-02T11:04:05Z") + 500000);
    assert_true(parse("2026-01-02T11:04:05.1234567Z") == parse("2026-01-02T11:04:05.123456Z"));
}

static void rfc3339_refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "2026",
        "2026-01-02",
        "2026-01-02T11:04:05",
        "2026-13-02T11:04:05Z",
        "2026-02-29T11:04:05Z",
        "1900-02-29T11:04:05Z",
        "2026-04-31T11:04:05Z",
        "2026-00-10T11:04:05Z",
        "2026-01-00T11:04:05Z",
        "2026-01-02T24:04:05Z",
        "2026-01-02T11:60:05Z",
        "2026-01-02T11:04:61Z",
        "2026-01-02T11:04:05.Z",
        "2026-01-02T11:04:05+25:00",
        "2026-01-02T11:04:05+0100",
        "2026-01-02T11:04:05Zx",
        "2026-01-02 11:04:05 Z",
        "x026-01-02T11:04:05Z",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_true(parse(bad[i]) == INT64_MIN);
}

/* Every day of four centuries against the C library. */
static void agrees_with_libc(void **state)
{
    char out[CLOCK_RFC3339_LEN], date[CLOCK_HTTP_DATE_LEN], expected[64];
    int64_t back;
    (void)state;
    for (int64_t day = 0; day < 366 * 400; day += 1) {
        time_t t = (time_t)(day * 86400 + day % 86400);
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%S.000000Z", &tm);
        clock_rfc3339(out, t * 1000000LL);
        assert_memory_equal(out, expected, sizeof out);
        strftime(expected, sizeof expected, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        clock_http_date(date, t * 1000000LL);
        assert_memory_equal(date, expected, sizeof date);
        assert_int_equal(clock_parse_http_date(date, sizeof date, &back), 0);
        assert_true(back == t * 1000000LL);
    }
}

static void http_dates(void **state)
{
    static const char *const bad[] = {
        "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",      "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 31 Feb 1994 08:49:37 GMT",  "Sun, 06 Xxx 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
    };
    const char *good = "Sun, 06 Nov 1994 08:49:37 GMT";
    int64_t us = 5;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(clock_parse_http_date(bad[i], strlen(bad[i]), &us), -1);
    assert_int_equal(us, 5);
    assert_int_equal(clock_parse_http_date(good, strlen(good), &us), 0);
    assert_true(us == 784111777000000);
}

static void clocks_run(void **state)
{
    int64_t a = clock_ns(), w = clock_wall_us();
    (void)state;
    assert_true(clock_ns() >= a);
    assert_true(w / 1000000 - (int64_t)time(NULL) <= 1);
}

static void what_is_too_late_was_stopped(void **state)
{
    static const struct {
        int64_t due, now, gap;
    } cases[] = {
        {5 * SEC, 4 * SEC, 0}, {5 * SEC, 5 * SEC, 0},       {5 * SEC, 6 * SEC - 1, 0},
        {0, 6 * SEC, 0},       {5 * SEC, 6 * SEC, 1 * SEC}, {5 * SEC, 3600 * SEC, 3595 * SEC},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(clock_gap(cases[i].due, cases[i].now), cases[i].gap);
}

static void uuids_increase_and_carry_their_time(void **state)
{
    int64_t before = clock_wall_us();
    struct uuid last = uuid_v7();
    (void)state;
    for (int i = 0; i < 20000; i++) {
        struct uuid u = uuid_v7();
        assert_true(memcmp(last.b, u.b, 16) < 0);
        assert_int_equal(u.b[6] >> 4, 7);
        assert_int_equal(u.b[8] >> 6, 2);
        last = u;
    }
    int64_t stamp = uuid_time_us(&last);
    /* 20,000 ids may run ahead of the clock by a quarter microsecond each. */
    assert_true(stamp >= before - 1 && stamp <= clock_wall_us() + 6000);
    for (int64_t us = 1767351845000000; us < 1767351845002000; us++) {
        struct uuid u = uuid_v7_at(us);
        assert_true(uuid_time_us(&u) == us);
    }
}

static void uuid_text_reads_back(void **state)
{
    static const char *const bad[] = {"",
                                      "0",
                                      "0190f3c8-7b1e-7000-8000-00000000000",
                                      "0190f3c8-7b1e-7000-8000-0000000000000",
                                      "0190f3c8x7b1e-7000-8000-000000000000",
                                      "g190f3c8-7b1e-7000-8000-000000000000",
                                      "{190f3c8-7b1e-7000-8000-00000000000}"};
    struct uuid u = uuid_v7(), back;
    char text[UUID_TEXT_LEN + 1] = "";
    (void)state;
    uuid_text(&u, text);
    assert_true(uuid_parse(str_of(text), &back));
    assert_true(uuid_eq(&u, &back));
    for (char *p = text; *p; p++)
        *p = *p >= 'a' && *p <= 'f' ? (char)(*p - 32) : *p;
    assert_true(uuid_parse(str_of(text), &back));
    assert_true(uuid_eq(&u, &back));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(uuid_parse(str_of(bad[i]), &back));
    assert_true(uuid_eq(&u, &back));
}

/* Two workers forked from one process must not draw the same random bits. */
static void uuids_differ_after_a_fork(void **state)
{
    struct uuid mine, theirs;
    int fd[2];
    (void)state;
    uuid_v7(); /* the pool is filled before the fork */
    assert_int_equal(pipe(fd), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        theirs = uuid_v7_at(0);
        _exit(write(fd[1], theirs.b, sizeof theirs.b) == sizeof theirs.b ? 0 : 1);
    }
    mine = uuid_v7_at(0);
    assert_int_equal(read(fd[0], theirs.b, sizeof theirs.b), sizeof theirs.b);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(fd[0]);
    close(fd[1]);
    assert_false(uuid_eq(&mine, &theirs));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc3339),
        cmocka_unit_test(rfc3339_refuses),
        cmocka_unit_test(agrees_with_libc),
        cmocka_unit_test(http_dates),
        cmocka_unit_test(clocks_run),
        cmocka_unit_test(what_is_too_late_was_stopped),
        cmocka_unit_test(uuids_increase_and_carry_their_time),
        cmocka_unit_test(uuid_text_reads_back),
        cmocka_unit_test(uuids_differ_after_a_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
