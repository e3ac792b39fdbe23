/* Every promise of worker/io/pg.h that needs no loss of a connection (test_pg_loss.c), against a real server. */
#include "tests/contract/pg_calls.h"
#include "common/places.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- values ---- */

static suspends void echo_main(void *arg)
{
    (void)arg;
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    struct err e;
    struct uuid u = uuid_v7(), v;
    struct pg_array words, numbers, none;
    pg_args_init(&args, &a);
    pg_arg_str(&args, STR("quote ' and \\ and \xc3\xa4"));
    pg_arg_i64(&args, -9007199254740993LL);
    pg_arg_uuid(&args, &u);
    pg_arg_bool(&args, true);
    pg_arg_opt(&args, STR(""));
    pg_array_init(&words, PG_TEXT);
    pg_array_add(&words, "a,b", 3);
    pg_array_null(&words);
    pg_array_add(&words, "{\"", 2);
    pg_arg_array(&args, &words);
    pg_array_init(&numbers, PG_INT8);
    pg_array_i64(&numbers, 40);
    pg_array_i64(&numbers, 2);
    pg_arg_array(&args, &numbers);
    pg_arg_str(&args, (struct str){"\0\xff\x10", 3});
    pg_array_init(&none, PG_TEXT);
    pg_arg_array(&args, &none);
    assert_int_equal(pg_call(pg, ECHO, &args, &a, &r, &e), 0);
    assert_int_equal(r.n, 1);
    assert_true(str_eqz(pg_str(&r, 0, 0), "quote ' and \\ and \xc3\xa4"));
    assert_true(pg_i64(&r, 0, 1) == -9007199254740993LL);
    assert_true(pg_uuid(&r, 0, 2, &v) && uuid_eq(&u, &v));
    assert_true(pg_bool(&r, 0, 3));
    assert_true(pg_is_null(&r, 0, 4));
    assert_true(str_eqz(pg_str(&r, 0, 5), "a,b|NULL|{\""));
    assert_true(pg_i64(&r, 0, 6) == 42);
    assert_true(str_eq(pg_bytea(&r, 0, 7, &a), (struct str){"\0\xff\x10", 3}));
    assert_true(pg_i64(&r, 0, 8) == 0);

    pg_args_init(&args, &a);
    pg_arg_str(&args, (struct str){"\0\xff\x10", 3});
    assert_int_equal(pg_call(pg, BYTES, &args, &a, &r, &e), 0);
    assert_true(str_eq(pg_str(&r, 0, 0), (struct str){"\0\xff\x10", 3}));

    pg_args_init(&args, &a);
    pg_arg_i64(&args, 3);
    assert_int_equal(pg_query(pg, "SELECT $1::bigint * 2", false, &args, &a, &r, &e), 0);
    assert_true(pg_i64(&r, 0, 0) == 6);
    arena_fini(&a);
    count_down();
}

static void test_values_go_there_and_back(void **state)
{
    (void)state;
    running++;
    fiber_spawn("echo", echo_main, NULL);
    loop_run();
}

/* ---- isolation on the fast and the write lane ---- */

static void test_only_the_guilty_read_fails(void **state)
{
    (void)state;
    struct call c[40];
    for (int round = 0; round < 2; round++) { /* with the statements not prepared yet, and prepared */
        for (int i = 0; i < 40; i++) {
            c[i] = i % 10 == 5 ? (struct call){.stmt = DIV, .arg = {1, 0}, .n = 2}
                               : (struct call){.stmt = GET, .arg = {i + 1}, .n = 1};
            start(&c[i]);
        }
        loop_run();
        for (int i = 0; i < 40; i++) {
            if (i % 10 == 5) {
                assert_int_equal(c[i].rc, -1);
                assert_string_equal(c[i].sqlstate, "22012");
                assert_int_equal(c[i].e.code, ERR_INTERNAL);
                assert_non_null(strstr(c[i].e.log, "div"));
            } else {
                assert_int_equal(c[i].rc, 0);
                assert_int_equal(atoi(c[i].value + 1), i + 1);
            }
        }
    }
}

static void test_a_statement_that_cannot_be_prepared_harms_nobody(void **state)
{
    (void)state;
    struct call c[3] = {
        {.stmt = GET, .arg = {1}, .n = 1}, {.stmt = MISSING, .arg = {1}, .n = 1}, {.stmt = GET, .arg = {2}, .n = 1}};
    for (int i = 0; i < 3; i++)
        start(&c[i]);
    loop_run();
    assert_string_equal(c[0].value, "v1");
    assert_int_equal(c[1].rc, -1);
    assert_int_equal(c[1].e.code, ERR_NOT_READY);
    assert_string_equal(c[1].sqlstate, "42P01");
    assert_string_equal(c[2].value, "v2");
}

