/* Vectors that clients make: the embedder makes none for their chunks, nobody else has them, and others take their place. */
#include "tests/contract/doubles.h"
#include "tests/contract/ingesting.h"
#include "worker/core/given.h"
#include "worker/core/given_vectors.h"
#include "worker/core/outbox.h"

/* ---- in the store ---- */

/* Takes all that is due, and says how much that was. */
static size_t take(struct world *w, struct store_outbox **rows)
{
    size_t n;
    ok(w, GET(w, outbox_take, 60 * 1000000LL, 100, rows, &n));
    for (size_t i = 0; i < n; i++)
        ok(w, DO(w, outbox_done, &(*rows)[i].no, 1));
    return n;
}

/* A document that comes with a vector for its only chunk. */
static struct store_document_new with_vector(const struct store_collection *c, const char *text, const float *v,
                                             const struct sha256 *sha)
{
    static const int first = 0;
    struct store_document_new in = new_document(c, text);
    in.by_external_id = true;
    in.external_id = STR("x");
    in.given = (struct store_given){STR("m"), 2, 1, &first, sha, v};
    return in;
}

static enum store_created put(struct world *w, const struct store_document_new *in, struct store_document *d, bool job)
{
    enum store_created what;
    struct store_job j;
    ok(w, GET(w, document_create, in, d, &what, &j));
    must(w, uuid_is_zero(&j.id) != job);
    return what;
}

/* What the document's only chunk has: NULL, or the vector. */
static const float *vector_of(struct world *w, int64_t document_no, const struct sha256 *sha)
{
    const float *out;
    int dim = 2;
    ok(w, GET(w, embeddings_get, STR("m"), &dim, document_no, 0, sha, 1, &out));
    return out;
}

static const float up[] = {1, 0}, down[] = {-1, 0}, made[] = {0, 1};

/* Vectors that a client gave are those of one chunk, whoever else has its text. */
static void given(struct world *w)
{
    struct store_collection c = a_collection(w, "c"), other = a_collection(w, "other");
    struct store_chunk_new k = chunk_of("one"), k2 = chunk_of("two");
    struct store_document_new in = with_vector(&c, "[one]", up, &k.sha256), next;
    struct store_document d, e = a_document(w, &other, "one"), now;
    const float *out;
    int dim = 2;
    same(w, put(w, &in, &d, true), STORE_CREATED);
    must(w, vector_of(w, d.no, &k.sha256)[0] == 1);
    must(w, !vector_of(w, e.no, &k.sha256) && !vector_of(w, 0, &k.sha256));
    ok(w, DO(w, embeddings_put, STR("m"), 2, &k.sha256, 1, made));
    must(w, vector_of(w, d.no, &k.sha256)[0] == 1 && vector_of(w, e.no, &k.sha256)[1] == 1);
    must(w, !vector_of(w, d.no, &k2.sha256));
    ok(w, GET(w, embeddings_get, STR("m"), &dim, d.no, 1, &k.sha256, 1, &out)); /* of its second chunk */
    must(w, out[1] == 1);
    ok(w, GET(w, embeddings_get, STR("n"), &dim, d.no, 0, &k.sha256, 1, &out));
    must(w, !out);

    /* they go with the content that they came with, and with the document */
    next = with_vector(&c, "[two]", up, &k2.sha256);
    same(w, put(w, &next, &now, true), STORE_UPDATED);
    must(w, vector_of(w, d.no, &k.sha256)[1] == 1 && vector_of(w, d.no, &k2.sha256)[0] == 1);
    next = new_document(&c, "[three]");
    next.by_external_id = true;
    next.external_id = STR("x");
    same(w, put(w, &next, &now, true), STORE_UPDATED);
    must(w, !vector_of(w, d.no, &k2.sha256));
    same(w, put(w, &in, &now, true), STORE_UPDATED);
    must(w, vector_of(w, d.no, &k.sha256)[0] == 1);
    ok(w, DO(w, document_delete, &d.id, 0));
    must(w, vector_of(w, d.no, &k.sha256)[1] == 1);
}

