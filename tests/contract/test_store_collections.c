/* Collections: create, name, page, change under a version, delete in steps. */
#include "tests/contract/contract.h"

static void create_and_read(struct world *w)
{
    struct store_collection in = {.name = STR("papers"),
                                  .description = STR("of \xe6\x97\xa5\xe6\x9c\xac"),
                                  .language = STR("german"),
                                  .metadata = STR("{\"k\": 1}"),
                                  .chunking = STR("{\"type\": \"static\"}")},
                            out, got;
    ok(w, GET(w, collection_create, &in, &out));
    same_str(w, out.name, "papers");
    same(w, out.version, 1);
    same(w, out.documents, 0);
    must(w, out.no > 0);
    got = collection_of(w, &out.id);
    same_id(w, got.id, out.id);
    same(w, got.no, out.no);
    same_str(w, got.name, "papers");
    same_str(w, got.description, "of \xe6\x97\xa5\xe6\x9c\xac");
    same_str(w, got.language, "german");
    same_str(w, got.metadata, "{\"k\": 1}");
    same_str(w, got.chunking, "{\"type\": \"static\"}");
    same(w, got.updated_us, out.updated_us);
    ok(w, GET(w, collection_by_name, STR("papers"), &got));
    same_id(w, got.id, out.id);
    fails(w, ERR_NOT_FOUND, GET(w, collection_by_name, STR("Papers"), &got));
    fails(w, ERR_NAME_TAKEN, GET(w, collection_create, &in, &got));
    struct uuid nobody = uuid_v7();
    fails(w, ERR_NOT_FOUND, GET(w, collection_get, &nobody, &got));
    struct store_collection plain = {.name = STR("plain")};
    ok(w, GET(w, collection_create, &plain, &out));
    same_str(w, out.metadata, "{}");
    same_str(w, out.chunking, "{}");
    got = collection_of(w, &out.id);
    same_str(w, got.metadata, "{}");
    same_str(w, got.description, "");
}

static void pages(struct world *w)
{
    struct store_collection c[7], *rows;
    struct store_page p = {.limit = 3};
    size_t n;
    bool more;
    for (int i = 0; i < 7; i++)
        c[i] = a_collection(w, arena_printf(&w->a, "c%d", i).p);
    ok(w, GET(w, collection_list, &p, &rows, &n, &more));
    same(w, n, 3);
    must(w, more);
    same_id(w, rows[0].id, c[6].id);
    same_id(w, rows[2].id, c[4].id);
    p.has_after = true;
    p.after = rows[2].id;
    ok(w, GET(w, collection_list, &p, &rows, &n, &more));
    same(w, n, 3);
    must(w, more);
    same_id(w, rows[0].id, c[3].id);
    p.after = rows[2].id;
    ok(w, GET(w, collection_list, &p, &rows, &n, &more));
    same(w, n, 1);
    must(w, !more);
    same_id(w, rows[0].id, c[0].id);

    /* before: the page that ends there, in the same order */
    p = (struct store_page){.limit = 2, .has_before = true, .before = c[1].id};
    ok(w, GET(w, collection_list, &p, &rows, &n, &more));
    same(w, n, 2);
    must(w, more);
    same_id(w, rows[0].id, c[3].id);
    same_id(w, rows[1].id, c[2].id);
    p.before = c[5].id;
    ok(w, GET(w, collection_list, &p, &rows, &n, &more));
    same(w, n, 1);
    must(w, !more);
    same_id(w, rows[0].id, c[6].id);

    p = (struct store_page){
        .limit = 10, .ascending = true, .has_after = true, .after = c[1].id, .has_before = true, .before = c[5].id};
    ok(w, GET(w, collection_list, &p, &rows, &n, &more));
    same(w, n, 3);
    must(w, !more);
    same_id(w, rows[0].id, c[2].id);
    same_id(w, rows[2].id, c[4].id);
}

