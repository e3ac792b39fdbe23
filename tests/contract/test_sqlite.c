/* What only the SQLite product promises: how it opens, waits for locks, and says what is wrong with a file. */
#include "tests/contract/contract.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

static const char *file(struct world *w)
{
    return arena_printf(&w->a, "%s/sub/ragd.db", w->dir).p;
}

/* Runs statements in a process of its own; with `hold`, keeps its transaction open for that many milliseconds. Returns
 * once the statements have run. */
static pid_t meddle(struct world *w, const char *sql, int hold_ms)
{
    int fds[2];
    char byte;
    must(w, pipe(fds) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        sqlite3 *h;
        int rc = sqlite3_open(file(w), &h);
        sqlite3_busy_timeout(h, 5000);
        rc = rc ? rc : sqlite3_exec(h, sql, NULL, NULL, NULL);
        if (write(fds[1], rc ? "!" : ".", 1) != 1)
            _exit(2);
        if (hold_ms) {
            usleep((unsigned)hold_ms * 1000);
            sqlite3_exec(h, "ROLLBACK", NULL, NULL, NULL);
        }
        sqlite3_close(h);
        _exit(0);
    }
    must(w, pid > 0 && read(fds[0], &byte, 1) == 1 && byte == '.');
    close(fds[0]);
    close(fds[1]);
    return pid;
}

static void reap(struct world *w, pid_t pid)
{
    int status;
    must(w, waitpid(pid, &status, 0) == pid && status == 0);
}

static void quick(struct world *w, const char *sql)
{
    reap(w, meddle(w, sql, 0));
}

static void reopen(struct world *w)
{
    ok(w, store_open(w->cfg, &w->s, &w->e));
}

static void opened_well(struct world *w)
{
    struct stat st;
    int applied = -1;
    must(w, stat(file(w), &st) == 0);
    same(w, st.st_mode & 0777, 0640);
    must(w, stat(arena_printf(&w->a, "%s/sub", w->dir).p, &st) == 0);
    same(w, st.st_mode & 0777, 0750);
    ok(w, DO(w, check));
    ok(w, DO(w, migrate, &applied));
    same(w, applied, 0);
    same_str(w, str_of(w->s->ops->name), "sqlite");
    store_close(w->s);
    reopen(w);
    ok(w, DO(w, check));
}

static void waits_for_a_lock(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    int64_t before = clock_ns();
    uint64_t errors = slot_self->stat[STAT_store_errors_total], retries = slot_self->stat[STAT_store_retries_total];
    pid_t pid = meddle(w, "BEGIN IMMEDIATE", 1000); /* long enough to be met, however slow the machine is */
    a_document(w, &c, "meanwhile");
    must(w, slot_self->stat[STAT_store_retries_total] > retries);
    same(w, slot_self->stat[STAT_store_errors_total], errors); /* it went well in the end */
    must(w, clock_ns() - before >= 990 * MS);
    reap(w, pid);

    /* reading needs no lock */
    pid = meddle(w, "BEGIN IMMEDIATE; UPDATE collections SET name = 'changed'", 100);
    same_str(w, collection_of(w, &c.id).name, "c");
    reap(w, pid);

    /* no longer than the caller has time */
    pid = meddle(w, "BEGIN IMMEDIATE", 400);
    fiber_set_deadline(fiber_self(), clock_ns() + 50 * MS);
    struct store_document_new in = new_document(&c, "too late");
    struct store_document out;
    enum store_created what;
    struct store_job job;
    fails(w, ERR_DEADLINE, GET(w, document_create, &in, &out, &what, &job));
    fiber_set_deadline(fiber_self(), 0);
    reap(w, pid);
    a_document(w, &c, "after"); /* what was given up has not happened, now or later */
    same(w, collection_of(w, &c.id).documents, 2);
}