static void test_only_the_guilty_write_fails_and_the_others_commit(void **state)
{
    (void)state;
    struct call c[30];
    for (int i = 0; i < 30; i++) {
        c[i] = i == 7    ? (struct call){.stmt = DIV_WRITE, .arg = {1, 0}, .n = 2}
               : i == 20 ? (struct call){.stmt = PUT, .arg = {5}, .text = "twice", .n = 2}
                         : (struct call){.stmt = PUT, .arg = {1000 + i}, .text = "w", .n = 2};
        start(&c[i]);
    }
    loop_run();
    for (int i = 0; i < 30; i++)
        assert_int_equal(c[i].rc, i == 7 || i == 20 ? -1 : 0);
    assert_string_equal(c[20].sqlstate, "23505");
    assert_int_equal(c[20].e.code, ERR_CONFLICT);
    assert_int_equal(sql_number("SELECT count(*) FROM t WHERE id >= 1000"), 28);
}

/* Many writes at once share few transactions. */
/* What fails only at the commit: the same, and it comes to an end. */
static void test_only_the_guilty_commit_fails(void **state)
{
    (void)state;
    struct call c[4];
    sql("DROP TABLE IF EXISTS u; CREATE TABLE u (id bigint REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)");
    for (int i = 0; i < 4; i++) {
        c[i] = (struct call){.stmt = i == 1 ? PUT_DEFERRED : PUT, .arg = {7000 + i}, .text = "x", .n = i == 1 ? 1 : 2};
        start(&c[i]);
    }
    loop_run();
    for (int i = 0; i < 4; i++)
        assert_int_equal(c[i].rc, i == 1 ? -1 : 0);
    assert_int_equal(c[1].e.code, ERR_CONFLICT);
    assert_string_equal(c[1].sqlstate, "23503");
    assert_int_equal(sql_number("SELECT count(*) FROM t WHERE id BETWEEN 7000 AND 7003"), 3);
    sql("DROP TABLE u");
}

static void test_writes_share_commits(void **state)
{
    (void)state;
    struct call c[100];
    one(&(struct call){.stmt = PUT, .arg = {999}, .text = "first", .n = 2});
    for (int i = 0; i < 100; i++) {
        c[i] = (struct call){.stmt = PUT, .arg = {1000 + i}, .text = "w", .n = 2};
        start(&c[i]);
    }
    loop_run();
    for (int i = 0; i < 100; i++)
        assert_int_equal(c[i].rc, 0);
    long transactions = sql_number("SELECT count(DISTINCT xmin::text) FROM t WHERE id >= 1000");
    assert_true(transactions <= 2);
}

/* ---- deadlines and cancellation ---- */

static void test_an_abandoned_read_leaves_the_connection_sound(void **state)
{
    (void)state;
    one(&(struct call){.stmt = GET, .arg = {1}, .n = 1});
    struct call slow = {.stmt = SLEEP_FAST, .arg = {150}, .n = 1, .deadline_ms = 20};
    struct call after[5];
    start(&slow);
    for (int i = 0; i < 5; i++) {
        after[i] = (struct call){.stmt = GET, .arg = {i + 1}, .n = 1};
        start(&after[i]);
    }
    loop_run();
    assert_int_equal(slow.rc, -1);
    assert_int_equal(slow.e.code, ERR_DEADLINE);
    for (int i = 0; i < 5; i++)
        assert_int_equal(atoi(after[i].value + 1), i + 1);
}

static void test_a_slow_call_given_up_is_cancelled_on_the_server(void **state)
{
    (void)state;
    struct call slow[2] = {{.stmt = SLEEP, .arg = {60000}, .n = 1, .deadline_ms = 50},
                           {.stmt = SLEEP, .arg = {60000}, .n = 1, .deadline_ms = 50}};
    struct call next[4];
    cfg.database_statement_timeout = 60000; /* read at the connection's start */
    start(&slow[0]);
    start(&slow[1]);
    loop_run();
    assert_int_equal(slow[0].e.code, ERR_DEADLINE);
    int64_t begin = clock_ns();
    for (int i = 0; i < 4; i++) {
        next[i] = (struct call){.stmt = SLEEP, .arg = {1}, .n = 1};
        start(&next[i]);
    }
    loop_run();
    for (int i = 0; i < 4; i++)
        assert_int_equal(next[i].rc, 0);
    assert_true(clock_ns() - begin < 20 * SEC);
    assert_int_equal(sql_number("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep($1%' AND state = "
                                "'active' AND pid <> pg_backend_pid()"),
                     0);
}

