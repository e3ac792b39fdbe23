/* Documents: create, deduplicate, upsert, page, change, delete. */
#include "tests/contract/contract.h"

static void create_and_get(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document_new in = new_document(&c, "hello");
    struct store_document out, got;
    enum store_created what;
    struct store_job job;
    in.title = STR("A title with \"quotes\" and \xc3\xa9");
    in.external_id = STR("x-1");
    in.metadata = STR("{\"year\": 2024}");
    in.tags = STR("[\"a\", \"b\"]");
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    same(w, what, STORE_CREATED);
    got = document_of(w, &out.id);
    same_id(w, got.id, out.id);
    same_id(w, got.collection, c.id);
    same(w, got.no, out.no);
    same_str(w, got.title, "A title with \"quotes\" and \xc3\xa9");
    same_str(w, got.external_id, "x-1");
    same_str(w, got.filename, "a.txt");
    same_str(w, got.mime, "text/plain");
    same(w, got.state, DOCUMENT_queued);
    same(w, got.bytes, 5);
    same(w, got.version, 1);
    same(w, got.content_version, 1);
    must(w, memcmp(&got.sha256, &in.sha256, sizeof got.sha256) == 0);
    same_id(w, got.job, job.id);
    must(w, llabs(clock_wall_us() - uuid_time_us(&got.id)) < 60 * 1000000LL);

    struct store_job stored = job_of(w, &job.id);
    same_str(w, stored.type, "ingest");
    same(w, stored.state, JOB_queued);
    same_id(w, stored.document, out.id);
    same_id(w, stored.collection, c.id);

    struct str bytes;
    ok(w, GET(w, file_get_part, &got.sha256, 0, &bytes));
    same_str(w, bytes, "hello");
    fails(w, ERR_NOT_FOUND, GET(w, file_get_part, &got.sha256, 1, &bytes));

    ok(w, GET(w, document_by_external_id, &c.id, STR("x-1"), &got));
    same_id(w, got.id, out.id);
    fails(w, ERR_NOT_FOUND, GET(w, document_by_external_id, &c.id, STR("x-2"), &got));
    fails(w, ERR_CONFLICT,
          (in.inline_bytes = STR("HELLO"), sha256_of("HELLO", 5, &in.sha256),
           GET(w, document_create, &in, &out, &what, &job)));
    struct uuid nobody = uuid_v7();
    fails(w, ERR_NOT_FOUND, GET(w, document_get, &nobody, &got));
    in.collection = nobody;
    fails(w, ERR_NOT_FOUND, GET(w, document_create, &in, &out, &what, &job));
}

static struct store_document create(struct world *w, const struct store_document_new *in, enum store_created want,
                                    struct store_job *job)
{
    struct store_document out;
    enum store_created what;
    ok(w, GET(w, document_create, in, &out, &what, job));
    same(w, what, want);
    return out;
}

static bool no_job(const struct store_job *j)
{
    static const struct uuid zero;
    return uuid_eq(&j->id, &zero);
}

static void duplicates(struct world *w)
{
    struct store_collection c = a_collection(w, "c"), other = a_collection(w, "other");
    struct store_document_new in = new_document(&c, "same bytes");
    struct store_document out, first;
    struct store_job job;
    enum store_created what;
    char id[UUID_TEXT_LEN + 1] = "";
    first = create(w, &in, STORE_CREATED, &job);
    out = create(w, &in, STORE_DUPLICATE, &job);
    same_id(w, out.id, first.id);
    must(w, no_job(&job));

    in.on_duplicate = DUP_REJECT;
    fails(w, ERR_CONFLICT, GET(w, document_create, &in, &out, &what, &job));
    uuid_text(&first.id, id);
    must(w, strstr(w->e.msg, id));

    in.on_duplicate = DUP_LINK;
    out = create(w, &in, STORE_CREATED, &job);
    must(w, !uuid_eq(&out.id, &first.id) && !no_job(&job));
    same(w, collection_of(w, &c.id).documents, 2);

    in.on_duplicate = DUP_VERSION;
    in.title = STR("second");
    in.filename = STR("b.txt");
    out = create(w, &in, STORE_UPDATED, &job);
    same_id(w, out.id, first.id);
    must(w, no_job(&job));
    out = document_of(w, &first.id);
    same(w, out.content_version, 2);
    same_str(w, out.title, "second");
    same_str(w, out.filename, "b.txt");
    must(w, out.version > first.version);

    in.collection = other.id; /* another collection knows nothing of it */
    in.on_duplicate = DUP_REJECT;
    out = create(w, &in, STORE_CREATED, &job);
    same_id(w, out.collection, other.id);

    /* once it is gone, the bytes are new again */
    ok(w, DO(w, document_delete, &out.id, 0));
    create(w, &in, STORE_CREATED, &job);
}

