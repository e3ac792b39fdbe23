#include "worker/core/extract_private.h"

/* Charsets of seven bits, made for mail: ASCII, and sequences that shift to characters of two bytes and back. As their
 * bytes could be ASCII, they are looked for before anything else is. Converters of the C library are strict with them, or
 * do not know them; so they become what has the same characters in eight bits. */

enum set { ASCII, DOUBLE, KATAKANA, SUPPLEMENT };

struct shift {
    const char *sequence;
    enum set set;     /* of what follows */
    const char *text; /* that it stands for */
};

static const struct shift japanese[] = {
    {"\033$B", DOUBLE, ""}, {"\033$@", DOUBLE, ""},   {"\033(B", ASCII, ""},       {"\033(J", ASCII, ""},
    {"\033(H", ASCII, ""},  {"\033(I", KATAKANA, ""}, {"\033$(D", SUPPLEMENT, ""}, {NULL, ASCII, ""},
};
static const struct shift korean[] = {
    {"\033$)C", ASCII, ""}, {"\016", DOUBLE, ""}, {"\017", ASCII, ""}, {NULL, ASCII, ""}};
static const struct shift chinese[] = {
    {"~{", DOUBLE, ""}, {"~}", ASCII, ""}, {"~~", ASCII, "~"}, {"~\n", ASCII, ""}, {NULL, ASCII, ""}};

static const struct shifted {
    const char *labels;
    const char *mark; /* tells it without a declaration */
    const char *charset;
    const struct shift *shift;
} table[] = {
    {"iso-2022-jp iso2022jp csiso2022jp iso-2022-jp-1 iso-2022-jp-2 csiso2022jp2 iso-2022-jp-3 iso-2022-jp-ms cp50220 "
     "cp50221 cp50222",
     "\033$B", "EUC-JP-MS", japanese},
    {"", "\033$@", "EUC-JP-MS", japanese},
    {"iso-2022-kr iso2022kr csiso2022kr", "\033$)C", "CP949", korean},
    {"hz-gb-2312 hz hzgb2312", NULL, "GB18030", chinese},
    {"utf-7 utf7 unicode-1-1-utf-7 csunicode11utf7 x-unicode-2-0-utf-7", NULL, "UTF-7", NULL},
};
enum { N_TABLE = sizeof table / sizeof *table };

static bool seven_bits(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == 0 || (unsigned char)s.p[i] >= 0x80)
            return false;
    return true;
}

const struct shifted *shifted_of(struct str bytes, struct str declared)
{
    const struct shifted *found = NULL;
    for (size_t i = 0; i < N_TABLE && !found; i++)
        for (struct str rest = str_of(table[i].labels); rest.n && declared.n;)
            if (str_ieq(str_cut(&rest, ' '), declared))
                found = &table[i];
    for (size_t i = 0; i < N_TABLE && !found && bytes.n && memchr(bytes.p, '\033', bytes.n); i++)
        if (table[i].mark && memmem(bytes.p, bytes.n, table[i].mark, strlen(table[i].mark)))
            found = &table[i];
    return found && seven_bits(bytes) ? found : NULL;
}

static bool graphic(char c)
{
    return c > 0x20 && c < 0x7f;
}

/* One character of `set`, with its eighth bits; returns its length before. */
static size_t put_character(struct buf *out, enum set set, struct str s)
{
    size_t n = 0, width = set == DOUBLE || set == SUPPLEMENT ? 2 : 1;
    if (set == ASCII || !graphic(s.p[0])) {
        buf_ch(out, s.p[0]);
        return 1;
    }
    if (set != DOUBLE)
        buf_ch(out, set == KATAKANA ? '\x8e' : '\x8f');
    for (; n < width && n < s.n && graphic(s.p[n]); n++)
        buf_ch(out, (char)(s.p[n] | 0x80));
    return n;
}

struct str shifted_charset(const struct shifted *f)
{
    return str_of(f->charset);
}

void shifted_bytes(struct buf *out, const struct shifted *f, struct str s)
{
    enum set set = ASCII;
    if (!f->shift) {
        buf_str(out, s);
        return;
    }
    while (s.n) {
        const struct shift *shift = f->shift;
        while (shift->sequence && !str_starts(s, str_of(shift->sequence)))
            shift++;
        size_t n;
        if (shift->sequence) {
            set = shift->set;
            buf_str(out, str_of(shift->text));
            n = strlen(shift->sequence);
        } else {
            set = s.p[0] == '\n' ? ASCII : set; /* no line ends shifted; one that seems to has lost its end */
            n = put_character(out, set, s);
        }
        s = str_sub(s, n, SIZE_MAX);
    }
}
