/* The cache: answers and query vectors that may be lost at any moment, and counters. Products: none, Redis
 * (cache_redis.c), and the memory of one worker (cache_memory.c). One per process, opened by the wiring. No call waits
 * longer than cache.timeout, and none fails its caller: a cache that is away is a cache that holds nothing. Keys must
 * name everything that the value depends on, generations included, so that nothing stale is ever served; the TTL only
 * bounds memory. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"

struct cache;

struct cache_ops {
    const char *name;
    bool shared; /* by all processes and replicas; else each process has its own */
    /* 0 and *found; errors are for check() and the statistics only. */
    suspends int (*get)(struct cache *, struct arena *, struct str key, struct str *out, bool *found, struct err *);
    /* Does not wait for the outcome, nor does remove(); later calls of this process see it. */
    int (*set)(struct cache *, struct str key, struct str value, int64_t ttl_ms, struct err *);
    /* Only if the key is not there: the lock of cache_fetch(). */
    suspends int (*add)(struct cache *, struct str key, struct str value, int64_t ttl_ms, bool *added, struct err *);
    /* Adds to a counter that ends `ttl_ms` after its first use: rate limits shared by all workers and replicas. */
    suspends int (*count)(struct cache *, struct str key, int64_t by, int64_t ttl_ms, int64_t *now, struct err *);
    int (*remove)(struct cache *, struct str key, struct err *);
    suspends int (*flush)(struct cache *, int64_t *removed, struct err *); /* ragd's own keys only */
    suspends int (*check)(struct cache *, struct err *);                   /* for /readyz */
    void (*free)(struct cache *);
};
struct cache {
    const struct cache_ops *ops;
    const struct config *cfg;
    struct list making; /* what cache_fetch() makes just now */
};

/* *out = NULL for `none:`; every function below accepts NULL. `cfg` must outlive it. */
must_use int cache_open(const struct config *cfg, struct cache **out, struct err *e);
void cache_close(struct cache *c);
must_use int cache_check(const struct config *cfg, struct err *e); /* what cache_open() would say about the settings */

/* As the operations of the same names, and counted when they fail. Without a cache: ERR_NOT_READY. A flush reaches every
 * worker of this server: what is in the memory of others goes when they next use it. */
suspends must_use int cache_count(struct cache *c, struct str key, int64_t by, int64_t ttl_ms, int64_t *now,
                                  struct err *e);
suspends must_use int cache_flush(struct cache *c, int64_t *removed, struct err *e);
suspends must_use int cache_ping(struct cache *c, struct err *e); /* 0 without a cache: nothing is wrong */

/* The value of `key`, or what `make` makes of it, which is then kept for cache.ttl. Of all callers on all workers one
 * makes it while the others wait, but not longer than cache.lock_timeout: then they make it themselves. `make` reports
 * *keep = false for what must not be kept (a degraded answer). Returns what `make` returned, or what it returned to the
 * request of this worker that was waited for. *hit: somebody else had made it. */
typedef int cache_make(void *arg, struct arena *a, struct str *out, bool *keep, struct err *e);
suspends must_use int cache_fetch(struct cache *c, struct arena *a, struct str key, cache_make *make, void *arg,
                                  struct str *out, bool *hit, struct err *e);

/* The products. */
must_use int cache_redis_open(const struct config *cfg, struct cache **out, struct err *e);
struct cache *cache_memory_open(const struct config *cfg);
