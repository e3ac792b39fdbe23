/* Jobs and ingestion on real stores: what happens to a document between its upload and its first hit, and to a job whose
 * worker fails, dies, is told to stop or loses its lease. */
#include "tests/contract/ingesting.h"
#include "worker/core/ingest.h"
#include <sys/eventfd.h>

static struct store_document upload(struct world *w, const struct store_collection *c, struct str bytes,
                                    const char *filename, const char *mime)
{
    struct store_document_new in = new_document(c, "");
    struct store_document out;
    enum store_created what;
    struct store_job job;
    in.filename = str_of(filename);
    in.mime = str_of(mime);
    in.bytes = (int64_t)bytes.n;
    sha256_of(bytes.p, bytes.n, &in.sha256);
    in.inline_bytes = bytes.n <= STORE_PART ? bytes : STR("");
    for (size_t at = 0; bytes.n > STORE_PART && at < bytes.n; at += STORE_PART)
        ok(w, DO(w, file_put_part, &in.sha256, (int)(at / STORE_PART), str_sub(bytes, at, STORE_PART)));
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    return out;
}

static void documents_become_ready(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct str md = STR("---\ntitle: Mooring\n---\n# One\n\nThe pilot boards here.\n\n# Two\n\nLines are doubled.\n");
    struct store_document a = upload(w, &c, md, "a.md", "text/markdown");
    struct store_document b = upload(w, &c, STR("<html><title>T</title><p>Depth</p></html>"), "b.html", "text/html");
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &a.job, JOB_succeeded);
    wait_for_job(w, &b.job, JOB_succeeded);
    a = document_of(w, &a.id);
    same(w, a.state, DOCUMENT_ready);
    same_str(w, a.title, "Mooring");
    same_str(w, a.mime, "text/markdown");
    same(w, a.chunks, 2);
    same(w, a.tokens, 9);
    same_str(w, document_of(w, &b.id).title, "T");
    struct str text;
    struct store_chunk *chunk;
    size_t n;
    ok(w, GET(w, document_text, &a.id, &text));
    same_str(w, text, "One\n\nThe pilot boards here.\n\nTwo\n\nLines are doubled.");
    ok(w, GET(w, document_chunks, &a.id, 0, 10, &chunk, &n));
    same(w, n, 2);
    for (size_t i = 0; i < n; i++)
        must(w, str_eq(chunk[i].text,
                       str_sub(text, (size_t)chunk[i].byte_start, (size_t)(chunk[i].byte_end - chunk[i].byte_start))));
    same_str(w, chunk[0].headings, "[\"One\"]");
    same_str(w, chunk[1].headings, "[\"Two\"]");
    c = collection_of(w, &c.id);
    same(w, c.chunks, 3);
    same(w, c.tokens, 10);
    stop(w, r);
}

static void files_of_many_parts(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct buf b = {0};
    while (b.n < 3 * STORE_PART + 1000)
        buf_printf(&b, "Sentence number %zu tells of harbours and tides. ", b.n);
    struct store_document d = upload(w, &c, buf_view(&b), "big.txt", "text/plain");
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &d.job, JOB_succeeded);
    d = document_of(w, &d.id);
    must(w, d.chunks > 1000);
    struct str text;
    ok(w, GET(w, document_text, &d.id, &text));
    must(w, str_eq(text, str_sub(buf_view(&b), 0, b.n - 1))); /* but for the space at the end */
    stop(w, r);
    buf_fini(&b);
}

static void bad_files_fail_with_a_reason(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document png = upload(w, &c, STR("\x89PNG\r\n\x1a\n...."), "a.md", "text/markdown");
    struct store_document blank = upload(w, &c, STR(" \n "), "b.txt", "text/plain");
    w->cfg->ingest_max_chunks = 1;
    struct buf many = {0};
    for (int i = 0; i < 1000; i++)
        buf_lit(&many, "A sentence of words. ");
    struct store_document big = upload(w, &c, buf_view(&many), "c.txt", "text/plain");
    struct job_runner *r = start_ingest(w);
    same_str(w, wait_for_job(w, &png.job, JOB_failed).error_code, "unsupported_file");
    wait_for_job(w, &blank.job, JOB_failed);
    wait_for_job(w, &big.job, JOB_failed);
    png = document_of(w, &png.id);
    same(w, png.state, DOCUMENT_failed);
    same_str(w, png.error_code, "unsupported_file");
    same_str(w, png.error_stage, "extract");
    must(w, memmem(png.error_message.p, png.error_message.n, "PNG", 3));
    same_str(w, document_of(w, &blank.id).error_code, "empty_file");
    big = document_of(w, &big.id);
    same_str(w, big.error_code, "too_many_chunks");
    same_str(w, big.error_stage, "chunk");
    same(w, job_of(w, &big.job).attempts, 1); /* trying again is useless */
    same(w, collection_of(w, &c.id).failed, 3);
    stop(w, r);
    buf_fini(&many);
}

