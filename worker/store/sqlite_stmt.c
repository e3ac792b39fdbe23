#include "worker/store/sqlite.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t hash_of(const char *sql)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *sql; sql++)
        h = (h ^ (unsigned char)*sql) * 0x100000001b3u;
    return h;
}

static void forget(struct stmt *s)
{
    sqlite3_finalize(s->st);
    free(s->sql);
    free(s);
}

void stmt_forget_all(struct sqlite *db)
{
    for (int i = 0; i < SQLITE_STMTS; i++) {
        if (db->stmts[i])
            forget(db->stmts[i]);
        db->stmts[i] = NULL;
    }
}

/* The place of a statement: its own, a free one, or that of the one unused for longest among its neighbours. */
static struct stmt **place(struct sqlite *db, uint64_t hash, const char *sql)
{
    struct stmt **victim = NULL;
    for (size_t i = 0; i < 8; i++) {
        struct stmt **at = &db->stmts[(hash + i) % SQLITE_STMTS];
        if (*at && (*at)->hash == hash && strcmp((*at)->sql, sql) == 0)
            return at;
        if (!victim || (*victim && (!*at || (*at)->used < (*victim)->used)))
            if (!*at || !sqlite3_stmt_busy((*at)->st))
                victim = at;
    }
    return victim;
}

struct stmt *stmt_get(struct sqlite *db, const char *sql)
{
    uint64_t hash = hash_of(sql);
    struct stmt **at = place(db, hash, sql), *s = at ? *at : NULL;
    if (!s || s->hash != hash || strcmp(s->sql, sql) != 0) {
        sqlite3_stmt *st;
        int rc = at ? sqlite3_prepare_v3(db->h, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL) : SQLITE_NOMEM;
        if (rc != SQLITE_OK) {
            db->none = (struct stmt){.db = db, .rc = rc};
            return &db->none;
        }
        if (s)
            forget(s);
        s = calloc(1, sizeof *s);
        char *copy = strdup(sql);
        if (!s || !copy)
            abort();
        *s = (struct stmt){.st = st, .db = db, .sql = copy, .hash = hash};
        *at = s;
    }
    s->used = ++db->clock;
    s->bind = s->col = 0;
    return s;
}

void bind_i64(struct stmt *s, int64_t v)
{
    if (s->st)
        sqlite3_bind_int64(s->st, ++s->bind, v);
}

void bind_str(struct stmt *s, struct str v)
{
    if (s->st)
        sqlite3_bind_text64(s->st, ++s->bind, v.n ? v.p : "", v.n, SQLITE_STATIC, SQLITE_UTF8);
}

void bind_opt(struct stmt *s, struct str v)
{
    if (v.n)
        bind_str(s, v);
    else if (s->st)
        sqlite3_bind_null(s->st, ++s->bind);
}

void bind_blob(struct stmt *s, struct str v)
{
    if (s->st)
        sqlite3_bind_blob64(s->st, ++s->bind, v.n ? v.p : "", v.n, SQLITE_STATIC);
}

void bind_uuid(struct stmt *s, const struct uuid *v)
{
    if (v)
        bind_blob(s, (struct str){(const char *)v->b, sizeof v->b});
    else if (s->st)
        sqlite3_bind_null(s->st, ++s->bind);
}

void bind_sha(struct stmt *s, const struct sha256 *v)
{
    bind_blob(s, (struct str){(const char *)v->b, sizeof v->b});
}

void stmt_end(struct stmt *s)
{
    if (!s->st)
        return;
    sqlite3_reset(s->st);
    sqlite3_clear_bindings(s->st); /* what was bound is the caller's and may vanish */
}

int stmt_row(struct stmt *s, struct err *e)
{
    s->col = 0;
    if (!s->st)
        return sqlite_fail(s->db, s->rc, e);
    int rc = sqlite3_step(s->st);
    if (rc == SQLITE_ROW)
        return 1;
    if (rc != SQLITE_DONE)
        sqlite_fail(s->db, rc, e);
    stmt_end(s);
    return rc == SQLITE_DONE ? 0 : -1;
}

int stmt_run(struct stmt *s, struct err *e)
{
    int rc;
    while ((rc = stmt_row(s, e)) > 0)
        ;
    return rc;
}

