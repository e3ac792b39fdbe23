/* Contents of files, and keys of idempotent requests. */
#include "worker/store/pg.h"

suspends int pg_file_put_part(struct store *st, const struct sha256 *sha, int part, struct str bytes, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    if (bytes.n > STORE_PART)
        return err_set(e, ERR_TOO_LARGE, "A part of a file is larger than %d bytes", STORE_PART);
    pg_args_init(&args, &a);
    arg_sha(&args, sha);
    pg_arg_i64(&args, part);
    pg_arg_str(&args, bytes);
    int rc = pg_call(pg_of(st)->pg, S_FILE_PUT, &args, &a, &r, e);
    arena_fini(&a);
    return rc;
}

suspends int pg_file_get_part(struct store *st, struct arena *a, const struct sha256 *sha, int part, struct str *out,
                              struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    arg_sha(&args, sha);
    pg_arg_i64(&args, part);
    if (pg_call(pg_of(st)->pg, S_FILE_GET, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return err_set(e, ERR_NOT_FOUND, "No such part of a file");
    *out = pg_str(&r, 0, 0);
    return 0;
}

suspends int pg_file_sweep(struct store *st, int max, int64_t *removed, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    pg_arg_i64(&args, max);
    int rc = pg_call(pg_of(st)->pg, S_FILE_SWEEP, &args, &a, &r, e);
    if (rc == 0)
        *removed = pg_i64(&r, 0, 0);
    arena_fini(&a);
    return rc;
}

/* ---- idempotency keys ---- */

suspends int pg_idempotency_begin(struct store *st, struct arena *a, const struct store_idempotency *in, bool *mine,
                                  struct store_idempotency *out, struct err *e)
{
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, a);
    arg_sha(&args, &in->key);
    arg_sha(&args, &in->request);
    pg_arg_i64(&args, in->abandoned_us);
    if (pg_call(pg_of(st)->pg, S_KEY_BEGIN, &args, a, &r, e) < 0)
        return -1;
    *mine = r.n > 0;
    if (*mine) { /* nothing that can fail comes after it: nobody else would end what runs under this key */
        *out = (struct store_idempotency){.key = in->key, .request = in->request, .created_us = pg_i64(&r, 0, 0)};
        return 0;
    }
    pg_args_init(&args, a);
    arg_sha(&args, &in->key);
    if (pg_call(pg_of(st)->pg, S_KEY_GET, &args, a, &r, e) < 0)
        return -1;
    if (!r.n)
        return err_set(e, ERR_OVERLOADED, "The first request with this key has just been given up");
    struct cursor c = {&r, 0, 0};
    next_sha(&c, &out->key);
    next_sha(&c, &out->request);
    out->status = (int)next_i64(&c);
    out->content_type = next_str(&c);
    out->body = pg_bytea(&r, 0, c.col++, a);
    out->location = next_str(&c);
    out->etag = next_str(&c);
    out->created_us = next_i64(&c);
    return 0;
}

suspends int pg_idempotency_end(struct store *st, const struct store_idempotency *in, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    pg_args_init(&args, &a);
    arg_sha(&args, &in->key);
    if (in->status) {
        pg_arg_i64(&args, in->status);
        pg_arg_str(&args, in->content_type);
        pg_arg_str(&args, in->body);
        pg_arg_str(&args, in->location);
        pg_arg_str(&args, in->etag);
    }
    pg_arg_i64(&args, in->created_us);
    int rc = pg_call(pg_of(st)->pg, in->status ? S_KEY_END : S_KEY_FORGET, &args, &a, &r, e);
    arena_fini(&a);
    return rc;
}
