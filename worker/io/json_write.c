#include "worker/io/json.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* What to do with each byte of a string: 0 copy it, 'u' \u00XX, 'm' starts a multi-byte character, else \ and this. */
static const unsigned char escape[256] = {
    [0 ... 7] = 'u', ['\b'] = 'b',          ['\t'] = 't', ['\n'] = 'n',  [0x0b] = 'u',          ['\f'] = 'f',
    ['\r'] = 'r',    [0x0e ... 0x1f] = 'u', ['"'] = '"',  ['\\'] = '\\', [0x80 ... 0xff] = 'm',
};

#define EACH(byte) (0x0101010101010101ull * (byte))
/* High bit set somewhere if one of the eight bytes is below 0x20, a quote, a backslash or not ASCII. False alarms only
 * beside a true one. */
static bool needs_look(const char *p)
{
    uint64_t w;
    memcpy(&w, p, sizeof w);
    uint64_t quote = w ^ EACH('"'), slash = w ^ EACH('\\');
    return ((w | (w - EACH(0x20)) | (quote - EACH(1)) | (slash - EACH(1))) & EACH(0x80)) != 0;
}

/* Bytes of the valid UTF-8 character at p, 0 if it is none. */
static size_t char_len(const char *p, size_t n)
{
    unsigned char c = (unsigned char)*p;
    size_t len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    return len <= n && str_is_utf8((struct str){p, len}) ? len : 0;
}

void json_escape(struct buf *out, struct str s)
{
    static const char hex[] = "0123456789abcdef";
    const char *p = s.p, *end = s.p + s.n, *run = s.p;
    buf_reserve(out, s.n + 2);
    buf_ch(out, '"');
    while (p < end) {
        while (end - p >= 8 && !needs_look(p))
            p += 8;
        while (p < end && !escape[(unsigned char)*p])
            p++;
        if (p == end)
            break;
        unsigned char how = escape[(unsigned char)*p];
        size_t len = how == 'm' ? char_len(p, (size_t)(end - p)) : 0;
        if (len) {
            p += len;
            continue;
        }
        buf_add(out, run, (size_t)(p - run));
        if (how == 'm')
            buf_lit(out, "\xef\xbf\xbd");
        else if (how == 'u')
            buf_add(out, (char[]){'\\', 'u', '0', '0', hex[*p >> 4], hex[*p & 15]}, 6);
        else
            buf_add(out, (char[]){'\\', (char)how}, 2);
        run = ++p;
    }
    buf_add(out, run, (size_t)(end - run));
    buf_ch(out, '"');
}

static void write_double(struct buf *b, double v)
{
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    buf_str(b, str_of(text));
    if (!strpbrk(text, ".e"))
        buf_lit(b, ".0"); /* so that what was a real number reads back as one */
}

void json_dump(struct buf *out, const json_t *value)
{
    const char *sep = "";
    switch (json_typeof(value)) {
    case JSON_OBJECT: {
        const char *name;
        json_t *v;
        buf_ch(out, '{');
        json_object_foreach ((json_t *)value, name, v) {
            buf_str(out, str_of(sep));
            json_escape(out, str_of(name));
            buf_ch(out, ':');
            json_dump(out, v);
            sep = ",";
        }
        buf_ch(out, '}');
        break;
    }
    case JSON_ARRAY:
        buf_ch(out, '[');
        for (size_t i = 0; i < json_array_size(value); i++) {
            buf_str(out, str_of(sep));
            json_dump(out, json_array_get(value, i));
            sep = ",";
        }
        buf_ch(out, ']');
        break;
    case JSON_STRING: json_escape(out, (struct str){json_string_value(value), json_string_length(value)}); break;
    case JSON_INTEGER: buf_i64(out, json_integer_value(value)); break;
    case JSON_REAL: write_double(out, json_real_value(value)); break;
    case JSON_TRUE: buf_lit(out, "true"); break;
    case JSON_FALSE: buf_lit(out, "false"); break;
    case JSON_NULL: buf_lit(out, "null"); break;
    }
}

static void next(struct json_out *o)
{
    if (o->comma)
        buf_ch(o->b, ',');
    o->comma = true;
}

void jo_begin(struct json_out *o, char open)
{
    next(o);
    buf_ch(o->b, open);
    o->comma = false;
}

void jo_end(struct json_out *o, char close)
{
    buf_ch(o->b, close);
    o->comma = true;
}

void jo_key(struct json_out *o, struct str name)
{
    next(o);
    buf_reserve(o->b, name.n + 3);
    buf_ch(o->b, '"');
    buf_str(o->b, name);
    buf_lit(o->b, "\":");
    o->comma = false;
}

void jo_str(struct json_out *o, struct str v)
{
    next(o);
    json_escape(o->b, v);
}

void jo_strz(struct json_out *o, const char *v)
{
    if (v)
        jo_str(o, str_of(v));
    else
        jo_null(o);
}

void jo_i64(struct json_out *o, int64_t v)
{
    next(o);
    buf_i64(o->b, v);
}

void jo_f64(struct json_out *o, double v)
{
    if (!isfinite(v)) {
        jo_null(o);
        return;
    }
    next(o);
    write_double(o->b, v);
}

void jo_bool(struct json_out *o, bool v)
{
    next(o);
    buf_str(o->b, v ? STR("true") : STR("false"));
}

void jo_null(struct json_out *o)
{
    next(o);
    buf_lit(o->b, "null");
}

void jo_raw(struct json_out *o, struct str json)
{
    next(o);
    buf_str(o->b, json);
}

void jo_uuid(struct json_out *o, const struct uuid *u)
{
    char text[UUID_TEXT_LEN + 2];
    next(o);
    text[0] = text[UUID_TEXT_LEN + 1] = '"';
    uuid_text(u, text + 1);
    buf_add(o->b, text, sizeof text);
}

void jo_time(struct json_out *o, int64_t wall_us)
{
    char text[CLOCK_RFC3339_LEN + 2];
    if (!wall_us) {
        jo_null(o);
        return;
    }
    next(o);
    text[0] = text[CLOCK_RFC3339_LEN + 1] = '"';
    clock_rfc3339(text + 1, wall_us);
    buf_add(o->b, text, sizeof text);
}
