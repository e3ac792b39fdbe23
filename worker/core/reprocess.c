#include "worker/core/reprocess.h"

enum { PAGE = 100, SLACK_US = 1000000 /* by which clocks of machines may differ */ };

/* Its newest job began after the change, so it read the new language. By this a try that was cut short goes on where it
 * was. */
static bool is_done(const struct job_context *ctx, const struct store_document *d)
{
    return uuid_time_us(&d->job) > uuid_time_us(&ctx->job->id) + SLACK_US;
}

static bool has_nothing(const struct store_document *d)
{
    return !d->indexed_version && (d->state == DOCUMENT_failed || d->state == DOCUMENT_cancelled);
}

/* A job that waits will read the new language, unless only vectors are left to do; a fetch may come to nothing. */
suspends static int look_at_busy(struct job_context *ctx, struct arena *a, const struct uuid *id, int64_t *busy,
                                 struct err *e)
{
    struct store_job j;
    if (STORE_CALL(ctx->store, job_get, a, id, &j, e))
        return e->code == ERR_NOT_FOUND ? 0 : -1;
    *busy += j.state == JOB_running || j.committed || !str_eq(j.payload, STR("{}"));
    return 0;
}

suspends static int one(struct job_context *ctx, struct arena *a, const struct store_document *d, int64_t *busy,
                        struct err *e)
{
    struct store_job j;
    if (is_done(ctx, d) || has_nothing(d) || !STORE_CALL(ctx->store, document_reprocess, a, &d->id, &j, e))
        return 0;
    if (e->code == ERR_BUSY)
        return look_at_busy(ctx, a, &d->job, busy, e);
    return e->code == ERR_NOT_FOUND ? 0 : -1;
}

suspends int reprocess_run(struct job_context *ctx, struct err *e)
{
    struct store_document_query q = {.collection = ctx->job->collection, .page = {.limit = PAGE, .ascending = true}};
    int64_t done = 0, busy = 0;
    bool more = true;
    int rc = 0;
    while (rc == 0 && more) {
        struct arena a = {0};
        struct store_document *d;
        size_t n = 0;
        rc = STORE_CALL(ctx->store, document_list, &a, &q, &d, &n, &more, e);
        for (size_t i = 0; rc == 0 && i < n; i++)
            rc = one(ctx, &a, &d[i], &busy, e);
        if (rc == 0 && n) {
            q.page.has_after = true;
            q.page.after = d[n - 1].id;
            done += (int64_t)n;
            rc = job_progress(ctx, DOCUMENT_indexing, "reprocess", done,
                              done > ctx->job->total ? done : ctx->job->total, e);
        }
        arena_fini(&a);
    }
    if (rc)
        return e->code == ERR_NOT_FOUND ? 0 : -1; /* the collection is gone */
    return busy ? err_set(e, ERR_CONFLICT, "%lld documents are being worked on", (long long)busy) : 0;
}
