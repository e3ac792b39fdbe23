/* Jobs: leases, progress, ends, cancellation, retries; the new index of a document; idempotency keys. */
#include "tests/contract/contract.h"

static const struct uuid me = {{1}}, you = {{2}};
#define SECOND 1000000LL

static void one_holder_at_a_time(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a"), b = a_document(w, &c, "b");
    struct store_job j, k, none;
    size_t found;
    bool cancel;
    j = lease(w, &me);
    same_id(w, j.document, a.id); /* the oldest first */
    same(w, j.state, JOB_running);
    same(w, j.attempts, 1);
    must(w, j.lease_expires_us > clock_wall_us() && j.started_us > 0);
    k = lease(w, &you);
    same_id(w, k.document, b.id);
    ok(w, GET(w, job_lease, &you, SECOND, 1, &none, &found));
    must(w, !found);

    ok(w, DO(w, job_renew, &j.id, &me, 60 * SECOND, DOCUMENT_chunking, STR("chunking"), 3, 10, &cancel));
    must(w, !cancel);
    struct store_document d = document_of(w, &a.id);
    same(w, d.state, DOCUMENT_chunking);
    same(w, d.progress_done, 3);
    same(w, d.progress_total, 10);
    must(w, d.version > a.version);
    j = job_of(w, &j.id);
    same_str(w, j.stage, "chunking");
    same(w, j.done, 3);
    same(w, j.total, 10);

    fails(w, ERR_CONFLICT, DO(w, job_renew, &j.id, &you, SECOND, DOCUMENT_chunking, STR("x"), 0, 0, &cancel));
    fails(w, ERR_CONFLICT, DO(w, job_finish, &j.id, &you, JOB_failed, STR("x"), STR("x"), STR("x"), 0));
    fails(w, ERR_CONFLICT, DO(w, job_put_back, &j.id, &you, 0, true, STR(""), STR(""), STR("")));
    struct store_index_commit in = {.content_version = 1};
    fails(w, ERR_CONFLICT, DO(w, job_commit_index, &j.id, &you, &in));
    same(w, document_of(w, &a.id).state, DOCUMENT_chunking);
}

/* PostgreSQL keeps the row of a job locked while its index is committed. A renewal meanwhile must not wait: all writes of
 * the worker would wait with it. */
static void renewal_does_not_wait(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    char id[UUID_TEXT_LEN + 1] = "", sql[200];
    bool cancel;
    if (w->sqlite)
        return;
    a_document(w, &c, "a");
    struct store_job j = lease(w, &me);
    uuid_text(&j.id, id);
    snprintf(sql, sizeof sql, "BEGIN; UPDATE jobs SET state = 2, owner = NULL WHERE id = '%s'", id);
    PGconn *other = PQconnectdb(w->url);
    PQclear(PQexec(other, sql));
    must(w, PQtransactionStatus(other) == PQTRANS_INTRANS);
    int64_t begin = clock_ns();
    ok(w, DO(w, job_renew, &j.id, &me, 60 * SECOND, DOCUMENT_indexing, STR("index"), 0, 1, &cancel));
    must(w, !cancel && clock_ns() - begin < 10 * SEC); /* of the 30 s that a statement may take */
    PQclear(PQexec(other, "COMMIT"));
    PQfinish(other);
    fails(w, ERR_CONFLICT, DO(w, job_renew, &j.id, &me, SECOND, DOCUMENT_indexing, STR("index"), 0, 1, &cancel));
}

