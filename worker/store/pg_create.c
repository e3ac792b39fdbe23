/* How documents are created: group commit. Whatever waits goes out as one statement; what arrives while it is under way
 * is the next one. Nothing waits for a timer, and batches grow with the load. */
#include "worker/store/pg.h"
#include "common/clock.h"
#include "common/scoreboard.h"
#include <errno.h>
#include <stdlib.h>

enum { BATCH_MAX = 128, BATCH_BYTES = 4 << 20, ANNOUNCE_MS = 100 };

/* One document that is to be created, on the stack of its fiber. */
struct creation {
    struct list link; /* in pg_store.creating, until a batch takes it */
    const struct store_document_new *in;
    struct uuid id, job;
    struct fiber *fiber;
    enum { WAITING, TAKEN, INSERTED, LEFT_OUT, FAILED } state;
    int64_t no;
    struct err err;
};

/* ---- batches ---- */

static int by_hash(const void *a, const void *b)
{
    const struct creation *const *x = a, *const *y = b;
    return memcmp((*x)->in->sha256.b, (*y)->in->sha256.b, sizeof(struct sha256));
}

static void add_str(struct pg_array *x, struct str s)
{
    pg_array_add(x, s.p, s.n);
}

static void arguments(struct pg_args *args, struct creation *const *c, int n)
{
    enum { ID, COLLECTION, FILENAME, TITLE, MIME, LANGUAGE, METADATA, TAGS, SHA, CONTENT, JOB, US, UNIQUE, COLS };
    static const enum pg_type types[COLS] = {PG_UUID, PG_UUID,  PG_TEXT,  PG_TEXT, PG_TEXT, PG_TEXT, PG_TEXT,
                                             PG_TEXT, PG_BYTEA, PG_BYTEA, PG_UUID, PG_INT8, PG_BOOL};
    struct pg_array x[COLS];
    for (int i = 0; i < COLS; i++)
        pg_array_init(&x[i], types[i]);
    for (int i = 0; i < n; i++) {
        const struct store_document_new *in = c[i]->in;
        pg_array_add(&x[ID], c[i]->id.b, sizeof c[i]->id.b);
        pg_array_add(&x[COLLECTION], in->collection.b, sizeof in->collection.b);
        add_str(&x[FILENAME], in->filename);
        add_str(&x[TITLE], in->title);
        add_str(&x[MIME], in->mime);
        add_str(&x[LANGUAGE], in->language);
        add_str(&x[METADATA], in->metadata.n ? in->metadata : STR("{}"));
        add_str(&x[TAGS], in->tags.n ? in->tags : STR("[]"));
        pg_array_add(&x[SHA], in->sha256.b, sizeof in->sha256.b);
        add_str(&x[CONTENT], in->inline_bytes);
        pg_array_add(&x[JOB], c[i]->job.b, sizeof c[i]->job.b);
        pg_array_i64(&x[US], uuid_time_us(&c[i]->id));
        pg_array_add(&x[UNIQUE], in->on_duplicate == DUP_LINK ? "\0" : "\1", 1);
    }
    for (int i = 0; i < COLS; i++)
        pg_arg_array(args, &x[i]);
}

static suspends int insert(struct pg_store *s, struct creation **c, int n, struct err *e)
{
    struct arena a = {0};
    struct pg_args args;
    struct pg_rows r;
    if (s->closing)
        return err_set(e, ERR_CANCELED, "the server is stopping");
    pg_args_init(&args, &a);
    qsort(c, (size_t)n, sizeof *c, by_hash);
    arguments(&args, c, n);
    STAT_ADD(store_batches_total, 1);
    STAT_ADD(store_batch_rows_total, (uint64_t)n);
    int rc = pg_call(s->pg, S_DOCUMENT_INSERT, &args, &a, &r, e);
    for (int i = 0; rc == 0 && i < n; i++)
        c[i]->state = LEFT_OUT;
    for (int row = 0; rc == 0 && row < r.n; row++) {
        struct uuid id;
        pg_uuid(&r, row, 0, &id);
        for (int i = 0; i < n; i++)
            if (uuid_eq(&id, &c[i]->id)) {
                c[i]->no = pg_i64(&r, row, 1);
                c[i]->state = INSERTED;
                break;
            }
    }
    arena_fini(&a);
    return rc;
}

