/* What the tests of extraction share: an arena, and what an extraction must look like. */
#pragma once
#include "worker/core/extract.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static struct arena arena;

static inline int begin(void **state)
{
    (void)state;
    arena_init(&arena);
    return 0;
}

static inline int end(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static inline struct str sample(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "tests/data/%s", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *bytes = arena_alloc(&arena, 1 << 20);
    size_t n = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return (struct str){bytes, n};
}

/* What holds for every extraction. */
static inline void check_shape(const struct extracted *x)
{
    assert_true(x->n > 0);
    assert_true(str_is_utf8(x->text));
    assert_null(memchr(x->text.p, 0, x->text.n));
    size_t at = 0;
    for (size_t i = 0; i < x->n; i++) {
        assert_int_equal(x->block[i].from, at);
        assert_true(x->block[i].to > x->block[i].from);
        at = x->block[i].to;
        if (i + 1 < x->n) {
            assert_memory_equal(x->text.p + at, "\n\n", 2);
            at += 2;
        }
    }
    assert_int_equal(at, x->text.n);
}

/* Blocks as lines "kind[level] text", the text's newlines shown as "/". */
static inline const char *outline(const struct extracted *x)
{
    static const char *const kinds[] = {"p", "h", "li", "code", "row"};
    struct buf b = {0};
    for (size_t i = 0; i < x->n; i++) {
        const struct block *k = &x->block[i];
        buf_printf(&b, "%s", kinds[k->kind]);
        if (k->kind == BLOCK_HEADING)
            buf_printf(&b, "%d", k->level);
        buf_ch(&b, ' ');
        for (size_t j = k->from; j < k->to; j++)
            buf_ch(&b, x->text.p[j] == '\n' ? '/' : x->text.p[j]);
        buf_ch(&b, '\n');
    }
    const char *z = arena_dup(&arena, buf_view(&b)).p;
    buf_fini(&b);
    return z;
}

static inline void extracts(struct str bytes, const char *mime, const char *name, const char *found,
                            const char *expected)
{
    struct extracted x;
    const char *code = NULL;
    struct err e = {0};
    if (extract(&arena, bytes, str_of(mime), str_of(name), &x, &code, &e))
        fail_msg("%s: %s: %s", name, code, e.msg);
    check_shape(&x);
    assert_string_equal(x.mime, found);
    assert_string_equal(outline(&x), expected);
}

static inline void refuses(struct str bytes, const char *mime, const char *name, const char *expected, const char *says)
{
    struct extracted x;
    const char *code = NULL;
    struct err e = {0};
    assert_int_equal(extract(&arena, bytes, str_of(mime), str_of(name), &x, &code, &e), -1);
    assert_int_equal(e.code, ERR_VALIDATION);
    assert_string_equal(code, expected);
    if (!strstr(e.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
}

static inline struct str title_of(struct str bytes, const char *name)
{
    struct extracted x;
    const char *code;
    struct err e;
    assert_int_equal(extract(&arena, bytes, STR(""), str_of(name), &x, &code, &e), 0);
    return x.title;
}

static inline struct str repeated(const char *head, const char *unit, size_t n, const char *tail)
{
    struct buf b = {0};
    buf_str(&b, str_of(head));
    for (size_t i = 0; i < n; i++)
        buf_str(&b, str_of(unit));
    buf_str(&b, str_of(tail));
    struct str s = buf_view(&b);
    buf_ch(&b, 0);
    s.p = b.p;
    arena_own(&arena, b.p, free);
    return s;
}

/* Ends, and without overflowing the stack; whether it is read or refused is another matter. */
static inline void survives(struct str bytes, const char *name)
{
    struct extracted x;
    const char *code = NULL;
    struct err e = {0};
    if (extract(&arena, bytes, STR(""), str_of(name), &x, &code, &e) == 0)
        check_shape(&x);
    else
        assert_string_equal(code, "invalid_file");
}
