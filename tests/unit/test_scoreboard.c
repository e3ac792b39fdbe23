/* A scoreboard in which a worker has run wild: whatever is in it, those who read it go on, and what they tell is well-formed. */
#include "tests/unit/cm.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/note.h"
#include "common/status.h"
#include "config/config.h"
#include "master/master.h"
#include "master/publish.h"
#include "master/recycle.h"
#include "master/spawn_impl.h"
#include "worker/api/metrics.h"
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOTS = 4, ROUNDS = 200, SIZE = sizeof(struct scoreboard) + SLOTS * sizeof(struct slot) };

static struct {
    struct scoreboard *sb;
    struct config *cfg;
    struct generation gen;
    struct master m;
    pid_t process; /* what the master signals */
    unsigned manned;
} w;

static pid_t somebody(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0)
        for (;;)
            pause();
    return pid;
}

static int set_up(void **state)
{
    struct err e;
    int fd;
    (void)state;
    log_init(LOG_ERROR, false, "test");
    assert_int_equal(scoreboard_create(&w.sb, &fd, SLOTS, &e), 0);
    close(fd);
    assert_int_equal(config_load(&(struct config_args){0}, &w.cfg, &e), 0);
    w.gen = (struct generation){.number = 1, .cfg = w.cfg, .target = {[ROLE_HTTP] = 1, [ROLE_INGEST] = 1}};
    w.m = (struct master){.sb = w.sb, .gen = &w.gen, .pid = getpid()};
    assert_int_equal(crew_init(&w.m.crew, SLOTS, &e), 0);
    w.process = somebody();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kill(w.process, SIGKILL);
    waitpid(w.process, NULL, 0);
    crew_fini(&w.m.crew);
    config_free(w.cfg);
    scoreboard_unmap(w.sb);
    return 0;
}

/* The crew as it is between two ticks. Hangs are a line of the log each: few are enough. */
static void man(void)
{
    static const enum role roles[SLOTS] = {ROLE_HTTP, ROLE_INGEST, ROLE_HTTP, ROLE_MASTER};
    w.manned++;
    for (unsigned i = 0; i < SLOTS; i++) {
        struct worker one = {.slot = i, .role = roles[i], .channel = -1, .cause = DEATH_COUNT, .failures = i};
        if (one.role != ROLE_MASTER) {
            one.pid = w.process;
            one.gen = &w.gen;
            one.was_ready = i != 0;
            one.watchdog_ms = w.manned % 32 ? INT32_MAX : 1000;
        }
        w.m.crew.v[i] = one;
    }
}

static void status_is_json(void)
{
    struct buf b = {0};
    json_error_t bad;
    status_json(w.sb, &b);
    json_t *o = json_loadb(b.p, b.n, 0, &bad);
    if (!o)
        fail_msg("%s in %.*s", bad.text, (int)b.n, b.p);
    assert_true(json_array_size(json_object_get(o, "workers")) <= SLOTS);
    json_decref(o);
    buf_fini(&b);
}

static void metrics_are_text(void)
{
    struct buf b = {0};
    metrics_text(&b);
    assert_true(str_is_utf8(buf_view(&b)));
    buf_fini(&b);
}

static void note_is_bounded(void)
{
    struct note n;
    (void)note_read(w.sb, &n);
    assert_in_range(n.n_listen, 0, LISTEN_MAX);
    assert_true(strlen(n.config) < sizeof n.config && str_is_utf8(str_of(n.config)));
}

static void master_goes_on(void)
{
    int64_t now = clock_ns();
    char how[360];
    man();
    recycle_tick(&w.m, now);
    man();
    for (unsigned i = 0; i < SLOTS; i++) {
        struct worker *one = &w.m.crew.v[i];
        assert_in_range(watch_flights(&w.sb->slot[i], now, true), 0, SCORE_FLIGHTS);
        crew_schedule(&w.m, one, now);
        crew_describe_death(&w.m, one, how, sizeof how);
        assert_true(str_is_utf8(str_of(how)));
        (void)crew_ready(&w.m, one);
        if (one->pid)
            watch_worker(&w.m, one, now);
    }
    man();
    (void)master_degraded(&w.m);
    publish(&w.m);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(w.sb->slot[i].failures, i);
}

