/* What is delivered to webhooks. The deliveries of jobs are made by a trigger (migrations: jobs_ended). */
#include "worker/store/sqlite.h"
#include "common/clock.h"

/* ---- deliveries as clients see them ---- */

#define D_COLUMNS "d.no, d.id, d.type, d.data, d.state, d.created_us, d.due_us, d.ended_us, d.tries, d.status, d.error"

static void delivery_read(struct stmt *s, struct arena *a, struct store_delivery *out)
{
    *out = (struct store_delivery){.no = col_i64(s)};
    col_uuid(s, &out->id);
    out->type = col_str(s, a);
    out->data = col_str(s, a);
    out->state = (enum delivery_state)col_i64(s);
    out->created_us = col_i64(s);
    out->due_us = col_i64(s);
    out->ended_us = col_i64(s);
    out->tries = (int)col_i64(s);
    out->status = (int)col_i64(s);
    out->error = col_str(s, a);
}

struct add_call {
    struct arena *a;
    const struct uuid *webhook;
    const struct store_delivery *in;
    struct store_delivery out;
};

static int add(struct sqlite *db, void *arg, struct err *e)
{
    struct add_call *c = arg;
    struct store_webhook hook;
    if (webhook_by_id(db, c->a, c->webhook, &hook, e) < 0)
        return -1;
    if (!hook.enabled)
        return store_webhook_disabled(e);
    c->out = (struct store_delivery){.id = uuid_v7(), .type = c->in->type, .data = c->in->data};
    c->out.created_us = c->out.due_us = uuid_time_us(&c->out.id);
    struct stmt *s = stmt_get(db, "INSERT INTO webhook_deliveries (id, webhook, type, data, created_us, due_us)"
                                  " SELECT ?1, no, ?2, ?3, ?4, ?4 FROM webhooks WHERE id = ?5");
    bind_uuid(s, &c->out.id);
    bind_str(s, c->in->type);
    bind_str(s, c->in->data);
    bind_i64(s, c->out.created_us);
    bind_uuid(s, c->webhook);
    return stmt_run(s, e);
}

suspends int sqlite_delivery_create(struct store *st, struct arena *a, const struct uuid *webhook,
                                    const struct store_delivery *in, struct store_delivery *out, struct err *e)
{
    struct add_call c = {.a = a, .webhook = webhook, .in = in};
    if (sqlite_write(sqlite_of(st), add, &c, e) < 0)
        return -1;
    *out = c.out;
    out->type = arena_dup(a, in->type);
    out->data = arena_dup(a, in->data);
    return 0;
}

static int deliveries(struct sqlite *db, struct arena *a, const struct uuid *webhook, const struct uuid *after,
                      int limit, struct store_delivery *rows, size_t *n, struct err *e)
{
    struct store_webhook hook;
    int rc;
    if (webhook_by_id(db, a, webhook, &hook, e) < 0)
        return -1;
    struct stmt *s = stmt_get(db, "SELECT " D_COLUMNS " FROM webhook_deliveries d"
                                  " WHERE d.webhook = (SELECT no FROM webhooks WHERE id = ?1)"
                                  " AND (?2 IS NULL OR d.no < (SELECT no FROM webhook_deliveries WHERE id = ?2))"
                                  " ORDER BY d.no DESC LIMIT ?3");
    bind_uuid(s, webhook);
    bind_uuid(s, after);
    bind_i64(s, limit + 1);
    for (*n = 0; (rc = stmt_row(s, e)) > 0;)
        delivery_read(s, a, &rows[(*n)++]);
    return rc;
}

suspends int sqlite_delivery_list(struct store *st, struct arena *a, const struct uuid *webhook,
                                  const struct uuid *after, int limit, struct store_delivery **out, size_t *n,
                                  bool *more, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct store_delivery *rows = arena_alloc(a, ((size_t)limit + 1) * sizeof *rows);
    size_t found;
    if (SQLITE_TRY(db, e, deliveries(db, a, webhook, after, limit, rows, &found, e)) < 0)
        return -1;
    *more = found > (size_t)limit;
    *n = *more ? (size_t)limit : found;
    *out = rows;
    return 0;
}

/* ---- deliveries as the worker that sends them sees them ---- */

struct take_call {
    struct arena *a;
    int64_t now, lease_us;
    int max, each;
    struct store_delivery *rows;
    size_t n;
};

enum { HOOKS = 64 }; /* looked at in one round */
struct hook {
    int64_t no, busy;
};

