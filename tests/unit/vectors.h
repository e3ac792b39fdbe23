/* What the tests of the vector index share. A test is a function that runs on a fiber with an index of its own in a
 * temporary directory; cmocka's assertions would leave the fiber's stack, so it has its own. */
#pragma once
#include "tests/failure.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/fiber/loop.h"
#include "worker/io/crypto.h"
#include "worker/vector/vector.h"
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

struct world {
    struct vectors *v;
    struct config *cfg;
    struct arena a;
    struct err e;
    struct vector_space s;
    char dir[64], path[160]; /* path: of the file of `s` */
    uint64_t seed;
    int line; /* of the first failure */
    char what[512];
    jmp_buf failed;
    void (*fn)(struct world *);
};

static inline int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static inline struct config *config_in(const char *dir, const char *more)
{
    struct err e;
    struct config *cfg;
    char set[120];
    snprintf(set, sizeof set, "database.url=sqlite:%s/ragd.db", dir);
    const char *const sets[] = {set, more};
    if (config_load(&(struct config_args){.set = sets, .n_set = more ? 2 : 1}, &cfg, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    return cfg;
}

static inline void world_begin(struct world *w)
{
    memset(w, 0, sizeof *w);
    snprintf(w->dir, sizeof w->dir, "/tmp/ragd-vector.XXXXXX");
    if (!mkdtemp(w->dir))
        abort();
    w->cfg = config_in(w->dir, NULL);
    w->s = (struct vector_space){.collection = uuid_v7(), .collection_no = 7, .generation = 1, .dim = 24};
    char id[UUID_TEXT_LEN + 1] = {0};
    uuid_text(&w->s.collection, id);
    snprintf(w->path, sizeof w->path, "%s/vectors/%s.1.vec", w->dir, id);
    w->seed = 1;
}

static inline void world_fiber(void *arg)
{
    struct world *w = arg;
    if (setjmp(w->failed) == 0)
        w->fn(w);
    vectors_close(w->v);
    loop_stop();
}

/* fn on a fiber of a loop of its own, with the index that `open` gives (NULL: none). May be called again and again. */
static inline void world_on_loop(struct world *w, struct vectors *(*open)(struct world *), void (*fn)(struct world *))
{
    struct err e;
    w->fn = fn;
    w->v = open ? open(w) : NULL;
    if (loop_init(&e) < 0 || !fiber_spawn("test", world_fiber, w))
        abort();
    loop_run();
    fiber_fini();
    loop_fini();
    arena_fini(&w->a);
}

/* Fails the cmocka test when the world has failed. */
static inline void world_end(struct world *w)
{
    config_free(w->cfg);
    nftw(w->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (w->line)
        fail_msg("line %d: %s", w->line, w->what);
}

static inline void world_run(struct vectors *(*open)(struct world *), void (*fn)(struct world *))
{
    struct world w;
    world_begin(&w);
    world_on_loop(&w, open, fn);
    world_end(&w);
}

static inline struct vectors *open_embedded(struct world *w)
{
    if (vectors_open(w->cfg, NULL, &w->v, &w->e) != 0)
        abort();
    return w->v;
}

static inline struct vectors *open_memory(struct world *w)
{
    (void)w;
    return vectors_memory_open();
}

/* ---- vectors ---- */

static inline uint64_t draw(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* n unit vectors that depend on the seed alone. */
static inline float *vectors_of(struct arena *a, uint64_t seed, size_t n, int dim)
{
    float *v = arena_alloc(a, (n * (size_t)dim + 1) * sizeof *v);
    seed = seed * 0x9e3779b97f4a7c15ull + 1;
    for (size_t i = 0; i < n; i++) {
        float *at = v + i * (size_t)dim;
        double sum = 0;
        for (int x = 0; x < dim; x++) {
            at[x] = (float)((double)(draw(&seed) >> 40) / (1 << 23) - 1);
            sum += (double)at[x] * (double)at[x];
        }
        for (int x = 0; x < dim; x++)
            at[x] = (float)((double)at[x] / sqrt(sum));
    }
    return v;
}

/* The document's vectors follow from its number and version, so that everybody knows what must be there. */
static inline uint64_t seed_of(int64_t no, int64_t version)
{
    return (uint64_t)no * 1000 + (uint64_t)version;
}

static inline int put_in(struct vectors *v, struct arena *a, const struct vector_space *s, int64_t no, int64_t version,
                         size_t n, struct err *e)
{
    struct uuid *id = arena_zalloc(a, (n + 1) * sizeof *id);
    for (size_t i = 0; i < n; i++) { /* like store_chunk_id(): the same for the same */
        int64_t of[] = {s->collection_no, s->generation, no, version, (int64_t)i};
        struct sha256 hash;
        sha256_of(of, sizeof of, &hash);
        memcpy(&id[i], &hash, sizeof id[i]);
    }
    struct vector_document d = {.no = no,
                                .id = uuid_v7(),
                                .content_version = version,
                                .metadata = STR("{}"),
                                .tags = STR("[]"),
                                .n = n,
                                .chunk = id,
                                .v = vectors_of(a, seed_of(no, version), n, s->dim)};
    return VECTORS_CALL(v, put, s, &d, e);
}

static inline int put(struct world *w, int64_t no, int64_t version, size_t n)
{
    return put_in(w->v, &w->a, &w->s, no, version, n, &w->e);
}

static inline int take(struct world *w, int64_t no)
{
    return VECTORS_CALL(w->v, remove, &w->s, &no, 1, &w->e);
}

static inline size_t list_all(struct world *w, struct vector_entry **out)
{
    size_t n;
    ok(w, VECTORS_CALL(w->v, list, &w->a, &w->s, INT64_MIN, 100000, out, &n, &w->e));
    return n;
}

/* A vector of a document finds itself, with a score of 1. */
static inline void finds(struct world *w, int64_t no, int64_t version, size_t n, size_t ordinal)
{
    struct vector_hit *hit;
    size_t found;
    float *v = vectors_of(&w->a, seed_of(no, version), n, w->s.dim);
    struct vector_query q = {.v = v + ordinal * (size_t)w->s.dim, .k = 1};
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &found, &w->e));
    same(w, found, 1);
    same(w, hit[0].no, no << 20 | (int64_t)ordinal);
    same(w, hit[0].content_version, version);
    must(w, fabsf(hit[0].score - 1) < 1e-5f);
}

/* A promise that every index makes: documents of thousands of points that are all nearer do not hide the others. */
static inline void the_best_of_each_document(struct world *w)
{
    enum { OTHERS = 6 };
    static const size_t points[] = {1300, 2500}; /* of documents 1 and 2 */
    struct vector_hit *hit, *best;
    size_t n, all;
    float *v = arena_zalloc(&w->a, 2500 * (size_t)w->s.dim * sizeof *v);
    struct uuid *id = arena_alloc(&w->a, 2500 * sizeof *id);
    for (int64_t no = 3; no < 3 + OTHERS; no++)
        ok(w, put(w, no, 1, 2));
    for (int64_t no = 1; no <= 2; no++) {
        for (size_t i = 0; i < points[no - 1]; i++) {
            float angle = (float)((i * 7919) % points[no - 1] + 1) / 20000;
            id[i] = uuid_v7();
            v[i * (size_t)w->s.dim] = cosf(angle);
            v[i * (size_t)w->s.dim + (size_t)no] = sinf(angle);
        }
        struct vector_document d = {.no = no,
                                    .id = uuid_v7(),
                                    .content_version = 1,
                                    .metadata = STR("{}"),
                                    .tags = STR("[]"),
                                    .n = points[no - 1],
                                    .chunk = id,
                                    .v = v};
        ok(w, VECTORS_CALL(w->v, put, &w->s, &d, &w->e));
        memset(v, 0, 2500 * (size_t)w->s.dim * sizeof *v);
    }
    v[0] = 1;
    struct vector_query q = {.v = v, .k = 8, .by_document = true};
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 2 + OTHERS);
    for (size_t i = 0; i < n; i++) { /* each is the best chunk of its document */
        int64_t no = hit[i].no >> 20;
        struct vector_query one = {.v = v, .k = 1, .allowed = &no, .n_allowed = 1};
        ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &one, &best, &all, &w->e));
        must(w, i == 0 || hit[i].score <= hit[i - 1].score);
        must(w, fabsf(best->score - hit[i].score) < 1e-6F);
        for (size_t k = 0; k < i; k++)
            must(w, hit[k].no >> 20 != no);
    }
    must(w, hit[0].no >> 20 <= 2 && hit[1].no >> 20 <= 2);
    q.k = 3;
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &best, &n, &w->e));
    same(w, n, 3);
    for (size_t i = 0; i < n; i++)
        same(w, best[i].no >> 20, hit[i].no >> 20);
}