static void change(struct world *w)
{
    struct store_collection c = a_collection(w, "one"), other = a_collection(w, "two"), out, got;
    struct store_collection_patch p = {
        .set_name = true, .name = STR("uno"), .set_metadata = true, .metadata = STR("{\"a\": [1, 2]}")};
    ok(w, GET(w, collection_patch, &c.id, &p, 1, &out));
    same(w, out.version, 2);
    same_str(w, out.name, "uno");
    got = collection_of(w, &c.id);
    same(w, got.version, 2);
    same_str(w, got.name, "uno");
    same_str(w, got.language, "english");
    must(w, got.updated_us >= c.updated_us);
    fails(w, ERR_VERSION, GET(w, collection_patch, &c.id, &p, 1, &out));
    p = (struct store_collection_patch){.set_name = true, .name = STR("two")};
    fails(w, ERR_NAME_TAKEN, GET(w, collection_patch, &c.id, &p, 0, &out));
    p.name = STR("uno"); /* its own name is not taken */
    ok(w, GET(w, collection_patch, &c.id, &p, 0, &out));
    p = (struct store_collection_patch){.set_description = true,
                                        .description = STR("d"),
                                        .set_language = true,
                                        .language = STR("none"),
                                        .set_chunking = true,
                                        .chunking = STR("{\"x\": 1}")};
    ok(w, GET(w, collection_patch, &other.id, &p, 0, &out));
    got = collection_of(w, &other.id);
    same_str(w, got.description, "d");
    same_str(w, got.language, "none");
    same_str(w, got.chunking, "{\"x\": 1}");
    same_str(w, got.name, "two");
    struct uuid nobody = uuid_v7();
    fails(w, ERR_NOT_FOUND, GET(w, collection_patch, &nobody, &p, 0, &out));
}

/* What the documents were analysed with is another language then: they are analysed once more. */
static void another_language(struct world *w)
{
    struct store_collection c = a_collection(w, "c"), out;
    struct store_collection_patch p = {.set_language = true, .language = STR("none")};
    struct store_job_query q = {.type = STR("reprocess"), .page = {.limit = 10}};
    struct store_job *j;
    size_t n;
    bool more;
    ok(w, GET(w, collection_patch, &c.id, &p, 0, &out)); /* there are none yet */
    ok(w, GET(w, job_list, &q, &j, &n, &more));
    same(w, n, 0);
    a_document(w, &c, "aaaa");
    ok(w, GET(w, collection_patch, &c.id, &p, 0, &out)); /* it is the same */
    p.set_description = true;
    ok(w, GET(w, collection_patch, &c.id, &p, 0, &out));
    p.language = STR("german");
    fails(w, ERR_VERSION, GET(w, collection_patch, &c.id, &p, 1, &out));
    ok(w, GET(w, job_list, &q, &j, &n, &more));
    same(w, n, 0);
    ok(w, GET(w, collection_patch, &c.id, &p, 0, &out));
    same_str(w, out.language, "german");
    ok(w, GET(w, job_list, &q, &j, &n, &more));
    same(w, n, 1);
    must(w, j[0].has_collection && !j[0].has_document && j[0].state == JOB_queued && j[0].total == 1);
    same_id(w, j[0].collection, c.id);
}

static void counts(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "aaaa"), b = a_document(w, &c, "bb");
    c = collection_of(w, &c.id);
    same(w, c.documents, 2);
    same(w, c.bytes, 6);
    same(w, c.chunks, 0);
    index_document(w, &a.id, (const char *[]){"one two", "three"}, 2);
    c = collection_of(w, &c.id);
    same(w, c.chunks, 2);
    same(w, c.tokens, 3);
    same(w, c.failed, 0);
    struct uuid owner = uuid_v7();
    struct store_job j = lease(w, &owner);
    ok(w, DO(w, job_finish, &j.id, &owner, JOB_failed, STR("bad"), STR("parsing"), STR("m"), 0));
    c = collection_of(w, &c.id);
    same(w, c.failed, 1);
    ok(w, DO(w, document_delete, &b.id, 0));
    c = collection_of(w, &c.id);
    same(w, c.failed, 0);
    same(w, c.documents, 1);
    same(w, c.bytes, 4);
    ok(w, DO(w, document_delete, &a.id, 0));
    c = collection_of(w, &c.id);
    same(w, c.documents, 0);
    same(w, c.bytes, 0);
    same(w, c.chunks, 0);
    same(w, c.tokens, 0);
}

