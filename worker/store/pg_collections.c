#include "worker/store/pg.h"

static int not_found(struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, NO_COLLECTION);
}

static int name_taken(struct str name, struct err *e)
{
    return err_set(e, ERR_NAME_TAKEN, "There is a collection named '" STR_FMT "' already",
                   STR_ARG(str_sub(name, 0, 200)));
}

suspends int pg_collection_create(struct store *st, struct arena *a, const struct store_collection *in,
                                  struct store_collection *out, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    struct store_collection now = {.id = uuid_is_zero(&in->id) ? uuid_v7() : in->id, .version = 1, .generation = 1};
    now.updated_us = uuid_time_us(&now.id);
    now.name = arena_dup(a, in->name);
    now.description = arena_dup(a, in->description);
    now.language = arena_dup(a, in->language);
    now.metadata = in->metadata.n ? arena_dup(a, in->metadata) : STR("{}");
    now.chunking = in->chunking.n ? arena_dup(a, in->chunking) : STR("{}");
    pg_args_init(&args, a);
    pg_arg_uuid(&args, &now.id);
    pg_arg_str(&args, now.name);
    pg_arg_str(&args, now.description);
    pg_arg_str(&args, now.language);
    pg_arg_str(&args, now.metadata);
    pg_arg_str(&args, now.chunking);
    pg_arg_i64(&args, now.updated_us);
    if (pg_call(pg_of(st)->pg, S_COLLECTION_CREATE, &args, a, &r, e) < 0)
        return strcmp(args.sqlstate, "23505") == 0 ? store_collection_taken(e) : -1;
    if (!r.n)
        return name_taken(in->name, e);
    now.no = pg_i64(&r, 0, 0);
    *out = now;
    return 0;
}

static suspends int one(struct store *st, struct arena *a, enum pg_statement stmt, struct pg_args *args,
                        struct store_collection *out, struct err *e)
{
    struct pg_rows r;
    if (pg_call(pg_of(st)->pg, stmt, args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return not_found(e);
    read_collection(&r, 0, out);
    return 0;
}

suspends int pg_collection_get(struct store *st, struct arena *a, const struct uuid *id, struct store_collection *out,
                               struct err *e)
{
    struct pg_args args;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    return one(st, a, S_COLLECTION_GET, &args, out, e);
}

suspends int pg_collection_by_name(struct store *st, struct arena *a, struct str name, struct store_collection *out,
                                   struct err *e)
{
    struct pg_args args;
    pg_args_init(&args, a);
    pg_arg_str(&args, name);
    return one(st, a, S_COLLECTION_BY_NAME, &args, out, e);
}

suspends int pg_collection_list(struct store *st, struct arena *a, const struct store_page *p,
                                struct store_collection **out, size_t *n, bool *more, struct err *e)
{
    struct pg_rows r;
    if (page_rows(st, a, p, S_COLLECTIONS_UP, S_COLLECTIONS_DOWN, &r, e) < 0)
        return -1;
    struct store_collection *rows = arena_alloc(a, (size_t)(r.n + 1) * sizeof *rows);
    for (int i = 0; i < r.n; i++)
        read_collection(&r, i, &rows[i]);
    *n = (size_t)r.n;
    page_end(p, rows, sizeof *rows, n, more);
    *out = rows;
    return 0;
}

/* Nothing was changed: because it is not there, or of another version? */
static suspends int why_not(struct store *st, struct arena *a, const struct uuid *id, int64_t if_version, struct err *e)
{
    struct store_collection now;
    if (pg_collection_get(st, a, id, &now, e) < 0)
        return -1;
    return wrong_version(now.version, if_version, e);
}

suspends int pg_collection_patch(struct store *st, struct arena *a, const struct uuid *id,
                                 const struct store_collection_patch *p, int64_t if_version,
                                 struct store_collection *out, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    arg_if(&args, p->set_name, p->name);
    arg_if(&args, p->set_description, p->description);
    arg_if(&args, p->set_language, p->language);
    arg_if(&args, p->set_metadata, p->metadata);
    arg_if(&args, p->set_chunking, p->chunking);
    pg_arg_i64(&args, if_version);
    struct uuid job = uuid_v7();
    pg_arg_uuid(&args, &job);
    pg_arg_i64(&args, uuid_time_us(&job));
    if (pg_call(pg_of(st)->pg, S_COLLECTION_PATCH, &args, a, &r, e) < 0)
        return strcmp(args.sqlstate, "23505") == 0 ? name_taken(p->name, e) : -1;
    if (!r.n)
        return why_not(st, a, id, if_version, e);
    if (p->set_language)
        pg_announce(pg_of(st));
    return READ_BACK(e, pg_collection_get(st, a, id, out, e));
}

suspends int pg_collection_delete(struct store *st, struct arena *a, const struct uuid *id, int64_t if_version,
                                  struct store_job *job, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    struct store_job j = {.id = uuid_v7(),
                          .type = STR("delete_collection"),
                          .payload = STR("{}"),
                          .has_collection = true,
                          .collection = *id};
    j.run_after_us = j.updated_us = uuid_time_us(&j.id);
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    pg_arg_i64(&args, if_version);
    pg_arg_uuid(&args, &j.id);
    pg_arg_i64(&args, j.updated_us);
    if (pg_call(pg_of(st)->pg, S_COLLECTION_DELETE, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return why_not(st, a, id, if_version, e);
    j.total = pg_i64(&r, 0, 0);
    *job = j;
    pg_announce(pg_of(st));
    return 0;
}

suspends int pg_collection_purge(struct store *st, const struct uuid *id, int max, int64_t *left, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    pg_arg_uuid(&args, id);
    pg_arg_i64(&args, max);
    int rc = pg_call(pg_of(st)->pg, S_COLLECTION_PURGE, &args, &a, &r, e);
    if (rc == 0 && pg_i64(&r, 0, 0) < 0)
        rc = err_set(e, ERR_CONFLICT, "The collection has not been deleted");
    else if (rc == 0)
        *left = pg_i64(&r, 0, 0);
    arena_fini(&a);
    return rc;
}
