/* What the store knows of vectors: revisions, generations, embeddings by hash, the outbox, and indexes in two steps. */
#include "tests/contract/contract.h"

enum { MAX = 100 };
#define LEASE_US (60 * 1000000LL)

static int64_t revision(struct world *w, const struct store_collection *c)
{
    return collection_of(w, &c->id).revision;
}

/* Takes all that is due, and says how much that was. */
static size_t take(struct world *w, struct store_outbox **rows)
{
    size_t n;
    ok(w, GET(w, outbox_take, LEASE_US, MAX, rows, &n));
    return n;
}

static void finish_all(struct world *w)
{
    struct store_outbox *rows;
    size_t n = take(w, &rows);
    for (size_t i = 0; i < n; i++)
        ok(w, DO(w, outbox_done, &rows[i].no, 1));
}

static void revisions(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "one"), other = a_document(w, &c, "two"), out;
    int64_t r = revision(w, &c), now;
    same(w, r, 0); /* what is not indexed is not found */
    index_document(w, &d.id, (const char *[]){"one"}, 1);
    must(w, (now = revision(w, &c)) > r);
    r = now;
    struct store_document_patch p = {.set_metadata = true, .metadata = STR("{\"a\":1}")};
    ok(w, GET(w, document_patch, &d.id, &p, 0, &out));
    must(w, (now = revision(w, &c)) > r);
    r = now;
    p = (struct store_document_patch){.set_title = true, .title = STR("T")};
    ok(w, GET(w, document_patch, &d.id, &p, 0, &out));
    must(w, (now = revision(w, &c)) > r);
    r = now;
    p = (struct store_document_patch){.set_tags = true, .tags = STR("[\"t\"]")};
    ok(w, GET(w, document_patch, &d.id, &p, 0, &out));
    must(w, (now = revision(w, &c)) > r);
    r = now;
    struct uuid owner = uuid_v7();
    bool cancel;
    struct store_job j = lease(w, &owner);
    ok(w, DO(w, job_renew, &j.id, &owner, LEASE_US, DOCUMENT_parsing, STR("x"), 1, 2, &cancel));
    same(w, revision(w, &c), r); /* progress is nothing that a search sees */
    ok(w, DO(w, document_delete, &d.id, 0));
    must(w, (now = revision(w, &c)) > r);
    r = now;
    /* the same content indexed again may have other chunks */
    struct store_document e = document_of(w, &other.id);
    struct store_chunk_new k = chunk_of("two");
    struct store_index_commit in = {.chunks = &k, .n = 1, .content_version = e.content_version, .text = STR("two")};
    ok(w, DO(w, job_commit_index, &j.id, &owner, &in));
    must(w, (now = revision(w, &c)) > r);
    r = now;
    ok(w, GET(w, document_reprocess, &other.id, &j));
    index_document(w, &other.id, (const char *[]){"due"}, 1);
    must(w, (now = revision(w, &c)) > r);
    same(w, document_of(w, &other.id).indexed_version, 1);
}

