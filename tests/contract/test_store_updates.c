/* Other contents for documents that have one: what is found meanwhile, and which job brings them. */
#include "tests/contract/contract.h"

static const struct uuid me = {{1}}, you = {{2}};
#define SECOND 1000000LL

static void put_content(struct world *w, const struct store_collection *c, const char *text, struct store_document *out,
                        struct store_job *job)
{
    struct store_document_new in = new_document(c, text);
    enum store_created what;
    in.by_external_id = true;
    in.external_id = STR("x");
    ok(w, GET(w, document_create, &in, out, &what, job));
}

/* The content changes while its job runs: that try comes to nothing, and the new content is indexed. */
static void content_changes_meanwhile(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d;
    struct store_job job, second, j;
    struct store_index_commit in = {.content_version = 1};
    put_content(w, &c, "first", &d, &job);
    j = lease(w, &me);
    put_content(w, &c, "second", &d, &second);
    same_id(w, second.id, job.id); /* the job under way serves it */
    fails(w, ERR_CONFLICT, DO(w, job_commit_index, &j.id, &me, &in));
    same(w, job_of(w, &j.id).state, JOB_queued);
    same(w, document_of(w, &d.id).state, DOCUMENT_queued);
    j = lease(w, &me);
    put_content(w, &c, "third", &d, &second);
    /* a failure of what is no longer there is nobody's failure */
    ok(w, DO(w, job_finish, &j.id, &me, JOB_failed, STR("bad"), STR("parsing"), STR("m"), 0));
    same(w, document_of(w, &d.id).state, DOCUMENT_queued);
    j = lease(w, &me);
    in.content_version = 3;
    ok(w, DO(w, job_commit_index, &j.id, &me, &in));
    d = document_of(w, &d.id);
    same(w, d.state, DOCUMENT_ready);
    same(w, d.content_version, 3);
}

/* A job that was asked to stop leaves a document with new content to the job of that content. */
static void a_cancelled_job_has_a_successor(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d;
    struct store_job job, second, j, out;
    size_t found;
    bool cancel;
    put_content(w, &c, "first", &d, &job);
    j = lease(w, &me);
    ok(w, GET(w, job_cancel, &j.id, &out));
    put_content(w, &c, "second", &d, &second);
    must(w, !uuid_eq(&second.id, &j.id));
    ok(w, DO(w, job_renew, &j.id, &me, 60 * SECOND, DOCUMENT_chunking, STR("x"), 1, 2, &cancel));
    same(w, document_of(w, &d.id).state, DOCUMENT_queued);
    index_document(w, &d.id, (const char *[]){"second"}, 1);
    ok(w, DO(w, job_finish, &j.id, &me, JOB_cancelled, STR("cancelled"), STR(""), STR(""), 0));
    same(w, document_of(w, &d.id).state, DOCUMENT_ready);
    same(w, document_of(w, &d.id).chunks, 1);

    /* the same when its worker has died */
    put_content(w, &c, "third", &d, &job);
    ok(w, GET(w, job_lease, &me, 1000, 1, &j, &found));
    must(w, found);
    ok(w, GET(w, job_cancel, &j.id, &out));
    put_content(w, &c, "fourth", &d, &second);
    index_document(w, &d.id, (const char *[]){"fourth"}, 1);
    for (struct store_job now = j; now.state == JOB_running; now = job_of(w, &j.id)) {
        ok(w, GET(w, job_lease, &you, SECOND, 1, &out, &found));
        must(w, !found && clock_wall_us() < j.lease_expires_us + 10 * SECOND);
    }
    same(w, job_of(w, &j.id).state, JOB_cancelled);
    same(w, document_of(w, &d.id).state, DOCUMENT_ready);
}

static void finds_word(struct world *w, const struct store_document *d, size_t n)
{
    struct store_collection c = collection_of(w, &d->collection);
    struct store_candidates hits;
    struct str word = STR("word"), text;
    struct store_chunk *chunks;
    size_t found;
    ok(w, GET(w, search_candidates, &c, &word, NULL, 1, 10, &hits));
    same(w, hits.n, n);
    same(w, c.chunks, 1);
    ok(w, GET(w, document_chunks, &d->id, 0, 10, &chunks, &found));
    same(w, found, 1);
    ok(w, GET(w, document_text, &d->id, &text));
}

