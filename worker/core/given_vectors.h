/* Vectors that a client made of its chunks with the model that the server embeds with, too: the store keeps them with their
 * document, and the embedder is not asked for it. */
#pragma once
#include "worker/core/backends.h"
#include "worker/io/json.h"
#include "worker/store/store.h"

enum { GIVEN_DIM_MAX = 16384 };

struct given_vectors {
    size_t n;
    int dim;
    int *ordinal;       /* of the chunk of each */
    struct sha256 *sha; /* of the text of each */
    float *v;           /* n * dim; each of length 1 */
};
/* Takes the members `vector` out of a list of chunks; a chunk may have none. In the arena. ERR_VALIDATION below `pointer`
 * for what is no vector, or of another length than those before it. What else is wrong with a chunk is for
 * given_check(). */
must_use int given_vectors_take(struct arena *a, json_t *chunks, const char *pointer, struct given_vectors *out,
                                struct err *e);
/* The length that they must have in this collection; 0: nothing is known yet, the first ones decide. */
int given_vectors_dim(const struct backends *b, const struct store_collection *c);
/* Whether a document of this collection may have them, and, if there are any, what its store_document_new says of them; it
 * lives as long as `g`. ERR_VALIDATION at `pointer`: the collection has vectors of another length, or there is no model;
 * ERR_CONFLICT: it has them of another model; ERR_NOT_FOUND: there is no such collection. */
suspends must_use int given_vectors_check(const struct backends *b, const struct uuid *collection,
                                          const struct given_vectors *g, const char *pointer, struct store_given *out,
                                          struct err *e);