/* The guilty one of a batch that failed is found by sending its rows singly. When the database cannot be reached, that
 * would be in vain, and wrong after a commit whose answer was lost. */
static suspends void run_batch(struct pg_store *s, struct creation **c, int n)
{
    struct err e;
    bool ok = insert(s, c, n, &e) == 0;
    bool again = !ok && n > 1 && e.code != ERR_NOT_READY && e.code != ERR_OVERLOADED && e.code != ERR_CANCELED;
    for (int i = 0; !ok && i < n; i++) {
        struct err mine = e;
        if (again && insert(s, &c[i], 1, &mine) == 0)
            continue;
        c[i]->err = mine;
        c[i]->state = FAILED;
    }
    for (int i = 0; i < n; i++)
        fiber_wake(c[i]->fiber);
}

static int take_batch(struct pg_store *s, struct creation **c)
{
    size_t bytes = 0;
    int n = 0;
    while (n < BATCH_MAX && bytes < BATCH_BYTES && !list_empty(&s->creating)) {
        c[n] = list_entry(list_pop(&s->creating), struct creation, link);
        bytes += c[n]->in->inline_bytes.n;
        c[n++]->state = TAKEN;
        s->n_creating--;
    }
    s->batch_left = n;
    return n;
}

static bool start_batching(struct pg_store *s);

static suspends void batch_main(void *arg)
{
    struct pg_store *s = arg;
    struct creation *c[BATCH_MAX];
    int n;
    s->batcher = fiber_self();
    while (!fiber_check() && (n = take_batch(s, c)) > 0) {
        run_batch(s, c, n);
        pg_announce(s);
    }
    s->batching = false;
    if (!list_empty(&s->creating)) /* this fiber was cancelled with its batch: another one goes on */
        (void)start_batching(s);
    pg_store_release(s);
}

/* Waits at the end of the turn's fibers, so that all requests of this turn are in the batch. */
static suspends void batch_start(void *arg)
{
    fiber_yield();
    batch_main(arg);
}

static bool start_batching(struct pg_store *s)
{
    s->batching = true;
    s->refs++;
    if (fiber_spawn("postgres batch", batch_start, s))
        return true;
    s->refs--;
    s->batching = false; /* whoever comes next tries again */
    return false;
}

static int given_up(int rc, struct err *e)
{
    return rc == -ECANCELED ? err_set(e, ERR_CANCELED, "given up")
                            : err_set(e, ERR_DEADLINE, "the database did not answer in time");
}

/* Returns once the batch is durable. Until it is taken, the fiber may give up. */
static suspends int join_batch(struct pg_store *s, struct creation *c, struct err *e)
{
    bool shielded = false;
    if (s->n_creating >= s->cfg->database_max_queue)
        return err_set(e, ERR_OVERLOADED, "too many calls wait for the database");
    c->fiber = fiber_self();
    list_add_tail(&s->creating, &c->link);
    s->n_creating++;
    if (!s->batching && !start_batching(s)) {
        list_del(&c->link);
        s->n_creating--;
        return err_set(e, ERR_OVERLOADED, "too many requests at once");
    }
    while (c->state == WAITING || c->state == TAKEN) {
        int rc = fiber_park("group commit");
        if (rc == 0)
            continue;
        if (c->state == WAITING) {
            list_del(&c->link);
            s->n_creating--;
            return given_up(rc, e);
        }
        if (!shielded && --s->batch_left == 0)
            fiber_cancel(s->batcher); /* nobody wants it any more; whether it has happened is still waited for */
        if (!shielded)
            fiber_shield(1);
        shielded = true;
    }
    if (shielded)
        fiber_shield(-1);
    if (c->state == FAILED) {
        if (e)
            *e = c->err;
        return -1;
    }
    return 0;
}

