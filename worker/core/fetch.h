/* Documents that are named by a URL: until it was fetched, the URL is their content, or, if they have one already, in the
 * payload of their job. The first stage of an ingest job. */
#pragma once
#include "worker/jobs/jobs.h"

bool fetch_due(const struct job_context *ctx, const struct store_document *d);
/* What the URL leads to becomes the document's content, a version of its own unless it has it already, and *d is the
 * document as it is then. Only public addresses are asked, and those of outgoing.allow_networks. */
suspends must_use int fetch_stage(struct job_context *ctx, struct store_document *d, struct err *e);
