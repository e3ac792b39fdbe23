/* From text to value, by type. A value of a SECRET is never repeated in a message. */
#include "config/config_impl.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum { ECHO_MAX = 60 }; /* bytes of a wrong value that a message repeats */

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit sizes[] = {{"", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1LL << 40}};
static const struct unit times[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};

static bool parse_size(struct str s, int64_t *out);
static bool parse_time(struct str s, int64_t *out);
static bool parse_bool(struct str s, bool *out);
static bool parse_real(struct str s, double *out);
static int parse_choice(struct str s, const char *choices);
static int split_list(struct config *cfg, enum config_key key, struct str text, const struct config_source *at,
                      struct err *e);

static int wrong(struct err *e, const struct config_source *at, const struct config_key_def *k, struct str text,
                 const char *expected)
{
    return config_fail(e, at, "%s: \"%.*s\" is not %s", k->full, (int)(text.n < ECHO_MAX ? text.n : ECHO_MAX), text.p,
                       expected);
}

static int wrong_choice(struct err *e, const struct config_source *at, const struct config_key_def *k, struct str text)
{
    struct buf b = {0};
    buf_lit(&b, "one of ");
    config_print_choices(&b, k->choices);
    buf_ch(&b, 0);
    wrong(e, at, k, text, b.p);
    buf_fini(&b);
    return -1;
}

static int set_number(struct config *cfg, enum config_key key, int64_t v, const struct config_source *at, struct err *e)
{
    const struct config_key_def *k = &config_keys[key];
    if (v < k->min || v > k->max) {
        struct buf b = {0};
        enum config_type type = k->type == CONFIG_AUTO ? CONFIG_INT : k->type;
        config_print_number(&b, type, v);
        buf_lit(&b, " is out of range, ");
        config_print_number(&b, type, k->min);
        buf_lit(&b, " to ");
        config_print_number(&b, type, k->max);
        buf_lit(&b, " are possible");
        config_fail(e, at, "%s: " STR_FMT, k->full, STR_ARG(buf_view(&b)));
        buf_fini(&b);
        return -1;
    }
    *(int64_t *)config_value(cfg, key) = v;
    return 0;
}

static int set_real(struct config *cfg, enum config_key key, double v, const struct config_source *at, struct err *e)
{
    const struct config_key_def *k = &config_keys[key];
    if (v < (double)k->min || v > (double)k->max)
        return config_fail(e, at, "%s: %g is out of range, %lld to %lld are possible", k->full, v, (long long)k->min,
                           (long long)k->max);
    *(double *)config_value(cfg, key) = v;
    return 0;
}

static int set_scalar(struct config *cfg, enum config_key key, struct str text, const struct config_source *at,
                      struct err *e)
{
    const struct config_key_def *k = &config_keys[key];
    int64_t n;
    double real;
    int choice;
    switch (k->type) {
    case CONFIG_AUTO:
        if (str_ieq(text, STR("auto"))) {
            *(int64_t *)config_value(cfg, key) = 0;
            return 0;
        }
        if (!str_to_i64(text, &n))
            return wrong(e, at, k, text, "a whole number or `auto`");
        return set_number(cfg, key, n, at, e);
    case CONFIG_INT:
        if (!str_to_i64(text, &n))
            return wrong(e, at, k, text, "a whole number");
        return set_number(cfg, key, n, at, e);
    case CONFIG_SIZE:
        if (!parse_size(text, &n))
            return wrong(e, at, k, text, "a size; write 512, 64K, 10M or 1G");
        return set_number(cfg, key, n, at, e);
    case CONFIG_TIME:
        if (!parse_time(text, &n))
            return wrong(e, at, k, text, "a time; write 250ms, 10s, 5m, 24h or 7d");
        return set_number(cfg, key, n, at, e);
    case CONFIG_REAL:
        if (!parse_real(text, &real))
            return wrong(e, at, k, text, "a number");
        return set_real(cfg, key, real, at, e);
    case CONFIG_BOOL: return parse_bool(text, config_value(cfg, key)) ? 0 : wrong(e, at, k, text, "true or false");
    case CONFIG_ENUM:
        choice = parse_choice(text, k->choices);
        if (choice < 0)
            return wrong_choice(e, at, k, text);
        *(int *)config_value(cfg, key) = choice;
        return 0;
    case CONFIG_STR:
    case CONFIG_SECRET: *(const char **)config_value(cfg, key) = arena_dup(&cfg->origin->arena, text).p; return 0;
    case CONFIG_LIST: return split_list(cfg, key, text, at, e);
    }
    return 0;
}

/* No value has a use for control characters, and a newline in one forges log lines and HTTP headers. */
static int check_text(const struct config_key_def *k, struct str text, const struct config_source *at, struct err *e)
{
    if (!str_is_utf8(text))
        return config_fail(e, at, "%s: is not valid UTF-8", k->full);
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        bool c1 = c == 0xc2 && (unsigned char)text.p[i + 1] < 0xa0; /* U+0080 to U+009F */
        if (c < 0x20 || c == 0x7f || c1)
            return config_fail(e, at, "%s: contains a control character at byte %zu", k->full, i + 1);
    }
    return 0;
}

