/* The ingest role: leases jobs and runs them, and sweeps up files that nobody refers to any more. */
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/core/outbox.h"
#include "worker/core/watch.h"
#include "worker/core/webhook.h"
#include "worker/jobs/jobs.h"
#include "worker/kinds.h"
#include "worker/role.h"
#include "worker/wiring.h"

enum { SWEEP_EVERY = 60, SWEEP_FIRST = 10, SWEEP_BATCH = 100 }; /* seconds, files */
enum { SWEEP_VECTORS = 1000 };                                  /* looked at in one round */
enum { SWEEP_DELIVERIES = 1000, SWEEP_STEP_MS = 50 };           /* of one step, and between two */
enum { DRAIN_BATCH = 100 };                                     /* entries of the outbox taken at a time */

static struct {
    const struct heritage *h;
    struct backends backends;
    struct job_runner *runner;
    struct fiber *sweeper, *drainer; /* NULL once ended */
    struct watch *watch;             /* NULL: no folder is watched */
    struct webhook_sender *webhooks;
    bool draining;
} role;

/* All that there is to do: in steps, as others want to write, too. */
suspends static void sweep_deliveries(void)
{
    const struct config *cfg = role.h->cfg;
    struct err e = {0};
    int64_t done, dropped, all = 0;
    int rc;
    do {
        rc = STORE_CALL(role.backends.store, delivery_sweep, cfg->webhooks_retention * 1000, cfg->webhooks_max_waiting,
                        SWEEP_DELIVERIES, &done, &dropped, &e);
        all += rc ? 0 : dropped;
    } while (rc == 0 && done && !role.draining && fiber_sleep(SWEEP_STEP_MS * MS) == 0);
    if (rc && !err_retryable(e.code))
        log_err(LOG_WARN, "sweeping deliveries", &e);
    STAT_ADD(webhooks_dropped_total, (uint64_t)all);
    if (all)
        log_warn("webhooks: %lld deliveries are dropped, as more than webhooks.max_waiting waited", (long long)all);
}

/* Every ingest worker sweeps; removing what is already gone does no harm. */
suspends static void sweep_main(void *arg)
{
    (void)arg;
    role.sweeper = fiber_self();
    int64_t pause = SWEEP_FIRST;
    struct sha256 cursor = {{0}};
    while (!role.draining && fiber_sleep(pause * SEC) == 0) {
        struct err e = {0};
        int64_t removed = 0;
        int rc = STORE_CALL(role.backends.store, file_sweep, SWEEP_BATCH, &removed, &e);
        if (rc && !err_retryable(e.code))
            log_err(LOG_WARN, "sweeping files", &e);
        if (rc == 0 && removed)
            log_debug("swept %lld files that nobody refers to", (long long)removed);
        int64_t vectors = 0;
        if (STORE_CALL(role.backends.store, embeddings_sweep, &cursor, SWEEP_VECTORS, &vectors, &e) &&
            !err_retryable(e.code))
            log_err(LOG_WARN, "sweeping embeddings", &e);
        sweep_deliveries();
        pause = rc == 0 && removed == SWEEP_BATCH ? 1 : SWEEP_EVERY;
    }
    role.sweeper = NULL;
}

/* What the vector index must be told. One that is away is tried again as long as it takes. */
suspends static void drain_main(void *arg)
{
    (void)arg;
    role.drainer = fiber_self();
    struct outbox_pace pace = {0};
    bool down = false;
    size_t n = 0;
    while (!role.draining && (n == DRAIN_BATCH || fiber_sleep(role.h->cfg->ingest_poll * MS) == 0)) {
        struct err e = {0};
        int rc = outbox_tend(&role.backends, &pace, DRAIN_BATCH, &n, &e);
        if (rc && !down && e.code != ERR_CANCELED)
            log_err(LOG_WARN, "vector index: some changes have to wait", &e);
        if (rc == 0 && n && down)
            log_info("vector index: it takes changes again");
        down = rc ? true : n ? false : down;
        n = rc ? 0 : n;
    }
    role.drainer = NULL;
}

suspends static int start(const struct heritage *h, struct err *e)
{
    role.h = h;
    bool prove = h->prove && !h->no_store;
    if (backends_open(h->cfg, h->migrate, &role.backends, e) || (prove && STORE_CALL(role.backends.store, check, e)))
        return -1;
    role.runner = job_runner_start(h->cfg, role.backends.store, &role.backends, h->jobs_fd, job_kinds, n_job_kinds);
    if (!role.runner)
        return err_set(e, ERR_INTERNAL, "no fiber for jobs");
    if (!fiber_spawn("sweep", sweep_main, NULL))
        return err_set(e, ERR_INTERNAL, "no fiber for the sweep");
    if (!fiber_spawn("outbox", drain_main, NULL))
        return err_set(e, ERR_INTERNAL, "no fiber for the outbox");
    role.webhooks = webhook_sender_start(&role.backends);
    if (!role.webhooks)
        return err_set(e, ERR_INTERNAL, "no fiber for webhooks");
    role.watch = watch_start(&role.backends, h->jobs_fd);
    return 0;
}

static void end_chores(void)
{
    role.draining = true;
    if (role.sweeper)
        fiber_cancel(role.sweeper);
    if (role.drainer)
        fiber_cancel(role.drainer);
    watch_stop(role.watch);
}

static void drain(void)
{
    end_chores();
    if (role.runner)
        job_runner_drain(role.runner);
    if (role.webhooks)
        webhook_sender_drain(role.webhooks);
    backends_drain(&role.backends);
}

static bool idle(void)
{
    return !role.sweeper && !role.drainer && watch_idle(role.watch) && (!role.runner || job_runner_idle(role.runner)) &&
           (!role.webhooks || webhook_sender_idle(role.webhooks)) && backends_leave(&role.backends);
}

static void cancel(void)
{
    end_chores();
    if (role.runner)
        job_runner_cancel(role.runner);
    if (role.webhooks)
        webhook_sender_cancel(role.webhooks);
    backends_cancel(&role.backends);
}

static void stop(void)
{
    watch_free(role.watch);
    job_runner_free(role.runner);
    webhook_sender_free(role.webhooks);
    backends_close(&role.backends);
    role.runner = NULL;
    role.webhooks = NULL;
    role.watch = NULL;
}

const struct role_ops role_ingest = {start, drain, idle, cancel, NULL, stop};
