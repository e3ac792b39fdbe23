#include "worker/jobs/jobs.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include <errno.h>
#include <event2/event.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

struct job_runner {
    const struct config *cfg;
    struct store *store;
    const struct backends *backends;
    const struct job_kind *kinds;
    size_t n_kinds;
    int jobs_fd;
    struct uuid owner;
    struct list running; /* struct run */
    int n_running;
    int64_t done;
    struct fiber *leaser; /* NULL once it has ended */
    bool resting;         /* the leaser waits, and holds nothing */
    bool wanted;          /* somebody called for it since it last looked */
    bool draining, cancelled;
};

/* One try of one job. The fiber that works on it and the one that keeps the lease share it. */
struct run {
    struct job_context ctx;
    struct list link;
    struct job_runner *r;
    struct arena arena;
    struct store_job job;
    const struct job_kind *kind;
    struct fiber *worker, *keeper; /* NULL once ended */
    int refs;
    bool cancel_requested, lease_lost, ended;
    enum document_state state; /* last reported */
    const char *stage;
    int64_t done, total, reported_ns;
};

enum { REPORT_EVERY = 200, RENEW_EVERY = 2000 };     /* ms; a cancellation is noticed as late as that */
enum { LARGE = 256 * 1024 };                         /* bytes of a try's arena */
static const int64_t RETRY_MAX_US = 600 * 1000000LL; /* longest delay before another try */
static const int64_t END_RETRY_NS = 60 * SEC, END_PAUSE_NS = SEC / 2; /* for saying how a try ended */

static int64_t lease_us(const struct job_runner *r)
{
    return r->cfg->ingest_lease * 1000;
}

/* ---- the lease ---- */

static void run_unref(struct run *run)
{
    if (--run->refs > 0)
        return;
    bool large = arena_size(&run->arena) > LARGE;
    arena_fini(&run->arena);
    free(run);
    if (large) /* what a large document took is not needed for the next: the worker's memory must not be its largest's */
        malloc_trim(0);
}

suspends static int renew(struct run *run, struct err *e)
{
    bool cancel = false;
    run->reported_ns = clock_ns();
    int rc = STORE_CALL(run->r->store, job_renew, &run->job.id, &run->r->owner, lease_us(run->r), run->state,
                        str_of(run->stage), run->done, run->total, &cancel, e);
    if (rc && (e->code == ERR_CONFLICT || e->code == ERR_NOT_FOUND)) /* another's, or gone with its document */
        run->lease_lost = true;
    if (rc == 0 && cancel)
        run->cancel_requested = true;
    return rc;
}

/* Renews the lease while the worker computes or waits, and interrupts it when there is no point in going on. A database
 * that cannot be reached is no reason to: it may be back before the lease ends, and if it is not, the commit fails. */
suspends static void keep_lease(void *arg)
{
    struct run *run = arg;
    int64_t every = run->r->cfg->ingest_lease / 3 < RENEW_EVERY ? run->r->cfg->ingest_lease / 3 : RENEW_EVERY;
    run->keeper = fiber_self();
    while (!run->ended && fiber_sleep(every * MS) == 0 && !run->ended) {
        struct err e = {0};
        if (renew(run, &e) && !run->lease_lost && !run->ended)
            log_err(LOG_WARN, "job: renewing the lease", &e);
        if ((run->lease_lost || run->cancel_requested) && run->worker) {
            fiber_cancel(run->worker);
            break;
        }
    }
    run->keeper = NULL;
    run_unref(run);
}

int job_progress(struct job_context *ctx, enum document_state state, const char *stage, int64_t done, int64_t total,
                 struct err *e)
{
    struct run *run = list_entry(ctx, struct run, ctx);
    run->state = state;
    run->stage = ctx->stage = stage;
    run->done = done;
    run->total = total;
    if (clock_ns() - run->reported_ns >= REPORT_EVERY * MS && renew(run, e))
        return -1;
    if (run->lease_lost)
        return err_set(e, ERR_CONFLICT, "the lease of the job is lost");
    if (run->cancel_requested || run->r->cancelled || fiber_check())
        return err_set(e, ERR_CANCELED, "the job was cancelled");
    return 0;
}

bool job_lost(const struct job_context *ctx)
{
    return list_entry(ctx, struct run, ctx)->lease_lost;
}

