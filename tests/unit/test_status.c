/* What is told from the scoreboard: the master's note, which nobody sees half-written, and the status as JSON. */
#include "tests/unit/cm.h"
#include "common/clock.h"
#include "common/note.h"
#include "common/status.h"
#include "config/config.h"
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static struct scoreboard *board(void)
{
    struct scoreboard *sb;
    struct err e;
    int fd;
    assert_int_equal(scoreboard_create(&sb, &fd, 4, &e), 0);
    close(fd);
    return sb;
}

static void fill(struct note *n, int with)
{
    memset(n, 0, sizeof *n);
    n->pid = with;
    n->n_listen = with % LISTEN_MAX;
    memset(n->config, 'a' + with % 26, sizeof n->config - 1);
    memset(n->upgrade.reason, 'a' + with % 26, sizeof n->upgrade.reason - 1);
}

static void nobody_sees_half_a_note(void **state)
{
    enum { READS = 20000 };
    struct scoreboard *sb = board();
    struct note n, want;
    int status, different = 0, last = -1;
    (void)state;
    fill(&n, 0);
    note_write(sb, &n);
    pid_t writer = fork();
    assert_true(writer >= 0);
    if (writer == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0)
        for (int i = 0;; i++) {
            fill(&n, i % 1000);
            note_write(sb, &n);
        }
    for (int i = 0; i < READS; i++) {
        while (!note_read(sb, &n)) /* its turn of the CPU ended while it wrote */
            usleep(100);
        fill(&want, n.pid);
        assert_memory_equal(&n, &want, sizeof n);
        different += n.pid != last;
        last = n.pid;
    }
    kill(writer, SIGKILL);
    assert_int_equal(waitpid(writer, &status, 0), writer);
    assert_true(different > 1);
    scoreboard_unmap(sb);
}

static void a_master_that_died_while_it_wrote_leaves_no_note(void **state)
{
    struct scoreboard *sb = board();
    struct note n;
    (void)state;
    fill(&n, 7);
    note_write(sb, &n);
    uint32_t version = atomic_load(&sb->note_version);
    note_write(sb, &n); /* the same again */
    assert_int_equal(atomic_load(&sb->note_version), version);
    atomic_store(&sb->note_version, version + 1);
    assert_false(note_read(sb, &n));
    assert_int_equal(n.pid, 0);
    scoreboard_unmap(sb);
}

static json_t *status_of(const struct scoreboard *sb)
{
    struct buf b = {0};
    json_error_t bad;
    status_json(sb, &b);
    json_t *o = json_loadb(b.p, b.n, 0, &bad);
    if (!o)
        fail_msg("%s in %.*s", bad.text, (int)b.n, b.p);
    buf_fini(&b);
    return o;
}

static void whatever_is_told_is_json(void **state)
{
    struct scoreboard *sb = board();
    struct note n = {.n_listen = 1};
    (void)state;
    strcpy(n.config, "/a\"b\\c\n\x01.yaml");
    strcpy(n.listen[0].name, "unix:/\"quoted\"");
    verdict_set(&n.reload, clock_ns() - 30 * MS, "configuration", "r.yaml:1:2: \"\t\xff\"");
    note_write(sb, &n);
    json_t *o = status_of(sb);
    assert_string_equal(json_string_value(json_object_get(o, "config")), "/a\"b\\c\n\x01.yaml");
    json_t *last = json_object_get(json_object_get(o, "reloads"), "last");
    assert_string_equal(json_string_value(json_object_get(last, "reason")), "r.yaml:1:2: \"\t?\"");
    assert_true(json_integer_value(json_object_get(last, "took_ms")) >= 30);
    assert_true(json_is_null(json_object_get(json_object_get(o, "upgrades"), "last")));
    assert_int_equal(json_array_size(json_object_get(o, "workers")), 0);
    json_decref(o);
    scoreboard_unmap(sb);
}