/* Those with something due and fewer than `each` under way, the least busy first. */
static int hooks_due(struct sqlite *db, const struct take_call *c, struct hook *out, size_t *n, struct err *e)
{
    int rc;
    struct stmt *s = stmt_get(db, "SELECT w.no, (SELECT count(*) FROM webhook_deliveries d WHERE d.webhook = w.no"
                                  " AND d.state = 1 AND d.due_us > ?1) AS busy FROM webhooks w WHERE w.enabled = 1"
                                  " AND busy < ?2 AND EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.webhook = w.no"
                                  " AND d.state < 2 AND d.due_us <= ?1) ORDER BY busy, w.last_try_us LIMIT ?3");
    bind_i64(s, c->now);
    bind_i64(s, c->each);
    bind_i64(s, HOOKS);
    for (*n = 0; (rc = stmt_row(s, e)) > 0; (*n)++) {
        out[*n].no = col_i64(s);
        out[*n].busy = col_i64(s);
    }
    return rc;
}

static int take_of(struct sqlite *db, struct take_call *c, const struct hook *hook, struct err *e)
{
    int64_t room = c->each - hook->busy, left = c->max - (int64_t)c->n;
    size_t first = c->n;
    int rc;
    struct stmt *s = stmt_get(db, "SELECT " D_COLUMNS ", w.id, w.url, w.secret, w.headers FROM webhook_deliveries d"
                                  " JOIN webhooks w ON w.no = d.webhook WHERE d.webhook = ? AND d.state < 2"
                                  " AND d.due_us <= ? ORDER BY d.due_us, d.no LIMIT ?");
    bind_i64(s, hook->no);
    bind_i64(s, c->now);
    bind_i64(s, room < left ? room : left);
    while ((rc = stmt_row(s, e)) > 0) {
        struct store_delivery *d = &c->rows[c->n++];
        delivery_read(s, c->a, d);
        col_uuid(s, &d->hook.id);
        d->hook.url = col_str(s, c->a);
        d->hook.secret = col_str(s, c->a);
        d->hook.headers = col_str(s, c->a);
        d->state = DELIVERY_sending;
        d->due_us = c->now + c->lease_us;
        d->tries++;
    }
    for (size_t i = first; rc == 0 && i < c->n; i++) {
        s = stmt_get(db, "UPDATE webhook_deliveries SET state = 1, due_us = ?, tries = ? WHERE no = ?");
        bind_i64(s, c->rows[i].due_us);
        bind_i64(s, c->rows[i].tries);
        bind_i64(s, c->rows[i].no);
        rc = stmt_run(s, e);
    }
    return rc;
}

static int take(struct sqlite *db, void *arg, struct err *e)
{
    struct take_call *c = arg;
    struct hook hooks[HOOKS];
    size_t n;
    c->now = clock_wall_us();
    c->n = 0;
    if (hooks_due(db, c, hooks, &n, e) < 0)
        return -1;
    for (size_t i = 0; i < n && c->n < (size_t)c->max; i++)
        if (take_of(db, c, &hooks[i], e) < 0)
            return -1;
    return 0;
}

static int any_due(struct sqlite *db, const struct take_call *c, size_t *n, struct err *e)
{
    struct hook hooks[HOOKS];
    return hooks_due(db, c, hooks, n, e);
}

suspends int sqlite_delivery_take(struct store *st, struct arena *a, int64_t lease_us, int max, int each,
                                  struct store_delivery **out, size_t *n, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct take_call c = {.a = a, .now = clock_wall_us(), .lease_us = lease_us, .max = max, .each = each};
    size_t due;
    *n = 0;
    *out = NULL;
    if (SQLITE_TRY(db, e, any_due(db, &c, &due, e)) < 0) /* looking keeps idle workers from writing */
        return -1;
    if (!due)
        return 0;
    c.rows = arena_alloc(a, (size_t)max * sizeof *c.rows);
    if (sqlite_write(db, take, &c, e) < 0)
        return -1;
    *out = c.rows;
    *n = c.n;
    return 0;
}

struct end_call {
    const struct store_delivery_end *in;
    bool disabled;
};

