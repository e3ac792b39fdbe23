/* A growing byte buffer. It doubles; out of memory ends the process, so whoever fills one from input bounds it. */
#pragma once
#include "common/str.h"

struct buf {
    char *p;
    size_t n, cap;
};

void buf_init(struct buf *b);                  /* a zeroed struct is also an empty buffer */
void buf_fini(struct buf *b);                  /* NULL and empty accepted */
void buf_reserve(struct buf *b, size_t extra); /* room for `extra` more bytes at b->p + b->n */
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_u64(struct buf *b, uint64_t v); /* decimal */
void buf_i64(struct buf *b, int64_t v);
void buf_drop(struct buf *b, size_t n); /* removes the first n bytes */

static inline void buf_add(struct buf *b, const void *p, size_t n)
{
    if (b->cap - b->n < n)
        buf_reserve(b, n);
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

static inline void buf_str(struct buf *b, struct str s)
{
    buf_add(b, s.p, s.n);
}

#define buf_lit(b, lit) buf_add(b, "" lit, sizeof(lit) - 1)

static inline void buf_ch(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

static inline struct str buf_view(const struct buf *b)
{
    return (struct str){b->p, b->n};
}
