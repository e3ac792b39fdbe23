#include "worker/store/filter.h"
#include <stdio.h>

static const struct {
    const char *name;
    enum filter_op op;
} ops[] = {
    {"eq", FILTER_EQ},   {"ne", FILTER_NE}, {"gt", FILTER_GT},   {"gte", FILTER_GTE}, {"lt", FILTER_LT},
    {"lte", FILTER_LTE}, {"in", FILTER_IN}, {"nin", FILTER_NIN}, {"and", FILTER_AND}, {"or", FILTER_OR},
};

struct parser {
    struct arena *a;
    struct err *e;
    size_t nodes;
};

static int parse_node(struct parser *p, json_t *json, const char *pointer, int depth, struct filter **out);

int filter_parse(struct arena *a, json_t *json, const char *pointer, struct filter **out, struct err *e)
{
    struct parser p = {.a = a, .e = e};
    return parse_node(&p, json, pointer, 1, out);
}

static const char *below(struct parser *p, const char *pointer, const char *member)
{
    return arena_printf(p->a, "%s/%s", pointer, member).p;
}

static const char *element(struct parser *p, const char *pointer, size_t i)
{
    return arena_printf(p->a, "%s/%zu", pointer, i).p;
}

static struct str string_of(const json_t *json)
{
    return (struct str){json_string_value(json), json_string_length(json)};
}

/* Only `type` and the two members given; a misspelt member is not silently ignored. */
static int check_members(struct parser *p, json_t *json, const char *pointer, const char *one, const char *two)
{
    const char *name;
    json_t *value;
    json_object_foreach (json, name, value) {
        if (strcmp(name, "type") != 0 && strcmp(name, one) != 0 && (!two || strcmp(name, two) != 0))
            return err_at(p->e, below(p, pointer, name), "Unknown member of a filter: it has type, %s%s%s", one,
                          two ? " and " : "", two ? two : "");
    }
    return 0;
}

static int parse_value(struct parser *p, json_t *json, const char *pointer, enum filter_op op, struct filter_value *out)
{
    *out = (struct filter_value){0};
    switch (json_typeof(json)) {
    case JSON_STRING:
        out->type = FILTER_STRING;
        out->s = arena_dup(p->a, string_of(json));
        return 0;
    case JSON_INTEGER:
    case JSON_REAL:
        out->type = FILTER_NUMBER;
        out->num = json_number_value(json);
        return 0;
    case JSON_TRUE:
    case JSON_FALSE:
        if (op >= FILTER_GT && op <= FILTER_LTE)
            return err_at(p->e, pointer, "true and false have no order: compare them with eq or ne");
        out->type = FILTER_BOOL;
        out->b = json_is_true(json);
        return 0;
    default: break;
    }
    if (json_is_array(json))
        return err_at(p->e, pointer, "Only in and nin take a list of values");
    return err_at(p->e, pointer, "Must be a string, a number, true or false");
}

static int parse_key(struct parser *p, json_t *json, const char *pointer, struct str *out)
{
    json_t *key = json_object_get(json, "key");
    if (!json_is_string(key))
        return err_at(p->e, below(p, pointer, "key"), "Must be a string: the name of a member of the metadata");
    struct str s = string_of(key), rest = s;
    if (s.n > FILTER_MAX_KEY)
        return err_at(p->e, below(p, pointer, "key"), "Longer than %d bytes", FILTER_MAX_KEY);
    do {
        if (str_cut(&rest, '.').n == 0)
            return err_at(p->e, below(p, pointer, "key"), "Must be a name or names joined by dots");
    } while (rest.n > 0);
    if (s.p[s.n - 1] == '.')
        return err_at(p->e, below(p, pointer, "key"), "Must not end in a dot");
    *out = arena_dup(p->a, s);
    return 0;
}

static int parse_comparison(struct parser *p, json_t *json, const char *pointer, struct filter *f)
{
    const char *at = below(p, pointer, "value");
    json_t *value = json_object_get(json, "value");
    if (check_members(p, json, pointer, "key", "value") < 0 || parse_key(p, json, pointer, &f->key) < 0)
        return -1;
    if (!value)
        return err_at(p->e, at, "Required");
    if (f->op != FILTER_IN && f->op != FILTER_NIN) {
        f->n = 1;
        f->value = arena_alloc(p->a, sizeof *f->value);
        return parse_value(p, value, at, f->op, f->value);
    }
    f->n = json_array_size(value);
    if (f->n == 0 || f->n > FILTER_MAX_VALUES)
        return err_at(p->e, at, "Must be a list of 1 to %d values", FILTER_MAX_VALUES);
    f->value = arena_alloc(p->a, f->n * sizeof *f->value);
    for (size_t i = 0; i < f->n; i++)
        if (parse_value(p, json_array_get(value, i), element(p, at, i), f->op, &f->value[i]) < 0)
            return -1;
    return 0;
}

