/* The cage, with real brokers and real cages: what gets through its walls, and what becomes of a reader's end. */
#include "tests/unit/extracting.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "config/config.h"
#include "worker/core/cage.h"
#include "worker/core/cage_jail.h"
#include "worker/fiber/loop.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <valgrind/valgrind.h>

#define FAULT "application/x-ragd-fault"

static struct cage *cage;
static struct config *cfg;

static int setup(void **state)
{
    const char *sandbox =
        jail_lacks() & (LACKS_FILTER | LACKS_LANDLOCK) ? "ingest.sandbox=best_effort" : "ingest.sandbox=required";
    const char *const set[] = {sandbox,
                               "debug.faults=true",
                               "ingest.cage_cpu=1s",
                               "ingest.cage_timeout=3s",
                               "ingest.cage_memory=64M",
                               "ingest.cage_output=1M"};
    struct err e;
    begin(state);
    return loop_init(&e) || config_load(&(struct config_args){.set = set, .n_set = 6}, &cfg, &e) ||
           cage_open(cfg, &cage, &e);
}

static int teardown(void **state)
{
    cage_close(cage);
    config_free(cfg);
    assert_int_equal(fiber_count(), 0);
    fiber_fini();
    loop_fini();
    return end(state);
}

struct reading {
    struct str bytes;
    const char *mime, *name;
    struct extracted x;
    const char *code;
    int page, rc;
    struct err e;
    struct fiber *fiber;
};
static int unfinished;
static bool looping; /* a reading may end before the loop begins */

static void reads(void *arg)
{
    struct reading *r = arg;
    r->fiber = fiber_self();
    r->rc = cage_extract(cage, &arena, r->bytes, str_of(r->mime), str_of(r->name), &r->x, &r->code, &r->page, &r->e);
    r->fiber = NULL;
    if (--unfinished == 0 && looping)
        loop_stop();
}

static void read_all(struct reading *r, int n)
{
    unfinished = n;
    for (int i = 0; i < n; i++)
        assert_non_null(fiber_spawn("test", reads, &r[i]));
    looping = true;
    if (unfinished)
        loop_run();
    looping = false;
}

static struct reading read_one(struct str bytes, const char *mime)
{
    struct reading r = {.bytes = bytes, .mime = mime, .name = ""};
    read_all(&r, 1);
    return r;
}

static void fails(const char *fault, const char *code, const char *says)
{
    struct reading r = read_one(str_of(fault), FAULT);
    assert_int_equal(r.rc, -1);
    if (r.e.code != ERR_VALIDATION || strcmp(r.code, code) != 0 || !strstr(r.e.msg, says))
        fail_msg("%s: %s, %s (%s)", fault, r.code ? r.code : "no code", r.e.msg, r.e.log);
    assert_int_equal(r.page, 3);
}

static void still_reads(void)
{
    struct reading r = read_one(STR("# Title\n\nBody."), "text/markdown");
    if (r.rc)
        fail_msg("%s (%s)", r.e.msg, r.e.log);
    assert_string_equal(outline(&r.x), "h1 Title\np Body.\n");
    assert_string_equal(r.x.mime, "text/markdown");
    assert_true(str_eqz(r.x.title, "Title"));
}

static void test_reads(void **state)
{
    (void)state;
    still_reads();
    struct reading r = read_one(sample("koi8.html"), "text/html"); /* whose charset is a plug-in of the C library */
    assert_int_equal(r.rc, 0);
    assert_string_equal(outline(&r.x), "p Глубина пятнадцать метров.\n");
    r = read_one(STR(""), "");
    assert_int_equal(r.rc, -1);
    assert_string_equal(r.code, "empty_file");
    r = read_one(STR("\x7f"
                     "ELF"),
                 "");
    assert_string_equal(r.code, "unsupported_file");
    struct str large = repeated("", "A line of some length, of which there are many.\n\n", 40000, "");
    r = read_one(large, "text/plain"); /* 2 MB of text, and 1 MB are allowed */
    assert_int_equal(r.rc, -1);
    assert_string_equal(r.code, "too_large");
}

struct watching {
    struct reading *r;
    bool elsewhere; /* the reader was seen to wait for a helper thread */
};

static void watches(void *arg)
{
    struct watching *w = arg;
    do {
        assert_true(!w->r->fiber || slot_self->stat[STAT_cages_running] == 1);
        struct buf b = {0};
        fiber_dump(&b);
        buf_ch(&b, 0);
        w->elsewhere |= strstr(b.p, "helper thread") != NULL;
        buf_fini(&b);
    } while (w->r->fiber && fiber_yield() == 0);
    if (--unfinished == 0 && looping)
        loop_stop();
}

