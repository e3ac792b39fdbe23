/* Every promise of worker/io/pg.h, against a real server. */
#include "tests/contract/private_pg.h"
#include "common/clock.h"
#include "common/scoreboard.h"
#include "worker/fiber/loop.h"
#include "worker/io/pg.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct private_pg server;

enum { GET, PUT, PUT_SLOW, DIV, DIV_WRITE, SLEEP_FAST, SLEEP, ECHO, BYTES, MISSING, PUT_DEFERRED, N_STMT };
static const struct pg_stmt table[N_STMT] = {
    [GET] = {"get", "SELECT v, id FROM t WHERE id = $1::bigint", PG_FAST, false, false},
    [PUT] = {"put", "INSERT INTO t (id, v) VALUES ($1::bigint, $2::text) RETURNING id", PG_WRITE, true, false},
    [PUT_SLOW] =
        {"put_slow",
         "WITH s AS (SELECT pg_sleep($3::bigint / 1000.0)) INSERT INTO t (id, v) SELECT $1::bigint, $2::text FROM s",
         PG_WRITE, true, false},
    [DIV] = {"div", "SELECT $1::bigint / $2::bigint", PG_FAST, false, false},
    [DIV_WRITE] = {"div_write", "INSERT INTO t (id, v) VALUES ($1::bigint / $2::bigint, 'd')", PG_WRITE, true, false},
    [SLEEP_FAST] = {"sleep_fast", "SELECT pg_sleep($1::bigint / 1000.0)", PG_FAST, false, false},
    [SLEEP] = {"sleep", "SELECT pg_sleep($1::bigint / 1000.0)", PG_SLOW, false, false},
    [ECHO] = {"echo",
              "SELECT $1::text, $2::bigint, $3::uuid, $4::boolean, $5::text, array_to_string($6::text[], '|', 'NULL'), "
              "(SELECT sum(x) FROM unnest($7::bigint[]) x), $8::bytea, cardinality($9::text[])",
              PG_FAST, false, false},
    [BYTES] = {"bytes", "SELECT $1::bytea", PG_FAST, false, true},
    [PUT_DEFERRED] = {"put_deferred", "INSERT INTO u (id) VALUES ($1::bigint)", PG_WRITE, true, false},
    [MISSING] = {"missing", "SELECT x FROM no_such_table WHERE y = $1::bigint", PG_FAST, false, false},
};

static struct config cfg;
static struct pg *pg;
static int running;

static void configure(void)
{
    memset(&cfg, 0, sizeof cfg);
    cfg.database_url = server.url;
    cfg.database_slow_pool = 2;
    cfg.database_max_connections = 10;
    cfg.database_max_queue = 1000;
    cfg.database_statement_timeout = 3000;
    cfg.database_connect_timeout = 2000;
    cfg.database_prepared = true;
}

static void sql(const char *text)
{
    private_pg_sql(&server, text);
}

static long sql_number(const char *text)
{
    return private_pg_sql(&server, text);
}

static int setup(void **state)
{
    struct err e;
    (void)state;
    running = 0;
    configure();
    sql("DROP TABLE IF EXISTS t; CREATE TABLE t (id bigint PRIMARY KEY, v text);"
        "INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 100) i");
    assert_int_equal(loop_init(&e), 0);
    assert_int_equal(pg_open(&cfg, table, N_STMT, &pg, &e), 0);
    return 0;
}

static void count_down(void)
{
    if (--running == 0)
        loop_stop();
}

/* One turn of the loop that does not wait. */
static void turn(void)
{
    event_base_loop(loop_base(), EVLOOP_ONCE | EVLOOP_NONBLOCK);
    loop_stop();
    loop_run();
}

static int teardown(void **state)
{
    (void)state;
    pg_close(pg);
    while (fiber_count()) /* connectors see that it is over */
        turn();
    fiber_fini();
    loop_fini();
    return 0;
}

/* One call on a fiber of its own. */
struct call {
    int stmt;
    int64_t arg[3];
    int n;
    const char *text; /* second argument, as text */
    int64_t deadline_ms;
    struct fiber *fiber;
    int rc, rows;
    struct err e;
    char sqlstate[6], value[40];
};

static suspends void call_main(void *arg)
{
    struct call *c = arg;
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows rows;
    c->fiber = fiber_self();
    if (c->deadline_ms)
        fiber_set_deadline(fiber_self(), clock_ns() + c->deadline_ms * MS);
    pg_args_init(&args, &a);
    for (int i = 0; i < c->n; i++) {
        if (i == 1 && c->text)
            pg_arg_str(&args, str_of(c->text));
        else
            pg_arg_i64(&args, c->arg[i]);
    }
    c->rc = pg_call(pg, c->stmt, &args, &a, &rows, &c->e);
    if (c->rc == 0) {
        c->rows = rows.n;
        if (rows.n)
            str_copyz(c->value, sizeof c->value, pg_str(&rows, 0, 0));
    }
    memcpy(c->sqlstate, args.sqlstate, sizeof c->sqlstate);
    c->fiber = NULL;
    arena_fini(&a);
    count_down();
}

static void start(struct call *c)
{
    running++;
    assert_non_null(fiber_spawn("call", call_main, c));
}

static void one(struct call *c)
{
    start(c);
    loop_run();
}

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

static void test_the_budget_of_connections(void **state)
{
    (void)state;
    struct call a = {.stmt = GET, .arg = {1}, .n = 1}, b = {.stmt = SLEEP, .arg = {1}, .n = 1};
    struct scoreboard *sb;
    struct err e;
    int fd;
    one(&a);
    uint64_t mine = slot_self->stat[STAT_store_connections];
    assert_int_equal(scoreboard_create(&sb, &fd, 2, &e), 0);
    struct slot *before = slot_self;
    scoreboard_attach(sb, 0);
    slot_self->stat[STAT_store_connections] = mine;
    atomic_store(&sb->slot[0].state, WORKER_READY);
    atomic_store(&sb->slot[1].state, WORKER_READY);
    sb->slot[1].stat[STAT_store_connections] = 10; /* a sibling has them all */
    one(&b);
    assert_int_equal(b.rc, -1);
    assert_int_equal(b.e.code, ERR_OVERLOADED);
    atomic_store(&sb->slot[1].state, WORKER_EXITED); /* it was killed: its share is free */
    while (b.rc) {
        struct call nap = {.stmt = SLEEP_FAST, .arg = {20}, .n = 1};
        one(&nap);
        one(&b);
    }
    assert_int_equal(b.rc, 0);
    before->stat[STAT_store_connections] = slot_self->stat[STAT_store_connections];
    slot_self = before;
    close(fd);
}

/* ---- loss and return of the server ---- */

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
    do
        turn();
    while (sql_number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ragd' AND state = 'active' AND "
                      "query LIKE 'WITH s%'") == 0);
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
        TEST(test_statement_timeout),
        TEST(test_a_sent_write_is_waited_for),
        TEST(test_the_queue_is_bounded),
        TEST(test_the_budget_of_connections),
        TEST(test_reads_survive_a_lost_connection),
        TEST(test_a_write_in_flight_says_that_it_may_have_happened),
        TEST(test_urls),
        TEST(test_several_hosts),
        TEST(test_standbys_are_passed_over),
        TEST(test_listen),
        TEST(test_session),
        TEST(test_without_prepared_statements),
        TEST(test_calls_fail_at_once_while_the_server_is_gone_and_work_when_it_is_back),
    };
    private_pg_start(&server);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    private_pg_stop(&server);
    return failed;
}
