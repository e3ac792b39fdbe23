#include "worker/store/sqlite.h"
#include "common/clock.h"

#define COLUMNS                                                                                                  \
    "no, id, name, description, language, metadata, chunking, version, updated_us, documents, failed, bytes, "   \
    "chunks, tokens, revision, generation, embedder, dim, shadow_generation, shadow_embedder, shadow_dim, "      \
    "previous_generation, previous_embedder, previous_dim, shadow_built, EXISTS (SELECT 1 FROM vector_outbox o " \
    "WHERE o.kind = 2 AND o.collection_no = collections.no AND o.generation = collections.generation)"

static void generation_read(struct stmt *s, struct arena *a, struct store_generation *out)
{
    out->no = col_i64(s);
    out->embedder = col_str(s, a);
    out->dim = (int)col_i64(s);
}

static void collection_read(struct stmt *s, struct arena *a, struct store_collection *out)
{
    out->no = col_i64(s);
    col_uuid(s, &out->id);
    out->name = col_str(s, a);
    out->description = col_str(s, a);
    out->language = col_str(s, a);
    out->metadata = col_str(s, a);
    out->chunking = col_str(s, a);
    out->version = col_i64(s);
    out->updated_us = col_i64(s);
    out->documents = col_i64(s);
    out->failed = col_i64(s);
    out->bytes = col_i64(s);
    out->chunks = col_i64(s);
    out->tokens = col_i64(s);
    out->revision = col_i64(s);
    out->generation = col_i64(s);
    out->embedder = col_str(s, a);
    out->dim = (int)col_i64(s);
    generation_read(s, a, &out->shadow);
    generation_read(s, a, &out->previous);
    out->shadow_built = col_i64(s) != 0;
    out->incomplete = col_i64(s) != 0;
}

static int read_one(struct stmt *s, struct arena *a, struct store_collection *out, struct err *e)
{
    int rc = stmt_row(s, e);
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, NO_COLLECTION);
    if (rc < 0)
        return -1;
    collection_read(s, a, out);
    stmt_end(s);
    return 0;
}

int collection_by_id(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_collection *out,
                     struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT " COLUMNS " FROM collections WHERE id = ? AND deleted = 0");
    bind_uuid(s, id);
    return read_one(s, a, out, e);
}

static int by_name(struct sqlite *db, struct arena *a, struct str name, struct store_collection *out, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT " COLUMNS " FROM collections WHERE name = ? AND deleted = 0");
    bind_str(s, name);
    return read_one(s, a, out, e);
}

int collection_no(struct sqlite *db, const struct uuid *id, int64_t *no, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT no FROM collections WHERE id = ? AND deleted = 0");
    bind_uuid(s, id);
    int rc = stmt_row(s, e);
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, NO_COLLECTION);
    if (rc < 0)
        return -1;
    *no = col_i64(s);
    stmt_end(s);
    return 0;
}

static int name_free(struct sqlite *db, struct str name, int64_t except, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT 1 FROM collections WHERE name = ? AND deleted = 0 AND no <> ?");
    bind_str(s, name);
    bind_i64(s, except);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return rc;
    stmt_end(s);
    return err_set(e, ERR_NAME_TAKEN, "There is a collection named '" STR_FMT "' already",
                   STR_ARG(str_sub(name, 0, 200)));
}

static int id_free(struct sqlite *db, const struct uuid *id, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT 1 FROM collections WHERE id = ?");
    bind_uuid(s, id);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return rc;
    stmt_end(s);
    return store_collection_taken(e);
}

struct create_call {
    struct store_collection in;
    struct store_collection out;
};

static int create(struct sqlite *db, void *arg, struct err *e)
{
    struct create_call *c = arg;
    struct store_collection out = c->in;
    if (name_free(db, out.name, 0, e) < 0 || id_free(db, &out.id, e) < 0)
        return -1;
    if (uuid_is_zero(&out.id))
        out.id = uuid_v7();
    out.version = 1;
    out.updated_us = uuid_time_us(&out.id);
    out.generation = 1;
    if (!out.metadata.n)
        out.metadata = STR("{}");
    if (!out.chunking.n)
        out.chunking = STR("{}");
    struct stmt *s = stmt_get(db, "INSERT INTO collections (id, name, description, language, metadata, chunking,"
                                  " version, updated_us) VALUES (?, ?, ?, ?, ?, ?, 1, ?) RETURNING no");
    bind_uuid(s, &out.id);
    bind_str(s, out.name);
    bind_str(s, out.description);
    bind_str(s, out.language);
    bind_str(s, out.metadata);
    bind_str(s, out.chunking);
    bind_i64(s, out.updated_us);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return -1;
    out.no = col_i64(s);
    stmt_end(s);
    c->out = out;
    return 0;
}