static void upsert(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document_new in = new_document(&c, "first");
    struct store_document out, first;
    struct store_job job, again;
    enum store_created what;
    in.by_external_id = true;
    in.external_id = STR("key");
    in.if_version = 3;
    fails(w, ERR_VERSION, GET(w, document_create, &in, &out, &what, &job)); /* there is none to have that version */
    in.if_version = 0;
    first = create(w, &in, STORE_CREATED, &job);
    must(w, !no_job(&job));
    index_document(w, &first.id, (const char *[]){"first"}, 1);

    out = create(w, &in, STORE_UNCHANGED, &again);
    must(w, no_job(&again));
    same_id(w, out.id, first.id);
    same(w, out.state, DOCUMENT_ready);
    in.title = STR("title");
    out = create(w, &in, STORE_UPDATED, &again);
    must(w, no_job(&again));
    same_str(w, document_of(w, &first.id).title, "title");
    same(w, out.content_version, 1);

    struct store_document_new next = new_document(&c, "second content");
    next.by_external_id = true;
    next.external_id = STR("key");
    next.if_version = 1;
    fails(w, ERR_VERSION, GET(w, document_create, &next, &out, &what, &job));
    next.if_version = document_of(w, &first.id).version;
    out = create(w, &next, STORE_UPDATED, &again);
    must(w, !no_job(&again) && !uuid_eq(&again.id, &job.id));
    same_id(w, out.id, first.id);
    same(w, out.content_version, 2);
    same(w, out.state, DOCUMENT_queued);
    out = document_of(w, &first.id);
    same(w, out.content_version, 2);
    same(w, out.bytes, 14);
    same_id(w, out.job, again.id);
    same(w, collection_of(w, &c.id).documents, 1);
    same(w, collection_of(w, &c.id).bytes, 14);

    struct store_version *v;
    size_t n;
    ok(w, GET(w, document_versions, &first.id, &v, &n));
    same(w, n, 2);
    same(w, v[0].version, 2);
    same(w, v[0].bytes, 14);
    same(w, v[1].version, 1);
    same(w, v[1].bytes, 5);
    must(w, memcmp(&v[1].sha256, &in.sha256, sizeof in.sha256) == 0);
    must(w, v[0].created_us >= v[1].created_us && v[1].created_us == uuid_time_us(&first.id));
    struct uuid nobody = uuid_v7();
    fails(w, ERR_NOT_FOUND, GET(w, document_versions, &nobody, &v, &n));

    /* the same bytes under another external id are another document */
    next.external_id = STR("key2");
    next.if_version = 0;
    out = create(w, &next, STORE_CREATED, &job);
    must(w, !uuid_eq(&out.id, &first.id));
}

static void long_files(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    size_t size = STORE_PART + 1000;
    char *bytes = arena_alloc(&w->a, size);
    struct store_document out;
    enum store_created what;
    struct store_job job;
    struct str part;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(i * 7 + i / 251);
    struct store_document_new in = new_document(&c, "");
    in.bytes = (int64_t)size;
    sha256_of(bytes, size, &in.sha256);
    fails(w, ERR_CONFLICT, GET(w, document_create, &in, &out, &what, &job));
    ok(w, DO(w, file_put_part, &in.sha256, 0, ((struct str){bytes, STORE_PART})));
    fails(w, ERR_CONFLICT, GET(w, document_create, &in, &out, &what, &job));
    ok(w, DO(w, file_put_part, &in.sha256, 1, ((struct str){bytes + STORE_PART, 1000})));
    ok(w, DO(w, file_put_part, &in.sha256, 1, ((struct str){bytes + STORE_PART, 1000})));
    create(w, &in, STORE_CREATED, &job);
    ok(w, GET(w, file_get_part, &in.sha256, 0, &part));
    must(w, str_eq(part, (struct str){bytes, STORE_PART}));
    ok(w, GET(w, file_get_part, &in.sha256, 1, &part));
    must(w, str_eq(part, (struct str){bytes + STORE_PART, 1000}));
    fails(w, ERR_TOO_LARGE, DO(w, file_put_part, &in.sha256, 2, ((struct str){bytes, STORE_PART + 1})));

    struct store_document_new empty = new_document(&c, "");
    create(w, &empty, STORE_CREATED, &job);
    ok(w, GET(w, file_get_part, &empty.sha256, 0, &part));
    same(w, part.n, 0);
}