/* The loop goes on while a large result is copied and checked. */
static void test_large_result(void **state)
{
    (void)state;
    struct str large = repeated("", "A line of some length, of which there are many.\n\n", 9000, "");
    struct watching w = {.elsewhere = false};
    for (int i = 0; i < 50 && !w.elsewhere; i++) { /* on a busy machine, the thread may be done before anybody looks */
        struct reading r = {.bytes = large, .mime = "text/plain", .name = ""};
        w.r = &r;
        unfinished = 2;
        assert_non_null(fiber_spawn("test", reads, &r));
        assert_non_null(fiber_spawn("watch", watches, &w));
        looping = true;
        loop_run();
        looping = false;
        assert_int_equal(r.rc, 0);
        assert_int_equal(r.x.n, 9000);
    }
    assert_true(w.elsewhere);
}

/* The pid of a broker: a child of this process, and not `but`. */
static pid_t other_child(pid_t but)
{
    char children[100] = "";
    int first = 0, second = 0;
    FILE *f = fopen("/proc/thread-self/children", "r");
    assert_non_null(f);
    assert_true(fgets(children, sizeof children, f) != NULL);
    fclose(f);
    int n = sscanf(children, "%d %d", &first, &second);
    assert_true(n >= 1);
    return first == but ? second : first;
}

static pid_t child(void)
{
    return other_child(0);
}

static bool maps(pid_t pid, const char *library)
{
    char path[40], line[400];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        found |= strstr(line, library) != NULL;
    fclose(f);
    return found;
}

/* What is forked for each document has the libraries of readers, and no others; converters only where they are needed. */
static void test_lean(void **state)
{
    (void)state;
    still_reads();
    pid_t first = child();
    assert_true(maps(getpid(), "/libevent") && maps(first, "/libgumbo"));
    assert_false(maps(first, "/gconv/"));
    struct reading r = read_one(sample("koi8.html"), "text/html");
    assert_int_equal(r.rc, 0);
    pid_t second = other_child(first);
    assert_true(maps(second, "/gconv/"));
#ifndef __SANITIZE_ADDRESS__ /* which keeps all */
    assert_false(maps(first, "/libevent") || maps(second, "/libevent"));
#endif
    still_reads();
}

/* No file, no socket, no program, no process, no signal to another, no code of one's own. */
static void test_walls(void **state)
{
    (void)state;
    struct reading r = read_one(STR("probe"), FAULT);
    assert_int_equal(r.rc, 0);
    if (!strstr(outline(&r.x), "code open: ENOSYS/write: ENOSYS/socket: ENOSYS/exec: ENOSYS/fork: ENOSYS/kill: ENOSYS/"
                               "trace: ENOSYS/code: ENOSYS"))
        fail_msg("%s", outline(&r.x));
}

static void test_faults(void **state)
{
    (void)state;
    fails("crash", "parser_crashed", "signal SEGV at page 3");
    fails("abort", "parser_crashed", "an error");
    fails("leave", "parser_crashed", "an error");
    fails("disown", "parser_crashed", "an error");
    fails("spin", "parser_timeout", "too long at page 3");
    fails("linger", "parser_timeout", "too long");
#ifndef __SANITIZE_ADDRESS__ /* whose shadow is beyond every limit of memory */
    fails("eat", "parser_memory", "64 MB");
#endif
    still_reads();
}

/* A PDF document of one page with one line, as short as pdftotext still reads it. */
static const char pdf[] =
    "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
    "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 "
    "R/Resources<</Font<</F<</Type/Font/Subtype/Type1"
    "/BaseFont/Helvetica>>>>>>>>endobj 4 0 obj<</Length 37>>stream\nBT /F 12 Tf 20 200 Td (Crane) Tj ET  \nendstream "
    "endobj\ntrailer<</Root 1 0 R>>\n";

static void test_pdf(void **state)
{
    (void)state;
    struct reading r = read_one(str_of(pdf), "");
    if (access(JAIL_PDFTOTEXT, X_OK) != 0) {
        assert_string_equal(r.code, "unsupported_file");
        return;
    }
    if (r.rc)
        fail_msg("%s: %s (%s)", r.code, r.e.msg, r.e.log);
    assert_string_equal(outline(&r.x), "p Crane\n");
    assert_int_equal(r.x.pages, 1);
    assert_int_equal(r.x.block[0].page, 1);
    assert_string_equal(r.x.mime, "application/pdf");
    r = read_one(STR("%PDF-1.4\nnothing"), "");
    assert_int_equal(r.rc, -1);
    assert_string_equal(r.code, "invalid_file");
}

static void test_many_at_once(void **state)
{
    (void)state;
    struct reading r[12];
    for (size_t i = 0; i < 12; i++)
        r[i] =
            (struct reading){.bytes = i % 3 ? STR("some text") : STR("crash"), .mime = i % 3 ? "" : FAULT, .name = ""};
    read_all(r, 12);
    for (size_t i = 0; i < 12; i++)
        assert_int_equal(r[i].rc, i % 3 ? 0 : -1);
}

static void test_broker_dies(void **state)
{
    (void)state;
    still_reads();
    pid_t first = child();
    assert_int_equal(kill(first, SIGKILL), 0);
    still_reads();
    assert_int_not_equal(child(), first);
}