/* Other vectors for the same text are a change like any other. */
static void given_again(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_chunk_new k = chunk_of("one");
    struct store_document_new in = with_vector(&c, "[one]", up, &k.sha256), next;
    struct store_document d, now;
    struct store_outbox *rows;
    struct store_job j;
    enum store_created what;
    same(w, put(w, &in, &d, true), STORE_CREATED);
    in.given.v = down; /* its job has not made the index yet, and will see them */
    same(w, put(w, &in, &d, false), STORE_UPDATED);
    index_document(w, &d.id, (const char *[]){"one"}, 1);
    ok(w, DO(w, collection_set_embedder, &c.id, STR("m"), 2));
    take(w, &rows);

    d = document_of(w, &d.id);
    same(w, put(w, &in, &now, false), STORE_UNCHANGED);
    same(w, now.version, d.version);
    same(w, take(w, &rows), 0);
    in.given.v = up;
    same(w, put(w, &in, &now, false), STORE_UPDATED);
    must(w, now.version == d.version + 1 && now.content_version == 1 && now.state == DOCUMENT_ready);
    same(w, document_of(w, &d.id).version, now.version);
    same(w, take(w, &rows), 1);
    must(w, rows->kind == OUTBOX_put && rows->document_no == d.no && rows->collection_no == c.no && rows->dim == 2);
    next = in; /* without a name it is the same document, too */
    next.by_external_id = false;
    next.external_id = STR("");
    next.given.v = down;
    same(w, put(w, &next, &now, false), STORE_UPDATED);
    same_id(w, now.id, d.id);
    same(w, take(w, &rows), 1);
    same(w, put(w, &next, &now, false), STORE_DUPLICATE);
    next.given.n = 0; /* who gives none leaves those that it has */
    same(w, put(w, &next, &now, false), STORE_DUPLICATE);
    must(w, vector_of(w, d.no, &k.sha256)[0] == -1);

    /* what is refused has not happened */
    in.if_version = 99;
    fails(w, ERR_VERSION, GET(w, document_create, &in, &now, &what, &j));
    next.given = in.given;
    next.on_duplicate = DUP_REJECT;
    fails(w, ERR_CONFLICT, GET(w, document_create, &next, &now, &what, &j));
    must(w, vector_of(w, d.no, &k.sha256)[0] == -1);
    same(w, take(w, &rows), 0);
}

/* ---- into the index ---- */

static struct fake_embedder model;
static struct doors vectors;

static void open_doubles(struct world *w)
{
    model = fake_embedder("m", 4);
    vectors = doors_open();
    w->b.embedder = &model.base;
    w->b.vectors = &vectors.base;
}

static void drain(struct world *w)
{
    size_t n;
    do
        ok(w, outbox_drain(&w->b, 10, &n, &w->e));
    while (n);
}

/* A document of one chunk, with the vector that a client made of it. */
static enum store_created give(struct world *w, const struct store_collection *c, const char *vector,
                               struct store_document *d)
{
    struct store_document_new in = new_document(c, "[{\"text\":\"Given\"}]");
    struct given_vectors g;
    enum store_created what;
    struct store_job j;
    json_t *list;
    char json[100];
    snprintf(json, sizeof json, "[{\"text\": \"Given\", \"vector\": %s}]", vector);
    in.mime = STR(GIVEN_MIME);
    ok(w, json_parse(&w->a, str_of(json), 8, &list, &w->e));
    ok(w, given_vectors_take(&w->a, list, "", &g, &w->e));
    ok(w, given_vectors_check(&w->b, &c->id, &g, "", &in.given, &w->e));
    ok(w, GET(w, document_create, &in, d, &what, &j));
    return what;
}

/* How near the document is to a question, in the index. */
static float nearness(struct world *w, const struct store_collection *of, const struct store_document *d)
{
    static const float question[] = {0, 0.6f, 0.8f, 0};
    struct store_collection c = collection_of(w, &of->id);
    struct vector_space s = {.collection = c.id, .collection_no = c.no, .generation = 1, .dim = c.dim};
    struct vector_query q = {.v = question, .k = 10};
    struct vector_hit *hits;
    size_t n;
    ok(w, VECTORS_CALL(vectors.inner, search, &w->a, &s, &q, &hits, &n, &w->e));
    for (size_t i = 0; i < n; i++)
        if (hits[i].no >> 20 == d->no)
            return hits[i].score;
    fail_at(w, __LINE__, "the index does not have the document");
    return 0;
}