static void delete_in_steps(struct world *w)
{
    struct store_collection c = a_collection(w, "c"), other = a_collection(w, "other"), got, *rows;
    struct store_document d[5], out, kept = a_document(w, &other, "kept");
    struct store_job job, j;
    struct uuid owner = uuid_v7();
    int64_t left = -1, before = -1;
    size_t n;
    bool more;
    for (int i = 0; i < 5; i++)
        d[i] = a_document(w, &c, arena_printf(&w->a, "text %d", i).p);
    index_document(w, &kept.id, (const char *[]){"word"}, 1);
    index_document(w, &d[0].id, (const char *[]){"word", "word word"}, 2);
    fails(w, ERR_CONFLICT, DO(w, collection_purge, &c.id, 2, &left));
    fails(w, ERR_VERSION, GET(w, collection_delete, &c.id, 99, &job));
    ok(w, GET(w, collection_delete, &c.id, 1, &job));
    same_str(w, job.type, "delete_collection");
    same_id(w, job.collection, c.id);

    /* hidden at once, with its documents; its name is free */
    fails(w, ERR_NOT_FOUND, GET(w, collection_get, &c.id, &got));
    fails(w, ERR_NOT_FOUND, GET(w, collection_delete, &c.id, 0, &job));
    fails(w, ERR_NOT_FOUND, GET(w, document_get, &d[1].id, &out));
    fails(w, ERR_NOT_FOUND, DO(w, document_delete, &d[1].id, 0));
    struct store_page p = {.limit = 10};
    ok(w, GET(w, collection_list, &p, &rows, &n, &more));
    same(w, n, 1);
    a_collection(w, "c");

    /* the jobs of its documents come to nothing; its own is leased */
    j = lease(w, &owner);
    same_id(w, j.id, job.id);
    for (int steps = 0; left != 0; steps++) {
        must(w, steps < 10);
        ok(w, DO(w, collection_purge, &c.id, 2, &left));
        must(w, before < 0 || left < before);
        before = left;
    }
    ok(w, DO(w, collection_purge, &c.id, 2, &left)); /* a repeated last step is harmless */
    same(w, left, 0);
    ok(w, DO(w, job_finish, &j.id, &owner, JOB_succeeded, STR(""), STR(""), STR(""), 0));
    got = collection_of(w, &other.id);
    same(w, got.documents, 1);
    same(w, got.chunks, 1);
    same(w, document_of(w, &kept.id).state, DOCUMENT_ready);
}

/* What comes from another store keeps its id. */
static void imported(struct world *w)
{
    struct store_collection in = {.id = uuid_v7(), .name = STR("first")}, out, again;
    struct store_job job;
    int64_t left = 1;
    ok(w, GET(w, collection_create, &in, &out));
    same_id(w, out.id, in.id);
    again = in;
    again.name = STR("second");
    fails(w, ERR_CONFLICT, GET(w, collection_create, &again, &out));
    ok(w, GET(w, collection_delete, &in.id, 0, &job));
    fails(w, ERR_CONFLICT, GET(w, collection_create, &again, &out));
    while (left)
        ok(w, DO(w, collection_purge, &in.id, 10, &left));
    ok(w, GET(w, collection_create, &again, &out));
    same_id(w, collection_of(w, &in.id).id, in.id);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {TEST(create_and_read), TEST(pages),           TEST(change),  TEST(another_language),
                                    TEST(counts),          TEST(delete_in_steps), TEST(imported)};
    return contract_main("store collections", tests, sizeof tests / sizeof *tests, argc, argv);
}
