#include "worker/core/analyze.h"
#include <libstemmer.h>
#include <stdlib.h>
#include <utf8proc.h>

enum {
    WORD_MAX = 128,   /* code points of a word that are folded; what follows cannot fit into ANALYZE_TERM_MAX bytes */
    CHAR_MAX_CPS = 24 /* one character decomposes into at most 18 */
};

struct analyzer {
    struct sb_stemmer *stemmer; /* NULL: "none" */
    bool apostrophes;           /* kept inside words for the stemmer, which knows what to do with them */
};

/* One call of analyze(). */
struct scan {
    struct analyzer *a;
    const utf8proc_uint8_t *p;
    size_t n;
    bool (*fn)(void *arg, const struct term *t);
    void *arg;
    bool units; /* the characters of runs are emitted, too */
    bool stopped;
    size_t cps;                                         /* of `word` in use */
    utf8proc_int32_t word[WORD_MAX + CHAR_MAX_CPS + 1]; /* folded and decomposed; becomes the UTF-8 of the term */
};

/* ---- languages ---- */

static bool language_is_none(struct str s)
{
    return str_eqz(s, "none");
}

static struct sb_stemmer *stemmer_of(struct str language)
{
    char name[32];
    if (language.n == 0 || language.n >= sizeof name)
        return NULL;
    str_copyz(name, sizeof name, language);
    return strlen(name) == language.n ? sb_stemmer_new(name, NULL) : NULL;
}

struct analyzer *analyzer_new(struct str language, struct err *e)
{
    struct sb_stemmer *stemmer = NULL;
    if (!language_is_none(language) && !(stemmer = stemmer_of(language))) {
        char names[260] = "none";
        size_t at = 4;
        for (const char **l = sb_stemmer_list(); *l && at + strlen(*l) + 3 < sizeof names; l++) {
            memcpy(names + at, ", ", 2);
            at += 2 + str_copyz(names + at + 2, sizeof names - at - 2, str_of(*l));
        }
        err_set(e, ERR_VALIDATION, "unknown language; known: %s", names);
        return NULL;
    }
    struct analyzer *a = calloc(1, sizeof *a);
    if (!a)
        abort();
    a->stemmer = stemmer;
    a->apostrophes = str_eqz(language, "english") || str_eqz(language, "en") || str_eqz(language, "eng");
    return a;
}

void analyzer_free(struct analyzer *a)
{
    if (!a)
        return;
    sb_stemmer_delete(a->stemmer);
    free(a);
}

bool analyzer_language_valid(struct str language)
{
    if (language_is_none(language))
        return true;
    struct sb_stemmer *s = stemmer_of(language);
    sb_stemmer_delete(s);
    return s != NULL;
}

/* ---- characters ---- */

/* Scripts written without spaces between words (and Hangul, whose words carry their particles). */
static bool spaceless(utf8proc_int32_t c)
{
    static const struct {
        utf8proc_int32_t from, to;
    } range[] = {
        {0x0e00, 0x0eff},   /* Thai, Lao */
        {0x1000, 0x109f},   /* Myanmar */
        {0x1100, 0x11ff},   /* Hangul Jamo */
        {0x1780, 0x17ff},   /* Khmer */
        {0x2e80, 0x2fdf},   /* radicals */
        {0x3005, 0x3007},   /* 々〆〇 */
        {0x3031, 0x3035},   /* kana repeat marks */
        {0x3041, 0x30ff},   /* Hiragana, Katakana */
        {0x3105, 0x318f},   /* Bopomofo, Hangul compatibility Jamo */
        {0x31a0, 0x31ff},   /* Bopomofo and Katakana extensions */
        {0x3400, 0x4dbf},   /* Han extension A */
        {0x4e00, 0x9fff},   /* Han */
        {0xa960, 0xa97f},   /* Hangul Jamo extended A */
        {0xac00, 0xd7ff},   /* Hangul syllables */
        {0xf900, 0xfaff},   /* Han compatibility */
        {0xff66, 0xffdc},   /* half-width Katakana and Hangul */
        {0x1b000, 0x1b16f}, /* kana supplements */
        {0x20000, 0x3ffff}, /* Han extensions B and on */
    };
    if (c < range[0].from)
        return false;
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (c >= range[i].from && c <= range[i].to)
            return true;
    return false;
}

