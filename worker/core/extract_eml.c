#include "worker/core/extract_private.h"
#include <stdlib.h>

/* Mail: headers, then a body that may be a tree of parts. Text parts are read, the others named. */

enum { DEPTH_MAX = 10, PARTS_MAX = 1000, HEADER_MAX = 16 << 10 };

struct mail {
    struct source *source;
    struct builder *b;
    int depth, parts;
};

static int entity(struct mail *m, struct str raw, bool message);

/* ---- headers ---- */

/* Up to the empty line; `*body` is what follows it. */
static struct str head_of(struct str raw, struct str *body)
{
    struct str rest = raw;
    while (rest.n) {
        struct str line = str_cut(&rest, '\n');
        if (line.n == 0 || str_eqz(line, "\r")) {
            *body = rest;
            return str_sub(raw, 0, (size_t)(line.p - raw.p));
        }
    }
    *body = rest;
    return raw;
}

/* The value of the first header of that name, unfolded; "" if there is none. */
static void header(struct str head, const char *name, struct buf *out)
{
    bool inside = false;
    out->n = 0;
    while (head.n && out->n < HEADER_MAX) {
        struct str line = str_cut(&head, '\n');
        bool folded = line.n && (line.p[0] == ' ' || line.p[0] == '\t');
        if (!folded) {
            if (inside)
                return;
            struct str key = str_cut(&line, ':');
            inside = str_ieq(str_trim(key), str_of(name));
        }
        if (!inside)
            continue;
        while (line.n && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == ' '))
            line.n--;
        line = str_trim(line);
        if (out->n && line.n)
            buf_ch(out, ' ');
        buf_str(out, str_sub(line, 0, HEADER_MAX));
    }
}

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+' || c == '-' ? 62
           : c == '/' || c == '_' ? 63
                                  : -1;
}

static void decode_base64(struct str in, struct buf *out)
{
    uint32_t bits = 0;
    int n = 0;
    for (size_t i = 0; i < in.n && in.p[i] != '='; i++) {
        int v = base64_value(in.p[i]);
        if (v < 0)
            continue;
        bits = bits << 6 | (uint32_t)v;
        if (++n % 4 == 0) {
            char three[] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
            buf_add(out, three, 3);
        }
    }
    if (n % 4 == 3)
        buf_ch(out, (char)(bits >> 10));
    if (n % 4 >= 2)
        buf_ch(out, (char)(bits >> (n % 4 == 3 ? 2 : 4)));
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* `word`: within a header, where '_' is a space. */
static void decode_quoted(struct str in, bool word, struct buf *out)
{
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c == '=' && i + 2 < in.n && hex(in.p[i + 1]) >= 0 && hex(in.p[i + 2]) >= 0) {
            buf_ch(out, (char)(hex(in.p[i + 1]) << 4 | hex(in.p[i + 2])));
            i += 2;
        } else if (c == '=' && !word) { /* a soft line break */
            while (i + 1 < in.n && (in.p[i + 1] == ' ' || in.p[i + 1] == '\t' || in.p[i + 1] == '\r'))
                i++;
            i += i + 1 < in.n && in.p[i + 1] == '\n';
        } else {
            buf_ch(out, c == '_' && word ? ' ' : c);
        }
    }
}

static void to_utf8(struct str bytes, struct str charset, struct buf *out)
{
    bool binary = false;
    struct err ignored;
    size_t before = out->n;
    if (text_decode(out, bytes, charset, &binary, &ignored) != 0 || binary)
        out->n = before;
}

/* One "=?charset?Q?…?=" at the beginning of `s`, decoded; returns its length, 0: it is none. */
static size_t encoded_word(struct str s, struct buf *out)
{
    struct str rest = str_sub(s, 2, 1000);
    struct buf raw = {0};
    const char *end;
    if (!str_starts(s, STR("=?")))
        return 0;
    struct str charset = str_cut(&rest, '?'), how = str_cut(&rest, '?');
    if (charset.n == 0 || how.n != 1 || !rest.n || !(end = memmem(rest.p, rest.n, "?=", 2)))
        return 0;
    struct str text = {rest.p, (size_t)(end - rest.p)};
    charset = str_cut(&charset, '*'); /* a language may follow */
    if ((how.p[0] | 32) == 'b')
        decode_base64(text, &raw);
    else
        decode_quoted(text, true, &raw);
    to_utf8(buf_view(&raw), charset, out);
    buf_fini(&raw);
    return (size_t)(end + 2 - s.p);
}

