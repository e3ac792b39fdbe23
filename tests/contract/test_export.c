/* What one store exports, another imports: the same ids, and neither parsing nor embedding again. */
#include "tests/contract/doubles.h"
#include "tests/contract/ingesting.h"
#include "worker/core/export.h"
#include "worker/core/fsck.h"
#include "worker/core/given.h"

static struct fake_embedder model;
static struct doors vectors;

struct kept {
    struct buf lines, open; /* open: not settled yet */
    int forgotten;
    void (*seen)(struct str line);
};

static suspends int keep(void *arg, struct str line, struct err *e)
{
    struct kept *k = arg;
    (void)e;
    buf_str(&k->open, line);
    buf_ch(&k->open, '\n');
    if (k->seen)
        k->seen(line);
    return 0;
}

static suspends int settle(void *arg, bool whole, struct err *e)
{
    struct kept *k = arg;
    (void)e;
    if (whole)
        buf_str(&k->lines, buf_view(&k->open));
    k->forgotten += !whole;
    buf_fini(&k->open);
    return 0;
}

/* All of a collection. Returns how many documents it has. */
static int64_t export(struct world *w, const struct store_collection *c, struct kept *k)
{
    const struct export_sink to = {keep, settle, k};
    int64_t n = 0;
    ok(w, export_begin(&to, &w->e));
    ok(w, export_collection(&w->b, c, &to, &n, &w->e));
    ok(w, export_end(&to, n, &w->e));
    return n;
}

/* Lines up to the `limit`-th byte. */
static int take(struct world *w, struct str all, size_t limit, struct import_counts *counts)
{
    struct import *m = import_new(&w->b);
    int rc = 0;
    all.n = all.n < limit ? all.n : limit;
    while (rc == 0 && all.n) {
        struct str line = str_cut(&all, '\n');
        rc = import_line(m, line, &w->e);
    }
    rc = rc ? -1 : import_end(m, &w->e);
    *counts = *import_counts(m);
    import_free(m);
    return rc;
}

static struct store_document long_one(struct world *w, const struct store_collection *c)
{
    struct buf b = {0};
    while (b.n < STORE_PART + 5000)
        buf_printf(&b, "Sentence number %zu tells of h\xc3\xa4rbours and tides. ", b.n);
    struct store_document_new in = new_document(c, "");
    struct store_document out;
    enum store_created what;
    struct store_job job;
    in.bytes = (int64_t)b.n;
    in.external_id = STR("long");
    in.metadata = STR("{\"year\":2020}");
    sha256_of(b.p, b.n, &in.sha256);
    ok(w, DO(w, file_put_part, &in.sha256, 0, str_sub(buf_view(&b), 0, STORE_PART)));
    ok(w, DO(w, file_put_part, &in.sha256, 1, str_sub(buf_view(&b), STORE_PART, SIZE_MAX)));
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    buf_fini(&b);
    return out;
}

static const char given_text[] = "With a vector of its own.";

/* A list of one chunk, with the vector that its client made. */
static struct store_document given_one(struct world *w, const struct store_collection *c)
{
    static const float v[8] = {0, 0.6f, 0.8f};
    static const int first = 0;
    struct sha256 sha;
    struct store_document_new in = new_document(c, "[{\"text\":\"With a vector of its own.\"}]");
    struct store_document out;
    enum store_created what;
    struct store_job job;
    sha256_of(given_text, strlen(given_text), &sha);
    in.mime = STR(GIVEN_MIME);
    in.given = (struct store_given){STR("m"), 8, 1, &first, &sha, v};
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    return out;
}

static bool has_vector(struct world *w, int64_t document_no)
{
    const float *v;
    int dim = 8;
    struct sha256 sha;
    sha256_of(given_text, strlen(given_text), &sha);
    ok(w, GET(w, embeddings_get, STR("m"), &dim, document_no, 0, &sha, 1, &v));
    return v && v[1] > 0.5f && v[2] > 0.5f;
}

