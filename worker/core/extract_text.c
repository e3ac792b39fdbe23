#include "worker/core/extract_private.h"
#include <ctype.h>
#include <errno.h>
#include <iconv.h>

/* ---- charsets ---- */

void text_put_utf8(struct buf *out, uint32_t c)
{
    char u[4];
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        c = 0xfffd;
    size_t n;
    if (c < 0x80) {
        u[0] = (char)c;
        n = 1;
    } else if (c < 0x800) {
        u[0] = (char)(0xc0 | c >> 6);
        u[1] = (char)(0x80 | (c & 63));
        n = 2;
    } else if (c < 0x10000) {
        u[0] = (char)(0xe0 | c >> 12);
        u[1] = (char)(0x80 | (c >> 6 & 63));
        u[2] = (char)(0x80 | (c & 63));
        n = 3;
    } else {
        u[0] = (char)(0xf0 | c >> 18);
        u[1] = (char)(0x80 | (c >> 12 & 63));
        u[2] = (char)(0x80 | (c >> 6 & 63));
        u[3] = (char)(0x80 | (c & 63));
        n = 4;
    }
    buf_add(out, u, n);
}

struct wide {
    int width; /* bytes of a unit: 2 or 4 */
    bool big;
    size_t bom;
};

static uint32_t unit_at(struct str s, size_t at, struct wide w)
{
    const unsigned char *p = (const unsigned char *)s.p + at;
    uint32_t c = 0;
    for (int i = 0; i < w.width; i++)
        c = c << 8 | p[w.big ? i : w.width - 1 - i];
    return c;
}

/* UTF-16 and UTF-32. A damaged file may lose some characters, but one that is mostly damage is something else. */
static int decode_wide(struct buf *out, struct str s, struct wide w, struct err *e)
{
    size_t bad = 0, chars = 0;
    for (size_t at = w.bom; at + (size_t)w.width <= s.n; at += (size_t)w.width) {
        uint32_t c = unit_at(s, at, w);
        if (w.width == 2 && c >= 0xd800 && c < 0xdc00 && at + 4 <= s.n) {
            uint32_t low = unit_at(s, at + 2, w);
            if (low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                at += 2;
            }
        }
        chars++;
        bad += c > 0x10ffff || (c >= 0xd800 && c < 0xe000);
        text_put_utf8(out, c);
    }
    if (bad * 20 > chars)
        return err_set(e, ERR_VALIDATION, "the text is not valid UTF-%d%s", w.width * 8, w.big ? "BE" : "LE");
    return 0;
}

/* By byte order mark, or by where the zero bytes of ASCII characters stand. width 0: neither. */
static struct wide wide_of(struct str s)
{
    const char *p = s.p;
    if (s.n >= 4 && memcmp(p, "\xff\xfe\0\0", 4) == 0)
        return (struct wide){4, false, 4};
    if (s.n >= 4 && memcmp(p, "\0\0\xfe\xff", 4) == 0)
        return (struct wide){4, true, 4};
    if (s.n >= 2 && memcmp(p, "\xff\xfe", 2) == 0)
        return (struct wide){2, false, 2};
    if (s.n >= 2 && memcmp(p, "\xfe\xff", 2) == 0)
        return (struct wide){2, true, 2};
    size_t n = s.n < 4096 ? s.n & ~(size_t)3 : 4096, zero[4] = {0};
    for (size_t i = 0; i < n; i++)
        zero[i % 4] += p[i] == 0;
    if (n < 4)
        return (struct wide){0};
    size_t quarter = n / 4, most = quarter - quarter / 10, few = quarter / 20;
    if (zero[1] >= most && zero[2] >= most && zero[3] >= most && zero[0] <= few)
        return (struct wide){4, false, 0};
    if (zero[0] >= most && zero[1] >= most && zero[2] >= most && zero[3] <= few)
        return (struct wide){4, true, 0};
    size_t even = zero[0] + zero[2], odd = zero[1] + zero[3];
    if (odd >= quarter && even <= few)
        return (struct wide){2, false, 0};
    if (even >= quarter && odd <= few)
        return (struct wide){2, true, 0};
    return (struct wide){0};
}

/* Text has hardly any control characters (a few are forgiven); other files have them everywhere. */
static bool looks_binary(struct str s)
{
    size_t n = s.n < 65536 ? s.n : 65536, controls = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        controls += c < 0x20 && !memchr("\t\n\r\f\b\033", c, 6);
    }
    return controls * 100 > n + 300;
}

