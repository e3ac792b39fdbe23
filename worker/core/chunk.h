/* Chunking: blocks → chunks within a token budget. Splits at headings, then blocks, then sentences, then words; never
 * inside a character. A chunk carries the headings above it, and its exact span in bytes and characters. */
#pragma once
#include "worker/core/analyze.h"
#include "worker/core/extract.h"
#include "worker/store/store.h"

struct chunking {
    enum { CHUNK_AUTO, CHUNK_STATIC, CHUNK_STRUCTURE } type;
    int max_tokens, overlap; /* terms */
};
/* {"type":"auto"} or {"type":"static"|"structure","max_tokens":N,"overlap":N}; defaults from the config. */
must_use int chunking_parse(struct arena *a, struct str json, const struct config *cfg, struct chunking *out,
                            struct err *e);

/* ERR_VALIDATION when there would be more than `max_chunks`. Yields to the loop between blocks. */
suspends must_use int chunk_document(struct arena *a, struct analyzer *an, const struct extracted *x,
                                     const struct chunking *how, size_t max_chunks, struct store_chunk_new **out,
                                     size_t *n, struct err *e);
