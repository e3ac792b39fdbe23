/* Calls of worker/io/pg.h, each on a fiber of its own, against a private server: what its tests stand on. */
#pragma once
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

static inline void configure(void)
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

static inline void sql(const char *text)
{
    private_pg_sql(&server, text);
}

static inline long sql_number(const char *text)
{
    return private_pg_sql(&server, text);
}

static inline int setup(void **state)
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

static inline void count_down(void)
{
    if (--running == 0)
        loop_stop();
}

/* One turn of the loop that does not wait. */
static inline void turn(void)
{
    event_base_loop(loop_base(), EVLOOP_ONCE | EVLOOP_NONBLOCK);
    loop_stop();
    loop_run();
}

/* Turns the loop until the query says so. */
static inline void turn_until(const char *query, long at_least)
{
    int64_t end = clock_ns() + 30 * SEC;
    do {
        turn();
        assert_true(clock_ns() < end);
    } while (sql_number(query) < at_least);
}

static inline int teardown(void **state)
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

static inline suspends void call_main(void *arg)
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

static inline void start(struct call *c)
{
    running++;
    assert_non_null(fiber_spawn("call", call_main, c));
}

static inline void one(struct call *c)
{
    start(c);
    loop_run();
}
