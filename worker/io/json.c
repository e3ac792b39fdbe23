#include "worker/io/json.h"
#include <math.h>
#include <stdio.h>

/* What a scan of the text before parsing looks for: jansson recurses, so nesting is bounded before it runs. */
struct place {
    size_t line, column;
};

static struct place place_of(struct str text, size_t at)
{
    struct place p = {1, 1};
    for (size_t i = 0; i < at && i < text.n; i++) {
        if (text.p[i] == '\n')
            p = (struct place){p.line + 1, 1};
        else if (((unsigned char)text.p[i] & 0xc0) != 0x80)
            p.column++;
    }
    return p;
}

/* Offset of the bracket that opens level depth + 1, or text.n. */
static size_t find_too_deep(struct str text, int depth)
{
    int level = 0;
    for (size_t i = 0; i < text.n; i++) {
        switch (text.p[i]) {
        case '"':
            for (i++; i < text.n && text.p[i] != '"'; i++)
                if (text.p[i] == '\\')
                    i++;
            break;
        case '{':
        case '[':
            if (++level > depth)
                return i;
            break;
        case '}':
        case ']': level--; break;
        default: break;
        }
    }
    return text.n;
}

static void release(void *value)
{
    json_decref(value);
}

int json_parse(struct arena *a, struct str text, int depth, json_t **out, struct err *e)
{
    json_error_t je;
    if (str_starts(text, STR("\xef\xbb\xbf"))) /* a byte order mark, which editors on Windows put there */
        text = str_sub(text, 3, SIZE_MAX);
    size_t deep = find_too_deep(text, depth);
    if (deep < text.n) {
        struct place p = place_of(text, deep);
        return err_set(e, ERR_BAD_REQUEST, "JSON nests deeper than %d levels at line %zu, column %zu", depth, p.line,
                       p.column);
    }
    if (!str_trim(text).n)
        return err_set(e, ERR_BAD_REQUEST, "Expected JSON, found nothing");
    json_t *v = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (!v)
        return err_set(e, ERR_BAD_REQUEST, "Malformed JSON at line %d, column %d: %s", je.line, je.column,
                       json_error_code(&je) == json_error_null_character ? "\\u0000 is not allowed" : je.text);
    *out = arena_own(a, v, release);
    return 0;
}

static const char *type_name(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    case JSON_NULL: return "null";
    }
    return "something else";
}

int json_parse_object(struct arena *a, struct str text, int depth, json_t **out, struct err *e)
{
    json_t *v;
    if (json_parse(a, text, depth, &v, e))
        return -1;
    if (!json_is_object(v))
        return err_set(e, ERR_BAD_REQUEST, "Expected a JSON object, found %s", type_name(v));
    *out = v;
    return 0;
}

void json_pointer(char *out, size_t cap, const char *parent, const char *name)
{
    size_t n = str_copyz(out, cap, str_of(parent));
    if (n + 1 < cap)
        out[n++] = '/';
    for (; *name && n + 2 < cap; name++) {
        if (*name == '~' || *name == '/') {
            out[n++] = '~';
            out[n++] = *name == '~' ? '0' : '1';
        } else {
            out[n++] = *name;
        }
    }
    out[n < cap ? n : cap - 1] = 0;
}

static int unknown_member(const struct json_member *table, size_t n, const char *pointer, const char *name,
                          struct err *e)
{
    char at[sizeof e->pointer];
    const char *nearest = NULL;
    int best = 3; /* further away is no typing error */
    json_pointer(at, sizeof at, pointer, name);
    for (size_t i = 0; i < n; i++) {
        int d = str_distance(name, table[i].name);
        if (d < best) {
            best = d;
            nearest = table[i].name;
        }
    }
    if (nearest)
        return err_at(e, at, "Unknown member '%.64s'; did you mean '%s'?", name, nearest);
    return err_at(e, at, "Unknown member '%.64s'", name);
}

