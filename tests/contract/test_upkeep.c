/* Re-indexing beside what is searched, and fsck: the index is made equal to the store, and proved so. */
#include "tests/contract/doubles.h"
#include "tests/contract/ingesting.h"
#include "worker/core/fsck.h"
#include "worker/core/outbox.h"
#include "worker/core/reindex.h"
#include <fcntl.h>

static struct fake_embedder model;
static struct doors vectors;

static void open_doubles(struct world *w)
{
    model = fake_embedder("m", 4);
    vectors = doors_open();
    w->b.embedder = &model.base;
    w->b.vectors = &vectors.base;
}

enum { DOCUMENTS = 7 };

/* Documents that are ready, of two words each. */
static void fill(struct world *w, const struct store_collection *c, struct store_document d[DOCUMENTS])
{
    struct job_runner *r = start_ingest(w);
    for (int i = 0; i < DOCUMENTS; i++)
        d[i] = a_document(w, c, arena_printf(&w->a, "Harbour %d", i).p);
    for (int i = 0; i < DOCUMENTS; i++) {
        wait_for_job(w, &d[i].job, JOB_succeeded);
        d[i] = document_of(w, &d[i].id);
    }
    stop(w, r);
}

static struct fsck_counts check(struct world *w, bool repair)
{
    struct fsck_counts c;
    ok(w, fsck(&w->b, repair, &c, NULL, &w->e));
    return c;
}

static void clean(struct world *w)
{
    struct fsck_counts c = check(w, false);
    same(w, c.missing + c.orphans + c.mismatched, 0);
}

static void finds_and_mends(struct world *w)
{
    open_doubles(w);
    struct store_collection c = a_collection(w, "c");
    struct store_document d[DOCUMENTS];
    fill(w, &c, d);
    c = collection_of(w, &c.id);
    struct fsck_counts found = check(w, false);
    same(w, found.spaces, 1);
    same(w, found.documents, DOCUMENTS);
    clean(w);

    struct vector_space s = {.collection = c.id, .collection_no = c.no, .generation = 1, .dim = 4};
    struct uuid ids[2] = {uuid_v7(), uuid_v7()};
    float v[8] = {1, 0, 0, 0, 1, 0, 0, 0};
    struct vector_document stray = {.no = 1000,
                                    .id = uuid_v7(),
                                    .content_version = 1,
                                    .metadata = STR("{}"),
                                    .tags = STR("[]"),
                                    .n = 1,
                                    .chunk = ids,
                                    .v = v};
    struct vector_document old = stray, many = stray;
    ok(w, VECTORS_CALL(vectors.inner, put, &s, &stray, &w->e));
    old.no = d[0].no;
    old.content_version = 77;
    ok(w, VECTORS_CALL(vectors.inner, put, &s, &old, &w->e));
    many.no = d[1].no;
    many.n = 2;
    ok(w, VECTORS_CALL(vectors.inner, put, &s, &many, &w->e));
    ok(w, VECTORS_CALL(vectors.inner, remove, &s, (int64_t[]){d[3].no, d[DOCUMENTS - 1].no}, 2, &w->e));
    found = check(w, false);
    same(w, found.missing, 2);
    same(w, found.orphans, 1);
    same(w, found.mismatched, 2);
    same(w, found.repaired, 0);
    w->b.embedder = NULL; /* vectors come from the store */
    c = collection_of(w, &c.id);
    found = check(w, true);
    same(w, found.repaired, 5);
    must(w, collection_of(w, &c.id).revision > c.revision); /* what was cached is stale */
    clean(w);

    ok(w, VECTORS_CALL(vectors.inner, drop, &s, &w->e)); /* all is lost */
    found = check(w, true);
    same(w, found.missing, DOCUMENTS);
    same(w, found.repaired, DOCUMENTS);
    clean(w);
    doors_close(&vectors);
}