static void age_files(struct world *w)
{
    behind_its_back(w, "UPDATE file_orphans SET since_us = 0", "UPDATE files SET touched_us = 0");
}

static void sweep(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document_new in = new_document(&c, "kept by a version");
    struct store_document d;
    struct store_job job;
    struct sha256 stray, gone;
    struct str part;
    int64_t removed;
    in.by_external_id = true;
    in.external_id = STR("x");
    d = create(w, &in, STORE_CREATED, &job);
    struct store_document_new next = new_document(&c, "kept by the document");
    next.by_external_id = true;
    next.external_id = STR("x");
    create(w, &next, STORE_UPDATED, &job);
    struct store_document doomed = a_document(w, &c, "of a document that goes");
    gone = doomed.sha256;
    sha256_of("stray", 5, &stray);
    ok(w, DO(w, file_put_part, &stray, 0, STR("stray")));
    ok(w, DO(w, document_delete, &doomed.id, 0));

    ok(w, DO(w, file_sweep, 100, &removed)); /* too young: an upload may be under way */
    same(w, removed, 0);
    age_files(w);
    ok(w, DO(w, file_sweep, 1, &removed));
    same(w, removed, 1);
    ok(w, DO(w, file_sweep, 100, &removed));
    same(w, removed, 1);
    ok(w, DO(w, file_sweep, 100, &removed));
    same(w, removed, 0);
    fails(w, ERR_NOT_FOUND, GET(w, file_get_part, &stray, 0, &part));
    fails(w, ERR_NOT_FOUND, GET(w, file_get_part, &gone, 0, &part));
    ok(w, GET(w, file_get_part, &in.sha256, 0, &part));
    same_str(w, part, "kept by a version");
    ok(w, GET(w, file_get_part, &next.sha256, 0, &part));
    same_str(w, part, "kept by the document");

    /* a file that is used again in time stays */
    ok(w, DO(w, file_put_part, &stray, 0, STR("stray")));
    age_files(w);
    a_document(w, &c, "stray");
    ok(w, DO(w, file_sweep, 100, &removed));
    same(w, removed, 0);
    ok(w, GET(w, file_get_part, &stray, 0, &part));

    /* and all of them go with their document */
    ok(w, DO(w, document_delete, &d.id, 0));
    age_files(w);
    ok(w, DO(w, file_sweep, 100, &removed));
    same(w, removed, 2);
}

static void change(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "text"), out;
    struct store_document_patch p = {.set_title = true, .title = STR("t"), .set_tags = true, .tags = STR("[\"x\"]")};
    ok(w, GET(w, document_patch, &d.id, &p, 1, &out));
    same(w, out.version, 2);
    same_str(w, out.title, "t");
    fails(w, ERR_VERSION, GET(w, document_patch, &d.id, &p, 1, &out));
    p = (struct store_document_patch){
        .set_metadata = true, .metadata = STR("{\"n\": 1}"), .set_language = true, .language = STR("german")};
    ok(w, GET(w, document_patch, &d.id, &p, 0, &out));
    out = document_of(w, &d.id);
    same(w, out.version, 3);
    same_str(w, out.title, "t");
    same_str(w, out.tags, "[\"x\"]");
    same_str(w, out.metadata, "{\"n\": 1}");
    same_str(w, out.language, "german");
    must(w, out.updated_us >= d.updated_us);
    struct uuid nobody = uuid_v7();
    fails(w, ERR_NOT_FOUND, GET(w, document_patch, &nobody, &p, 0, &out));
    fails(w, ERR_VERSION, DO(w, document_delete, &d.id, 2));
    ok(w, DO(w, document_delete, &d.id, 3));
    fails(w, ERR_NOT_FOUND, DO(w, document_delete, &d.id, 0));
    fails(w, ERR_NOT_FOUND, GET(w, document_get, &d.id, &out));
}

/* What it deletes is gone from everywhere: text, chunks, search, jobs. */
struct patcher {
    struct world *w;
    const struct uuid *id;
    struct fiber *fiber, *parent;
    int rc;
};

static void patch_title(void *arg)
{
    struct patcher *p = arg;
    struct arena a = {0};
    struct store_document_patch change = {.set_title = true, .title = STR("new")};
    struct store_document out;
    struct err e;
    p->fiber = fiber_self();
    p->rc = STORE_CALL(p->w->s, document_patch, &a, p->id, &change, 0, &out, &e);
    p->fiber = NULL;
    arena_fini(&a);
    fiber_wake(p->parent);
}

