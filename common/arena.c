#include "common/arena.h"
#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define poison(p, n)   __asan_poison_memory_region(p, n)
#define unpoison(p, n) __asan_unpoison_memory_region(p, n)
enum { RED = 16 }; /* unaddressable bytes between two allocations */
#else
#define poison(p, n)   ((void)0)
#define unpoison(p, n) ((void)0)
enum { RED = 0 };
#endif

enum { BLOCK = 4096, ALIGN = 16, POOL_MAX = 64 };

struct arena_block {
    struct arena_block *next;
    size_t size; /* whole block, this header included */
    alignas(ALIGN) char data[];
};

struct arena_owned {
    struct arena_owned *next;
    void *res;
    void (*fn)(void *);
};

/* Blocks of the standard size are kept for the next request. */
static struct {
    struct arena_block *free;
    int n;
} pool;

static struct arena_block *block_get(size_t size)
{
    struct arena_block *b;
    if (size == BLOCK && pool.free) {
        b = pool.free;
        pool.free = b->next;
        pool.n--;
        return b;
    }
    b = malloc(size);
    if (!b)
        abort();
    b->size = size;
    return b;
}

static void block_put(struct arena_block *b)
{
    unpoison(b->data, b->size - sizeof *b);
    if (b->size == BLOCK && pool.n < POOL_MAX) {
        b->next = pool.free;
        pool.free = b;
        pool.n++;
    } else {
        free(b);
    }
}

void arena_init(struct arena *a)
{
    *a = (struct arena){0};
}

void arena_fini(struct arena *a)
{
    while (a->owned) {
        struct arena_owned *o = a->owned;
        a->owned = o->next;
        o->fn(o->res);
    }
    while (a->blocks) {
        struct arena_block *b = a->blocks;
        a->blocks = b->next;
        block_put(b);
    }
    *a = (struct arena){0};
}

void *arena_alloc(struct arena *a, size_t n)
{
    size_t need = ((n ? n : 1) + ALIGN - 1) / ALIGN * ALIGN + RED;
    if (n > SIZE_MAX / 2)
        abort();
    if ((size_t)(a->end - a->at) < need) {
        size_t size = need + sizeof(struct arena_block);
        struct arena_block *b = block_get(size <= BLOCK ? BLOCK : size);
        poison(b->data, b->size - sizeof *b);
        if (size > BLOCK / 2 && a->blocks) { /* a large object goes behind: the current block keeps its space */
            b->next = a->blocks->next;
            a->blocks->next = b;
            unpoison(b->data, n);
            return b->data;
        }
        b->next = a->blocks;
        a->blocks = b;
        a->at = b->data;
        a->end = (char *)b + b->size;
    }
    void *p = a->at;
    a->at += need;
    unpoison(p, n);
    return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
    return memset(arena_alloc(a, n), 0, n);
}

struct str arena_dup(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.n + 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = 0;
    return (struct str){p, s.n};
}

char *arena_strdup(struct arena *a, const char *z)
{
    return (char *)arena_dup(a, str_of(z)).p;
}

struct str arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;
    char small[256];
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0)
        abort();
    if ((size_t)n < sizeof small)
        return arena_dup(a, (struct str){small, (size_t)n});
    char *p = arena_alloc(a, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return (struct str){p, (size_t)n};
}

void *arena_own(struct arena *a, void *res, void (*fn)(void *))
{
    struct arena_owned *o = arena_alloc(a, sizeof *o);
    *o = (struct arena_owned){a->owned, res, fn};
    a->owned = o;
    return res;
}

size_t arena_size(const struct arena *a)
{
    size_t n = 0;
    for (const struct arena_block *b = a->blocks; b; b = b->next)
        n += b->size;
    return n;
}
