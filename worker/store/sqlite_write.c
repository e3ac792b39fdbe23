#include "worker/store/sqlite.h"
#include "common/clock.h"
#include "common/log.h"
#include <errno.h>
#include <stdlib.h>

enum {
    BATCH_MAX = 512,
    BATCH_MS = 20,  /* a batch takes no further writes after this, so that the loop turns */
    PATIENCE_S = 10 /* with a lock held by somebody else */
};

struct sqlite_write {
    struct list link;
    int (*fn)(struct sqlite *, void *, struct err *);
    void *arg;
    struct fiber *fiber;
    struct err err;
    int result;
    bool done;
};

static int gave_up(int why, struct err *e)
{
    return why == -ETIMEDOUT ? err_set(e, ERR_DEADLINE, "The database did not answer in time")
                             : err_set(e, ERR_CANCELED, "Canceled while waiting for the database");
}

suspends bool sqlite_again(struct sqlite *db, struct sqlite_retry *r, struct err *e)
{
    if (!db->busy)
        return false;
    db->busy = false;
    if (r->tries++ == 0)
        r->since = clock_ns();
    else if (clock_ns() - r->since > PATIENCE_S * SEC) {
        STAT_ADD(store_errors_total, 1);
        return false; /* `e` says so already */
    }
    int64_t most = (r->tries < 5 ? 1 << r->tries : 32) * MS; /* jitter keeps processes from meeting again */
    STAT_ADD(store_retries_total, 1);
    int rc = fiber_sleep(most / 4 + random() % most);
    if (rc < 0)
        gave_up(rc, e);
    return rc == 0;
}

static void finish(struct list *batch, const struct err *failure)
{
    struct list *l;
    while ((l = list_pop(batch))) {
        struct sqlite_write *w = list_entry(l, struct sqlite_write, link);
        if (failure) {
            w->result = -1;
            w->err = *failure;
        }
        w->done = true;
        fiber_wake(w->fiber);
    }
}

static struct sqlite_write *take(struct sqlite *db)
{
    struct list *l = list_pop(&db->writes);
    return l ? list_entry(l, struct sqlite_write, link) : NULL;
}

static void rollback(struct sqlite *db)
{
    if (!sqlite3_get_autocommit(db->h))
        sqlite3_exec(db->h, "ROLLBACK", NULL, NULL, NULL);
}

/* Undoes one write. False when SQLite has given up the whole transaction (full disk, I/O error). */
static bool undo(struct sqlite *db)
{
    return !sqlite3_get_autocommit(db->h) &&
           sqlite3_exec(db->h, "ROLLBACK TO one; RELEASE one", NULL, NULL, NULL) == SQLITE_OK;
}

static int mark(struct sqlite *db, const char *sql, struct err *e)
{
    return stmt_run(stmt_get(db, sql), e);
}

int sqlite_begin(struct sqlite *db, struct err *e)
{
    return mark(db, "BEGIN", e);
}

int sqlite_end(struct sqlite *db, int rc)
{
    bool busy = db->busy; /* of the call, whose error counts */
    struct err e;
    if (!sqlite3_get_autocommit(db->h) && mark(db, "COMMIT", &e) < 0)
        rollback(db);
    db->busy = busy;
    return rc;
}

/* One transaction, already begun, with what waits. Does not park. */
static void run_batch(struct sqlite *db)
{
    struct list batch;
    struct err e;
    int rows = 0;
    int64_t end = clock_ns() + BATCH_MS * MS;
    list_init(&batch);
    while (rows < BATCH_MAX && (rows == 0 || clock_ns() < end)) {
        struct sqlite_write *w = take(db);
        if (!w)
            break;
        rows++;
        list_add_tail(&batch, &w->link);
        w->result = mark(db, "SAVEPOINT one", &w->err) < 0 ? -1 : w->fn(db, w->arg, &w->err);
        if (w->result == 0)
            w->result = mark(db, "RELEASE one", &w->err);
        if (w->result < 0 && !undo(db)) {
            /* Only this one is guilty: the others start again, in the next transaction. */
            struct list alone;
            list_init(&alone);
            list_del(&w->link);
            list_add(&alone, &w->link);
            finish(&alone, NULL);
            list_splice_tail(&batch, &db->writes);
            list_splice_tail(&db->writes, &batch);
            rollback(db);
            return;
        }
    }
    STAT_ADD(store_batches_total, 1);
    STAT_ADD(store_batch_rows_total, (uint64_t)rows);
    if (mark(db, "COMMIT", &e) < 0) {
        rollback(db);
        db->busy = false;
        log_err(LOG_ERROR, "commit", &e);
        finish(&batch, &e);
        return;
    }
    finish(&batch, NULL);
}

/* The writer: lives while there is something to write. */
static suspends void writer(void *arg)
{
    struct sqlite *db = arg;
    struct err e;
    fiber_yield(); /* what else comes in this turn joins the transaction */
    while (!list_empty(&db->writes)) {
        struct sqlite_retry retry = {0};
        int rc;
        do
            rc = sqlite_ready(db, &e) < 0 ? -1 : mark(db, "BEGIN IMMEDIATE", &e);
        while (rc < 0 && sqlite_again(db, &retry, &e));
        if (rc < 0)
            finish(&db->writes, &e);
        else
            run_batch(db);
        if (!list_empty(&db->writes))
            fiber_yield();
    }
    db->writer = NULL;
}

suspends int sqlite_write(struct sqlite *db, int (*fn)(struct sqlite *, void *, struct err *), void *arg, struct err *e)
{
    struct sqlite_write w = {.fn = fn, .arg = arg, .fiber = fiber_self()};
    STAT_ADD(store_calls_total, 1);
    if (db->n_writes >= (size_t)db->cfg->database_max_queue)
        return err_set(e, ERR_OVERLOADED, "Too many calls wait for the database");
    list_add_tail(&db->writes, &w.link);
    if (!db->writer) {
        db->writer = fiber_spawn("sqlite writer", writer, db);
        if (!db->writer) {
            list_del(&w.link);
            return err_set(e, ERR_OVERLOADED, "Too many calls wait for the database");
        }
    }
    db->n_writes++;
    STAT_ADD(store_queue, 1);
    int rc = 0;
    while (!w.done && rc == 0)
        rc = fiber_park("sqlite write");
    db->n_writes--;
    STAT_SUB(store_queue, 1);
    if (!w.done) { /* nothing of it has happened */
        list_del(&w.link);
        return gave_up(rc, e);
    }
    if (w.result < 0 && e)
        *e = w.err;
    return w.result;
}
