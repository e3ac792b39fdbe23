/* Ingestion with an embedder: text → chunks → vectors in the store → index → ready, and what happens when the embedder or
 * the index is away, the model is another one, or the worker is killed between two steps. */
#include "tests/contract/doubles.h"
#include "tests/contract/ingesting.h"
#include "worker/core/fsck.h"
#include "worker/core/outbox.h"
#include <signal.h>
#include <sys/wait.h>

static struct fake_embedder model;
static struct doors vectors;

static void open_doubles(struct world *w)
{
    model = fake_embedder("m", 4);
    vectors = doors_open();
    w->b.embedder = &model.base;
    w->b.vectors = &vectors.base;
}

/* Chunks of one paragraph each. */
static struct store_collection sections(struct world *w)
{
    struct store_collection in = {.name = STR("c"),
                                  .language = STR("english"),
                                  .chunking = STR("{\"type\":\"structure\",\"max_tokens\":16,\"overlap\":0}")},
                            out;
    ok(w, GET(w, collection_create, &in, &out));
    return out;
}

static const char *const report[] = {
    "# Harbour\n\nThe pilot boards two miles north of the light and takes the ship in.\n\n",
    "# Moorings\n\nLines are doubled in winter, when the wind comes from the west.\n\n",
    "# Tides\n\nThe stream turns an hour before high water at the pier.\n\n",
    "# Fees\n\nThey are paid at the office by noon of the day of departure.\n\n",
};

/* The report, with one of its sections changed. */
static struct str report_with(struct world *w, int section, const char *text)
{
    struct buf b = {0};
    for (int i = 0; i < 4; i++)
        buf_str(&b, str_of(i == section ? text : report[i]));
    struct str s = arena_dup(&w->a, buf_view(&b));
    buf_fini(&b);
    return s;
}

static struct store_document put_report(struct world *w, const struct store_collection *c, struct str text)
{
    struct store_document_new in = new_document(c, text.p);
    struct store_document out;
    enum store_created what;
    struct store_job job;
    in.by_external_id = true;
    in.external_id = STR("report");
    in.filename = STR("report.md");
    in.mime = STR("text/markdown");
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    return out;
}

static void drain(struct world *w)
{
    size_t n;
    do
        ok(w, outbox_drain(&w->b, 10, &n, &w->e));
    while (n);
}

static void become_ready(struct world *w)
{
    open_doubles(w);
    struct store_collection c = sections(w);
    struct store_document d = put_report(w, &c, report_with(w, -1, ""));
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    d = document_of(w, &d.id);
    must(w, d.state == DOCUMENT_ready);
    c = collection_of(w, &c.id);
    same_str(w, c.embedder, "m");
    same(w, c.dim, 4);
    same(w, d.chunks, 4);
    same(w, points_of(w, &vectors, &c, 1, &d), 4);
    same(w, model.texts, 4);

    /* one section changes: one chunk is embedded */
    d = put_report(w, &c, report_with(w, 1, "# Moorings\n\nLines are single.\n\n"));
    wait_for_job(w, &d.job, JOB_succeeded);
    d = document_of(w, &d.id);
    same(w, d.indexed_version, 2);
    same(w, points_of(w, &vectors, &c, 1, &d), 4);
    same(w, model.texts, 5);

    /* the same document elsewhere: nothing is */
    struct store_document_new copy = new_document(&c, report_with(w, -1, "").p);
    struct store_document e;
    enum store_created what;
    struct store_job j;
    copy.mime = STR("text/markdown");
    ok(w, GET(w, document_create, &copy, &e, &what, &j));
    wait_for_job(w, &e.job, JOB_succeeded);
    same(w, model.texts, 5);

    /* deletion and new metadata reach the index through the outbox */
    struct store_document_patch p = {.set_metadata = true, .metadata = STR("{\"a\":1}")};
    ok(w, GET(w, document_patch, &d.id, &p, 0, &d));
    e = document_of(w, &e.id);
    ok(w, DO(w, document_delete, &e.id, 0));
    same(w, points_of(w, &vectors, &c, 1, &e), 4);
    drain(w);
    same(w, vectors.describes, 1);
    same(w, points_of(w, &vectors, &c, 1, &e), 0);
    same(w, points_of(w, &vectors, &c, 1, &d), 4);
    stop(w, r);
    doors_close(&vectors);
}