/* The index is committed first, and the job goes on until its vectors are there. */
static void in_two_steps(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "one");
    struct uuid owner = uuid_v7(), second = uuid_v7();
    struct store_job j = lease(w, &owner);
    struct store_chunk_new k = chunk_of("one");
    k.parent = (struct store_span){1, 2, 3, 4};
    struct store_index_commit in = {
        .chunks = &k, .n = 1, .content_version = 1, .text = STR("the text of it"), .vectors_due = true};
    same(w, j.committed, 0);
    ok(w, DO(w, job_commit_index, &j.id, &owner, &in));
    d = document_of(w, &d.id);
    must(w, d.state == DOCUMENT_indexing);
    same(w, d.indexed_version, 1);
    same(w, d.chunks, 1);
    must(w, job_of(w, &j.id).state == JOB_running);
    struct store_chunk *chunks;
    size_t n;
    ok(w, GET(w, document_chunks, &d.id, 0, 10, &chunks, &n));
    same(w, chunks[0].parent.char_start, 1);
    same(w, chunks[0].parent.byte_end, 4);
    struct str span;
    ok(w, GET(w, document_span, d.no, 4, 4, &span));
    same_str(w, span, "text");
    ok(w, GET(w, document_span, d.no, 12, 40, &span));
    same_str(w, span, "it");
    /* the worker dies here: whoever takes the job knows how far it came */
    ok(w, DO(w, job_put_back, &j.id, &owner, 0, false, STR("not_ready"), STR("embed"), STR("the embedder is away")));
    d = document_of(w, &d.id);
    same_str(w, d.error_message, "the embedder is away");
    j = lease(w, &second);
    same(w, j.committed, 1);
    fails(w, ERR_CONFLICT,
          DO(w, job_finish, &j.id, &owner, JOB_succeeded, STR(""), STR(""), STR(""),
             0)); /* the first one's lease is lost */
    int64_t r = revision(w, &c);
    ok(w, DO(w, job_finish, &j.id, &second, JOB_succeeded, STR(""), STR(""), STR(""), 0));
    d = document_of(w, &d.id);
    must(w, d.state == DOCUMENT_ready);
    same_str(w, d.error_message, "");
    same(w, d.progress_done, 1);
    must(w, revision(w, &c) > r); /* a vector search finds it now */
    must(w, job_of(w, &j.id).state == JOB_succeeded);
}

/* Other content came between the two steps: it is indexed next, and the first does not pass for it. */
static void overtaken(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document_new in = new_document(&c, "one");
    struct store_document d;
    enum store_created what;
    struct store_job j;
    struct uuid owner = uuid_v7();
    in.by_external_id = true;
    in.external_id = STR("x");
    ok(w, GET(w, document_create, &in, &d, &what, &j));
    j = lease(w, &owner);
    struct store_chunk_new k = chunk_of("one");
    struct store_index_commit commit = {
        .chunks = &k, .n = 1, .content_version = 1, .text = STR("one"), .vectors_due = true};
    ok(w, DO(w, job_commit_index, &j.id, &owner, &commit));
    struct store_document_new next = new_document(&c, "another");
    next.by_external_id = true;
    next.external_id = STR("x");
    ok(w, GET(w, document_create, &next, &d, &what, &j));
    must(w, what == STORE_UPDATED);
    ok(w, DO(w, job_finish, &j.id, &owner, JOB_succeeded, STR(""), STR(""), STR(""), 0));
    must(w, job_of(w, &j.id).state == JOB_queued);
    d = document_of(w, &d.id);
    must(w, d.state == DOCUMENT_queued);
    same(w, d.content_version, 2);
    same(w, d.indexed_version, 1);
}

static void embeddings(struct world *w)
{
    float v[3][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 0.5f, 0.25f}};
    struct sha256 sha[4];
    const float *out[4];
    int dim = 0;
    for (int i = 0; i < 4; i++)
        sha256_of(&i, sizeof i, &sha[i]);
    ok(w, DO(w, embeddings_put, STR("m"), 4, sha, 3, &v[0][0]));
    ok(w, GET(w, embeddings_get, STR("m"), &dim, 0, 0, sha, 4, out));
    same(w, dim, 4);
    must(w, out[0] && out[1] && out[2] && !out[3]);
    must(w, memcmp(out[2], v[2], sizeof v[2]) == 0);
    ok(w, GET(w, embeddings_get, STR("another"), &dim, 0, 0, sha, 4, out));
    must(w, !out[0] && !out[2]);
    dim = 8; /* vectors of another length are of no use */
    ok(w, GET(w, embeddings_get, STR("m"), &dim, 0, 0, sha, 4, out));
    must(w, !out[0]);
    dim = 4;
    ok(w, DO(w, embeddings_put, STR("m"), 4, sha, 1, v[1])); /* again: the last one counts */
    ok(w, GET(w, embeddings_get, STR("m"), &dim, 0, 0, sha, 1, out));
    must(w, out[0] && memcmp(out[0], v[1], sizeof v[1]) == 0);

    /* the sweep goes round in steps, and spares what is young or in use */
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "one");
    index_document(w, &d.id, (const char *[]){"one"}, 1);
    struct store_chunk_new k = chunk_of("one");
    ok(w, DO(w, embeddings_put, STR("m"), 4, &k.sha256, 1, v[0]));
    ok(w, DO(w, collection_set_embedder, &c.id, STR("m"), 4));
    ok(w, DO(w, document_embedded, d.no));
    struct sha256 cursor = {{0}};
    int64_t removed, all = 0;
    int rounds = 0;
    do {
        ok(w, DO(w, embeddings_sweep, &cursor, 2, &removed));
        all += removed;
        rounds++;
    } while (memcmp(&cursor, &(struct sha256){{0}}, sizeof cursor) != 0);
    same(w, all, 0);
    must(w, rounds >= 2);
    behind_its_back(w, "UPDATE embeddings SET touched_us = 1", "UPDATE embeddings SET touched_us = 1");
    do {
        ok(w, DO(w, embeddings_sweep, &cursor, 2, &removed));
        all += removed;
    } while (memcmp(&cursor, &(struct sha256){{0}}, sizeof cursor) != 0);
    same(w, all, 3);
    ok(w, GET(w, embeddings_get, STR("m"), &dim, 0, 0, &k.sha256, 1, out));
    must(w, out[0]);
}

