#include "worker/store/sqlite.h"
#include "common/clock.h"

#define KEPT_US (24 * 3600 * 1000000LL)

struct begin_call {
    struct arena *a;
    const struct store_idempotency *in;
    struct store_idempotency out;
    bool mine;
};

static int expire(struct sqlite *db, const struct store_idempotency *in, int64_t now, struct err *e)
{
    struct stmt *s = stmt_get(db, "DELETE FROM idempotency WHERE key = ?1 AND (created_us < ?2"
                                  " OR (status = 0 AND created_us < ?3))");
    bind_sha(s, &in->key);
    bind_i64(s, now - KEPT_US);
    bind_i64(s, now - in->abandoned_us);
    if (stmt_run(s, e) < 0)
        return -1;
    s = stmt_get(db, "DELETE FROM idempotency WHERE key IN"
                     " (SELECT key FROM idempotency WHERE created_us < ? ORDER BY created_us LIMIT 20)");
    bind_i64(s, now - KEPT_US);
    return stmt_run(s, e);
}

static int read_key(struct sqlite *db, struct begin_call *c, struct err *e)
{
    struct store_idempotency *out = &c->out;
    struct stmt *s = stmt_get(db, "SELECT key, request, status, content_type, body, location, etag, created_us"
                                  " FROM idempotency WHERE key = ?");
    bind_sha(s, &c->in->key);
    if (stmt_row(s, e) <= 0)
        return -1;
    col_sha(s, &out->key);
    col_sha(s, &out->request);
    out->status = (int)col_i64(s);
    out->content_type = col_str(s, c->a);
    out->body = col_str(s, c->a);
    out->location = col_str(s, c->a);
    out->etag = col_str(s, c->a);
    out->created_us = col_i64(s);
    stmt_end(s);
    return 0;
}

static int begin(struct sqlite *db, void *arg, struct err *e)
{
    struct begin_call *c = arg;
    int64_t now = clock_wall_us();
    if (expire(db, c->in, now, e) < 0)
        return -1;
    struct stmt *s = stmt_get(db, "INSERT INTO idempotency (key, request, status, created_us) VALUES (?, ?, 0, ?)"
                                  " ON CONFLICT DO NOTHING");
    bind_sha(s, &c->in->key);
    bind_sha(s, &c->in->request);
    bind_i64(s, now);
    if (stmt_run(s, e) < 0)
        return -1;
    c->mine = sqlite3_changes(db->h) == 1;
    return read_key(db, c, e);
}

suspends int sqlite_idempotency_begin(struct store *st, struct arena *a, const struct store_idempotency *in, bool *mine,
                                      struct store_idempotency *out, struct err *e)
{
    struct begin_call c = {.a = a, .in = in};
    if (sqlite_write(sqlite_of(st), begin, &c, e) < 0)
        return -1;
    *mine = c.mine;
    *out = c.out;
    return 0;
}

static int end(struct sqlite *db, void *arg, struct err *e)
{
    const struct store_idempotency *in = arg;
    struct stmt *s;
    if (in->status == 0) {
        s = stmt_get(db, "DELETE FROM idempotency WHERE key = ? AND status = 0 AND created_us = ?");
        bind_sha(s, &in->key);
        bind_i64(s, in->created_us);
        return stmt_run(s, e);
    }
    s = stmt_get(db, "UPDATE idempotency SET status = ?, content_type = ?, body = ?, location = ?, etag = ?"
                     " WHERE key = ? AND created_us = ?");
    bind_i64(s, in->status);
    bind_str(s, in->content_type);
    bind_blob(s, in->body);
    bind_str(s, in->location);
    bind_str(s, in->etag);
    bind_sha(s, &in->key);
    bind_i64(s, in->created_us);
    return stmt_run(s, e);
}

suspends int sqlite_idempotency_end(struct store *st, const struct store_idempotency *in, struct err *e)
{
    struct store_idempotency copy = *in;
    return sqlite_write(sqlite_of(st), end, &copy, e);
}