/* What was indexed is found until another content is, also when that fails or nobody wants it any more. */
static void old_chunks_stay(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d;
    struct store_job job, j;
    put_content(w, &c, "first", &d, &job);
    index_document(w, &d.id, (const char *[]){"word"}, 1);
    put_content(w, &c, "second", &d, &job);
    finds_word(w, &d, 1);
    j = lease(w, &me);
    ok(w, DO(w, job_finish, &j.id, &me, JOB_failed, STR("bad"), STR("parsing"), STR("m"), 0));
    d = document_of(w, &d.id);
    same(w, d.state, DOCUMENT_failed);
    same_str(w, d.error_code, "bad");
    same(w, d.content_version, 2);
    same(w, d.indexed_version, 1);
    same(w, collection_of(w, &c.id).failed, 1);
    finds_word(w, &d, 1);
    put_content(w, &c, "third", &d, &job);
    ok(w, GET(w, job_cancel, &job.id, &j));
    same(w, document_of(w, &d.id).state, DOCUMENT_cancelled);
    finds_word(w, &d, 1);
    put_content(w, &c, "fourth", &d, &job);
    index_document(w, &d.id, (const char *[]){"another"}, 1);
    finds_word(w, &d, 0);
    same(w, document_of(w, &d.id).state, DOCUMENT_ready);
}

/* What failed or was cancelled gets another job when the same bytes come again; what did not, does not. */
static void failures_are_tried_again(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a"), d;
    struct store_document_new in = new_document(&c, "a");
    struct store_job j, job;
    enum store_created what;
    static const enum store_duplicate policies[] = {DUP_SKIP, DUP_VERSION};
    for (int i = 0; i < 4; i++) {
        in.on_duplicate = policies[i % 2];
        if (i < 2) {
            j = lease(w, &me);
            ok(w, DO(w, job_finish, &j.id, &me, JOB_failed, STR("bad"), STR("parsing"), STR("m"), 0));
        } else {
            ok(w, GET(w, job_cancel, &a.job, &j));
        }
        ok(w, GET(w, document_create, &in, &d, &what, &job));
        same(w, what, i % 2 ? STORE_UPDATED : STORE_DUPLICATE);
        must(w, uuid_eq(&d.id, &a.id) && uuid_eq(&d.job, &job.id) && !uuid_eq(&d.job, &a.job));
        same(w, d.state, DOCUMENT_queued);
        same_str(w, d.error_code, "");
        same(w, d.content_version, 1 + (i + 1) / 2);
        a = d;
    }
    in.on_duplicate = DUP_SKIP;
    ok(w, GET(w, document_create, &in, &d, &what, &job));
    same(w, what, STORE_DUPLICATE);
    must(w, uuid_is_zero(&job.id) && d.version == a.version);
    same(w, collection_of(w, &c.id).failed, 0);

    struct store_document x;
    put_content(w, &c, "first", &x, &j);
    ok(w, GET(w, job_cancel, &j.id, &job));
    put_content(w, &c, "first", &d, &job);
    must(w, uuid_eq(&d.id, &x.id) && !uuid_eq(&job.id, &j.id) && uuid_eq(&d.job, &job.id));
    same(w, d.state, DOCUMENT_queued);
    same(w, d.content_version, 1);
}

static void put_url(struct world *w, const struct store_collection *c, const char *url, struct store_document *out,
                    struct store_job *job)
{
    struct store_document_new in = new_document(c, url);
    enum store_created what;
    in.mime = STR(STORE_URL_MIME);
    in.by_external_id = true;
    in.external_id = STR("x");
    ok(w, GET(w, document_create, &in, out, &what, job));
    same(w, what, STORE_UPDATED);
    same(w, out->state, DOCUMENT_queued);
    must(w, uuid_eq(&out->job, &job->id));
}