static void one_embedder(struct world *w)
{
    struct store_collection c = a_collection(w, "papers"), now;
    same(w, c.generation, 1);
    same_str(w, c.embedder, "");
    ok(w, DO(w, collection_set_embedder, &c.id, STR("m"), 4));
    now = collection_of(w, &c.id);
    same_str(w, now.embedder, "m");
    same(w, now.dim, 4);
    ok(w, DO(w, collection_set_embedder, &c.id, STR("m"), 4));
    fails(w, ERR_CONFLICT, DO(w, collection_set_embedder, &c.id, STR("m"), 8));
    fails(w, ERR_CONFLICT, DO(w, collection_set_embedder, &c.id, STR("n"), 4));
    must(w, strstr(w->e.msg, "ragd reindex papers"));
}

static void generations(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_outbox *rows;
    ok(w, DO(w, collection_set_embedder, &c.id, STR("m"), 4));
    ok(w, GET(w, shadow_begin, &c.id, STR("n"), 8, &c));
    same(w, c.generation, 1);
    same(w, c.shadow.no, 2);
    same_str(w, c.shadow.embedder, "n");
    ok(w, GET(w, shadow_begin, &c.id, STR("n"), 8, &c)); /* a job that is tried again goes on */
    same(w, c.shadow.no, 2);
    fails(w, ERR_CONFLICT, GET(w, shadow_begin, &c.id, STR("o"), 8, &c));
    fails(w, ERR_CONFLICT, GET(w, generation_flip, &c.id, 2, &c)); /* not complete */
    fails(w, ERR_CONFLICT, DO(w, shadow_built, &c.id, 3));
    ok(w, DO(w, shadow_built, &c.id, 2));
    int64_t r = revision(w, &c);
    ok(w, GET(w, generation_flip, &c.id, 2, &c));
    same(w, c.generation, 2);
    same_str(w, c.embedder, "n");
    same(w, c.dim, 8);
    same(w, c.previous.no, 1);
    same(w, c.shadow.no, 0);
    must(w, c.revision > r && !c.incomplete);
    ok(w, GET(w, generation_flip, &c.id, 2, &c)); /* again: nothing to do */
    same(w, c.generation, 2);
    same(w, take(w, &rows), 1); /* the whole space has something to tell */
    must(w, rows[0].kind == OUTBOX_describe && rows[0].document_no == 0);
    same(w, rows[0].generation * 10 + rows[0].dim, 28);
    same_id(w, rows[0].collection, c.id);
    ok(w, DO(w, outbox_done, &rows[0].no, 1));
    ok(w, GET(w, generation_flip, &c.id, 1, &c)); /* back */
    same(w, c.generation, 1);
    same_str(w, c.embedder, "m");
    same(w, c.previous.no, 2);
    must(w, collection_of(w, &c.id).incomplete); /* until somebody has looked */
    fails(w, ERR_CONFLICT, GET(w, generation_flip, &c.id, 7, &c));
    same(w, take(w, &rows), 1);
    must(w, rows[0].kind == OUTBOX_put && rows[0].document_no == 0);
    same(w, rows[0].generation * 10 + rows[0].dim, 14);
    same_id(w, rows[0].collection, c.id);
    ok(w, DO(w, outbox_done, &rows[0].no, 1));

    /* the third takes the place of the second, which is dropped; numbers do not come back */
    ok(w, GET(w, shadow_begin, &c.id, STR("o"), 2, &c));
    same(w, c.shadow.no, 3);
    ok(w, DO(w, generation_drop, &c.id, 3));
    ok(w, GET(w, shadow_begin, &c.id, STR("o"), 2, &c));
    same(w, c.shadow.no, 4);
    ok(w, DO(w, shadow_built, &c.id, 4));
    ok(w, GET(w, generation_flip, &c.id, 4, &c));
    same(w, c.previous.no, 1);
    same(w, take(w, &rows), 3);
    must(w, rows[0].kind == OUTBOX_drop && rows[1].kind == OUTBOX_drop && rows[2].kind == OUTBOX_describe);
    same(w, rows[0].generation + rows[1].generation, 5);
    same(w, rows[0].document_no, 0);
    same(w, take(w, &rows), 0); /* leased */
    ok(w, DO(w, generation_drop, &c.id, 1));
    fails(w, ERR_CONFLICT, DO(w, generation_drop, &c.id, 1));
    fails(w, ERR_CONFLICT, DO(w, generation_drop, &c.id, 4));
    c = collection_of(w, &c.id);
    same(w, c.previous.no, 0);
}

