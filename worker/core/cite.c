#include "worker/core/cite.h"
#include <stdlib.h>

enum { SOURCE_DIGITS = 3 }; /* [2024] is no source */

void cite_init(struct cite *c, size_t sources)
{
    *c = (struct cite){.sources = sources};
}

void cite_fini(struct cite *c)
{
    buf_fini(&c->text);
    buf_fini(&c->held);
    free(c->span);
    *c = (struct cite){0};
}

static bool space(char ch)
{
    return ch == ' ' || ch == '\n' || ch == '\t' || ch == '\r';
}

/* ---- what is said: a statement ends with a line, or with punctuation before white space ---- */

static bool wide_stop(const struct buf *b)
{
    static const char *const stops[] = {"。", "！", "？"};
    for (size_t i = 0; i < 3 && b->n >= 3; i++)
        if (memcmp(b->p + b->n - 3, stops[i], 3) == 0)
            return true;
    return false;
}

static void say(struct cite *c, char ch, struct buf *out)
{
    bool begins = ((unsigned char)ch & 0xc0) != 0x80, blank = space(ch), stop = ch == '.' || ch == '!' || ch == '?';
    if (begins && !blank && !stop && !memchr(",;:)", ch, 4) && c->ended) { /* the next statement */
        c->from = c->chars;
        c->ended = c->word = c->stopped = false;
    }
    buf_ch(&c->text, ch);
    buf_ch(out, ch);
    c->chars += begins;
    if (ch == '`')
        c->code = !c->code;
    if (blank) {
        c->ended |= c->word && (ch == '\n' || c->stopped);
        return;
    }
    if (!c->ended)
        c->to = c->chars;
    c->word |= begins && !stop;
    c->stopped = stop;
    if (wide_stop(&c->text))
        c->ended = true;
}

static void flush(struct cite *c, struct buf *out)
{
    for (size_t i = 0; i < c->held.n; i++)
        say(c, c->held.p[i], out);
    c->held.n = 0;
    c->marking = false;
}

/* ---- marks ---- */

static void add_span(struct cite *c, size_t source)
{
    if (!c->word)
        return; /* nothing was said that it could stand for */
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 16;
        c->span = realloc(c->span, c->cap * sizeof *c->span);
        if (!c->span)
            abort();
    }
    c->span[c->n++] = (struct cite_span){source, c->from, c->to};
}

static bool number(struct str s, uint64_t *n)
{
    s = str_trim(s);
    return s.n && s.n <= SOURCE_DIGITS && str_to_u64(s, n);
}

/* One number, or two with a dash between them. */
static bool next_sources(struct str *rest, uint64_t *from, uint64_t *to)
{
    struct str all = str_cut(rest, ',');
    for (size_t i = 0; i < all.n; i++) {
        struct str right = str_sub(all, i, all.n);
        size_t dash = str_starts(right, STR("-")) ? 1 : str_starts(right, STR("–")) ? 3 : 0;
        if (dash)
            return number(str_sub(all, 0, i), from) && number(str_sub(right, dash, right.n), to) && *from >= 1 &&
                   *from < *to;
    }
    if (!number(all, from))
        return false;
    *to = *from;
    return true;
}

/* Between the brackets are nothing but numbers and ranges. */
static bool is_list(struct str rest)
{
    uint64_t from, to;
    while (rest.n)
        if (!next_sources(&rest, &from, &to))
            return false;
    return true;
}

/* The held text, "  [1, 2]" or "[1-3]", which becomes [1, 2, 3]: what is left of it when what is invented is gone. */
static void take_mark(struct cite *c, struct buf *out)
{
    struct buf kept = {0};
    size_t known = 0, white = 0;
    uint64_t from, to;
    while (white < c->held.n && space(c->held.p[white]))
        white++;
    struct str rest = str_sub(buf_view(&c->held), white + 1, c->held.n - white - 2);
    if (!is_list(rest)) {
        flush(c, out);
        return;
    }
    while (rest.n && next_sources(&rest, &from, &to))
        for (uint64_t source = from; source <= to; source++) {
            if (source < 1 || source > c->sources) {
                c->invented++;
                continue;
            }
            buf_printf(&kept, "%s%llu", known++ ? ", " : "", (unsigned long long)source);
            add_span(c, (size_t)source);
        }
    c->held.n = known ? white : 0;
    if (known) {
        buf_ch(&c->held, '[');
        buf_str(&c->held, buf_view(&kept));
        buf_ch(&c->held, ']');
        c->ended |= c->word;
    }
    /* A mark is no part of what is said. */
    buf_str(&c->text, buf_view(&c->held));
    buf_str(out, buf_view(&c->held));
    c->chars += (int64_t)c->held.n;
    c->held.n = 0;
    c->marking = false;
    buf_fini(&kept);
}

void cite_add(struct cite *c, struct str piece, struct buf *out)
{
    for (size_t i = 0; i < piece.n; i++) {
        char ch = piece.p[i];
        bool digit = ch >= '0' && ch <= '9';
        if (c->code) {
            flush(c, out);
            say(c, ch, out);
        } else if (c->marking && ch == ']' && c->held.p[c->held.n - 1] != '[') {
            buf_ch(&c->held, ch);
            take_mark(c, out);
        } else if (c->held.n < CITE_HELD_MAX && c->marking && (digit || memchr(", -\xe2\x80\x93", ch, 6))) {
            buf_ch(&c->held, ch);
        } else if (c->held.n < CITE_HELD_MAX && !c->marking && (space(ch) || ch == '[')) {
            buf_ch(&c->held, ch);
            c->marking = ch == '[';
        } else {
            flush(c, out);
            if (ch == '[' || space(ch)) {
                buf_ch(&c->held, ch);
                c->marking = ch == '[';
            } else {
                say(c, ch, out);
            }
        }
    }
}

void cite_end(struct cite *c, struct buf *out)
{
    flush(c, out);
}