/* The vectors of what is indexed stay, and fsck finds nothing wrong with that. */
static void updates_that_fail(struct world *w)
{
    struct fsck_counts counts;
    open_doubles(w);
    struct store_collection c = sections(w);
    struct store_document d = put_report(w, &c, report_with(w, -1, ""));
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    c = collection_of(w, &c.id);
    d = put_report(w, &c, STR("\x89PNG\r\n\x1a\n and nothing that can be read"));
    wait_for_job(w, &d.job, JOB_failed);
    stop(w, r);
    drain(w);
    d = document_of(w, &d.id);
    must(w, d.state == DOCUMENT_failed && d.error_code.n);
    same(w, d.content_version, 2);
    same(w, d.indexed_version, 1);
    same(w, d.chunks, 4);
    same(w, points_of(w, &vectors, &c, 1, &d), 4);
    ok(w, fsck(&w->b, false, &counts, NULL, &w->e));
    same(w, counts.missing + counts.orphans + counts.mismatched, 0);
    doors_close(&vectors);
}

static void wait_for_error(struct world *w, const struct uuid *id, const char *message)
{
    for (int64_t until = clock_ns() + 20 * SEC; !str_eqz(document_of(w, id).error_message, message);) {
        must(w, clock_ns() < until);
        fiber_sleep(5 * MS);
    }
}

/* What is away is waited for, without counting tries; the text can be found meanwhile. */
static void wait_for_what_is_away(struct world *w)
{
    open_doubles(w);
    struct store_collection c = sections(w);
    model.away = vectors.away = true;
    struct store_document d = put_report(w, &c, report_with(w, -1, ""));
    struct job_runner *r = start_ingest(w);
    wait_for_error(w, &d.id, "the embedder is away");
    same(w, document_of(w, &d.id).indexed_version, 1);
    for (int tries = model.calls; model.calls < tries + 5;)
        fiber_sleep(5 * MS);
    model.away = false;
    wait_for_error(w, &d.id, "the vector index is away");
    same(w, model.texts, 4);
    vectors.away = false;
    struct store_job j = wait_for_job(w, &d.job, JOB_succeeded);
    same(w, j.attempts, 1);
    same(w, model.texts, 4);
    d = document_of(w, &d.id);
    same_str(w, d.error_message, "");
    c = collection_of(w, &c.id);
    same(w, points_of(w, &vectors, &c, 1, &d), 4);

    /* the outbox waits likewise */
    vectors.away = true;
    ok(w, DO(w, document_delete, &d.id, 0));
    size_t n;
    fails(w, ERR_NOT_READY, outbox_drain(&w->b, 10, &n, &w->e));
    vectors.away = false;
    drain(w); /* leased */
    same(w, points_of(w, &vectors, &c, 1, &d), 4);
    behind_its_back(w, "UPDATE vector_outbox SET due_us = 1", "UPDATE vector_outbox SET due_us = 1");
    drain(w);
    same(w, points_of(w, &vectors, &c, 1, &d), 0);
    stop(w, r);
    doors_close(&vectors);
}

static void refuse_another_model(struct world *w)
{
    open_doubles(w);
    struct store_collection c = sections(w);
    struct store_document d = put_report(w, &c, report_with(w, -1, ""));
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    struct fake_embedder other = fake_embedder("n", 4), longer = fake_embedder("m", 8);
    struct fake_embedder *wrong[] = {&other, &longer};
    for (int i = 0; i < 2; i++) {
        w->b.embedder = &wrong[i]->base;
        d = put_report(w, &c, report_with(w, i, "# New\n\nOther words.\n\n"));
        wait_for_job(w, &d.job, JOB_failed);
        d = document_of(w, &d.id);
        same_str(w, d.error_code, "embedder_mismatch");
        must(w, strstr(arena_dup(&w->a, d.error_message).p, "ragd reindex"));
        same(w, d.indexed_version, d.content_version); /* its words can be found all the same */
    }
    /* a shadow of the new model takes it */
    w->b.embedder = &other.base;
    ok(w, GET(w, shadow_begin, &c.id, STR("n"), 4, &c));
    d = put_report(w, &c, report_with(w, 2, "# New\n\nOther words.\n\n"));
    wait_for_job(w, &d.job, JOB_succeeded);
    d = document_of(w, &d.id);
    same(w, points_of(w, &vectors, &c, 2, &d), 4);
    stop(w, r);
    doors_close(&vectors);
}