static void outbox(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "one"), out;
    struct store_document_patch p = {.set_metadata = true, .metadata = STR("{\"a\":1}")};
    struct store_outbox *rows;
    int64_t left;
    index_document(w, &d.id, (const char *[]){"one"}, 1);
    ok(w, GET(w, document_patch, &d.id, &p, 0, &out));
    same(w, take(w, &rows), 0); /* without vectors there is nobody to tell */
    ok(w, DO(w, collection_set_embedder, &c.id, STR("m"), 4));
    finish_all(w);
    ok(w, GET(w, shadow_begin, &c.id, STR("n"), 8, &c));
    p.metadata = STR("{\"a\":2}");
    ok(w, GET(w, document_patch, &d.id, &p, 0, &out));
    ok(w, GET(w, document_patch, &d.id, &p, 0, &out)); /* changes nothing */
    same(w, take(w, &rows), 2);                        /* one for each space */
    must(w, rows[0].kind == OUTBOX_describe);
    same(w, rows[0].document_no, d.no);
    same(w, rows[0].collection_no, c.no);
    same(w, rows[0].tries, 1);
    same_id(w, rows[0].document, d.id);
    same_id(w, rows[0].collection, c.id);
    same(w, rows[0].generation * 10 + rows[0].dim + rows[1].generation * 10 + rows[1].dim, 42);
    int64_t r = revision(w, &c), now;
    ok(w, DO(w, outbox_done, (int64_t[]){rows[0].no, rows[1].no}, 2));
    must(w, (now = revision(w, &c)) > r); /* a filter of the index finds it from now on */
    r = now;
    ok(w, DO(w, outbox_count, &left));
    same(w, left, 0);

    /* a further version of the same bytes: the index holds the earlier one */
    struct store_document_new again = new_document(&c, "one");
    enum store_created what;
    struct store_job j;
    again.on_duplicate = DUP_VERSION;
    again.metadata = again.tags = STR("");
    ok(w, GET(w, document_create, &again, &out, &what, &j));
    same(w, out.indexed_version, 2);
    same(w, take(w, &rows), 2);
    must(w, rows[0].kind == OUTBOX_put);
    must(w, (now = revision(w, &c)) > r);
    ok(w, DO(w, outbox_done, (int64_t[]){rows[0].no, rows[1].no}, 2));
    must(w, revision(w, &c) > now);

    /* queued by hand, leased, and due again when nobody finished it */
    ok(w, DO(w, outbox_add, rows, 1));
    same(w, take(w, &rows), 1);
    behind_its_back(w, "UPDATE vector_outbox SET due_us = 1", "UPDATE vector_outbox SET due_us = 1");
    same(w, take(w, &rows), 1);
    same(w, rows[0].tries, 2);
    behind_its_back(w, "UPDATE vector_outbox SET due_us = 1, tries = 9",
                    "UPDATE vector_outbox SET due_us = 1, tries = 9");
    same(w, take(w, &rows), 1); /* what fails again and again is tried less often */
    behind_its_back(w, "UPDATE vector_outbox SET due_us = due_us - 1200000000",
                    "UPDATE vector_outbox SET due_us = due_us - 1200000000");
    same(w, take(w, &rows), 0);
    behind_its_back(w, "UPDATE vector_outbox SET due_us = due_us - 1200000000",
                    "UPDATE vector_outbox SET due_us = due_us - 1200000000");
    same(w, take(w, &rows), 1);
    ok(w, DO(w, outbox_done, &rows[0].no, 1));

    ok(w, DO(w, document_delete, &d.id, 0));
    same(w, take(w, &rows), 2);
    must(w, rows[0].kind == OUTBOX_remove);
    same(w, rows[0].document_no, d.no);
    ok(w, DO(w, outbox_done, (int64_t[]){rows[0].no, rows[1].no}, 2));

    /* a collection goes as a whole */
    a_document(w, &c, "two");
    ok(w, GET(w, collection_delete, &c.id, 0, &j));
    ok(w, DO(w, collection_purge, &c.id, 10, &left));
    same(w, left, 0);
    same(w, take(w, &rows), 2);
    must(w, rows[0].kind == OUTBOX_drop && rows[1].kind == OUTBOX_drop);
}