/* A read that is long ends when its time is up; a change is finished. */
static void long_reads_end_in_time(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    int64_t n;
    for (int i = 0; i < 300; i++)
        a_document(w, &c, arena_printf(&w->a, "document %d", i).p);
    ok(w, DO(w, document_count_matching, &c.id, NULL, &n));
    same(w, n, 300);
    fiber_set_deadline(fiber_self(), clock_ns() - 1);
    fails(w, ERR_DEADLINE, DO(w, document_count_matching, &c.id, NULL, &n));
    same(w, collection_of(w, &c.id).documents, 300); /* a short one is done before anybody looks at the clock */
    fiber_set_deadline(fiber_self(), 0);
}

static void refuses_schemas(struct world *w)
{
    static const struct {
        const char *sql, *undo, *says;
    } cases[] = {
        {"INSERT INTO schema_migrations VALUES (3, '0003_x', x'00', 1), (4, '0004_x', x'00', 1)",
         "DELETE FROM schema_migrations WHERE number > 2", "newer"},
        {"UPDATE schema_migrations SET checksum = x'00'", NULL, "not what this release made"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        quick(w, cases[i].sql);
        fails(w, ERR_NOT_READY, DO(w, check));
        must(w, strstr(w->e.msg, cases[i].says));
        store_close(w->s);
        reopen(w); /* the worker lives and says why it cannot work */
        struct store_collection c;
        fails(w, ERR_NOT_READY, GET(w, collection_by_name, STR("x"), &c));
        must(w, strstr(w->e.msg, cases[i].says));
        store_close(w->s);
        if (cases[i].undo)
            quick(w, cases[i].undo);
        reopen(w);
    }
}

/* One release ahead is fine: it has only added. */
static void works_on_the_next_schema(struct world *w)
{
    quick(w, "INSERT INTO schema_migrations VALUES (3, '0003_x', x'00', 1)");
    ok(w, DO(w, check));
    store_close(w->s);
    reopen(w);
    a_collection(w, "c");
}

static void refuses_other_files(struct world *w)
{
    struct store_collection c;
    store_close(w->s);
    must(w, unlink(file(w)) == 0);
    quick(w, "CREATE TABLE addresses (x)");
    reopen(w);
    fails(w, ERR_NOT_READY, GET(w, collection_by_name, STR("x"), &c));
    must(w, strstr(w->e.msg, "another program"));
    store_close(w->s);

    int fd = open(file(w), O_WRONLY | O_TRUNC);
    must(w,
         fd >= 0 && write(fd, "this is a text file, and a long one at that, so that it cannot be a header", 70) == 70);
    close(fd);
    reopen(w);
    fails(w, ERR_NOT_READY, GET(w, collection_by_name, STR("x"), &c));
    must(w, strstr(w->e.msg, "no SQLite database"));
}

/* A directory where the file should be: says which path, whose it is, and heals once it is mended. */
static void says_what_is_wrong_with_the_path(struct world *w)
{
    struct store_collection c;
    struct config *cfg = config_for(arena_printf(&w->a, "sqlite:%s/other/ragd.db", w->dir).p, NULL);
    char *path = arena_strdup(&w->a, arena_printf(&w->a, "%s/other/ragd.db", w->dir).p);
    store_close(w->s);
    must(w, mkdir(arena_printf(&w->a, "%s/other", w->dir).p, 0750) == 0 && mkdir(path, 0750) == 0);
    ok(w, store_open(cfg, &w->s, &w->e));
    fails(w, ERR_NOT_READY, GET(w, collection_by_name, STR("x"), &c));
    must(w, strstr(w->e.log, path) && strstr(w->e.log, "uid") && strstr(w->e.log, "mode 0750"));
    must(w, !strstr(w->e.msg, path)); /* not for clients */
    must(w, rmdir(path) == 0);
    int64_t give_up = clock_ns() + 20 * SEC;
    while (STORE_CALL(w->s, check, &w->e) < 0) {
        must(w, clock_ns() < give_up);
        must(w, fiber_sleep(20 * MS) == 0);
    }
    a_collection(w, "c");
    config_free(cfg);
}

/* Removing a long document hides it at once and leaves the rest to a job, so that nobody waits long. */
static void removes_long_documents_in_steps(struct world *w)
{
    enum { CHUNKS = 2500 };
    struct store_collection c = a_collection(w, "c"), gone;
    struct store_document_new in = new_document(&c, "long");
    struct store_document d, out;
    enum store_created what;
    struct store_candidates hits;
    struct store_chunk chunk;
    struct str word = STR("word");
    struct uuid me = uuid_v7(), first;
    struct store_job job, j;
    int64_t left = 1, removed;
    const char **chunks = arena_alloc(&w->a, CHUNKS * sizeof *chunks);
    for (int i = 0; i < CHUNKS; i++)
        chunks[i] = "word";
    in.external_id = STR("x");
    ok(w, GET(w, document_create, &in, &d, &what, &job));
    index_document(w, &d.id, chunks, CHUNKS);
    first = store_chunk_id(&d.id, 1, 0);
    ok(w, GET(w, chunk_get, &first, &chunk));
    ok(w, DO(w, document_delete, &d.id, 0));

    fails(w, ERR_NOT_FOUND, GET(w, document_get, &d.id, &out));
    fails(w, ERR_NOT_FOUND, GET(w, chunk_get, &first, &chunk));
    ok(w, GET(w, search_candidates, &c, &word, NULL, 1, 10, &hits));
    same(w, hits.n, 0);
    same(w, collection_of(w, &c.id).documents, 0);
    same(w, collection_of(w, &c.id).chunks, 0);
    same(w, collection_of(w, &c.id).bytes, 0);
    ok(w, GET(w, document_create, &in, &out, &what, &job)); /* its name and its bytes are free */
    same(w, what, STORE_CREATED);

    j = lease(w, &me);
    same_str(w, j.type, "delete_collection");
    fails(w, ERR_NOT_FOUND, GET(w, collection_get, &j.collection, &gone));
    int steps = 0;
    for (; left > 0; steps++)
        ok(w, DO(w, collection_purge, &j.collection, 10, &left));
    must(w, steps > 2);
    ok(w, DO(w, job_finish, &j.id, &me, JOB_succeeded, STR(""), STR(""), STR(""), 0));
    ok(w, GET(w, search_candidates, &c, &word, NULL, 1, 10, &hits));
    same(w, hits.n, 0);
    ok(w, DO(w, document_delete, &out.id, 0));
    quick(w, "UPDATE file_orphans SET since_us = 0");
    ok(w, DO(w, file_sweep, 10, &removed));
    same(w, removed, 1);
    quick(w, "CREATE TABLE nothing_left (ok CHECK (ok)); INSERT INTO nothing_left SELECT"
             " NOT EXISTS (SELECT 1 FROM chunks) AND NOT EXISTS (SELECT 1 FROM texts) AND NOT EXISTS"
             " (SELECT 1 FROM hidden_chunks) AND NOT EXISTS (SELECT 1 FROM chunk_index_content)");
}

/* A holder that loses his lease between two steps leaves nothing that anybody finds. */
static struct uuid thief;

static void steal(struct world *w)
{
    char hex[33];
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", thief.b[i]);
    for (int n = 0; n < 3; n++)
        fiber_yield();
    quick(w, arena_printf(&w->a, "UPDATE jobs SET owner = x'%s'", hex).p);
}

static struct store_index_commit long_commit;
static struct uuid held_job, holder;

static int commit_long(struct world *w, int i, struct arena *a, struct err *e)
{
    (void)a;
    if (i == 1) {
        steal(w);
        return 0;
    }
    if (STORE_CALL(w->s, job_commit_index, &held_job, &holder, &long_commit, e) == 0)
        return err_set(e, ERR_INTERNAL, "the lease was not stolen in time");
    return e->code == ERR_CONFLICT ? 0 : -1;
}

static void lease_lost_between_steps(struct world *w)
{
    enum { CHUNKS = 20000 };
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "long");
    struct store_candidates hits;
    struct str word = STR("word");
    struct store_chunk_new *k = arena_alloc(&w->a, CHUNKS * sizeof *k);
    for (int i = 0; i < CHUNKS; i++)
        k[i] = chunk_of("word");
    holder = uuid_v7();
    thief = uuid_v7();
    held_job = lease(w, &holder).id;
    long_commit = (struct store_index_commit){.chunks = k, .n = CHUNKS, .content_version = 1};
    in_parallel(w, 2, commit_long);
    ok(w, GET(w, search_candidates, &c, &word, NULL, 1, 100, &hits));
    same(w, hits.n, 0);
    same(w, document_of(w, &d.id).chunks, 0);
    long_commit.n = 2;
    ok(w, DO(w, job_commit_index, &held_job, &thief, &long_commit));
    ok(w, GET(w, search_candidates, &c, &word, NULL, 1, 100, &hits));
    same(w, hits.n, 2);
    same(w, collection_of(w, &c.id).chunks, 2);
}