/* RFC 2047; white space between two encoded words vanishes. */
static void decode_words(struct str in, struct buf *out)
{
    out->n = 0;
    for (size_t i = 0; i < in.n;) {
        size_t n = in.p[i] == '=' ? encoded_word(str_sub(in, i, SIZE_MAX), out) : 0;
        if (n) {
            size_t gap = 0;
            i += n;
            while (i + gap < in.n && in.p[i + gap] == ' ')
                gap++;
            if (str_starts(str_sub(in, i + gap, 2), STR("=?")))
                i += gap;
            continue;
        }
        size_t from = i++;
        while (i < in.n && in.p[i] != '=')
            i++;
        to_utf8(str_sub(in, from, i - from), STR(""), out);
    }
}

/* ; name="value" behind a header's first word. RFC 2231's name*=charset''value is taken without its charset. */
static struct str parameter(struct str value, const char *name)
{
    struct str rest = value;
    (void)str_cut(&rest, ';');
    while (rest.n) {
        struct str key = str_trim(str_cut(&rest, '=')), v;
        rest = str_trim(rest);
        if (rest.n && rest.p[0] == '"') {
            rest = str_sub(rest, 1, SIZE_MAX);
            v = str_cut(&rest, '"');
            (void)str_cut(&rest, ';');
        } else {
            v = str_trim(str_cut(&rest, ';'));
        }
        if (str_ieq(key, str_of(name)))
            return v;
        if (key.n && key.p[key.n - 1] == '*' && str_ieq(str_sub(key, 0, key.n - 1), str_of(name))) {
            (void)str_cut(&v, '\'');
            (void)str_cut(&v, '\'');
            return v;
        }
    }
    return STR("");
}

/* ---- bodies ---- */

static void decode_body(struct str body, struct str encoding, struct buf *out)
{
    if (str_ieq(encoding, STR("base64")))
        decode_base64(body, out);
    else if (str_ieq(encoding, STR("quoted-printable")))
        decode_quoted(body, false, out);
    else
        buf_str(out, body);
}

static int text_part(struct mail *m, struct str body, struct str encoding, struct str charset, bool html)
{
    struct buf raw = {0}, utf8 = {0};
    int rc = 0;
    decode_body(body, encoding, &raw);
    if (html && !charset.n)
        charset = html_charset(buf_view(&raw));
    to_utf8(buf_view(&raw), charset, &utf8);
    if (html)
        rc = extract_html_part(m->source, buf_view(&utf8));
    else
        extract_plain(m->b, buf_view(&utf8), false);
    buf_fini(&raw);
    buf_fini(&utf8);
    return rc;
}

static void name_attachment(struct mail *m, struct str name)
{
    struct buf text = {0};
    decode_words(name, &text);
    if (text.n) {
        builder_open(m->b, BLOCK_LIST_ITEM, 0);
        builder_text(m->b, STR("Attachment: "));
        builder_text(m->b, buf_view(&text));
        builder_close(m->b);
    }
    buf_fini(&text);
}

static bool part_next(struct str *rest, struct str boundary, struct str *part)
{
    bool inside = false;
    const char *from = NULL;
    while (rest->n) {
        struct str line = str_cut(rest, '\n');
        bool mark = line.n >= boundary.n + 2 && line.p[0] == '-' && line.p[1] == '-' &&
                    memcmp(line.p + 2, boundary.p, boundary.n) == 0;
        if (!mark)
            continue;
        bool last = str_starts(str_sub(line, boundary.n + 2, 2), STR("--"));
        if (inside) {
            *part = (struct str){from, (size_t)(line.p - from)};
            if (last)
                rest->n = 0;
            else
                *rest = (struct str){line.p, (size_t)(rest->p + rest->n - line.p)};
            return true;
        }
        if (last)
            rest->n = 0;
        inside = true;
        from = rest->p;
    }
    if (!inside || !from || rest->p == from)
        return false;
    *part = (struct str){from, (size_t)(rest->p - from)}; /* cut off */
    return part->n > 0;
}

