/* Ingestion of one document: the body of a job of type "ingest". (fetch →) extract → chunk → index, with progress. Also
 * the other kinds of jobs that touch documents. */
#pragma once
#include "worker/jobs/jobs.h"

suspends int ingest_run(struct job_context *ctx, struct err *e);
suspends int ingest_delete_collection_run(struct job_context *ctx, struct err *e);
suspends int ingest_delete_documents_run(struct job_context *ctx, struct err *e);
