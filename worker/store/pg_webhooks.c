/* Webhooks and what is delivered to them. The deliveries of jobs are made by a trigger (migrations: jobs_ended). */
#include "worker/store/pg.h"

/* ---- settings ---- */

static void read_webhook(const struct pg_rows *r, int row, struct store_webhook *out)
{
    struct cursor c = {r, row, 0};
    next_uuid(&c, &out->id);
    out->url = next_str(&c);
    out->events = next_str(&c);
    out->secret = next_str(&c);
    out->headers = next_str(&c);
    out->enabled = next_i64(&c) != 0;
    out->disabled_reason = next_str(&c);
    out->version = next_i64(&c);
    out->updated_us = next_i64(&c);
    out->failures = next_i64(&c);
    out->failing_since_us = next_i64(&c);
    out->last_try_us = next_i64(&c);
    out->last_status = (int)next_i64(&c);
    out->last_error = next_str(&c);
    out->dropped = next_i64(&c);
    out->last_dropped_us = next_i64(&c);
}

suspends int pg_webhook_create(struct store *st, struct arena *a, const struct store_webhook *in, int64_t max,
                               struct store_webhook *out, struct err *e)
{
    struct uuid id = uuid_v7();
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, &id);
    pg_arg_str(&args, in->url);
    pg_arg_str(&args, in->events);
    pg_arg_str(&args, in->secret);
    pg_arg_str(&args, in->headers);
    pg_arg_bool(&args, in->enabled);
    pg_arg_i64(&args, uuid_time_us(&id));
    pg_arg_i64(&args, max);
    if (pg_call(pg_of(st)->pg, S_WEBHOOK_CREATE, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return store_too_many_webhooks(max, e);
    read_webhook(&r, 0, out);
    return 0;
}

suspends int pg_webhook_get(struct store *st, struct arena *a, const struct uuid *id, struct store_webhook *out,
                            struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    if (pg_call(pg_of(st)->pg, S_WEBHOOK_GET, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return err_set(e, ERR_NOT_FOUND, NO_WEBHOOK);
    read_webhook(&r, 0, out);
    return 0;
}

suspends int pg_webhook_list(struct store *st, struct arena *a, const struct store_page *p, struct store_webhook **out,
                             size_t *n, bool *more, struct err *e)
{
    struct pg_rows r;
    if (page_rows(st, a, p, S_WEBHOOKS_UP, S_WEBHOOKS_DOWN, &r, e) < 0)
        return -1;
    struct store_webhook *rows = arena_alloc(a, (size_t)(r.n + 1) * sizeof *rows);
    for (int i = 0; i < r.n; i++)
        read_webhook(&r, i, &rows[i]);
    *n = (size_t)r.n;
    page_end(p, rows, sizeof *rows, n, more);
    *out = rows;
    return 0;
}

/* Nothing was changed: because it is not there, or of another version? */
static suspends int why_not(struct store *st, struct arena *a, const struct uuid *id, int64_t if_version, struct err *e)
{
    struct store_webhook now;
    if (pg_webhook_get(st, a, id, &now, e) < 0)
        return -1;
    return wrong_version(now.version, if_version, e);
}

suspends int pg_webhook_patch(struct store *st, struct arena *a, const struct uuid *id,
                              const struct store_webhook_patch *p, int64_t if_version, struct store_webhook *out,
                              struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    arg_if(&args, p->set_url, p->url);
    arg_if(&args, p->set_events, p->events);
    arg_if(&args, p->set_secret, p->secret);
    arg_if(&args, p->set_headers, p->headers);
    if (p->set_enabled)
        pg_arg_bool(&args, p->enabled);
    else
        pg_arg_null(&args);
    pg_arg_i64(&args, if_version);
    if (pg_call(pg_of(st)->pg, S_WEBHOOK_PATCH, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return why_not(st, a, id, if_version, e);
    read_webhook(&r, 0, out);
    return 0;
}

suspends int pg_webhook_delete(struct store *st, const struct uuid *id, int64_t if_version, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    pg_arg_uuid(&args, id);
    pg_arg_i64(&args, if_version);
    int rc = pg_call(pg_of(st)->pg, S_WEBHOOK_DELETE, &args, &a, &r, e);
    if (rc == 0 && !r.n)
        rc = why_not(st, &a, id, if_version, e);
    arena_fini(&a);
    return rc;
}

/* ---- deliveries as clients see them ---- */

static void next_delivery(struct cursor *c, struct store_delivery *out)
{
    *out = (struct store_delivery){.no = next_i64(c)};
    next_uuid(c, &out->id);
    out->type = next_str(c);
    out->data = next_str(c);
    out->state = (enum delivery_state)next_i64(c);
    out->created_us = next_i64(c);
    out->due_us = next_i64(c);
    out->ended_us = next_i64(c);
    out->tries = (int)next_i64(c);
    out->status = (int)next_i64(c);
    out->error = next_str(c);
}

suspends int pg_delivery_create(struct store *st, struct arena *a, const struct uuid *webhook,
                                const struct store_delivery *in, struct store_delivery *out, struct err *e)
{
    struct store_delivery d = {.id = uuid_v7(), .type = arena_dup(a, in->type), .data = arena_dup(a, in->data)};
    struct store_webhook hook;
    struct pg_args args;
    struct pg_rows r;
    d.created_us = d.due_us = uuid_time_us(&d.id);
    pg_args_init(&args, a);
    pg_arg_uuid(&args, &d.id);
    pg_arg_uuid(&args, webhook);
    pg_arg_str(&args, d.type);
    pg_arg_str(&args, d.data);
    pg_arg_i64(&args, d.created_us);
    if (pg_call(pg_of(st)->pg, S_DELIVERY_CREATE, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return pg_webhook_get(st, a, webhook, &hook, e) < 0 ? -1 : store_webhook_disabled(e);
    *out = d;
    return 0;
}

suspends int pg_delivery_list(struct store *st, struct arena *a, const struct uuid *webhook, const struct uuid *after,
                              int limit, struct store_delivery **out, size_t *n, bool *more, struct err *e)
{
    struct store_webhook hook;
    struct pg_args args;
    struct pg_rows r;
    if (pg_webhook_get(st, a, webhook, &hook, e) < 0)
        return -1;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, webhook);
    if (after)
        pg_arg_uuid(&args, after);
    else
        pg_arg_null(&args);
    pg_arg_i64(&args, limit + 1);
    if (pg_call(pg_of(st)->pg, S_DELIVERIES, &args, a, &r, e) < 0)
        return -1;
    struct store_delivery *rows = arena_alloc(a, (size_t)(r.n + 1) * sizeof *rows);
    for (int i = 0; i < r.n; i++) {
        struct cursor c = {&r, i, 0};
        next_delivery(&c, &rows[i]);
    }
    *more = r.n > limit;
    *n = *more ? (size_t)limit : (size_t)r.n;
    *out = rows;
    return 0;
}

/* ---- deliveries as the worker that sends them sees them ---- */

suspends int pg_delivery_take(struct store *st, struct arena *a, int64_t lease_us, int max, int each,
                              struct store_delivery **out, size_t *n, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    *n = 0;
    *out = NULL;
    if (pg_call(pg_of(st)->pg, S_DELIVERY_DUE, &args, a, &r, e) < 0) /* keeps idle workers out of the write lane */
        return -1;
    if (!r.n)
        return 0;
    pg_args_init(&args, a);
    pg_arg_i64(&args, lease_us);
    pg_arg_i64(&args, max);
    pg_arg_i64(&args, each);
    if (pg_call(pg_of(st)->pg, S_DELIVERY_TAKE, &args, a, &r, e) < 0)
        return -1;
    struct store_delivery *rows = arena_alloc(a, (size_t)(r.n + 1) * sizeof *rows);
    for (int i = 0; i < r.n; i++) {
        struct cursor c = {&r, i, 0};
        next_delivery(&c, &rows[i]);
        next_uuid(&c, &rows[i].hook.id);
        rows[i].hook.url = next_str(&c);
        rows[i].hook.secret = next_str(&c);
        rows[i].hook.headers = next_str(&c);
    }
    *out = rows;
    *n = (size_t)r.n;
    return 0;
}

suspends int pg_delivery_end(struct store *st, const struct store_delivery_end *in, bool *disabled, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    pg_arg_i64(&args, in->no);
    pg_arg_i64(&args, in->tries);
    pg_arg_i64(&args, in->state);
    pg_arg_i64(&args, in->delay_us);
    pg_arg_i64(&args, in->status);
    pg_arg_str(&args, in->error);
    pg_arg_bool(&args, in->gone);
    pg_arg_i64(&args, in->patience_us);
    int rc = pg_call(pg_of(st)->pg, S_DELIVERY_END, &args, &a, &r, e);
    int64_t outcome = rc == 0 ? pg_i64(&r, 0, 0) : 0;
    arena_fini(&a);
    if (rc == 0 && outcome < 0)
        return store_delivery_lost(e);
    *disabled = outcome == 1;
    return rc;
}

suspends int pg_delivery_sweep(struct store *st, int64_t keep_us, int64_t max_waiting, int max, int64_t *done,
                               int64_t *dropped, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    pg_arg_i64(&args, keep_us);
    pg_arg_i64(&args, max_waiting);
    pg_arg_i64(&args, max);
    int rc = pg_call(pg_of(st)->pg, S_DELIVERY_SWEEP, &args, &a, &r, e);
    if (rc == 0) {
        *done = pg_i64(&r, 0, 0);
        *dropped = pg_i64(&r, 0, 1);
    }
    arena_fini(&a);
    return rc;
}

suspends int pg_delivery_counts(struct store *st, int64_t out[DELIVERY_STATE_COUNT], struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    int rc = pg_call(pg_of(st)->pg, S_DELIVERY_COUNTS, &args, &a, &r, e);
    if (rc == 0) {
        memset(out, 0, DELIVERY_STATE_COUNT * sizeof *out);
        for (int i = 0; i < r.n; i++) {
            int64_t state = pg_i64(&r, i, 0);
            if (state >= 0 && state < DELIVERY_STATE_COUNT)
                out[state] = pg_i64(&r, i, 1);
        }
    }
    arena_fini(&a);
    return rc;
}
