#include "worker/store/product.h"

_Static_assert(sizeof(float) == 4 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "vectors are stored as the processor has them: float32, little-endian");

int store_collection_taken(struct err *e)
{
    return err_set(e, ERR_CONFLICT, "There is a collection of this id, or one that is still being deleted");
}

static int in_the_way(const struct uuid *document, const char *what, const char *cure, struct err *e)
{
    char id[UUID_TEXT_LEN + 1] = "";
    uuid_text(document, id);
    return err_set(e, ERR_CONFLICT, "The collection has a document %s: %s%s", what, id, cure);
}

int store_same_bytes(const struct uuid *document, struct err *e)
{
    return in_the_way(document, "of the same bytes", "", e);
}

int store_external_id_taken(const struct uuid *document, struct err *e)
{
    return in_the_way(document, "with this external_id",
                      "; PUT collections/{collection}/documents/by-external-id/{external_id} replaces it", e);
}

int store_id_taken(const struct uuid *document, struct err *e)
{
    char id[UUID_TEXT_LEN + 1] = "";
    uuid_text(document, id);
    return err_set(e, ERR_CONFLICT, "There is a document of this id already: %s", id);
}

bool store_same_embedder(const struct store_collection *c, struct str model, int dim)
{
    return str_eq(c->embedder, model) && c->dim == dim;
}

int store_other_embedder(const struct store_collection *c, struct str model, int dim, struct err *e)
{
    return err_set(e, ERR_CONFLICT,
                   "The collection '" STR_FMT "' was embedded with " STR_FMT " (%d dimensions), not with " STR_FMT
                   " (%d): run `ragd reindex " STR_FMT "`, or set embedding.model back",
                   STR_ARG(str_sub(c->name, 0, 60)), STR_ARG(str_sub(c->embedder, 0, 60)), c->dim,
                   STR_ARG(str_sub(model, 0, 60)), dim, STR_ARG(str_sub(c->name, 0, 60)));
}

int store_other_shadow(const struct store_collection *c, struct err *e)
{
    return err_set(e, ERR_CONFLICT,
                   "Generation %lld of the collection is being built with " STR_FMT
                   " (%d dimensions): promote or drop it first",
                   (long long)c->shadow.no, STR_ARG(str_sub(c->shadow.embedder, 0, 80)), c->shadow.dim);
}

int store_no_generation(int64_t generation, struct err *e)
{
    return err_set(e, ERR_CONFLICT, "The collection has no complete generation %lld beside the one that is searched",
                   (long long)generation);
}

const float *store_vector(struct arena *a, struct str bytes, int *dim)
{
    if (*dim == 0 && bytes.n % sizeof(float) == 0)
        *dim = (int)(bytes.n / sizeof(float));
    if (bytes.n == 0 || bytes.n != (size_t)*dim * sizeof(float))
        return NULL;
    float *v = arena_alloc(a, bytes.n);
    memcpy(v, bytes.p, bytes.n);
    return v;
}

int store_no_set(struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "No such golden set");
}

int store_no_result(struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "The run has no result, or it is not kept any more");
}

int store_set_taken(struct str name, struct err *e)
{
    return err_set(e, ERR_NAME_TAKEN, "There is a golden set named '" STR_FMT "' already",
                   STR_ARG(str_sub(name, 0, 200)));
}

int store_sets_full(int64_t max, struct err *e)
{
    return err_set(e, ERR_QUOTA, "There are %lld golden sets, as many as limits.eval_sets allows: delete one",
                   (long long)max);
}

int store_too_many_webhooks(int64_t max, struct err *e)
{
    return err_set(e, ERR_QUOTA, "There are %lld webhooks, as many as webhooks.max allows: delete one", (long long)max);
}

int store_webhook_disabled(struct err *e)
{
    return err_set(e, ERR_CONFLICT, "The webhook is disabled: set enabled to true first");
}

int store_delivery_lost(struct err *e)
{
    return err_set(e, ERR_CONFLICT, "Another try of the delivery is under way, or it is gone");
}