/* An entry of the outbox says where to look, not what to do. */
static void late_entries_do_no_harm(struct world *w)
{
    open_doubles(w);
    struct store_collection c = sections(w);
    struct store_document d = put_report(w, &c, report_with(w, -1, ""));
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    stop(w, r);
    d = document_of(w, &d.id);
    c = collection_of(w, &c.id);
    struct store_outbox o = {.kind = OUTBOX_remove,
                             .collection = c.id,
                             .collection_no = c.no,
                             .generation = 1,
                             .dim = 4,
                             .document = d.id,
                             .document_no = d.no};
    ok(w, DO(w, outbox_add, &o, 1));
    drain(w);
    same(w, points_of(w, &vectors, &c, 1, &d), 4);
    struct vector_space s = {.collection = c.id, .collection_no = c.no, .generation = 1, .dim = 4};
    ok(w, VECTORS_CALL(vectors.inner, drop, &s, &w->e)); /* the index is lost: rebuilt without the embedder */
    w->b.embedder = NULL;
    o.kind = OUTBOX_put;
    ok(w, DO(w, outbox_add, &o, 1));
    drain(w);
    same(w, points_of(w, &vectors, &c, 1, &d), 4);
    o.generation = 7; /* gone meanwhile */
    ok(w, DO(w, outbox_add, &o, 1));
    drain(w);
    ok(w, DO(w, document_delete, &d.id, 0));
    ok(w, DO(w, outbox_add, &o, 1));
    drain(w);
    same(w, points_of(w, &vectors, &c, 1, &d), 0);
    struct store_job j;
    int64_t left;
    ok(w, GET(w, collection_delete, &c.id, 0, &j));
    ok(w, DO(w, collection_purge, &c.id, 10, &left));
    drain(w);
    must(w, vectors.drops >= 1);
    doors_close(&vectors);
}

/* Vectors that are kept from before embedding.dimensions was set are not taken for those of a new collection. */
static void of_the_length_that_is_set(struct world *w)
{
    open_doubles(w);
    struct store_collection c = sections(w), other;
    struct store_document d = put_report(w, &c, report_with(w, -1, ""));
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    same(w, collection_of(w, &c.id).dim, 4);
    struct config cfg = *w->b.cfg;
    struct fake_embedder shorter = fake_embedder("m", 2);
    cfg.embedding_dimensions = 2;
    w->b.cfg = &cfg;
    w->b.embedder = &shorter.base;
    struct store_collection in = {.name = STR("other"), .language = STR("english"), .chunking = c.chunking};
    ok(w, GET(w, collection_create, &in, &other));
    d = put_report(w, &other, report_with(w, -1, ""));
    wait_for_job(w, &d.job, JOB_succeeded);
    same(w, collection_of(w, &other.id).dim, 2);
    /* nothing is set: the embedder says it, and is asked only if there is something to mistake */
    w->b.cfg = w->cfg;
    struct fake_embedder now = fake_embedder("m", 8);
    w->b.embedder = &now.base;
    for (int i = 0; i < 2; i++) {
        in.name = i ? STR("others") : STR("all that is kept");
        ok(w, GET(w, collection_create, &in, &other));
        d = put_report(w, &other, report_with(w, i ? 1 : -1, "# New\n\nOther words.\n\n"));
        wait_for_job(w, &d.job, JOB_succeeded);
        d = document_of(w, &d.id);
        other = collection_of(w, &other.id);
        same(w, other.dim, 8);
        same(w, points_of(w, &vectors, &other, 1, &d), 4);
        same(w, now.texts, i ? 6 : 5); /* a question and four, then what is new */
    }
    stop(w, r);
    doors_close(&vectors);
}

static struct world *hooked;

static void begin_a_generation(void)
{
    struct world *w = hooked;
    struct store_collection c;
    vectors.before_put = NULL;
    ok(w, GET(w, collection_by_name, STR("c"), &c));
    ok(w, GET(w, shadow_begin, &c.id, STR("m"), 4, &c));
}

static void drop_the_generation(void)
{
    struct world *w = hooked;
    struct store_collection c;
    vectors.before_put = NULL;
    ok(w, GET(w, collection_by_name, STR("c"), &c));
    ok(w, DO(w, generation_drop, &c.id, 2));
    drain(w);
    same(w, vectors.drops, 1);
}

static struct uuid patched;

static void patch_the_document(void)
{
    struct world *w = hooked;
    struct store_document_patch p = {.set_metadata = true, .metadata = STR("{\"a\":1}")};
    struct store_document d;
    vectors.before_put = NULL;
    ok(w, GET(w, document_patch, &patched, &p, 0, &d));
    drain(w); /* there is nothing yet to describe */
}