/* A webhook whose receiver wants no more, or has failed for too long. 1: it was disabled, 0, -1. */
static int give_up(struct sqlite *db, const struct store_delivery_end *in, int64_t webhook, int64_t now, struct err *e)
{
    struct stmt *s = stmt_get(db, "UPDATE webhooks SET enabled = 0, disabled_reason = ?, version = version + 1,"
                                  " updated_us = ?2 WHERE no = ?3 AND enabled = 1"
                                  " AND (?4 OR (?5 > 0 AND failing_since_us <= ?2 - ?5))");
    bind_str(s, in->gone ? STR("gone") : STR("failing"));
    bind_i64(s, now);
    bind_i64(s, webhook);
    bind_i64(s, in->gone);
    bind_i64(s, in->patience_us);
    if (stmt_run(s, e) < 0)
        return -1;
    return sqlite3_changes(db->h) == 1;
}

static int end(struct sqlite *db, void *arg, struct err *e)
{
    struct end_call *c = arg;
    const struct store_delivery_end *in = c->in;
    bool well = in->state == DELIVERY_delivered, over = in->state != DELIVERY_waiting;
    int64_t now = clock_wall_us(), webhook;
    struct stmt *s = stmt_get(db, "UPDATE webhook_deliveries SET state = ?, status = ?, error = ?, due_us = ?,"
                                  " ended_us = ? WHERE no = ? AND state = 1 AND tries = ? RETURNING webhook");
    bind_i64(s, in->state);
    bind_i64(s, in->status);
    bind_str(s, in->error);
    bind_i64(s, over ? 0 : now + in->delay_us);
    bind_i64(s, over ? now : 0);
    bind_i64(s, in->no);
    bind_i64(s, in->tries);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return rc < 0 ? -1 : store_delivery_lost(e);
    webhook = col_i64(s);
    stmt_end(s);
    if (in->patience_us < 0)
        return 0;
    s = stmt_get(db, "UPDATE webhooks SET last_try_us = ?1, last_status = ?2, last_error = ?3,"
                     " failures = iif(?4, 0, failures + 1), failing_since_us ="
                     " iif(?4, 0, iif(failing_since_us = 0, ?1, failing_since_us)) WHERE no = ?5");
    bind_i64(s, now);
    bind_i64(s, in->status);
    bind_str(s, in->error);
    bind_i64(s, well);
    bind_i64(s, webhook);
    if (stmt_run(s, e) < 0)
        return -1;
    rc = well ? 0 : give_up(db, in, webhook, now, e);
    c->disabled = rc > 0;
    return rc < 0 ? -1 : 0;
}

suspends int sqlite_delivery_end(struct store *st, const struct store_delivery_end *in, bool *disabled, struct err *e)
{
    struct end_call c = {.in = in};
    if (sqlite_write(sqlite_of(st), end, &c, e) < 0)
        return -1;
    *disabled = c.disabled;
    return 0;
}

/* ---- what is left to do about them, in steps ---- */

enum chore { CHORE_NONE, CHORE_DROP, CHORE_REMOVE, CHORE_FAIL, CHORE_FORGET };
struct sweep_call {
    int64_t now, before_us, max_waiting;
    int max;
    int64_t done, dropped;
};

/* What waits for a webhook: by itself SQLite would go through what waits for all of them. */
#define WAITING "FROM webhook_deliveries d INDEXED BY webhook_deliveries_waiting WHERE d.state = 0 AND d.webhook = "
/* The newest of those that one webhook has too many of. */
#define EDGE "(SELECT d.no " WAITING "w.no ORDER BY d.no DESC LIMIT 1 OFFSET ?1)"

/* The first thing that is to be done, of which webhook, and up to which delivery. */
static int chore(struct sqlite *db, const struct sweep_call *c, enum chore *what, int64_t *webhook, int64_t *edge,
                 struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT 1, w.no, " EDGE " AS edge FROM webhooks w WHERE w.deleted = 0 AND edge > 0"
                                  " UNION ALL SELECT 2, no, 0 FROM webhooks WHERE deleted = 1"
                                  " UNION ALL SELECT 3, no, 0 FROM webhooks w WHERE w.disabled_reason <> '' AND EXISTS"
                                  " (SELECT 1 " WAITING "w.no)"
                                  " UNION ALL SELECT 4, 0, 0 WHERE EXISTS"
                                  " (SELECT 1 FROM webhook_deliveries WHERE created_us < ?2) LIMIT 1");
    bind_i64(s, c->max_waiting);
    bind_i64(s, c->before_us);
    int rc = stmt_row(s, e);
    *what = CHORE_NONE;
    if (rc > 0) {
        *what = (enum chore)col_i64(s);
        *webhook = col_i64(s);
        *edge = col_i64(s);
        stmt_end(s);
    }
    return rc < 0 ? -1 : 0;
}

