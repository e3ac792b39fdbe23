/* Generations of a collection's vectors, embeddings by the hash of their text, and the outbox of the vector index. */
#include "worker/store/pg.h"

/* ---- documents by number, spans of their text ---- */

suspends int pg_documents_by_no(struct store *st, struct arena *a, const int64_t *nos, size_t n,
                                struct store_document *out, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    struct pg_array x;
    pg_args_init(&args, a);
    pg_array_init(&x, PG_INT8);
    for (size_t i = 0; i < n; i++)
        pg_array_i64(&x, nos[i]);
    pg_arg_array(&args, &x);
    if (pg_call(pg_of(st)->pg, S_DOCUMENTS_BY_NO, &args, a, &r, e) < 0)
        return -1;
    memset(out, 0, n * sizeof *out);
    for (int row = 0; row < r.n; row++) {
        struct store_document d;
        read_document(&r, row, &d);
        for (size_t i = 0; i < n; i++)
            if (nos[i] == d.no)
                out[i] = d;
    }
    return 0;
}

suspends int pg_document_span(struct store *st, struct arena *a, int64_t no, int64_t from, size_t n, struct str *out,
                              struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    char *to = arena_alloc(a, n + 1);
    size_t have = 0, skip = (size_t)(from % STORE_PART);
    pg_args_init(&args, a);
    pg_arg_i64(&args, no << 20 | from / STORE_PART);
    pg_arg_i64(&args, no << 20 | (from + (int64_t)n) / STORE_PART);
    if (pg_call(pg_of(st)->pg, S_DOCUMENT_SPAN, &args, a, &r, e) < 0)
        return -1;
    for (int i = 0; i < r.n; i++) {
        struct str part = str_sub(pg_str(&r, i, 0), skip, n - have);
        memcpy(to + have, part.p, part.n);
        have += part.n;
        skip = 0;
    }
    to[have] = 0;
    *out = (struct str){to, have};
    return 0;
}

/* ---- generations ---- */

suspends int pg_collection_set_embedder(struct store *st, const struct uuid *id, struct str model, int dim,
                                        struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    struct store_collection now;
    int rc = pg_collection_get(st, &a, id, &now, e); /* nearly always it is known, and nothing is written */
    if (rc == 0 && !store_same_embedder(&now, model, dim)) {
        pg_args_init(&args, &a);
        pg_arg_uuid(&args, id);
        pg_arg_str(&args, model);
        pg_arg_i64(&args, dim);
        rc = pg_call(pg_of(st)->pg, S_SET_EMBEDDER, &args, &a, &r, e);
        if (rc == 0 && !r.n) {
            rc = pg_collection_get(st, &a, id, &now, e);
            rc = rc < 0 ? -1 : store_other_embedder(&now, model, dim, e);
        }
    }
    arena_fini(&a);
    return rc;
}

suspends int pg_shadow_begin(struct store *st, struct arena *a, const struct uuid *id, struct str model, int dim,
                             struct store_collection *out, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    pg_arg_str(&args, model);
    pg_arg_i64(&args, dim);
    if (pg_call(pg_of(st)->pg, S_SHADOW_BEGIN, &args, a, &r, e) < 0 || pg_collection_get(st, a, id, out, e) < 0)
        return -1;
    return pg_i64(&r, 0, 0) == 0 ? 0 : store_other_shadow(out, e);
}

/* A statement with one outcome: 0, -1 no such collection, else no such generation. */
static suspends int change(struct store *st, struct arena *a, enum pg_statement stmt, const struct uuid *id,
                           int64_t generation, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, id);
    pg_arg_i64(&args, generation);
    if (pg_call(pg_of(st)->pg, stmt, &args, a, &r, e) < 0)
        return -1;
    int64_t outcome = stmt == S_SHADOW_BUILT ? (r.n ? 0 : -3) : pg_i64(&r, 0, 0);
    if (outcome == 0)
        return 0;
    return outcome == -1 ? err_set(e, ERR_NOT_FOUND, NO_COLLECTION) : store_no_generation(generation, e);
}

suspends int pg_shadow_built(struct store *st, const struct uuid *id, int64_t generation, struct err *e)
{
    struct arena a = {0};
    int rc = change(st, &a, S_SHADOW_BUILT, id, generation, e);
    arena_fini(&a);
    return rc;
}