static bool is_plain(struct str part)
{
    struct str body;
    struct buf type = {0};
    header(head_of(part, &body), "content-type", &type);
    struct str rest = buf_view(&type), first = str_trim(str_cut(&rest, ';'));
    bool plain = first.n == 0 || str_ieq(first, STR("text/plain"));
    buf_fini(&type);
    return plain && str_trim(body).n > 2;
}

/* Of alternatives the plain one, if it says something, else the last, which is the best. */
static int alternatives(struct mail *m, struct str body, struct str boundary)
{
    struct str rest = body, part, best = {NULL, 0};
    for (int i = 0; i < PARTS_MAX && part_next(&rest, boundary, &part); i++) {
        best = part;
        if (is_plain(part))
            break;
    }
    return best.n ? entity(m, best, false) : 0;
}

static int multipart(struct mail *m, struct str body, struct str type, struct str boundary)
{
    struct str rest = body, part;
    if (boundary.n == 0 || boundary.n > 200)
        return 0;
    if (str_ieq(type, STR("multipart/alternative")))
        return alternatives(m, body, boundary);
    while (part_next(&rest, boundary, &part))
        if (entity(m, part, false))
            return -1;
    return 0;
}

/* ---- a message, or a part of one ---- */

static void show_headers(struct mail *m, struct str head)
{
    static const char *const shown[] = {"From", "To", "Cc", "Date"};
    struct buf value = {0}, text = {0};
    header(head, "subject", &value);
    decode_words(buf_view(&value), &text);
    builder_open(m->b, BLOCK_HEADING, 1);
    builder_text(m->b, buf_view(&text));
    builder_title(m->b, buf_view(&text));
    builder_open(m->b, BLOCK_PARAGRAPH, 0);
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        header(head, shown[i], &value);
        if (value.n == 0)
            continue;
        decode_words(buf_view(&value), &text);
        builder_newline(m->b);
        builder_text(m->b, str_of(shown[i]));
        builder_text(m->b, STR(": "));
        builder_text(m->b, buf_view(&text));
    }
    builder_close(m->b);
    buf_fini(&value);
    buf_fini(&text);
}

static int content(struct mail *m, struct str body, struct str type, struct str encoding, struct str disposition)
{
    struct str rest = type, mime = str_trim(str_cut(&rest, ';')), name = parameter(disposition, "filename");
    bool attached = str_ieq(str_sub(disposition, 0, 10), STR("attachment"));
    if (name.n == 0)
        name = parameter(type, "name");
    if (str_ieq(str_sub(mime, 0, 10), STR("multipart/")))
        return multipart(m, body, mime, parameter(type, "boundary"));
    if (str_ieq(mime, STR("message/rfc822")))
        return entity(m, body, true);
    if (!attached && (mime.n == 0 || str_ieq(mime, STR("text/plain")) || str_ieq(mime, STR("text/html"))))
        return text_part(m, body, encoding, parameter(type, "charset"), str_ieq(mime, STR("text/html")));
    name_attachment(m, name);
    return 0;
}

static int entity(struct mail *m, struct str raw, bool message)
{
    struct buf type = {0}, encoding = {0}, disposition = {0};
    struct str body, head = head_of(raw, &body);
    if (m->depth == DEPTH_MAX || ++m->parts > PARTS_MAX)
        return 0;
    m->depth++;
    if (message)
        show_headers(m, head);
    header(head, "content-type", &type);
    header(head, "content-transfer-encoding", &encoding);
    header(head, "content-disposition", &disposition);
    int rc = content(m, body, buf_view(&type), buf_view(&encoding), buf_view(&disposition));
    m->depth--;
    buf_fini(&type);
    buf_fini(&encoding);
    buf_fini(&disposition);
    return rc;
}

int extract_eml(struct source *s, struct str raw)
{
    struct mail m = {.source = s, .b = &s->builder};
    return entity(&m, raw, true);
}
