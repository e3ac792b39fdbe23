/* The job "eval": runs a golden set that is in the store, and keeps what came of it there. Payload:
 * {"set": id, "mode": "hybrid", "k": 10, "collections": [ids], all when absent; "base": id of the job of an earlier run}.
 * The job's own result has the figures; those of each question are the store's eval_result_get(). */
#pragma once
#include "worker/core/eval.h"
#include "worker/jobs/jobs.h"

suspends int eval_job_run(struct job_context *ctx, struct err *e);

/* What the payload says. A set that is gone by now is no error here. */
struct eval_job {
    struct uuid set, base;
    bool has_base;
    struct eval_options options;
};
/* In the arena. ERR_VALIDATION: it is none of ours. */
must_use int eval_job_parse(struct arena *a, struct str payload, struct eval_job *out, struct err *e);
void eval_job_payload(const struct eval_job *job, struct buf *out);
