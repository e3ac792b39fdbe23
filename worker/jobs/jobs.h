/* Jobs: work that outlives a request. They wait in the store; an ingest worker leases one, renews the lease while a fiber
 * works on it, and ends it in the same transaction that makes its result visible. A worker that dies loses its lease
 * within ingest.lease and another one takes over; whoever lost his lease can no longer commit. A job that has failed
 * ingest.max_attempts times, or failed for good, is quarantined with stage and reason.
 *
 * What costs most of a small document is its transactions. So a worker that finds more and more of them leases several
 * at once, and writes their results together (job_gather). What it has leased and not begun soon is put back for others. */
#pragma once
#include "worker/store/store.h"

struct backends; /* of core: handed through to the kinds */

struct job_context {
    const struct config *cfg;
    struct store *store;
    const struct backends *backends;
    struct arena *arena; /* ends with the try */
    const struct store_job *job;
    struct uuid owner;
    bool finished;            /* the kind has committed and finished the job itself */
    bool permanent;           /* on failure: trying again is useless */
    const char *code, *stage; /* on failure, for last_error; literals */
    int page;
    struct str result; /* on success: a JSON object, or empty */
};
/* Notes progress and learns of cancellation: ERR_CANCELED, ERR_CONFLICT (lease lost). Reports it at most every 200 ms: a
 * job that takes less costs two writes, its lease and its end. */
suspends must_use int job_progress(struct job_context *ctx, enum document_state state, const char *stage, int64_t done,
                                   int64_t total, struct err *e);

/* Before a small result is written, with nothing else to do afterwards: gives up the job's place to the next one, and waits
 * a moment for jobs that were leased with this one, so that their results share a transaction. */
suspends must_use int job_gather(struct job_context *ctx, struct err *e);

/* Whether the lease is known to be lost: then ERR_CONFLICT means that, and nothing else. */
bool job_lost(const struct job_context *ctx);

struct job_kind {
    const char *type;
    suspends int (*run)(struct job_context *ctx, struct err *e);
};

/* The runner of a process: leases up to ingest.concurrency jobs and runs each on a fiber. */
struct job_runner;
struct job_runner *job_runner_start(const struct config *cfg, struct store *s, const struct backends *b, int jobs_fd,
                                    const struct job_kind *kinds, size_t n);
void job_runner_wake(void *r);                    /* look for jobs now */
void job_runner_drain(struct job_runner *r);      /* takes no more; running ones go on */
void job_runner_cancel(struct job_runner *r);     /* running ones are put back, not counted as a try */
bool job_runner_idle(const struct job_runner *r); /* nothing runs */
void job_runner_free(struct job_runner *r);

void jobs_announce(int jobs_fd); /* a job was queued: wakes one ingest worker; -1 accepted */