/* Documents that have no vectors, while their collection has, wait in the outbox; until then it is not complete. */
static void without_vectors(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document early = a_document(w, &c, "one");
    struct store_outbox *rows;
    index_document(w, &early.id, (const char *[]){"one"}, 1);
    a_document(w, &c, "not indexed");
    struct uuid owner = uuid_v7();
    struct store_job j = lease(w, &owner);
    must(w, !collection_of(w, &c.id).incomplete);
    ok(w, DO(w, collection_set_embedder, &c.id, STR("m"), 4));
    must(w, collection_of(w, &c.id).incomplete);
    same(w, take(w, &rows), 1);
    must(w, rows[0].kind == OUTBOX_put && rows[0].document_no == early.no && rows[0].generation == 1);
    same_id(w, rows[0].document, early.id);
    same_id(w, rows[0].collection, c.id);
    same(w, rows[0].dim, 4);
    must(w, collection_of(w, &c.id).incomplete); /* leased */
    ok(w, DO(w, outbox_done, &rows[0].no, 1));
    must(w, !collection_of(w, &c.id).incomplete);

    struct store_chunk_new k = chunk_of("two"); /* its vectors come with its job */
    struct store_index_commit in = {
        .chunks = &k, .n = 1, .content_version = 1, .text = STR("two"), .vectors_due = true};
    ok(w, DO(w, job_commit_index, &j.id, &owner, &in));
    ok(w, DO(w, job_finish, &j.id, &owner, JOB_succeeded, STR(""), STR(""), STR(""), 0));
    same(w, take(w, &rows), 0);
    struct store_document late = a_document(w, &c, "three"); /* nobody was there to make them */
    index_document(w, &late.id, (const char *[]){"three"}, 1);
    must(w, collection_of(w, &c.id).incomplete);
    same(w, take(w, &rows), 1);
    must(w, rows[0].kind == OUTBOX_put && rows[0].document_no == late.no);
}

/* ---- two transactions that do not see each other ---- */

