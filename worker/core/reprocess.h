/* All documents of a collection once more, as its language has changed: their chunks hold the words of the old one, and
 * queries those of the new. The body of a job of type "reprocess", which queues a job of each document that needs it. */
#pragma once
#include "worker/jobs/jobs.h"

suspends int reprocess_run(struct job_context *ctx, struct err *e);
