#include "worker/cache/cache.h"
#include "common/scoreboard.h"
#include "worker/io/redis.h"
#include <stdlib.h>

int cache_open(const struct config *cfg, struct cache **out, struct err *e)
{
    struct str url = str_of(cfg->cache_url); /* config/ has checked the scheme */
    struct cache *c = NULL;
    if (str_eqz(url, "memory:"))
        c = cache_memory_open(cfg);
    else if (!str_eqz(url, "none:") && cache_redis_open(cfg, &c, e) < 0)
        return -1;
    if (c) {
        c->cfg = cfg;
        list_init(&c->making);
    }
    *out = c;
    return 0;
}

int cache_check(const struct config *cfg, struct err *e)
{
    struct str url = str_of(cfg->cache_url);
    return str_eqz(url, "memory:") || str_eqz(url, "none:") ? 0 : redis_check(cfg, e);
}

void cache_close(struct cache *c)
{
    if (c)
        c->ops->free(c);
}

static int counted(int rc)
{
    STAT_ADD(cache_errors_total, rc < 0);
    return rc;
}

static int no_cache(struct err *e)
{
    return err_set(e, ERR_NOT_READY, "there is no cache: set cache.url");
}

suspends int cache_count(struct cache *c, struct str key, int64_t by, int64_t ttl_ms, int64_t *now, struct err *e)
{
    return c ? counted(c->ops->count(c, key, by, ttl_ms, now, e)) : no_cache(e);
}

suspends int cache_flush(struct cache *c, int64_t *removed, struct err *e)
{
    if (!c)
        return no_cache(e);
    if (counted(c->ops->flush(c, removed, e)) < 0)
        return -1;
    STAT_ADD(cache_flushes_total, 1);
    return 0;
}

suspends int cache_ping(struct cache *c, struct err *e)
{
    return c ? counted(c->ops->check(c, e)) : 0;
}
