/* Lifting: the one long string of an object is read here, and everything else by jansson. A document's text is most of the
 * body that carries it; lexing it byte by byte and building a value only to copy that again took half of the processor
 * time of a create. What is accepted is what jansson accepts: at the first doubt the whole text goes to it. */
#include "worker/io/json.h"

/* Offset behind the quote that ends the string whose content begins at `i`; 0: it does not end. */
static size_t string_end(struct str t, size_t i)
{
    for (size_t from = i; i < t.n; i++) {
        const char *quote = memchr(t.p + i, '"', t.n - i);
        if (!quote)
            return 0;
        i = (size_t)(quote - t.p);
        size_t slashes = 0;
        while (i - slashes > from && t.p[i - slashes - 1] == '\\')
            slashes++;
        if (slashes % 2 == 0)
            return i + 1;
    }
    return 0;
}

static size_t skip_space(struct str t, size_t i)
{
    while (i < t.n && (t.p[i] == ' ' || t.p[i] == '\t' || t.p[i] == '\n' || t.p[i] == '\r'))
        i++;
    return i;
}

/* The content of the string that is the value of the top-level member `name`. */
static bool find(struct str t, struct str name, struct str *value)
{
    int level = 0;
    bool expect_name = false;
    for (size_t i = 0; i < t.n; i++) {
        char c = t.p[i];
        if (c == '{' || c == '[') {
            expect_name = ++level == 1 && c == '{';
        } else if (c == '}' || c == ']') {
            level--;
        } else if (c == ',') {
            expect_name = level == 1;
        } else if (c == '"') {
            size_t end = string_end(t, i + 1);
            if (!end)
                return false;
            struct str s = {t.p + i + 1, end - i - 2};
            i = end - 1;
            if (level != 1 || !expect_name)
                continue;
            expect_name = false;
            size_t colon = skip_space(t, end), v = skip_space(t, colon + 1);
            if (!str_eq(s, name) || colon >= t.n || t.p[colon] != ':' || v >= t.n || t.p[v] != '"')
                continue;
            end = string_end(t, v + 1);
            *value = (struct str){t.p + v + 1, end ? end - v - 2 : 0};
            return end != 0;
        }
    }
    return false;
}

static int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

static char *put_utf8(char *to, int c)
{
    if (c < 0x80) {
        *to++ = (char)c;
        return to;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
    *to++ = (char)(lead[more] | c >> 6 * more);
    while (more--)
        *to++ = (char)(0x80 | (c >> 6 * more & 0x3f));
    return to;
}

/* A \u escape whose digits begin at p[0]; a pair of surrogates is one character. Returns how many bytes were used. */
static size_t decode_u(const char *p, size_t n, char **to)
{
    int c = n >= 4 ? hex4(p) : -1;
    if (c <= 0 || (c >= 0xdc00 && c <= 0xdfff))
        return 0;
    if (c < 0xd800 || c > 0xdbff) {
        *to = put_utf8(*to, c);
        return 4;
    }
    int low = n >= 10 && p[4] == '\\' && p[5] == 'u' ? hex4(p + 6) : -1;
    if (low < 0xdc00 || low > 0xdfff)
        return 0;
    *to = put_utf8(*to, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00));
    return 10;
}

/* No escape makes more bytes than it takes. */
static bool decode(struct arena *a, struct str s, struct str *out)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    char *base = arena_alloc(a, s.n + 1), *to = base;
    while (s.n) {
        const char *slash = memchr(s.p, '\\', s.n);
        size_t run = slash ? (size_t)(slash - s.p) : s.n;
        memcpy(to, s.p, run);
        to += run;
        s = str_sub(s, run, SIZE_MAX);
        if (!s.n)
            break;
        const char *hit = s.n > 1 && s.p[1] ? strchr(from, s.p[1]) : NULL;
        size_t used = 1;
        if (hit)
            *to++ = into[hit - from];
        else if (s.n < 2 || s.p[1] != 'u' || !(used = decode_u(s.p + 2, s.n - 2, &to)))
            return false;
        s = str_sub(s, hit ? 2 : 2 + used, SIZE_MAX);
    }
    *to = 0;
    *out = (struct str){base, (size_t)(to - base)};
    return true;
}

static bool has_control(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20)
            return true;
    return false;
}

int json_parse_lifting(struct arena *a, struct str text, int depth, const char *name, json_t **out, struct str *lifted,
                       struct err *e)
{
    struct str raw, value;
    *lifted = (struct str){NULL, 0};
    if (!find(text, str_of(name), &raw) || !raw.n || has_control(raw) || !str_is_utf8(raw))
        return json_parse_object(a, text, depth, out, e);
    value = raw;
    if (memchr(raw.p, '\\', raw.n) && !decode(a, raw, &value))
        return json_parse_object(a, text, depth, out, e);
    /* The rest: the same text with an empty string in its place. */
    size_t head = (size_t)(raw.p - text.p), tail = text.n - head - raw.n;
    char *rest = arena_alloc(a, head + tail + 1);
    memcpy(rest, text.p, head);
    memcpy(rest + head, raw.p + raw.n, tail);
    struct err where; /* not told: columns are those of the rest */
    if (json_parse_object(a, (struct str){rest, head + tail}, depth, out, &where))
        return json_parse_object(a, text, depth, out, e);
    json_object_del(*out, name);
    *lifted = value;
    return 0;
}
