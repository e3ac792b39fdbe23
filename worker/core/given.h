/* Chunks that the client made: a document that is a list of them instead of a file. It is kept as the JSON text of the
 * list, under a media type of its own, so that versions, duplicates and re-processing work as for any file. */
#pragma once
#include "worker/core/analyze.h"
#include "worker/core/extract.h"
#include "worker/io/json.h"
#include "worker/store/store.h"

#define GIVEN_MIME "application/vnd.ragd.chunks+json"

/* Whether this is such a list: [{"text": "…", "headings": ["…"], "page": 1}, …]. ERR_VALIDATION below `pointer`. */
must_use int given_check(struct arena *a, json_t *list, const char *pointer, struct err *e);
/* Its chunks; the document's text is theirs, with a blank line between two. ERR_VALIDATION: it is none, or longer than
 * `max_chunks`. */
suspends must_use int given_chunks(struct arena *a, struct analyzer *an, struct str json, size_t max_chunks,
                                   struct extracted *x, struct store_chunk_new **out, size_t *n, struct err *e);
