/* The cache on Redis. A key is cache.prefix and what the caller calls it; a long one is replaced by its hash. */
#include "worker/cache/cache.h"
#include "worker/io/crypto.h"
#include "worker/io/redis.h"
#include <stdio.h>
#include <stdlib.h>

enum { KEY_MAX = 200, SCAN_BATCH = 500, UNLINK_BATCH = 200 };

struct cache_redis {
    struct cache cache;
    const struct config *cfg;
    struct redis *redis;
};

/* One command whose words are strings; its reply lives in an arena of its own where the caller wants nothing of it. */
#define CALL(c, a, out, e, ...)                                                          \
    redis_call(((struct cache_redis *)(c))->redis, a, (const struct str[]){__VA_ARGS__}, \
               sizeof((const struct str[]){__VA_ARGS__}) / sizeof(struct str), out, e)

static struct str full_key(const struct cache *c, struct arena *a, struct str key)
{
    const struct cache_redis *r = (const struct cache_redis *)c;
    if (key.n > KEY_MAX) {
        struct sha256 hash;
        char text[SHA256_TEXT_LEN];
        sha256_of(key.p, key.n, &hash);
        sha256_text(&hash, text);
        return arena_printf(a, "%ssha256:%.*s", r->cfg->cache_prefix, SHA256_TEXT_LEN, text);
    }
    size_t n = strlen(r->cfg->cache_prefix);
    char *p = arena_alloc(a, n + key.n);
    memcpy(p, r->cfg->cache_prefix, n);
    if (key.n)
        memcpy(p + n, key.p, key.n);
    return (struct str){p, n + key.n};
}

static struct str number(struct arena *a, int64_t v)
{
    return arena_printf(a, "%lld", (long long)v);
}

static int unexpected(struct err *e)
{
    return err_set(e, ERR_INTERNAL, "the cache gave a reply of another kind than expected");
}

suspends static int get(struct cache *c, struct arena *a, struct str key, struct str *out, bool *found, struct err *e)
{
    struct redis_value v;
    if (CALL(c, a, &v, e, STR("GET"), full_key(c, a, key)) < 0)
        return -1;
    *found = v.type == REDIS_STRING;
    if (*found)
        *out = v.s;
    return 0;
}

static int set(struct cache *c, struct str key, struct str value, int64_t ttl_ms, struct err *e)
{
    struct arena a = {0};
    const struct str argv[] = {STR("SET"), full_key(c, &a, key), value, STR("PX"), number(&a, ttl_ms)};
    int rc = redis_post(((struct cache_redis *)c)->redis, argv, 5, e);
    arena_fini(&a);
    return rc;
}

suspends static int add(struct cache *c, struct str key, struct str value, int64_t ttl_ms, bool *added, struct err *e)
{
    struct arena a = {0};
    struct redis_value v;
    int rc = CALL(c, &a, &v, e, STR("SET"), full_key(c, &a, key), value, STR("PX"), number(&a, ttl_ms), STR("NX"));
    if (rc == 0)
        *added = v.type != REDIS_NIL;
    arena_fini(&a);
    return rc;
}

/* One step, so that no counter is left without an end. */
suspends static int count(struct cache *c, struct str key, int64_t by, int64_t ttl_ms, int64_t *now, struct err *e)
{
    static const char script[] = "local n = redis.call('INCRBY', KEYS[1], ARGV[1]) "
                                 "if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end "
                                 "return n";
    struct arena a = {0};
    struct redis_value v;
    int rc = CALL(c, &a, &v, e, STR("EVAL"), str_of(script), STR("1"), full_key(c, &a, key), number(&a, by),
                  number(&a, ttl_ms));
    if (rc == 0 && v.type != REDIS_INTEGER)
        rc = unexpected(e);
    if (rc == 0)
        *now = v.i;
    arena_fini(&a);
    return rc;
}

static int remove_key(struct cache *c, struct str key, struct err *e)
{
    struct arena a = {0};
    const struct str argv[] = {STR("UNLINK"), full_key(c, &a, key)};
    int rc = redis_post(((struct cache_redis *)c)->redis, argv, 2, e);
    arena_fini(&a);
    return rc;
}

/* The prefix as a pattern, in which its own * ? [ mean themselves. */
static struct str pattern(const struct cache *c, struct arena *a)
{
    const struct cache_redis *r = (const struct cache_redis *)c;
    struct buf b = {0};
    for (const char *p = r->cfg->cache_prefix; *p; p++) {
        if (strchr("*?[]\\^-", *p))
            buf_ch(&b, '\\');
        buf_ch(&b, *p);
    }
    buf_ch(&b, '*');
    struct str s = arena_dup(a, buf_view(&b));
    buf_fini(&b);
    return s;
}

suspends static int unlink_keys(struct cache *c, const struct redis_value *key, size_t n, int64_t *removed,
                                struct err *e)
{
    struct arena a = {0};
    struct redis_value gone;
    struct str argv[1 + UNLINK_BATCH] = {STR("UNLINK")};
    n = n < UNLINK_BATCH ? n : UNLINK_BATCH;
    for (size_t i = 0; i < n; i++)
        argv[1 + i] = key[i].s;
    int rc = redis_call(((struct cache_redis *)c)->redis, &a, argv, 1 + n, &gone, e);
    *removed += rc == 0 && gone.type == REDIS_INTEGER ? gone.i : 0;
    arena_fini(&a);
    return rc;
}

/* One page of keys; *cursor is "0" behind the last one. */
suspends static int flush_page(struct cache *c, struct str *cursor, char next[24], int64_t *removed, struct err *e)
{
    struct arena a = {0};
    struct redis_value v;
    int rc =
        CALL(c, &a, &v, e, STR("SCAN"), *cursor, STR("MATCH"), pattern(c, &a), STR("COUNT"), number(&a, SCAN_BATCH));
    if (rc == 0 && (v.type != REDIS_ARRAY || v.n != 2 || v.v[0].type != REDIS_STRING || v.v[1].type != REDIS_ARRAY))
        rc = unexpected(e);
    for (size_t i = 0; rc == 0 && i < v.v[1].n; i += UNLINK_BATCH)
        rc = unlink_keys(c, v.v[1].v + i, v.v[1].n - i, removed, e);
    if (rc == 0) {
        str_copyz(next, 24, v.v[0].s);
        *cursor = str_of(next);
    }
    arena_fini(&a);
    return rc;
}

suspends static int flush(struct cache *c, int64_t *removed, struct err *e)
{
    struct str cursor = STR("0");
    char next[24];
    int64_t n = 0;
    do {
        if (flush_page(c, &cursor, next, &n, e) < 0)
            return -1;
    } while (!str_eqz(cursor, "0"));
    *removed = n;
    return 0;
}

suspends static int check(struct cache *c, struct err *e)
{
    struct arena a = {0};
    struct redis_value v;
    int rc = CALL(c, &a, &v, e, STR("PING"));
    arena_fini(&a);
    return rc;
}

static void cache_redis_free(struct cache *c)
{
    struct cache_redis *r = (struct cache_redis *)c;
    redis_close(r->redis);
    free(r);
}

static const struct cache_ops ops = {"redis", true, get, set, add, count, remove_key, flush, check, cache_redis_free};

int cache_redis_open(const struct config *cfg, struct cache **out, struct err *e)
{
    struct cache_redis *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    *r = (struct cache_redis){.cache = {.ops = &ops}, .cfg = cfg};
    if (redis_open(cfg, &r->redis, e) < 0) {
        free(r);
        return -1;
    }
    *out = &r->cache;
    return 0;
}
