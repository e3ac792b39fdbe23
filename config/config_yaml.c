/* The file: a mapping of sections, each a mapping of keys, read with libyaml. Its document loader keeps positions and
 * repeated keys, resolves aliases to the node they name (so they cost nothing), and never recurses. */
#include "config/config_impl.h"
#include <yaml.h>

struct reader {
    struct config *cfg;
    const char *file;
    yaml_document_t *doc;
};

static struct config_source place(const struct reader *r, const yaml_node_t *node)
{
    return (struct config_source){.layer = LAYER_FILE,
                                  .name = r->file,
                                  .line = (int)node->start_mark.line + 1,
                                  .col = (int)node->start_mark.column + 1};
}

static struct str scalar(const yaml_node_t *node)
{
    return (struct str){(const char *)node->data.scalar.value, node->data.scalar.length};
}

static const char *kind(const yaml_node_t *node)
{
    return node->type == YAML_MAPPING_NODE ? "a mapping" : node->type == YAML_SEQUENCE_NODE ? "a list" : "a value";
}

/* `key:` with nothing behind it, and ~, are YAML's null. */
static bool is_null(const yaml_node_t *node)
{
    struct str s = node->type == YAML_SCALAR_NODE ? scalar(node) : STR("?");
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!s.n || str_eqz(s, "~") || str_ieq(s, STR("null")));
}

static int check_tag(const struct reader *r, const yaml_node_t *node, struct err *e)
{
    struct config_source at = place(r, node);
    if (node->tag && !str_starts(str_of((const char *)node->tag), STR("tag:yaml.org,2002:")))
        return config_fail(e, &at, "the tag %.40s means nothing here", (const char *)node->tag);
    return 0;
}

/* The scalar that names a section or a key; refuses one that already stands in the mapping. */
static int member_name(const struct reader *r, const yaml_node_t *map, const yaml_node_pair_t *pair, struct str *name,
                       struct err *e)
{
    const yaml_node_t *node = yaml_document_get_node(r->doc, pair->key);
    struct config_source at = place(r, node);
    if (check_tag(r, node, e))
        return -1;
    if (node->type != YAML_SCALAR_NODE)
        return config_fail(e, &at, "%s cannot be the name of a key", kind(node));
    *name = scalar(node);
    if (str_eqz(*name, "<<"))
        return config_fail(e, &at, "merge keys (<<) are not supported");
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < pair; p++) {
        const yaml_node_t *other = yaml_document_get_node(r->doc, p->key);
        if (other->type == YAML_SCALAR_NODE && str_eq(scalar(other), *name))
            return config_fail(e, &at, "%.*s is there twice, first in line %d", (int)(name->n < 60 ? name->n : 60),
                               name->p, (int)other->start_mark.line + 1);
    }
    return 0;
}