static const struct json_member *find_member(const struct json_member *table, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

static bool bounded(const struct json_member *m)
{
    return m->min || m->max;
}

/* "'limit' must be between 1 and 100" for numbers, with `unit` for lengths. */
static int out_of_bounds(const struct json_member *m, const char *at, const char *has, const char *unit, struct err *e)
{
    if (m->max == INT64_MAX)
        return err_at(e, at, "'%s' must %s at least %lld%s", m->name, has, (long long)m->min, unit);
    if (m->min == m->max)
        return err_at(e, at, "'%s' must %s %lld%s", m->name, has, (long long)m->min, unit);
    return err_at(e, at, "'%s' must %s %lld to %lld%s", m->name, has, (long long)m->min, (long long)m->max, unit);
}

static int wrong_type(const struct json_member *m, const char *at, const char *want, const json_t *v, struct err *e)
{
    return err_at(e, at, "'%s' must be %s, not %s", m->name, want, type_name(v));
}

/* Numbers that are whole count as integers however they are written: 10, 10.0, 1e1. */
static bool whole(const json_t *v, int64_t *out)
{
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return true;
    }
    double d = json_real_value(v);
    if (!json_is_real(v) || d != floor(d) || fabs(d) > 9007199254740992.0)
        return false;
    *out = (int64_t)d;
    return true;
}

static int take(const struct json_member *m, const char *at, json_t *v, struct err *e)
{
    int64_t i;
    double d;
    switch (m->kind) {
    case JSON_STR: {
        struct str s = {json_string_value(v), json_string_length(v)};
        if (!json_is_string(v))
            return wrong_type(m, at, "a string", v, e);
        if (bounded(m) && ((int64_t)s.n < m->min || (int64_t)s.n > m->max))
            return out_of_bounds(m, at, "have", " bytes", e);
        *(struct str *)m->out = s;
        return 0;
    }
    case JSON_OBJ:
        if (!json_is_object(v))
            return wrong_type(m, at, "an object", v, e);
        *(json_t **)m->out = v;
        return 0;
    case JSON_ARR:
        if (!json_is_array(v))
            return wrong_type(m, at, "an array", v, e);
        if (bounded(m) && ((int64_t)json_array_size(v) < m->min || (int64_t)json_array_size(v) > m->max))
            return out_of_bounds(m, at, "have", " elements", e);
        *(json_t **)m->out = v;
        return 0;
    case JSON_ANY: *(json_t **)m->out = v; return 0;
    case JSON_INT64:
        if (!whole(v, &i))
            return wrong_type(m, at, "an integer", v, e);
        if (bounded(m) && (i < m->min || i > m->max))
            return out_of_bounds(m, at, "be", "", e);
        *(int64_t *)m->out = i;
        return 0;
    case JSON_DOUBLE:
        if (!json_is_number(v))
            return wrong_type(m, at, "a number", v, e);
        d = json_number_value(v);
        if (!isfinite(d) || (bounded(m) && (d < (double)m->min || d > (double)m->max)))
            return out_of_bounds(m, at, "be", "", e);
        *(double *)m->out = d;
        return 0;
    case JSON_BOOLEAN:
        if (!json_is_boolean(v))
            return wrong_type(m, at, "true or false", v, e);
        *(bool *)m->out = json_is_true(v);
        return 0;
    }
    return 0;
}

int json_members(struct arena *a, json_t *object, const char *pointer, const struct json_member *table, size_t n,
                 bool lenient, struct err *e)
{
    char at[96];
    const char *name;
    json_t *v;
    (void)a;
    json_object_foreach (object, name, v)
        if (!lenient && !find_member(table, n, name))
            return unknown_member(table, n, pointer, name, e);
    for (const struct json_member *m = table; m < table + n; m++) {
        v = json_object_get(object, m->name);
        if (m->present)
            *m->present = v != NULL;
        json_pointer(at, sizeof at, pointer, m->name);
        if (!v && m->required)
            return err_at(e, at, "'%s' is required", m->name);
        if (!v || (m->nullable && json_is_null(v)))
            continue;
        if (take(m, at, v, e))
            return -1;
    }
    return 0;
}

struct str json_text(struct arena *a, const json_t *value)
{
    struct buf b = {0};
    json_dump(&b, value);
    struct str s = arena_dup(a, buf_view(&b));
    buf_fini(&b);
    return s;
}
