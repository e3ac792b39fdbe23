#include "worker/core/cage_wire.h"
#include "worker/core/extract_private.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct wire_head {
    uint32_t magic;
    int32_t page;
    uint64_t blocks, text, title; /* numbers, bytes */
    int64_t pages;
    char mime[96], code[32], msg[320]; /* `code` "" = a result */
};
struct wire_block {
    uint64_t from, to;
    int32_t kind, level, page, unused;
};

/* ---- writing ---- */

static int write_all(int fd, const void *p, size_t n)
{
    for (const char *at = p; n;) {
        ssize_t done = write(fd, at, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return -1;
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

int wire_write(int fd, const struct source *s)
{
    enum { BATCH = 256 };
    const struct builder *b = &s->builder;
    struct wire_block block[BATCH];
    struct wire_head h = {.magic = CAGE_MAGIC, .page = b->page, .pages = s->pages};
    if (s->code) {
        str_copyz(h.code, sizeof h.code, str_of(s->code));
        str_copyz(h.msg, sizeof h.msg, str_of(s->err.msg));
        return write_all(fd, &h, sizeof h);
    }
    str_copyz(h.mime, sizeof h.mime, str_of(s->type->mime));
    h.blocks = b->n;
    h.text = b->text.n;
    h.title = b->title.n;
    if (write_all(fd, &h, sizeof h))
        return -1;
    for (size_t i = 0; i < b->n;) {
        size_t n = 0;
        for (; n < BATCH && i < b->n; n++, i++) {
            const struct block *k = &b->block[i];
            block[n] = (struct wire_block){k->from, k->to, (int32_t)k->kind, k->level, k->page, 0};
        }
        if (write_all(fd, block, n * sizeof *block))
            return -1;
    }
    return write_all(fd, b->text.p, b->text.n) || write_all(fd, b->title.p, b->title.n) ? -1 : 0;
}

/* ---- reading: nothing in it is believed ---- */

static int no_result(struct err *e, const char *what)
{
    err_set(e, ERR_INTERNAL, "the document could not be read");
    return err_log(e, "the cage returned nonsense: %s", what);
}

static const char *known_code(const char *code)
{
    static const char *const codes[] = {"unsupported_file", "invalid_file",   "empty_file",
                                        "encoding",         "encrypted",      "no_text",
                                        "too_large",        "parser_crashed", "parser_memory"};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (strcmp(code, codes[i]) == 0)
            return codes[i];
    return NULL;
}

static int read_refusal(struct wire_head *h, const char **code, int *page, struct err *e)
{
    const char *known = known_code(h->code);
    if (!known)
        return no_result(e, "an unknown code");
    str_utf8_fix(h->msg);
    for (char *p = h->msg; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    *code = known;
    *page = h->page > 0 ? h->page : 0;
    return err_set(e, ERR_VALIDATION, "%s", h->msg[0] ? h->msg : "the document cannot be read");
}

static bool good_block(const struct wire_block *w, size_t at, struct str text, bool last)
{
    if (w->from != at || w->to <= w->from || w->to > text.n || w->kind < BLOCK_PARAGRAPH || w->kind > BLOCK_TABLE_ROW)
        return false;
    if (w->level < (w->kind == BLOCK_HEADING) || w->level > 6 || w->page < 0)
        return false;
    if (last)
        return w->to == text.n;
    return text.n - w->to > 2 && memcmp(text.p + w->to, "\n\n", 2) == 0;
}

static bool good_text(struct str s)
{
    return str_is_utf8(s) && !(s.n && memchr(s.p, 0, s.n));
}

static int read_blocks(struct arena *a, const char *from, size_t n, struct extracted *x, struct err *e)
{
    size_t at = 0;
    x->block = arena_alloc(a, n * sizeof *x->block);
    x->n = n;
    for (size_t i = 0; i < n; i++) {
        struct wire_block w;
        memcpy(&w, from + i * sizeof w, sizeof w);
        if (!good_block(&w, at, x->text, i + 1 == n))
            return no_result(e, "a block");
        x->block[i] = (struct block){(enum block_kind)w.kind, w.level, w.page, w.from, w.to};
        at = w.to + 2;
    }
    return 0;
}

int wire_read(struct arena *a, struct str bytes, struct extracted *out, const char **code, int *page, struct err *e)
{
    enum { TITLE_MAX = 1000 };
    struct wire_head h;
    if (bytes.n < sizeof h)
        return no_result(e, "its length");
    memcpy(&h, bytes.p, sizeof h);
    h.mime[sizeof h.mime - 1] = h.code[sizeof h.code - 1] = h.msg[sizeof h.msg - 1] = 0;
    if (h.magic != CAGE_MAGIC)
        return no_result(e, "its beginning");
    if (h.code[0])
        return read_refusal(&h, code, page, e);
    size_t rest = bytes.n - sizeof h;
    if (h.blocks == 0 || h.blocks > rest / sizeof(struct wire_block) || h.title > TITLE_MAX)
        return no_result(e, "its numbers");
    rest -= h.blocks * sizeof(struct wire_block);
    if (h.text > rest || h.title != rest - h.text)
        return no_result(e, "its lengths");
    const char *at = bytes.p + sizeof h, *text = at + h.blocks * sizeof(struct wire_block);
    const struct type *type = type_by_mime(str_of(h.mime));
    struct extracted x = {.text = {text, h.text}, .title = {text + h.text, h.title}, .pages = h.pages};
    if (!good_text(x.text) || !good_text(x.title) || !type || h.pages < 0 || h.pages > INT32_MAX)
        return no_result(e, "its text");
    x.mime = type->mime;
    if (read_blocks(a, at, h.blocks, &x, e))
        return -1;
    *out = x;
    return 0;
}
