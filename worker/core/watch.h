/* The watched folder (ingest.watch): its files are the documents of one collection, under their relative paths as
 * external ids. What is added, changed or removed there follows, also what happened while nobody watched. One ingest
 * worker of all does it; when it ends, another one takes over.
 *
 * Only documents that came from the folder are removed with their files: they have the metadata {"watched": true}. A
 * folder that was not seen with files yet, is empty, unreadable or incomplete removes nothing: it may not be mounted. */
#pragma once
#include "worker/core/backends.h"

struct watch;

/* NULL: nothing is to be watched, or there is no fiber. `b` must outlive it. */
struct watch *watch_start(const struct backends *b, int jobs_fd);
void watch_stop(struct watch *w);       /* at the drain: it takes on nothing more; NULL accepted */
bool watch_idle(const struct watch *w); /* it has ended; NULL accepted */
void watch_free(struct watch *w);       /* of one that has ended; NULL accepted */
/* For `ragd check`: whether there is such a folder. */
must_use int watch_check(const struct config *cfg, struct err *e);
