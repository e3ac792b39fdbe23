#include "common/clock.h"
#include "worker/core/extract_private.h"
#include <stdlib.h>

/* ---- the guard ---- */

enum { GUARD_BLOCK = 256 << 10, GUARD_LARGE = 32 << 10 };

/* Head of a malloc'd block: one that small pieces are cut from, or one large piece. */
struct guard_block {
    struct guard_block *next, *prev;
    size_t size;
    size_t pad;
};
/* Head of every piece. */
struct guard_piece {
    size_t n;
    struct guard_block *large; /* NULL: cut from a small block, and freed with it */
};

void guard_init(struct guard *g)
{
    memset(g, 0, sizeof *g);
    g->stack = __builtin_frame_address(0);
    g->until_ns = clock_ns() + GUARD_SECONDS * SEC;
}

static void free_blocks(struct guard_block *b)
{
    while (b) {
        struct guard_block *next = b->next;
        free(b);
        b = next;
    }
}

void guard_fini(struct guard *g)
{
    free_blocks(g->small);
    free_blocks(g->large);
    g->small = g->large = NULL;
    g->at = g->end = NULL;
}

void guard_clear(struct guard *g)
{
    guard_fini(g);
    g->total = 0;
}

static void leave(struct guard *g, const char *why)
{
    g->exceeded = why;
    longjmp(g->out, 1);
}

static struct guard_block *guard_block(struct guard *g, struct guard_block **list, size_t n)
{
    if (n > GUARD_MEMORY - g->total)
        leave(g, "its structure takes too much memory");
    struct guard_block *b = malloc(sizeof *b + n);
    if (!b)
        leave(g, "there is not enough memory for its structure");
    g->total += n;
    *b = (struct guard_block){.next = *list, .size = n};
    if (b->next)
        b->next->prev = b;
    *list = b;
    return b;
}

void *guard_alloc(struct guard *g, size_t n)
{
    if ((++g->calls & 0xfff) == 0 && clock_ns() > g->until_ns)
        leave(g, "its structure takes too long to parse");
    if (n > GUARD_MEMORY)
        leave(g, "its structure takes too much memory");
    size_t need = sizeof(struct guard_piece) + ((n + 15) & ~(size_t)15);
    struct guard_piece *p;
    if (need > GUARD_LARGE) {
        struct guard_block *b = guard_block(g, &g->large, need);
        p = (struct guard_piece *)(b + 1);
        p->large = b;
    } else {
        if ((size_t)(g->end - g->at) < need) {
            g->at = (char *)(guard_block(g, &g->small, GUARD_BLOCK) + 1);
            g->end = g->at + GUARD_BLOCK;
        }
        p = (struct guard_piece *)(void *)g->at;
        p->large = NULL;
        g->at += need;
    }
    p->n = n;
    return p + 1;
}

void guard_release(struct guard *g, void *ptr)
{
    /* Libraries free trees by recursion, one call per level, and call this on each. */
    const char *here = __builtin_frame_address(0);
    if ((here < g->stack ? g->stack - here : here - g->stack) > GUARD_STACK)
        leave(g, "it is nested too deeply");
    if (!ptr)
        return;
    struct guard_block *b = ((struct guard_piece *)ptr - 1)->large;
    if (!b)
        return;
    if (b->prev)
        b->prev->next = b->next;
    else
        g->large = b->next;
    if (b->next)
        b->next->prev = b->prev;
    g->total -= b->size;
    free(b);
}

void *guard_realloc(struct guard *g, void *ptr, size_t n)
{
    if (!ptr)
        return guard_alloc(g, n);
    size_t old = ((struct guard_piece *)ptr - 1)->n;
    if (n <= old)
        return ptr;
    void *fresh = guard_alloc(g, n);
    memcpy(fresh, ptr, old);
    guard_release(g, ptr);
    return fresh;
}

/* ---- the builder ---- */

void builder_fini(struct builder *b)
{
    buf_fini(&b->text);
    buf_fini(&b->title);
    free(b->block);
    b->block = NULL;
}

