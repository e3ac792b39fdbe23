/* Golden sets and what was found with them. */
#include "worker/store/sqlite.h"

static void read_set(struct stmt *s, struct arena *a, struct store_eval_set *out)
{
    col_uuid(s, &out->id);
    out->name = col_str(s, a);
    out->questions = col_i64(s);
    out->text = col_str(s, a);
}

/* ---- create ---- */

struct create_call {
    struct store_eval_set in;
    int64_t max;
    struct uuid id;
};

/* 1: there is a row, 0: not, -1. */
static int any(struct stmt *s, struct err *e)
{
    int rc = stmt_row(s, e);
    if (rc > 0)
        stmt_end(s);
    return rc;
}

static int may_create(struct sqlite *db, const struct create_call *c, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT 1 FROM eval_sets WHERE name = ?");
    bind_str(s, c->in.name);
    int rc = any(s, e);
    if (rc)
        return rc < 0 ? -1 : store_set_taken(c->in.name, e);
    s = stmt_get(db, "SELECT 1 FROM eval_sets LIMIT 1 OFFSET ?");
    bind_i64(s, c->max - 1);
    rc = any(s, e);
    return rc <= 0 ? rc : store_sets_full(c->max, e);
}

static int create(struct sqlite *db, void *arg, struct err *e)
{
    struct create_call *c = arg;
    if (may_create(db, c, e) < 0)
        return -1;
    c->id = uuid_v7();
    struct stmt *s = stmt_get(db, "INSERT INTO eval_sets (id, name, questions, text) VALUES (?, ?, ?, ?)");
    bind_uuid(s, &c->id);
    bind_str(s, c->in.name);
    bind_i64(s, c->in.questions);
    bind_str(s, c->in.text);
    return stmt_run(s, e);
}

suspends int sqlite_eval_set_create(struct store *st, struct arena *a, const struct store_eval_set *in, int64_t max,
                                    struct store_eval_set *out, struct err *e)
{
    struct create_call c = {.in = *in, .max = max};
    if (sqlite_write(sqlite_of(st), create, &c, e) < 0)
        return -1;
    *out = (struct store_eval_set){.id = c.id, .questions = in->questions};
    out->name = arena_dup(a, in->name);
    out->text = arena_dup(a, in->text);
    return 0;
}

/* ---- get, list ---- */

static int get(struct sqlite *db, struct arena *a, const struct uuid *id, struct str name, struct store_eval_set *out,
               struct err *e)
{
    struct stmt *s = stmt_get(db, id ? "SELECT id, name, questions, text FROM eval_sets WHERE id = ?"
                                     : "SELECT id, name, questions, text FROM eval_sets WHERE name = ?");
    if (id)
        bind_uuid(s, id);
    else
        bind_str(s, name);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return rc < 0 ? -1 : store_no_set(e);
    read_set(s, a, out);
    stmt_end(s);
    return 0;
}

suspends int sqlite_eval_set_get(struct store *st, struct arena *a, const struct uuid *id, struct str name,
                                 struct store_eval_set *out, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, get(db, a, id, name, out, e));
}

static int list(struct sqlite *db, struct arena *a, const struct store_page *p, struct store_eval_set *rows, size_t *n,
                struct err *e)
{
    struct page_sql page = page_sql(a, p, "id");
    struct stmt *s =
        stmt_get(db, arena_printf(a, "SELECT id, name, questions, '' FROM eval_sets WHERE 1" STR_FMT STR_FMT " LIMIT ?",
                                  STR_ARG(page.where), STR_ARG(page.order))
                         .p);
    page_bind(s, p);
    bind_i64(s, p->limit + 1);
    int rc;
    *n = 0;
    while ((rc = stmt_row(s, e)) > 0)
        read_set(s, a, &rows[(*n)++]);
    return rc;
}

suspends int sqlite_eval_set_list(struct store *st, struct arena *a, const struct store_page *p,
                                  struct store_eval_set **out, size_t *n, bool *more, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct store_eval_set *rows = arena_alloc(a, ((size_t)p->limit + 1) * sizeof *rows);
    size_t found;
    if (SQLITE_TRY(db, e, list(db, a, p, rows, &found, e)) < 0)
        return -1;
    *more = found > (size_t)p->limit;
    *n = *more ? (size_t)p->limit : found;
    page_turn(p, rows, *n, sizeof *rows);
    *out = rows;
    return 0;
}

/* ---- delete ---- */

static int delete (struct sqlite *db, void *arg, struct err *e)
{
    const struct uuid *id = arg;
    struct stmt *s = stmt_get(db, "DELETE FROM eval_sets WHERE id = ?");
    bind_uuid(s, id);
    if (stmt_run(s, e) < 0)
        return -1;
    if (!sqlite3_changes(db->h))
        return store_no_set(e);
    s = stmt_get(db, "DELETE FROM eval_results WHERE eval_set = ?");
    bind_uuid(s, id);
    return stmt_run(s, e);
}

suspends int sqlite_eval_set_delete(struct store *st, const struct uuid *id, struct err *e)
{
    struct uuid copy = *id;
    return sqlite_write(sqlite_of(st), delete, &copy, e);
}

/* ---- results ---- */

struct put_call {
    struct uuid job, set;
    struct str result;
    int keep;
};

static int put(struct sqlite *db, void *arg, struct err *e)
{
    const struct put_call *c = arg;
    struct stmt *s = stmt_get(db, "INSERT OR REPLACE INTO eval_results (job, eval_set, result)"
                                  " SELECT ?, id, ? FROM eval_sets WHERE id = ?");
    bind_uuid(s, &c->job);
    bind_str(s, c->result);
    bind_uuid(s, &c->set);
    if (stmt_run(s, e) < 0)
        return -1;
    if (!sqlite3_changes(db->h))
        return store_no_set(e);
    s = stmt_get(db, "DELETE FROM eval_results WHERE eval_set = ?1 AND job IN (SELECT job FROM eval_results"
                     " WHERE eval_set = ?1 AND job <> ?2 ORDER BY job DESC LIMIT -1 OFFSET ?3)");
    bind_uuid(s, &c->set);
    bind_uuid(s, &c->job);
    bind_i64(s, c->keep - 1);
    return stmt_run(s, e);
}

suspends int sqlite_eval_result_put(struct store *st, const struct uuid *job, const struct uuid *set, struct str result,
                                    int keep, struct err *e)
{
    struct put_call c = {*job, *set, result, keep};
    return sqlite_write(sqlite_of(st), put, &c, e);
}

static int result(struct sqlite *db, struct arena *a, const struct uuid *job, struct str *out, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT result FROM eval_results WHERE job = ?");
    bind_uuid(s, job);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return rc < 0 ? -1 : store_no_result(e);
    *out = col_str(s, a);
    stmt_end(s);
    return 0;
}

suspends int sqlite_eval_result_get(struct store *st, struct arena *a, const struct uuid *job, struct str *out,
                                    struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, result(db, a, job, out, e));
}
