/* Chunking: blocks → chunks within a token budget. Splits at headings, then blocks, then sentences, then words; never
 * inside a character. A chunk is on one page, carries the headings that all of it stands under, and has its exact span
 * in bytes and characters.
 *
 * Where a long section is cut is decided by what stands there, not by how much stands before it: after an edit the cuts
 * fall into step again, and the chunks behind it, with their hashes and vectors, stay what they were. */
#pragma once
#include "worker/core/analyze.h"
#include "worker/core/extract.h"
#include "worker/store/store.h"

struct chunking {
    enum { CHUNK_AUTO, CHUNK_STATIC, CHUNK_STRUCTURE, CHUNK_PARENT_CHILD } type;
    int max_tokens, overlap; /* terms */
    int parent_tokens;       /* parent_child: of the span that is a chunk's context; its chunks are what is searched */
};
/* {"type":"auto"}, {"type":"static"|"structure","max_tokens":N,"overlap":N} or
 * {"type":"parent_child","max_tokens":N,"parent_tokens":N}; defaults from the config. */
must_use int chunking_parse(struct arena *a, struct str json, const struct config *cfg, struct chunking *out,
                            struct err *e);

/* ERR_VALIDATION when there would be more than `max_chunks`. Yields to the loop between blocks. */
suspends must_use int chunk_document(struct arena *a, struct analyzer *an, const struct extracted *x,
                                     const struct chunking *how, size_t max_chunks, struct store_chunk_new **out,
                                     size_t *n, struct err *e);