/* ---- how a try ends ---- */

struct ending {
    enum { SUCCEED, FAIL, CANCEL, PUT_BACK } how;
    bool counts; /* PUT_BACK: as a try */
    int64_t delay_us;
    const char *code, *stage;
    struct str message;
    int page;
};

suspends static int end_once(struct run *run, const struct ending *end, struct err *e)
{
    struct store *s = run->r->store;
    const struct uuid *job = &run->job.id, *owner = &run->r->owner;
    if (end->how == PUT_BACK)
        return STORE_CALL(s, job_put_back, job, owner, end->delay_us, end->counts, str_of(end->code),
                          str_of(end->stage), end->message, e);
    enum job_state state = end->how == SUCCEED ? JOB_succeeded : end->how == FAIL ? JOB_failed : JOB_cancelled;
    return STORE_CALL(s, job_finish, job, owner, state, str_of(end->code), str_of(end->stage), end->message, end->page,
                      e);
}

/* The database may be away for a moment. Without this word the job would only wait for the end of its lease. False: the
 * lease is another's, or the job went away with its document. */
suspends static bool end_try(struct run *run, const struct ending *end)
{
    struct err e = {0};
    int64_t until = clock_ns() + END_RETRY_NS;
    while (end_once(run, end, &e)) {
        if (e.code == ERR_CONFLICT || e.code == ERR_NOT_FOUND)
            return false;
        if (!err_retryable(e.code) || run->r->cancelled || clock_ns() > until) {
            log_err(LOG_WARN, "job: recording how it ended (its lease will run out)", &e);
            return true;
        }
        fiber_sleep(END_PAUSE_NS);
    }
    if (end->how == SUCCEED)
        STAT_ADD(jobs_succeeded_total, 1);
    else if (end->how == FAIL)
        STAT_ADD(jobs_failed_total, 1);
    else if (end->how == PUT_BACK && end->counts)
        STAT_ADD(jobs_retried_total, 1);
    if (end->how == PUT_BACK && end->delay_us == 0)
        jobs_announce(run->r->jobs_fd);
    return true;
}

/* 2 s, 4 s, 8 s … after the first, second, third try. */
static int64_t retry_delay(const struct run *run)
{
    int64_t us = run->r->cfg->ingest_retry_delay * 1000;
    for (int i = 1; i < run->job.attempts && us < RETRY_MAX_US; i++)
        us *= 2;
    return us < RETRY_MAX_US ? us : RETRY_MAX_US;
}

/* The worker stops, the document changed meanwhile, or the database is away, busy or full: such tries are not counted. */
static bool no_fault_of_the_job(enum err_code code)
{
    return code == ERR_CANCELED || code == ERR_CONFLICT || code == ERR_NOT_READY || code == ERR_OVERLOADED ||
           code == ERR_STORAGE_FULL;
}

static struct ending judge(struct run *run, int rc, const struct err *e)
{
    const struct job_context *ctx = &run->ctx;
    if (rc == 0)
        return (struct ending){.how = SUCCEED, .code = "", .stage = "", .message = ctx->result};
    struct ending end = {
        .code = ctx->code ? ctx->code : err_wire(e->code),
        .stage = ctx->stage ? ctx->stage : "",
        .message = str_of(e->msg),
        .page = ctx->page,
    };
    if (run->cancel_requested) {
        end.how = CANCEL;
        end.code = "cancelled";
    } else if (!ctx->permanent && no_fault_of_the_job(e->code)) {
        end.how = PUT_BACK;
        end.delay_us = e->code == ERR_CANCELED ? 0 : run->r->cfg->ingest_retry_delay * 1000;
        if (e->code != ERR_NOT_READY) { /* what it waits for is worth telling */
            end.code = end.stage = "";
            end.message = STR("");
        }
    } else if (ctx->permanent || run->job.attempts >= run->r->cfg->ingest_max_attempts) {
        end.how = FAIL;
    } else {
        end.how = PUT_BACK;
        end.counts = true;
        end.delay_us = retry_delay(run);
    }
    return end;
}

/* ---- running ---- */

static const struct job_kind *kind_of(const struct job_runner *r, struct str type)
{
    for (size_t i = 0; i < r->n_kinds; i++)
        if (str_eqz(type, r->kinds[i].type))
            return &r->kinds[i];
    return NULL;
}

