/* Databases that an earlier release made: they are migrated with what is in them, and that release may go on writing. The
 * table of migrations is this program's own, so that it can be short at first. */
#define migrations all_migrations
#include "migrations.c"
#undef migrations
#include "tests/contract/contract.h"

struct migration migrations[16]; /* what the store sees */

/* This release knows the first `limit` migrations of each product. */
static void release(int limit)
{
    size_t n = 0;
    memset(migrations, 0, sizeof migrations);
    for (const struct migration *m = all_migrations; m->product; m++)
        if (m->number <= limit)
            migrations[n++] = *m;
}

#define COLLECTION "'11111111-1111-7111-8111-111111111111'"
#define DOCUMENT   "'22222222-2222-7222-8222-222222222222'"
#define JOB        "'33333333-3333-7333-8333-333333333333'"
#define CHUNK      "'44444444-4444-8444-8444-444444444444'"
#define SHA        "decode(repeat('ab', 32), 'hex')"
#define ARRAYS                                                                                                      \
    "ARRAY[" CHUNK "]::uuid[], ARRAY['one'], ARRAY['[]'], ARRAY[" SHA "], ARRAY[1]::bigint[], ARRAY[0]::bigint[], " \
    "ARRAY[0]::bigint[], ARRAY[3]::bigint[], ARRAY[0]::bigint[], ARRAY[3]::bigint[], ARRAY['''1 one'':1'])"

/* As the first release writes: a collection, and a document that its ingest worker indexes. */
static const char *const collection[] = {
    "INSERT INTO collections (id, name, description, language, metadata, chunking, version, updated_us)"
    " VALUES (x'11111111111171118111111111111111', 'c', '', 'english', '{}', '{}', "
    "1, 1)",
    "INSERT INTO collections (id, name, description, language, metadata, chunking, updated_us)"
    " VALUES (" COLLECTION ", 'c', '', 'english', '{}', '{}', 1)"};
static const char *const document[] = {
    "INSERT INTO documents (id, collection, external_id, filename, title, mime, language, metadata, tags, sha256, "
    "bytes,"
    " content_us, updated_us, job) VALUES (x'22222222222272228222222222222222', 1, NULL, 'a', '',"
    " 'text/plain', '', '{}', '[]', zeroblob(32), 3, 1, 1, "
    "x'33333333333373338333333333333333')",
    "WITH j AS (INSERT INTO jobs (id, type, document, collection, due_us, updated_us, state, owner) VALUES (" JOB
    ", 'ingest', " DOCUMENT ", " COLLECTION ", 1, 1, 1, " JOB
    ")) INSERT INTO documents (id, collection, filename, title,"
    " mime, language, metadata, tags, sha256, bytes, content_us, updated_us, job) VALUES (" DOCUMENT
    ", 1, 'a', '', 'text/plain', '', '{}', '[]', " SHA ", 3, 1, 1, " JOB ")"};
static const char *const commit[] = {
    "UPDATE documents SET state = 5, chunks = 1, tokens = 1, pages = 0, title = 't', indexed_version ="
    " content_version, version = version + 1 WHERE no = 1",
    "SELECT ragd_index_commit(" JOB ", " JOB ", (SELECT content_version FROM documents), 't', '', '', 0,"
    " ARRAY['one'::bytea], " ARRAYS};
static const char *const chunk[] = {
    "INSERT INTO chunks (no, id, text, headings, sha256, tokens, page, char_start, char_end, byte_start, byte_end)"
    " VALUES (1048576, x'44444444444484448444444444444444', 'one', '[]', zeroblob(32), 1, 0, 0, 3, "
    "0, 3)",
    "SELECT 1"};
static const char *const change[] = {"UPDATE documents SET content_version = 2, state = 0",
                                     "WITH j AS (UPDATE jobs SET state = 1, owner = " JOB
                                     ") UPDATE documents SET content_version = 2, state = 0"};

static void as_the_first(struct world *w, const char *const sql[2])
{
    if (w->sqlite) {
        behind_its_back(w, sql[0], sql[1]);
        return;
    }
    PGconn *c = PQconnectdb(w->url);
    PGresult *r = PQexec(c, sql[1]);
    if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK)
        fail_at(w, __LINE__, "%s: %s", sql[1], PQerrorMessage(c));
    PQclear(r);
    PQfinish(c);
}

static void fill(struct world *w)
{
    as_the_first(w, collection);
    as_the_first(w, document);
    as_the_first(w, chunk);
    as_the_first(w, commit);
}

/* The next release starts on the database. */
static void upgrade(struct world *w)
{
    int applied;
    store_close(w->s);
    release(99);
    ok(w, store_open(w->cfg, &w->s, &w->e));
    ok(w, DO(w, migrate, &applied));
    ok(w, DO(w, check));
}

static void keeps_what_is_there(struct world *w)
{
    struct store_collection c;
    struct store_chunk *k;
    size_t n;
    fill(w);
    upgrade(w);
    ok(w, GET(w, collection_by_name, STR("c"), &c));
    same(w, c.documents, 1);
    same(w, c.chunks, 1);
    same(w, c.generation, 1);
    same_str(w, c.embedder, "");
    struct uuid id = {{0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x72, 0x22, 0x82, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22}};
    struct store_document d = document_of(w, &id);
    must(w, d.state == DOCUMENT_ready);
    same(w, d.indexed_version, 1);
    same_str(w, d.title, "t");
    ok(w, GET(w, document_chunks, &id, 0, 10, &k, &n));
    same(w, n, 1);
    same_str(w, k->text, "one");
    same(w, k->parent.byte_end, 0);
    struct store_document more = a_document(w, &c, "two");
    ok(w, DO(w, document_delete, &d.id, 0));
    same(w, collection_of(w, &c.id).documents, 1);
    must(w, document_of(w, &more.id).state == DOCUMENT_queued);
    release(1);
}

/* A rolling upgrade: workers of both releases write. What the earlier one indexes is given to the vector index, too. */
static void goes_on_writing(struct world *w)
{
    struct store_collection c;
    struct store_outbox *rows;
    size_t n;
    upgrade(w);
    fill(w);
    ok(w, GET(w, collection_by_name, STR("c"), &c));
    must(w, c.revision > 0);
    ok(w, DO(w, collection_set_embedder, &c.id, STR("m"), 4));
    ok(w, GET(w, outbox_take, 1000000, 10, &rows, &n));
    same(w, n, 1); /* what was there before it had vectors */
    ok(w, DO(w, outbox_done, &rows->no, 1));
    as_the_first(w, change);
    as_the_first(w, commit);
    must(w, collection_of(w, &c.id).revision > c.revision);
    ok(w, GET(w, outbox_take, 1000000, 10, &rows, &n));
    same(w, n, 1);
    must(w, rows->kind == OUTBOX_put);
    same(w, rows->document_no, 1);
    release(1);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {TEST(keeps_what_is_there), TEST(goes_on_writing)};
    release(1);
    return contract_main("store: upgrade", tests, sizeof tests / sizeof *tests, argc, argv);
}