suspends int sqlite_collection_create(struct store *st, struct arena *a, const struct store_collection *in,
                                      struct store_collection *out, struct err *e)
{
    struct create_call c = {.in = {.id = in->id,
                                   .name = in->name,
                                   .description = in->description,
                                   .language = in->language,
                                   .metadata = in->metadata,
                                   .chunking = in->chunking}};
    if (sqlite_write(sqlite_of(st), create, &c, e) < 0)
        return -1;
    *out = c.out;
    out->name = arena_dup(a, c.out.name);
    out->description = arena_dup(a, c.out.description);
    out->language = arena_dup(a, c.out.language);
    out->metadata = arena_dup(a, c.out.metadata);
    out->chunking = arena_dup(a, c.out.chunking);
    return 0;
}

suspends int sqlite_collection_get(struct store *st, struct arena *a, const struct uuid *id,
                                   struct store_collection *out, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, collection_by_id(db, a, id, out, e));
}

suspends int sqlite_collection_by_name(struct store *st, struct arena *a, struct str name, struct store_collection *out,
                                       struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, by_name(db, a, name, out, e));
}

static int list(struct sqlite *db, struct arena *a, const struct store_page *p, struct store_collection *rows,
                size_t *n, struct err *e)
{
    struct page_sql sql = page_sql(a, p, "id");
    int rc;
    *n = 0;
    struct stmt *s = stmt_get(db, arena_printf(a, "SELECT " COLUMNS " FROM collections WHERE deleted = 0 %s%s LIMIT ?",
                                               sql.where.p, sql.order.p)
                                      .p);
    page_bind(s, p);
    bind_i64(s, p->limit + 1);
    while ((rc = stmt_row(s, e)) > 0)
        collection_read(s, a, &rows[(*n)++]);
    return rc;
}

suspends int sqlite_collection_list(struct store *st, struct arena *a, const struct store_page *p,
                                    struct store_collection **out, size_t *n, bool *more, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct store_collection *rows = arena_alloc(a, ((size_t)p->limit + 1) * sizeof *rows);
    size_t found;
    if (SQLITE_TRY(db, e, list(db, a, p, rows, &found, e)) < 0)
        return -1;
    *more = found > (size_t)p->limit;
    *n = *more ? (size_t)p->limit : found;
    page_turn(p, rows, *n, sizeof *rows);
    *out = rows;
    return 0;
}

struct patch_call {
    struct arena *a;
    const struct uuid *id;
    const struct store_collection_patch *patch;
    int64_t if_version;
    struct store_collection *out;
};

static int queue_reprocess(struct sqlite *db, const struct store_collection *c, struct err *e)
{
    struct store_job j = {.type = STR("reprocess"),
                          .has_collection = true,
                          .collection = c->id,
                          .total = c->documents,
                          .payload = STR("{}")};
    return job_insert(db, &j, e);
}

static int patch(struct sqlite *db, void *arg, struct err *e)
{
    struct patch_call *c = arg;
    const struct store_collection_patch *p = c->patch;
    struct store_collection now;
    bool other_language = false;
    if (collection_by_id(db, c->a, c->id, &now, e) < 0 || version_is(now.version, c->if_version, e) < 0 ||
        (p->set_name && name_free(db, p->name, now.no, e) < 0))
        return -1;
    if (p->set_name)
        now.name = arena_dup(c->a, p->name);
    if (p->set_description)
        now.description = arena_dup(c->a, p->description);
    if (p->set_language) {
        other_language = !str_eq(p->language, now.language);
        now.language = arena_dup(c->a, p->language);
    }
    if (p->set_metadata)
        now.metadata = arena_dup(c->a, p->metadata);
    if (p->set_chunking)
        now.chunking = arena_dup(c->a, p->chunking);
    now.version++;
    now.revision++;
    now.updated_us = clock_wall_us();
    struct stmt *s = stmt_get(db, "UPDATE collections SET name = ?, description = ?, language = ?, metadata = ?,"
                                  " chunking = ?, version = ?, updated_us = ?, revision = revision + 1 WHERE no = ?");
    bind_str(s, now.name);
    bind_str(s, now.description);
    bind_str(s, now.language);
    bind_str(s, now.metadata);
    bind_str(s, now.chunking);
    bind_i64(s, now.version);
    bind_i64(s, now.updated_us);
    bind_i64(s, now.no);
    if (stmt_run(s, e) < 0 || (other_language && now.documents > 0 && queue_reprocess(db, &now, e) < 0))
        return -1;
    *c->out = now;
    return 0;
}

