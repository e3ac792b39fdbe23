/* Generations of a collection's vectors: which model, which one is searched, which one is being built. */
#include "worker/store/sqlite.h"

/* The outbox hears of the whole space. */
static int tell(struct sqlite *db, enum outbox_kind kind, const struct store_collection *c,
                const struct store_generation *g, struct err *e)
{
    struct stmt *s = stmt_get(db, "INSERT INTO vector_outbox (kind, collection_no, collection, generation, dim)"
                                  " VALUES (?, ?, ?, ?, ?)");
    bind_i64(s, kind);
    bind_i64(s, c->no);
    bind_uuid(s, &c->id);
    bind_i64(s, g->no);
    bind_i64(s, g->dim);
    return stmt_run(s, e);
}

struct generation_call {
    struct arena *a;
    const struct uuid *id;
    struct str model;
    int dim;
    int64_t generation;
    struct store_collection *out;
};

static int find(struct sqlite *db, struct generation_call *c, struct store_collection *now, struct err *e)
{
    return collection_by_id(db, c->a, c->id, now, e);
}

/* Writes what is known of all three. */
static int save(struct sqlite *db, const struct store_collection *c, struct err *e)
{
    struct stmt *s =
        stmt_get(db, "UPDATE collections SET generation = ?, embedder = ?, dim = ?, shadow_generation = ?,"
                     " shadow_embedder = ?, shadow_dim = ?, previous_generation = ?, previous_embedder = ?,"
                     " previous_dim = ?, shadow_built = ?, revision = ?,"
                     " last_generation = max(last_generation, ?4) WHERE no = ?");
    bind_i64(s, c->generation);
    bind_str(s, c->embedder);
    bind_i64(s, c->dim);
    bind_i64(s, c->shadow.no);
    bind_str(s, c->shadow.embedder);
    bind_i64(s, c->shadow.dim);
    bind_i64(s, c->previous.no);
    bind_str(s, c->previous.embedder);
    bind_i64(s, c->previous.dim);
    bind_i64(s, c->shadow_built);
    bind_i64(s, c->revision);
    bind_i64(s, c->no);
    return stmt_run(s, e);
}

static int set_embedder(struct sqlite *db, void *arg, struct err *e)
{
    struct generation_call *c = arg;
    struct store_collection now;
    if (find(db, c, &now, e) < 0)
        return -1;
    if (store_same_embedder(&now, c->model, c->dim))
        return 0;
    if (now.embedder.n && (now.dim || !str_eq(now.embedder, c->model)))
        return store_other_embedder(&now, c->model, c->dim, e);
    now.embedder = c->model;
    now.dim = c->dim;
    return save(db, &now, e);
}

suspends int sqlite_collection_set_embedder(struct store *st, const struct uuid *id, struct str model, int dim,
                                            struct err *e)
{
    struct arena a = {0};
    struct sqlite *db = sqlite_of(st);
    struct generation_call c = {.a = &a, .id = id, .model = model, .dim = dim};
    struct store_collection now;
    int rc = SQLITE_TRY(db, e, find(db, &c, &now, e)); /* nearly always it is known, and nothing is written */
    if (rc == 0 && !store_same_embedder(&now, model, dim))
        rc = sqlite_write(db, set_embedder, &c, e);
    arena_fini(&a);
    return rc;
}

static int last_generation(struct sqlite *db, int64_t no, int64_t *out, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT last_generation FROM collections WHERE no = ?");
    bind_i64(s, no);
    if (stmt_row(s, e) <= 0)
        return -1;
    *out = col_i64(s);
    stmt_end(s);
    return 0;
}

static int begin(struct sqlite *db, void *arg, struct err *e)
{
    struct generation_call *c = arg;
    struct store_collection now;
    int64_t last;
    if (find(db, c, &now, e) < 0 || last_generation(db, now.no, &last, e) < 0)
        return -1;
    if (now.shadow.no && (!str_eq(now.shadow.embedder, c->model) || now.shadow.dim != c->dim))
        return store_other_shadow(&now, e);
    *c->out = now;
    if (now.shadow.no)
        return 0;
    c->out->shadow = (struct store_generation){last + 1, c->model, c->dim};
    return save(db, c->out, e);
}