/* A job that indexes after a newer one has ended leaves what that one told. */
static void an_older_job_tells_nothing(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d;
    struct store_job older, newer, j;
    struct store_chunk_new k = {.text = STR("word"), .terms = STR("word"), .headings = STR("[]"), .tokens = 1};
    struct store_index_commit in = {.content_version = 1, .chunks = &k, .n = 1};
    put_content(w, &c, "first", &d, &older);
    j = lease(w, &me);
    put_url(w, &c, "http://a/", &d, &newer);
    must(w, !uuid_eq(&newer.id, &older.id));
    j = lease(w, &you);
    must(w, uuid_eq(&j.id, &newer.id));
    ok(w, DO(w, job_finish, &newer.id, &you, JOB_failed, STR("gone"), STR("fetch"), STR("m"), 0));
    ok(w, DO(w, job_commit_index, &older.id, &me, &in));
    d = document_of(w, &d.id);
    same(w, d.state, DOCUMENT_failed);
    same_str(w, d.error_code, "gone");
    same(w, d.indexed_version, 1);
    same(w, d.chunks, 1);
    same(w, job_of(w, &older.id).state, JOB_succeeded);
}

/* Who sends what the document has wants that, and not what the URL of before leads to. */
static void bytes_come_after_a_url(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d;
    struct store_job fetch, job, j;
    put_content(w, &c, "first", &d, &job);
    index_document(w, &d.id, (const char *[]){"word"}, 1);
    put_url(w, &c, "http://a/", &d, &fetch);
    put_content(w, &c, "first", &d, &job);
    must(w, uuid_eq(&job.id, &fetch.id) && uuid_eq(&d.job, &job.id));
    same_str(w, job_of(w, &job.id).payload, "{}");
    index_document(w, &d.id, (const char *[]){"word"}, 1);
    put_url(w, &c, "http://a/", &d, &fetch);
    j = lease(w, &me);
    must(w, uuid_eq(&j.id, &fetch.id));
    put_content(w, &c, "first", &d, &job);
    must(w, !uuid_is_zero(&job.id) && !uuid_eq(&job.id, &fetch.id) && uuid_eq(&d.job, &job.id));
    same(w, d.state, DOCUMENT_queued);
    same(w, d.content_version, 1);
    same_str(w, job_of(w, &job.id).payload, "{}");
    put_content(w, &c, "first", &d, &j);
    must(w, uuid_is_zero(&j.id));
}

/* A URL for a document with a content waits in its job: in one that is queued, but not in one that runs. */
static void urls_wait_in_jobs(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d, was;
    struct store_job first, job, j;
    put_content(w, &c, "first", &d, &first);
    index_document(w, &d.id, (const char *[]){"word"}, 1);
    was = document_of(w, &d.id);
    put_url(w, &c, "http://a/\"", &d, &first);
    must(w, !memcmp(&d.sha256, &was.sha256, sizeof d.sha256) && d.bytes == was.bytes && str_eq(d.mime, was.mime));
    same(w, d.content_version, 1);
    must(w, strstr(job_of(w, &first.id).payload.p, "http://a/\\\""));
    put_url(w, &c, "http://b/", &d, &job);
    must(w, uuid_eq(&job.id, &first.id));
    j = lease(w, &me);
    must(w, uuid_eq(&j.id, &first.id) && strstr(j.payload.p, "http://b/"));
    put_url(w, &c, "http://c/", &d, &job);
    must(w, !uuid_eq(&job.id, &first.id));
    must(w, strstr(job_of(w, &first.id).payload.p, "http://b/"));
    ok(w, DO(w, job_finish, &j.id, &me, JOB_failed, STR("bad"), STR("fetch"), STR("m"), 0));
    same(w, document_of(w, &d.id).state, DOCUMENT_queued); /* it has a newer job */
    put_content(w, &c, "second", &d, &job);
    must(w, uuid_eq(&job.id, &d.job));
    same_str(w, job_of(w, &job.id).payload, "{}");
    same(w, d.content_version, 2);
    finds_word(w, &d, 1);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(content_changes_meanwhile), TEST(a_cancelled_job_has_a_successor), TEST(old_chunks_stay),
        TEST(urls_wait_in_jobs),         TEST(failures_are_tried_again),        TEST(an_older_job_tells_nothing),
        TEST(bytes_come_after_a_url),
    };
    return contract_main("store updates", tests, sizeof tests / sizeof *tests, argc, argv);
}