suspends int pg_generation_flip(struct store *st, struct arena *a, const struct uuid *id, int64_t generation,
                                struct store_collection *out, struct err *e)
{
    if (change(st, a, S_GENERATION_FLIP, id, generation, e) < 0)
        return -1;
    return READ_BACK(e, pg_collection_get(st, a, id, out, e));
}

suspends int pg_generation_drop(struct store *st, const struct uuid *id, int64_t generation, struct err *e)
{
    struct arena a = {0};
    int rc = change(st, &a, S_GENERATION_DROP, id, generation, e);
    arena_fini(&a);
    return rc;
}

/* ---- embeddings ---- */

/* A row's vector, for those of chunks[from, to) that have none and are of its text. */
static void take_vector(struct arena *a, struct pg_rows *r, int row, int *dim, const struct sha256 *chunks, size_t from,
                        size_t to, const float **out)
{
    struct str sha = pg_str(r, row, 1);
    const float *v = NULL;
    for (size_t i = from; i < to; i++) {
        if (out[i] || sha.n != sizeof chunks[i].b || memcmp(sha.p, chunks[i].b, sha.n) != 0)
            continue;
        v = v ? v : store_vector(a, pg_str(r, row, 2), dim);
        out[i] = v;
    }
}

suspends int pg_embeddings_get(struct store *st, struct arena *a, struct str model, int *dim, int64_t document_no,
                               int from, const struct sha256 *chunks, size_t n, const float **out, struct err *e)
{
    struct arena scratch = {0};
    struct pg_args args;
    struct pg_rows r;
    struct pg_array x;
    pg_args_init(&args, &scratch);
    pg_arg_str(&args, model);
    pg_array_init(&x, PG_BYTEA);
    for (size_t i = 0; i < n; i++)
        pg_array_add(&x, chunks[i].b, sizeof chunks[i].b);
    pg_arg_array(&args, &x);
    pg_arg_i64(&args, document_no);
    pg_arg_i64(&args, from);
    int rc = pg_call(pg_of(st)->pg, S_EMBEDDINGS_GET, &args, &scratch, &r, e);
    for (size_t i = 0; i < n; i++)
        out[i] = NULL;
    for (int row = 0; rc == 0 && row < r.n; row++)
        if (pg_i64(&r, row, 0) >= 0)
            take_vector(a, &r, row, dim, chunks, (size_t)pg_i64(&r, row, 0), (size_t)pg_i64(&r, row, 0) + 1, out);
    for (int row = 0; rc == 0 && row < r.n; row++)
        if (pg_i64(&r, row, 0) < 0)
            take_vector(a, &r, row, dim, chunks, 0, n, out);
    arena_fini(&scratch);
    return rc;
}

suspends int pg_embeddings_put(struct store *st, struct str model, int dim, const struct sha256 *chunks, size_t n,
                               const float *v, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    struct pg_array keys, vectors;
    pg_args_init(&args, &a);
    pg_arg_str(&args, model);
    pg_array_init(&keys, PG_BYTEA);
    pg_array_init(&vectors, PG_BYTEA);
    for (size_t i = 0; i < n; i++) {
        pg_array_add(&keys, chunks[i].b, sizeof chunks[i].b);
        pg_array_add(&vectors, v + i * (size_t)dim, (size_t)dim * sizeof *v);
    }
    pg_arg_array(&args, &keys);
    pg_arg_array(&args, &vectors);
    int rc = pg_call(pg_of(st)->pg, S_EMBEDDINGS_PUT, &args, &a, &r, e);
    arena_fini(&a);
    return rc;
}

suspends int pg_embeddings_sweep(struct store *st, struct sha256 *cursor, int max, int64_t *removed, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    arg_sha(&args, cursor);
    pg_arg_i64(&args, max - 1);
    int rc = pg_call(pg_of(st)->pg, S_EMBEDDINGS_SWEEP, &args, &a, &r, e);
    if (rc == 0) {
        struct cursor c = {&r, 0, 0};
        *removed = next_i64(&c);
        next_sha(&c, cursor); /* NULL, at the end: zero */
    }
    arena_fini(&a);
    return rc;
}

/* Runs a statement whose rows do not matter. */
static suspends int run(struct store *st, enum pg_statement stmt, struct pg_args *args, struct err *e)
{
    struct pg_rows r;
    int rc = pg_call(pg_of(st)->pg, stmt, args, args->a, &r, e);
    arena_fini(args->a);
    return rc;
}

