/* Opening the PostgreSQL product, its schema, and the table of its verbs. */
#include "worker/store/pg.h"
#include "common/clock.h"
#include "common/log.h"
#include "worker/store/migrations.h"
#include <stdio.h>
#include <stdlib.h>

static const struct pg_stmt statements[S_COUNT] = {
#define STMT(name, lane, write, binary, sql) [S_##name] = {#name, sql, lane, write, binary},
#include "worker/store/pg_stmts.def"
#undef STMT
};

/* ---- schema ---- */

static const struct migration *migration_no(int number)
{
    for (const struct migration *m = migrations; m->product; m++)
        if (strcmp(m->product, "postgres") == 0 && m->number == number)
            return m;
    return NULL;
}

static void checksum(const struct migration *m, char text[SHA256_TEXT_LEN + 1])
{
    struct sha256 sum;
    sha256_of(m->sql, strlen(m->sql), &sum);
    sha256_text(&sum, text);
    text[SHA256_TEXT_LEN] = 0;
}

/* Rows of schema_migrations: number and checksum. A schema of one release later is fine: releases expand it first and
 * contract it later. *have: how many are applied. */
static int compare(const struct pg_rows *r, int *have, struct err *e)
{
    int known = 0;
    char mine[SHA256_TEXT_LEN + 1];
    while (migration_no(known + 1))
        known++;
    for (int i = 0; i < r->n; i++) {
        const struct migration *m = migration_no(i + 1);
        if (m)
            checksum(m, mine);
        if (pg_i64(r, i, 0) != i + 1 || (m && !str_eqz(pg_str(r, i, 1), mine)))
            return err_set(e, ERR_NOT_READY,
                           "The database schema is not what this release made: migration %lld differs",
                           (long long)pg_i64(r, i, 0));
    }
    if (r->n > known + 1)
        return err_set(e, ERR_NOT_READY, "The database schema (%d) is newer than this release understands (%d)", r->n,
                       known + 1);
    *have = r->n;
    return 0;
}

static suspends int pg_check(struct store *st, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    int have;
    pg_args_init(&args, &a);
    int rc = pg_call(pg_of(st)->pg, S_SCHEMA, &args, &a, &r, e);
    if (rc == 0)
        rc = compare(&r, &have, e);
    if (rc == 0 && migration_no(have + 1))
        rc = err_set(e, ERR_NOT_READY, "The database schema (%d) is older than this release: run `ragd migrate`", have);
    arena_fini(&a);
    return rc;
}

static suspends int apply(struct pg_session *s, const struct migration *m, struct err *e)
{
    struct arena a = {0};
    struct pg_rows r;
    struct buf script = {0};
    char sum[SHA256_TEXT_LEN + 1];
    checksum(m, sum);
    buf_printf(&script,
               "%s; INSERT INTO schema_migrations VALUES (%d, '%s', '\\x%s', "
               "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint)",
               m->sql, m->number, m->name, sum);
    int rc = pg_session_run(s, script.p, &a, &r, e);
    buf_fini(&script);
    arena_fini(&a);
    return rc;
}

/* All in one transaction, under a lock that a session of another process waits for. */
static suspends int apply_missing(struct pg_session *s, struct arena *a, int *applied, struct err *e)
{
    struct pg_rows r;
    const struct migration *m;
    int have;
    if (pg_session_run(s,
                       "SET statement_timeout = 0; SET lock_timeout = '30s'; SET client_min_messages = warning; BEGIN;"
                       "SELECT pg_advisory_xact_lock(7236828421);"
                       "CREATE TABLE IF NOT EXISTS schema_migrations (number int PRIMARY KEY, name text NOT NULL,"
                       " checksum bytea NOT NULL, applied_us bigint NOT NULL);"
                       "SELECT number, encode(checksum, 'hex') FROM schema_migrations ORDER BY number",
                       a, &r, e) < 0 ||
        compare(&r, &have, e) < 0)
        return -1;
    for (*applied = 0; (m = migration_no(have + *applied + 1)); ++*applied)
        if (apply(s, m, e) < 0)
            return -1;
    return pg_session_run(s, "COMMIT", a, &r, e);
}

