/* Embedding: text → unit vectors, by the product that embedding.url names: none, or any server that speaks OpenAI's
 * `POST /embeddings` (embed_openai.c). Without one everything works lexically.
 *
 * The product takes care of batches (by count and tokens), concurrency, time-outs, retries with jitter that obey
 * Retry-After, a circuit breaker, and of input that is too long: it is cut into windows whose vectors are averaged, so
 * that one long chunk never fails a document. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"

struct embedder;
struct httpc;

enum embed_purpose { EMBED_DOCUMENT, EMBED_QUERY }; /* some models want a prefix for each: embedding.query_prefix */

struct embed_ops {
    const char *name;
    /* `n` ≥ 1 texts → n × dim floats in the arena, each vector of length 1; *dim is the model's, the same at every call.
     * Texts may be empty or of any length; a caller with very many hands over some hundreds at a time. Errors:
     * ERR_NOT_READY (unreachable, overloaded, key refused, breaker open, a query's vector not there within
     * embedding.query_timeout: later it may work, see retry_after_ms), ERR_PROVIDER (it answered nonsense, or refused for
     * good), ERR_DEADLINE and ERR_CANCELED of the fiber. */
    suspends int (*embed)(struct embedder *, struct arena *, enum embed_purpose, const struct str *text, size_t n,
                          float **out, int *dim, struct err *);
    /* For /readyz: 0, or -1 with why the last calls failed; never calls out by itself. */
    int (*state)(struct embedder *, struct err *);
    void (*free)(struct embedder *);
};
struct embedder {
    const struct embed_ops *ops;
    /* Its identity, kept per collection and with each vector: the name as configured, and the embedding.document_prefix if
     * there is one, since what one of them is changed to makes other vectors. (The length of vectors is kept beside it; how
     * long texts are cut, batched and sent does not matter.) */
    struct str model;
    int dim; /* of the vectors that came so far; 0: none did */
};

/* *out = NULL for `none:`. */
must_use int embed_open(const struct config *cfg, struct httpc *http, struct embedder **out, struct err *e);
void embed_close(struct embedder *m); /* NULL accepted */