/* ---- jobs whose behaviour the test decides ---- */

static struct {
    int runs;
    bool fail_for_good, hang, hangs, canceled;
    enum err_code code;
    int succeed_at; /* number of the run; 0: never, -1: always */
} play;

static int play_run(struct job_context *ctx, struct err *e)
{
    play.runs++;
    if (job_progress(ctx, DOCUMENT_parsing, "playing", 1, 2, e))
        return -1;
    while (play.hang) {
        play.hangs = true;
        if (fiber_sleep(5 * MS)) {
            play.canceled = true;
            return err_set(e, ERR_CANCELED, "cancelled");
        }
    }
    if (play.succeed_at == play.runs || play.succeed_at < 0)
        return 0;
    ctx->permanent = play.fail_for_good;
    ctx->code = "played";
    return err_set(e, play.code, "It did not work");
}
static const struct job_kind player[] = {{"play", play_run}, {"ingest", play_run}};

static void wait_until_it_hangs(struct world *w)
{
    for (int64_t until = clock_ns() + 20 * SEC; !play.hangs; fiber_sleep(2 * MS))
        must(w, clock_ns() < until);
}

static struct store_job new_job(struct world *w)
{
    struct store_job j;
    memset(&play, 0, sizeof play);
    play.code = ERR_INTERNAL;
    ok(w, GET(w, job_create, STR("play"), NULL, STR("{}"), &j));
    return j;
}

static void failures_are_tried_again_then_quarantined(struct world *w)
{
    struct store_job j = new_job(w);
    struct job_runner *r = start(w, -1, player, 2);
    j = wait_for_job(w, &j.id, JOB_failed);
    same(w, play.runs, 3);
    same(w, j.attempts, 3);
    same_str(w, j.error_code, "played");
    same_str(w, j.error_stage, "playing");
    same_str(w, j.error_message, "It did not work");

    j = new_job(w);
    play.succeed_at = 2;
    job_runner_wake(r);
    j = wait_for_job(w, &j.id, JOB_succeeded);
    same(w, play.runs, 2);

    j = new_job(w);
    play.fail_for_good = true;
    job_runner_wake(r);
    wait_for_job(w, &j.id, JOB_failed);
    same(w, play.runs, 1);
    stop(w, r);
}

static void tries_that_are_no_fault_do_not_count(struct world *w)
{
    struct store_job j = new_job(w);
    play.code = ERR_NOT_READY;
    play.succeed_at = 6;
    struct job_runner *r = start(w, -1, player, 2);
    j = wait_for_job(w, &j.id, JOB_succeeded);
    same(w, play.runs, 6);
    same(w, j.attempts, 1);
    stop(w, r);
}

static void running_jobs_can_be_cancelled(struct world *w)
{
    struct store_job j = new_job(w), out;
    play.hang = true;
    w->cfg->ingest_lease = 3000;
    struct job_runner *r = start(w, -1, player, 2);
    wait_until_it_hangs(w);
    ok(w, GET(w, job_cancel, &j.id, &out));
    wait_for_job(w, &j.id, JOB_cancelled);
    must(w, play.canceled);
    same(w, play.runs, 1);
    stop(w, r);
}

/* Its end moves on while the job runs. The lease is long, so that a slow disk cannot make it run out. */
static void long_jobs_keep_their_lease(struct world *w)
{
    struct store_job j = new_job(w);
    play.hang = true;
    w->cfg->ingest_lease = 3000;
    struct job_runner *r = start(w, -1, player, 2);
    int64_t ends = wait_for_job(w, &j.id, JOB_running).lease_expires_us;
    for (int renewed = 0; renewed < 2; renewed++) {
        for (int64_t until = clock_ns() + 20 * SEC; job_of(w, &j.id).lease_expires_us <= ends;) {
            must(w, clock_ns() < until);
            fiber_sleep(5 * MS);
        }
        ends = job_of(w, &j.id).lease_expires_us;
    }
    same(w, job_of(w, &j.id).state, JOB_running);
    play.succeed_at = 1;
    play.hang = false;
    j = wait_for_job(w, &j.id, JOB_succeeded);
    same(w, play.runs, 1);
    same(w, j.attempts, 1);
    stop(w, r);
}

/* ---- several small documents at once ---- */

