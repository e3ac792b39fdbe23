/* Qdrant's collections, one for each generation and dimension, and the aliases that lead from a collection to the one that
 * holds what is searched. */
#include "worker/vector/qdrant.h"

struct str qdrant_name(struct qdrant *q, struct arena *a, const struct vector_space *s)
{
    return arena_printf(a, "%s_g%lld_d%d", q->cfg->vectors_prefix, (long long)s->generation, s->dim);
}

struct str qdrant_path(struct arena *a, struct str name, const char *rest)
{
    return arena_printf(a, "/collections/" STR_FMT "%s", STR_ARG(name), rest);
}

static bool is_known(const struct qdrant *q, struct str name)
{
    for (size_t i = 0; i < QDRANT_KNOWN && i < q->n_known; i++)
        if (str_eqz(name, q->known[i]))
            return true;
    return false;
}

void qdrant_forget(struct qdrant *q, struct str name)
{
    for (size_t i = 0; i < QDRANT_KNOWN && i < q->n_known; i++)
        if (str_eqz(name, q->known[i]))
            q->known[i][0] = 0;
}

static suspends int make_collection(struct qdrant *q, struct arena *a, struct str name, int dim, struct err *e)
{
    struct qdrant_reply r; /* 409: somebody else was faster */
    struct str body = arena_printf(a,
                                   "{\"vectors\":{\"dense\":{\"size\":%d,\"distance\":\"Cosine\"}},\"shard_number\":%d,"
                                   "\"replication_factor\":%d,\"write_consistency_factor\":%d}",
                                   dim, (int)q->cfg->vectors_shards, (int)q->cfg->vectors_replicas,
                                   (int)q->cfg->vectors_write_consistency);
    return qdrant_call(q, a, "PUT", qdrant_path(a, name, ""), body, false, &r, e);
}

static suspends int make_indexes(struct qdrant *q, struct arena *a, struct str name, const json_t *info, struct err *e)
{
    static const struct {
        const char *field, *schema;
    } wanted[] = {
        {"collection", "{\"type\":\"keyword\",\"is_tenant\":true}"},
        {"document_no", "{\"type\":\"integer\",\"lookup\":true,\"range\":true}"},
    };
    const json_t *there = json_object_get(info, "payload_schema");
    bool missing;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (json_object_get(there, wanted[i].field))
            continue;
        struct str body =
            arena_printf(a, "{\"field_name\":\"%s\",\"field_schema\":%s}", wanted[i].field, wanted[i].schema);
        if (qdrant_update(q, a, "PUT", qdrant_path(a, name, "/index"), body, &missing, e))
            return -1;
    }
    return 0;
}

static int check_shape(const json_t *info, struct str name, int dim, struct err *e)
{
    const json_t *params = json_object_get(json_object_get(info, "config"), "params");
    const json_t *dense = json_object_get(json_object_get(params, "vectors"), "dense");
    const char *distance = json_string_value(json_object_get(dense, "distance"));
    if (json_integer_value(json_object_get(dense, "size")) == dim && distance && strcmp(distance, "Cosine") == 0)
        return 0;
    err_set(e, ERR_CONFLICT, "Qdrant's collection has vectors of another kind; choose another vectors.prefix");
    return err_log(e, STR_FMT, STR_ARG(name));
}

suspends int qdrant_ensure(struct qdrant *q, struct arena *a, struct str name, int dim, struct err *e)
{
    struct qdrant_reply r;
    if (is_known(q, name))
        return 0;
    if (qdrant_call(q, a, "GET", qdrant_path(a, name, ""), STR(""), false, &r, e))
        return -1;
    if (r.status == 404 && (make_collection(q, a, name, dim, e) ||
                            qdrant_call(q, a, "GET", qdrant_path(a, name, ""), STR(""), false, &r, e)))
        return -1;
    if (check_shape(r.result, name, dim, e) || make_indexes(q, a, name, r.result, e))
        return -1;
    str_copyz(q->known[q->n_known++ % QDRANT_KNOWN], QDRANT_NAME_MAX, name);
    return 0;
}

/* ---- aliases ---- */

struct str qdrant_alias_name(struct qdrant *q, struct arena *a, const struct vector_space *s)
{
    char id[UUID_TEXT_LEN + 1] = {0};
    uuid_text(&s->collection, id);
    return arena_printf(a, "%s_%s", q->cfg->vectors_prefix, id);
}