/* Workers' clocks may be ahead of the database's; new jobs do not wait for that. */
static void clocks_apart(struct world *w)
{
    struct store_collection c = a_collection(w, "c"), gone = a_collection(w, "gone");
    struct store_job made, j;
    if (w->sqlite)
        return;
    behind_its_back(w, NULL,
                    "CREATE OR REPLACE FUNCTION ragd_now() RETURNS bigint LANGUAGE sql VOLATILE AS "
                    "'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 600000000'");
    struct store_document_new linked = new_document(&c, "a");
    struct store_document a = a_document(w, &c, "a"), d;
    enum store_created what;
    linked.external_id = STR("x");
    linked.by_external_id = true;
    ok(w, GET(w, document_create, &linked, &d, &what, &made));
    ok(w, GET(w, job_create, STR("delete_documents"), &c.id, STR("{}"), &made));
    ok(w, GET(w, collection_delete, &gone.id, 0, &made));
    j = lease(w, &me);
    same_id(w, j.document, a.id);
    for (int i = 0; i < 3; i++)
        lease(w, &me);
}

static void expired_lease(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a");
    struct store_job j, k;
    size_t found;
    bool cancel;
    ok(w, GET(w, job_lease, &me, 20000, 1, &j, &found));
    must(w, found);
    for (found = 0; !found;) { /* 20 ms later it is somebody else's */
        must(w, clock_wall_us() < j.lease_expires_us + 10 * SECOND);
        ok(w, GET(w, job_lease, &you, 60 * SECOND, 1, &k, &found));
    }
    must(w, clock_wall_us() >= j.lease_expires_us);
    same_id(w, k.id, j.id);
    same(w, k.attempts, 2);
    fails(w, ERR_CONFLICT, DO(w, job_renew, &j.id, &me, SECOND, DOCUMENT_parsing, STR("x"), 0, 0, &cancel));
    struct store_index_commit in = {.content_version = 1};
    fails(w, ERR_CONFLICT, DO(w, job_commit_index, &j.id, &me, &in));
    ok(w, DO(w, job_commit_index, &k.id, &you, &in));
    same(w, document_of(w, &a.id).state, DOCUMENT_ready);
}

/* The next jobs: so many, the first one about this document. */
static void lease_many(struct world *w, size_t most, size_t n, const struct uuid *document, struct store_job *j)
{
    size_t found;
    ok(w, GET(w, job_lease, &me, 60 * SECOND, most, j, &found));
    same(w, found, n);
    if (document)
        same_id(w, j[0].document, *document);
}

/* First tries of small documents, in the order of the queue, up to whatever is not. */
static void small_ones_are_leased_together(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a"), b = a_document(w, &c, "b"), d = a_document(w, &c, "d"), big;
    struct store_document_new in = new_document(&c, "");
    struct store_job j[5] = {lease(w, &me)};
    enum store_created what;
    static char bytes[STORE_LIGHT + 1];
    same_id(w, j[0].document, a.id);
    ok(w, DO(w, job_put_back, &j[0].id, &me, 0, true, STR("oops"), STR("parsing"), STR("m"))); /* behind the others */
    lease_many(w, 2, 2, &b.id, j);
    same_id(w, j[1].document, d.id);
    for (int i = 0; i < 2; i++) /* each is its holder's */
        ok(w, DO(w, job_finish, &j[i].id, &me, JOB_succeeded, STR(""), STR(""), STR(""), 0));
    memset(bytes, 'x', sizeof bytes);
    in.inline_bytes = (struct str){bytes, sizeof bytes};
    in.bytes = sizeof bytes;
    sha256_of(bytes, sizeof bytes, &in.sha256);
    ok(w, GET(w, document_create, &in, &big, &what, &j[0]));
    struct store_document e = a_document(w, &c, "e"), f = a_document(w, &c, "f");
    lease_many(w, 5, 1, &a.id, j); /* a second try */
    same(w, j[0].attempts, 2);
    lease_many(w, 5, 1, &big.id, j);
    lease_many(w, 5, 2, &e.id, j);
    same_id(w, j[1].document, f.id);
    lease_many(w, 5, 0, NULL, j);
}