/* Between the look at the store and the write into the index its space goes, or the document says other things of itself. */
static void changes_before_the_points(struct world *w)
{
    open_doubles(w);
    struct store_collection c = sections(w);
    struct store_document d = put_report(w, &c, report_with(w, -1, ""));
    struct job_runner *r = start_ingest(w);
    hooked = w;
    patched = d.id;
    vectors.before_put = patch_the_document;
    wait_for_job(w, &d.job, JOB_succeeded);
    stop(w, r);
    int describes = vectors.describes;
    drain(w);
    must(w, vectors.describes > describes);

    d = document_of(w, &d.id);
    ok(w, GET(w, shadow_begin, &c.id, STR("m"), 4, &c));
    struct store_outbox o = {.kind = OUTBOX_put,
                             .collection = c.id,
                             .collection_no = c.no,
                             .generation = 2,
                             .dim = 4,
                             .document = d.id,
                             .document_no = d.no};
    ok(w, DO(w, outbox_add, &o, 1));
    vectors.before_put = drop_the_generation;
    drain(w);
    same(w, points_of(w, &vectors, &c, 2, &d), 0);
    same(w, points_of(w, &vectors, &c, 1, &d), 4);
    doors_close(&vectors);
}

/* A reindex that began after the job had looked at the collection. */
static void reaches_later_generations(struct world *w)
{
    open_doubles(w);
    struct store_collection c = sections(w);
    hooked = w;
    vectors.before_put = begin_a_generation;
    struct store_document d = put_report(w, &c, report_with(w, -1, ""));
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    stop(w, r);
    drain(w);
    d = document_of(w, &d.id);
    c = collection_of(w, &c.id);
    same(w, points_of(w, &vectors, &c, 1, &d), 4);
    same(w, points_of(w, &vectors, &c, 2, &d), 4);
    doors_close(&vectors);
}

static void without_an_embedder(struct world *w)
{
    open_doubles(w);
    w->b.embedder = NULL;
    struct store_collection c = sections(w);
    struct store_document d = put_report(w, &c, report_with(w, -1, ""));
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    must(w, document_of(w, &d.id).state == DOCUMENT_ready);
    same_str(w, collection_of(w, &c.id).embedder, "");
    same(w, vectors.puts, 0);
    stop(w, r);
    doors_close(&vectors);
}

/* Works on what is due until nothing is, without a pause. How many entries are left. */
static int64_t tend(struct world *w, struct outbox_pace *pace)
{
    int64_t left;
    size_t n;
    do {
        pace->next_ns = 0; /* as if seconds had passed */
        ok(w, outbox_tend(&w->b, pace, 10, &n, &w->e));
    } while (n || !pace->over);
    ok(w, DO(w, outbox_count, &left));
    return left;
}

/* So long an outage that the entries' next tries are a quarter of an hour away; the last was at least 40 s ago. */
#define LONG_AGO "UPDATE vector_outbox SET tries = 9, due_us = due_us + 890000000 WHERE tries = 1"

static void after_a_long_outage(struct world *w)
{
    enum { N = 25 };
    open_doubles(w);
    struct store_collection c = a_collection(w, "c");
    struct outbox_pace pace = {0};
    struct uuid id[N];
    struct job_runner *r = start_ingest(w);
    for (int i = 0; i < N; i++) {
        struct store_document d = a_document(w, &c, arena_printf(&w->a, "Harbour %d", i).p);
        wait_for_job(w, &d.job, JOB_succeeded);
        id[i] = d.id;
    }
    stop(w, r);
    same(w, tend(w, &pace), 0);
    must(w, pace.over);
    vectors.away = true;
    for (int i = 0; i < N; i++)
        ok(w, DO(w, document_delete, &id[i], 0));
    size_t n;
    do /* each is tried once */
        must(w, outbox_tend(&w->b, &pace, 10, &n, &w->e) == (n ? -1 : 0));
    while (n);
    must(w, !pace.over);
    behind_its_back(w, LONG_AGO, LONG_AGO);
    int removes = vectors.removes;
    ok(w, outbox_tend(&w->b, &pace, 10, &n, &w->e)); /* too soon to look again */
    same(w, n, 0);
    for (int i = 0; i < 3; i++) { /* one at a time finds out whether it is over */
        pace.next_ns = 0;
        ok(w, outbox_tend(&w->b, &pace, 10, &n, &w->e));
        fails(w, ERR_NOT_READY, outbox_tend(&w->b, &pace, 10, &n, &w->e));
        same(w, n, 1);
    }
    same(w, vectors.removes, removes + 3);
    vectors.away = false;
    same(w, tend(w, &pace), 3); /* those that were tried a moment ago: their leases must run out */
    behind_its_back(w, "UPDATE vector_outbox SET due_us = due_us - 30000000",
                    "UPDATE vector_outbox SET due_us = due_us - 30000000");
    same(w, tend(w, &pace), 0);
    doors_close(&vectors);
}

