#include "worker/core/extract_private.h"
#include <cmark.h>
#include <ctype.h>

/* cmark's allocator takes no context, and several documents may be parsed at once in helper threads. */
static _Thread_local struct guard *current;

static void *md_calloc(size_t n, size_t size)
{
    if (size && n > SIZE_MAX / size)
        n = SIZE_MAX / 2 / size; /* refused by the guard */
    void *p = guard_alloc(current, n * size);
    return memset(p, 0, n * size);
}

static void *md_realloc(void *p, size_t n)
{
    return guard_realloc(current, p, n);
}

static void md_free(void *p)
{
    guard_release(current, p);
}

static cmark_mem memory = {md_calloc, md_realloc, md_free};

/* ---- front matter ---- */

static bool fence(struct str line, char c)
{
    while (line.n && memchr(" \t\r", line.p[line.n - 1], 3))
        line.n--;
    return line.n == 3 && line.p[0] == c && line.p[1] == c && line.p[2] == c;
}

static void front_matter_line(struct builder *b, struct str line, char fence_char)
{
    struct str key = str_cut(&line, fence_char == '+' ? '=' : ':');
    if (!str_ieq(str_trim(key), STR("title")))
        return;
    while (line.n && memchr(" \t\r\"'", line.p[line.n - 1], 5))
        line.n--;
    while (line.n && memchr(" \t\"'", line.p[0], 4))
        line = str_sub(line, 1, line.n);
    builder_title(b, line);
}

/* YAML between "---" or TOML between "+++" at the very beginning. Returns what follows it. */
static struct str skip_front_matter(struct builder *b, struct str in)
{
    enum { LINES_MAX = 200 };
    struct str rest = in, line = str_cut(&rest, '\n');
    char c = line.n ? line.p[0] : 0;
    if ((c != '-' && c != '+') || !fence(line, c))
        return in;
    struct str lines = rest;
    for (int i = 0; rest.n && i < LINES_MAX; i++) {
        line = str_cut(&rest, '\n');
        if (!fence(line, c))
            continue;
        struct str body = str_sub(lines, 0, (size_t)(line.p - lines.p));
        while (body.n)
            front_matter_line(b, str_cut(&body, '\n'), c);
        return rest;
    }
    return in;
}

/* ---- the walk ---- */

struct walk {
    struct builder *b;
    struct guard *g;
    int items; /* depth of list items */
};

/* "| a | b |" lines under a delimiter row: a table, which CommonMark knows only as a paragraph. */
static bool delimiter_row(struct str line)
{
    bool dash = false;
    for (size_t i = 0; i < line.n; i++) {
        if (!memchr("|-: ", line.p[i], 4))
            return false;
        dash |= line.p[i] == '-';
    }
    return dash && memchr(line.p, '|', line.n);
}

static void table_row(struct builder *b, struct str line)
{
    builder_open(b, BLOCK_TABLE_ROW, 0);
    line = str_trim(line);
    if (line.n && line.p[0] == '|')
        line = str_sub(line, 1, line.n);
    if (line.n && line.p[line.n - 1] == '|')
        line.n--;
    for (bool first = true; line.n; first = false) {
        if (!first)
            builder_text(b, STR(" | "));
        builder_text(b, str_trim(str_cut(&line, '|')));
    }
    builder_close(b);
}

/* Turns the paragraph just closed into rows if it is a table. */
static void split_table(struct builder *b)
{
    struct block *p = b->n ? &b->block[b->n - 1] : NULL;
    if (!p || p->kind != BLOCK_PARAGRAPH || p->to != b->text.n)
        return;
    struct str text = {b->text.p + p->from, p->to - p->from}, rest = text;
    struct str head = str_cut(&rest, '\n'), second = str_cut(&rest, '\n');
    if (!memchr(head.p, '|', head.n) || !second.n || !delimiter_row(second))
        return;
    struct buf copy = {0};
    buf_str(&copy, text);
    b->text.n = p->from >= 2 ? p->from - 2 : 0;
    b->n--;
    rest = buf_view(&copy);
    for (int i = 0; rest.n; i++) {
        struct str line = str_cut(&rest, '\n');
        if (i != 1)
            table_row(b, line);
    }
    buf_fini(&copy);
}

