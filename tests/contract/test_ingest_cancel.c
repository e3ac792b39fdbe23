/* A job that is cancelled between the index and the vectors: the document says what it lacks, and there is a cure. */
#include "tests/contract/doubles.h"
#include "tests/contract/ingesting.h"
#include "worker/core/fsck.h"

static struct fake_embedder model;
static struct doors vectors;

static struct store_document put(struct world *w, const struct store_collection *c, const char *text)
{
    struct store_document_new in = new_document(c, text);
    struct store_document out;
    enum store_created what;
    struct store_job job;
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    return out;
}

static void wait_for_message(struct world *w, const struct store_document *d, const char *message)
{
    int64_t end = clock_ns() + 60 * SEC;
    while (!str_eqz(document_of(w, &d->id).error_message, message)) {
        must(w, clock_ns() < end);
        fiber_sleep(5 * MS);
    }
}

static void cancel(struct world *w, const struct uuid *job)
{
    struct store_job j;
    do { /* one that runs notices it later */
        (void)GET(w, job_cancel, job, &j);
        fiber_sleep(5 * MS);
        ok(w, GET(w, job_get, job, &j));
    } while (j.state != JOB_cancelled);
}

static struct store_document lacks_vectors(struct world *w, const struct store_document *of)
{
    struct store_document d = document_of(w, &of->id);
    must(w, d.state == DOCUMENT_cancelled && d.chunks == 1);
    same_str(w, d.error_code, "cancelled");
    same_str(w, d.error_stage, "index vectors");
    must(w, strstr(arena_dup(&w->a, d.error_message).p, "searches by vectors miss it") != NULL);
    return d;
}

static void before_its_vectors(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_job j;
    struct fsck_counts counts;
    model = fake_embedder("m", 4);
    vectors = doors_open();
    w->b.embedder = &model.base;
    w->b.vectors = &vectors.base;

    /* tried again */
    model.away = true;
    struct store_document d = put(w, &c, "The pilot boards two miles north of the light.");
    struct job_runner *r = start_ingest(w);
    wait_for_message(w, &d, "the embedder is away");
    cancel(w, &d.job);
    lacks_vectors(w, &d);
    model.away = false;
    ok(w, GET(w, job_retry, &d.job, &j));
    job_runner_wake(r);
    wait_for_job(w, &d.job, JOB_succeeded);
    d = document_of(w, &d.id);
    must(w, d.state == DOCUMENT_ready);
    same_str(w, d.error_code, "");
    c = collection_of(w, &c.id);
    same(w, points_of(w, &vectors, &c, 1, &d), 1);

    /* mended by fsck */
    vectors.away = true;
    struct store_document other = put(w, &c, "Lines are doubled in winter.");
    job_runner_wake(r);
    wait_for_message(w, &other, "the vector index is away");
    cancel(w, &other.job);
    stop(w, r);
    vectors.away = false;
    other = lacks_vectors(w, &other);
    same(w, points_of(w, &vectors, &c, 1, &other), 0);
    ok(w, fsck(&w->b, true, &counts, NULL, &w->e));
    same(w, counts.missing, 1);
    same(w, points_of(w, &vectors, &c, 1, &other), 1);

    /* one that has its vectors and is worked on again keeps them */
    ok(w, GET(w, document_reprocess, &d.id, &j));
    ok(w, GET(w, job_cancel, &j.id, &j));
    d = document_of(w, &d.id);
    must(w, d.state == DOCUMENT_cancelled);
    same_str(w, d.error_code, "");
    doors_close(&vectors);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {TEST(before_its_vectors)};
    return contract_main("ingest cancel", tests, sizeof tests / sizeof *tests, argc, argv);
}
