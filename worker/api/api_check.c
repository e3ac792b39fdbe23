#include "worker/api/api.h"
#include "worker/core/analyze.h"
#include <stdio.h>

enum { TAGS_MAX = 64, TAG_MAX = 128 };

int api_check_text(struct str text, size_t max, const char *pointer, const char *what, struct err *e)
{
    if (text.n > max)
        return err_at(e, pointer, "'%s' must have at most %zu bytes, not %zu", what, max, text.n);
    if (!str_is_utf8(text))
        return err_at(e, pointer, "'%s' must be valid UTF-8", what);
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] < 0x20 || text.p[i] == 0x7f)
            return err_at(e, pointer, "'%s' must not contain control characters", what);
    return 0;
}

int api_check_name(struct str name, size_t max, struct err *e)
{
    struct uuid u;
    if (api_check_text(name, max, "/name", "name", e))
        return -1;
    if (name.p[0] == ' ' || name.p[name.n - 1] == ' ' || memchr(name.p, '/', name.n))
        return err_at(e, "/name", "'name' must not contain '/', nor begin or end with a space");
    if (str_eq(name, STR(".")) || str_eq(name, STR("..")))
        return err_at(e, "/name", "'name' must not be . or .., which no path can have");
    if (uuid_parse(name, &u))
        return err_at(e, "/name", "'name' must not have the form of an id");
    return 0;
}

int api_check_language(struct str language, const char *pointer, struct err *e)
{
    struct err why;
    if (!language.n || analyzer_language_valid(language))
        return 0;
    struct analyzer *a = analyzer_new(language, &why); /* it knows the names */
    if (!a)
        return err_at(e, pointer, "%s", why.msg);
    analyzer_free(a);
    return 0;
}

int api_metadata(struct request *r, struct arena *a, json_t *object, const char *pointer, struct str *out,
                 struct err *e)
{
    struct str text = json_text(a, object);
    if ((int64_t)text.n > r->cfg->limits_metadata)
        return err_at(e, pointer, "'metadata' has %zu bytes as JSON; limits.metadata allows %lld", text.n,
                      (long long)r->cfg->limits_metadata);
    *out = text;
    return 0;
}

static bool has_string(json_t *array, size_t n, const json_t *v)
{
    for (size_t i = 0; i < n; i++)
        if (json_equal(json_array_get(array, i), v))
            return true;
    return false;
}

int api_tags(struct arena *a, json_t *array, const char *pointer, struct str *out, struct err *e)
{
    struct buf b = {0};
    struct json_out o = json_out(&b);
    char at[sizeof e->pointer], index[24];
    if (json_array_size(array) > TAGS_MAX)
        return err_at(e, pointer, "'tags' must have at most %d elements", TAGS_MAX);
    jo_begin(&o, '[');
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_t *v = json_array_get(array, i);
        struct str tag = {json_string_value(v), json_string_length(v)};
        snprintf(index, sizeof index, "%zu", i);
        json_pointer(at, sizeof at, pointer, index);
        if (!json_is_string(v) || !tag.n) {
            buf_fini(&b);
            return err_at(e, at, "A tag must be a string that is not empty");
        }
        if (api_check_text(tag, TAG_MAX, at, "tag", e)) {
            buf_fini(&b);
            return -1;
        }
        if (!has_string(array, i, v))
            jo_str(&o, tag);
    }
    jo_end(&o, ']');
    *out = arena_dup(a, buf_view(&b));
    buf_fini(&b);
    return 0;
}

/* RFC 7396, section 2. `target` is changed in place and returned, or replaced. Depth is that of the parsed patch. */
static json_t *merge(json_t *target, json_t *patch)
{
    const char *name;
    json_t *v;
    if (!json_is_object(patch))
        return json_incref(patch);
    target = json_is_object(target) ? json_incref(target) : json_object();
    json_object_foreach (patch, name, v) {
        if (json_is_null(v))
            json_object_del(target, name);
        else
            json_object_set_new(target, name, merge(json_object_get(target, name), v));
    }
    return target;
}

static void release(void *value)
{
    json_decref(value);
}

int api_merge(struct request *r, struct str old, json_t *patch, json_t **out, struct err *e)
{
    json_t *target;
    if (json_parse_object(&r->arena, old.n ? old : STR("{}"), (int)r->cfg->limits_json_depth + 1, &target, e)) {
        char why[sizeof e->msg];
        snprintf(why, sizeof why, "%s", e->msg);
        err_set(e, ERR_INTERNAL, "The stored metadata cannot be read");
        return err_log(e, "%.300s", why);
    }
    *out = arena_own(&r->arena, merge(target, patch), release);
    return 0;
}