/* Vectors that a client made: the embedder makes none; those of another model or length are refused. */
static void come_with_the_text(struct world *w)
{
    open_doubles(w);
    struct store_collection c = a_collection(w, "c");
    struct store_document d;
    must(w, give(w, &c, "[0, 3, 4, 0]", &d) == STORE_CREATED);
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    stop(w, r);
    same(w, model.calls, 1); /* how long its vectors are, as the collection has none yet */
    same(w, model.texts, 1);
    same(w, vectors.puts, 1);
    must(w, nearness(w, &c, &d) > 0.999f);
    c = collection_of(w, &c.id);
    same(w, c.dim, 4);
    struct given_vectors g = {.n = 1, .dim = 3};
    struct store_given out;
    fails(w, ERR_VALIDATION, given_vectors_check(&w->b, &c.id, &g, "/x", &out, &w->e));
    must(w, strstr(w->e.msg, "3 dimensions") && strstr(w->e.msg, "collection 4") && strcmp(w->e.pointer, "/x") == 0);
    g.dim = 4;
    struct fake_embedder other = fake_embedder("n", 4);
    w->b.embedder = &other.base;
    fails(w, ERR_CONFLICT, given_vectors_check(&w->b, &c.id, &g, "", &out, &w->e));
    struct uuid nobody = uuid_v7();
    fails(w, ERR_NOT_FOUND, given_vectors_check(&w->b, &nobody, &g, "", &out, &w->e));
    w->b.embedder = NULL;
    fails(w, ERR_VALIDATION, given_vectors_check(&w->b, &c.id, &g, "", &out, &w->e));
    doors_close(&vectors);
}

/* Nobody else is found by them, and others for the same text take their place. */
static void belong_to_their_document(struct world *w)
{
    open_doubles(w);
    struct store_collection c = a_collection(w, "c"), theirs = a_collection(w, "theirs");
    struct store_document d, again;
    must(w, give(w, &c, "[0, 3, 4, 0]", &d) == STORE_CREATED);
    struct store_document other = a_document(w, &theirs, "Given"), beside = a_document(w, &c, "Given");
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    wait_for_job(w, &other.job, JOB_succeeded);
    wait_for_job(w, &beside.job, JOB_succeeded);
    stop(w, r);
    float before = nearness(w, &theirs, &other);
    must(w, before < 0.9f); /* vectors of the double lie on an axis */
    must(w, nearness(w, &c, &beside) == before && nearness(w, &c, &d) > 0.999f);
    drain(w);
    int puts = vectors.puts;
    must(w, give(w, &c, "[0, 6, 8, 0]", &again) == STORE_DUPLICATE); /* the same direction */
    drain(w);
    same(w, vectors.puts, puts);
    must(w, give(w, &c, "[0, -3, -4, 0]", &again) == STORE_UPDATED);
    same_id(w, again.id, d.id);
    drain(w);
    same(w, vectors.puts, puts + 1);
    must(w, nearness(w, &c, &d) < -0.999f);
    must(w, nearness(w, &c, &beside) == before && nearness(w, &theirs, &other) == before);
    doors_close(&vectors);
}

static struct world *the_world;
static struct store_collection the_collection;

/* Somebody else is quicker to bring the other vector into the index. */
static void give_another(void)
{
    struct store_document d;
    vectors.before_put = NULL;
    must(the_world, give(the_world, &the_collection, "[0, -3, -4, 0]", &d) == STORE_UPDATED);
    drain(the_world);
    same(the_world, vectors.puts, 1);
}

static void given_meanwhile(struct world *w)
{
    open_doubles(w);
    the_world = w;
    the_collection = a_collection(w, "c");
    struct store_document d;
    must(w, give(w, &the_collection, "[0, 3, 4, 0]", &d) == STORE_CREATED);
    vectors.before_put = give_another;
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    stop(w, r);
    drain(w);
    must(w, nearness(w, &the_collection, &d) < -0.999f);
    doors_close(&vectors);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {TEST(given), TEST(given_again), TEST(come_with_the_text),
                                    TEST(belong_to_their_document), TEST(given_meanwhile)};
    return contract_main("given vectors", tests, sizeof tests / sizeof *tests, argc, argv);
}