/* ---- the cases that are not plain ---- */

static int outcome_error(int64_t outcome, const struct uuid *document, int64_t have,
                         const struct store_document_new *in, struct err *e)
{
    switch (outcome) {
    case -1: return err_set(e, ERR_NOT_FOUND, NO_COLLECTION);
    case -2: return wrong_version(have, in->if_version, e);
    case -3: return store_same_bytes(document, e);
    case -4: return store_external_id_taken(document, e);
    case -5:
        return err_set(e, ERR_CONFLICT, "Parts of the file are missing: %lld of %lld bytes are there", (long long)have,
                       (long long)in->bytes);
    case -7: return store_id_taken(document, e);
    default: return err_set(e, ERR_VERSION, "There is no such document yet");
    }
}

static void arg_file(struct pg_args *args, const struct store_document_new *in)
{
    arg_sha(args, &in->sha256);
    pg_arg_i64(args, in->bytes);
    if (in->inline_bytes.n == (size_t)in->bytes)
        pg_arg_str(args, in->inline_bytes);
    else
        pg_arg_null(args);
}

static void arg_described(struct pg_args *args, const struct store_document_new *in)
{
    pg_arg_uuid(args, &in->collection);
    pg_arg_opt(args, in->external_id);
    pg_arg_str(args, in->filename);
    pg_arg_str(args, in->title);
    pg_arg_str(args, in->mime);
    pg_arg_str(args, in->language);
    pg_arg_str(args, in->metadata);
    pg_arg_str(args, in->tags);
}

static void arg_given(struct pg_args *args, const struct store_given *g)
{
    struct pg_array ordinals, shas, vectors;
    pg_array_init(&ordinals, PG_INT8);
    pg_array_init(&shas, PG_BYTEA);
    pg_array_init(&vectors, PG_BYTEA);
    for (size_t i = 0; i < g->n; i++) {
        pg_array_i64(&ordinals, g->ordinal[i]);
        pg_array_add(&shas, g->sha[i].b, sizeof g->sha[i].b);
        pg_array_add(&vectors, g->v + i * (size_t)g->dim, (size_t)g->dim * sizeof *g->v);
    }
    pg_arg_str(args, g->model);
    pg_arg_array(args, &ordinals);
    pg_arg_array(args, &shas);
    pg_arg_array(args, &vectors);
}

static suspends int put(struct pg_store *s, struct arena *a, const struct creation *c, struct store_document *out,
                        enum store_created *what, struct store_job *job, struct err *e)
{
    const struct store_document_new *in = c->in;
    struct uuid id = uuid_v7(), job_id = uuid_v7(), document;
    struct pg_args args;
    struct pg_rows r;
    bool import = !uuid_is_zero(&in->id), given = in->given.n > 0;
    enum pg_statement put_as = given ? S_DOCUMENT_PUT_GIVEN : S_DOCUMENT_PUT,
                      import_as = given ? S_DOCUMENT_IMPORT_GIVEN : S_DOCUMENT_IMPORT;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, import ? &in->id : &id);
    if (import)
        pg_arg_i64(&args, in->content_version);
    arg_described(&args, in);
    arg_file(&args, in);
    pg_arg_uuid(&args, &job_id);
    if (import) {
        pg_arg_i64(&args, in->hold_us);
    } else {
        pg_arg_i64(&args, uuid_time_us(&id));
        pg_arg_i64(&args, in->on_duplicate);
        pg_arg_bool(&args, in->by_external_id);
        pg_arg_i64(&args, in->if_version);
    }
    if (given)
        arg_given(&args, &in->given);
    if (pg_call(s->pg, import ? import_as : put_as, &args, a, &r, e) < 0)
        return -1;
    int64_t outcome = pg_i64(&r, 0, 0);
    pg_uuid(&r, 0, 1, &document);
    if (outcome < 0)
        return outcome_error(outcome, &document, pg_i64(&r, 0, 3), in, e);
    if (READ_BACK(e, pg_document_get(&s->store, a, &document, out, e)) < 0)
        return -1;
    memset(job, 0, sizeof *job);
    if (pg_uuid(&r, 0, 2, &job_id)) {
        pg_announce(s);
        if (READ_BACK(e, pg_job_get(&s->store, a, &job_id, job, e)) < 0)
            return -1;
    }
    *what = (enum store_created[]){STORE_CREATED, STORE_DUPLICATE, STORE_UPDATED, STORE_UNCHANGED}[outcome];
    return 0;
}