static void read_all(void)
{
    status_is_json();
    (void)status_ready(w.sb, NULL);
    metrics_are_text();
    note_is_bounded();
    assert_true(scoreboard_slots(w.sb) <= SLOTS);
    (void)scoreboard_total(STAT_connections);
    master_goes_on();
    status_is_json(); /* with a note that is whole again */
    struct note n;
    assert_true(note_read(w.sb, &n));
    assert_int_equal(n.pid, getpid());
}

static void any_byte_everywhere(void **state)
{
    static const int bytes[] = {0xff, 0x00, 0x01, 0x22, 0x5c, 0x7f, 0x80, 0xc3, 0xed};
    (void)state;
    scoreboard_attach(w.sb, 0);
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        memset(w.sb, bytes[i], SIZE);
        read_all();
        memset(w.sb, bytes[i], SIZE); /* also where only the slots are not what they should be */
        atomic_store(&w.sb->slots, SLOTS);
        atomic_store(&w.sb->note_version, 0);
        read_all();
    }
}

/* Half of the rounds with slots that pass for workers, so that more of them is looked at. */
static void chance(void **state)
{
    (void)state;
    scoreboard_attach(w.sb, 0);
    srandom(7);
    for (int round = 0; round < ROUNDS; round++) {
        unsigned char *p = (unsigned char *)w.sb;
        for (size_t i = 0; i < SIZE; i++)
            p[i] = (unsigned char)(random() >> 8);
        if (round % 2) {
            atomic_store(&w.sb->slots, SLOTS);
            atomic_store(&w.sb->note_version, 2);
        }
        for (unsigned i = 0; i < SLOTS && round % 2; i++) {
            w.sb->slot[i].role = (uint32_t)random() % (ROLE_COUNT + 1);
            atomic_store(&w.sb->slot[i].state, (int)(random() % (WORKER_KILLED + 2)));
            atomic_store(&w.sb->slot[i].recycle, (int)(random() % (RECYCLE_COUNT + 1)));
        }
        read_all();
    }
}

static void names_of_no_number(void **state)
{
    static const unsigned numbers[] = {100, 100000000, 0x7fffffff, 0x80000000, 0xffffffff};
    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_string_equal(worker_state_name((enum worker_state)numbers[i]), "?");
        assert_string_equal(role_name((enum role)numbers[i]), "?");
        assert_string_equal(death_name((enum death)numbers[i]), "?");
        assert_string_equal(recycle_name((enum recycle)numbers[i]), "?");
    }
    assert_string_equal(worker_state_name(WORKER_KILLED), "KILLED");
    assert_string_equal(death_name(DEATH_COUNT), "?");
    assert_string_equal(recycle_name(RECYCLE_COUNT), "?");
    char how[64];
    death_describe(0x40, how, sizeof how);
    assert_string_equal(how, "signal 64 (?)");
}

/* A line of the log ends at the first byte that is no text: what stands behind it must not be lost. */
static void flights_are_told_to_their_end(void **state)
{
    char line[1024];
    FILE *f = tmpfile();
    int saved = dup(STDERR_FILENO);
    struct flight *one = &w.sb->slot[0].flight[0];
    (void)state;
    memset(one, 0xff, sizeof *one);
    strcpy(one->asked, "the last thing");
    atomic_store(&one->start_ns, INT64_MAX);
    log_init(LOG_WARN, false, "test");
    fflush(stderr);
    dup2(fileno(f), STDERR_FILENO);
    int n = watch_flights(&w.sb->slot[0], clock_ns(), true);
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_int_equal(n, 1);
    rewind(f);
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(strstr(line, "in flight for 0.0 s: ??????? ????"));
    assert_non_null(strstr(line, "?, last asked the database for the last thing\n"));
    fclose(f);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(any_byte_everywhere),
        TEST(chance),
        TEST(names_of_no_number),
        TEST(flights_are_told_to_their_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