static int parse_group(struct parser *p, json_t *json, const char *pointer, int depth, struct filter *f)
{
    const char *at = below(p, pointer, "filters");
    json_t *list = json_object_get(json, "filters");
    if (check_members(p, json, pointer, "filters", NULL) < 0)
        return -1;
    f->n = json_array_size(list);
    if (f->n == 0)
        return err_at(p->e, at, "Must be a list of at least one filter");
    if (f->n > FILTER_MAX_NODES)
        return err_at(p->e, at, "Too many filters: at most %d in all", FILTER_MAX_NODES);
    f->child = arena_alloc(p->a, f->n * sizeof *f->child);
    for (size_t i = 0; i < f->n; i++)
        if (parse_node(p, json_array_get(list, i), element(p, at, i), depth + 1, &f->child[i]) < 0)
            return -1;
    return 0;
}

static int parse_node(struct parser *p, json_t *json, const char *pointer, int depth, struct filter **out)
{
    if (!json_is_object(json))
        return err_at(p->e, pointer, "Must be a filter object");
    if (depth > FILTER_MAX_DEPTH)
        return err_at(p->e, pointer, "Filters are nested deeper than %d", FILTER_MAX_DEPTH);
    if (++p->nodes > FILTER_MAX_NODES)
        return err_at(p->e, pointer, "Too many filters: at most %d in all", FILTER_MAX_NODES);
    json_t *type = json_object_get(json, "type");
    for (size_t i = 0; json_is_string(type) && i < sizeof ops / sizeof *ops; i++) {
        if (!str_eqz(string_of(type), ops[i].name))
            continue;
        struct filter *f = arena_zalloc(p->a, sizeof *f);
        f->op = ops[i].op;
        int rc = f->op >= FILTER_AND ? parse_group(p, json, pointer, depth, f) : parse_comparison(p, json, pointer, f);
        if (rc == 0)
            *out = f;
        return rc;
    }
    return err_at(p->e, below(p, pointer, "type"), "Must be one of eq, ne, gt, gte, lt, lte, in, nin, and, or");
}

static json_t *lookup(json_t *metadata, struct str key)
{
    char name[FILTER_MAX_KEY + 1];
    while (metadata && key.n > 0) {
        struct str part = str_cut(&key, '.');
        str_copyz(name, sizeof name, part);
        metadata = json_object_get(metadata, name); /* NULL on anything but an object */
    }
    return metadata;
}

static int order(double a, double b)
{
    return (a > b) - (a < b);
}

/* False when the types differ; else *cmp is below, equal to or above 0. */
static bool compare(const json_t *member, const struct filter_value *v, int *cmp)
{
    if (v->type == FILTER_STRING && json_is_string(member)) {
        struct str s = string_of(member);
        size_t n = s.n < v->s.n ? s.n : v->s.n;
        *cmp = n ? memcmp(s.p, v->s.p, n) : 0;
        if (*cmp == 0)
            *cmp = (s.n > v->s.n) - (s.n < v->s.n);
        return true;
    }
    if (v->type == FILTER_NUMBER && json_is_number(member)) {
        *cmp = order(json_number_value(member), v->num);
        return true;
    }
    if (v->type == FILTER_BOOL && json_is_boolean(member)) {
        *cmp = json_is_true(member) - v->b;
        return true;
    }
    return false;
}

static bool equals_any(const struct filter *f, const json_t *member)
{
    int cmp;
    if (!member)
        return false;
    for (size_t i = 0; i < f->n; i++) {
        if (compare(member, &f->value[i], &cmp) && cmp == 0)
            return true;
        for (size_t k = 0; k < json_array_size(member); k++)
            if (compare(json_array_get(member, k), &f->value[i], &cmp) && cmp == 0)
                return true;
    }
    return false;
}

bool filter_matches(const struct filter *f, json_t *metadata)
{
    int cmp;
    if (f->op == FILTER_AND || f->op == FILTER_OR) {
        for (size_t i = 0; i < f->n; i++)
            if (filter_matches(f->child[i], metadata) == (f->op == FILTER_OR))
                return f->op == FILTER_OR;
        return f->op == FILTER_AND;
    }
    json_t *member = lookup(metadata, f->key);
    switch (f->op) {
    case FILTER_EQ:
    case FILTER_IN: return equals_any(f, member);
    case FILTER_NE:
    case FILTER_NIN: return !equals_any(f, member);
    default: break;
    }
    if (!member || !compare(member, f->value, &cmp))
        return false;
    switch (f->op) {
    case FILTER_GT: return cmp > 0;
    case FILTER_GTE: return cmp >= 0;
    case FILTER_LT: return cmp < 0;
    default: return cmp <= 0;
    }
}