static void describe(struct arena *a, const struct creation *c, struct store_document *out, struct store_job *job)
{
    const struct store_document_new *in = c->in;
    *out = (struct store_document){.id = c->id,
                                   .collection = in->collection,
                                   .no = c->no,
                                   .external_id = arena_dup(a, in->external_id),
                                   .filename = arena_dup(a, in->filename),
                                   .title = arena_dup(a, in->title),
                                   .mime = arena_dup(a, in->mime),
                                   .language = arena_dup(a, in->language),
                                   .metadata = in->metadata.n ? arena_dup(a, in->metadata) : STR("{}"),
                                   .tags = in->tags.n ? arena_dup(a, in->tags) : STR("[]"),
                                   .sha256 = in->sha256,
                                   .bytes = in->bytes,
                                   .version = 1,
                                   .content_version = 1,
                                   .updated_us = uuid_time_us(&c->id),
                                   .job = c->job};
    *job = (struct store_job){.id = c->job,
                              .type = STR("ingest"),
                              .payload = STR("{}"),
                              .has_document = true,
                              .document = c->id,
                              .has_collection = true,
                              .collection = in->collection,
                              .run_after_us = out->updated_us,
                              .updated_us = out->updated_us};
}

suspends int pg_document_create(struct store *st, struct arena *a, const struct store_document_new *in,
                                struct store_document *out, enum store_created *what, struct store_job *job,
                                struct err *e)
{
    struct pg_store *s = pg_of(st);
    struct creation c = {.in = in, .state = LEFT_OUT};
    bool plain = in->inline_bytes.n == (size_t)in->bytes && !in->by_external_id && !in->external_id.n &&
                 uuid_is_zero(&in->id) && !in->given.n;
    list_init(&c.link);
    if (plain) {
        c.state = WAITING;
        c.id = uuid_v7();
        c.job = uuid_v7();
        if (join_batch(s, &c, e) < 0)
            return -1;
    }
    if (c.state == LEFT_OUT)
        return put(s, a, &c, out, what, job, e);
    describe(a, &c, out, job);
    *what = STORE_CREATED;
    return 0;
}

/* ---- notices ----
 * NOTIFY takes a lock over the whole cluster from before a commit to after it, so it is kept out of the transactions that
 * create jobs. A notice that is lost with its worker is made up for by the poll of the ingest workers. */

static suspends void announce_main(void *arg)
{
    struct pg_store *s = arg;
    s->announcer = fiber_self();
    while (s->announce && !s->closing) {
        struct arena a = {0};
        struct pg_args args;
        struct pg_rows r;
        s->announce = false;
        pg_args_init(&args, &a);
        int rc = pg_call(s->pg, S_JOB_NOTIFY, &args, &a, &r, NULL);
        arena_fini(&a);
        if (rc < 0 || fiber_sleep(ANNOUNCE_MS * MS) < 0)
            break;
    }
    s->announcer = NULL;
    pg_store_release(s);
}

void pg_announce(struct pg_store *s)
{
    s->announce = true;
    if (s->announcer || s->closing)
        return;
    s->refs++;
    if (!fiber_spawn("postgres notify", announce_main, s))
        pg_store_release(s);
}