static void literal(struct walk *w, cmark_node *node)
{
    const char *z = cmark_node_get_literal(node);
    builder_text(w->b, str_of(z));
}

static int enter(struct walk *w, cmark_node *node)
{
    switch (cmark_node_get_type(node)) {
    case CMARK_NODE_HEADING: builder_open(w->b, BLOCK_HEADING, cmark_node_get_heading_level(node)); break;
    case CMARK_NODE_PARAGRAPH: builder_open(w->b, w->items ? BLOCK_LIST_ITEM : BLOCK_PARAGRAPH, 0); break;
    case CMARK_NODE_CODE_BLOCK:
        builder_open(w->b, BLOCK_CODE, 0);
        literal(w, node);
        builder_close(w->b);
        break;
    case CMARK_NODE_HTML_BLOCK:
        builder_close(w->b);
        return extract_html(w->b, w->g, str_of(cmark_node_get_literal(node)));
    case CMARK_NODE_ITEM: w->items++; break;
    case CMARK_NODE_TEXT:
    case CMARK_NODE_CODE: literal(w, node); break;
    case CMARK_NODE_SOFTBREAK:
    case CMARK_NODE_LINEBREAK: builder_newline(w->b); break;
    default: break;
    }
    return 0;
}

static void leave(struct walk *w, cmark_node *node)
{
    switch (cmark_node_get_type(node)) {
    case CMARK_NODE_PARAGRAPH:
        builder_close(w->b);
        split_table(w->b);
        break;
    case CMARK_NODE_HEADING: {
        size_t before = w->b->n;
        builder_close(w->b);
        if (w->b->n > before) {
            const struct block *h = &w->b->block[w->b->n - 1];
            builder_title(w->b, (struct str){w->b->text.p + h->from, h->to - h->from});
        }
        break;
    }
    case CMARK_NODE_ITEM: w->items--; break;
    default: break;
    }
}

static int parse(struct builder *b, struct guard *g, struct str in)
{
    struct walk w = {b, g, 0};
    volatile int rc = 0;
    current = g;
    if (setjmp(g->out))
        return -1;
    cmark_parser *parser = cmark_parser_new_with_mem(CMARK_OPT_DEFAULT, &memory);
    cmark_parser_feed(parser, in.p, in.n);
    cmark_iter *it = cmark_iter_new(cmark_parser_finish(parser));
    for (cmark_event_type ev; rc == 0 && (ev = cmark_iter_next(it)) != CMARK_EVENT_DONE;) {
        if (ev == CMARK_EVENT_ENTER)
            rc = enter(&w, cmark_iter_get_node(it));
        else
            leave(&w, cmark_iter_get_node(it));
    }
    builder_close(b);
    return rc;
}

/* Large documents are parsed piece by piece, or their trees would take many times their size. A piece ends before a
 * heading or a paragraph, outside of fenced code: where CommonMark starts anew whatever came before. */
static size_t piece_length(struct str in)
{
    enum { PIECE = 1 << 20 };
    bool blank = false;
    char fenced = 0;
    if (in.n <= PIECE)
        return in.n;
    for (struct str rest = in; rest.n;) {
        size_t at = in.n - rest.n;
        struct str line = str_cut(&rest, '\n'), text = str_trim(line);
        unsigned char c = line.n ? (unsigned char)line.p[0] : 0;
        bool fence = str_starts(text, STR("```")) || str_starts(text, STR("~~~"));
        if (at >= PIECE && !fenced && !fence && (c == '#' || (blank && (isalnum(c) || c >= 0x80))))
            return at;
        if (fence && (!fenced || fenced == text.p[0]))
            fenced = fenced ? 0 : text.p[0];
        blank = text.n == 0 || (text.n == 1 && text.p[0] == '\r');
    }
    return in.n;
}

int extract_markdown(struct builder *b, struct guard *g, struct str in)
{
    in = skip_front_matter(b, in);
    while (in.n) {
        size_t n = piece_length(in);
        if (parse(b, g, str_sub(in, 0, n)))
            return -1;
        guard_clear(g);
        in = str_sub(in, n, in.n);
    }
    return 0;
}