static void decode_windows_1252(struct buf *out, struct str s)
{
    static const uint16_t high[32] = {0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021,
                                      0x2c6,  0x2030, 0x160,  0x2039, 0x152,  0x8d,   0x17d,  0x8f,
                                      0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
                                      0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        text_put_utf8(out, c >= 0x80 && c < 0xa0 ? high[c - 0x80] : c);
    }
}

static bool charset_name(struct str c)
{
    for (size_t i = 0; i < c.n; i++)
        if (!memchr("-_.:+", c.p[i], 5) && !isalnum((unsigned char)c.p[i]))
            return false;
    return true;
}

/* What the C library calls it: some labels of the WHATWG's Encoding Standard it does not know, others it takes for a
 * smaller charset than the one that is meant everywhere. */
static struct str common_name(struct str charset)
{
    static const struct {
        const char *name, *labels;
    } table[] = {
        {"CP932", "shift_jis shift-jis sjis x-sjis ms_kanji"},
        {"EUC-JP", "x-euc-jp"},
        {"CP949", "euc-kr ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 korean windows-949"},
        {"GB18030", "gb2312 gb_2312 gb_2312-80 gbk x-gbk chinese"},
        {"BIG5-HKSCS", "big5 x-x-big5 csbig5"},
        {"CP1250", "x-cp1250"},
        {"CP1251", "x-cp1251"},
        {"CP1252", "x-cp1252"},
        {"CP1253", "x-cp1253"},
        {"CP1254", "x-cp1254"},
        {"CP1255", "x-cp1255"},
        {"CP1256", "x-cp1256"},
        {"CP1257", "x-cp1257"},
        {"CP1258", "x-cp1258"},
        {"CP874", "dos-874"},
        {"KOI8-R", "koi koi8_r"},
        {"ISO-8859-8", "iso-8859-8-i logical visual"},
        {"MACINTOSH", "x-mac-roman"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (struct str rest = str_of(table[i].labels); rest.n;)
            if (str_ieq(str_cut(&rest, ' '), charset))
                return str_of(table[i].name);
    return charset;
}

/* A converter may keep the last letter, as a mark for it could follow. */
static void end_text(struct buf *out, iconv_t cd)
{
    buf_reserve(out, 64);
    char *to = out->p + out->n;
    size_t room = out->cap - out->n;
    (void)iconv(cd, NULL, NULL, &to, &room);
    out->n = (size_t)(to - out->p);
}

/* Steps over a character that is none of its charset. */
static void skip_bad(struct buf *out, char **in, size_t *left)
{
    size_t n = (unsigned char)**in < 0x80 ? 1 : **in == '\x8f' ? 3 : 2;
    n = n < *left ? n : *left;
    *in += n;
    *left -= n;
    text_put_utf8(out, 0xfffd);
}

/* 0 done, 1 no such charset, -1 the bytes are not of that charset, but for `forgiven` characters. */
static int decode_declared(struct buf *out, struct str s, struct str charset, size_t forgiven)
{
    char name[64];
    if (charset.n == 0 || charset.n >= sizeof name || !charset_name(charset))
        return 1;
    str_copyz(name, sizeof name, common_name(charset));
    iconv_t cd = iconv_open("UTF-8", name);
    if (cd == (iconv_t)-1)
        return 1;
    char *in = (char *)(uintptr_t)s.p;
    size_t left = s.n, start = out->n;
    int rc = 0;
    while (left && rc == 0) {
        buf_reserve(out, 4096);
        char *to = out->p + out->n;
        size_t room = out->cap - out->n;
        size_t done = iconv(cd, &in, &left, &to, &room);
        out->n = (size_t)(to - out->p);
        if (done == (size_t)-1 && errno == EINVAL)
            break; /* the last character is cut off */
        if (done == (size_t)-1 && errno != E2BIG && forgiven == 0)
            rc = -1;
        else if (done == (size_t)-1 && errno != E2BIG)
            forgiven--, skip_bad(out, &in, &left);
    }
    end_text(out, cd);
    iconv_close(cd);
    if (rc)
        out->n = start;
    return rc;
}

static bool plain_charset(struct str c)
{
    static const char *const name[] = {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252"};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++)
        if (str_ieq(c, str_of(name[i])))
            return true;
    return false;
}

/* Of those of seven bits; a few characters may be unknown. False: it is none. */
static bool decode_shifted(struct buf *out, struct str bytes, struct str declared)
{
    const struct shifted *f = shifted_of(bytes, declared);
    struct buf wide = {0};
    if (!f)
        return false;
    shifted_bytes(&wide, f, bytes);
    bool done = decode_declared(out, buf_view(&wide), shifted_charset(f), wide.n / 50) == 0;
    buf_fini(&wide);
    return done;
}

int text_decode(struct buf *out, struct str bytes, struct str declared, bool *binary, struct err *e)
{
    *binary = false;
    if (str_starts(bytes, STR("\xef\xbb\xbf")))
        bytes = str_sub(bytes, 3, bytes.n);
    struct wide w = wide_of(bytes);
    if (w.width)
        return decode_wide(out, bytes, w, e);
    if (decode_shifted(out, bytes, declared))
        return 0;
    if (looks_binary(bytes)) {
        *binary = true;
        return 0;
    }
    if (str_is_utf8(bytes)) {
        buf_str(out, bytes);
        return 0;
    }
    if (declared.n && !plain_charset(declared)) {
        int rc = decode_declared(out, bytes, declared, 0);
        if (rc == 0)
            return 0;
        if (rc < 0)
            return err_set(e, ERR_VALIDATION, "the text is declared as " STR_FMT ", but its bytes are not",
                           STR_ARG(str_sub(declared, 0, 40)));
    }
    decode_windows_1252(out, bytes);
    return 0;
}

/* ---- plain text: paragraphs between blank lines; underlined titles and the headings of manual pages ---- */

static bool line_next(struct str *rest, struct str *line)
{
    if (rest->n == 0)
        return false;
    *line = str_cut(rest, '\n');
    while (line->n && memchr(" \t\r\f", line->p[line->n - 1], 4))
        line->n--;
    return true;
}

static struct str line_peek(struct str rest)
{
    struct str line = {NULL, 0};
    if (!line_next(&rest, &line))
        line.n = 0;
    return line;
}

/* "=====": the level of the heading that it underlines, 0 if it is none. */
static int underline(struct str line, size_t title)
{
    if (line.n < 3 || line.n + 2 < title || line.n > title + 8 || !memchr("=-~^*", line.p[0], 5))
        return 0;
    for (size_t i = 1; i < line.n; i++)
        if (line.p[i] != line.p[0])
            return 0;
    return line.p[0] == '=' ? 1 : line.p[0] == '-' ? 2 : 3;
}

/* "SEE ALSO": a short line of capitals from the first column. */
static bool capitals(struct str line)
{
    size_t letters = 0;
    if (line.n < 3 || line.n > 60)
        return false;
    for (size_t i = 0; i < line.n; i++) {
        char c = line.p[i];
        if ((c >= 'a' && c <= 'z') || (unsigned char)c >= 0x80 || strchr(";={}<>|\\", c))
            return false;
        letters += c >= 'A' && c <= 'Z';
    }
    return line.p[0] >= 'A' && line.p[0] <= 'Z' && letters * 3 >= line.n * 2;
}

static void heading(struct builder *b, struct str line, int level)
{
    builder_open(b, BLOCK_HEADING, level);
    builder_text(b, line);
    builder_close(b);
}

/* Overstrikes ("N\bN", "_\bx") and terminal escapes of formatted manual pages. */
static struct str unformat(struct buf *tmp, struct str in)
{
    if (!in.n || (!memchr(in.p, '\b', in.n) && !memchr(in.p, '\033', in.n)))
        return in;
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c == '\b') {
            while (tmp->n && ((unsigned char)tmp->p[tmp->n - 1] & 0xc0) == 0x80)
                tmp->n--;
            if (tmp->n)
                tmp->n--;
        } else if (c == '\033' && i + 1 < in.n && in.p[i + 1] == '[') {
            for (i += 2; i < in.n && (in.p[i] < '@' || in.p[i] > '~');)
                i++;
        } else {
            buf_ch(tmp, c);
        }
    }
    return buf_view(tmp);
}

void extract_plain(struct builder *b, struct str in, bool code)
{
    struct buf tmp = {0};
    struct str rest = unformat(&tmp, in), line;
    bool inside = false;
    while (line_next(&rest, &line)) {
        if (line.n == 0) {
            inside = false;
            continue;
        }
        if (!inside && !code) {
            struct str next = line_peek(rest);
            int level = underline(next, line.n);
            if (level) {
                heading(b, line, level);
                builder_title(b, line);
                line_next(&rest, &next);
                continue;
            }
            if (capitals(line) && (next.n == 0 || next.p[0] == ' ' || next.p[0] == '\t')) {
                heading(b, line, 2);
                continue;
            }
        }
        if (!inside) {
            builder_open(b, code ? BLOCK_CODE : BLOCK_PARAGRAPH, 0);
            b->preserve = true;
        } else {
            builder_newline(b);
        }
        builder_text(b, line);
        inside = true;
    }
    builder_close(b);
    buf_fini(&tmp);
}
