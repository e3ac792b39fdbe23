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
    struct list running;     /* struct run: those that a fiber works on */
    int n_running, n_places; /* the latter of ingest.concurrency */
    struct list waiting;     /* struct run: leased with others, and not begun */
    int64_t waiting_until;
    size_t ahead;             /* so many are leased at once */
    int n_coming, n_gathered; /* of those that were leased with others: before and in job_gather() */
    struct fiber_queue gathered;
    struct fiber *leaser; /* NULL once it has ended */
    bool resting;         /* the leaser waits, and holds nothing */
    bool wanted;          /* somebody called for it since it last looked */
    bool draining, cancelled;
};

/* Jobs that were leased together. */
struct lease {
    struct arena arena;
    int refs;
    size_t n;
    struct store_job job[];
};

/* One try of one job. The fiber that works on it and the one that keeps the lease share it. */
struct run {
    struct job_context ctx;
    struct list link;
    struct job_runner *r;
    struct arena arena;
    struct lease *lease; /* what `job` refers to lies in it */
    struct store_job job;
    const struct job_kind *kind;
    bool placed, coming;           /* counted in n_places, n_coming */
    struct fiber *worker, *keeper; /* NULL once ended */
    int refs;
    bool cancel_requested, lease_lost, ended;
    enum document_state state; /* last reported */
    const char *stage;
    int64_t done, total, reported_ns;
};

enum { REPORT_EVERY = 200, RENEW_EVERY = 2000 };        /* ms; a cancellation is noticed as late as that */
enum { LARGE = 256 * 1024 };                            /* bytes of a try's arena */
enum { AHEAD_MAX = 16, PATIENCE = 1000, GATHER = 200 }; /* jobs; ms that one waits for a place, and for the others */
static const int64_t RETRY_MAX_US = 600 * 1000000LL;    /* longest delay before another try */
static const int64_t END_RETRY_NS = 60 * SEC, END_PAUSE_NS = SEC / 2; /* for saying how a try ended */

static int64_t lease_us(const struct job_runner *r)
{
    return r->cfg->ingest_lease * 1000;
}

/* ---- the lease ---- */

static void lease_unref(struct lease *l)
{
    if (--l->refs > 0)
        return;
    arena_fini(&l->arena);
    free(l);
}

