/* What every contract test stands on. A test is a function that runs on a fiber with a fresh store of its own: SQLite in a
 * temporary directory, and PostgreSQL in a database of its own when RAGD_TEST_PG_URL names a cluster (with_postgres.sh).
 * The tests know only the verbs of store.h, and these few helpers. */
#pragma once
#include "tests/failure.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/fiber/loop.h"
#include "worker/core/backends.h"
#include <ftw.h>
#include <libpq-fe.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

struct world {
    struct store *s;
    struct backends b; /* with that store */
    struct arena a;
    struct config *cfg;
    bool sqlite;
    char dir[64];  /* SQLite: where the file is */
    char name[64]; /* PostgreSQL: of the database */
    char url[512];
    struct err e;
    int line; /* of the first failure */
    char what[512];
    jmp_buf failed;
    void (*fn)(struct world *);
};

struct contract_test {
    const char *name;
    void (*fn)(struct world *);
};
#define TEST(fn) \
    {            \
#fn, fn  \
    }

#define same_str(w, a_, z)                                                             \
    do {                                                                               \
        struct str x_ = (a_), y_ = str_of(z);                                          \
        if (!str_eq(x_, y_))                                                           \
            fail_at(w, __LINE__, "%s = '" STR_FMT "', not '%s'", #a_, STR_ARG(x_), z); \
    } while (0)
#define same_id(w, a_, b_)                                  \
    do {                                                    \
        struct uuid x_ = (a_), y_ = (b_);                   \
        if (!uuid_eq(&x_, &y_))                             \
            fail_at(w, __LINE__, "%s is not %s", #a_, #b_); \
    } while (0)

/* The verbs, with the world's store, arena and error. */
#define DO(w, verb, ...)  STORE_CALL((w)->s, verb, ##__VA_ARGS__, &(w)->e)
#define GET(w, verb, ...) STORE_CALL((w)->s, verb, &(w)->a, ##__VA_ARGS__, &(w)->e)

/* ---- a store of one's own ---- */

static inline int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void pg_admin(const char *sql)
{
    PGconn *c = PQconnectdb(getenv("RAGD_TEST_PG_URL"));
    PGresult *r = PQexec(c, sql);
    if (PQresultStatus(r) != PGRES_COMMAND_OK) {
        fprintf(stderr, "%s: %s\n", sql, PQerrorMessage(c));
        abort();
    }
    PQclear(r);
    PQfinish(c);
}

/* Statements on the database behind the store's back, to make time pass. SQLite's file must not be opened a second time
 * in this process, so a child does it. */
static inline void behind_its_back(struct world *w, const char *sqlite, const char *postgres)
{
    if (!w->sqlite) {
        PGconn *c = PQconnectdb(w->url);
        PGresult *r = PQexec(c, postgres);
        if (PQresultStatus(r) != PGRES_COMMAND_OK)
            fail_at(w, __LINE__, "%s: %s", postgres, PQerrorMessage(c));
        PQclear(r);
        PQfinish(c);
        return;
    }
    char command[1024];
    snprintf(command, sizeof command,
             "/usr/bin/python3 -c 'import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=10);"
             " c.execute(sys.argv[2]); c.commit()' '%s/sub/ragd.db' \"%s\"",
             w->dir, sqlite);
    if (system(command) != 0)
        fail_at(w, __LINE__, "%s", sqlite);
}

static inline struct config *config_for(const char *url, const char *more)
{
    struct err e;
    struct config *cfg;
    char set[600];
    snprintf(set, sizeof set, "database.url=%s", url);
    const char *const sets[] = {set, "database.auto_migrate=true", more};
    if (config_load(&(struct config_args){.set = sets, .n_set = more ? 3 : 2}, &cfg, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    return cfg;
}

static inline void world_make(struct world *w, bool sqlite)
{
    static int n;
    memset(w, 0, sizeof *w);
    w->sqlite = sqlite;
    snprintf(w->dir, sizeof w->dir, "/tmp/ragd-contract.XXXXXX");
    if (!mkdtemp(w->dir))
        abort();
    if (sqlite) {
        snprintf(w->url, sizeof w->url, "sqlite:%s/sub/ragd.db", w->dir);
    } else {
        char sql[128];
        const char *base = getenv("RAGD_TEST_PG_URL");
        snprintf(w->name, sizeof w->name, "contract_%d_%d", (int)getpid(), n++);
        snprintf(sql, sizeof sql, "CREATE DATABASE %s", w->name);
        pg_admin(sql);
        snprintf(w->url, sizeof w->url, "%.*s/%s", (int)(strrchr(base, '/') - base), base, w->name);
    }
    w->cfg = config_for(w->url, NULL);
}

static inline void world_remove(struct world *w)
{
    arena_fini(&w->a);
    config_free(w->cfg);
    nftw(w->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (!w->sqlite) {
        char sql[160];
        snprintf(sql, sizeof sql, "DROP DATABASE %s WITH (FORCE)", w->name);
        pg_admin(sql);
    }
}

static inline void world_fiber(void *arg)
{
    struct world *w = arg;
    int applied;
    if (setjmp(w->failed) == 0) {
        ok(w, store_open(w->cfg, &w->s, &w->e));
        ok(w, DO(w, migrate, &applied));
        w->b = (struct backends){.cfg = w->cfg, .store = w->s};
        w->fn(w);
        store_close(w->s);
    }
    loop_stop();
}

static inline void world_run(bool sqlite, void (*fn)(struct world *))
{
    struct world w;
    struct err e;
    if (!sqlite && !getenv("RAGD_TEST_PG_URL")) {
        if (getenv("CI"))
            fail_msg("RAGD_TEST_PG_URL is not set: run this under tests/with_postgres.sh");
        skip();
    }
    world_make(&w, sqlite);
    w.fn = fn;
    if (loop_init(&e) < 0 || !fiber_spawn("test", world_fiber, &w))
        fail_msg("%s", e.msg);
    loop_run();
    if (w.line) {
        world_remove(&w);
        fail_msg("line %d: %s", w.line, w.what);
    }
    if (fiber_count() != 0) {
        struct buf b = {0};
        fiber_dump(&b);
        fail_msg("fibers are left:\n" STR_FMT, STR_ARG(buf_view(&b)));
    }
    world_remove(&w);
    fiber_fini();
    loop_fini();
}

static void on_sqlite(void **state)
{
    const struct contract_test *t = *state;
    world_run(true, t->fn);
}

static void on_postgres(void **state)
{
    const struct contract_test *t = *state;
    world_run(false, t->fn);
}

static inline int tests_run(const char *group, struct contract_test *tests, size_t n, int products, int argc,
                            char **argv)
{
    size_t most = n * (size_t)products, k = 0;
    struct CMUnitTest *all = calloc(most, sizeof *all);
    char(*names)[96] = calloc(most, sizeof *names);
    if (!all || !names)
        abort();
    log_init(LOG_ERROR, false, "test");
    for (size_t i = 0; i < most; i++) {
        snprintf(names[k], sizeof *names, "%s %s", i < n ? "sqlite" : "postgresql", tests[i % n].name);
        if (argc > 1 && !strstr(names[k], argv[1]))
            continue;
        all[k] = (struct CMUnitTest){names[k], i < n ? on_sqlite : on_postgres, NULL, NULL, &tests[i % n]};
        k++;
    }
    int rc = _cmocka_run_group_tests(group, all, k, NULL, NULL);
    free(names);
    free(all);
    return rc;
}

/* Every test on both products. An argument selects by a part of the name. */
static inline int contract_main(const char *group, struct contract_test *tests, size_t n, int argc, char **argv)
{
    return tests_run(group, tests, n, 2, argc, argv);
}

static inline int sqlite_main(const char *group, struct contract_test *tests, size_t n, int argc, char **argv)
{
    return tests_run(group, tests, n, 1, argc, argv);
}

/* ---- things to store ---- */

static inline struct store_collection a_collection(struct world *w, const char *name)
{
    struct store_collection in = {.name = str_of(name),
                                  .language = STR("english"),
                                  .metadata = STR("{}"),
                                  .chunking = STR("{}")},
                            out;
    ok(w, GET(w, collection_create, &in, &out));
    return out;
}

static inline struct store_document_new new_document(const struct store_collection *c, const char *text)
{
    struct store_document_new in = {.collection = c->id,
                                    .filename = STR("a.txt"),
                                    .mime = STR("text/plain"),
                                    .metadata = STR("{}"),
                                    .tags = STR("[]"),
                                    .bytes = (int64_t)strlen(text),
                                    .inline_bytes = str_of(text)};
    sha256_of(text, strlen(text), &in.sha256);
    return in;
}

static inline struct store_document a_document(struct world *w, const struct store_collection *c, const char *text)
{
    struct store_document_new in = new_document(c, text);
    struct store_document out;
    enum store_created what;
    struct store_job job;
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    must(w, what == STORE_CREATED);
    return out;
}

static inline struct store_document document_of(struct world *w, const struct uuid *id)
{
    struct store_document out;
    ok(w, GET(w, document_get, id, &out));
    return out;
}

static inline struct store_collection collection_of(struct world *w, const struct uuid *id)
{
    struct store_collection out;
    ok(w, GET(w, collection_get, id, &out));
    return out;
}

static inline struct store_job job_of(struct world *w, const struct uuid *id)
{
    struct store_job out;
    ok(w, GET(w, job_get, id, &out));
    return out;
}

/* Leases the next job for `owner`, which must be there. */
static inline struct store_job lease(struct world *w, const struct uuid *owner)
{
    struct store_job j;
    size_t found = 0;
    ok(w, GET(w, job_lease, owner, 60 * 1000000LL, 1, &j, &found));
    must(w, found);
    return j;
}

/* A chunk of these terms; its text is the same. */
static inline struct store_chunk_new chunk_of(const char *terms)
{
    struct store_chunk_new k = {.text = str_of(terms), .terms = str_of(terms), .headings = STR("[]"), .tokens = 1};
    for (const char *p = terms; *p; p++)
        k.tokens += *p == ' ';
    k.char_end = k.byte_end = (int64_t)k.text.n;
    sha256_of(terms, strlen(terms), &k.sha256);
    return k;
}

/* Leases the document's job, which must be the next one, and commits these chunks. */
static inline void index_document(struct world *w, const struct uuid *document, const char *const *terms, size_t n)
{
    struct uuid owner = uuid_v7();
    struct store_job j = lease(w, &owner);
    struct store_document d = document_of(w, document);
    struct store_chunk_new *k = arena_alloc(&w->a, n * sizeof *k);
    must(w, j.has_document && uuid_eq(&j.document, document));
    for (size_t i = 0; i < n; i++)
        k[i] = chunk_of(terms[i]);
    struct store_index_commit in = {.chunks = k, .n = n, .content_version = d.content_version, .text = STR("the text")};
    ok(w, DO(w, job_commit_index, &j.id, &owner, &in));
}

/* ---- many fibers at once ---- */

struct member {
    struct world *w;
    struct fiber *parent;
    int i, *left, rc;
    int (*fn)(struct world *, int i, struct arena *, struct err *);
    struct err e;
};

static inline void member_run(void *arg)
{
    struct member *m = arg;
    struct arena a = {0};
    m->rc = m->fn(m->w, m->i, &a, &m->e);
    arena_fini(&a);
    if (--*m->left == 0)
        fiber_wake(m->parent);
}

/* Calls fn(w, 0 … n-1) on a fiber each, all at once, and fails the test when one does. */
static inline void in_parallel(struct world *w, int n, int (*fn)(struct world *, int, struct arena *, struct err *))
{
    struct member *m = arena_zalloc(&w->a, (size_t)n * sizeof *m);
    int left = n;
    for (int i = 0; i < n; i++) {
        m[i] = (struct member){.w = w, .parent = fiber_self(), .i = i, .left = &left, .fn = fn};
        must(w, fiber_spawn("member", member_run, &m[i]));
    }
    while (left > 0)
        must(w, fiber_park("the others") == 0);
    for (int i = 0; i < n; i++)
        if (m[i].rc < 0)
            fail_at(w, __LINE__, "%d: %s: %s (%s)", i, err_wire(m[i].e.code), m[i].e.msg, m[i].e.log);
}
