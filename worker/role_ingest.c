/* The ingest role: leases jobs and runs them, and sweeps up files that nobody refers to any more. */
#include "common/clock.h"
#include "common/log.h"
#include "worker/jobs/jobs.h"
#include "worker/kinds.h"
#include "worker/role.h"

enum { SWEEP_EVERY = 60, SWEEP_FIRST = 10, SWEEP_BATCH = 100 }; /* seconds, files */

static struct {
    const struct heritage *h;
    struct store *store;
    struct job_runner *runner;
    struct fiber *sweeper; /* NULL once it has ended */
    bool draining;
} role;

/* Every ingest worker sweeps; removing what is already gone does no harm. */
suspends static void sweep_main(void *arg)
{
    (void)arg;
    role.sweeper = fiber_self();
    int64_t pause = SWEEP_FIRST;
    while (!role.draining && fiber_sleep(pause * SEC) == 0) {
        struct err e = {0};
        int64_t removed = 0;
        int rc = STORE_CALL(role.store, file_sweep, SWEEP_BATCH, &removed, &e);
        if (rc && !err_retryable(e.code))
            log_err(LOG_WARN, "sweeping files", &e);
        if (rc == 0 && removed)
            log_debug("swept %lld files that nobody refers to", (long long)removed);
        pause = rc == 0 && removed == SWEEP_BATCH ? 1 : SWEEP_EVERY;
    }
    role.sweeper = NULL;
}

suspends static int start(const struct heritage *h, struct err *e)
{
    role.h = h;
    if (store_open(h->cfg, &role.store, e))
        return -1;
    role.runner = job_runner_start(h->cfg, role.store, h->jobs_fd, job_kinds, n_job_kinds);
    if (!role.runner)
        return err_set(e, ERR_INTERNAL, "no fiber for jobs");
    if (!fiber_spawn("sweep", sweep_main, NULL))
        return err_set(e, ERR_INTERNAL, "no fiber for the sweep");
    return 0;
}

static void end_sweep(void)
{
    role.draining = true;
    if (role.sweeper)
        fiber_cancel(role.sweeper);
}

static void drain(void)
{
    end_sweep();
    if (role.runner)
        job_runner_drain(role.runner);
}

static bool idle(void)
{
    return !role.sweeper && (!role.runner || job_runner_idle(role.runner));
}

static void cancel(void)
{
    end_sweep();
    if (role.runner)
        job_runner_cancel(role.runner);
}

static void stop(void)
{
    job_runner_free(role.runner);
    store_close(role.store);
    role.runner = NULL;
    role.store = NULL;
}

const struct role_ops role_ingest = {start, drain, idle, cancel, stop};