/* A vector that is in neither place needs the embedder of its space. */
static void cannot_mend_without_the_model(struct world *w)
{
    open_doubles(w);
    struct store_collection c = a_collection(w, "c");
    struct store_document d[DOCUMENTS];
    struct fsck_counts found;
    fill(w, &c, d);
    struct vector_space s = {.collection = c.id, .collection_no = c.no, .generation = 1, .dim = 4};
    ok(w, VECTORS_CALL(vectors.inner, drop, &s, &w->e));
    behind_its_back(w, "DELETE FROM embeddings", "DELETE FROM embeddings");
    struct fake_embedder other = fake_embedder("n", 4);
    w->b.embedder = &other.base;
    fails(w, ERR_CONFLICT, fsck(&w->b, true, &found, NULL, &w->e));
    must(w, strstr(w->e.msg, "ragd reindex"));
    same(w, found.missing, DOCUMENTS);
    same(w, found.repaired, 0);
    struct store_job j;
    ok(w, GET(w, job_create, STR("fsck"), NULL, STR("{\"repair\":true}"), &j));
    struct job_runner *r = start_ingest(w);
    j = wait_for_job(w, &j.id, JOB_failed); /* and not tried again for ever */
    same_str(w, j.error_code, "not_repaired");
    stop(w, r);
    /* the outbox keeps what it cannot do, and goes on */
    c = collection_of(w, &c.id);
    struct store_outbox o = {.kind = OUTBOX_put,
                             .collection = c.id,
                             .collection_no = c.no,
                             .generation = 1,
                             .dim = 4,
                             .document = d[0].id,
                             .document_no = d[0].no};
    size_t n;
    int64_t left;
    ok(w, DO(w, outbox_add, &o, 1));
    ok(w, outbox_drain(&w->b, 10, &n, &w->e));
    same(w, n, 1);
    ok(w, DO(w, outbox_count, &left));
    same(w, left, 1);
    fails(w, ERR_CONFLICT, fsck(&w->b, true, &found, NULL, &w->e));
    /* a generation that is not searched does not need it */
    ok(w, reindex_collection(&w->b, &w->a, &c.id, true, NULL, &c, &w->e));
    same(w, c.previous.no, 1);
    found = check(w, true);
    same(w, found.spaces, 1);
    behind_its_back(w, "UPDATE vector_outbox SET due_us = 1", "UPDATE vector_outbox SET due_us = 1");
    ok(w, outbox_drain(&w->b, 10, &n, &w->e));
    ok(w, DO(w, outbox_count, &left));
    same(w, left, 0);
    w->b.embedder = &model.base;
    found = check(w, true);
    same(w, found.repaired, DOCUMENTS);
    doors_close(&vectors);
}

/* The file of a space, as far as it says what counts in it, is lost. */
static void spoil(struct world *w, const char *dir, const struct store_collection *c)
{
    char path[200], id[UUID_TEXT_LEN + 1] = {0}, garbage[8192];
    memset(garbage, 'x', sizeof garbage);
    uuid_text(&c->id, id);
    snprintf(path, sizeof path, "%s/%s.1.vec", dir, id);
    int fd = open(path, O_WRONLY);
    must(w, fd >= 0 && pwrite(fd, garbage, sizeof garbage, 4096) == sizeof garbage && close(fd) == 0);
}

/* What comes meanwhile waits; it is not called the fault of a document, or of its model. */
static void makes_a_damaged_file_anew(struct world *w)
{
    char dir[80], set[100];
    struct err e = {0};
    model = fake_embedder("m", 4);
    w->b.embedder = &model.base;
    snprintf(dir, sizeof dir, "%s/vectors", w->dir);
    snprintf(set, sizeof set, "vectors.path=%s", dir);
    struct config *cfg = config_for(w->url, set);
    ok(w, vectors_embedded_open(cfg, &w->b.vectors, &w->e));
    struct store_collection c = a_collection(w, "c"), other = a_collection(w, "other");
    struct store_document d[DOCUMENTS];
    fill(w, &c, d);
    fill(w, &other, d);
    c = collection_of(w, &c.id);
    clean(w);
    spoil(w, dir, &c);
    const float v[4] = {1};
    struct vector_query q = {.v = v, .k = 1};
    struct vector_space s = {.collection = c.id, .collection_no = c.no, .generation = 1, .dim = 4};
    struct vector_hit *hit;
    struct store_document *gone;
    size_t n;
    bool more;
    fails(w, ERR_NOT_READY, VECTORS_CALL(w->b.vectors, search, &w->a, &s, &q, &hit, &n, &w->e));
    struct job_runner *r = start_ingest(w);
    struct store_document late = a_document(w, &c, "Late");
    for (int64_t until = clock_ns() + 20 * SEC; !str_eqz(job_of(w, &late.job).error_code, "not_ready");) {
        must(w, clock_ns() < until);
        fiber_sleep(5 * MS);
    }
    ok(w, GET(w, document_list,
              &(struct store_document_query){.collection = c.id, .page = {.limit = 1, .ascending = true}}, &gone, &n,
              &more));
    ok(w,
       DO(w, document_delete, &gone->id, 0)); /* the outbox cannot tell the index, and fsck is not kept from its work */
    struct fsck_counts found;
    fails(w, ERR_CONFLICT, fsck(&w->b, false, &found, NULL, &w->e));
    must(w, strstr(w->e.msg, "--repair"));
    same(w, found.documents, DOCUMENTS); /* of the other collection */
    found = check(w, true);
    must(w, found.repaired >= DOCUMENTS - 1);
    wait_for_job(w, &late.job, JOB_succeeded);
    stop(w, r);
    behind_its_back(w, "UPDATE vector_outbox SET due_us = 1", "UPDATE vector_outbox SET due_us = 1");
    clean(w);
    ok(w, VECTORS_CALL(w->b.vectors, search, &w->a, &s, &q, &hit, &n, &e));
    same(w, n, 1);
    vectors_close(w->b.vectors);
    config_free(cfg);
}