struct beside { /* a verb on a fiber of its own */
    struct world *w;
    struct fiber *parent;
    const struct uuid *collection, *job, *owner;
    struct err e;
    int rc;
    bool over;
};

static void set_the_embedder(void *arg)
{
    struct beside *x = arg;
    x->rc = STORE_CALL(x->w->s, collection_set_embedder, x->collection, STR("m"), 4, &x->e);
    x->over = true;
    fiber_wake(x->parent);
}

static void begin_a_shadow(void *arg)
{
    struct beside *x = arg;
    struct arena a = {0};
    struct store_collection c;
    x->rc = STORE_CALL(x->w->s, shadow_begin, &a, x->collection, STR("m"), 4, &c, &x->e);
    arena_fini(&a);
    x->over = true;
    fiber_wake(x->parent);
}

static void commit_the_index(void *arg)
{
    struct beside *x = arg;
    struct store_chunk_new k = chunk_of("one");
    struct store_index_commit in = {.chunks = &k, .n = 1, .content_version = 1, .text = STR("one")};
    x->rc = STORE_CALL(x->w->s, job_commit_index, x->job, x->owner, &in, &x->e);
    x->over = true;
    fiber_wake(x->parent);
}

static void pg_do(struct world *w, PGconn *c, const char *sql)
{
    PGresult *r = PQexec(c, sql);
    if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK)
        fail_at(w, __LINE__, "%s: %s", sql, PQerrorMessage(c));
    PQclear(r);
}

/* `first` has been begun in a session of its own; `second` must wait for it, and then see it. */
static void after_another(struct world *w, const char *first, void (*second)(void *), struct beside *x)
{
    PGconn *c = PQconnectdb(w->url);
    bool waits = false;
    x->parent = fiber_self();
    pg_do(w, c, "BEGIN");
    pg_do(w, c, first);
    must(w, fiber_spawn("second", second, x));
    for (int64_t until = clock_ns() + 30 * SEC; !waits;) {
        must(w, !x->over && clock_ns() < until);
        PGresult *r = PQexec(c, "SELECT 1 FROM pg_locks WHERE NOT granted");
        waits = PQntuples(r) > 0;
        PQclear(r);
        fiber_sleep(5 * MS);
    }
    pg_do(w, c, "COMMIT");
    PQfinish(c);
    while (!x->over)
        must(w, fiber_park("the second") == 0);
    if (x->rc)
        fail_at(w, __LINE__, "%s", x->e.msg);
}

/* A space that comes into being while a document is indexed without vectors: whichever of them is first, the outbox, or
 * whoever builds the space, knows of the document. */
static void spaces_beside_commits(struct world *w)
{
    struct store_outbox *rows;
    char sql[900], id[UUID_TEXT_LEN + 1] = {0}, job[UUID_TEXT_LEN + 1] = {0}, by[UUID_TEXT_LEN + 1] = {0};
    if (w->sqlite)
        return; /* one writer at a time */
    for (int i = 0; i < 3; i++) {
        struct store_collection c = a_collection(w, (const char *[]){"a", "b", "c"}[i]);
        struct store_document d = a_document(w, &c, "one");
        struct uuid owner = uuid_v7();
        struct store_job j = lease(w, &owner);
        struct beside x = {.w = w, .collection = &c.id, .job = &j.id, .owner = &owner};
        uuid_text(&c.id, id), uuid_text(&j.id, job), uuid_text(&owner, by);
        if (i == 0)
            snprintf(sql, sizeof sql,
                     "UPDATE collections SET embedder = 'm', dim = 4 WHERE no = (SELECT no FROM "
                     "collections WHERE id = '%s' FOR UPDATE)",
                     id);
        else
            snprintf(
                sql, sizeof sql,
                "SELECT ragd_index_commit('%s', '%s', 1, '', '', '', 0, '{one}', ARRAY[gen_random_uuid()], '{one}', "
                "'{[]}', ARRAY[sha256('one')], '{1}', '{0}', '{0}', '{3}', '{0}', '{3}', '{one:1}')",
                job, by);
        after_another(w, sql, i == 0 ? commit_the_index : i == 1 ? set_the_embedder : begin_a_shadow, &x);
        d = document_of(w, &d.id);
        same(w, d.indexed_version, 1);
        if (i == 2) { /* the builder looks at all documents that are indexed by then */
            same(w, collection_of(w, &c.id).shadow.no, 2);
            continue;
        }
        same(w, take(w, &rows), 1);
        must(w, rows[0].kind == OUTBOX_put && rows[0].document_no == d.no && rows[0].generation == 1);
        ok(w, DO(w, outbox_done, &rows[0].no, 1));
    }
}