static uint64_t counted(enum cage_format format, enum cage_outcome outcome)
{
    return slot_self->cage[format].by_outcome[outcome];
}

/* Its walls cannot be raised: the document is not read, and it counts as a try. */
static void test_walls_that_fail(void **state)
{
    (void)state;
    still_reads();
    const struct rlimit few = {9, 9}; /* descriptors */
    pid_t broker = child();
    assert_int_equal(prlimit(broker, RLIMIT_NOFILE, &few, NULL), 0);
    memset(slot_self->cage, 0, sizeof slot_self->cage);
    struct reading r = read_one(STR("text"), "");
    assert_int_equal(r.rc, -1);
    assert_int_equal(counted(CAGE_FORMAT_other, CAGE_OUTCOME_failed), 1);
    if (r.e.code != ERR_INTERNAL || !r.code || strcmp(r.code, "sandbox_failed") != 0)
        fail_msg("%s: %s (%s)", r.code ? r.code : "no code", r.e.msg, r.e.log);
    assert_int_equal(kill(broker, SIGKILL), 0);
    still_reads();
}

/* By what a document turned out to be, or else by what was said of it. */
static void test_statistics(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *mime;
        enum cage_format format;
        enum cage_outcome outcome;
    } of[] = {
        {"# Title", "text/markdown", CAGE_FORMAT_markdown, CAGE_OUTCOME_ok},
        {"<!doctype html><p>Text", "text/plain", CAGE_FORMAT_html, CAGE_OUTCOME_ok},
        {"", "text/csv", CAGE_FORMAT_csv, CAGE_OUTCOME_refused},
        {"PK\3\4 cut off", "application/epub+zip", CAGE_FORMAT_epub, CAGE_OUTCOME_refused},
        {"crash", FAULT, CAGE_FORMAT_other, CAGE_OUTCOME_crashed},
        {"linger", FAULT, CAGE_FORMAT_other, CAGE_OUTCOME_timeout},
#ifndef __SANITIZE_ADDRESS__
        {"eat", FAULT, CAGE_FORMAT_other, CAGE_OUTCOME_memory},
#endif
    };
    memset(slot_self->cage, 0, sizeof slot_self->cage);
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        uint64_t us = slot_self->cage[of[i].format].sum_us;
        (void)read_one(str_of(of[i].bytes), of[i].mime);
        if (counted(of[i].format, of[i].outcome) != 1 || slot_self->cage[of[i].format].sum_us <= us)
            fail_msg("document %zu is not counted", i);
        assert_int_equal(slot_self->stat[STAT_cages_running], 0);
    }
}

static void cancels(void *arg)
{
    struct reading *r = arg;
    while (!r->fiber && fiber_yield() == 0)
        ;
    (void)fiber_sleep(MS); /* whether the cage runs by then or not */
    fiber_cancel(r->fiber);
}

static void test_cancelled(void **state)
{
    (void)state;
    struct reading r = {.bytes = STR("linger"), .mime = FAULT, .name = ""};
    int64_t before = clock_ns();
    uint64_t before_canceled = counted(CAGE_FORMAT_other, CAGE_OUTCOME_canceled);
    assert_non_null(fiber_spawn("cancel", cancels, &r));
    read_all(&r, 1);
    assert_int_equal(r.rc, -1);
    assert_int_equal(r.e.code, ERR_CANCELED);
    assert_int_equal(counted(CAGE_FORMAT_other, CAGE_OUTCOME_canceled), before_canceled + 1);
    assert_true(clock_ns() - before < 60 * SEC);
    still_reads();
}

/* In the jail of a foreign program: 0 when it can look at its own limits and flags, and touch nobody else's. */
static int reach_out(void)
{
    const struct cage_limits limits = {.memory = 1LL << 40, .output = 1 << 20, .cpu_s = 60};
    struct rlimit r = {16, 16};
    pid_t parent = getppid();
    if (jail_enter(JAIL_PROGRAM, &limits))
        return 1;
    if (prlimit(parent, RLIMIT_NOFILE, &r, NULL) == 0 || errno != ENOSYS)
        return 2;
    if (fcntl(1, F_SETOWN, parent) == 0 || errno != ENOSYS || fcntl(1, F_SETFL, O_ASYNC) == 0)
        return 3;
    return prlimit(0, RLIMIT_NOFILE, NULL, &r) || fcntl(1, F_GETFL) < 0 ? 4 : 0;
}

static void test_a_foreign_program_reaches_nobody(void **state)
{
    (void)state;
    int status;
    if (jail_lacks() & LACKS_FILTER || RUNNING_ON_VALGRIND) /* which lives in the jailed process */
        return;
    pid_t pid = fork();
    if (pid == 0)
        _exit(reach_out());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "cage-broker") == 0)
        return cage_broker_main(argv[2]);
    cage_program = argv[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_result, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lean, setup, teardown),
        cmocka_unit_test_setup_teardown(test_walls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pdf, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broker_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_walls_that_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_statistics, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancelled, setup, teardown),
        cmocka_unit_test(test_a_foreign_program_reaches_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