/* The try that committed the index had an embedder, the next has none: the vectors are owed, and the answers say so. */
static void configured_away(struct world *w)
{
    open_doubles(w);
    struct store_collection c = sections(w);
    struct store_document d = put_report(w, &c, report_with(w, -1, ""));
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    model.away = true;
    struct store_document late = a_document(w, &c, "What nobody has embedded yet");
    wait_for_error(w, &late.id, "the embedder is away");
    w->b.embedder = NULL;
    wait_for_job(w, &late.job, JOB_succeeded);
    stop(w, r);
    must(w, collection_of(w, &c.id).incomplete);
    model.away = false;
    w->b.embedder = &model.base;
    drain(w);
    must(w, !collection_of(w, &c.id).incomplete);
    late = document_of(w, &late.id);
    c = collection_of(w, &c.id);
    same(w, points_of(w, &vectors, &c, 1, &late), 1);
    doors_close(&vectors);
}

/* ---- killed between two steps ---- */

static void die(void)
{
    kill(getpid(), SIGKILL);
}

static void child_fiber(void *arg)
{
    struct world *w = arg;
    if (setjmp(w->failed) == 0) {
        ok(w, store_open(w->cfg, &w->s, &w->e));
        w->b = (struct backends){.cfg = w->cfg, .store = w->s};
        void (**hook[])(void) = {&model.asked, &vectors.before_put, &vectors.after_put};
        int where = w->line;
        w->line = 0;
        open_doubles(w);
        *hook[where] = die;
        struct job_runner *r = start_ingest(w);
        fiber_sleep(60 * SEC);
        job_runner_cancel(r);
    }
    loop_stop();
}

/* --child URL WHERE */
static int child_main(char **argv)
{
    static struct world w;
    struct err e;
    w.cfg = config_for(argv[2], "ingest.lease=1s");
    w.line = atoi(argv[3]);
    if (loop_init(&e) < 0 || !fiber_spawn("child", child_fiber, &w))
        return 2;
    loop_run();
    return 3;
}

static void run_child(struct world *w, int where)
{
    char text[8];
    int status;
    snprintf(text, sizeof text, "%d", where);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "test", "--child", w->url, text, (char *)NULL);
        _exit(2);
    }
    must(w, pid > 0 && waitpid(pid, &status, 0) == pid);
    must(w, WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void survive_kills(struct world *w)
{
    static const int embedded[] = {4, 0, 0}; /* by the one who comes after */
    struct store_collection c = sections(w);
    struct str text = report_with(w, -1, "");
    for (int where = 0; where < 3; where++) {
        struct store_document d = put_report(w, &c, text);
        store_close(w->s);
        run_child(w, where);
        ok(w, store_open(w->cfg, &w->s, &w->e));
        w->b = (struct backends){.cfg = w->cfg, .store = w->s};
        open_doubles(w);
        d = document_of(w, &d.id);
        same(w, d.indexed_version == d.content_version, where > 0);
        struct job_runner *r = start_ingest(w);
        wait_for_job(w, &d.job, JOB_succeeded);
        stop(w, r);
        same(w, model.texts, embedded[where]);
        d = document_of(w, &d.id);
        c = collection_of(w, &c.id);
        must(w, d.state == DOCUMENT_ready);
        same(w, points_of(w, &vectors, &c, 1, &d), 4);
        doors_close(&vectors);
        text = report_with(w, where, "# New\n\nWhat nobody has embedded yet.\n\n");
    }
}

int main(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[1], "--child") == 0)
        return child_main(argv);
    struct contract_test tests[] = {
        TEST(become_ready),
        TEST(updates_that_fail),
        TEST(wait_for_what_is_away),
        TEST(refuse_another_model),
        TEST(late_entries_do_no_harm),
        TEST(without_an_embedder),
        TEST(survive_kills),
        TEST(reaches_later_generations),
        TEST(of_the_length_that_is_set),
        TEST(changes_before_the_points),
        TEST(configured_away),
        TEST(after_a_long_outage),
    };
    return contract_main("ingest: vectors", tests, sizeof tests / sizeof *tests, argc, argv);
}