/* A queue as long as the bound: the next call is refused at once, and nothing is lost of the others. */
static struct uuid crowded;
static int refused;

static int create_or_refuse(struct world *w, int i, struct arena *a, struct err *e)
{
    struct store_collection c = {.id = crowded};
    struct store_document_new in = new_document(&c, arena_printf(a, "text %d", i).p);
    struct store_document out;
    enum store_created what;
    struct store_job job;
    int rc = STORE_CALL(w->s, document_create, a, &in, &out, &what, &job, e);
    if (rc < 0 && e->code == ERR_OVERLOADED) {
        refused++;
        return 0;
    }
    return rc;
}

static void bounded_queue(struct world *w)
{
    store_close(w->s);
    struct config *cfg = config_for(w->url, "database.max_queue=10");
    ok(w, store_open(cfg, &w->s, &w->e));
    crowded = a_collection(w, "c").id;
    refused = 0;
    in_parallel(w, 25, create_or_refuse);
    same(w, refused, 15);
    same(w, collection_of(w, &crowded).documents, 10);
    store_close(w->s);
    config_free(cfg);
    reopen(w);
}

/* ---- many workers start on no database at all ---- */

static int child_status;

static void child_fiber(void *url)
{
    struct err e;
    struct store *s;
    struct config *cfg = config_for(url, NULL);
    if (store_open(cfg, &s, &e) < 0 || STORE_CALL(s, check, &e) < 0) {
        fprintf(stderr, "%s: %s\n", e.msg, e.log);
        child_status = 1;
    } else {
        store_close(s);
    }
    config_free(cfg);
    loop_stop();
}

