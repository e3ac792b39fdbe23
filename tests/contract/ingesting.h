/* A job runner in a contract test, and waiting for its jobs. */
#pragma once
#include "tests/contract/contract.h"
#include "worker/jobs/jobs.h"
#include "worker/kinds.h"

static inline struct job_runner *start(struct world *w, int jobs_fd, const struct job_kind *kinds, size_t n)
{
    w->cfg->ingest_poll = 20;
    w->cfg->ingest_retry_delay = 20;
    struct job_runner *r = job_runner_start(w->cfg, w->s, &w->b, jobs_fd, kinds, n);
    must(w, r);
    return r;
}

static inline struct job_runner *start_ingest(struct world *w)
{
    return start(w, -1, job_kinds, n_job_kinds);
}

static inline void wait_until_idle(struct world *w, struct job_runner *r)
{
    for (int64_t until = clock_ns() + 20 * SEC; !job_runner_idle(r);) {
        must(w, clock_ns() < until);
        fiber_sleep(2 * MS);
    }
}

static inline void stop(struct world *w, struct job_runner *r)
{
    job_runner_drain(r);
    wait_until_idle(w, r);
    for (int i = 0; i < 3; i++)
        fiber_yield(); /* the keepers of leases end */
    job_runner_free(r);
}

static inline struct store_job wait_for_job(struct world *w, const struct uuid *id, enum job_state state)
{
    struct store_job j;
    for (int64_t until = clock_ns() + 20 * SEC; (j = job_of(w, id)).state != state;) {
        if (clock_ns() > until)
            fail_at(w, __LINE__, "job is %s, not %s: " STR_FMT, job_state_name(j.state), job_state_name(state),
                    STR_ARG(j.error_message));
        fiber_sleep(5 * MS);
    }
    return j;
}
