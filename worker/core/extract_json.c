#include "worker/core/extract_private.h"

/* JSON becomes lines "path.to.member: value", one block for each record: the elements of the outermost array, else the
 * whole document. Several documents behind each other (NDJSON) are records, too. Read in one pass, without a tree. */

enum { DEPTH_MAX = 64, PATH_MAX_BYTES = 400 };

struct json {
    struct builder *b;
    struct str in;
    size_t at;
    struct buf path;
    struct buf scratch;
    size_t depth;
    bool list; /* the line in progress is an array of plain values: "tags: a, b" */
};

static bool value(struct json *j);

static void skip_white(struct json *j)
{
    while (j->at < j->in.n && memchr(" \t\r\n", j->in.p[j->at], 4))
        j->at++;
}

static bool eat(struct json *j, char c)
{
    skip_white(j);
    if (j->at == j->in.n || j->in.p[j->at] != c)
        return false;
    j->at++;
    return true;
}

static bool hex4(struct json *j, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, j->at++) {
        if (j->at == j->in.n)
            return false;
        char c = j->in.p[j->at];
        int v = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (v < 0)
            return false;
        *out = *out << 4 | (uint32_t)v;
    }
    return true;
}

static bool escape(struct json *j, struct buf *out)
{
    uint32_t c, low;
    if (j->at == j->in.n)
        return false;
    char e = j->in.p[j->at++];
    const char *from = "\"\\/bfnrt", *to = "\"\\/ \n\n\n ", *hit = e ? strchr(from, e) : NULL;
    if (hit) {
        buf_ch(out, to[hit - from]);
        return true;
    }
    if (e != 'u' || !hex4(j, &c))
        return false;
    if (c >= 0xd800 && c < 0xdc00 && str_starts(str_sub(j->in, j->at, 2), STR("\\u"))) {
        size_t before = j->at;
        j->at += 2;
        if (!hex4(j, &low))
            return false;
        if (low >= 0xdc00 && low < 0xe000)
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        else
            j->at = before;
    }
    text_put_utf8(out, c);
    return true;
}

/* Behind the opening quote. */
static bool string(struct json *j, struct buf *out)
{
    while (j->at < j->in.n) {
        char c = j->in.p[j->at++];
        if (c == '"')
            return true;
        if (c == '\\') {
            if (!escape(j, out))
                return false;
        } else if ((unsigned char)c < 0x20) {
            return false;
        } else {
            buf_ch(out, c);
        }
    }
    return false;
}

static void line(struct json *j, struct str text)
{
    if (j->list) {
        builder_text(j->b, STR(", "));
        builder_text(j->b, text);
        return;
    }
    if (j->b->started)
        builder_newline(j->b);
    builder_text(j->b, buf_view(&j->path));
    if (j->path.n)
        builder_text(j->b, STR(": "));
    builder_text(j->b, text);
}

static bool scalar(struct json *j)
{
    j->scratch.n = 0;
    if (j->in.p[j->at] == '"') {
        j->at++;
        if (!string(j, &j->scratch))
            return false;
        line(j, buf_view(&j->scratch));
        return true;
    }
    size_t from = j->at;
    while (j->at < j->in.n && !memchr(" \t\r\n,]}:\"{[", j->in.p[j->at], 11))
        j->at++;
    struct str word = str_sub(j->in, from, j->at - from);
    bool constant = str_eqz(word, "true") || str_eqz(word, "false");
    if (str_eqz(word, "null"))
        return true;
    if (word.n == 0 || (!constant && word.p[0] != '-' && (word.p[0] < '0' || word.p[0] > '9')))
        return false;
    line(j, word);
    return true;
}

static bool object(struct json *j)
{
    size_t path = j->path.n;
    if (eat(j, '}'))
        return true;
    do {
        if (!eat(j, '"'))
            return false;
        j->path.n = path;
        if (path)
            buf_ch(&j->path, '.');
        if (!string(j, &j->path))
            return false;
        if (j->path.n > PATH_MAX_BYTES) /* not in the middle of a character */
            j->path.n = str_utf8_valid_prefix(str_sub(buf_view(&j->path), 0, PATH_MAX_BYTES));
        if (!eat(j, ':') || !value(j))
            return false;
    } while (eat(j, ','));
    j->path.n = path;
    return eat(j, '}');
}

static bool plain_next(struct json *j)
{
    skip_white(j);
    return j->at < j->in.n && j->in.p[j->at] != '{' && j->in.p[j->at] != '[';
}

/* `records`: each element is a block of its own. */
static bool array(struct json *j, bool records)
{
    bool before = j->list;
    if (eat(j, ']'))
        return true;
    j->list = false;
    do {
        if (records)
            builder_open(j->b, BLOCK_PARAGRAPH, 0);
        bool plain = plain_next(j);
        if (!value(j))
            return false;
        j->list = plain && !records && j->b->started;
        if (j->list && !plain_next(j))
            j->list = false;
    } while (eat(j, ','));
    j->list = before;
    return eat(j, ']');
}

static bool value(struct json *j)
{
    skip_white(j);
    if (j->at == j->in.n || j->depth == DEPTH_MAX)
        return false;
    char c = j->in.p[j->at];
    if (c != '{' && c != '[')
        return scalar(j);
    bool records = j->depth == 0;
    j->at++;
    j->depth++;
    bool list = j->list;
    if (c == '{')
        j->list = false;
    bool good = c == '{' ? object(j) : array(j, records);
    j->list = list;
    j->depth--;
    return good;
}

int extract_json(struct source *s, struct str in)
{
    struct json j = {.b = &s->builder, .in = in};
    bool good = true;
    for (skip_white(&j); good && j.at < in.n; skip_white(&j)) {
        builder_open(&s->builder, BLOCK_PARAGRAPH, 0);
        j.path.n = 0;
        good = value(&j);
    }
    builder_close(&s->builder);
    buf_fini(&j.path);
    buf_fini(&j.scratch);
    return good ? 0 : 1;
}