static void failure_and_retry(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a"), d;
    struct store_job j = lease(w, &me), out;
    size_t found;
    /* put back: due later, its try counted or not */
    ok(w, DO(w, job_put_back, &j.id, &me, 3600 * SECOND, true, STR("oops"), STR("parsing"), STR("m")));
    ok(w, GET(w, job_lease, &me, SECOND, 1, &out, &found));
    must(w, !found);
    out = job_of(w, &j.id);
    same(w, out.state, JOB_queued);
    same(w, out.attempts, 1);
    same_str(w, out.error_code, "oops");
    must(w, out.run_after_us > clock_wall_us() + 3000 * SECOND);
    same(w, document_of(w, &a.id).state, DOCUMENT_queued);
    behind_its_back(w, "UPDATE jobs SET due_us = 1", "UPDATE jobs SET due_us = 1");
    j = lease(w, &me);
    same(w, j.attempts, 2);
    ok(w, DO(w, job_put_back, &j.id, &me, 0, false, STR(""), STR(""), STR("")));
    same(w, job_of(w, &j.id).attempts, 1);
    j = lease(w, &me);
    same(w, j.attempts, 2);

    ok(w, DO(w, job_finish, &j.id, &me, JOB_failed, STR("invalid_file"), STR("parsing"), STR("no good"), 7));
    d = document_of(w, &a.id);
    same(w, d.state, DOCUMENT_failed);
    same_str(w, d.error_code, "invalid_file");
    same_str(w, d.error_stage, "parsing");
    same_str(w, d.error_message, "no good");
    same(w, d.error_page, 7);
    out = job_of(w, &j.id);
    same(w, out.state, JOB_failed);
    same_str(w, out.error_message, "no good");
    must(w, out.finished_us > 0);
    fails(w, ERR_CONFLICT, DO(w, job_finish, &j.id, &me, JOB_failed, STR(""), STR(""), STR(""), 0));
    fails(w, ERR_CONFLICT, GET(w, job_cancel, &j.id, &out));

    ok(w, GET(w, job_retry, &j.id, &out));
    same(w, out.state, JOB_queued);
    same(w, out.attempts, 0);
    d = document_of(w, &a.id);
    same(w, d.state, DOCUMENT_queued);
    same_str(w, d.error_code, "");
    fails(w, ERR_CONFLICT, GET(w, job_retry, &j.id, &out));
    j = lease(w, &me);
    same(w, j.attempts, 1);
    struct uuid nobody = uuid_v7();
    fails(w, ERR_NOT_FOUND, GET(w, job_retry, &nobody, &out));
    fails(w, ERR_NOT_FOUND, GET(w, job_cancel, &nobody, &out));
    fails(w, ERR_NOT_FOUND, GET(w, job_get, &nobody, &out));
}

static void cancellation(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a"), b = a_document(w, &c, "b");
    struct store_job out;
    size_t found;
    bool cancel;
    ok(w, GET(w, job_cancel, &a.job, &out));
    same(w, out.state, JOB_cancelled);
    same(w, document_of(w, &a.id).state, DOCUMENT_cancelled);
    struct store_job j = lease(w, &me);
    same_id(w, j.document, b.id);
    ok(w, GET(w, job_cancel, &b.job, &out));
    same(w, out.state, JOB_running);
    must(w, out.cancel_requested);
    ok(w, DO(w, job_renew, &j.id, &me, 60 * SECOND, DOCUMENT_parsing, STR("x"), 0, 0, &cancel));
    must(w, cancel);
    ok(w, DO(w, job_finish, &j.id, &me, JOB_cancelled, STR(""), STR(""), STR(""), 0));
    same(w, document_of(w, &b.id).state, DOCUMENT_cancelled);
    ok(w, GET(w, job_retry, &a.job, &out));
    same(w, document_of(w, &a.id).state, DOCUMENT_queued);

    /* its holder dies after the request: nobody works on it again */
    ok(w, GET(w, job_lease, &me, 1000, 1, &j, &found));
    must(w, found);
    ok(w, GET(w, job_cancel, &j.id, &out));
    for (struct store_job now = j; now.state == JOB_running; now = job_of(w, &j.id)) {
        ok(w, GET(w, job_lease, &you, SECOND, 1, &out, &found));
        must(w, !found && clock_wall_us() < j.lease_expires_us + 10 * SECOND);
    }
    same(w, job_of(w, &j.id).state, JOB_cancelled);
    same(w, document_of(w, &a.id).state, DOCUMENT_cancelled);
}