static void rates_are_those_of_the_last_ten_seconds(void **state)
{
    struct scoreboard *sb = board();
    (void)state;
    atomic_store(&sb->slot[1].state, WORKER_READY);
    atomic_store(&sb->slot[1].pid, 123);
    scoreboard_attach(sb, 1);
    for (int i = 0; i < 1000; i++)
        score_request(1, 200, 3 * SEC); /* long ago */
    score_sample(100 * SEC);
    for (int s = 1; s <= 12; s++) {
        for (int i = 0; i < 98; i++)
            score_request(1, 200, 2 * MS);
        score_request(2, 404, 40 * MS);
        score_request(2, 500, 40 * MS);
        score_sample((100 + s) * SEC);
    }
    json_t *o = status_of(sb), *w = json_array_get(json_object_get(o, "workers"), 0);
    assert_int_equal(json_integer_value(json_object_get(w, "slot")), 1);
    assert_int_equal(json_integer_value(json_object_get(w, "requests")), 2200);
    assert_true(json_real_value(json_object_get(w, "requests_per_s")) == 100.0);
    assert_true(json_number_value(json_object_get(w, "p50_ms")) == 2.5);
    assert_true(json_number_value(json_object_get(w, "p99_ms")) == 50);
    assert_true(json_is_null(json_object_get(w, "last_death")));
    json_decref(o);
    scoreboard_unmap(sb);
}

static void readiness_names_its_reasons(void **state)
{
    struct scoreboard *sb = board();
    struct note n = {.target = {[ROLE_HTTP] = 1, [ROLE_INGEST] = 1}};
    struct buf why = {0};
    (void)state;
    note_write(sb, &n);
    atomic_store(&sb->draining, 1);
    assert_false(status_ready(sb, &why));
    assert_true(str_eqz(buf_view(&why), "the server is stopping; no http worker is ready"));
    atomic_store(&sb->draining, 0);
    sb->slot[0].role = ROLE_HTTP;
    atomic_store(&sb->slot[0].state, WORKER_READY);
    assert_true(status_ready(sb, NULL)); /* requests can be answered */
    atomic_store(&sb->shedding, 1);
    why.n = 0;
    assert_false(status_ready(sb, &why));
    assert_true(str_eqz(buf_view(&why), "memory is short"));
    atomic_store(&sb->shedding, 0);
    n.target[ROLE_HTTP] = 0;
    note_write(sb, &n);
    why.n = 0;
    assert_false(status_ready(sb, &why));
    assert_true(str_eqz(buf_view(&why), "no ingest worker is ready"));
    buf_fini(&why);
    scoreboard_unmap(sb);
}

static void fingerprint(const char *url, const char *lease, char out[CONFIG_SHA256_LEN + 1])
{
    char set[2][128];
    const char *sets[] = {set[0], set[1]};
    struct config *cfg;
    struct err e;
    snprintf(set[0], sizeof set[0], "database.url=%s", url);
    snprintf(set[1], sizeof set[1], "ingest.lease=%s", lease);
    assert_int_equal(config_load(&(struct config_args){.set = sets, .n_set = 2}, &cfg, &e), 0);
    config_sha256(cfg, out);
    config_free(cfg);
}

static void equal_settings_have_equal_fingerprints(void **state)
{
    char a[CONFIG_SHA256_LEN + 1], b[CONFIG_SHA256_LEN + 1];
    (void)state;
    fingerprint("postgresql://me:secret@h/db", "15s", a);
    fingerprint("postgresql://me:secret@h/db", "15000ms", b);
    assert_string_equal(a, b);
    assert_int_equal(strlen(a), CONFIG_SHA256_LEN);
    assert_int_equal(strspn(a, "0123456789abcdef"), CONFIG_SHA256_LEN);
    fingerprint("postgresql://me:Secret@h/db", "15s", b); /* redacted, both are the same */
    assert_string_not_equal(a, b);
    fingerprint("postgresql://me:secret@h/db", "16s", b);
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_sees_half_a_note),
        cmocka_unit_test(a_master_that_died_while_it_wrote_leaves_no_note),
        cmocka_unit_test(whatever_is_told_is_json),
        cmocka_unit_test(rates_are_those_of_the_last_ten_seconds),
        cmocka_unit_test(readiness_names_its_reasons),
        cmocka_unit_test(equal_settings_have_equal_fingerprints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