enum char_class { CHAR_OTHER, CHAR_WORD, CHAR_MARK, CHAR_IGNORED };

static enum char_class class_of(utf8proc_int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return CHAR_WORD;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return CHAR_MARK;
    case UTF8PROC_CATEGORY_CF: return CHAR_IGNORED; /* soft hyphen, joiners */
    default: return CHAR_OTHER;
    }
}

static bool latin(utf8proc_int32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 0xdf && c <= 0x24f && c != 0xf7) || (c >= 0x250 && c <= 0x2af) ||
           (c >= 0x1e00 && c <= 0x1eff);
}

static bool apostrophe(utf8proc_int32_t c)
{
    return c == '\'' || c == 0x2019 || c == 0xff07;
}

/* Letters of Latin whose stroke or ligature no decomposition takes off. */
static const char *latin_plain(utf8proc_int32_t c)
{
    switch (c) {
    case 0xe6: return "ae";
    case 0xf0: return "d";
    case 0xf8: return "o";
    case 0xfe: return "th";
    case 0x111: return "d";
    case 0x127: return "h";
    case 0x131: return "i";
    case 0x142: return "l";
    case 0x153: return "oe";
    default: return NULL;
    }
}

static bool ascii_alnum(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z');
}

/* ---- from characters to terms ---- */

/* Decodes at `at`; returns the bytes taken. What is no UTF-8 counts as one separator. */
static size_t decode(const struct scan *s, size_t at, utf8proc_int32_t *c)
{
    utf8proc_ssize_t len = utf8proc_iterate(s->p + at, (utf8proc_ssize_t)(s->n - at), c);
    if (len > 0)
        return (size_t)len;
    *c = ' ';
    return 1;
}

static size_t cut_at_character(const char *p, size_t n, size_t max)
{
    if (n <= max)
        return n;
    while (max > 0 && ((unsigned char)p[max] & 0xc0) == 0x80)
        max--;
    return max;
}

static bool has_digit(struct str t)
{
    for (size_t i = 0; i < t.n; i++)
        if (t.p[i] >= '0' && t.p[i] <= '9')
            return true;
    return false;
}

static void emit(struct scan *s, struct str t, size_t from, size_t to)
{
    if (t.n == 0 || s->stopped)
        return;
    struct term term = {t, from, to};
    s->stopped = !s->fn(s->arg, &term);
}

/* `t` is folded. Words with digits in them (part numbers, versions) are left as they are. */
static void emit_word(struct scan *s, struct str t, size_t from, size_t to)
{
    t.n = cut_at_character(t.p, t.n, ANALYZE_TERM_MAX);
    if (s->a->stemmer && !has_digit(t)) {
        const sb_symbol *stem = sb_stemmer_stem(s->a->stemmer, (const sb_symbol *)t.p, (int)t.n);
        int len = stem ? sb_stemmer_length(s->a->stemmer) : 0;
        if (len > 0)
            t = (struct str){(const char *)stem, cut_at_character((const char *)stem, (size_t)len, ANALYZE_TERM_MAX)};
    }
    if (!memchr(t.p, '\'', t.n)) {
        emit(s, t, from, to);
        return;
    }
    char plain[ANALYZE_TERM_MAX];
    size_t n = 0;
    for (size_t i = 0; i < t.n; i++)
        if (t.p[i] != '\'')
            plain[n++] = t.p[i];
    emit(s, (struct str){plain, n}, from, to);
}

static void push(struct scan *s, utf8proc_int32_t c)
{
    if (s->cps >= WORD_MAX + CHAR_MAX_CPS)
        return;
    size_t at = s->cps++;
    /* Canonical order of marks, so that composition finds them however they were typed. */
    utf8proc_propval_t rank = utf8proc_get_property(c)->combining_class;
    while (rank && at > 0) {
        utf8proc_propval_t before = utf8proc_get_property(s->word[at - 1])->combining_class;
        if (before <= rank)
            break;
        s->word[at] = s->word[at - 1];
        at--;
    }
    s->word[at] = c;
}

