/* The vector index: derived data, a copy of what the store knows, made for one question: which chunks are nearest to this
 * vector? Products: `embedded:` (files that all workers map, vector_embedded.c), Qdrant (vector_qdrant.c), and one in
 * memory for tests. It may be lost at any moment and is rebuilt from the store.
 *
 * A space holds the vectors of one collection in one generation (one model); its vectors have one length. A document's
 * points are written and removed together, and carry the document's content version: a hit whose version is not the one
 * that the store has is a ghost, and is dropped by the caller. So the index may run ahead of the store, and behind it,
 * without a wrong answer.
 *
 * Errors: ERR_NOT_READY when the product cannot be reached, or the space is damaged (but of `list`, which finds that out
 * for fsck, ERR_CONFLICT: drop it and put everything again); ERR_CONFLICT when the space has another dimension;
 * ERR_STORAGE_FULL, ERR_DEADLINE, ERR_CANCELED. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "common/uuid.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"

struct vectors;
struct httpc;
struct filter; /* of worker/store/filter.h; handed through, see vector_query */

struct vector_space {
    struct uuid collection;
    int64_t collection_no; /* store_collection.no */
    int64_t generation;    /* of the collection: another model is another generation */
    int dim;
};
struct vector_document {
    int64_t no; /* store_document.no */
    struct uuid id;
    int64_t content_version;
    struct str metadata, tags; /* JSON, for products that filter by themselves */
    size_t n;                  /* points: one a chunk, in order of ordinal */
    const struct uuid *chunk;  /* their ids: store_chunk_id() */
    const float *v;            /* n × dim, each of length 1 */
};
struct vector_query {
    const float *v; /* length 1 */
    int k;
    bool by_document;       /* the best chunk of each of k documents */
    const int64_t *allowed; /* numbers of the documents that may be found, ascending; NULL: all */
    size_t n_allowed;
    const struct filter *filter; /* the same as a condition, for products with `says`; NULL: none */
};
struct vector_hit {
    int64_t no; /* chunk: document's no << 20 | ordinal */
    int64_t content_version;
    float score; /* cosine */
};
struct vector_entry { /* what the index holds of a document: for fsck */
    int64_t document_no;
    int64_t content_version;
    int64_t points;
};

struct vector_ops {
    const char *name;
    /* Whether it narrows by this filter, to what matches and hardly more, and needs no `allowed`: the caller looks again.
     * NULL: by none. */
    bool (*says)(const struct filter *);
    /* Replaces all points of the document, durably. The space is made when it is not there. Idempotent. */
    suspends int (*put)(struct vectors *, const struct vector_space *, const struct vector_document *, struct err *);
    /* Removes all points of documents; what is not there is no error. */
    suspends int (*remove)(struct vectors *, const struct vector_space *, const int64_t *document_no, size_t n,
                           struct err *);
    /* New metadata and tags of a document whose points stay. */
    suspends int (*describe)(struct vectors *, const struct vector_space *, const struct vector_document *,
                             struct err *);
    /* A space that is gone: idempotent. */
    suspends int (*drop)(struct vectors *, const struct vector_space *, struct err *);
    /* The k best, best first; equal scores by number. A space that is not there has no hits. */
    suspends int (*search)(struct vectors *, struct arena *, const struct vector_space *, const struct vector_query *,
                           struct vector_hit **out, size_t *n, struct err *);
    /* Entries with document_no > after, ascending, at most `max`. */
    suspends int (*list)(struct vectors *, struct arena *, const struct vector_space *, int64_t after, size_t max,
                         struct vector_entry **out, size_t *n, struct err *);
    suspends int (*check)(struct vectors *, struct err *); /* for /readyz */
    /* The alias of a collection: a stable name, under which other clients of the product find the space that is
     * searched. Both NULL: the product has no such names. alias: makes the space, too, and takes the alias from whichever
     * had it in one step. Where this process has made it lead it does not lead it again unless `anew`, for others may
     * have. *changed: it did. drop() takes the alias away if it leads to the space. */
    suspends int (*alias)(struct vectors *, const struct vector_space *, bool anew, bool *changed, struct err *);
    suspends int (*has_alias)(struct vectors *, const struct vector_space *, bool *yes, struct err *);
    /* A space in which there is something, points or an alias, although it is none of `known`: every space that the store
     * has, of dimension 0 if that is not known yet, and every collection, of generation 0. Or with no collection (a zero
     * id) a place for spaces of one generation and dimension that holds nothing, and none of `known` needs. drop() removes
     * either. NULL: the product does not tell. For fsck. */
    suspends int (*stray)(struct vectors *, const struct vector_space *known, size_t n, struct vector_space *out,
                          bool *found, struct err *);
    void (*free)(struct vectors *);
};
struct vectors {
    const struct vector_ops *ops;
};

must_use int vectors_open(const struct config *cfg, struct httpc *http, struct vectors **out, struct err *e);
void vectors_close(struct vectors *v); /* NULL accepted */
/* What vectors_open() would say about vectors.url. */
must_use int vectors_check(const struct config *cfg, struct err *e);
must_use int vectors_embedded_open(const struct config *cfg, struct vectors **out, struct err *e);
/* Where they are: vectors.path, or `vectors` beside the SQLite database. The caller frees it; NULL: no memory. */
char *vectors_embedded_dir(const struct config *cfg);
must_use int vectors_qdrant_open(const struct config *cfg, struct httpc *http, struct vectors **out, struct err *e);
struct vectors *vectors_memory_open(void); /* the test double */
/* The order of hits, for qsort(): best first, equal scores by number. */
int vectors_hit_order(const void *a, const void *b);
/* Leaves the best of each document, in that order; returns how many. */
size_t vectors_best_of_each(struct vector_hit *hit, size_t n);
#define VECTORS_CALL(v, verb, ...) ((v)->ops->verb((v), ##__VA_ARGS__))
