#include "worker/store/sqlite.h"
#include "common/clock.h"

#define ORPHAN_AGE_US (3600 * 1000000LL) /* an upload has this long from its first part to its document */

int file_orphan(struct sqlite *db, const struct sha256 *sha, struct err *e)
{
    struct stmt *s = stmt_get(db, "INSERT INTO file_orphans VALUES (?, ?)"
                                  " ON CONFLICT DO UPDATE SET since_us = excluded.since_us");
    bind_sha(s, sha);
    bind_i64(s, clock_wall_us());
    return stmt_run(s, e);
}

struct put_call {
    const struct sha256 *sha;
    int part;
    struct str bytes;
};

static int put_part(struct sqlite *db, void *arg, struct err *e)
{
    struct put_call *c = arg;
    struct stmt *s = stmt_get(db, "INSERT INTO files (sha256, part, bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING");
    bind_sha(s, c->sha);
    bind_i64(s, c->part);
    bind_blob(s, c->bytes);
    if (stmt_run(s, e) < 0)
        return -1;
    return file_orphan(db, c->sha, e);
}

suspends int sqlite_file_put_part(struct store *st, const struct sha256 *sha, int part, struct str bytes, struct err *e)
{
    struct put_call c = {sha, part, bytes};
    if (bytes.n > STORE_PART)
        return err_set(e, ERR_TOO_LARGE, "A part of a file is larger than %d bytes", STORE_PART);
    return sqlite_write(sqlite_of(st), put_part, &c, e);
}

static int get_part(struct sqlite *db, struct arena *a, const struct sha256 *sha, int part, struct str *out,
                    struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT bytes FROM files WHERE sha256 = ? AND part = ?");
    bind_sha(s, sha);
    bind_i64(s, part);
    int rc = stmt_row(s, e);
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, "No such part of a file");
    if (rc < 0)
        return -1;
    *out = col_str(s, a);
    stmt_end(s);
    return 0;
}

suspends int sqlite_file_get_part(struct store *st, struct arena *a, const struct sha256 *sha, int part,
                                  struct str *out, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, get_part(db, a, sha, part, out, e));
}

struct sweep_call {
    int max;
    int64_t removed;
};

static int referred_to(struct sqlite *db, const struct sha256 *sha, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT 1 FROM documents WHERE sha256 = ?1"
                                  " UNION ALL SELECT 1 FROM versions WHERE sha256 = ?1 LIMIT 1");
    bind_sha(s, sha);
    int rc = stmt_row(s, e);
    if (rc > 0)
        stmt_end(s);
    return rc;
}

/* One part a step: it may be a megabyte. The orphan is forgotten with its last part. */
static int sweep_part(struct sqlite *db, const struct sha256 *sha, bool *last, struct err *e)
{
    struct stmt *s =
        stmt_get(db, "DELETE FROM files WHERE rowid IN (SELECT rowid FROM files WHERE sha256 = ? LIMIT 1)");
    bind_sha(s, sha);
    if (stmt_run(s, e) < 0)
        return -1;
    *last = sqlite3_changes(db->h) == 0;
    return 0;
}

static int forget_orphan(struct sqlite *db, const struct sha256 *sha, struct err *e)
{
    struct stmt *s = stmt_get(db, "DELETE FROM file_orphans WHERE sha256 = ?");
    bind_sha(s, sha);
    return stmt_run(s, e);
}

static int sweep(struct sqlite *db, void *arg, struct err *e)
{
    struct sweep_call *c = arg;
    struct sha256 sha;
    c->removed = 0;
    for (int looked = 0; c->removed < c->max && looked < 10 * c->max; looked++) {
        struct stmt *s = stmt_get(db, "SELECT sha256 FROM file_orphans WHERE since_us <= ? ORDER BY since_us LIMIT 1");
        bind_i64(s, clock_wall_us() - ORPHAN_AGE_US);
        int rc = stmt_row(s, e);
        if (rc <= 0)
            return rc;
        col_sha(s, &sha);
        stmt_end(s);
        bool last = false;
        int used = referred_to(db, &sha, e);
        if (used < 0 || (used == 0 && sweep_part(db, &sha, &last, e) < 0))
            return -1;
        if (used || last) {
            if (forget_orphan(db, &sha, e) < 0)
                return -1;
        } else {
            c->removed++;
        }
    }
    return 0;
}

suspends int sqlite_file_sweep(struct store *st, int max, int64_t *removed, struct err *e)
{
    struct sweep_call c = {.max = max};
    if (sqlite_write(sqlite_of(st), sweep, &c, e) < 0)
        return -1;
    *removed = c.removed;
    return 0;
}

/* ---- versions of a document ---- */

static void version_read(struct stmt *s, struct arena *a, struct store_version *v)
{
    v->version = col_i64(s);
    col_sha(s, &v->sha256);
    v->bytes = col_i64(s);
    v->filename = col_str(s, a);
    v->mime = col_str(s, a);
    v->created_us = col_i64(s);
}

static int versions(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_version **out, size_t *n,
                    struct err *e)
{
    struct store_document d;
    size_t i = 0;
    int rc;
    if (document_by_id(db, a, id, &d, e) < 0)
        return -1;
    struct store_version *rows = arena_alloc(a, (size_t)d.content_version * sizeof *rows);
    struct stmt *s = stmt_get(db, "SELECT content_version, sha256, bytes, filename, mime, content_us FROM documents"
                                  " WHERE no = ?1 UNION ALL SELECT version, sha256, bytes, filename, mime, created_us"
                                  " FROM versions WHERE document = ?1 ORDER BY 1 DESC");
    bind_i64(s, d.no);
    while ((rc = stmt_row(s, e)) > 0 && i < (size_t)d.content_version)
        version_read(s, a, &rows[i++]);
    if (rc > 0)
        stmt_end(s);
    *out = rows;
    *n = i;
    return rc < 0 ? -1 : 0;
}

suspends int sqlite_document_versions(struct store *st, struct arena *a, const struct uuid *id,
                                      struct store_version **out, size_t *n, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, versions(db, a, id, out, n, e));
}