/* By the last bytes of the id, which are random. */
static struct qdrant_alias *place_of(struct qdrant *q, const struct vector_space *s)
{
    const uint8_t *b = s->collection.b;
    return &q->alias[(b[14] << 8 | b[15]) % QDRANT_ALIASES];
}

static bool is_remembered(struct qdrant *q, const struct vector_space *s)
{
    const struct qdrant_alias *m = place_of(q, s);
    return m->generation == s->generation && uuid_eq(&m->collection, &s->collection);
}

/* Whether the alias of the collection leads to this one of Qdrant's. */
static suspends int has_alias(struct qdrant *q, struct arena *a, struct str name, struct str alias, bool *yes,
                              struct err *e)
{
    struct qdrant_reply r;
    size_t i;
    json_t *one;
    if (qdrant_call(q, a, "GET", qdrant_path(a, name, "/aliases"), STR(""), false, &r, e))
        return -1;
    *yes = false;
    json_array_foreach (json_object_get(r.result, "aliases"), i, one) {
        const char *its = json_string_value(json_object_get(one, "alias_name"));
        *yes |= its && str_eqz(alias, its);
    }
    return 0;
}

/* Actions of one call happen together or not at all. */
static suspends int change_aliases(struct qdrant *q, struct arena *a, struct str actions, int *status, struct err *e)
{
    struct qdrant_reply r;
    struct str body = arena_printf(a, "{\"actions\":[" STR_FMT "]}", STR_ARG(actions));
    if (qdrant_call(q, a, "POST", STR("/collections/aliases"), body, false, &r, e))
        return -1;
    *status = r.status;
    return 0;
}

static struct str deletion(struct arena *a, struct str alias)
{
    return arena_printf(a, "{\"delete_alias\":{\"alias_name\":\"" STR_FMT "\"}}", STR_ARG(alias));
}

suspends int qdrant_alias_set(struct vectors *v, const struct vector_space *s, bool anew, bool *changed, struct err *e)
{
    struct qdrant *q = (struct qdrant *)v;
    *changed = anew || !is_remembered(q, s);
    if (!*changed)
        return 0;
    struct arena a = {0};
    struct str name = qdrant_name(q, &a, s), alias = qdrant_alias_name(q, &a, s), out = deletion(&a, alias);
    struct str actions = arena_printf(
        &a, STR_FMT ",{\"create_alias\":{\"collection_name\":\"" STR_FMT "\",\"alias_name\":\"" STR_FMT "\"}}",
        STR_ARG(out), STR_ARG(name), STR_ARG(alias));
    int rc = 0, status = 404;
    for (int i = 0; i < 2 && rc == 0 && status == 404; i++) { /* 404: the collection vanished since it was seen */
        rc = qdrant_ensure(q, &a, name, s->dim, e) || change_aliases(q, &a, actions, &status, e) ? -1 : 0;
        if (rc == 0 && status == 404)
            qdrant_forget(q, name);
    }
    if (rc == 0 && status == 404)
        rc = err_set(e, ERR_NOT_READY, "Qdrant's collection vanished while it got its alias");
    if (rc == 0 && status == 409) {
        rc = err_set(e, ERR_CONFLICT, "Qdrant has a collection where an alias belongs; choose another vectors.prefix");
        err_log(e, STR_FMT, STR_ARG(alias));
    }
    if (rc == 0)
        *place_of(q, s) = (struct qdrant_alias){s->collection, s->generation};
    arena_fini(&a);
    return rc;
}

suspends int qdrant_alias_is_set(struct vectors *v, const struct vector_space *s, bool *yes, struct err *e)
{
    struct qdrant *q = (struct qdrant *)v;
    struct arena a = {0};
    int rc = has_alias(q, &a, qdrant_name(q, &a, s), qdrant_alias_name(q, &a, s), yes, e);
    arena_fini(&a);
    return rc;
}

suspends int qdrant_alias_drop(struct qdrant *q, struct arena *a, const struct vector_space *s, struct err *e)
{
    struct str name = qdrant_name(q, a, s), alias = qdrant_alias_name(q, a, s);
    bool yes;
    int status;
    if (has_alias(q, a, name, alias, &yes, e) || (yes && change_aliases(q, a, deletion(a, alias), &status, e)))
        return -1;
    if (is_remembered(q, s))
        place_of(q, s)->generation = 0;
    return 0;
}
