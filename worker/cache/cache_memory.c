/* The cache in the memory of one worker, for tests and for those who run one worker: nothing is shared. A table with
 * chains, and a list in the order of use, from whose end goes what is too much. */
#include "worker/cache/cache.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/scoreboard.h"
#include <stdio.h>
#include <stdlib.h>

enum { CHAINS = 4096 };

struct entry {
    struct list chain, used;
    int64_t ends_ns;
    uint32_t hash;
    size_t n_key, n_value;
    char bytes[]; /* key, value */
};

struct cache_memory {
    struct cache cache;
    size_t held, max;
    uint64_t flushes; /* of all workers, when this one last looked */
    struct list used; /* latest first */
    struct list chain[CHAINS];
};

static uint32_t hash_of(struct str s)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 16777619u;
    return h;
}

static void drop(struct cache_memory *m, struct entry *x)
{
    m->held -= sizeof *x + x->n_key + x->n_value;
    list_del(&x->chain);
    list_del(&x->used);
    free(x);
}

static int64_t drop_all(struct cache_memory *m)
{
    int64_t n = 0;
    list_for_each_safe (it, &m->used) {
        drop(m, list_entry(it, struct entry, used));
        n++;
    }
    return n;
}

/* Whatever uses the cache comes here first: another worker may have been asked for a flush. */
static struct entry *find(struct cache_memory *m, struct str key)
{
    uint64_t flushes = scoreboard_total(STAT_cache_flushes_total);
    if (flushes != m->flushes)
        drop_all(m);
    m->flushes = flushes;
    uint32_t h = hash_of(key);
    list_for_each_safe (it, &m->chain[h % CHAINS]) {
        struct entry *x = list_entry(it, struct entry, chain);
        if (x->hash != h || !str_eq((struct str){x->bytes, x->n_key}, key))
            continue;
        if (x->ends_ns > clock_ns())
            return x;
        drop(m, x);
        return NULL;
    }
    return NULL;
}

static void put(struct cache_memory *m, struct str key, struct str value, int64_t ends_ns)
{
    struct entry *x = find(m, key);
    size_t size = sizeof *x + key.n + value.n;
    if (x)
        drop(m, x);
    if (size > m->max)
        return;
    while (m->held + size > m->max)
        drop(m, list_entry(m->used.prev, struct entry, used));
    x = malloc(size);
    if (!x)
        abort();
    *x = (struct entry){.ends_ns = ends_ns, .hash = hash_of(key), .n_key = key.n, .n_value = value.n};
    if (key.n)
        memcpy(x->bytes, key.p, key.n);
    if (value.n)
        memcpy(x->bytes + key.n, value.p, value.n);
    list_add(&m->chain[x->hash % CHAINS], &x->chain);
    list_add(&m->used, &x->used);
    m->held += size;
}

static struct str value_of(const struct entry *x)
{
    return (struct str){x->bytes + x->n_key, x->n_value};
}

static int get(struct cache *c, struct arena *a, struct str key, struct str *out, bool *found, struct err *e)
{
    struct cache_memory *m = (struct cache_memory *)c;
    struct entry *x = find(m, key);
    (void)e;
    *found = x != NULL;
    if (!x)
        return 0;
    *out = arena_dup(a, value_of(x));
    list_del(&x->used);
    list_add(&m->used, &x->used);
    return 0;
}

static int set(struct cache *c, struct str key, struct str value, int64_t ttl_ms, struct err *e)
{
    (void)e;
    put((struct cache_memory *)c, key, value, clock_ns() + ttl_ms * MS);
    return 0;
}

static int add(struct cache *c, struct str key, struct str value, int64_t ttl_ms, bool *added, struct err *e)
{
    *added = !find((struct cache_memory *)c, key);
    return *added ? set(c, key, value, ttl_ms, e) : 0;
}

static int count(struct cache *c, struct str key, int64_t by, int64_t ttl_ms, int64_t *now, struct err *e)
{
    struct cache_memory *m = (struct cache_memory *)c;
    struct entry *x = find(m, key);
    int64_t ends = x ? x->ends_ns : clock_ns() + ttl_ms * MS, v = 0;
    char text[24];
    if (x && !str_to_i64(value_of(x), &v))
        return err_set(e, ERR_INTERNAL, "the cache refused a command");
    v += by;
    int n = snprintf(text, sizeof text, "%lld", (long long)v);
    put(m, key, (struct str){text, (size_t)n}, ends);
    *now = v;
    return 0;
}

static int remove_key(struct cache *c, struct str key, struct err *e)
{
    struct entry *x = find((struct cache_memory *)c, key);
    (void)e;
    if (x)
        drop((struct cache_memory *)c, x);
    return 0;
}

static int flush(struct cache *c, int64_t *removed, struct err *e)
{
    (void)e;
    *removed = drop_all((struct cache_memory *)c);
    return 0;
}

static int check(struct cache *c, struct err *e)
{
    (void)c, (void)e;
    return 0;
}

static void cache_memory_free(struct cache *c)
{
    drop_all((struct cache_memory *)c);
    free(c);
}

static const struct cache_ops ops = {"memory", false,      get,   set,   add,
                                     count,    remove_key, flush, check, cache_memory_free};

struct cache *cache_memory_open(const struct config *cfg)
{
    struct cache_memory *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->cache.ops = &ops;
    m->max = (size_t)cfg->cache_memory;
    m->flushes = scoreboard_total(STAT_cache_flushes_total);
    list_init(&m->used);
    for (int i = 0; i < CHAINS; i++)
        list_init(&m->chain[i]);
    return &m->cache;
}
