/* PostgreSQL: the only user of libpq. One `struct pg` per worker holds three lanes of connections:
 *   FAST   one connection, pipelined: all calls of a loop turn go out together under one Sync. Short reads only, since
 *          a pipeline answers strictly in order.
 *   WRITE  one connection, one batch in flight; what arrives meanwhile is the next batch and shares its commit.
 *   SLOW   a few connections, one call each.
 * Calls of one batch share a transaction. When one of them fails, the others are sent again, one Sync each, so that
 * only the guilty caller sees the error. A result of a write is handed out after its commit, not before.
 *
 * A lost connection is made anew with back-off. Reads in flight are sent once more; writes in flight report
 * ERR_NOT_READY with "may have happened" in `log`. While the database cannot be reached, calls fail at once with
 * ERR_NOT_READY.
 *
 * A call that its fiber gives up is cancelled on the server when it runs longer than a moment (pg_cancel.c). A write is
 * waited for even then, once it was sent, so that its caller learns whether it happened.
 *
 * database.max_connections bounds the connections of all workers (pg_budget.c). Where there are too few, workers take
 * turns. A call waits for its worker's turn, for database.connect_timeout, and then fails with ERR_OVERLOADED. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "common/uuid.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"

struct pg;

enum pg_lane { PG_FAST, PG_WRITE, PG_SLOW, PG_LANES };

/* The statements of a product are one table; an index into it names a statement. */
struct pg_stmt {
    const char *name; /* of the prepared statement, and in messages to the operator */
    const char *sql;
    enum pg_lane lane;
    bool write;  /* changes something; every statement of the WRITE lane does */
    bool binary; /* result columns come in binary: for bytea */
};

/* Reads database.* of `cfg`, which must outlive it. Connects in the background. ERR_VALIDATION: not a usable URL. */
must_use int pg_open(const struct config *cfg, const struct pg_stmt *table, size_t n, struct pg **out, struct err *e);
/* What pg_open() would say about the URL. */
must_use int pg_check_url(const struct config *cfg, struct err *e);
/* Waits until the worker has a place for its first connection. False: there is no room now, and it shall go on without.
 * A database that is down is no reason to wait. For a boot: requests would go to a worker that cannot work on them. */
suspends bool pg_await_room(struct pg *pg);
/* From now on a connection is closed as soon as it is idle, and made again when a call needs one: the next generation
 * finds room. */
void pg_drain(struct pg *pg);
/* The time is up: cancels what runs on the server. Writes that it hits report ERR_CANCELED, and have not happened. */
void pg_cancel_all(struct pg *pg);
/* No call is in hand any more: closes the connections at once. True when the server has closed them, too. */
bool pg_leave(struct pg *pg);
/* Callers that still wait get ERR_CANCELED. NULL accepted. */
void pg_close(struct pg *pg);

/* ---- arguments: always binary, so nothing is escaped or NUL-terminated ---- */
enum { PG_ARGS_MAX = 32 };
struct pg_args {
    struct arena *a; /* for what must be encoded */
    int n;
    const char *value[PG_ARGS_MAX];
    int length[PG_ARGS_MAX], format[PG_ARGS_MAX];
    /* filled by a failed call */
    char sqlstate[6], constraint[64];
};
void pg_args_init(struct pg_args *args, struct arena *a);
void pg_arg_str(struct pg_args *args, struct str s); /* text, bytea; for jsonb cast: $1::text::jsonb */
void pg_arg_opt(struct pg_args *args, struct str s); /* "" is NULL */
void pg_arg_i64(struct pg_args *args, int64_t v);    /* bigint */
void pg_arg_bool(struct pg_args *args, bool v);
void pg_arg_uuid(struct pg_args *args, const struct uuid *u); /* not copied */
void pg_arg_null(struct pg_args *args);

/* One-dimensional arrays, for unnest($1::text[]). */
enum pg_type { PG_BOOL = 16, PG_BYTEA = 17, PG_INT8 = 20, PG_INT4 = 23, PG_TEXT = 25, PG_UUID = 2950 };
struct pg_array {
    struct buf b;
    int32_t n;
    bool nulls;
    enum pg_type type;
};
void pg_array_init(struct pg_array *x, enum pg_type element);
void pg_array_add(struct pg_array *x, const void *p, size_t n);
void pg_array_i64(struct pg_array *x, int64_t v);
void pg_array_null(struct pg_array *x);
void pg_arg_array(struct pg_args *args, struct pg_array *x); /* the array's memory joins the arena of `args` */

/* ---- results: slices into what libpq received; they live as long as the arena ---- */
struct pg_rows {
    const void *res;
    int n;
};
struct str pg_str(const struct pg_rows *r, int row, int col); /* NULL: empty */
int64_t pg_i64(const struct pg_rows *r, int row, int col);    /* NULL: 0 */
bool pg_bool(const struct pg_rows *r, int row, int col);
bool pg_uuid(const struct pg_rows *r, int row, int col, struct uuid *out); /* NULL: false, zeroed */
bool pg_is_null(const struct pg_rows *r, int row, int col);
/* A bytea column in text format, decoded into the arena. */
struct str pg_bytea(const struct pg_rows *r, int row, int col, struct arena *a);

/* Runs statement `stmt` of the table. */
suspends must_use int pg_call(struct pg *pg, int stmt, struct pg_args *args, struct arena *a, struct pg_rows *out,
                              struct err *e);
/* Runs SQL made at run time, on the slow lane. `sql` must stay until the call returns. */
suspends must_use int pg_query(struct pg *pg, const char *sql, bool write, struct pg_args *args, struct arena *a,
                               struct pg_rows *out, struct err *e);

/* A connection of its own for scripts of several statements: migrations. Nothing is pipelined or retried. */
struct pg_session;
suspends must_use int pg_session_open(struct pg *pg, struct pg_session **out, struct err *e);
/* The last statement's rows. */
suspends must_use int pg_session_run(struct pg_session *s, const char *script, struct arena *a, struct pg_rows *out,
                                     struct err *e);
void pg_session_close(struct pg_session *s); /* an open transaction is rolled back */

/* `fn(arg)` is called, from the loop, when somebody notifies `channel`, and after each reconnect, when notices may
 * have been missed. One channel per worker. `fn` NULL: nobody is told any more. */
void pg_listen(struct pg *pg, const char *channel, void (*fn)(void *arg), void *arg);