static suspends int pg_migrate(struct store *st, int *applied, struct err *e)
{
    struct arena a = {0};
    struct pg_session *s;
    if (pg_session_open(pg_of(st)->pg, &s, e) < 0)
        return -1;
    int n = 0, rc = apply_missing(s, &a, &n, e);
    pg_session_close(s);
    arena_fini(&a);
    if (rc == 0)
        *applied = n;
    if (rc == 0 && n)
        log_info("database: %d migration%s applied", n, n == 1 ? "" : "s");
    return rc;
}

/* ---- open and close ---- */

static suspends void migrate_later(void *arg)
{
    struct pg_store *s = arg;
    struct err e;
    int64_t pause = SEC;
    int applied;
    s->migrator = fiber_self();
    while (fiber_sleep(pause) == 0 && !s->closing && pg_check(&s->store, &e) < 0 && !s->closing &&
           pg_migrate(&s->store, &applied, &e) < 0)
        pause = pause < 8 * SEC ? 2 * pause : pause;
    s->migrator = NULL;
    pg_store_release(s);
}

/* A database that starts later than its users is migrated when it is there. Until then the calls, and /readyz, say what is
 * wrong. */
static suspends void migrate_at_start(struct pg_store *s, bool room)
{
    struct err e;
    int applied;
    if (room && (pg_check(&s->store, &e) == 0 || pg_migrate(&s->store, &applied, &e) == 0))
        return;
    if (room)
        log_err(LOG_ERROR, "database", &e);
    s->refs++;
    if (!fiber_spawn("postgres migrate", migrate_later, s))
        pg_store_release(s);
}

suspends int store_pg_open(const struct config *cfg, bool unchanged, struct store **out, struct err *e)
{
    struct pg_store *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->store.ops = &store_pg_ops;
    s->cfg = cfg;
    s->refs = 1;
    list_init(&s->creating);
    list_init(&s->lookups);
    s->hook = (struct loop_hook){.fn = pg_lookups_flush, .arg = s};
    loop_hook_add(&s->hook, LOOP_FLUSH_BACKENDS); /* before the driver's, which sends */
    if (pg_open(cfg, statements, S_COUNT, &s->pg, e) < 0) {
        loop_hook_del(&s->hook);
        free(s);
        return -1;
    }
    bool room = pg_await_room(s->pg);
    if (cfg->database_auto_migrate && !unchanged)
        migrate_at_start(s, room);
    *out = &s->store;
    return 0;
}

void pg_store_release(struct pg_store *s)
{
    if (--s->refs == 0)
        free(s);
}

static void pg_free(struct store *st)
{
    struct pg_store *s = pg_of(st);
    s->closing = true;
    loop_hook_del(&s->hook);
    pg_close(s->pg);
    s->pg = NULL;
    if (s->announcer)
        fiber_cancel(s->announcer);
    if (s->migrator)
        fiber_cancel(s->migrator);
    pg_store_release(s);
}

static void pg_store_drain(struct store *st)
{
    pg_drain(pg_of(st)->pg);
}

static void pg_store_cancel(struct store *st)
{
    pg_cancel_all(pg_of(st)->pg);
}

static bool pg_store_leave(struct store *st)
{
    return pg_leave(pg_of(st)->pg);
}

static void pg_on_job(struct store *st, void (*fn)(void *), void *arg)
{
    pg_listen(pg_of(st)->pg, "ragd_jobs", fn, arg);
}

const struct store_ops store_pg_ops = {
    .name = "postgresql",
    .free = pg_free,
    .check = pg_check,
    .migrate = pg_migrate,
    .drain = pg_store_drain,
    .cancel = pg_store_cancel,
    .leave = pg_store_leave,
    .on_job = pg_on_job,
#define VERB(name) .name = pg_##name,
#include "worker/store/pg_verbs.def"
#undef VERB
};