/* What is indexed outlives an update that failed, and so do its points. */
static void kept(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document_new in = new_document(&c, "one"), next = new_document(&c, "other");
    struct store_document d;
    struct store_outbox *rows;
    enum store_created what;
    struct store_job j;
    struct uuid owner = uuid_v7();
    ok(w, DO(w, collection_set_embedder, &c.id, STR("m"), 4));
    in.by_external_id = next.by_external_id = true;
    in.external_id = next.external_id = STR("x");
    ok(w, GET(w, document_create, &in, &d, &what, &j));
    index_document(w, &d.id, (const char *[]){"one"}, 1);
    finish_all(w);
    ok(w, GET(w, document_create, &next, &d, &what, &j));
    j = lease(w, &owner);
    ok(w, DO(w, job_finish, &j.id, &owner, JOB_failed, STR("bad"), STR("parse"), STR("m"), 0));
    same(w, document_of(w, &d.id).indexed_version, 1);
    same(w, take(w, &rows), 0);
}

static void by_number(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "one"), b = a_document(w, &c, "two"), out[3];
    ok(w, DO(w, document_delete, &a.id, 0));
    ok(w, GET(w, documents_by_no, (int64_t[]){b.no, a.no, b.no}, 3, out));
    same_id(w, out[0].id, b.id);
    same(w, out[1].no, 0);
    same_id(w, out[2].id, b.id);
}

static void imported(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document_new in = new_document(&c, "one");
    struct store_document d;
    enum store_created what;
    struct store_job j, mine;
    struct uuid owner = uuid_v7(), other = uuid_v7();
    in.id = uuid_v7();
    in.content_version = 7;
    in.hold_us = LEASE_US;
    in.external_id = STR("x");
    ok(w, GET(w, document_create, &in, &d, &what, &j));
    same_id(w, d.id, in.id);
    same(w, d.content_version, 7);
    fails(w, ERR_CONFLICT, GET(w, document_create, &in, &d, &what, &mine));
    struct store_document_new same_name = in;
    same_name.id = uuid_v7();
    fails(w, ERR_CONFLICT, GET(w, document_create, &same_name, &d, &what, &mine));
    size_t found;
    ok(w, GET(w, job_lease, &other, LEASE_US, 1, &mine, &found));
    same(w, found, 0);
    ok(w, GET(w, job_claim, &j.id, &owner, LEASE_US, &mine));
    must(w, mine.state == JOB_running);
    fails(w, ERR_CONFLICT, GET(w, job_claim, &j.id, &other, LEASE_US, &mine));
    struct store_chunk_new k = chunk_of("one");
    struct store_index_commit commit = {.chunks = &k, .n = 1, .content_version = 7, .text = STR("one")};
    ok(w, DO(w, job_commit_index, &j.id, &owner, &commit));
    struct uuid id = store_chunk_id(&in.id, 7, 0);
    struct store_chunk chunk;
    ok(w, GET(w, chunk_get, &id, &chunk));
    same_str(w, chunk.text, "one");
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(revisions),    TEST(in_two_steps), TEST(overtaken),       TEST(embeddings),
        TEST(one_embedder), TEST(generations),  TEST(outbox),          TEST(kept),
        TEST(by_number),    TEST(imported),     TEST(without_vectors), TEST(spaces_beside_commits),
    };
    return contract_main("store: vectors", tests, sizeof tests / sizeof *tests, argc, argv);
}