/* Into a store of the other product, if there is one, or of the same. */
static void there_and_back(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = long_one(w, &c), b = a_document(w, &c, "A short one."), bad, given = given_one(w, &c);
    struct kept first = {0}, second = {0};
    model = fake_embedder("m", 8);
    vectors = doors_open();
    w->b.embedder = &model.base;
    w->b.vectors = &vectors.base;
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &a.job, JOB_succeeded);
    wait_for_job(w, &b.job, JOB_succeeded);
    wait_for_job(w, &given.job, JOB_succeeded);
    stop(w, r);
    bad = a_document(w, &c, "Not yet indexed.");
    c = collection_of(w, &c.id);
    struct store_chunk *k;
    size_t chunks;
    ok(w, GET(w, document_chunks, &a.id, 100, 1, &k, &chunks));
    same(w, export(w, &c, &first), 4);
    const struct uuid collection = c.id;
    store_close(w->s);
    doors_close(&vectors);

    static struct world other;
    bool have_pg = getenv("RAGD_TEST_PG_URL") != NULL;
    world_make(&other, have_pg ? !w->sqlite : w->sqlite);
    struct fake_embedder fresh = fake_embedder("m", 8);
    vectors = doors_open();
    ok(w, store_open(other.cfg, &w->s, &w->e));
    int applied;
    ok(w, DO(w, migrate, &applied));
    w->b = (struct backends){.cfg = other.cfg, .store = w->s, .embedder = &fresh.base, .vectors = &vectors.base};
    struct import_counts counts;
    struct str all = buf_view(&first.lines);
    must(w, take(w, all, all.n / 2, &counts) == -1); /* cut off: what came whole is there */
    ok(w, take(w, all, SIZE_MAX, &counts));
    same(w, fresh.texts, 0);
    ok(w, take(w, all, SIZE_MAX, &counts));
    same(w, counts.present, 4);
    same(w, counts.documents, 0);
    struct store_document given2 = document_of(w, &given.id);
    must(w, has_vector(w, given2.no) && !has_vector(w, 0));
    struct store_document a2 = document_of(w, &a.id), b2 = document_of(w, &b.id);
    must(w, a2.state == DOCUMENT_ready && b2.state == DOCUMENT_ready);
    same(w, a2.content_version, 1);
    same_str(w, a2.external_id, "long");
    same_str(w, a2.metadata, "{\"year\":2020}");
    must(w, document_of(w, &bad.id).state == DOCUMENT_queued);
    struct store_chunk k2;
    ok(w, GET(w, chunk_get, &k[0].id, &k2));
    must(w, str_eq(k[0].text, k2.text));
    same(w, k2.char_start, k[0].char_start);
    ok(w, GET(w, collection_by_name, STR("c"), &c));
    same_id(w, c.id, collection);
    same(w, c.chunks, a2.chunks + b2.chunks + given2.chunks);
    same(w, points_of(w, &vectors, &c, 1, &a2), a2.chunks);
    struct fsck_counts checked;
    ok(w, fsck(&w->b, false, &checked, NULL, &w->e));
    same(w, checked.missing + checked.orphans + checked.mismatched, 0);

    /* and what that one exports is the same, line by line */
    same(w, export(w, &c, &second), 4);
    must(w, str_eq(buf_view(&first.lines), buf_view(&second.lines)));
    store_close(w->s);
    doors_close(&vectors);
    buf_fini(&first.lines);
    buf_fini(&second.lines);
    for (int i = 0; i < 3; i++)
        fiber_yield();
    ok(w, store_open(w->cfg, &w->s, &w->e));
    world_remove(&other);
}

/* A collection is known by its id, whatever it is called by now; one of that name only takes what has none here. */
static void collections_are_the_same(struct world *w)
{
    struct store_collection c = a_collection(w, "was"), other;
    struct store_collection_patch rename = {.set_name = true, .name = STR("is")};
    struct kept k = {0};
    struct import_counts counts;
    w->b.embedder = NULL;
    w->b.vectors = NULL;
    a_document(w, &c, "One.");
    same(w, export(w, &c, &k), 1);
    ok(w, GET(w, collection_patch, &c.id, &rename, 0, &c));
    other = a_collection(w, "was");
    ok(w, take(w, buf_view(&k.lines), SIZE_MAX, &counts));
    same(w, counts.present, 1);
    struct store_job job;
    int64_t left = 1;
    ok(w, GET(w, collection_delete, &c.id, 0, &job));
    while (left)
        ok(w, DO(w, collection_purge, &c.id, 100, &left));
    ok(w, take(w, buf_view(&k.lines), SIZE_MAX, &counts));
    same(w, counts.collections, 0);
    same(w, collection_of(w, &other.id).documents, 1);
    buf_fini(&k.lines);
}

static struct world *changing;
static struct store_document replaced, deleted;

static bool has(struct str text, const char *what)
{
    return memmem(text.p, text.n, what, strlen(what)) != NULL;
}

static struct store_document put_named(struct world *w, const char *text)
{
    struct store_collection c = collection_of(w, &replaced.collection);
    struct store_document_new in = new_document(&c, text);
    struct store_document out;
    enum store_created what;
    struct store_job job;
    in.external_id = STR("named");
    in.by_external_id = true;
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &job.id, JOB_succeeded);
    stop(w, r);
    return document_of(w, &out.id);
}

/* A client changes one document between its text and its chunks, and deletes another one. */
static void change(struct str line)
{
    struct world *w = changing;
    char id[UUID_TEXT_LEN + 1] = {0};
    uuid_text(&deleted.id, id);
    if (has(line, "\"document\"") && has(line, id))
        ok(w, DO(w, document_delete, &deleted.id, 0));
    else if (has(line, "\"text\"") && replaced.content_version == 1)
        replaced = put_named(w, "Something else, and quite a bit longer than it was.");
}

