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

int main(int argc, char **argv)
{
    struct contract_test tests[] = {TEST(create_and_get)};
    return contract_main("store documents", tests, sizeof tests / sizeof *tests, argc, argv);
}