/* The neighbours that wait behind a statement nobody wants are not harmed by its cancellation. */
static void test_a_stuck_statement_given_up_is_cancelled_and_nobody_else(void **state)
{
    (void)state;
    cfg.database_statement_timeout = 60000;
    for (int write = 0; write < 2; write++) {
        struct call stuck = write ? (struct call){.stmt = PUT_SLOW, .arg = {6000, 0, 60000}, .text = "w", .n = 3}
                                  : (struct call){.stmt = SLEEP_FAST, .arg = {60000}, .n = 1};
        struct call after[5];
        int64_t begin = clock_ns();
        stuck.deadline_ms = 50;
        start(&stuck);
        for (int i = 0; i < 5; i++) {
            after[i] = write ? (struct call){.stmt = PUT, .arg = {6001 + i}, .text = "n", .n = 2}
                             : (struct call){.stmt = GET, .arg = {i + 1}, .n = 1};
            start(&after[i]);
        }
        loop_run();
        assert_int_equal(stuck.rc, -1);
        for (int i = 0; i < 5; i++)
            assert_int_equal(after[i].rc, 0);
        assert_true(clock_ns() - begin < 20 * SEC);
    }
    assert_int_equal(sql_number("SELECT count(*) FROM t WHERE id >= 6000"), 5);
}

static void test_statement_timeout(void **state)
{
    (void)state;
    struct call c = {.stmt = SLEEP, .arg = {60000}, .n = 1};
    one(&c);
    assert_int_equal(c.rc, -1);
    assert_int_equal(c.e.code, ERR_DEADLINE);
    assert_string_equal(c.sqlstate, "57014");
}

/* A write that was sent is waited for even when its fiber is past its deadline: its caller learns what happened. */
static void test_a_sent_write_is_waited_for(void **state)
{
    (void)state;
    one(&(struct call){.stmt = PUT, .arg = {999}, .text = "first", .n = 2});
    struct call c = {.stmt = PUT_SLOW, .arg = {2000, 0, 100}, .text = "w", .n = 3, .deadline_ms = 20};
    one(&c);
    assert_int_equal(c.rc, 0);
    assert_int_equal(sql_number("SELECT count(*) FROM t WHERE id = 2000"), 1);
}

/* ---- bounds ---- */

static void test_the_queue_is_bounded(void **state)
{
    (void)state;
    struct call c[8];
    cfg.database_max_queue = 5;
    for (int i = 0; i < 8; i++) {
        c[i] = (struct call){.stmt = GET, .arg = {1}, .n = 1};
        start(&c[i]);
    }
    for (int i = 5; i < 8; i++) {
        assert_int_equal(c[i].rc, -1);
        assert_int_equal(c[i].e.code, ERR_OVERLOADED);
    }
    loop_run();
    for (int i = 0; i < 5; i++)
        assert_string_equal(c[i].value, "v1");
}

/* A sibling has all places of the budget; calls wait for one, but not for ever. When it is killed, they are free. */
static void test_the_budget_of_connections(void **state)
{
    (void)state;
    struct call a = {.stmt = GET, .arg = {1}, .n = 1}, b = {.stmt = SLEEP, .arg = {1}, .n = 1};
    struct places *p;
    struct err e;
    int fd;
    one(&a);
    assert_int_equal(places_create(&p, &fd, &e), 0);
    pid_t sibling = fork();
    if (sibling == 0) {
        if (places_join(p, fd, &e))
            _exit(1);
        for (int i = 0; i < 10; i++)
            atomic_store(&p->place[i], places_mark());
        for (;;)
            pause();
    }
    while (!atomic_load(&p->place[9]))
        usleep(1000);
    assert_int_equal(places_join(p, fd, &e), 0);
    one(&b);
    assert_int_equal(b.rc, -1);
    assert_int_equal(b.e.code, ERR_OVERLOADED);
    kill(sibling, SIGKILL);
    assert_int_equal(waitpid(sibling, NULL, 0), sibling);
    while (b.rc) {
        struct call nap = {.stmt = SLEEP_FAST, .arg = {20}, .n = 1};
        one(&nap);
        one(&b);
    }
    assert_int_equal(slot_self->stat[STAT_store_connections], 2); /* that for writes was idle, and made room */
}

/* ---- the end of a worker ---- */

static const char busy[] = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ragd' AND state = 'active'";
static const char connected[] = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ragd'";