/* Appends the folded form of one character. True: there are separators in it, as in ½, "1⁄2". */
static bool fold(struct scan *s, utf8proc_int32_t c)
{
    if (s->cps >= WORD_MAX)
        return false;
    bool splits = false;
    utf8proc_int32_t out[CHAR_MAX_CPS];
    int boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char(
        c, out, CHAR_MAX_CPS, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE, &boundary);
    for (utf8proc_ssize_t i = 0; i < n && i < CHAR_MAX_CPS; i++) {
        splits |= class_of(out[i]) == CHAR_OTHER;
        bool accent = out[i] >= 0x300 && out[i] <= 0x36f;
        if (accent) {
            size_t base = s->cps;
            while (base > 0 && utf8proc_get_property(s->word[base - 1])->combining_class)
                base--;
            if (base > 0 && latin(s->word[base - 1]))
                continue;
        }
        const char *plain = latin_plain(out[i]);
        if (!plain)
            push(s, out[i]);
        for (; plain && *plain; plain++)
            push(s, *plain);
    }
    return splits;
}

/* Composes in place: the result lies where the code points were. There must be room for one more. */
static struct str compose(utf8proc_int32_t *cps, size_t n)
{
    utf8proc_ssize_t len = utf8proc_reencode(cps, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    return (struct str){(const char *)cps, len > 0 ? (size_t)len : 0};
}

/* The word collected so far becomes terms: usually one; several where folding gave separators. */
static void end_word(struct scan *s, size_t from, size_t to)
{
    size_t at = 0;
    while (at < s->cps) {
        utf8proc_int32_t run[WORD_MAX + CHAR_MAX_CPS + 1];
        size_t n = 0;
        for (; at < s->cps; at++) {
            enum char_class k = class_of(s->word[at]);
            if (k == CHAR_OTHER && !(n && s->word[at] == '\''))
                break;
            if (k != CHAR_IGNORED && (n || k != CHAR_MARK))
                run[n++] = s->word[at];
        }
        if (n)
            emit_word(s, compose(run, n), from, to);
        else
            at++;
    }
    s->cps = 0;
}

/* ---- scanning ---- */

/* An apostrophe belongs to an English word when a letter follows. */
static bool apostrophe_inside(const struct scan *s, size_t after)
{
    utf8proc_int32_t c;
    return s->a->apostrophes && after < s->n && (decode(s, after, &c), class_of(c) == CHAR_WORD) && !spaceless(c);
}

static size_t scan_word(struct scan *s, size_t at)
{
    size_t from = at, to = at;
    for (bool ends = false; at < s->n && !ends;) {
        utf8proc_int32_t c;
        size_t len = decode(s, at, &c);
        enum char_class k = class_of(c);
        if (k == CHAR_OTHER && apostrophe(c) && to > from && apostrophe_inside(s, at + len)) {
            if (s->cps < WORD_MAX)
                push(s, '\'');
        } else if (k == CHAR_OTHER || spaceless(c)) {
            break;
        } else if (k != CHAR_IGNORED) {
            ends = fold(s, c);
        }
        at += len;
        if (k != CHAR_IGNORED)
            to = at;
    }
    end_word(s, from, to);
    return at;
}

/* A character with the marks on it. */
static size_t scan_unit(struct scan *s, size_t at, struct str *folded, char *room, size_t cap)
{
    utf8proc_int32_t c;
    size_t len = decode(s, at, &c);
    s->cps = 0;
    fold(s, c);
    for (size_t next = at + len; next < s->n; next = at + len) {
        size_t l = decode(s, next, &c);
        utf8proc_int32_t plain = c == 0xff9e || c == 0xff9f ? 0x3099 : c; /* half-width voicing marks are letters */
        if (class_of(plain) != CHAR_MARK)
            break;
        fold(s, c);
        len += l;
    }
    size_t n = 0;
    for (size_t i = 0; i < s->cps; i++) /* folding of compatibility characters may give spaces */
        if (class_of(s->word[i]) == CHAR_WORD || class_of(s->word[i]) == CHAR_MARK)
            s->word[n++] = s->word[i];
    struct str t = compose(s->word, n);
    *folded = (struct str){room, cut_at_character(t.p, t.n, cap)};
    memcpy(room, t.p, folded->n);
    s->cps = 0;
    return at + len;
}

static bool run_continues(const struct scan *s, size_t at)
{
    utf8proc_int32_t c;
    return at < s->n && (decode(s, at, &c), spaceless(c)) && class_of(c) != CHAR_OTHER;
}

/* A run of a spaceless script: AB BC CD; a lone character stands for itself. With its units: A AB B BC C CD D. */
static size_t scan_run(struct scan *s, size_t at)
{
    enum { UNIT = ANALYZE_TERM_MAX / 2 };
    char pair[2 * UNIT], room[UNIT];
    size_t from = at, n = 0;
    struct str unit;
    at = scan_unit(s, at, &unit, room, UNIT);
    memcpy(pair, room, n = unit.n);
    if (s->units || !run_continues(s, at))
        emit(s, (struct str){pair, n}, from, at);
    while (!s->stopped && run_continues(s, at)) {
        size_t second = at;
        at = scan_unit(s, at, &unit, room, UNIT);
        memcpy(pair + n, room, unit.n);
        emit(s, (struct str){pair, n + unit.n}, from, at);
        if (s->units)
            emit(s, unit, second, at);
        memmove(pair, room, n = unit.n);
        from = second;
    }
    return at;
}

/* Most words of most texts: ASCII letters and digits between ASCII separators. Returns `at` if it is none. */
static size_t scan_ascii(struct scan *s, size_t at)
{
    char word[ANALYZE_TERM_MAX];
    size_t i = at, n = 0;
    for (; i < s->n && ascii_alnum(s->p[i]); i++)
        if (n < sizeof word)
            word[n++] = (char)(s->p[i] >= 'A' && s->p[i] <= 'Z' ? s->p[i] | 0x20 : s->p[i]);
    if (i < s->n && (s->p[i] >= 0x80 || (s->p[i] == '\'' && s->a->apostrophes)))
        return at;
    emit_word(s, (struct str){word, n}, at, i);
    return i;
}

static void scan(struct analyzer *a, struct str text, bool units, bool (*fn)(void *arg, const struct term *t),
                 void *arg)
{
    struct scan s = {.a = a, .p = (const utf8proc_uint8_t *)text.p, .n = text.n, .fn = fn, .arg = arg, .units = units};
    for (size_t at = 0; at < s.n && !s.stopped;) {
        if (ascii_alnum(s.p[at])) {
            size_t end = scan_ascii(&s, at);
            at = end > at ? end : scan_word(&s, at);
        } else if (s.p[at] < 0x80) {
            at++;
        } else {
            utf8proc_int32_t c;
            size_t len = decode(&s, at, &c);
            if (class_of(c) != CHAR_WORD)
                at += len;
            else
                at = spaceless(c) ? scan_run(&s, at) : scan_word(&s, at);
        }
    }
}

void analyze(struct analyzer *a, struct str text, bool (*fn)(void *arg, const struct term *t), void *arg)
{
    scan(a, text, false, fn, arg);
}

void analyze_indexed(struct analyzer *a, struct str text, bool (*fn)(void *arg, const struct term *t), void *arg)
{
    scan(a, text, true, fn, arg);
}

struct joined {
    struct buf *out;
    int n;
};

static bool join(void *arg, const struct term *t)
{
    struct joined *j = arg;
    if (j->n++)
        buf_ch(j->out, ' ');
    buf_str(j->out, t->text);
    return true;
}

int analyze_terms(struct analyzer *a, struct str text, struct buf *out)
{
    struct joined j = {out, 0};
    analyze_indexed(a, text, join, &j);
    return j.n;
}