static void reprocess(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a"), d;
    struct store_job j, out;
    fails(w, ERR_BUSY, GET(w, document_reprocess, &a.id, &out));
    index_document(w, &a.id, (const char *[]){"one", "two"}, 2);
    ok(w, GET(w, document_reprocess, &a.id, &j));
    must(w, !uuid_eq(&j.id, &a.job));
    d = document_of(w, &a.id);
    same(w, d.state, DOCUMENT_queued);
    same_id(w, d.job, j.id);
    same(w, d.chunks, 2); /* what was indexed is found until it is replaced */
    fails(w, ERR_BUSY, GET(w, document_reprocess, &a.id, &out));
    index_document(w, &a.id, (const char *[]){"three"}, 1);
    d = document_of(w, &a.id);
    same(w, d.chunks, 1);
    same(w, d.state, DOCUMENT_ready);
    same(w, collection_of(w, &c.id).chunks, 1);
    struct uuid nobody = uuid_v7();
    fails(w, ERR_NOT_FOUND, GET(w, document_reprocess, &nobody, &out));
    fails(w, ERR_CONFLICT, GET(w, job_retry, &a.job, &out));
}

static void commit(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a"), d;
    struct store_job j = lease(w, &me);
    struct store_chunk_new k[2] = {chunk_of("red green"), chunk_of("blue")};
    struct store_chunk *got, one;
    struct str text;
    size_t n, size = 2 * STORE_PART + 77;
    char *big = arena_alloc(&w->a, size);
    fails(w, ERR_CONFLICT, GET(w, document_text, &a.id, &text));
    for (size_t i = 0; i < size; i++)
        big[i] = (char)('a' + i % 26);
    k[1].page = 3;
    k[1].headings = STR("[\"H\", \"h\"]");
    k[1].char_start = 10;
    k[1].char_end = 14;
    k[1].byte_start = 11;
    k[1].byte_end = 16;
    struct store_index_commit in = {.chunks = k,
                                    .n = 2,
                                    .content_version = 1,
                                    .text = {big, size},
                                    .title = STR("T"),
                                    .mime = STR("text/markdown"),
                                    .pages = 4};
    ok(w, DO(w, job_commit_index, &j.id, &me, &in));
    d = document_of(w, &a.id);
    same(w, d.state, DOCUMENT_ready);
    same(w, d.chunks, 2);
    same(w, d.tokens, 3);
    same(w, d.pages, 4);
    same_str(w, d.title, "T");
    same_str(w, d.mime, "text/markdown");
    same_str(w, d.language, "");
    j = job_of(w, &j.id);
    same(w, j.state, JOB_succeeded);
    must(w, j.finished_us > 0);
    fails(w, ERR_CONFLICT, DO(w, job_commit_index, &j.id, &me, &in));
    ok(w, GET(w, document_text, &a.id, &text));
    must(w, str_eq(text, (struct str){big, size}));
    ok(w, GET(w, document_chunks, &a.id, 0, 10, &got, &n));
    same(w, n, 2);
    same(w, got[0].ordinal, 0);
    same_str(w, got[0].text, "red green");
    same(w, got[0].tokens, 2);
    same(w, got[1].no, a.no << 20 | 1);
    same(w, got[1].page, 3);
    same_str(w, got[1].headings, "[\"H\", \"h\"]");
    same(w, got[1].char_start, 10);
    same(w, got[1].char_end, 14);
    same(w, got[1].byte_start, 11);
    same(w, got[1].byte_end, 16);
    same_id(w, got[1].id, store_chunk_id(&a.id, 1, 1));
    same_id(w, got[1].document, a.id);
    must(w, memcmp(&got[1].sha256, &k[1].sha256, sizeof k[1].sha256) == 0);
    ok(w, GET(w, document_chunks, &a.id, 1, 10, &got, &n));
    same(w, n, 1);
    same_str(w, got[0].text, "blue");
    ok(w, GET(w, document_chunks, &a.id, 0, 1, &got, &n));
    same(w, n, 1);
    ok(w, GET(w, chunk_get, &got[0].id, &one));
    same(w, one.no, got[0].no);
    same_id(w, one.document, a.id);
}

