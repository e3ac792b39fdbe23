/* Webhooks: their settings, and how they fare. */
#include "worker/store/sqlite.h"
#include "common/clock.h"

#define COLUMNS                                                                                   \
    "id, url, events, secret, headers, enabled, disabled_reason, version, updated_us, failures, " \
    "failing_since_us, last_try_us, last_status, last_error, dropped, last_dropped_us"

static void webhook_read(struct stmt *s, struct arena *a, struct store_webhook *out)
{
    col_uuid(s, &out->id);
    out->url = col_str(s, a);
    out->events = col_str(s, a);
    out->secret = col_str(s, a);
    out->headers = col_str(s, a);
    out->enabled = col_i64(s) != 0;
    out->disabled_reason = col_str(s, a);
    out->version = col_i64(s);
    out->updated_us = col_i64(s);
    out->failures = col_i64(s);
    out->failing_since_us = col_i64(s);
    out->last_try_us = col_i64(s);
    out->last_status = (int)col_i64(s);
    out->last_error = col_str(s, a);
    out->dropped = col_i64(s);
    out->last_dropped_us = col_i64(s);
}

int webhook_by_id(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_webhook *out, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT " COLUMNS " FROM webhooks WHERE id = ? AND deleted = 0");
    bind_uuid(s, id);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return rc < 0 ? -1 : err_set(e, ERR_NOT_FOUND, NO_WEBHOOK);
    webhook_read(s, a, out);
    stmt_end(s);
    return 0;
}

/* ---- settings ---- */

struct create_call {
    struct arena *a;
    const struct store_webhook *in;
    int64_t max;
    struct store_webhook *out;
};

static int create(struct sqlite *db, void *arg, struct err *e)
{
    struct create_call *c = arg;
    struct uuid id = uuid_v7();
    struct stmt *s =
        stmt_get(db, "INSERT INTO webhooks (id, url, events, secret, headers, enabled, updated_us)"
                     " SELECT ?, ?, ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM webhooks WHERE deleted = 0) < ?");
    bind_uuid(s, &id);
    bind_str(s, c->in->url);
    bind_str(s, c->in->events);
    bind_str(s, c->in->secret);
    bind_str(s, c->in->headers);
    bind_i64(s, c->in->enabled);
    bind_i64(s, uuid_time_us(&id));
    bind_i64(s, c->max);
    if (stmt_run(s, e) < 0)
        return -1;
    if (sqlite3_changes(db->h) != 1)
        return store_too_many_webhooks(c->max, e);
    return webhook_by_id(db, c->a, &id, c->out, e);
}

suspends int sqlite_webhook_create(struct store *st, struct arena *a, const struct store_webhook *in, int64_t max,
                                   struct store_webhook *out, struct err *e)
{
    struct store_webhook made;
    struct create_call c = {a, in, max, &made};
    if (sqlite_write(sqlite_of(st), create, &c, e) < 0)
        return -1;
    *out = made;
    return 0;
}

suspends int sqlite_webhook_get(struct store *st, struct arena *a, const struct uuid *id, struct store_webhook *out,
                                struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, webhook_by_id(db, a, id, out, e));
}

static int list(struct sqlite *db, struct arena *a, const struct store_page *p, struct store_webhook *rows, size_t *n,
                struct err *e)
{
    struct page_sql sql = page_sql(a, p, "id");
    int rc;
    struct stmt *s = stmt_get(
        db,
        arena_printf(a, "SELECT " COLUMNS " FROM webhooks WHERE deleted = 0%s%s LIMIT ?", sql.where.p, sql.order.p).p);
    page_bind(s, p);
    bind_i64(s, p->limit + 1);
    for (*n = 0; (rc = stmt_row(s, e)) > 0;)
        webhook_read(s, a, &rows[(*n)++]);
    return rc;
}

suspends int sqlite_webhook_list(struct store *st, struct arena *a, const struct store_page *p,
                                 struct store_webhook **out, size_t *n, bool *more, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct store_webhook *rows = arena_alloc(a, ((size_t)p->limit + 1) * sizeof *rows);
    size_t found;
    if (SQLITE_TRY(db, e, list(db, a, p, rows, &found, e)) < 0)
        return -1;
    *more = found > (size_t)p->limit;
    *n = *more ? (size_t)p->limit : found;
    page_turn(p, rows, *n, sizeof *rows);
    *out = rows;
    return 0;
}

struct patch_call {
    struct arena *a;
    const struct uuid *id;
    const struct store_webhook_patch *patch;
    int64_t if_version;
    struct store_webhook *out;
};

static int patch(struct sqlite *db, void *arg, struct err *e)
{
    struct patch_call *c = arg;
    const struct store_webhook_patch *p = c->patch;
    struct store_webhook now;
    if (webhook_by_id(db, c->a, c->id, &now, e) < 0 || version_is(now.version, c->if_version, e) < 0)
        return -1;
    bool anew = p->set_enabled && p->enabled;
    struct stmt *s = stmt_get(db, "UPDATE webhooks SET url = ?1, events = ?2, secret = ?3, headers = ?4, enabled = ?5,"
                                  " disabled_reason = iif(?6, '', disabled_reason), failures = iif(?7, 0, failures),"
                                  " failing_since_us = iif(?7, 0, failing_since_us), version = version + 1,"
                                  " updated_us = ?8 WHERE id = ?9");
    bind_str(s, p->set_url ? p->url : now.url);
    bind_str(s, p->set_events ? p->events : now.events);
    bind_str(s, p->set_secret ? p->secret : now.secret);
    bind_str(s, p->set_headers ? p->headers : now.headers);
    bind_i64(s, p->set_enabled ? p->enabled : now.enabled);
    bind_i64(s, p->set_enabled);
    bind_i64(s, anew);
    bind_i64(s, clock_wall_us());
    bind_uuid(s, c->id);
    return stmt_run(s, e) < 0 ? -1 : webhook_by_id(db, c->a, c->id, c->out, e);
}

suspends int sqlite_webhook_patch(struct store *st, struct arena *a, const struct uuid *id,
                                  const struct store_webhook_patch *p, int64_t if_version, struct store_webhook *out,
                                  struct err *e)
{
    struct store_webhook now;
    struct patch_call c = {a, id, p, if_version, &now};
    if (sqlite_write(sqlite_of(st), patch, &c, e) < 0)
        return -1;
    *out = now;
    return 0;
}

struct delete_call {
    const struct uuid *id;
    int64_t if_version;
};

/* Its deliveries may be many: they are left to the sweep, and its row with them. */
static int delete (struct sqlite *db, void *arg, struct err *e)
{
    struct delete_call *c = arg;
    struct stmt *s = stmt_get(db, "SELECT no, version FROM webhooks WHERE id = ? AND deleted = 0");
    bind_uuid(s, c->id);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return rc < 0 ? -1 : err_set(e, ERR_NOT_FOUND, NO_WEBHOOK);
    int64_t no = col_i64(s), version = col_i64(s);
    stmt_end(s);
    if (version_is(version, c->if_version, e) < 0)
        return -1;
    s = stmt_get(db, "UPDATE webhooks SET deleted = 1, enabled = 0, secret = '', headers = '{}' WHERE no = ?");
    bind_i64(s, no);
    return stmt_run(s, e);
}

suspends int sqlite_webhook_delete(struct store *st, const struct uuid *id, int64_t if_version, struct err *e)
{
    struct delete_call c = {id, if_version};
    return sqlite_write(sqlite_of(st), delete, &c, e);
}