void builder_open(struct builder *b, enum block_kind kind, int level)
{
    builder_close(b);
    b->kind = kind;
    b->level = level;
    b->preserve = kind == BLOCK_CODE;
}

static void start(struct builder *b)
{
    if (b->text.n)
        buf_lit(&b->text, "\n\n");
    b->from = b->text.n;
    b->started = true;
}

void builder_close(struct builder *b)
{
    b->gap = 0;
    if (!b->started)
        return;
    b->started = false;
    while (b->text.n > b->from && memchr(" \n\t", b->text.p[b->text.n - 1], 3))
        b->text.n--;
    if (b->text.n == b->from) { /* it held controls only */
        b->text.n -= b->from ? 2 : 0;
        return;
    }
    if (b->n == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 64;
        b->block = realloc(b->block, b->cap * sizeof *b->block);
        if (!b->block)
            abort();
    }
    b->block[b->n++] =
        (struct block){.kind = b->kind, .level = b->level, .page = b->page, .from = b->from, .to = b->text.n};
}

void builder_newline(struct builder *b)
{
    b->gap = '\n';
}

/* Bytes of a character that no text keeps: controls (also C1) and byte order marks. 0: it stays. */
static size_t unwanted(const char *p, size_t n)
{
    unsigned char c = (unsigned char)*p;
    if (c < 0x20 || c == 0x7f)
        return c == '\n' || c == '\t' ? 0 : 1;
    if (c == 0xc2 && n > 1 && (unsigned char)p[1] < 0xa0)
        return 2;
    return c == 0xef && n > 2 && memcmp(p, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

/* Controls that stand between words: a new page, a new line below. */
static bool breaks(char c)
{
    return c == '\f' || c == '\v';
}

static size_t white(const char *p, size_t n)
{
    if (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r' || breaks(*p))
        return 1;
    return n > 1 && memcmp(p, "\xc2\xa0", 2) == 0 ? 2 : 0;
}

static void text_collapsed(struct builder *b, struct str s)
{
    for (size_t i = 0; i < s.n;) {
        size_t skip = white(s.p + i, s.n - i);
        if (skip) {
            if (!b->gap)
                b->gap = ' ';
        } else if ((skip = unwanted(s.p + i, s.n - i)) == 0) {
            if (!b->started)
                start(b);
            else if (b->gap)
                buf_ch(&b->text, b->gap);
            b->gap = 0;
            buf_ch(&b->text, s.p[i]);
            skip = 1;
        }
        i += skip;
    }
}

static void text_preserved(struct builder *b, struct str s)
{
    if (!b->started) { /* without the blank lines before it, with its first indentation */
        size_t line = 0, i = 0;
        for (; i < s.n && memchr(" \t\r\n", s.p[i], 4); i++)
            if (s.p[i] == '\n')
                line = i + 1;
        if (i == s.n)
            return;
        s = str_sub(s, line, s.n);
        start(b);
    }
    if (b->gap == '\n')
        buf_ch(&b->text, '\n');
    b->gap = 0;
    for (size_t i = 0; i < s.n;) {
        size_t skip = unwanted(s.p + i, s.n - i);
        if (!skip)
            buf_ch(&b->text, s.p[i++]);
        else if (breaks(s.p[i]) && b->text.n > b->from && !memchr(" \n\t", b->text.p[b->text.n - 1], 3))
            buf_ch(&b->text, ' ');
        i += skip;
    }
}

void builder_text(struct builder *b, struct str s)
{
    if (b->preserve)
        text_preserved(b, s);
    else
        text_collapsed(b, s);
}

void builder_title(struct builder *b, struct str s)
{
    enum { TITLE_MAX = 300 };
    if (b->title.n)
        return;
    struct builder t = {.kind = BLOCK_HEADING};
    text_collapsed(&t, s);
    builder_close(&t);
    size_t n = t.text.n;
    if (n > TITLE_MAX)
        for (n = TITLE_MAX; n > 0 && ((unsigned char)t.text.p[n] & 0xc0) == 0x80;)
            n--;
    buf_add(&b->title, t.text.p, n);
    builder_fini(&t);
}