static void lists_and_counts(struct world *w)
{
    struct store_collection c = a_collection(w, "c"), other = a_collection(w, "other");
    struct store_document d[4];
    struct store_job *rows, made, out;
    struct store_job_query q = {.page = {.limit = 3}};
    int64_t counts[JOB_STATE_COUNT];
    size_t n;
    bool more;
    for (int i = 0; i < 4; i++)
        d[i] = a_document(w, i < 3 ? &c : &other, arena_printf(&w->a, "text %d", i).p);
    ok(w, GET(w, job_create, STR("delete_documents"), &c.id, STR("{\"filter\": null}"), &made));
    same_str(w, job_of(w, &made.id).payload, "{\"filter\": null}");
    ok(w, GET(w, job_list, &q, &rows, &n, &more));
    same(w, n, 3);
    must(w, more);
    same_id(w, rows[0].id, made.id);
    q.page.has_after = true;
    q.page.after = rows[2].id;
    ok(w, GET(w, job_list, &q, &rows, &n, &more));
    same(w, n, 2);
    must(w, !more);
    same_id(w, rows[1].id, d[0].job);

    q = (struct store_job_query){.page = {.limit = 10}, .has_document = true, .document = d[2].id};
    ok(w, GET(w, job_list, &q, &rows, &n, &more));
    same(w, n, 1);
    same_id(w, rows[0].id, d[2].job);
    q = (struct store_job_query){.page = {.limit = 10}, .has_collection = true, .collection = c.id};
    ok(w, GET(w, job_list, &q, &rows, &n, &more));
    same(w, n, 4);
    q.type = STR("ingest");
    ok(w, GET(w, job_list, &q, &rows, &n, &more));
    same(w, n, 3);

    index_document(w, &d[0].id, (const char *[]){"x"}, 1);
    ok(w, GET(w, job_cancel, &d[1].job, &out));
    lease(w, &me);
    ok(w, DO(w, job_counts, counts));
    same(w, counts[JOB_queued], 2);
    same(w, counts[JOB_running], 1);
    same(w, counts[JOB_succeeded], 1);
    same(w, counts[JOB_cancelled], 1);
    same(w, counts[JOB_failed], 0);
    for (int s = 0; s < JOB_STATE_COUNT; s++) {
        q = (struct store_job_query){.page = {.limit = 10}, .has_state = true, .state = (enum job_state)s};
        ok(w, GET(w, job_list, &q, &rows, &n, &more));
        same(w, n, counts[s]);
    }
    struct uuid nobody = uuid_v7();
    fails(w, ERR_NOT_FOUND, GET(w, job_create, STR("delete_documents"), &nobody, STR("{}"), &made));
}

struct beginner {
    struct world *w;
    struct fiber *fiber, *parent;
    bool mine;
    int rc;
};

static void begin_key(void *arg)
{
    struct beginner *b = arg;
    struct arena a = {0};
    struct store_idempotency in = {.key = {{1}}, .request = {{2}}, .abandoned_us = 600 * SECOND}, out;
    struct err e;
    b->fiber = fiber_self();
    b->rc = STORE_CALL(b->w->s, idempotency_begin, &a, &in, &b->mine, &out, &e);
    b->fiber = NULL;
    arena_fini(&a);
    fiber_wake(b->parent);
}