static struct store_document upload_small(struct world *w, const struct store_collection *c, int i)
{
    char text[32];
    snprintf(text, sizeof text, "small %d", i);
    return upload(w, c, str_of(text), "a.txt", "text/plain");
}

static int gathering, most_gathered;

static int gather_run(struct job_context *ctx, struct err *e)
{
    if (fiber_sleep(MS))
        return err_set(e, ERR_CANCELED, "cancelled");
    gathering++;
    most_gathered = gathering > most_gathered ? gathering : most_gathered;
    int rc = job_gather(ctx, e);
    gathering--;
    return rc;
}

/* They leave their places to others and end together. */
static void small_documents_gather(struct world *w)
{
    enum { N = 60 };
    static const struct job_kind kinds[] = {{"ingest", gather_run}};
    struct store_collection c = a_collection(w, "c");
    struct store_document d[N];
    w->cfg->ingest_concurrency = 2;
    gathering = most_gathered = 0;
    for (int i = 0; i < N; i++)
        d[i] = upload_small(w, &c, i);
    struct job_runner *r = start(w, -1, kinds, 1);
    for (int i = 0; i < N; i++)
        same(w, wait_for_job(w, &d[i].job, JOB_succeeded).attempts, 1);
    must(w, most_gathered > 4);
    stop(w, r);
}

/* Two are worked on, for long, the third was leased with the second. */
static struct job_runner *start_long_ones(struct world *w, struct store_document d[static 3])
{
    struct store_collection c = a_collection(w, "c");
    memset(&play, 0, sizeof play);
    play.hang = true;
    play.succeed_at = -1;
    w->cfg->ingest_concurrency = 2;
    for (int i = 0; i < 3; i++)
        d[i] = upload_small(w, &c, i);
    struct job_runner *r = start(w, -1, player, 2);
    wait_for_job(w, &d[2].job, JOB_running);
    return r;
}

static void what_is_not_begun_soon_is_for_others(struct world *w)
{
    struct store_document d[3];
    w->cfg->ingest_lease = 60000;
    struct job_runner *r = start_long_ones(w, d);
    same(w, wait_for_job(w, &d[2].job, JOB_queued).attempts, 0);
    same(w, play.runs, 2);
    same(w, job_of(w, &d[1].job).state, JOB_running);
    play.hang = false;
    for (int i = 0; i < 3; i++)
        same(w, wait_for_job(w, &d[i].job, JOB_succeeded).attempts, 1);
    stop(w, r);
}

static void a_stopping_worker_puts_back_what_it_has_not_begun(struct world *w)
{
    struct store_document d[3];
    w->cfg->ingest_lease = 600000;
    struct job_runner *r = start_long_ones(w, d);
    job_runner_cancel(r);
    wait_until_idle(w, r);
    for (int i = 0; i < 3; i++) {
        struct store_job j = job_of(w, &d[i].job);
        same(w, j.state, JOB_queued);
        same(w, j.attempts, 0);
    }
    stop(w, r);
}

static void a_dead_workers_job_is_taken_over(struct world *w)
{
    struct store_job j = new_job(w), leased;
    struct uuid dead = uuid_v7();
    size_t found;
    bool cancel;
    play.succeed_at = 1;
    ok(w, GET(w, job_lease, &dead, 200000, 1, &leased, &found));
    must(w, found);
    struct job_runner *r = start(w, -1, player, 2);
    j = wait_for_job(w, &j.id, JOB_succeeded);
    same(w, play.runs, 1);
    same(w, j.attempts, 2);
    /* the dead one was only slow: it can no longer change anything */
    fails(w, ERR_CONFLICT, DO(w, job_renew, &j.id, &dead, 1000000, DOCUMENT_parsing, STR("x"), 0, 0, &cancel));
    fails(w, ERR_CONFLICT, DO(w, job_finish, &j.id, &dead, JOB_failed, STR("x"), STR("x"), STR("x"), 0));
    same(w, job_of(w, &j.id).state, JOB_succeeded);
    stop(w, r);
}

/* A document that kills every worker that touches it must not do so for ever. */
static void jobs_that_kill_workers_are_quarantined(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document d = upload(w, &c, STR("killer"), "a.txt", "text/plain");
    struct store_job leased;
    struct uuid dead = uuid_v7();
    size_t found;
    memset(&play, 0, sizeof play);
    for (int i = 0; i < w->cfg->ingest_max_attempts; i++) {
        ok(w, GET(w, job_lease, &dead, 1, 1, &leased, &found));
        must(w, found);
        fiber_sleep(MS);
    }
    struct job_runner *r = start(w, -1, player, 2);
    wait_for_job(w, &d.job, JOB_failed);
    same(w, play.runs, 0);
    d = document_of(w, &d.id);
    same(w, d.state, DOCUMENT_failed);
    same_str(w, d.error_code, "worker_lost");
    stop(w, r);
}