suspends static int work(struct run *run, struct err *e)
{
    struct job_context *ctx = &run->ctx;
    ctx->stage = run->stage;
    if (run->job.attempts > run->r->cfg->ingest_max_attempts) {
        ctx->permanent = true;
        ctx->code = "worker_lost";
        return err_set(e, ERR_INTERNAL,
                       "each of %d tries ended with the death of its worker, the last one at: " STR_FMT,
                       run->job.attempts - 1, STR_ARG(run->job.stage.n ? run->job.stage : STR("start")));
    }
    if (!run->kind) {
        ctx->permanent = true;
        ctx->code = "unknown_job";
        return err_set(e, ERR_INTERNAL, "this release knows no jobs of type " STR_FMT, STR_ARG(run->job.type));
    }
    if (run->job.cancel_requested) {
        run->cancel_requested = true;
        return err_set(e, ERR_CANCELED, "the job was cancelled");
    }
    return run->kind->run(ctx, e);
}

/* What clients may do at any time, change or delete a document that is being worked on, is no news for an operator. */
static void report(const struct run *run, const struct ending *end, bool ours, const struct err *e)
{
    bool overtaken = !run->lease_lost && (!ours || (end->how == PUT_BACK && e->code == ERR_CONFLICT));
    char id[UUID_TEXT_LEN + 1] = {0}, what[160];
    uuid_text(&run->job.id, id);
    static const char *const how[] = {"succeeded", "failed", "cancelled", "put back"};
    snprintf(what, sizeof what, "job %s (" STR_FMT ", try %d) %s at %s", id, STR_ARG(run->job.type), run->job.attempts,
             run->lease_lost ? "lost its lease"
             : overtaken     ? "was overtaken"
                             : how[end->how],
             run->ctx.stage);
    if (end->how == SUCCEED)
        log_debug("%s", what);
    else if (overtaken)
        log_err(LOG_DEBUG, what, e);
    else
        log_err(end->how == CANCEL ? LOG_INFO : LOG_WARN, what, e);
}

/* Of a lost lease: no other worker has it, after this one stood still; a client has changed or deleted the document. */
suspends static bool is_over(struct run *run)
{
    struct store_job now;
    struct err e = {0};
    if (STORE_CALL(run->r->store, job_get, &run->arena, &run->job.id, &now, &e))
        return e.code == ERR_NOT_FOUND;
    return now.state != JOB_queued && now.state != JOB_running;
}

static void wake_leaser(struct job_runner *r)
{
    r->wanted = true;
    if (r->resting && r->leaser)
        fiber_wake(r->leaser);
}

suspends static void run_main(void *arg)
{
    struct run *run = arg;
    struct job_runner *r = run->r;
    struct err e = {0};
    run->worker = fiber_self();
    char id[UUID_TEXT_LEN + 1] = {0};
    uuid_text(&run->job.id, id);
    fiber_label(run->worker, id);
    run->refs++;
    if (!fiber_spawn("job lease", keep_lease, run))
        run->refs--; /* the progress reports renew it, too */
    int rc = work(run, &e);
    run->ended = true;
    struct ending end = judge(run, rc, &e);
    bool ours = true;
    fiber_shield(1);
    if (!run->lease_lost && !(rc == 0 && run->ctx.finished))
        ours = end_try(run, &end);
    else if (rc == 0)
        STAT_ADD(jobs_succeeded_total, 1);
    if (run->lease_lost && is_over(run))
        run->lease_lost = ours = false;
    fiber_shield(-1);
    report(run, &end, ours, &e);
    run->worker = NULL;
    if (run->keeper)
        fiber_cancel(run->keeper);
    list_del(&run->link);
    r->n_running--;
    r->done++;
    STAT_SUB(jobs_running, 1);
    wake_leaser(r);
    run_unref(run);
}

/* ---- leasing ---- */

