/* From the filters of worker/store/filter.h to Qdrant's. A condition that cannot be said is left out: the caller looks
 * at every hit again. How much that would cost is known from qdrant_says() before. */
#include "worker/vector/qdrant.h"

static const char *const ranges[] = {
    [FILTER_GT] = "gt", [FILTER_GTE] = "gte", [FILTER_LT] = "lt", [FILTER_LTE] = "lte"};

/* metadata."name"."name"; false for a name that Qdrant's paths cannot hold. */
static bool add_key(struct buf *out, struct str key)
{
    struct buf path = {0};
    bool possible = !memchr(key.p, '"', key.n) && !memchr(key.p, '\\', key.n);
    buf_lit(&path, "metadata");
    for (struct str rest = key; rest.n > 0;) {
        buf_lit(&path, ".\"");
        buf_str(&path, str_cut(&rest, '.'));
        buf_lit(&path, "\"");
    }
    if (possible) {
        buf_lit(out, "{\"key\":");
        json_escape(out, buf_view(&path));
    }
    buf_fini(&path);
    return possible;
}

static void add_number(struct buf *out, double v)
{
    struct json_out o = json_out(out);
    jo_f64(&o, v);
}

/* One value that the member, or an element of it, equals. Numbers are doubles, and match knows no doubles. */
static bool add_equal(struct buf *out, struct str key, const struct filter_value *v)
{
    if (!add_key(out, key))
        return false;
    if (v->type == FILTER_NUMBER) {
        buf_lit(out, ",\"range\":{\"gte\":");
        add_number(out, v->num);
        buf_lit(out, ",\"lte\":");
        add_number(out, v->num);
    } else {
        buf_lit(out, ",\"match\":{\"value\":");
        if (v->type == FILTER_STRING)
            json_escape(out, v->s);
        else
            buf_str(out, str_of(v->b ? "true" : "false"));
    }
    buf_lit(out, "}}");
    return true;
}

static bool add_any(struct buf *out, const struct filter *f, const char *clause)
{
    size_t before = out->n;
    buf_printf(out, "{\"%s\":[", clause);
    for (size_t i = 0; i < f->n; i++) {
        if (i)
            buf_ch(out, ',');
        if (!add_equal(out, f->key, &f->value[i])) {
            out->n = before;
            return false;
        }
    }
    buf_lit(out, "]}");
    return true;
}

static bool add_range(struct buf *out, const struct filter *f)
{
    if (f->value->type != FILTER_NUMBER || !add_key(out, f->key))
        return false;
    buf_printf(out, ",\"range\":{\"%s\":", ranges[f->op]);
    add_number(out, f->value->num);
    buf_lit(out, "}}");
    return true;
}

/* Of an `and` those that can be said count; an `or` needs them all. */
static bool add_group(struct buf *out, const struct filter *f)
{
    size_t before = out->n, said = 0;
    buf_lit(out, "{\"");
    buf_str(out, str_of(f->op == FILTER_AND ? "must" : "should"));
    buf_lit(out, "\":[");
    for (size_t i = 0; i < f->n; i++) {
        size_t comma = out->n;
        if (said)
            buf_ch(out, ',');
        if (qdrant_filter(out, f->child[i])) {
            said++;
            continue;
        }
        out->n = comma;
        if (f->op == FILTER_OR)
            said = f->n + 1;
    }
    buf_lit(out, "]}");
    if (said >= 1 && said <= f->n)
        return true;
    out->n = before;
    return false;
}

bool qdrant_filter(struct buf *out, const struct filter *f)
{
    switch (f->op) {
    case FILTER_EQ:
    case FILTER_IN: return add_any(out, f, "should");
    case FILTER_NE:
    case FILTER_NIN: return add_any(out, f, "must_not");
    case FILTER_AND:
    case FILTER_OR: return add_group(out, f);
    default: return add_range(out, f);
    }
}

bool qdrant_says(const struct filter *f)
{
    struct buf scratch = {0};
    bool group = f->op == FILTER_AND || f->op == FILTER_OR, said = group || qdrant_filter(&scratch, f);
    for (size_t i = 0; group && said && i < f->n; i++)
        said = qdrant_says(f->child[i]);
    buf_fini(&scratch);
    return said;
}