static int unknown(const struct reader *r, const yaml_node_t *node, const char *what, struct str full, struct err *e)
{
    struct config_source at = place(r, node);
    const char *near = config_nearest(full);
    return config_fail(e, &at, "unknown %s %.*s%s%s%s", what, (int)(full.n < 80 ? full.n : 80), full.p,
                       near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static int read_sequence(const struct reader *r, enum config_key key, const yaml_node_t *seq, struct err *e)
{
    size_t n = (size_t)(seq->data.sequence.items.top - seq->data.sequence.items.start);
    struct str *v = arena_alloc(&r->cfg->origin->arena, n * sizeof *v);
    struct config_source at = place(r, seq);
    for (size_t i = 0; i < n; i++) {
        const yaml_node_t *item = yaml_document_get_node(r->doc, seq->data.sequence.items.start[i]);
        struct config_source here = place(r, item);
        if (check_tag(r, item, e))
            return -1;
        if (item->type != YAML_SCALAR_NODE || is_null(item))
            return config_fail(e, &here, "%s: element %zu is %s, a text is needed", config_key_name(key), i + 1,
                               item->type == YAML_SCALAR_NODE ? "empty" : kind(item));
        v[i] = scalar(item);
    }
    return config_set_list(r->cfg, key, v, n, &at, e);
}

static int read_value(const struct reader *r, enum config_key key, const yaml_node_t *node, struct err *e)
{
    struct config_source at = place(r, node);
    if (check_tag(r, node, e))
        return -1;
    if (node->type == YAML_SEQUENCE_NODE && config_keys[key].type == CONFIG_LIST)
        return read_sequence(r, key, node, e);
    if (node->type != YAML_SCALAR_NODE)
        return config_fail(e, &at, "%s: is %s, a single value is needed", config_key_name(key), kind(node));
    if (is_null(node))
        return config_fail(e, &at, "%s: has no value; remove the line for the default, or write \"\" for an empty text",
                           config_key_name(key));
    return config_set_text(r->cfg, key, scalar(node), &at, e);
}

static int read_section(const struct reader *r, struct str section, const yaml_node_t *map, struct err *e)
{
    struct arena *a = &r->cfg->origin->arena;
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        struct str name = STR("");
        if (member_name(r, map, p, &name, e))
            return -1;
        struct str full = arena_printf(a, STR_FMT "." STR_FMT, STR_ARG(section), STR_ARG(name));
        int key = config_find(full);
        if (key < 0)
            return unknown(r, yaml_document_get_node(r->doc, p->key), "key", full, e);
        if (read_value(r, (enum config_key)key, yaml_document_get_node(r->doc, p->value), e))
            return -1;
    }
    return 0;
}

static int unknown_section(const struct reader *r, const yaml_node_t *node, struct str name, struct err *e)
{
    struct config_source at = place(r, node);
    const char *best = NULL;
    int best_distance = 4;
    char written[64];
    str_copyz(written, sizeof written, name);
    for (int k = 0; k < KEY_COUNT; k++) {
        int d = str_distance(written, config_keys[k].section);
        if (d < best_distance) {
            best_distance = d;
            best = config_keys[k].section;
        }
    }
    if (!best)
        return unknown(r, node, "section", name, e);
    return config_fail(e, &at, "unknown section %s; did you mean %s?", written, best);
}

static int read_document(const struct reader *r, const yaml_node_t *root, struct err *e)
{
    struct config_source at = place(r, root);
    if (is_null(root))
        return 0;
    if (root->type != YAML_MAPPING_NODE)
        return config_fail(e, &at, "the file holds %s, sections such as `server:` are needed", kind(root));
    if (check_tag(r, root, e))
        return -1;
    for (const yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++) {
        const yaml_node_t *value = yaml_document_get_node(r->doc, p->value);
        struct str section = STR("");
        if (member_name(r, root, p, &section, e))
            return -1;
        char name[64];
        str_copyz(name, sizeof name, section);
        if (!*config_section_doc(name))
            return unknown_section(r, yaml_document_get_node(r->doc, p->key), section, e);
        at = place(r, value);
        if (is_null(value)) /* `server:` whose keys are all commented out */
            continue;
        if (value->type != YAML_MAPPING_NODE)
            return config_fail(e, &at, "%s: is %s, keys are needed", name, kind(value));
        if (check_tag(r, value, e) || read_section(r, section, value, e))
            return -1;
    }
    return 0;
}

/* Errors of the encoding come with a byte offset instead of a mark. */
static int syntax_error(const yaml_parser_t *p, const char *file, struct str text, struct err *e)
{
    struct config_source at = {
        .name = file, .line = (int)p->problem_mark.line + 1, .col = (int)p->problem_mark.column + 1};
    if (p->error == YAML_READER_ERROR) {
        size_t line_start = 0;
        at.line = 1;
        for (size_t i = 0; i < p->problem_offset && i < text.n; i++)
            if (text.p[i] == '\n') {
                at.line++;
                line_start = i + 1;
            }
        at.col = (int)(p->problem_offset - line_start) + 1;
    }
    return config_fail(e, &at, "%s%s%s", p->problem ? p->problem : "is not YAML", p->context ? " " : "",
                       p->context ? p->context : "");
}

int config_yaml(struct config *cfg, const char *file, struct str text, struct err *e)
{
    yaml_parser_t parser;
    yaml_document_t doc, next;
    int r = -1;
    if (!yaml_parser_initialize(&parser))
        return err_set(e, ERR_INTERNAL, "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, text.n);
    if (!yaml_parser_load(&parser, &doc)) {
        syntax_error(&parser, file, text, e);
        yaml_parser_delete(&parser);
        return -1;
    }
    struct reader reader = {cfg, file, &doc};
    const yaml_node_t *root = yaml_document_get_root_node(&doc);
    if (!root)
        r = 0; /* an empty file */
    else if (read_document(&reader, root, e) == 0) {
        if (!yaml_parser_load(&parser, &next)) {
            syntax_error(&parser, file, text, e);
        } else {
            const yaml_node_t *second = yaml_document_get_root_node(&next);
            struct config_source at = place(&reader, second ? second : root);
            r = second ? config_fail(e, &at, "a second document begins here; one is needed") : 0;
            yaml_document_delete(&next);
        }
    }
    yaml_document_delete(&doc);
    yaml_parser_delete(&parser);
    return r;
}
