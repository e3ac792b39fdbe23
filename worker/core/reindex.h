/* Re-indexing without downtime: a generation is built beside the one that is searched, from the stored chunks and whatever
 * of their vectors is in the store, and takes its place in one transaction. The old one stays for a rollback until the next
 * flip or until it is dropped. Documents that come meanwhile go to both (core/ingest.c). */
#pragma once
#include "worker/core/index.h"

/* The model that collections would be re-indexed with; empty: embedding.url is none. */
struct str reindex_model(const struct backends *b);
/* Builds, or goes on building, the generation of the configured embedder; `promote`: and flips to it. *c is the collection
 * afterwards. A try that is cut short goes on where it was. */
suspends must_use int reindex_collection(const struct backends *b, struct arena *a, const struct uuid *id, bool promote,
                                         const struct index_watch *watch, struct store_collection *c, struct err *e);
/* Makes the complete shadow, or that which a rollback left (`back`: the generation before) the one that is searched.
 * `generation` 0: whichever that is. ERR_CONFLICT: there is no such. The rest is left to the outbox, which calls
 * reindex_settle(). */
suspends must_use int reindex_flip(const struct backends *b, struct arena *a, const struct uuid *id, int64_t generation,
                                   bool back, struct store_collection *c, struct err *e);
/* After a flip: the alias leads to the space, what it lacks, if it has to be compared with the store, goes to the outbox,
 * document by document, and documents that were refused for their model get another try. */
suspends must_use int reindex_settle(const struct backends *b, const struct store_collection *c,
                                     const struct index_space *space, bool compare, struct err *e);
