#include "worker/core/extract_private.h"
#include <stdio.h>
#include <stdlib.h>

/* RTF: groups in braces, control words with a number, and text in a code page. What is not text of the document stands in
 * groups with a name of their own, which are skipped. */

enum { GROUPS_MAX = 1000 };

struct group {
    bool skip;
    bool note;    /* a footnote: it is put in brackets */
    int fallback; /* \uc: characters that follow each \u for readers that do not know it */
};
struct rtf {
    struct source *source;
    struct builder *b;
    struct str in;
    size_t at;
    struct group *group;
    size_t depth;
    struct buf bytes; /* characters in the code page, not yet decoded */
    int codepage;
    int skip_chars;     /* of the fallback */
    uint32_t surrogate; /* first half of a pair */
    bool first;         /* the next control word names the group */
    bool opened, in_row, title;
    int notes;   /* groups around that are footnotes */
    int outline; /* of the paragraph: 0 none, 1–6 */
    struct buf title_text;
};

struct word {
    struct str name;
    bool has_number;
    int number;
};

static void paragraph_open(struct rtf *r)
{
    if (r->opened)
        return;
    r->opened = true;
    builder_open(r->b,
                 r->in_row    ? BLOCK_TABLE_ROW
                 : r->outline ? BLOCK_HEADING
                              : BLOCK_PARAGRAPH,
                 r->in_row ? 0 : r->outline);
}

static void put(struct rtf *r, struct str text)
{
    if (r->title) {
        if (r->title_text.n < 1000)
            buf_str(&r->title_text, text);
        return;
    }
    paragraph_open(r);
    builder_text(r->b, text);
}

/* Characters of the code page become UTF-8 together: some take two bytes. */
static void flush(struct rtf *r)
{
    struct buf utf8 = {0};
    struct err ignored;
    bool binary = false;
    char name[24];
    if (r->bytes.n == 0)
        return;
    struct str bytes = buf_view(&r->bytes), charset = {name, 0};
    charset.n = (size_t)snprintf(name, sizeof name, "CP%d", r->codepage);
    if (text_decode(&utf8, bytes, r->codepage == 1252 ? STR("") : charset, &binary, &ignored) == 0 && !binary)
        put(r, buf_view(&utf8));
    r->bytes.n = 0;
    buf_fini(&utf8);
}

static void put_char(struct rtf *r, uint32_t c)
{
    struct buf utf8 = {0};
    flush(r);
    text_put_utf8(&utf8, c);
    put(r, buf_view(&utf8));
    buf_fini(&utf8);
}

static void put_byte(struct rtf *r, char c)
{
    if (r->group[r->depth].skip)
        return;
    if (r->skip_chars > 0)
        r->skip_chars--;
    else
        buf_ch(&r->bytes, c);
}

static void paragraph_end(struct rtf *r)
{
    flush(r);
    size_t before = r->b->n;
    if (r->in_row || r->notes) { /* paragraphs in a cell, or between brackets */
        builder_text(r->b, STR(" "));
        return;
    }
    builder_close(r->b);
    if (r->outline == 1 && r->b->n > before) {
        const struct block *k = &r->b->block[before];
        builder_title(r->b, (struct str){r->b->text.p + k->from, k->to - k->from});
    }
    r->opened = false;
}

static void unicode(struct rtf *r, int number)
{
    uint32_t c = (uint32_t)(number < 0 ? number + 65536 : number);
    r->skip_chars = r->group[r->depth].fallback;
    if (c >= 0xd800 && c < 0xdc00) {
        r->surrogate = c;
        return;
    }
    if (c >= 0xdc00 && c < 0xe000 && r->surrogate)
        c = 0x10000 + ((r->surrogate - 0xd800) << 10) + (c - 0xdc00);
    r->surrogate = 0;
    put_char(r, c);
}

/* ---- control words ---- */

/* Groups that hold no text of the document. */
static bool hidden(struct str name)
{
    static const char *const names[] = {
        "fonttbl",  "colortbl",  "stylesheet", "info",    "pict",     "object",  "header", "headerl",
        "headerr",  "headerf",   "footer",     "footerl", "footerr",  "footerf", "xe",     "tc",
        "listtext", "pntext",    "datafield",  "filetbl", "revtbl",   "fldinst", "ftnsep", "ftnsepc",
        "aftnsep",  "bkmkstart", "bkmkend",    "author",  "operator", "creatim", "revtim", "company",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eqz(name, names[i]))
            return true;
    return false;
}

static void destination(struct rtf *r, struct word w)
{
    struct group *g = &r->group[r->depth];
    if (str_eqz(w.name, "title")) {
        g->skip = false;
        r->title = true;
    } else if (hidden(w.name)) {
        g->skip = true;
    } else if (str_eqz(w.name, "footnote") && !g->skip) {
        put(r, STR(" ("));
        g->note = true;
        r->notes++;
    }
}

static void table_word(struct rtf *r, struct str name)
{
    if (str_eqz(name, "intbl")) {
        r->in_row = true;
    } else if (str_eqz(name, "cell")) {
        flush(r);
        r->in_row = true;
        put(r, STR(" | "));
    } else if (str_eqz(name, "row")) {
        flush(r);
        struct buf *t = &r->b->text; /* the last cell ends, and none begins */
        if (r->b->started && t->n >= 2 && memcmp(t->p + t->n - 2, " |", 2) == 0)
            t->n -= 2;
        builder_close(r->b);
        r->in_row = r->opened = false;
    }
}