static void a_lost_lease_ends_the_work(struct world *w)
{
    struct store_job j = new_job(w);
    play.hang = true;
    w->cfg->ingest_lease = 3000;
    struct job_runner *r = start(w, -1, player, 2);
    wait_until_it_hangs(w);
    behind_its_back(w, "UPDATE jobs SET owner = x'00112233445566778899aabbccddeeff', due_us = due_us + 60000000",
                    "UPDATE jobs SET owner = '00112233-4455-6677-8899-aabbccddeeff', due_us = due_us + 60000000");
    wait_until_idle(w, r);
    must(w, play.canceled);
    same(w, job_of(w, &j.id).state, JOB_running); /* the other one's */
    stop(w, r);
}

static void a_stopping_worker_puts_back_what_it_cannot_finish(struct world *w)
{
    struct store_job j = new_job(w), second;
    play.hang = true;
    w->cfg->ingest_concurrency = 1;
    struct job_runner *r = start(w, -1, player, 2);
    wait_for_job(w, &j.id, JOB_running);
    ok(w, GET(w, job_create, STR("play"), NULL, STR("{}"), &second));
    job_runner_drain(r);
    fiber_sleep(60 * MS);
    must(w, !job_runner_idle(r)); /* it goes on with what it has */
    job_runner_cancel(r);
    stop(w, r);
    j = job_of(w, &j.id);
    same(w, j.state, JOB_queued);
    same(w, j.attempts, 0);
    same(w, job_of(w, &second.id).state, JOB_queued);
    play.hang = false;
    play.succeed_at = -1;
    r = start(w, -1, player, 2);
    wait_for_job(w, &j.id, JOB_succeeded);
    stop(w, r);
}

static void announcements_wake_a_resting_worker(struct world *w)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE | EFD_CLOEXEC);
    must(w, fd >= 0);
    struct job_runner *r = start(w, fd, player, 2);
    w->cfg->ingest_poll = 3600000;
    fiber_sleep(60 * MS); /* the first rest, of the short kind, is over */
    struct store_job j = new_job(w);
    play.succeed_at = 1;
    jobs_announce(fd);
    wait_for_job(w, &j.id, JOB_succeeded);
    stop(w, r);
    jobs_announce(-1);
    close(fd);
}

static void unknown_kinds_fail(struct world *w)
{
    struct store_job j = new_job(w);
    struct job_runner *r = start_ingest(w);
    j = wait_for_job(w, &j.id, JOB_failed);
    same_str(w, j.error_code, "unknown_job");
    stop(w, r);
}

static void a_new_version_during_the_work_is_not_lost(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document_new in = new_document(&c, "first words");
    struct store_document d;
    enum store_created what;
    struct store_job job, leased;
    in.external_id = STR("x");
    in.by_external_id = true;
    ok(w, GET(w, document_create, &in, &d, &what, &job));
    struct uuid slow = uuid_v7();
    size_t found;
    ok(w, GET(w, job_lease, &slow, 60 * 1000000LL, 1, &leased, &found)); /* it has read the first version */
    must(w, found);
    in.inline_bytes = STR("second version");
    in.bytes = 14;
    sha256_of("second version", 14, &in.sha256);
    ok(w, GET(w, document_create, &in, &d, &what, &job));
    same(w, what, STORE_UPDATED);
    const struct store_index_commit stale = {.content_version = 1, .text = STR("first words")};
    fails(w, ERR_CONFLICT, DO(w, job_commit_index, &leased.id, &slow, &stale));
    struct job_runner *r = start_ingest(w);
    d = document_of(w, &d.id);
    wait_for_job(w, &d.job, JOB_succeeded);
    struct str text;
    ok(w, GET(w, document_text, &d.id, &text));
    same_str(w, text, "second version");
    stop(w, r);
}