/* A client that leaves, sooner or later: an error says that nothing has happened. */
static void given_up(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "a");
    for (int i = 0; i < 40; i++) {
        struct patcher p = {.w = w, .id = &d.id, .parent = fiber_self()};
        int64_t version = document_of(w, &d.id).version;
        must(w, fiber_spawn("patch", patch_title, &p));
        ok(w, fiber_sleep(i * MS / 10));
        if (p.fiber)
            fiber_cancel(p.fiber);
        while (p.fiber)
            (void)fiber_park("the other");
        same(w, document_of(w, &d.id).version, version + (p.rc == 0));
    }
}

static void delete_everywhere(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a"), b = a_document(w, &c, "b");
    struct store_candidates hits;
    struct store_chunk *k, chunk;
    struct str text;
    size_t n;
    index_document(w, &a.id, (const char *[]){"red", "red green"}, 2);
    index_document(w, &b.id, (const char *[]){"red blue"}, 1);
    ok(w, GET(w, document_chunks, &a.id, 0, 10, &k, &n));
    same(w, n, 2);
    ok(w, DO(w, document_delete, &a.id, 0));
    fails(w, ERR_NOT_FOUND, GET(w, document_text, &a.id, &text));
    fails(w, ERR_NOT_FOUND, GET(w, document_chunks, &a.id, 0, 10, &k, &n));
    struct uuid first = store_chunk_id(&a.id, 1, 0);
    fails(w, ERR_NOT_FOUND, GET(w, chunk_get, &first, &chunk));
    struct str red = STR("red");
    ok(w, GET(w, search_candidates, &c, &red, NULL, 1, 100, &hits));
    same(w, hits.n, 1);
    same(w, store_candidate_at(&hits, 0)->no >> 20, b.no);
    struct store_job j;
    fails(w, ERR_NOT_FOUND, GET(w, job_get, &a.job, &j));
    same(w, document_of(w, &b.id).state, DOCUMENT_ready);
}

static void delete_while_queued(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "text");
    struct uuid owner = uuid_v7();
    struct store_job j;
    size_t found;
    bool cancel;
    ok(w, DO(w, document_delete, &d.id, 0));
    ok(w, GET(w, job_lease, &owner, 1000000, 1, &j, &found));
    must(w, !found);
    same(w, job_of(w, &d.job).state, JOB_cancelled);

    d = a_document(w, &c, "text"); /* and while it is being indexed */
    j = lease(w, &owner);
    ok(w, DO(w, document_delete, &d.id, 0));
    fails(w, ERR_CONFLICT, DO(w, job_renew, &j.id, &owner, 1000000, DOCUMENT_parsing, STR("parsing"), 0, 0, &cancel));
    struct store_index_commit in = {.content_version = 1};
    fails(w, ERR_CONFLICT, DO(w, job_commit_index, &j.id, &owner, &in));
}

/* ---- many fibers at once ---- */

enum { CROWD = 100 };
static struct crowd {
    struct store_document_new in;
    struct store_document out;
    enum store_created what;
    struct err e;
    int rc;
} crowd[CROWD];

static int crowd_create(struct world *w, int i, struct arena *a, struct err *e)
{
    struct crowd *m = &crowd[i];
    struct store_job job;
    (void)e;
    m->rc = STORE_CALL(w->s, document_create, a, &m->in, &m->out, &m->what, &job, &m->e);
    return 0;
}

static void together(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    int created = 0, duplicate = 0;
    for (int i = 0; i < CROWD; i++) {
        crowd[i].in = new_document(&c, i % 4 == 0 ? "the same" : arena_printf(&w->a, "text %d", i).p);
        if (i % 10 == 1) /* guilty: no such collection */
            crowd[i].in.collection = uuid_v7();
    }
    in_parallel(w, CROWD, crowd_create);
    for (int i = 0; i < CROWD; i++) {
        struct crowd *m = &crowd[i];
        if (i % 10 == 1) {
            same(w, m->rc, -1);
            same(w, m->e.code, ERR_NOT_FOUND);
            continue;
        }
        same(w, m->rc, 0);
        created += m->what == STORE_CREATED;
        duplicate += m->what == STORE_DUPLICATE;
        same(w, document_of(w, &m->out.id).bytes, m->in.bytes);
    }
    same(w, duplicate, 24); /* of 25 that are the same */
    same(w, created, 75 - 10 + 1);
    same(w, collection_of(w, &c.id).documents, created);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(create_and_get),
        TEST(duplicates),
        TEST(upsert),
        TEST(long_files),
        TEST(sweep),
        TEST(change),
        TEST(given_up),
        TEST(delete_everywhere),
        TEST(delete_while_queued),
        TEST(together),
    };
    return contract_main("store documents", tests, sizeof tests / sizeof *tests, argc, argv);
}