static void another_model(struct world *w)
{
    open_doubles(w);
    struct store_collection c = a_collection(w, "c");
    struct store_document d[DOCUMENTS];
    fill(w, &c, d);
    struct fake_embedder other = fake_embedder("n", 8);
    w->b.embedder = &other.base;
    /* what was refused meanwhile gets its turn after the flip */
    struct job_runner *r = start_ingest(w);
    struct store_document refused = a_document(w, &c, "Refused");
    wait_for_job(w, &refused.job, JOB_failed);

    ok(w, reindex_collection(&w->b, &w->a, &c.id, false, NULL, &c, &w->e));
    same(w, c.generation, 1);
    same(w, c.shadow.no, 2);
    must(w, c.shadow_built);
    same_str(w, c.embedder, "m");
    /* new documents reach what will be searched */
    struct store_document late = a_document(w, &c, "Late");
    wait_for_job(w, &late.job, JOB_succeeded);
    ok(w, reindex_flip(&w->b, &w->a, &c.id, 2, false, &c, &w->e));
    same(w, c.generation, 2);
    same(w, c.dim, 8);
    size_t n;
    ok(w, outbox_drain(&w->b, 10, &n, &w->e));
    wait_for_job(w, &refused.job, JOB_succeeded);
    stop(w, r);
    for (int i = 0; i < DOCUMENTS; i++)
        same(w, points_of(w, &vectors, &c, 2, &d[i]), 1);
    late = document_of(w, &late.id);
    same(w, points_of(w, &vectors, &c, 2, &late), 1);
    refused = document_of(w, &refused.id);
    same(w, points_of(w, &vectors, &c, 2, &refused), 1);
    fails(w, ERR_CONFLICT, reindex_flip(&w->b, &w->a, &c.id, 7, false, &c, &w->e));
    fails(w, ERR_CONFLICT, reindex_flip(&w->b, &w->a, &c.id, 2, true, &c, &w->e)); /* it is where it is */

    /* and back, at once: that the old generation may lack something is known, then what, and with its model it is mended */
    vectors.away = true;
    ok(w, reindex_flip(&w->b, &w->a, &c.id, 0, true, &c, &w->e));
    same(w, c.generation, 1);
    same_str(w, c.embedder, "m");
    must(w, collection_of(w, &c.id).incomplete);
    fails(w, ERR_NOT_READY, outbox_drain(&w->b, 10, &n, &w->e));
    must(w, collection_of(w, &c.id).incomplete);
    vectors.away = false;
    behind_its_back(w, "UPDATE vector_outbox SET due_us = 1", "UPDATE vector_outbox SET due_us = 1");
    ok(w, outbox_drain(&w->b, 10, &n, &w->e)); /* looks, and leads the alias */
    same(w, n, 2);
    must(w, collection_of(w, &c.id).incomplete);
    w->b.embedder = &model.base;
    ok(w, outbox_drain(&w->b, 10, &n, &w->e));
    same(w, n, 2);
    must(w, !collection_of(w, &c.id).incomplete);
    struct fsck_counts found = check(w, false);
    same(w, found.documents, DOCUMENTS + 2);
    clean(w);
    int texts = model.texts;
    ok(w, reindex_collection(&w->b, &w->a, &c.id, true, NULL, &c, &w->e)); /* the same model once more */
    same(w, c.generation, 3);
    same(w, model.texts, texts + 1); /* nothing but the question for the dimension */
    clean(w);
    doors_close(&vectors);
}

