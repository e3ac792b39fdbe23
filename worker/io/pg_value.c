/* Arguments, results and errors of io/pg. */
#include "worker/io/pg_impl.h"
#include <arpa/inet.h>
#include <assert.h>
#include <endian.h>
#include <stdlib.h>

/* ---- arguments ---- */

void pg_args_init(struct pg_args *args, struct arena *a)
{
    args->a = a;
    args->n = 0;
    args->sqlstate[0] = args->constraint[0] = 0;
}

static void add(struct pg_args *args, const void *p, size_t n)
{
    assert(args->n < PG_ARGS_MAX && n <= INT32_MAX);
    args->value[args->n] = p;
    args->length[args->n] = (int)n;
    args->format[args->n++] = 1;
}

void pg_arg_str(struct pg_args *args, struct str s)
{
    add(args, s.p ? s.p : "", s.n);
}

void pg_arg_opt(struct pg_args *args, struct str s)
{
    add(args, s.n ? s.p : NULL, s.n);
}

void pg_arg_i64(struct pg_args *args, int64_t v)
{
    uint64_t *p = arena_alloc(args->a, sizeof *p);
    *p = htobe64((uint64_t)v);
    add(args, p, sizeof *p);
}

void pg_arg_bool(struct pg_args *args, bool v)
{
    add(args, v ? "\1" : "\0", 1);
}

void pg_arg_uuid(struct pg_args *args, const struct uuid *u)
{
    add(args, u->b, sizeof u->b);
}

void pg_arg_null(struct pg_args *args)
{
    add(args, NULL, 0);
}

/* Binary form of an array: dimensions, has-nulls, element type, then size and lower bound of each dimension, then each
 * element as length and bytes (src/backend/utils/adt/arrayfuncs.c, array_recv). */
enum { ARRAY_HEAD = 20 };

static void add_u32(struct buf *b, uint32_t v)
{
    v = htonl(v);
    buf_add(b, &v, sizeof v);
}

void pg_array_init(struct pg_array *x, enum pg_type element)
{
    *x = (struct pg_array){.type = element};
    buf_reserve(&x->b, ARRAY_HEAD);
    x->b.n = ARRAY_HEAD;
}

void pg_array_add(struct pg_array *x, const void *p, size_t n)
{
    assert(n <= INT32_MAX);
    add_u32(&x->b, (uint32_t)n);
    buf_add(&x->b, p, n);
    x->n++;
}

void pg_array_i64(struct pg_array *x, int64_t v)
{
    uint64_t be = htobe64((uint64_t)v);
    pg_array_add(x, &be, sizeof be);
}

void pg_array_null(struct pg_array *x)
{
    add_u32(&x->b, UINT32_MAX);
    x->nulls = true;
    x->n++;
}

void pg_arg_array(struct pg_args *args, struct pg_array *x)
{
    uint32_t head[ARRAY_HEAD / 4] = {htonl(x->n > 0), htonl(x->nulls), htonl(x->type), htonl((uint32_t)x->n), htonl(1)};
    memcpy(x->b.p, head, sizeof head);
    arena_own(args->a, x->b.p, free);
    add(args, x->b.p, x->n ? x->b.n : ARRAY_HEAD - 8);
    x->b = (struct buf){0};
}

/* ---- results ---- */

struct str pg_str(const struct pg_rows *r, int row, int col)
{
    return (struct str){PQgetvalue(r->res, row, col), (size_t)PQgetlength(r->res, row, col)};
}

int64_t pg_i64(const struct pg_rows *r, int row, int col)
{
    int64_t v = 0;
    if (!str_to_i64(pg_str(r, row, col), &v))
        return 0;
    return v;
}

bool pg_bool(const struct pg_rows *r, int row, int col)
{
    return PQgetvalue(r->res, row, col)[0] == 't';
}

bool pg_uuid(const struct pg_rows *r, int row, int col, struct uuid *out)
{
    if (uuid_parse(pg_str(r, row, col), out))
        return true;
    memset(out, 0, sizeof *out);
    return false;
}

