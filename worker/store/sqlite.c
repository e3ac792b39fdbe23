#include "worker/store/sqlite.h"
#include "common/clock.h"
#include "common/log.h"
#include "worker/store/migrations.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { APPLICATION_ID = 0x72616764 /* "ragd" */, REOPEN_MS = 1000, CHECK_OPS = 1000 };

/* What every connection is set to. The file is in WAL mode from its first migration on: readers never wait. FULL:
 * what was answered survives a power cut. The page cache bounds the memory of a worker. */
static const char settings[] = "PRAGMA busy_timeout = 0;"
                               "PRAGMA journal_mode = WAL;"
                               "PRAGMA synchronous = FULL;"
                               "PRAGMA foreign_keys = ON;"
                               "PRAGMA recursive_triggers = OFF;"
                               "PRAGMA trusted_schema = ON;"
                               "PRAGMA cache_size = -4096;"
                               "PRAGMA temp_store = MEMORY;"
                               "PRAGMA wal_autocheckpoint = 2000;"
                               "PRAGMA journal_size_limit = 67108864;"
                               /* after temp_store, which drops what is temporary when it changes */
                               "CREATE VIRTUAL TABLE IF NOT EXISTS temp.chunk_terms"
                               " USING fts5vocab(main, chunk_index, row);";

static void sqlite_free(struct store *s)
{
    struct sqlite *db = sqlite_of(s);
    assert(!db->writer); /* whoever closes the store has waited for its users */
    if (db->h) {
        stmt_forget_all(db);
        int rc = sqlite3_close(db->h);
        if (rc != SQLITE_OK)
            log_error("%s: cannot be closed: %s", db->path, sqlite3_errstr(rc));
        STAT_SUB(store_connections, 1);
    }
    free(db->path);
    free(db);
}

/* ---- schema ---- */

static void checksum(const struct migration *m, struct sha256 *out)
{
    sha256_of(m->sql, strlen(m->sql), out);
}

static const struct migration *migration_no(int number)
{
    for (const struct migration *m = migrations; m->product; m++)
        if (strcmp(m->product, "sqlite") == 0 && m->number == number)
            return m;
    return NULL;
}

static int one_number(struct sqlite *db, const char *sql, int64_t *out, struct err *e)
{
    struct stmt *s = stmt_get(db, sql);
    int rc = stmt_row(s, e);
    *out = rc == 1 ? col_i64(s) : 0;
    if (rc == 1)
        stmt_end(s);
    return rc < 0 ? -1 : 0;
}

