/* What is in Qdrant under our prefix, and belongs to nobody: the verb `stray`. A name is ours only if it is, letter for
 * letter, one that we would give. */
#include "worker/vector/qdrant.h"
#include <stdio.h>

/* PREFIX_gGENERATION_dDIMENSION */
static bool space_of(struct qdrant *q, struct arena *a, const char *name, struct vector_space *s)
{
    size_t n = strlen(q->cfg->vectors_prefix);
    long long generation;
    *s = (struct vector_space){0};
    if (!name || strncmp(name, q->cfg->vectors_prefix, n) != 0 ||
        sscanf(name + n, "_g%lld_d%d", &generation, &s->dim) != 2)
        return false;
    s->generation = generation;
    return generation > 0 && s->dim > 0 && str_eqz(qdrant_name(q, a, s), name);
}

/* PREFIX_ID */
static bool collection_of(struct qdrant *q, struct arena *a, const char *alias, struct uuid *id)
{
    size_t n = strlen(q->cfg->vectors_prefix);
    struct vector_space s = {0};
    if (!alias || strncmp(alias, q->cfg->vectors_prefix, n) != 0 || alias[n] != '_' ||
        !uuid_parse(str_of(alias + n + 1), &s.collection))
        return false;
    *id = s.collection;
    return str_eqz(qdrant_alias_name(q, a, &s), alias);
}

static suspends int by_alias(struct qdrant *q, struct arena *a, const struct vector_space *known, size_t n,
                             struct vector_space *out, bool *found, struct err *e)
{
    struct qdrant_reply r;
    struct vector_space s;
    struct uuid id;
    size_t i;
    json_t *one;
    if (qdrant_call(q, a, "GET", STR("/aliases"), STR(""), false, &r, e))
        return -1;
    json_array_foreach (json_object_get(r.result, "aliases"), i, one) {
        bool mine = collection_of(q, a, json_string_value(json_object_get(one, "alias_name")), &id) &&
                    space_of(q, a, json_string_value(json_object_get(one, "collection_name")), &s);
        for (size_t k = 0; mine && k < n; k++)
            mine = !uuid_eq(&known[k].collection, &id);
        if (!mine)
            continue;
        s.collection = id;
        *out = s;
        *found = true;
        return 0;
    }
    return 0;
}

/* A point of none of the collections that are known here. When there are no such collections, and no point: `place` is
 * what nobody needs. */
static suspends int by_point(struct qdrant *q, struct arena *a, const struct vector_space *place,
                             const struct vector_space *known, size_t n, struct vector_space *out, bool *found,
                             struct err *e)
{
    struct qdrant_reply r;
    struct buf b = {0};
    size_t here = 0;
    buf_lit(&b, "{\"filter\":{\"must_not\":[");
    for (size_t k = 0; k < n; k++) {
        char id[UUID_TEXT_LEN];
        if (known[k].generation != place->generation || (known[k].dim && known[k].dim != place->dim))
            continue;
        uuid_text(&known[k].collection, id);
        buf_str(&b, here++ ? STR(",\"") : STR("{\"key\":\"collection\",\"match\":{\"any\":[\""));
        buf_add(&b, id, sizeof id);
        buf_lit(&b, "\"");
    }
    buf_str(&b, here ? STR("]}}") : STR(""));
    buf_lit(&b, "]},\"limit\":1,\"with_payload\":[\"collection\"],\"with_vector\":false}");
    struct str name = qdrant_name(q, a, place);
    int rc = qdrant_call(q, a, "POST", qdrant_path(a, name, "/points/scroll"), buf_view(&b), false, &r, e);
    buf_fini(&b);
    if (rc || r.status != 200)
        return rc;
    const json_t *points = json_object_get(r.result, "points");
    const char *id =
        json_string_value(json_object_get(json_object_get(json_array_get(points, 0), "payload"), "collection"));
    struct vector_space s = *place;
    if (json_array_size(points) ? !id || !uuid_parse(str_of(id), &s.collection) : here > 0)
        return 0; /* a point that is not ours makes all of it not ours */
    *out = s;
    *found = true;
    return 0;
}

suspends int qdrant_stray(struct vectors *v, const struct vector_space *known, size_t n, struct vector_space *out,
                          bool *found, struct err *e)
{
    struct qdrant *q = (struct qdrant *)v;
    struct arena a = {0};
    struct qdrant_reply r;
    struct vector_space place;
    size_t i;
    json_t *one;
    *found = false;
    int rc = by_alias(q, &a, known, n, out, found, e) ||
                     (!*found && qdrant_call(q, &a, "GET", STR("/collections"), STR(""), false, &r, e))
                 ? -1
                 : 0;
    if (rc == 0 && !*found)
        json_array_foreach (json_object_get(r.result, "collections"), i, one)
            if (rc == 0 && !*found && space_of(q, &a, json_string_value(json_object_get(one, "name")), &place))
                rc = by_point(q, &a, &place, known, n, out, found, e);
    arena_fini(&a);
    return rc;
}
