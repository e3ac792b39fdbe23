/* Documents that are named by a URL: until it was fetched, the URL is their content. The first stage of an ingest job. */
#pragma once
#include "worker/jobs/jobs.h"

/* Media type of such a content: one URL, nothing else. */
#define FETCH_MIME "application/vnd.ragd.url"

bool fetch_due(const struct store_document *d);
/* What the URL leads to becomes the document's content, a version of its own, and *d is the document as it is then. Only
 * public addresses are asked, and those of outgoing.allow_networks. */
suspends must_use int fetch_stage(struct job_context *ctx, struct store_document *d, struct err *e);
