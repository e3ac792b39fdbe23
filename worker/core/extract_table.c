#include "worker/core/extract_private.h"

/* ---- tables ---- */

enum {
    HEADER_MAX = 100,
    GAP_MAX = 8, /* cells without text that are shown between two others */
};

void table_begin(struct table *t, struct builder *b)
{
    *t = (struct table){.b = b};
}

void table_end(struct table *t)
{
    buf_fini(&t->row);
    buf_fini(&t->header);
    *t = (struct table){0};
}

static bool is_number(struct str s)
{
    bool digit = false;
    for (size_t i = 0; i < s.n; i++) {
        digit |= s.p[i] >= '0' && s.p[i] <= '9';
        if (!memchr("0123456789.,:-+/% eE$", s.p[i], 21))
            return false;
    }
    return digit;
}

void table_cell(struct table *t, struct str text)
{
    t->cells++;
    text = str_trim(text);
    t->numbers |= text.n == 0 || text.n > HEADER_MAX || is_number(text);
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i])
            buf_ch(&t->row, text.p[i]);
    buf_ch(&t->row, 0);
}

/* Cells without text at the end of a row, as spreadsheets are full of. */
static size_t filled(const struct table *t)
{
    size_t end = t->row.n, n = 0;
    while (end && t->row.p[end - 1] == 0)
        end--;
    for (size_t i = 0; i < end; i++)
        n += t->row.p[i] == 0;
    return end ? n + 1 : 0;
}

void table_row_end(struct table *t)
{
    size_t n = filled(t), i = 0, gap = 0;
    bool header = !t->begun && n >= 2 && n == t->cells && !t->numbers;
    struct str names = buf_view(&t->header);
    if (n)
        builder_open(t->b, BLOCK_TABLE_ROW, 0);
    for (struct str rest = buf_view(&t->row); i < n; i++) {
        struct str cell = str_cut(&rest, 0), name = names.n ? str_cut(&names, 0) : STR("");
        gap = cell.n ? 0 : gap + 1;
        if (gap > (t->headers ? 0 : GAP_MAX))
            continue;
        if (t->b->started || (i && !t->headers))
            builder_text(t->b, STR(" | "));
        builder_text(t->b, name);
        if (name.n)
            builder_text(t->b, STR(": "));
        builder_text(t->b, cell);
    }
    builder_close(t->b);
    if (header) {
        t->headers = n;
        t->header = t->row;
        t->row = (struct buf){0};
    }
    t->begun |= n > 0;
    t->row.n = 0;
    t->cells = 0;
    t->numbers = false;
}

/* ---- CSV and TSV, RFC 4180 with the freedoms that programs take ---- */

/* The separator that the first line has most of. */
static char separator(struct str in)
{
    static const char candidates[] = ",;\t|";
    size_t count[4] = {0}, best = 0;
    bool quoted = false;
    for (size_t i = 0; i < in.n && (quoted || in.p[i] != '\n') && i < 65536; i++) {
        const char *c = memchr(candidates, in.p[i], 4);
        quoted ^= in.p[i] == '"';
        if (c && !quoted)
            count[c - candidates]++;
    }
    for (size_t i = 1; i < 4; i++)
        if (count[i] > count[best])
            best = i;
    return candidates[best];
}

/* One field; returns what ended it: the separator, '\n' or 0. */
static char field(struct str in, size_t *at, char sep, struct buf *out)
{
    size_t i = *at;
    out->n = 0;
    bool quoted = i < in.n && in.p[i] == '"';
    if (quoted)
        i++;
    for (; i < in.n; i++) {
        char c = in.p[i];
        if (quoted && c == '"') {
            if (i + 1 < in.n && in.p[i + 1] == '"')
                i++;
            else {
                quoted = false;
                continue;
            }
        } else if (!quoted && (c == sep || c == '\n')) {
            break;
        }
        buf_ch(out, c == '\r' ? ' ' : c);
    }
    *at = i < in.n ? i + 1 : i;
    return i < in.n ? in.p[i] : 0;
}

void extract_csv(struct source *s, struct str in, bool tabs)
{
    struct table t;
    struct buf cell = {0};
    char sep = tabs ? '\t' : separator(in), end = ' ';
    table_begin(&t, &s->builder);
    for (size_t at = 0; end && at < in.n;) {
        end = field(in, &at, sep, &cell);
        table_cell(&t, buf_view(&cell));
        if (end != sep)
            table_row_end(&t);
    }
    table_row_end(&t); /* of a file that ends in a separator */
    table_end(&t);
    buf_fini(&cell);
}