suspends int sqlite_shadow_begin(struct store *st, struct arena *a, const struct uuid *id, struct str model, int dim,
                                 struct store_collection *out, struct err *e)
{
    struct store_collection now;
    struct generation_call c = {.a = a, .id = id, .model = arena_dup(a, model), .dim = dim, .out = &now};
    if (sqlite_write(sqlite_of(st), begin, &c, e) < 0)
        return -1;
    *out = now;
    return 0;
}

static int built(struct sqlite *db, void *arg, struct err *e)
{
    struct generation_call *c = arg;
    struct store_collection now;
    if (find(db, c, &now, e) < 0)
        return -1;
    if (now.shadow.no != c->generation)
        return store_no_generation(c->generation, e);
    now.shadow_built = true;
    return save(db, &now, e);
}

suspends int sqlite_shadow_built(struct store *st, const struct uuid *id, int64_t generation, struct err *e)
{
    struct arena a = {0};
    struct generation_call c = {.a = &a, .id = id, .generation = generation};
    int rc = sqlite_write(sqlite_of(st), built, &c, e);
    arena_fini(&a);
    return rc;
}

static int flip(struct sqlite *db, void *arg, struct err *e)
{
    struct generation_call *c = arg;
    struct store_collection now;
    if (find(db, c, &now, e) < 0)
        return -1;
    struct store_generation live = {now.generation, now.embedder, now.dim}, next = now.previous;
    bool back = now.shadow.no != c->generation || !now.shadow_built;
    *c->out = now;
    if (now.generation == c->generation)
        return 0;
    if (!back) {
        next = now.shadow;
        c->out->shadow = (struct store_generation){0};
        c->out->shadow_built = false;
        if (now.previous.no && tell(db, OUTBOX_drop, &now, &now.previous, e) < 0)
            return -1;
        if (!live.embedder.n)
            live.no = 0;
    } else if (!c->generation || now.previous.no != c->generation) {
        return store_no_generation(c->generation, e);
    }
    if (tell(db, back ? OUTBOX_put : OUTBOX_describe, &now, &next, e) < 0) /* what came since may be missing */
        return -1;
    c->out->generation = next.no;
    c->out->embedder = next.embedder;
    c->out->dim = next.dim;
    c->out->previous = live;
    c->out->revision++;
    return save(db, c->out, e);
}

suspends int sqlite_generation_flip(struct store *st, struct arena *a, const struct uuid *id, int64_t generation,
                                    struct store_collection *out, struct err *e)
{
    struct store_collection now;
    struct generation_call c = {.a = a, .id = id, .generation = generation, .out = &now};
    if (sqlite_write(sqlite_of(st), flip, &c, e) < 0)
        return -1;
    *out = now;
    return 0;
}

static int drop(struct sqlite *db, void *arg, struct err *e)
{
    struct generation_call *c = arg;
    struct store_collection now;
    if (find(db, c, &now, e) < 0)
        return -1;
    bool shadow = now.shadow.no == c->generation;
    struct store_generation *g = shadow ? &now.shadow : &now.previous;
    if (!c->generation || g->no != c->generation)
        return store_no_generation(c->generation, e);
    if (tell(db, OUTBOX_drop, &now, g, e) < 0)
        return -1;
    *g = (struct store_generation){0};
    now.shadow_built = now.shadow_built && !shadow;
    return save(db, &now, e);
}

suspends int sqlite_generation_drop(struct store *st, const struct uuid *id, int64_t generation, struct err *e)
{
    struct arena a = {0};
    struct generation_call c = {.a = &a, .id = id, .generation = generation};
    int rc = sqlite_write(sqlite_of(st), drop, &c, e);
    arena_fini(&a);
    return rc;
}
