/* The vector part of a document: its chunks, as the store has them, become vectors in the spaces of the vector index that
 * belong to its collection. What was given for it is taken; what was embedded once is kept in the store by (model, hash of
 * the chunk) and never embedded again. Used by the ingest job, by re-indexing, by the outbox and by fsck.
 *
 * Errors: ERR_NOT_READY when the embedder or the index cannot be reached; ERR_CONFLICT when a vector is missing and the
 * model is not the configured one, or makes vectors of another length; whatever else embedder, index and store say. */
#pragma once
#include "worker/core/backends.h"
#include "worker/vector/vector.h"

/* Told now and then: chunks done of all. What it returns below 0 ends the work. NULL: nobody asks. */
struct index_watch {
    suspends int (*fn)(void *arg, int64_t done, int64_t total, struct err *e);
    void *arg;
};

/* The spaces of a collection, at most three: searched, being built, previous. Returns how many. */
enum { INDEX_SPACES = 3 };
struct index_space {
    struct vector_space space;
    struct str model;
};
int index_spaces(const struct store_collection *c, struct index_space out[INDEX_SPACES]);
/* Those of them that documents of the configured embedder go to; the first one when nothing was embedded yet. 0 when the
 * collection is of another model; -1 never. */
int index_targets(const struct backends *b, const struct store_collection *c, struct index_space out[INDEX_SPACES]);

/* The length of the embedder's vectors: it is asked with a text of some words, since nothing else knows for sure.
 * ERR_VALIDATION: there is no embedder. */
suspends must_use int index_ask_dim(const struct backends *b, int *dim, struct err *e);

/* Leaves a document to the outbox, or the whole space when there is none (0, NULL). */
suspends must_use int index_later(const struct backends *b, enum outbox_kind kind, const struct index_space *to,
                                  int64_t document_no, const struct uuid *document, struct err *e);

/* Makes sure that the store has vectors for all chunks that the document shall have. *dim: as in store's embeddings_get. */
suspends must_use int index_embed(const struct backends *b, struct str model, int64_t document_no,
                                  const struct store_chunk_new *chunks, size_t n, int *dim,
                                  const struct index_watch *watch, struct err *e);
/* Puts a document into one space as the store has it now: embeds what is missing, removes what is gone. The dimension of
 * the space is found out, and kept, when it is 0. When the document changes meanwhile, the outbox is told. */
suspends must_use int index_sync(const struct backends *b, const struct store_collection *c,
                                 const struct index_space *to, int64_t document_no, const struct index_watch *watch,
                                 struct err *e);
/* Leads the collection's alias, if the product has such, to the space that is searched, which `now` was when the caller
 * looked. Whoever leads it last looks again whether it still is, so that it ends where the store says. `anew`: as in
 * vector.h. */
suspends must_use int index_alias(const struct backends *b, const struct vector_space *now, bool anew, struct err *e);