/* A document whose job waits, and knows nothing of the new generation. */
static void takes_what_is_under_way(struct world *w)
{
    open_doubles(w);
    struct store_collection c = a_collection(w, "c");
    struct store_document d[DOCUMENTS];
    fill(w, &c, d);
    vectors.away = true;
    struct job_runner *r = start_ingest(w);
    struct store_document late = a_document(w, &c, "Late");
    for (int64_t until = clock_ns() + 20 * SEC; !str_eqz(job_of(w, &late.job).error_code, "not_ready");) {
        must(w, clock_ns() < until);
        fiber_sleep(5 * MS);
    }
    stop(w, r);
    vectors.away = false;
    ok(w, reindex_collection(&w->b, &w->a, &c.id, true, NULL, &c, &w->e));
    late = document_of(w, &late.id);
    must(w, late.state != DOCUMENT_ready);
    same(w, c.generation, 2);
    same(w, points_of(w, &vectors, &c, 2, &late), 1);
    doors_close(&vectors);
}

/* From lexical to hybrid: documents that came before there was an embedder. */
static void first_model(struct world *w)
{
    open_doubles(w);
    w->b.embedder = NULL;
    struct store_collection c = a_collection(w, "c");
    struct store_document d[DOCUMENTS];
    fill(w, &c, d);
    fails(w, ERR_VALIDATION, reindex_collection(&w->b, &w->a, &c.id, true, NULL, &c, &w->e));
    w->b.embedder = &model.base;
    ok(w, reindex_collection(&w->b, &w->a, &c.id, true, NULL, &c, &w->e));
    same_str(w, c.embedder, "m");
    same(w, c.previous.no, 0);
    same(w, check(w, false).documents, DOCUMENTS);
    clean(w);
    doors_close(&vectors);
}

static void as_jobs(struct world *w)
{
    open_doubles(w);
    struct store_collection c = a_collection(w, "c"), empty = a_collection(w, "empty");
    struct store_document d[DOCUMENTS];
    struct store_job j;
    fill(w, &c, d);
    vectors.away = true; /* for a while: the job waits, and goes on */
    ok(w, GET(w, job_create, STR("reindex"), NULL, STR("{}"), &j));
    struct job_runner *r = start_ingest(w);
    for (int64_t until = clock_ns() + 20 * SEC; !str_eqz(job_of(w, &j.id).error_code, "not_ready");) {
        must(w, clock_ns() < until);
        fiber_sleep(5 * MS);
    }
    vectors.away = false;
    j = wait_for_job(w, &j.id, JOB_succeeded);
    same_str(w, j.error_message, "{\"collections\":2,\"promoted\":true}");
    c = collection_of(w, &c.id);
    same(w, c.generation, 2);
    same(w, collection_of(w, &empty.id).dim, 4);
    ok(w, GET(w, job_create, STR("fsck"), NULL, STR("{\"repair\":true}"), &j));
    j = wait_for_job(w, &j.id, JOB_succeeded);
    same_str(w, j.error_message,
             "{\"spaces\":3,\"documents\":14,\"missing\":0,\"orphans\":0,\"mismatched\":0,\"aliases\":0,\"strays\":0,"
             "\"repaired\":0}");
    stop(w, r);
    doors_close(&vectors);
}

static int puts_left;

static void go_away(void)
{
    vectors.away = puts_left-- <= 0;
}