/* `sql` changes up to `max` deliveries, and is told of two numbers. */
static int change(struct sqlite *db, struct sweep_call *c, const char *sql, int64_t one, int64_t two, struct err *e)
{
    struct stmt *s = stmt_get(db, sql);
    bind_i64(s, one);
    bind_i64(s, two);
    bind_i64(s, c->max);
    if (stmt_run(s, e) < 0)
        return -1;
    c->done = sqlite3_changes(db->h);
    return 0;
}

static int drop(struct sqlite *db, struct sweep_call *c, int64_t webhook, int64_t edge, struct err *e)
{
    if (change(db, c,
               "DELETE FROM webhook_deliveries WHERE no IN (SELECT d.no " WAITING
               "?1 AND d.no <= ?2 ORDER BY d.no LIMIT ?3)",
               webhook, edge, e) < 0)
        return -1;
    c->dropped = c->done;
    struct stmt *s = stmt_get(db, "UPDATE webhooks SET dropped = dropped + ?, last_dropped_us = ? WHERE no = ?");
    bind_i64(s, c->dropped);
    bind_i64(s, c->now);
    bind_i64(s, webhook);
    return stmt_run(s, e);
}

/* Of one that was deleted; then itself. */
static int remove_all(struct sqlite *db, struct sweep_call *c, int64_t webhook, struct err *e)
{
    if (change(db, c,
               "DELETE FROM webhook_deliveries WHERE no IN (SELECT no FROM webhook_deliveries WHERE webhook = ?1"
               " AND no > ?2 LIMIT ?3)",
               webhook, 0, e) < 0)
        return -1;
    if (c->done)
        return 0;
    struct stmt *s = stmt_get(db, "DELETE FROM webhooks WHERE no = ?");
    bind_i64(s, webhook);
    c->done = 1;
    return stmt_run(s, e);
}

static int sweep(struct sqlite *db, void *arg, struct err *e)
{
    struct sweep_call *c = arg;
    enum chore what;
    int64_t webhook, edge;
    c->done = c->dropped = 0;
    if (chore(db, c, &what, &webhook, &edge, e) < 0)
        return -1;
    switch (what) {
    case CHORE_NONE: return 0;
    case CHORE_DROP: return drop(db, c, webhook, edge, e);
    case CHORE_REMOVE: return remove_all(db, c, webhook, e);
    case CHORE_FAIL:
        return change(db, c,
                      "UPDATE webhook_deliveries SET state = 3, due_us = 0, ended_us = ?2, error ="
                      " 'the webhook was disabled' WHERE no IN (SELECT d.no " WAITING "?1 ORDER BY d.no LIMIT ?3)",
                      webhook, c->now, e);
    case CHORE_FORGET:
        return change(db, c,
                      "DELETE FROM webhook_deliveries WHERE no IN (SELECT no FROM webhook_deliveries"
                      " WHERE created_us < ?1 AND no > ?2 ORDER BY created_us LIMIT ?3)",
                      c->before_us, 0, e);
    }
    return err_set(e, ERR_INTERNAL, "a chore of no kind");
}

suspends int sqlite_delivery_sweep(struct store *st, int64_t keep_us, int64_t max_waiting, int max, int64_t *done,
                                   int64_t *dropped, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    int64_t now = clock_wall_us(), webhook, edge;
    struct sweep_call c = {.now = now, .before_us = now - keep_us, .max_waiting = max_waiting, .max = max};
    enum chore what;
    if (SQLITE_TRY(db, e, chore(db, &c, &what, &webhook, &edge, e)) < 0 || (what && sqlite_write(db, sweep, &c, e) < 0))
        return -1;
    *done = c.done;
    *dropped = c.dropped;
    return 0;
}

static int counts(struct sqlite *db, int64_t out[DELIVERY_STATE_COUNT], struct err *e)
{
    int rc;
    memset(out, 0, DELIVERY_STATE_COUNT * sizeof *out);
    struct stmt *s = stmt_get(db, "SELECT state, count(*) FROM webhook_deliveries GROUP BY state");
    while ((rc = stmt_row(s, e)) > 0) {
        int64_t state = col_i64(s), n = col_i64(s);
        if (state >= 0 && state < DELIVERY_STATE_COUNT)
            out[state] = n;
    }
    return rc;
}

suspends int sqlite_delivery_counts(struct store *st, int64_t out[DELIVERY_STATE_COUNT], struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, counts(db, out, e));
}