static void each_document_is_of_one_version(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct kept k = {.seen = change};
    struct import_counts counts;
    w->b.embedder = NULL;
    w->b.vectors = NULL;
    changing = w;
    replaced.collection = c.id;
    replaced = put_named(w, "As it was.");
    deleted = a_document(w, &c, "Soon gone.");
    a_document(w, &c, "It stays.");
    same(w, export(w, &c, &k), 2);
    must(w, k.forgotten >= 2); /* what has been indexed since it was listed is read again, too */
    struct str all = buf_view(&k.lines);
    must(w, has(all, "\"content_version\":2") && has(all, "\"documents\":2"));
    ok(w, take(w, all, SIZE_MAX, &counts)); /* chunks that are not of their text would be refused */
    same(w, counts.present, 2);
    buf_fini(&k.lines);
}

static struct store_collection leaving;

static void leave(struct str line)
{
    struct world *w = changing;
    struct store_job job;
    int64_t left = 1;
    if (!has(line, "\"end\"") || !leaving.no)
        return;
    leaving.no = 0;
    ok(w, GET(w, collection_delete, &leaving.id, 0, &job));
    while (left)
        ok(w, DO(w, collection_purge, &leaving.id, 100, &left));
}

/* An export that has lost its collection on the way does not pass for a whole one. */
static void a_collection_that_goes_away_ends_the_export(struct world *w)
{
    struct kept k = {.seen = leave};
    const struct export_sink to = {keep, settle, &k};
    struct import_counts counts;
    w->b.embedder = NULL;
    w->b.vectors = NULL;
    changing = w;
    for (int documents = 2; documents <= 150; documents += 148) { /* one page of them, and more */
        struct store_collection c = a_collection(w, documents == 2 ? "going" : "leaving");
        for (int i = 0; i < documents; i++) {
            struct store_document_new in = new_document(&c, "It does not stay.");
            struct store_document out;
            enum store_created what;
            struct store_job job;
            in.external_id = arena_printf(&w->a, "%d", i);
            ok(w, GET(w, document_create, &in, &out, &what, &job));
        }
        int64_t n = 0;
        leaving = c;
        ok(w, export_begin(&to, &w->e));
        fails(w, ERR_NOT_FOUND, export_collection(&w->b, &c, &to, &n, &w->e));
        must(w, strstr(w->e.msg, "ing' was deleted while it was exported") != NULL);
        must(w, take(w, buf_view(&k.lines), SIZE_MAX, &counts) == -1); /* its end is missing */
        same(w, counts.documents + counts.present, (int64_t)n);
        buf_fini(&k.lines);
    }
}

static void refuses_nonsense(struct world *w)
{
    static const char *const bad[] = {
        "{\"type\":\"ragd\",\"version\":99}\n",
        "no json\n",
        "[1]\n",
        "{\"type\":\"ragd\",\"version\":1}\n{\"type\":\"document\"}\n",
        "{\"type\":\"ragd\",\"version\":1}\n{\"type\":\"chunks\",\"chunks\":[{}]}\n",
        "{\"type\":\"ragd\",\"version\":1}\n{\"type\":\"collection\",\"name\":\"c\"}\n{\"type\":\"document\",\"id\":"
        "\"x\","
        "\"content_version\":1,\"sha256\":\"\",\"bytes\":1,\"indexed\":true}\n",
        "{\"type\":\"ragd\",\"version\":1}\n{\"type\":\"collection\",\"name\":\"c\"}\n{\"type\":\"document\",\"id\":"
        "\"01a223b1-a327-7657-a5cc-3dc6ef1213e4\",\"content_version\":1,\"sha256\":"
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"bytes\":3,\"indexed\":true}\n"
        "{\"type\":\"text\",\"data\":\"YWJj\"}\n{\"type\":\"chunks\",\"chunks\":[{\"span\":[0,3,0,9,0,0,0,0]}]}\n",
        "{\"type\":\"ragd\",\"version\":1}\n{\"type\":\"collection\",\"name\":\"c\"}\n{\"type\":\"document\",\"id\":"
        "\"01a223b1-a327-7657-a5cc-3dc6ef1213e4\",\"content_version\":1,\"sha256\":"
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"bytes\":3,\"indexed\":false}\n"
        "{\"type\":\"file\",\"data\":\"YWJj\"}\n{\"type\":\"end\"}\n",
    };
    struct import_counts counts;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        must(w, take(w, str_of(bad[i]), SIZE_MAX, &counts) == -1);
        must(w, w->e.code == ERR_VALIDATION || w->e.code == ERR_BAD_REQUEST);
    }
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {TEST(there_and_back), TEST(collections_are_the_same),
                                    TEST(each_document_is_of_one_version),
                                    TEST(a_collection_that_goes_away_ends_the_export), TEST(refuses_nonsense)};
    return contract_main("export", tests, sizeof tests / sizeof *tests, argc, argv);
}
