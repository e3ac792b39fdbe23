#include "worker/core/checkup.h"
#include "common/clock.h"
#include "worker/cache/cache.h"
#include "worker/embed/embed.h"
#include "worker/llm/llm.h"
#include "worker/vector/vector.h"

static suspends int ask_vectors(const struct backends *b, struct err *e)
{
    return VECTORS_CALL(b->vectors, check, e);
}

static suspends int ask_cache(const struct backends *b, struct err *e)
{
    return cache_ping(b->cache, e);
}

static suspends int ask_embedder(const struct backends *b, struct err *e)
{
    return b->embedder->ops->state(b->embedder, e);
}

static suspends int ask_llm(const struct backends *b, struct err *e)
{
    return b->llm->ops->state(b->llm, e);
}

struct asking {
    const struct backends *b;
    suspends int (*ask)(const struct backends *b, struct err *e);
    struct checkup *out;
};

static suspends int ask(void *arg)
{
    struct asking *x = arg;
    struct checkup *c = x->out;
    int64_t start = clock_ns(), before = fiber_deadline(fiber_self()), own = start + CHECKUP_MS * MS;
    if (!before || own < before)
        fiber_set_deadline(fiber_self(), own);
    c->ok = x->ask(x->b, &c->why) == 0;
    c->ms = (double)((clock_ns() - start) / 1000) / 1000;
    fiber_set_deadline(fiber_self(), before);
    return 0;
}

suspends void checkup(const struct backends *b, struct checkup out[CHECKUPS])
{
    /* Without an embedder nobody asks the vector index anything. */
    const struct checkup all[CHECKUPS] = {
        [CHECKUP_VECTORS] = {.name = "vectors", .asked = b->vectors && b->embedder},
        [CHECKUP_CACHE] = {.name = "cache", .asked = b->cache},
        [CHECKUP_EMBEDDER] = {.name = "embedder", .asked = b->embedder},
        [CHECKUP_LLM] = {.name = "llm", .asked = b->llm},
    };
    const struct asking asking[CHECKUPS] = {
        [CHECKUP_VECTORS] = {b, ask_vectors, &out[CHECKUP_VECTORS]},
        [CHECKUP_CACHE] = {b, ask_cache, &out[CHECKUP_CACHE]},
        [CHECKUP_EMBEDDER] = {b, ask_embedder, &out[CHECKUP_EMBEDDER]},
        [CHECKUP_LLM] = {b, ask_llm, &out[CHECKUP_LLM]},
    };
    struct fiber_task tasks[CHECKUPS];
    size_t n = 0;
    for (int i = 0; i < CHECKUPS; i++) {
        out[i] = all[i];
        if (all[i].asked)
            tasks[n++] = (struct fiber_task){.fn = ask, .arg = (void *)&asking[i]};
    }
    if (n)
        fiber_all(tasks, n);
}