static void test_a_draining_worker_closes_what_is_idle_and_connects_on_demand(void **state)
{
    (void)state;
    struct call a = {.stmt = GET, .arg = {1}, .n = 1}, s = {.stmt = SLEEP, .arg = {1}, .n = 1};
    one(&a);
    one(&s);
    assert_true(sql_number(connected) >= 2);
    pg_drain(pg);
    while (slot_self->stat[STAT_store_connections])
        turn();
    assert_int_equal(sql_number(connected), 0); /* a place that is given back is one that the server has given up */
    one(&a);
    assert_string_equal(a.value, "v1");
    while (!pg_leave(pg))
        turn();
    assert_int_equal(sql_number(connected), 0);
}

static void test_at_the_end_of_the_time_statements_are_cancelled(void **state)
{
    (void)state;
    cfg.database_statement_timeout = 60000;
    struct call c[3] = {{.stmt = SLEEP, .arg = {60000}, .n = 1},
                        {.stmt = SLEEP_FAST, .arg = {60000}, .n = 1},
                        {.stmt = PUT_SLOW, .arg = {5000, 0, 60000}, .text = "w", .n = 3}};
    for (int i = 0; i < 3; i++)
        start(&c[i]);
    turn_until(busy, 3);
    for (int i = 0; i < 3; i++)
        fiber_cancel(c[i].fiber);
    pg_cancel_all(pg);
    loop_run();
    for (int i = 0; i < 3; i++)
        assert_int_equal(c[i].e.code, ERR_CANCELED);
    while (!pg_leave(pg))
        turn();
    assert_int_equal(sql_number(connected), 0);
    assert_int_equal(sql_number("SELECT count(*) FROM t WHERE id = 5000"), 0);
}

/* ---- notices, sessions, unprepared ---- */

static int notices;
static void on_notice(void *arg)
{
    (void)arg;
    notices++;
    loop_stop();
}

static void test_listen(void **state)
{
    (void)state;
    notices = 0;
    pg_listen(pg, "ragd_test", on_notice, NULL);
    loop_run();
    assert_int_equal(notices, 1); /* connected: something may have been missed */
    sql("NOTIFY ragd_test");
    loop_run();
    assert_int_equal(notices, 2);
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ragd'");
    loop_run();
    assert_int_equal(notices, 3);
}

static suspends void session_main(void *arg)
{
    (void)arg;
    struct arena a = {0};
    struct pg_rows r;
    struct pg_session *s;
    struct err e;
    assert_int_equal(pg_session_open(pg, &s, &e), 0);
    assert_int_equal(
        pg_session_run(s, "BEGIN; INSERT INTO t VALUES (5000, 'x'); SELECT v FROM t WHERE id = 5000", &a, &r, &e), 0);
    assert_true(str_eqz(pg_str(&r, 0, 0), "x"));
    assert_int_equal(pg_session_run(s, "SELECT 1/0; SELECT 1", &a, &r, &e), -1);
    assert_non_null(strstr(e.log, "22012"));
    pg_session_close(s);
    arena_fini(&a);
    count_down();
}

static void test_session(void **state)
{
    (void)state;
    running++;
    fiber_spawn("session", session_main, NULL);
    loop_run();
    assert_int_equal(sql_number("SELECT count(*) FROM t WHERE id = 5000"), 0);
}

static void test_without_prepared_statements(void **state)
{
    (void)state;
    cfg.database_prepared = false;
    struct call c = {.stmt = GET, .arg = {3}, .n = 1};
    one(&c);
    assert_string_equal(c.value, "v3");
    assert_int_equal(c.rows, 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_values_go_there_and_back),
        TEST(test_only_the_guilty_read_fails),
        TEST(test_a_statement_that_cannot_be_prepared_harms_nobody),
        TEST(test_only_the_guilty_write_fails_and_the_others_commit),
        TEST(test_only_the_guilty_commit_fails),
        TEST(test_writes_share_commits),
        TEST(test_an_abandoned_read_leaves_the_connection_sound),
        TEST(test_a_slow_call_given_up_is_cancelled_on_the_server),
        TEST(test_a_stuck_statement_given_up_is_cancelled_and_nobody_else),
        TEST(test_statement_timeout),
        TEST(test_a_sent_write_is_waited_for),
        TEST(test_the_queue_is_bounded),
        TEST(test_the_budget_of_connections),
        TEST(test_a_draining_worker_closes_what_is_idle_and_connects_on_demand),
        TEST(test_at_the_end_of_the_time_statements_are_cancelled),
        TEST(test_listen),
        TEST(test_session),
        TEST(test_without_prepared_statements),
    };
    private_pg_start(&server);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    private_pg_stop(&server);
    return failed;
}