suspends int pg_document_embedded(struct store *st, int64_t document_no, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    pg_args_init(&args, &a);
    pg_arg_i64(&args, document_no);
    return run(st, S_DOCUMENT_EMBEDDED, &args, e);
}

/* ---- outbox ---- */

suspends int pg_outbox_take(struct store *st, struct arena *a, int64_t lease_us, int max, struct store_outbox **out,
                            size_t *n, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    *n = 0;
    *out = NULL;
    if (pg_call(pg_of(st)->pg, S_OUTBOX_DUE, &args, a, &r, e) <
        0) /* looking keeps idle workers out of the write lane */
        return -1;
    if (!r.n)
        return 0;
    pg_args_init(&args, a);
    pg_arg_i64(&args, lease_us);
    pg_arg_i64(&args, max);
    if (pg_call(pg_of(st)->pg, S_OUTBOX_TAKE, &args, a, &r, e) < 0)
        return -1;
    struct store_outbox *rows = arena_zalloc(a, (size_t)(r.n + 1) * sizeof *rows);
    for (int i = 0; i < r.n; i++) {
        struct cursor c = {&r, i, 0};
        rows[i].no = next_i64(&c);
        rows[i].kind = (enum outbox_kind)next_i64(&c);
        next_uuid(&c, &rows[i].collection);
        next_uuid(&c, &rows[i].document);
        rows[i].collection_no = next_i64(&c);
        rows[i].document_no = next_i64(&c);
        rows[i].generation = next_i64(&c);
        rows[i].dim = (int)next_i64(&c);
        rows[i].tries = (int)next_i64(&c);
    }
    *out = rows;
    *n = (size_t)r.n;
    return 0;
}

suspends int pg_outbox_done(struct store *st, const int64_t *nos, size_t n, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_array x;
    if (n == 0)
        return 0;
    pg_args_init(&args, &a);
    pg_array_init(&x, PG_INT8);
    for (size_t i = 0; i < n; i++)
        pg_array_i64(&x, nos[i]);
    pg_arg_array(&args, &x);
    return run(st, S_OUTBOX_DONE, &args, e);
}

suspends int pg_outbox_add(struct store *st, const struct store_outbox *in, size_t n, struct err *e)
{
    enum { KIND, COLLECTION_NO, COLLECTION, GENERATION, DIM, DOCUMENT_NO, DOCUMENT, COLS };
    static const enum pg_type types[COLS] = {PG_INT8, PG_INT8, PG_UUID, PG_INT8, PG_INT8, PG_INT8, PG_UUID};
    struct arena a = {0};
    struct pg_args args;
    struct pg_array x[COLS];
    if (n == 0)
        return 0;
    pg_args_init(&args, &a);
    for (int i = 0; i < COLS; i++)
        pg_array_init(&x[i], types[i]);
    for (size_t i = 0; i < n; i++) {
        pg_array_i64(&x[KIND], in[i].kind);
        pg_array_i64(&x[COLLECTION_NO], in[i].collection_no);
        pg_array_add(&x[COLLECTION], in[i].collection.b, sizeof in[i].collection.b);
        pg_array_i64(&x[GENERATION], in[i].generation);
        pg_array_i64(&x[DIM], in[i].dim);
        pg_array_i64(&x[DOCUMENT_NO], in[i].document_no);
        pg_array_add(&x[DOCUMENT], in[i].document.b, sizeof in[i].document.b);
    }
    for (int i = 0; i < COLS; i++)
        pg_arg_array(&args, &x[i]);
    return run(st, S_OUTBOX_ADD, &args, e);
}

suspends int pg_outbox_count(struct store *st, int64_t *n, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    int rc = pg_call(pg_of(st)->pg, S_OUTBOX_COUNT, &args, &a, &r, e);
    if (rc == 0)
        *n = pg_i64(&r, 0, 0);
    arena_fini(&a);
    return rc;
}

suspends int pg_outbox_hasten(struct store *st, int64_t lease_us, int max, int64_t *n, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    pg_arg_i64(&args, lease_us);
    pg_arg_i64(&args, max);
    int rc = pg_call(pg_of(st)->pg, S_OUTBOX_HASTEN, &args, &a, &r, e);
    if (rc == 0)
        *n = pg_i64(&r, 0, 0);
    arena_fini(&a);
    return rc;
}