bool pg_is_null(const struct pg_rows *r, int row, int col)
{
    return PQgetisnull(r->res, row, col);
}

static int nibble(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10; /* the server writes lower case */
}

struct str pg_bytea(const struct pg_rows *r, int row, int col, struct arena *a)
{
    struct str hex = pg_str(r, row, col);
    if (hex.n < 2)
        return (struct str){"", 0};
    size_t n = hex.n / 2 - 1;
    char *out = arena_alloc(a, n + 1);
    for (size_t i = 0; i < n; i++)
        out[i] = (char)(nibble(hex.p[2 * i + 2]) << 4 | nibble(hex.p[2 * i + 3]));
    out[n] = 0;
    return (struct str){out, n};
}

/* ---- errors ---- */

static const struct {
    const char *prefix; /* of SQLSTATE, longest first */
    enum err_code code;
    const char *msg;
} states[] = {
    {"53100", ERR_STORAGE_FULL, "the database's disk is full"},
    {"53200", ERR_OVERLOADED, "the database is out of memory"},
    {"53300", ERR_NOT_READY, "the database accepts no more connections"},
    {"57014", ERR_DEADLINE, "the database did not finish in time"},
    {"55P03", ERR_OVERLOADED, "the database is busy"},
    {"40001", ERR_OVERLOADED, "too many changes of the same object at once"},
    {"40P01", ERR_OVERLOADED, "too many changes of the same object at once"},
    {"23505", ERR_CONFLICT, "an object like this exists already"},
    {"23503", ERR_CONFLICT, "an object that this refers to is gone"},
    {"22021", ERR_VALIDATION, "the text holds bytes that the database cannot store"},
    {"22P05", ERR_VALIDATION, "the text holds bytes that the database cannot store"},
    {"25006", ERR_NOT_READY, "the database is read-only"},
    {"42P01", ERR_NOT_READY, "the database's schema is missing or of another release: run `ragd migrate`"},
    {"42703", ERR_NOT_READY, "the database's schema is missing or of another release: run `ragd migrate`"},
    {"42501", ERR_NOT_READY, "the database denies access to its tables"},
    {"3D000", ERR_NOT_READY, "the database does not exist"},
    {"54", ERR_VALIDATION, "the request is larger than the database can store"},
    {"53", ERR_NOT_READY, "the database is short of resources"},
    {"57", ERR_NOT_READY, "the database is shutting down or starting"},
    {"58", ERR_NOT_READY, "the database has trouble with its storage"},
    {"08", ERR_NOT_READY, "the connection to the database was lost"},
    {"28", ERR_NOT_READY, "the database refused the credentials"},
};

/* libpq's messages end in newlines and may have several lines. */
static int set_log(struct err *e, const char *what, const char *state, const char *text)
{
    err_log(e, "%s: %s%s%s", what, state, *state ? " " : "", text);
    for (char *p = e->log; *p; p++)
        if (*p == '\n' || *p == '\t')
            *p = ' ';
    return -1;
}

int pg_error(struct err *e, const PGresult *res, const char *what)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    enum err_code code = state ? ERR_INTERNAL : ERR_NOT_READY;
    const char *msg = state ? "the database refused a statement" : "the connection to the database was lost";
    for (size_t i = 0; state && i < sizeof states / sizeof *states; i++)
        if (strncmp(state, states[i].prefix, strlen(states[i].prefix)) == 0) {
            code = states[i].code;
            msg = states[i].msg;
            break;
        }
    err_set(e, code, "%s", msg);
    return set_log(e, what, state ? state : "", text ? text : PQresultErrorMessage(res));
}

int pg_error_conn(struct err *e, PGconn *c, const char *what)
{
    err_set(e, ERR_NOT_READY, "the database cannot be reached");
    return set_log(e, what, "", c ? PQerrorMessage(c) : "out of memory");
}