int config_set_text(struct config *cfg, enum config_key key, struct str text, const struct config_source *at,
                    struct err *e)
{
    if (check_text(&config_keys[key], text, at, e))
        return -1;
    bool verbatim = config_keys[key].type == CONFIG_STR || config_keys[key].type == CONFIG_SECRET;
    if (set_scalar(cfg, key, verbatim ? text : str_trim(text), at, e) || config_check_key(cfg, key, at, e))
        return -1;
    cfg->origin->of[key] = *at;
    return 0;
}

static int set_list(struct config *cfg, enum config_key key, const struct str *v, size_t n,
                    const struct config_source *at, struct err *e)
{
    struct arena *a = &cfg->origin->arena;
    struct config_list list = {.v = arena_alloc(a, n * sizeof *list.v), .n = (int)n};
    for (size_t i = 0; i < n; i++) {
        if (check_text(&config_keys[key], v[i], at, e))
            return -1;
        struct str one = str_trim(v[i]);
        if (!one.n)
            return config_fail(e, at, "%s: element %zu is empty", config_keys[key].full, i + 1);
        list.v[i] = (char *)(uintptr_t)arena_dup(a, one).p;
    }
    *(struct config_list *)config_value(cfg, key) = list;
    return 0;
}

int config_set_list(struct config *cfg, enum config_key key, const struct str *v, size_t n,
                    const struct config_source *at, struct err *e)
{
    assert(config_keys[key].type == CONFIG_LIST);
    if (set_list(cfg, key, v, n, at, e) || config_check_key(cfg, key, at, e))
        return -1;
    cfg->origin->of[key] = *at;
    return 0;
}

/* "a, b"; "" is the empty list. */
static int split_list(struct config *cfg, enum config_key key, struct str text, const struct config_source *at,
                      struct err *e)
{
    size_t n = text.n != 0, i = 0;
    for (size_t k = 0; k < text.n; k++)
        n += text.p[k] == ',';
    struct str *v = arena_alloc(&cfg->origin->arena, n * sizeof *v);
    for (struct str rest = text; i < n; i++)
        v[i] = str_cut(&rest, ',');
    return set_list(cfg, key, v, n, at, e);
}

/* Digits, then one of the units; false on overflow. */
static bool parse_unit(struct str s, const struct unit *units, size_t n, int64_t *out)
{
    size_t digits = 0;
    int64_t v;
    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9')
        digits++;
    if (!str_to_i64(str_sub(s, 0, digits), &v))
        return false;
    struct str unit = str_sub(s, digits, SIZE_MAX);
    for (size_t i = 0; i < n; i++)
        if (str_ieq(unit, str_of(units[i].name)))
            return !__builtin_mul_overflow(v, units[i].factor, out);
    return false;
}

static bool parse_size(struct str s, int64_t *out)
{
    /* KB and KiB are the same here: nobody means 1000 bytes by a limit. */
    if (s.n > 2 && str_ieq(str_sub(s, s.n - 2, 2), STR("iB")))
        s.n -= 2;
    else if (s.n > 1 && str_ieq(str_sub(s, s.n - 1, 1), STR("B")))
        s.n -= 1;
    return parse_unit(s, sizes, sizeof sizes / sizeof *sizes, out);
}

static bool parse_time(struct str s, int64_t *out)
{
    if (str_eqz(s, "0")) { /* the one number that means the same in every unit */
        *out = 0;
        return true;
    }
    return parse_unit(s, times, sizeof times / sizeof *times, out);
}

static bool parse_bool(struct str s, bool *out)
{
    for (size_t i = 0; i < 4; i++)
        if (str_ieq(s, str_of(yes[i])) || str_ieq(s, str_of(no[i]))) {
            *out = str_ieq(s, str_of(yes[i]));
            return true;
        }
    return false;
}

static bool parse_real(struct str s, double *out)
{
    char z[40], *end;
    if (!s.n || str_copyz(z, sizeof z, s) < s.n || z[strspn(z, "0123456789.eE+-")])
        return false; /* strtod() alone would take "nan", "0x1p3" and blanks */
    double v = strtod(z, &end);
    if (*end || !isfinite(v))
        return false;
    *out = v;
    return true;
}

static int parse_choice(struct str s, const char *choices)
{
    struct str rest = str_of(choices);
    for (int i = 0; rest.n; i++)
        for (struct str names = str_cut(&rest, '|'); names.n;)
            if (str_ieq(s, str_cut(&names, '=')))
                return i;
    return -1;
}

void config_print_choices(struct buf *out, const char *choices)
{
    for (struct str rest = str_of(choices); rest.n;) {
        struct str one = str_cut(&rest, '|');
        buf_str(out, str_cut(&one, '='));
        if (rest.n)
            buf_lit(out, ", ");
    }
}

/* The largest unit that divides the value. */
static void print_unit(struct buf *out, int64_t v, const struct unit *units, size_t n)
{
    size_t i = n - 1;
    while (i > 0 && (v % units[i].factor || v == 0))
        i--;
    buf_i64(out, v / units[i].factor);
    buf_str(out, str_of(units[i].name));
}

void config_print_number(struct buf *out, enum config_type type, int64_t v)
{
    if (type == CONFIG_SIZE)
        print_unit(out, v, sizes, sizeof sizes / sizeof *sizes);
    else if (type == CONFIG_TIME && v == 0)
        buf_lit(out, "0s");
    else if (type == CONFIG_TIME)
        print_unit(out, v, times, sizeof times / sizeof *times);
    else if (type == CONFIG_AUTO && v == 0)
        buf_lit(out, "auto");
    else
        buf_i64(out, v);
}
