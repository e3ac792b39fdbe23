/* What both products of the store say and decide alike: about collections, documents and vectors, golden sets and webhooks.
 * Private to sqlite_*.c and pg_*.c. Nothing here suspends. */
#pragma once
#include "worker/store/store.h"

int store_collection_taken(struct err *e); /* ERR_CONFLICT: its id */
/* ERR_CONFLICT, naming the document that is in the way. */
int store_same_bytes(const struct uuid *document, struct err *e);
int store_external_id_taken(const struct uuid *document, struct err *e);
int store_id_taken(const struct uuid *document, struct err *e);
/* Whether the collection's vectors are of this model and length. */
bool store_same_embedder(const struct store_collection *c, struct str model, int dim);
/* ERR_CONFLICT, naming both models and what cures it. */
int store_other_embedder(const struct store_collection *c, struct str model, int dim, struct err *e);
int store_other_shadow(const struct store_collection *c, struct err *e);
int store_no_generation(int64_t generation, struct err *e);
/* A stored vector copied into the arena; NULL when its length is not *dim, which is set when it was 0. */
const float *store_vector(struct arena *a, struct str bytes, int *dim);
/* ERR_NOT_FOUND, ERR_NAME_TAKEN, ERR_QUOTA about golden sets. */
int store_no_set(struct err *e);
int store_no_result(struct err *e);
int store_set_taken(struct str name, struct err *e);
int store_sets_full(int64_t max, struct err *e);

int store_too_many_webhooks(int64_t max, struct err *e); /* ERR_QUOTA; the next two: ERR_CONFLICT */
int store_webhook_disabled(struct err *e);
int store_delivery_lost(struct err *e);