static int child_main(char *url)
{
    struct err e;
    log_init(LOG_ERROR, false, "test");
    if (loop_init(&e) < 0 || !fiber_spawn("child", child_fiber, url))
        return 2;
    loop_run();
    return child_status;
}

static void opened_by_many_at_once(struct world *w)
{
    enum { CHILDREN = 6, ROUNDS = 12 };
    for (int round = 0; round < ROUNDS; round++) {
        struct str url = arena_printf(&w->a, "sqlite:%s/round%d/ragd.db", w->dir, round);
        pid_t pid[CHILDREN];
        int status;
        for (int i = 0; i < CHILDREN; i++)
            if ((pid[i] = fork()) == 0) {
                execl("/proc/self/exe", "test_sqlite", "--open", url.p, (char *)NULL);
                _exit(127);
            }
        for (int i = 0; i < CHILDREN; i++) {
            must(w, pid[i] > 0 && waitpid(pid[i], &status, 0) == pid[i]);
            same(w, status, 0);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--open") == 0)
        return child_main(argv[2]);
    struct contract_test tests[] = {
        TEST(opened_well),
        TEST(waits_for_a_lock),
        TEST(opened_by_many_at_once),
        TEST(long_reads_end_in_time),
        TEST(refuses_schemas),
        TEST(works_on_the_next_schema),
        TEST(refuses_other_files),
        TEST(bounded_queue),
        TEST(removes_long_documents_in_steps),
        TEST(lease_lost_between_steps),
        TEST(says_what_is_wrong_with_the_path),
    };
    return sqlite_main("sqlite", tests, sizeof tests / sizeof *tests, argc, argv);
}
