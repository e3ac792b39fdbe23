/* A bump allocator with one lifetime: a request, a job, a command. Nothing in it is freed singly. Objects of foreign
 * libraries join it with arena_own() and are released, last first, when it ends. Out of memory ends the process:
 * every size that depends on input is bounded before it gets here. */
#pragma once
#include "common/str.h"

struct arena_block;
struct arena_owned;

struct arena {
    struct arena_block *blocks; /* newest first */
    char *at, *end;             /* free space of the newest block */
    struct arena_owned *owned;
};

void arena_init(struct arena *a); /* allocates nothing yet; a zeroed struct is also an initialised one */
void arena_fini(struct arena *a); /* releases everything; the arena may be used again */

void *arena_alloc(struct arena *a, size_t n);        /* 16-byte aligned, not cleared */
void *arena_zalloc(struct arena *a, size_t n);       /* cleared */
struct str arena_dup(struct arena *a, struct str s); /* the copy is NUL-terminated behind its length */
char *arena_strdup(struct arena *a, const char *z);
struct str arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* `fn(res)` runs when the arena ends. Returns `res`. */
void *arena_own(struct arena *a, void *res, void (*fn)(void *));

size_t arena_size(const struct arena *a); /* bytes held from malloc */