static void run_unref(struct run *run)
{
    if (--run->refs > 0)
        return;
    bool large = arena_size(&run->arena) > LARGE;
    lease_unref(run->lease);
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

/* ---- places, and those who leave them early ---- */

static void wake_leaser(struct job_runner *r)
{
    r->wanted = true;
    if (r->resting && r->leaser)
        fiber_wake(r->leaser);
}

static void leave_place(struct run *run)
{
    if (!run->placed)
        return;
    run->placed = false;
    run->r->n_places--;
    wake_leaser(run->r);
}

static bool all_gathered(const struct job_runner *r)
{
    return r->n_coming == 0 || r->n_gathered >= AHEAD_MAX;
}

/* Nobody needs to wait for this one any more. */
static void arrive(struct run *run)
{
    if (!run->coming)
        return;
    run->coming = false;
    run->r->n_coming--;
    if (all_gathered(run->r))
        fiber_queue_wake_all(&run->r->gathered);
}

suspends int job_gather(struct job_context *ctx, struct err *e)
{
    struct run *run = list_entry(ctx, struct run, ctx);
    struct job_runner *r = run->r;
    if (!run->coming) /* leased alone */
        return 0;
    r->n_gathered++;
    leave_place(run);
    arrive(run);
    int rc = 0;
    if (!all_gathered(r)) {
        fiber_set_deadline(run->worker, clock_ns() + GATHER * MS);
        rc = fiber_queue_wait(&r->gathered, "those leased with it");
        fiber_set_deadline(run->worker, 0);
        fiber_queue_wake_all(&r->gathered); /* whoever came later has waited long enough, too */
    }
    r->n_gathered--;
    return rc == -ECANCELED ? err_set(e, ERR_CANCELED, "the job was cancelled") : 0;
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

suspends static void run_main(void *arg)
{
    struct run *run = arg;
    struct job_runner *r = run->r;
    struct err e = {0};
    list_add_tail(&r->running, &run->link);
    r->n_running++;
    r->n_places++;
    run->placed = true;
    STAT_ADD(jobs_running, 1);
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
    STAT_SUB(jobs_running, 1);
    arrive(run);
    leave_place(run);
    run_unref(run);
}

/* ---- leasing ---- */

static struct run *run_new(struct job_runner *r, struct lease *l, const struct store_job *job)
{
    struct run *run = calloc(1, sizeof *run);
    if (!run)
        abort();
    run->refs = 1;
    run->r = r;
    run->lease = l;
    l->refs++;
    run->job = *job;
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
    run->coming = l->n > 1;
    r->n_coming += run->coming;
    return run;
}

/* As many as are wanted, to the waiting ones. More each time, as long as the queue has them: where there are few, other
 * workers shall have theirs. 1 some were taken, 0 none is due, -1. */
suspends static int lease_some(struct job_runner *r, struct err *e)
{
    struct lease *l = calloc(1, sizeof *l + r->ahead * sizeof *l->job);
    if (!l)
        abort();
    l->refs = 1;
    int rc = STORE_CALL(r->store, job_lease, &l->arena, &r->owner, lease_us(r), r->ahead, l->job, &l->n, e);
    for (size_t i = 0; rc == 0 && i < l->n; i++)
        list_add_tail(&r->waiting, &run_new(r, l, &l->job[i])->link);
    if (rc == 0)
        r->ahead = l->n < r->ahead ? 1 : 2 * r->ahead < AHEAD_MAX ? 2 * r->ahead : AHEAD_MAX;
    int64_t patience = r->cfg->ingest_lease / 4 < PATIENCE ? r->cfg->ingest_lease / 4 : PATIENCE;
    r->waiting_until = clock_ns() + patience * MS;
    rc = rc ? rc : l->n > 0;
    lease_unref(l);
    return rc;
}

static struct run *next_waiting(struct job_runner *r)
{
    return list_entry(list_pop(&r->waiting), struct run, link);
}

/* Those that wait. False: there are too many fibers. */
suspends static bool begin_some(struct job_runner *r)
{
    while (!list_empty(&r->waiting) && r->n_places < r->cfg->ingest_concurrency && !r->draining) {
        struct run *run = next_waiting(r);
        if (!fiber_spawn("job", run_main, run)) {
            list_add(&r->waiting, &run->link);
            return false;
        }
    }
    return true;
}

/* What waits is given back: this worker ends, or is busy with what takes long. */
suspends static void put_back_waiting(struct job_runner *r)
{
    r->ahead = 1;
    while (!list_empty(&r->waiting)) {
        struct run *run = next_waiting(r);
        struct err e = {0};
        if (end_once(run, &(struct ending){.how = PUT_BACK, .code = "", .stage = ""}, &e) == 0)
            jobs_announce(r->jobs_fd);
        else if (e.code != ERR_CONFLICT && e.code != ERR_NOT_FOUND)
            log_err(LOG_WARN, "job: putting it back (its lease will run out)", &e);
        arrive(run);
        run_unref(run);
    }
}

/* Until a job is announced, wanted for any other reason, or `ms` have passed. */
suspends static void rest(struct job_runner *r, int64_t ms)
{
    if (r->wanted || r->draining)
        return;
    r->resting = true;
    bool full = r->n_places >= r->cfg->ingest_concurrency;
    if (!full || !list_empty(&r->waiting))
        fiber_set_deadline(r->leaser, full ? r->waiting_until : clock_ns() + ms * MS);
    if (full || r->jobs_fd < 0) /* when it is full, announcements are for others */
        fiber_park(full ? "a job to end" : "jobs");
    else if (fiber_wait_fd(r->jobs_fd, EV_READ, "jobs") == 0) {
        uint64_t one;
        while (read(r->jobs_fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
    }
    fiber_set_deadline(r->leaser, 0);
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
        int rc = begin_some(r) ? 0 : err_set(&e, ERR_OVERLOADED, "too many fibers");
        if (rc || (!list_empty(&r->waiting) && clock_ns() >= r->waiting_until))
            put_back_waiting(r);
        if (rc == 0 && r->n_places >= r->cfg->ingest_concurrency) {
            rest(r, 0);
            continue;
        }
        if (rc == 0)
            rc = lease_some(r, &e);
        if (rc < 0 && !down)
            log_err(LOG_WARN, "jobs: none can be taken now", &e);
        if (rc >= 0 && down)
            log_info("jobs: they can be taken again");
        down = rc < 0;
        if (rc <= 0)
            rest(r, r->cfg->ingest_poll);
    }
    put_back_waiting(r);
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
    list_init(&r->waiting);
    fiber_queue_init(&r->gathered);
    r->ahead = 1;
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