/* A client that leaves while its key is taken: either the request goes on and ends the key, or there is no key. */
static void a_key_is_never_left_running(struct world *w)
{
    struct beginner b = {.w = w, .parent = fiber_self()};
    struct store_idempotency in = {.key = {{1}}, .request = {{2}}, .abandoned_us = 600 * SECOND}, out;
    bool mine;
    must(w, fiber_spawn("begin", begin_key, &b));
    ok(w, fiber_yield());
    if (b.fiber)
        fiber_cancel(b.fiber);
    while (b.fiber)
        (void)fiber_park("the other");
    ok(w, GET(w, idempotency_begin, &in, &mine, &out));
    same(w, mine, b.rc < 0);
}

static void idempotency(struct world *w)
{
    struct store_idempotency in = {.key = {{1}}, .request = {{2}}, .abandoned_us = 600 * SECOND}, out, end, first;
    bool mine;
    ok(w, GET(w, idempotency_begin, &in, &mine, &out));
    must(w, mine);
    first = out;
    in.request.b[0] = 3;
    ok(w, GET(w, idempotency_begin, &in, &mine, &out));
    must(w, !mine);
    same(w, out.status, 0);
    same(w, out.request.b[0], 2);
    end = (struct store_idempotency){.key = {{1}},
                                     .status = 202,
                                     .content_type = STR("application/json"),
                                     .body = STR("{\"a\": 1}\n"),
                                     .location = STR("/x"),
                                     .etag = STR("\"v1\""),
                                     .created_us = first.created_us};
    ok(w, DO(w, idempotency_end, &end));
    ok(w, GET(w, idempotency_begin, &in, &mine, &out));
    must(w, !mine);
    same(w, out.status, 202);
    same_str(w, out.content_type, "application/json");
    same_str(w, out.body, "{\"a\": 1}\n");
    same_str(w, out.location, "/x");
    same_str(w, out.etag, "\"v1\"");
    same(w, out.request.b[0], 2);

    in = (struct store_idempotency){.key = {{9}}, .request = {{2}}, .abandoned_us = 600 * SECOND};
    ok(w, GET(w, idempotency_begin, &in, &mine, &out));
    must(w, mine);
    end = (struct store_idempotency){.key = {{9}}, .created_us = out.created_us}; /* it failed: forgotten */
    ok(w, DO(w, idempotency_end, &end));
    ok(w, GET(w, idempotency_begin, &in, &mine, &out));
    must(w, mine);

    char sql[100]; /* an hour after its worker died, and a day after its answer */
    snprintf(sql, sizeof sql, "UPDATE idempotency SET created_us = %lld WHERE status = 0",
             (long long)(clock_wall_us() - 3600 * SECOND));
    behind_its_back(w, sql, sql);
    ok(w, GET(w, idempotency_begin, &in, &mine, &out));
    must(w, mine);
    first.key.b[0] = 9; /* the one that took so long does not end what runs now */
    first.created_us = clock_wall_us() - 3600 * SECOND;
    ok(w, DO(w, idempotency_end, &first));
    first.status = 500;
    ok(w, DO(w, idempotency_end, &first));
    ok(w, GET(w, idempotency_begin, &in, &mine, &out));
    must(w, !mine);
    same(w, out.status, 0);
    in = (struct store_idempotency){.key = {{1}}, .request = {{2}}};
    ok(w, GET(w, idempotency_begin, &in, &mine, &out));
    must(w, !mine);
    snprintf(sql, sizeof sql, "UPDATE idempotency SET created_us = %lld",
             (long long)(clock_wall_us() - 25 * 3600 * SECOND));
    behind_its_back(w, sql, sql);
    ok(w, GET(w, idempotency_begin, &in, &mine, &out));
    must(w, mine);
    same(w, out.status, 0);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(one_holder_at_a_time),
        TEST(renewal_does_not_wait),
        TEST(clocks_apart),
        TEST(expired_lease),
        TEST(small_ones_are_leased_together),
        TEST(failure_and_retry),
        TEST(cancellation),
        TEST(reprocess),
        TEST(commit),
        TEST(lists_and_counts),
        TEST(idempotency),
        TEST(a_key_is_never_left_running),
    };
    return contract_main("store jobs", tests, sizeof tests / sizeof *tests, argc, argv);
}