/* Takes the next job and starts it. 1 one was taken, 0 none is due, -1. */
suspends static int lease_one(struct job_runner *r, struct err *e)
{
    struct run *run = calloc(1, sizeof *run);
    if (!run)
        abort();
    run->refs = 1;
    run->r = r;
    bool found = false;
    int rc = STORE_CALL(r->store, job_lease, &run->arena, &r->owner, lease_us(r), &run->job, &found, e);
    if (rc || !found) {
        run_unref(run);
        return rc;
    }
    run->kind = kind_of(r, run->job.type);
    run->state = DOCUMENT_parsing;
    run->stage = "start";
    run->reported_ns = clock_ns();
    run->ctx = (struct job_context){.cfg = r->cfg,
                                    .store = r->store,
                                    .backends = r->backends,
                                    .arena = &run->arena,
                                    .job = &run->job,
                                    .owner = r->owner};
    list_add_tail(&r->running, &run->link);
    r->n_running++;
    STAT_ADD(jobs_running, 1);
    if (!r->draining && fiber_spawn("job", run_main, run))
        return 1;
    struct ending back = {.how = PUT_BACK, .code = "", .stage = ""};
    (void)end_try(run, &back);
    list_del(&run->link);
    r->n_running--;
    STAT_SUB(jobs_running, 1);
    run_unref(run);
    return r->draining ? 0 : err_set(e, ERR_OVERLOADED, "too many fibers");
}

/* Until a job is announced, wanted for any other reason, or `ms` have passed. */
suspends static void rest(struct job_runner *r, int64_t ms)
{
    if (r->wanted || r->draining)
        return;
    r->resting = true;
    bool full = r->n_running >= r->cfg->ingest_concurrency;
    if (full) { /* announcements are for others */
        fiber_park("a job to end");
    } else {
        fiber_set_deadline(r->leaser, clock_ns() + ms * MS);
        if (r->jobs_fd < 0)
            fiber_park("jobs");
        else if (fiber_wait_fd(r->jobs_fd, EV_READ, "jobs") == 0) {
            uint64_t one;
            while (read(r->jobs_fd, &one, sizeof one) < 0 && errno == EINTR)
                ;
        }
        fiber_set_deadline(r->leaser, 0);
    }
    r->resting = false;
}

suspends static void leaser_main(void *arg)
{
    struct job_runner *r = arg;
    bool down = false;
    r->leaser = fiber_self();
    while (!r->draining) {
        struct err e = {0};
        r->wanted = false;
        if (r->n_running >= r->cfg->ingest_concurrency) {
            rest(r, 0);
            continue;
        }
        int rc = lease_one(r, &e);
        if (rc < 0 && !down)
            log_err(LOG_WARN, "jobs: none can be taken now", &e);
        if (rc >= 0 && down)
            log_info("jobs: they can be taken again");
        down = rc < 0;
        if (rc <= 0)
            rest(r, r->cfg->ingest_poll);
    }
    r->leaser = NULL;
}

void job_runner_wake(void *r)
{
    wake_leaser(r);
}

struct job_runner *job_runner_start(const struct config *cfg, struct store *s, const struct backends *b, int jobs_fd,
                                    const struct job_kind *kinds, size_t n)
{
    struct job_runner *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->cfg = cfg;
    r->store = s;
    r->backends = b;
    r->jobs_fd = jobs_fd;
    r->kinds = kinds;
    r->n_kinds = n;
    r->owner = uuid_v7();
    list_init(&r->running);
    if (s->ops->on_job)
        s->ops->on_job(s, job_runner_wake, r);
    if (!fiber_spawn("jobs", leaser_main, r)) {
        free(r);
        return NULL;
    }
    return r;
}

void job_runner_drain(struct job_runner *r)
{
    r->draining = true;
    wake_leaser(r);
}

void job_runner_cancel(struct job_runner *r)
{
    r->cancelled = true;
    job_runner_drain(r);
    list_for_each_safe (it, &r->running) {
        struct run *run = list_entry(it, struct run, link);
        if (run->worker && !run->ended)
            fiber_cancel(run->worker);
    }
}

bool job_runner_idle(const struct job_runner *r)
{
    return r->n_running == 0 && (!r->draining || !r->leaser);
}

int64_t job_runner_done(const struct job_runner *r)
{
    return r->done;
}

void job_runner_free(struct job_runner *r)
{
    /* A worker that must end at once leaves fibers behind; what they point to ends with the process. */
    if (!r || r->leaser || r->n_running)
        return;
    if (r->store->ops->on_job)
        r->store->ops->on_job(r->store, NULL, NULL);
    free(r);
}

void jobs_announce(int jobs_fd)
{
    uint64_t one = 1;
    if (jobs_fd < 0)
        return;
    while (write(jobs_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}
