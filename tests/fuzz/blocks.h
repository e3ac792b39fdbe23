/* What holds for every extraction, whatever the file was. */
#pragma once
#include "worker/core/extract.h"
#include <assert.h>
#include <stdlib.h>

static inline void check_blocks(const struct extracted *x)
{
    size_t at = 0;
    assert(x->n > 0 && str_is_utf8(x->text) && !memchr(x->text.p, 0, x->text.n));
    for (size_t i = 0; i < x->n; i++) {
        const struct block *b = &x->block[i];
        assert(b->from == at && b->to > b->from && b->to <= x->text.n);
        assert(b->kind != BLOCK_HEADING || (b->level >= 1 && b->level <= 6));
        at = b->to + 2;
        assert(i + 1 == x->n || memcmp(x->text.p + b->to, "\n\n", 2) == 0);
    }
    assert(at == x->text.n + 2 && str_is_utf8(x->title));
}

/* Refused with a code and a reason, or its blocks keep their promises. The file is copied, so that a read beyond its
 * end is seen. */
static inline void extract_checked(struct str bytes, const char *mime, const char *filename)
{
    struct arena a = {0};
    struct err e = {0};
    struct extracted x;
    const char *code = NULL;
    char *copy = malloc(bytes.n ? bytes.n : 1);
    assert(copy);
    if (bytes.n)
        memcpy(copy, bytes.p, bytes.n);
    if (extract(&a, (struct str){copy, bytes.n}, str_of(mime), str_of(filename), &x, &code, &e))
        assert(e.code == ERR_VALIDATION && code && e.msg[0] && str_is_utf8(str_of(e.msg)));
    else
        check_blocks(&x);
    free(copy);
    arena_fini(&a);
}
