/* Jobs that keep the vector index in order: the bodies of the kinds "reindex" and "fsck". Their results, as JSON objects,
 * stand in the jobs that succeeded. */
#pragma once
#include "worker/jobs/jobs.h"

/* Payload: {"collections": [ids], all when absent; "promote": true; "gate": {"set": id of a golden set, "min_delta": 0}, or
 * none: see reindex_gate.h; "from": {id: generation}}: what was searched when the job was made, 1 where it does not say. A
 * collection that has another one by now is done, by an earlier try perhaps: to build it again would drop the generation to
 * go back to. Without "from" all are built. */
suspends int upkeep_reindex_run(struct job_context *ctx, struct err *e);
/* Payload: {"repair": false}. */
suspends int upkeep_fsck_run(struct job_context *ctx, struct err *e);