static void removals_run_as_jobs(struct world *w)
{
    struct store_collection c = a_collection(w, "c"), gone = a_collection(w, "gone");
    struct store_document kept = upload(w, &c, STR("keep this"), "a.txt", "text/plain");
    for (int i = 0; i < 120; i++) {
        struct store_document_new in = new_document(i % 2 ? &c : &gone, "");
        struct str text = arena_printf(&w->a, "document %d", i);
        struct store_document out;
        enum store_created what;
        struct store_job job;
        in.inline_bytes = text;
        in.bytes = (int64_t)text.n;
        in.metadata = STR("{\"drop\": true}");
        sha256_of(text.p, text.n, &in.sha256);
        ok(w, GET(w, document_create, &in, &out, &what, &job));
    }
    struct job_runner *r = start_ingest(w);
    struct store_job by_filter, by_collection;
    struct uuid c_id = c.id;
    ok(w, GET(w, job_create, STR("delete_documents"), &c_id,
              STR("{\"filter\":{\"type\":\"eq\",\"key\":\"drop\",\"value\":true}}"), &by_filter));
    ok(w, GET(w, collection_delete, &gone.id, 0, &by_collection));
    wait_for_job(w, &by_filter.id, JOB_succeeded);
    wait_for_job(w, &by_collection.id, JOB_succeeded);
    c = collection_of(w, &c.id);
    same(w, c.documents, 1);
    wait_for_job(w, &kept.job, JOB_succeeded);
    fails(w, ERR_NOT_FOUND, GET(w, collection_get, &gone.id, &gone));
    stop(w, r);
}

static bool holds(struct world *w, const struct store_collection *c, const struct store_document *d, const char *word)
{
    const struct str term = str_of(word);
    struct store_candidates hits;
    ok(w, GET(w, search_candidates, c, &term, NULL, 1, 10, &hits));
    for (size_t i = 0; i < hits.n; i++)
        if (store_candidate_at(&hits, i)->no >> 20 == d->no)
            return true;
    return false;
}

/* Also those that somebody was working on when it changed: they have read the old one. */
static void another_language_reaches_all_documents(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    const struct store_collection_patch none = {.set_language = true, .language = STR("none")};
    struct store_job_query q = {.type = STR("reprocess"), .page = {.limit = 10}};
    struct uuid slow = uuid_v7();
    struct store_job leased, *j;
    size_t n;
    bool more;
    struct store_document a = upload(w, &c, STR("running"), "a.txt", "text/plain");
    struct store_document b = upload(w, &c, STR("running there"), "b.txt", "text/plain");
    ok(w, GET(w, job_claim, &b.job, &slow, 60 * 1000000LL, &leased));
    struct job_runner *r = start_ingest(w);
    wait_for_job(w, &a.job, JOB_succeeded);
    must(w, holds(w, &c, &a, "run") && !holds(w, &c, &a, "running"));
    ok(w, GET(w, collection_patch, &c.id, &none, 0, &c));
    ok(w, GET(w, job_list, &q, &j, &n, &more));
    same(w, n, 1);
    struct uuid job = j[0].id;
    job_runner_wake(r);
    for (int64_t until = clock_ns() + 20 * SEC; !holds(w, &c, &a, "running"); fiber_sleep(5 * MS))
        must(w, clock_ns() < until);
    must(w, job_of(w, &job).state != JOB_succeeded); /* it waits for the other one */
    const struct store_chunk_new old = {.text = STR("running there"), .terms = STR("run there"), .tokens = 2};
    const struct store_index_commit commit = {
        .chunks = &old, .n = 1, .content_version = 1, .text = STR("running there")};
    ok(w, DO(w, job_commit_index, &b.job, &slow, &commit));
    must(w, holds(w, &c, &b, "run"));
    wait_for_job(w, &job, JOB_succeeded);
    b = document_of(w, &b.id);
    wait_for_job(w, &b.job, JOB_succeeded);
    must(w, holds(w, &c, &b, "running") && !holds(w, &c, &b, "run"));
    stop(w, r);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(documents_become_ready),
        TEST(files_of_many_parts),
        TEST(bad_files_fail_with_a_reason),
        TEST(failures_are_tried_again_then_quarantined),
        TEST(tries_that_are_no_fault_do_not_count),
        TEST(running_jobs_can_be_cancelled),
        TEST(long_jobs_keep_their_lease),
        TEST(small_documents_gather),
        TEST(what_is_not_begun_soon_is_for_others),
        TEST(a_stopping_worker_puts_back_what_it_has_not_begun),
        TEST(a_dead_workers_job_is_taken_over),
        TEST(jobs_that_kill_workers_are_quarantined),
        TEST(a_lost_lease_ends_the_work),
        TEST(a_stopping_worker_puts_back_what_it_cannot_finish),
        TEST(announcements_wake_a_resting_worker),
        TEST(unknown_kinds_fail),
        TEST(a_new_version_during_the_work_is_not_lost),
        TEST(removals_run_as_jobs),
        TEST(another_language_reaches_all_documents),
    };
    return contract_main("ingest", tests, sizeof tests / sizeof *tests, argc, argv);
}