static int read_schema(struct sqlite *db, int *out, struct err *e)
{
    int64_t have, application, tables;
    struct sha256 mine, theirs;
    int n = 0, known = 0, rc;
    if (one_number(db, "PRAGMA application_id", &application, e) < 0 ||
        one_number(db, "SELECT count(*) FROM sqlite_schema", &tables, e) < 0 ||
        one_number(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'schema_migrations'", &have, e) < 0)
        return -1;
    if (tables > 0 && (!have || application != APPLICATION_ID)) {
        err_set(e, ERR_NOT_READY, "The database file belongs to another program");
        return err_log(e, "%s", db->path);
    }
    if (!have) {
        *out = 0;
        return 0;
    }
    while (migration_no(known + 1))
        known++;
    struct stmt *s = stmt_get(db, "SELECT number, checksum FROM schema_migrations ORDER BY number");
    while ((rc = stmt_row(s, e)) > 0) {
        int number = (int)col_i64(s);
        const struct migration *m = migration_no(number);
        col_sha(s, &theirs);
        if (m)
            checksum(m, &mine);
        if (number != ++n || (m && memcmp(&mine, &theirs, sizeof mine) != 0)) {
            stmt_end(s);
            return err_set(e, ERR_NOT_READY, "The database schema is not what this release made: migration %d differs",
                           number);
        }
    }
    if (rc < 0)
        return -1;
    if (n > known + 1)
        return err_set(e, ERR_NOT_READY, "The database schema (%d) is newer than this release understands (%d)", n,
                       known);
    *out = n;
    return 0;
}

/* How many migrations the file has, after checking that they are ours. A file of one release later is fine: releases
 * expand the schema first and contract it later. One transaction, since another process may migrate at this moment. */
static int applied_migrations(struct sqlite *db, int *out, struct err *e)
{
    if (sqlite_exec(db, "BEGIN", e) < 0)
        return -1;
    int rc = read_schema(db, out, e);
    bool busy = db->busy;
    sqlite3_exec(db->h, "ROLLBACK", NULL, NULL, NULL); /* nothing was changed */
    db->busy = busy;
    return rc;
}

static int apply(struct sqlite *db, const struct migration *m, struct err *e)
{
    struct sha256 sum;
    checksum(m, &sum);
    if (sqlite_exec(db, m->sql, e) < 0)
        return -1;
    struct stmt *s = stmt_get(db, "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)");
    bind_i64(s, m->number);
    bind_str(s, str_of(m->name));
    bind_sha(s, &sum);
    bind_i64(s, clock_wall_us());
    return stmt_run(s, e);
}

static int apply_missing(struct sqlite *db, int *applied, struct err *e)
{
    const struct migration *m;
    int have;
    char mark[64];
    snprintf(mark, sizeof mark, "PRAGMA application_id = %d", APPLICATION_ID);
    if (read_schema(db, &have, e) < 0)
        return -1;
    if (have == 0 && (sqlite_exec(db, mark, e) < 0 ||
                      sqlite_exec(db,
                                  "CREATE TABLE schema_migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL,"
                                  " checksum BLOB NOT NULL, applied_us INTEGER NOT NULL)",
                                  e) < 0))
        return -1;
    while ((m = migration_no(++have))) {
        if (apply(db, m, e) < 0)
            return -1;
        ++*applied;
    }
    return 0;
}

static int migrate_locked(struct sqlite *db, int *applied, struct err *e)
{
    int have;
    *applied = 0;
    if (applied_migrations(db, &have, e) < 0)
        return -1;
    if (!migration_no(have + 1))
        return 0; /* the usual case needs no lock */
    if (db->unchanged)
        return err_set(
            e, ERR_NOT_READY,
            "The database schema (%d) is older than this release, and is not changed during an upgrade: stop the "
            "server and start the new release",
            have);
    if (sqlite_exec(db, "BEGIN EXCLUSIVE", e) < 0)
        return -1;
    if (apply_missing(db, applied, e) == 0 && sqlite_exec(db, "COMMIT", e) == 0)
        return 0;
    bool busy = db->busy;
    if (!sqlite3_get_autocommit(db->h))
        sqlite3_exec(db->h, "ROLLBACK", NULL, NULL, NULL);
    db->busy = busy;
    return -1;
}

/* ---- opening ---- */

static int make_parent(const char *path, struct err *e)
{
    char dir[4096];
    size_t n = str_copyz(dir, sizeof dir, str_of(path));
    if (n != strlen(path))
        return err_set(e, ERR_NOT_READY, "The path of the database is too long");
    for (char *p = strchr(dir + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdir(dir, 0750) < 0 && errno != EEXIST) {
            int saved = errno;
            err_set(e, ERR_NOT_READY, "The directory of the database cannot be made");
            return err_log(e, "%s: %s; this process is uid %u", dir, strerror(saved), (unsigned)geteuid());
        }
        *p = '/';
    }
    /* SQLite would make it readable for all. Nobody has it open yet, so closing it drops no locks. */
    int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0640);
    if (fd >= 0)
        close(fd);
    return 0;
}

/* The names in the directory must survive a power cut as the contents do. */
static void sync_parent(const char *path)
{
    char dir[4096];
    str_copyz(dir, sizeof dir, str_of(path));
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        log_warn("%s: cannot sync the directory: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* A statement runs on the worker's only thread, so nobody but itself can see that its time is up. One that changes
 * something is let go on: its neighbours in the transaction would be undone as well. */
static int out_of_time(void *arg)
{
    struct sqlite *db = arg;
    return fiber_self() && sqlite3_txn_state(db->h, NULL) != SQLITE_TXN_WRITE && fiber_check() != 0;
}

static int open_file(struct sqlite *db, struct err *e)
{
    int create = db->unchanged ? 0 : SQLITE_OPEN_CREATE;
    if (create && make_parent(db->path, e) < 0)
        return -1;
    int rc = sqlite3_open_v2(db->path, &db->h, SQLITE_OPEN_READWRITE | create | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK) {
        sqlite_fail(db, rc, e);
        sqlite3_close(db->h);
        db->h = NULL;
        db->busy = false;
        return -1;
    }
    sqlite3_extended_result_codes(db->h, 1);
    sqlite3_progress_handler(db->h, CHECK_OPS, out_of_time, db);
    STAT_ADD(store_connections, 1);
    return sqlite_search_register(db, e);
}

static void close_file(struct sqlite *db)
{
    if (!db->h)
        return;
    stmt_forget_all(db);
    sqlite3_close(db->h);
    db->h = NULL;
    STAT_SUB(store_connections, 1);
}

static int open_and_migrate(struct sqlite *db, struct err *e)
{
    int applied;
    if (!db->h && open_file(db, e) < 0)
        return -1;
    if (sqlite_exec(db, settings, e) < 0 || migrate_locked(db, &applied, e) < 0)
        return -1;
    if (sqlite3_db_readonly(db->h, "main") == 1)
        return sqlite_fail(db, SQLITE_READONLY, e);
    if (applied) {
        sync_parent(db->path);
        log_info("database %s: %d migration%s applied", db->path, applied, applied == 1 ? "" : "s");
    }
    db->migrated = true;
    return 0;
}

suspends int sqlite_ready(struct sqlite *db, struct err *e)
{
    if (db->migrated)
        return 0;
    if (db->broken_ns && clock_ns() - db->broken_ns < REOPEN_MS * MS) {
        if (e)
            *e = db->broken;
        return -1;
    }
    if (open_and_migrate(db, &db->broken) == 0) {
        db->broken_ns = 0;
        return 0;
    }
    if (!db->busy) { /* a lock is waited for by the caller; anything else needs a hand, so do not ask too often */
        close_file(db);
        db->broken_ns = clock_ns();
    }
    if (e)
        *e = db->broken;
    return -1;
}

static suspends int sqlite_migrate(struct store *s, int *applied, struct err *e)
{
    struct sqlite *db = sqlite_of(s);
    *applied = 0;
    return SQLITE_TRY(db, e, migrate_locked(db, applied, e));
}

static suspends int sqlite_check(struct store *s, struct err *e)
{
    struct sqlite *db = sqlite_of(s);
    int have;
    return SQLITE_TRY(db, e, applied_migrations(db, &have, e));
}

suspends int store_sqlite_open(const struct config *cfg, const char *path, bool unchanged, struct store **out,
                               struct err *e)
{
    static bool configured;
    if (!configured) {
        sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
        sqlite3_config(SQLITE_CONFIG_STMTJRNL_SPILL, -1); /* savepoints stay in memory */
        configured = true;
    }
    if (sqlite3_libversion_number() < 3038000)
        return err_set(e, ERR_INTERNAL, "SQLite %s is too old: 3.38 or later is needed", sqlite3_libversion());
    struct sqlite *db = calloc(1, sizeof *db);
    char *copy = strdup(path);
    if (!db || !copy)
        abort();
    db->store.ops = &store_sqlite_ops;
    db->cfg = cfg;
    db->path = copy;
    db->unchanged = unchanged;
    list_init(&db->writes);
    struct err why;
    if (SQLITE_TRY(db, &why, 0) < 0)
        log_err(LOG_ERROR, "database", &why); /* stays so until somebody mends it: the calls say so, too */
    *out = &db->store;
    return 0;
}

int version_is(int64_t have, int64_t want, struct err *e)
{
    if (!want || have == want)
        return 0;
    return err_set(e, ERR_VERSION, "The version is %lld, not %lld", (long long)have, (long long)want);
}

struct page_sql page_sql(struct arena *a, const struct store_page *p, const char *column)
{
    struct page_sql out = {.backwards = p->has_before && !p->has_after};
    const char *on = p->ascending ? ">" : "<", *back = p->ascending ? "<" : ">";
    struct str after = STR(""), before = STR("");
    if (p->has_after)
        after = arena_printf(a, " AND %s %s ?", column, on);
    if (p->has_before)
        before = arena_printf(a, " AND %s %s ?", column, back);
    out.where = arena_printf(a, STR_FMT STR_FMT, STR_ARG(after), STR_ARG(before));
    out.order = arena_printf(a, " ORDER BY %s %s", column, p->ascending != out.backwards ? "ASC" : "DESC");
    return out;
}

void page_bind(struct stmt *s, const struct store_page *p)
{
    if (p->has_after)
        bind_uuid(s, &p->after);
    if (p->has_before)
        bind_uuid(s, &p->before);
}

void page_turn(const struct store_page *p, void *rows, size_t n, size_t size)
{
    char *low = rows, *high = low + n * size, swap;
    if (!p->has_before || p->has_after)
        return;
    for (size_t i = 0; i < n / 2; i++, low += size) {
        high -= size;
        for (size_t k = 0; k < size; k++) {
            swap = low[k];
            low[k] = high[k];
            high[k] = swap;
        }
    }
}

const struct store_ops store_sqlite_ops = {
    .name = "sqlite",
    .free = sqlite_free,
    .check = sqlite_check,
    .migrate = sqlite_migrate,
    .collection_create = sqlite_collection_create,
    .collection_get = sqlite_collection_get,
    .collection_by_name = sqlite_collection_by_name,
    .collection_list = sqlite_collection_list,
    .collection_patch = sqlite_collection_patch,
    .collection_delete = sqlite_collection_delete,
    .collection_purge = sqlite_collection_purge,
    .file_put_part = sqlite_file_put_part,
    .file_get_part = sqlite_file_get_part,
    .file_sweep = sqlite_file_sweep,
    .document_create = sqlite_document_create,
    .document_get = sqlite_document_get,
    .document_by_external_id = sqlite_document_by_external_id,
    .document_list = sqlite_document_list,
    .document_patch = sqlite_document_patch,
    .document_delete = sqlite_document_delete,
    .document_versions = sqlite_document_versions,
    .document_text = sqlite_document_text,
    .document_chunks = sqlite_document_chunks,
    .chunk_get = sqlite_chunk_get,
    .document_reprocess = sqlite_document_reprocess,
    .document_match = sqlite_document_match,
    .document_delete_matching = sqlite_document_delete_matching,
    .document_count_matching = sqlite_document_count_matching,
    .documents_by_no = sqlite_documents_by_no,
    .document_span = sqlite_document_span,
    .collection_set_embedder = sqlite_collection_set_embedder,
    .shadow_begin = sqlite_shadow_begin,
    .shadow_built = sqlite_shadow_built,
    .generation_flip = sqlite_generation_flip,
    .generation_drop = sqlite_generation_drop,
    .embeddings_get = sqlite_embeddings_get,
    .embeddings_put = sqlite_embeddings_put,
    .embeddings_sweep = sqlite_embeddings_sweep,
    .document_embedded = sqlite_document_embedded,
    .outbox_take = sqlite_outbox_take,
    .outbox_done = sqlite_outbox_done,
    .outbox_add = sqlite_outbox_add,
    .outbox_count = sqlite_outbox_count,
    .outbox_hasten = sqlite_outbox_hasten,
    .search_candidates = sqlite_search_candidates,
    .search_counts = sqlite_search_counts,
    .search_fetch = sqlite_search_fetch,
    .job_create = sqlite_job_create,
    .job_get = sqlite_job_get,
    .job_list = sqlite_job_list,
    .job_cancel = sqlite_job_cancel,
    .job_retry = sqlite_job_retry,
    .job_counts = sqlite_job_counts,
    .job_claim = sqlite_job_claim,
    .job_lease = sqlite_job_lease,
    .job_renew = sqlite_job_renew,
    .job_commit_index = sqlite_job_commit_index,
    .job_finish = sqlite_job_finish,
    .job_put_back = sqlite_job_put_back,
    .eval_set_create = sqlite_eval_set_create,
    .eval_set_get = sqlite_eval_set_get,
    .eval_set_list = sqlite_eval_set_list,
    .eval_set_delete = sqlite_eval_set_delete,
    .eval_result_put = sqlite_eval_result_put,
    .eval_result_get = sqlite_eval_result_get,
    .webhook_create = sqlite_webhook_create,
    .webhook_get = sqlite_webhook_get,
    .webhook_list = sqlite_webhook_list,
    .webhook_patch = sqlite_webhook_patch,
    .webhook_delete = sqlite_webhook_delete,
    .delivery_create = sqlite_delivery_create,
    .delivery_list = sqlite_delivery_list,
    .delivery_take = sqlite_delivery_take,
    .delivery_end = sqlite_delivery_end,
    .delivery_sweep = sqlite_delivery_sweep,
    .delivery_counts = sqlite_delivery_counts,
    .idempotency_begin = sqlite_idempotency_begin,
    .idempotency_end = sqlite_idempotency_end,
};