int64_t col_i64(struct stmt *s)
{
    return sqlite3_column_int64(s->st, s->col++);
}

struct str col_peek(struct stmt *s)
{
    int col = s->col++;
    const char *p = sqlite3_column_blob(s->st, col); /* of a text: its bytes in UTF-8, as stored */
    return (struct str){p, p ? (size_t)sqlite3_column_bytes(s->st, col) : 0};
}

struct str col_str(struct stmt *s, struct arena *a)
{
    struct str v = col_peek(s);
    return v.n ? arena_dup(a, v) : STR("");
}

static bool fixed(struct stmt *s, void *out, size_t n)
{
    struct str v = col_peek(s);
    memset(out, 0, n);
    if (v.n != n)
        return false;
    memcpy(out, v.p, n);
    return true;
}

bool col_uuid(struct stmt *s, struct uuid *out)
{
    return fixed(s, out->b, sizeof out->b);
}

void col_sha(struct stmt *s, struct sha256 *out)
{
    fixed(s, out->b, sizeof out->b);
}

int sqlite_exec(struct sqlite *db, const char *sql, struct err *e)
{
    int rc = sqlite3_exec(db->h, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : sqlite_fail(db, rc, e);
}

/* Who may do what with the file, in words that say what to change. */
static void explain_access(struct sqlite *db, struct err *e)
{
    struct stat st;
    char dir[512];
    const char *path = db->path;
    if (stat(path, &st) < 0) {
        const char *slash = strrchr(path, '/');
        str_copyz(dir, sizeof dir, slash ? (struct str){path, (size_t)(slash - path) + (slash == path)} : STR("."));
        path = dir;
        if (stat(path, &st) < 0) {
            err_log(e, "%s: %s", path, strerror(errno));
            return;
        }
    }
    err_log(e,
            "%s belongs to uid %u, gid %u, mode %04o; this process is uid %u, gid %u. Give it to that user (chown %u "
            "'%s'); the directory must be writable too, for the write-ahead log",
            path, (unsigned)st.st_uid, (unsigned)st.st_gid, (unsigned)st.st_mode & 07777, (unsigned)geteuid(),
            (unsigned)getegid(), (unsigned)geteuid(), path);
}

int sqlite_fail(struct sqlite *db, int rc, struct err *e)
{
    int sys = db->h ? sqlite3_system_errno(db->h) : 0;
    db->busy = (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED;
    if (!db->busy) /* a lock is waited for: it counts when that was in vain */
        STAT_ADD(store_errors_total, 1);
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return err_set(e, ERR_NOT_READY, "The database is locked by another process");
    case SQLITE_FULL:
        err_set(e, ERR_STORAGE_FULL, "The disk of the database is full");
        return err_log(e, "%s", db->path);
    case SQLITE_IOERR:
        if (sys == ENOSPC || sys == EDQUOT) {
            err_set(e, ERR_STORAGE_FULL, "The disk of the database is full");
            return err_log(e, "%s", db->path);
        }
        err_set(e, ERR_NOT_READY, "The database cannot be read or written");
        return err_log(e, "%s: %s (%d): %s", db->path, sqlite3_errmsg(db->h), rc, strerror(sys));
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        err_set(e, ERR_NOT_READY, "The database cannot be opened for writing");
        explain_access(db, e);
        return -1;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        err_set(e, ERR_NOT_READY, "The database is damaged, or is no SQLite database");
        return err_log(e, "%s: %s; restore a backup", db->path, sqlite3_errmsg(db->h));
    case SQLITE_INTERRUPT:
        return fiber_check() == -ECANCELED ? err_set(e, ERR_CANCELED, "given up")
                                           : err_set(e, ERR_DEADLINE, "the database did not finish in time");
    case SQLITE_TOOBIG: return err_set(e, ERR_TOO_LARGE, "Larger than what the database keeps in one value");
    default: break;
    }
    err_set(e, ERR_INTERNAL, "The database refused a statement");
    return err_log(e, "%s: %s (%d)", db->path, db->h ? sqlite3_errmsg(db->h) : sqlite3_errstr(rc), rc);
}
