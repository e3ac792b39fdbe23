/* Which chunks hold a term, kept by each worker: searches of a collection that does not change between them find their
 * candidates here instead of in the store, which takes a hundredth of the time. A list is made of what the store's own
 * search answers, and is good for one revision of its collection, so the hits are the same.
 *
 * What was not used for longest goes first when there are too many bytes. */
#pragma once
#include "worker/store/store.h"

struct postings; /* of one worker */
struct posting_list;

enum { POSTINGS_STILL = 2 }; /* seconds: lists of a collection that changes all the time would never pay */

/* Of max_bytes 0 NULL: none are kept. Lists are made of collections that have not changed for `still_ns`. */
struct postings *postings_new(int64_t max_bytes, int64_t still_ns);
void postings_free(struct postings *p); /* no search is under way */

/* The lists of a search's terms, which stay until the arena ends. *lists NULL: the store is to be asked instead, since the
 * collection has just changed, another search is making one of the lists, or more than `max` chunks hold a term. */
suspends must_use int postings_get(struct postings *p, struct store *s, struct arena *a,
                                   const struct store_collection *c, const struct str *terms, size_t n, size_t max,
                                   const struct posting_list ***lists, struct err *e);
int64_t posting_count(const struct posting_list *l); /* chunks that hold the term */
/* As `search_candidates` of the store. */
suspends must_use int postings_merge(const struct posting_list *const *lists, const bool *optional, size_t n,
                                     size_t max, struct arena *a, struct store_candidates *out, struct err *e);
