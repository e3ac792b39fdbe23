/* err, log and scoreboard: what a process says about itself. */
#include "tests/unit/cm.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void errors(void **state)
{
    struct err e = {.log = "old", .retry_after_ms = 5};
    (void)state;
    assert_int_equal(err_set(&e, ERR_NOT_FOUND, "no %s", "such"), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_string_equal(e.msg, "no such");
    assert_string_equal(e.log, ""); /* nothing of an earlier error stays */
    assert_int_equal(e.retry_after_ms, 0);
    assert_int_equal(err_log(&e, "host %d", 7), -1);
    assert_string_equal(e.msg, "no such");
    assert_string_equal(e.log, "host 7");
    assert_int_equal(err_at(&e, "/a/0", "bad"), -1);
    assert_int_equal(e.code, ERR_VALIDATION);
    assert_string_equal(e.pointer, "/a/0");
    errno = ENOSPC;
    assert_int_equal(err_errno(&e, "write %s", "f"), -1);
    assert_int_equal(e.code, ERR_STORAGE_FULL);
    assert_string_equal(e.pointer, "");
    assert_string_equal(e.msg, "write f: No space left on device");
    errno = EACCES;
    err_errno(&e, "open");
    assert_int_equal(e.code, ERR_INTERNAL);
    assert_int_equal(err_set(NULL, ERR_INTERNAL, "nobody listens"), -1);
    char longer[1000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    err_set(&e, ERR_INTERNAL, "%s", longer);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
}

static void error_codes_are_complete(void **state)
{
    (void)state;
    for (int c = 0; c < ERR_COUNT; c++) {
        assert_in_range(err_status((enum err_code)c), 200, 599);
        assert_true(*err_wire((enum err_code)c) && *err_title((enum err_code)c));
    }
    assert_int_equal(err_status(ERR_TOO_LARGE), 413);
    assert_string_equal(err_wire(ERR_NOT_READY), "not_ready");
    assert_true(err_retryable(ERR_NOT_READY));
    assert_false(err_retryable(ERR_NOT_FOUND));
}

/* Runs `fn` with stderr in a file and returns what it wrote. */
static char *captured(void (*fn)(void))
{
    static char text[8192];
    FILE *f = tmpfile();
    int saved = dup(STDERR_FILENO);
    assert_non_null(f);
    dup2(fileno(f), STDERR_FILENO);
    fn();
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void write_text(void)
{
    struct err e = {.msg = "refused", .log = "10.0.0.1"};
    log_init(LOG_INFO, false, "http:2");
    log_debug("hidden");
    log_info("a\nforged\x7f line");
    log_err(LOG_WARN, "connect", &e);
    log_set_level(LOG_DEBUG, false);
    log_debug("shown");
    log_msg(LOG_ERROR, "cut here \xff never seen");
}

static void write_json(void)
{
    log_init(LOG_WARN, true, "master");
    log_info("hidden");
    log_warn("say \"hi\" \\ and\nbreak");
}

static void lines(void **state)
{
    (void)state;
    char *text = captured(write_text);
    assert_null(strstr(text, "hidden"));
    assert_non_null(strstr(text, "info  [http:2 "));
    assert_non_null(strstr(text, "] a forged  line\n"));
    assert_non_null(strstr(text, "] connect: refused (10.0.0.1)\n"));
    assert_non_null(strstr(text, "shown\n"));
    assert_non_null(strstr(text, "] cut here \n"));
    text = captured(write_json);
    assert_null(strstr(text, "hidden"));
    assert_non_null(strstr(text, "\"level\":\"warn\",\"role\":\"master\""));
    assert_non_null(strstr(text, "\"msg\":\"say \\\"hi\\\" \\\\ and\\u000abreak\"}\n"));
    log_init(LOG_INFO, false, "test");
}

static void access_lines_wait_for_the_flush(void **state)
{
    int fd[2];
    char text[64];
    (void)state;
    assert_int_equal(pipe2(fd, O_NONBLOCK), 0);
    assert_false(log_access_on());
    log_access(STR("lost")); /* off: nowhere to go */
    log_access_open(fd[1]);
    assert_true(log_access_on());
    log_access(STR("one"));
    log_access(STR("two"));
    assert_int_equal(read(fd[0], text, sizeof text), -1);
    log_flush();
    assert_int_equal(read(fd[0], text, sizeof text), 8);
    assert_memory_equal(text, "one\ntwo\n", 8);
    log_access(STR("of the parent"));
    log_init(LOG_INFO, false, "child"); /* after a fork: not ours to write */
    log_flush();
    assert_int_equal(read(fd[0], text, sizeof text), -1);
    log_access_open(-1);
    close(fd[0]);
    close(fd[1]);
}

static void a_reader_that_stops_loses_lines_and_blocks_nobody(void **state)
{
    enum { LINES = 50000, LINE = 100 };
    static char text[1 << 20];
    char line[LINE];
    int fd[2];
    size_t lines = 0;
    (void)state;
    assert_int_equal(pipe(fd), 0); /* blocking, as a container's stdout is */
    uint64_t lost = slot_self->stat[STAT_log_lines_lost_total];
    memset(line, 'x', sizeof line);
    log_access_open(fd[1]);
    for (int i = 0; i < LINES; i++)
        log_access((struct str){line, sizeof line});
    log_flush();
    lost = slot_self->stat[STAT_log_lines_lost_total] - lost;
    assert_in_range(lost, 1, LINES - 1);
    assert_int_equal(fcntl(fd[0], F_SETFL, O_NONBLOCK), 0);
    for (ssize_t n; (n = read(fd[0], text, sizeof text)) > 0; log_flush()) /* the reader is back */
        for (ssize_t i = 0; i < n; i++)
            lines += text[i] == '\n';
    assert_int_equal(lines + lost, LINES);
    log_access_open(-1);
    close(fd[0]);
    close(fd[1]);
}

static void counts_cross_the_fork(void **state)
{
    struct scoreboard *sb;
    struct err e;
    int fd, status;
    (void)state;
    STAT_ADD(bytes_sent_total, 1); /* before the attach: counted where nobody looks */
    assert_null(scoreboard_self());
    assert_int_equal(scoreboard_create(&sb, &fd, 3, &e), 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(sb->slots, 3);
    sb->slot[1].stat[STAT_connections] = 9; /* left behind by a predecessor */
    sb->slot[1].stat[STAT_bytes_sent_total] = 5;
    sb->slot[1].flight[0].start_ns = 1;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        scoreboard_attach(sb, 1);
        STAT_ADD(bytes_sent_total, 10);
        STAT_ADD(connections, 2);
        STAT_SUB(connections, 1);
        score_request(4, 204, 300 * 1000);
        score_request(4, 503, 20LL * 1000 * 1000 * 1000);
        score_request(SCORE_ROUTES + 5, 200, 1000);
        _exit(scoreboard_self() == sb ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    const struct slot *s = &sb->slot[1];
    assert_int_equal(s->stat[STAT_bytes_sent_total], 15); /* counters go on, levels start afresh */
    assert_int_equal(s->stat[STAT_connections], 1);
    assert_int_equal(s->flight[0].start_ns, 0);
    assert_int_equal(s->route[4].by_class[1], 1);
    assert_int_equal(s->route[4].by_class[4], 1);
    assert_int_equal(s->route[4].latency[1], 1);
    assert_int_equal(s->route[4].latency[LATENCY_BUCKETS - 1], 1);
    assert_int_equal(s->route[4].latency_sum_us, 20000300);
    assert_int_equal(s->route[0].by_class[1], 1);
    assert_int_equal(sb->slot[0].stat[STAT_bytes_sent_total], 0);
    scoreboard_unmap(sb);
    close(fd);
    scoreboard_unmap(NULL);
}

static void flights(void **state)
{
    int handle[SCORE_FLIGHTS];
    (void)state;
    for (int i = 0; i < SCORE_FLIGHTS; i++) {
        handle[i] = flight_begin(3, STR("GET"),
                                 STR("/a/very/long/path/that/will/be/cut/because/a/slot/has/only/seventy/bytes/for/it"),
                                 STR("id"), 1000 + i);
        assert_true(handle[i] >= 0);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(handle[i], handle[k]);
    }
    assert_int_equal(flight_begin(3, STR("GET"), STR("/"), STR("id"), 1), -1);
    flight_end(-1);
    const struct flight *f = &slot_self->flight[handle[7]];
    assert_int_equal(f->start_ns, 1007);
    assert_string_equal(f->method, "GET");
    assert_int_equal(strlen(f->path), sizeof f->path - 1);
    assert_string_equal(f->asked, "");
    flight_asks(flight_at(handle[7]), "document_get");
    assert_string_equal(f->asked, "document_get");
    flight_asks(flight_at(handle[7]), "something_that_has_a_longer_name_than_that");
    assert_int_equal(strlen(f->asked), sizeof f->asked - 1);
    flight_asks(flight_at(-1), "nothing");
    flight_end(handle[7]);
    assert_int_equal(flight_begin(5, STR("PUT"), STR("/"), STR("id"), 2), handle[7]);
    assert_string_equal(f->asked, "");
    for (int i = 0; i < SCORE_FLIGHTS; i++)
        flight_end(handle[i]);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(role_name(ROLE_INGEST), "ingest");
    assert_string_equal(worker_state_name(WORKER_READY), "READY");
    assert_string_equal(worker_state_name(WORKER_KILLED), "KILLED");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors),
        cmocka_unit_test(error_codes_are_complete),
        cmocka_unit_test(lines),
        cmocka_unit_test(access_lines_wait_for_the_flush),
        cmocka_unit_test(a_reader_that_stops_loses_lines_and_blocks_nobody),
        cmocka_unit_test(flights),
        cmocka_unit_test(counts_cross_the_fork),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
