#include "worker/wiring.h"
#include "worker/cache/cache.h"
#include "worker/core/cage.h"
#include "worker/core/postings.h"
#include "worker/embed/embed.h"
#include "worker/llm/llm.h"
#include "worker/vector/vector.h"
#include "worker/io/httpc.h"

suspends int backends_open(const struct config *cfg, bool migrate, struct backends *out, struct err *e)
{
    struct backends b = {.cfg = cfg};
    if (cage_open(cfg, &b.cage, e) || httpc_open(cfg, &b.http, e) || embed_open(cfg, b.http, &b.embedder, e) ||
        llm_open(cfg, b.http, &b.llm, e) || vectors_open(cfg, b.http, &b.vectors, e) || cache_open(cfg, &b.cache, e) ||
        (migrate ? store_open(cfg, &b.store, e) : store_open_unchanged(cfg, &b.store, e))) {
        backends_close(&b);
        return -1;
    }
    b.postings = postings_new(cfg->search_postings, POSTINGS_STILL * SEC);
    *out = b;
    return 0;
}

void backends_drain(struct backends *b)
{
    store_drain(b->store);
}

void backends_cancel(struct backends *b)
{
    store_cancel(b->store);
}

bool backends_leave(struct backends *b)
{
    return store_leave(b->store);
}

void backends_close(struct backends *b)
{
    postings_free(b->postings);
    store_close(b->store);
    cache_close(b->cache);
    vectors_close(b->vectors);
    llm_close(b->llm);
    embed_close(b->embedder);
    httpc_close(b->http);
    cage_close(b->cage);
    *b = (struct backends){0};
}
