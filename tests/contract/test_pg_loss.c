/* How worker/io/pg.h lives through the loss and return of a server, and chooses among several. */
#include "tests/contract/pg_calls.h"

static void test_reads_survive_a_lost_connection(void **state)
{
    (void)state;
    one(&(struct call){.stmt = GET, .arg = {1}, .n = 1});
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = "
        "'ragd'");
    struct call c[3];
    for (int i = 0; i < 3; i++) {
        c[i] = (struct call){.stmt = GET, .arg = {i + 1}, .n = 1};
        start(&c[i]);
    }
    loop_run();
    for (int i = 0; i < 3; i++)
        assert_int_equal(atoi(c[i].value + 1), i + 1);
    struct call w = {.stmt = PUT, .arg = {3000}, .text = "w", .n = 2};
    one(&w); /* may meet the lost connection, or a new one */
    long rows = sql_number("SELECT count(*) FROM t WHERE id = 3000");
    if (w.rc == 0)
        assert_int_equal(rows, 1);
    else if (!strstr(w.e.log, "may have happened"))
        assert_int_equal(rows, 0);
    if (w.rc < 0)
        assert_int_equal(w.e.code, ERR_NOT_READY);
}

static void test_a_write_in_flight_says_that_it_may_have_happened(void **state)
{
    (void)state;
    one(&(struct call){.stmt = PUT, .arg = {999}, .text = "first", .n = 2});
    struct call c = {.stmt = PUT_SLOW, .arg = {4000, 0, 2000}, .text = "w", .n = 3};
    start(&c);
    turn_until("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ragd' AND state = 'active' AND query "
               "LIKE 'WITH s%'",
               1);
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ragd'");
    loop_run();
    assert_int_equal(c.rc, -1);
    assert_int_equal(c.e.code, ERR_NOT_READY);
    assert_non_null(strstr(c.e.log, "may have happened"));
}

static void test_calls_fail_at_once_while_the_server_is_gone_and_work_when_it_is_back(void **state)
{
    (void)state;
    struct call c = {.stmt = GET, .arg = {1}, .n = 1};
    one(&c);
    assert_int_equal(c.rc, 0);
    private_pg_halt(&server, SIGQUIT);
    one(&c);
    assert_int_equal(c.rc, -1);
    assert_int_equal(c.e.code, ERR_NOT_READY);
    int64_t begin = clock_ns();
    one(&c);
    assert_int_equal(c.e.code, ERR_NOT_READY);
    assert_true(clock_ns() - begin < SEC);
    private_pg_launch(&server);
    int64_t limit = clock_ns() + 20 * SEC;
    while (c.rc < 0 && clock_ns() < limit) {
        event_base_loop(loop_base(), EVLOOP_ONCE);
        one(&c);
    }
    assert_string_equal(c.value, "v1");
}

static void test_urls(void **state)
{
    (void)state;
    struct config bad = cfg;
    struct pg *other;
    struct err e;
    const char *const urls[] = {"postgresql://host:port/", "postgresql://a:1,b:70000/", "postgresql://h/?no_such=1",
                                "postgresql://[::1"};
    for (int i = 0; i < 4; i++) {
        bad.database_url = urls[i];
        assert_int_equal(pg_open(&bad, table, N_STMT, &other, &e), -1);
        assert_int_equal(e.code, ERR_VALIDATION);
    }
}

/* A host that does not resolve or answer is passed over for one that does; TCP is off here, so both parts are hosts
 * whose socket directory differs. */
static void test_several_hosts(void **state)
{
    (void)state;
    char url[400];
    pg_close(pg);
    snprintf(url, sizeof url, "postgresql:///postgres?host=/nonexistent,does-not-exist.invalid,%s&user=ragd",
             server.dir);
    cfg.database_url = url;
    struct err e;
    assert_int_equal(pg_open(&cfg, table, N_STMT, &pg, &e), 0);
    struct call c = {.stmt = GET, .arg = {1}, .n = 1};
    one(&c);
    assert_string_equal(c.value, "v1"); /* at the first attempt */
}

/* Of several hosts the one that takes writes is used for reads, too: a standby's answers lag behind. */
static void test_standbys_are_passed_over(void **state)
{
    (void)state;
    struct private_pg standby;
    struct err e;
    char url[400];
    pg_close(pg);
    private_pg_start(&standby);
    private_pg_sql(&standby, "ALTER DATABASE postgres SET default_transaction_read_only = on");
    snprintf(url, sizeof url, "postgresql:///postgres?host=%s,%s&user=ragd", standby.dir, server.dir);
    cfg.database_url = url;
    assert_int_equal(pg_open(&cfg, table, N_STMT, &pg, &e), 0);
    struct call read = {.stmt = GET, .arg = {1}, .n = 1}, write = {.stmt = PUT, .arg = {8000}, .text = "w", .n = 2};
    one(&read);
    one(&write);
    private_pg_stop(&standby);
    assert_string_equal(read.value, "v1");
    assert_int_equal(write.rc, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_reads_survive_a_lost_connection),
        TEST(test_a_write_in_flight_says_that_it_may_have_happened),
        TEST(test_urls),
        TEST(test_several_hosts),
        TEST(test_standbys_are_passed_over),
        TEST(test_calls_fail_at_once_while_the_server_is_gone_and_work_when_it_is_back),
    };
    private_pg_start(&server);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    private_pg_stop(&server);
    return failed;
}