suspends int sqlite_collection_patch(struct store *st, struct arena *a, const struct uuid *id,
                                     const struct store_collection_patch *p, int64_t if_version,
                                     struct store_collection *out, struct err *e)
{
    struct store_collection now;
    struct patch_call c = {a, id, p, if_version, &now};
    if (sqlite_write(sqlite_of(st), patch, &c, e) < 0)
        return -1;
    *out = now;
    return 0;
}

struct delete_call {
    struct arena *a;
    const struct uuid *id;
    int64_t if_version;
    struct store_job job;
};

static int hide(struct sqlite *db, void *arg, struct err *e)
{
    struct delete_call *c = arg;
    struct store_collection now;
    if (collection_by_id(db, c->a, c->id, &now, e) < 0 || version_is(now.version, c->if_version, e) < 0)
        return -1;
    struct stmt *s = stmt_get(db, "UPDATE collections SET deleted = 1, version = version + 1, updated_us = ?"
                                  " WHERE no = ?");
    bind_i64(s, clock_wall_us());
    bind_i64(s, now.no);
    if (stmt_run(s, e) < 0)
        return -1;
    c->job = (struct store_job){.type = STR("delete_collection"),
                                .has_collection = true,
                                .collection = now.id,
                                .total = now.documents,
                                .payload = STR("{}")};
    return job_insert(db, &c->job, e);
}

suspends int sqlite_collection_delete(struct store *st, struct arena *a, const struct uuid *id, int64_t if_version,
                                      struct store_job *job, struct err *e)
{
    struct delete_call c = {.a = a, .id = id, .if_version = if_version};
    if (sqlite_write(sqlite_of(st), hide, &c, e) < 0)
        return -1;
    *job = c.job;
    return 0;
}

struct purge_call {
    const struct uuid *id;
    int max;
    int64_t left;
};

/* Removes documents of a collection until `max` or the bound on chunks is reached. A long document loses its chunks in
 * several steps: it is hidden, so nobody sees it half gone. */
static int remove_some(struct sqlite *db, int64_t collection, int max, struct err *e)
{
    int64_t budget = INDEX_STEP;
    bool left;
    for (int i = 0; i < max && budget > 0; i++) {
        struct stmt *s = stmt_get(db, "SELECT no, chunks FROM documents WHERE collection = ? ORDER BY id LIMIT 1");
        bind_i64(s, collection);
        int rc = stmt_row(s, e);
        if (rc <= 0)
            return rc;
        int64_t no = col_i64(s);
        budget -= col_i64(s);
        stmt_end(s);
        rc = document_is_long(db, no, e);
        if (rc != 0)
            return rc < 0 ? -1 : document_unindex(db, no, INDEX_STEP, &left, e);
        if (document_remove(db, no, e) < 0)
            return -1;
    }
    return 0;
}

static int purge(struct sqlite *db, void *arg, struct err *e)
{
    struct purge_call *c = arg;
    struct stmt *s = stmt_get(db, "SELECT no, deleted FROM collections WHERE id = ?");
    bind_uuid(s, c->id);
    int rc = stmt_row(s, e);
    c->left = 0;
    if (rc <= 0)
        return rc; /* gone already: a step that was repeated after a crash */
    int64_t no = col_i64(s), deleted = col_i64(s);
    stmt_end(s);
    if (!deleted)
        return err_set(e, ERR_CONFLICT, "The collection has not been deleted");
    if (remove_some(db, no, c->max, e) < 0)
        return -1;
    s = stmt_get(db, "SELECT documents FROM collections WHERE no = ?");
    bind_i64(s, no);
    if (stmt_row(s, e) <= 0)
        return -1;
    c->left = col_i64(s);
    stmt_end(s);
    if (c->left > 0)
        return 0;
    s = stmt_get(db, "DELETE FROM collections WHERE no = ?");
    bind_i64(s, no);
    return stmt_run(s, e);
}

suspends int sqlite_collection_purge(struct store *st, const struct uuid *id, int max, int64_t *left, struct err *e)
{
    struct purge_call c = {.id = id, .max = max};
    if (sqlite_write(sqlite_of(st), purge, &c, e) < 0)
        return -1;
    *left = c.left;
    return 0;
}