/* A try that ends between two collections: the next one leaves the first as it is, with what it can go back to. */
static void a_try_goes_on_where_another_ended(struct world *w)
{
    open_doubles(w);
    struct store_collection c = a_collection(w, "c"), next = a_collection(w, "next");
    struct store_document d[DOCUMENTS];
    struct store_job j;
    fill(w, &c, d);
    fill(w, &next, d);
    ok(w, reindex_collection(&w->b, &w->a, &next.id, true, NULL, &next, &w->e));
    same(w, next.generation, 2);
    char id[UUID_TEXT_LEN + 1] = {0};
    uuid_text(&next.id, id);
    puts_left = DOCUMENTS + 1;
    vectors.before_put = go_away;
    ok(w, GET(w, job_create, STR("reindex"), NULL, arena_printf(&w->a, "{\"from\":{\"%s\":2}}", id), &j));
    struct job_runner *r = start_ingest(w);
    for (int64_t until = clock_ns() + 20 * SEC; !str_eqz(job_of(w, &j.id).error_code, "not_ready");) {
        must(w, clock_ns() < until);
        fiber_sleep(5 * MS);
    }
    same(w, collection_of(w, &c.id).generation, 2);
    same(w, collection_of(w, &next.id).generation, 2);
    vectors.before_put = NULL;
    vectors.away = false;
    j = wait_for_job(w, &j.id, JOB_succeeded);
    same_str(w, j.error_message, "{\"collections\":2,\"promoted\":true}");
    c = collection_of(w, &c.id);
    same(w, c.generation, 2);
    same(w, c.previous.no, 1);
    same(w, collection_of(w, &next.id).generation, 3);
    stop(w, r);
    clean(w);
    doors_close(&vectors);
}

static struct world *flipping;
static struct uuid its_id;

/* Somebody promotes between the look and the change of an alias. */
static void flip_meanwhile(void)
{
    struct store_collection c;
    vectors.before_alias = NULL;
    ok(flipping, reindex_flip(&flipping->b, &flipping->a, &its_id, 0, false, &c, &flipping->e));
}

/* Over flips, absence, meddling, and the end of the collection. */
static void the_alias_follows_what_is_searched(struct world *w)
{
    open_doubles(w);
    struct store_collection c = a_collection(w, "c");
    struct store_document d[DOCUMENTS];
    struct store_job j;
    size_t n;
    fill(w, &c, d);
    c = collection_of(w, &c.id);
    struct vector_space s = {.collection = c.id, .collection_no = c.no, .generation = 1, .dim = 4};
    int64_t *alias = doors_alias_of(&vectors, &s);
    same(w, *alias, 1);
    ok(w, reindex_collection(&w->b, &w->a, &c.id, false, NULL, &c, &w->e));
    same(w, *alias, 1);
    vectors.away = true; /* the flip is done all the same, and the outbox has the rest */
    ok(w, reindex_flip(&w->b, &w->a, &c.id, 2, false, &c, &w->e));
    same(w, c.generation, 2);
    same(w, *alias, 1);
    vectors.away = false;
    ok(w, outbox_drain(&w->b, 1000, &n, &w->e));
    same(w, *alias, 2);
    ok(w, reindex_flip(&w->b, &w->a, &c.id, 0, true, &c, &w->e));
    same(w, *alias, 1);
    ok(w, outbox_drain(&w->b, 1000, &n, &w->e)); /* what a flip leaves to it would mend the alias, too */

    *alias = 7;
    same(w, check(w, false).aliases, 1);
    struct fsck_counts found = check(w, true);
    same(w, found.aliases, 1);
    same(w, found.repaired, 1);
    same(w, *alias, 1);
    same(w, check(w, false).aliases, 0);

    ok(w, reindex_collection(&w->b, &w->a, &c.id, false, NULL, &c, &w->e));
    *alias = 0;
    flipping = w;
    its_id = c.id;
    vectors.before_alias = flip_meanwhile;
    ok(w, index_alias(&w->b, &s, false, &w->e));
    c = collection_of(w, &c.id);
    same(w, c.generation, 3);
    same(w, *alias, 3);

    ok(w, GET(w, collection_delete, &c.id, 0, &j));
    int64_t left;
    ok(w, DO(w, collection_purge, &c.id, 100, &left));
    ok(w, outbox_drain(&w->b, 1000, &n, &w->e));
    same(w, *alias, 0);
    ok(w, index_alias(&w->b, &s, true, &w->e)); /* by one who does not know yet */
    ok(w, outbox_drain(&w->b, 1000, &n, &w->e));
    same(w, *alias, 0);
    doors_close(&vectors);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(finds_and_mends),
        TEST(cannot_mend_without_the_model),
        TEST(makes_a_damaged_file_anew),
        TEST(another_model),
        TEST(first_model),
        TEST(as_jobs),
        TEST(a_try_goes_on_where_another_ended),
        TEST(takes_what_is_under_way),
        TEST(the_alias_follows_what_is_searched),
    };
    return contract_main("upkeep", tests, sizeof tests / sizeof *tests, argc, argv);
}
