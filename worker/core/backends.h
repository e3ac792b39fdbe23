/* The backends of one process, as the settings name them: what core works with. Opened and closed by worker/wiring.c;
 * handlers find them in their struct app, jobs in their context. */
#pragma once
#include "worker/store/store.h"

struct httpc;
struct vectors;
struct embedder;
struct cache;
struct llm;
struct cage;
struct postings;

struct backends {
    const struct config *cfg;
    struct httpc *http; /* always there, as are the next two */
    struct store *store;
    struct vectors *vectors;
    struct embedder *embedder; /* NULL where the settings say none, as the others are */
    struct cache *cache;
    struct llm *llm;
    struct postings *postings;
    struct cage *cage; /* always there; a test without one has its documents read in its own process */
};