static void symbol_word(struct rtf *r, struct str name)
{
    static const struct {
        const char *name;
        uint32_t c;
    } symbols[] = {
        {"emdash", 0x2014},    {"endash", 0x2013},    {"bullet", 0x2022}, {"lquote", 0x2018}, {"rquote", 0x2019},
        {"ldblquote", 0x201c}, {"rdblquote", 0x201d}, {"tab", ' '},       {"emspace", ' '},   {"enspace", ' '},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        if (str_eqz(name, symbols[i].name))
            put_char(r, symbols[i].c);
}

static void text_word(struct rtf *r, struct word w)
{
    if (str_eqz(w.name, "par") || str_eqz(w.name, "sect") || str_eqz(w.name, "page"))
        paragraph_end(r);
    else if (str_eqz(w.name, "pard"))
        r->outline = 0;
    else if (str_eqz(w.name, "outlinelevel") && w.number >= 0 && w.number < 9)
        r->outline = w.number < 6 ? w.number + 1 : 6;
    else if (str_eqz(w.name, "line")) {
        flush(r);
        builder_newline(r->b);
    } else if (str_eqz(w.name, "u") && w.has_number)
        unicode(r, w.number);
    else {
        table_word(r, w.name);
        symbol_word(r, w.name);
    }
}

static void control_word(struct rtf *r, struct word w)
{
    struct group *g = &r->group[r->depth];
    if (str_eqz(w.name, "bin") && w.number > 0) {
        size_t left = r->in.n - r->at;
        r->at += (size_t)w.number < left ? (size_t)w.number : left;
    } else if (str_eqz(w.name, "ansicpg") && w.number > 0) {
        r->codepage = w.number;
    } else if (str_eqz(w.name, "uc") && w.number >= 0) {
        g->fallback = w.number < 16 ? w.number : 16;
    } else {
        if (r->first)
            destination(r, w);
        if (!g->skip)
            text_word(r, w);
    }
    r->first = false;
}

static struct word read_word(struct rtf *r)
{
    struct word w = {.has_number = false};
    size_t from = r->at;
    while (r->at < r->in.n && ((r->in.p[r->at] | 32) >= 'a' && (r->in.p[r->at] | 32) <= 'z') && r->at - from < 32)
        r->at++;
    w.name = (struct str){r->in.p + from, r->at - from};
    bool negative = r->at < r->in.n && r->in.p[r->at] == '-';
    r->at += negative;
    for (; r->at < r->in.n && r->in.p[r->at] >= '0' && r->in.p[r->at] <= '9'; r->at++) {
        w.has_number = true;
        if (w.number < 100000000)
            w.number = w.number * 10 + (r->in.p[r->at] - '0');
    }
    if (negative)
        w.number = -w.number;
    if (r->at < r->in.n && r->in.p[r->at] == ' ')
        r->at++;
    return w;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* Behind a backslash. */
static void control(struct rtf *r)
{
    if (r->at == r->in.n)
        return;
    char c = r->in.p[r->at];
    if ((c | 32) >= 'a' && (c | 32) <= 'z') {
        control_word(r, read_word(r));
        return;
    }
    r->at++;
    if (c == '\'' && r->at + 1 < r->in.n && hex(r->in.p[r->at]) >= 0 && hex(r->in.p[r->at + 1]) >= 0) {
        put_byte(r, (char)(hex(r->in.p[r->at]) << 4 | hex(r->in.p[r->at + 1])));
        r->at += 2;
    } else if (c == '*') { /* a group that readers who do not know it skip; the title is known */
        r->group[r->depth].skip = true;
        return;
    } else if (c == '~' || c == '_') {
        put_byte(r, c == '~' ? ' ' : '-');
    } else if (c == '\\' || c == '{' || c == '}') {
        put_byte(r, c);
    } else if ((c == '\n' || c == '\r') && !r->group[r->depth].skip) {
        paragraph_end(r);
    }
    r->first = false;
}

static int group_open(struct rtf *r)
{
    flush(r);
    if (r->depth + 1 == GROUPS_MAX)
        return refuse(r->source, "invalid_file", "the document cannot be read: it is nested too deeply");
    r->group[r->depth + 1] = r->group[r->depth];
    r->depth++;
    r->group[r->depth].note = false;
    r->first = true;
    return 0;
}

static void group_close(struct rtf *r)
{
    flush(r);
    if (r->title) {
        builder_title(r->b, buf_view(&r->title_text));
        r->title = false;
    }
    if (r->group[r->depth].note) {
        put(r, STR(")"));
        r->notes--;
    }
    r->depth -= r->depth > 0;
    r->skip_chars = 0;
    r->first = false;
}

int extract_rtf(struct source *s, struct str raw)
{
    struct rtf r = {.source = s, .b = &s->builder, .in = raw, .codepage = 1252};
    r.group = calloc(GROUPS_MAX, sizeof *r.group);
    if (!r.group)
        abort();
    r.group[0].fallback = 1;
    int rc = 0;
    while (r.at < raw.n && rc == 0) {
        char c = raw.p[r.at++];
        if (c == '{')
            rc = group_open(&r);
        else if (c == '}')
            group_close(&r);
        else if (c == '\\')
            control(&r);
        else if (c != '\r' && c != '\n')
            put_byte(&r, c);
    }
    if (rc == 0)
        flush(&r);
    builder_close(&s->builder);
    free(r.group);
    buf_fini(&r.bytes);
    buf_fini(&r.title_text);
    return rc;
}
