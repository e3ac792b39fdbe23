/* Every promise of worker/fiber/fiber.h and loop.h. */
#include "common/clock.h"
#include "worker/fiber/fiber.h"
#include "worker/fiber/loop.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* What the fibers did, as letters in order. */
static char trace[256];
static void note(char c)
{
    size_t n = strlen(trace);
    assert_true(n + 1 < sizeof trace);
    trace[n] = c;
    trace[n + 1] = 0;
}

static int setup(void **state)
{
    struct err e;
    (void)state;
    trace[0] = 0;
    fiber_limit(65536);
    return loop_init(&e);
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(fiber_count(), 0);
    fiber_fini();
    loop_fini();
    return 0;
}

/* ---- spawn, park, wake ---- */

static void letter_b(void *arg)
{
    (void)arg;
    note('b');
}

static void spawns_inside(void *arg)
{
    (void)arg;
    note('a');
    fiber_spawn("inner", letter_b, NULL);
    note('c');
}

static void test_spawn_runs_at_once_and_nests(void **state)
{
    (void)state;
    assert_null(fiber_self());
    assert_non_null(fiber_spawn("outer", spawns_inside, NULL));
    note('d');
    assert_string_equal(trace, "abcd");
    assert_int_equal(fiber_count(), 0);
}

static struct fiber *parked;
static void park_once(void *arg)
{
    int *result = arg;
    parked = fiber_self();
    note('p');
    *result = fiber_park("a test");
    note('w');
    loop_stop();
}

static void test_wake_does_not_run_inline(void **state)
{
    (void)state;
    int result = 7;
    fiber_spawn("t", park_once, &result);
    assert_int_equal(fiber_count(), 1);
    fiber_wake(parked);
    note('x');
    loop_run();
    assert_string_equal(trace, "pxw");
    assert_int_equal(result, 0);
}

static void test_first_of_wake_and_cancel_wins(void **state)
{
    (void)state;
    int result = 7;
    fiber_spawn("t", park_once, &result);
    fiber_wake(parked);
    fiber_cancel(parked);
    fiber_wake(parked);
    loop_run();
    assert_int_equal(result, 0);
    assert_string_equal(trace, "pw");

    fiber_spawn("t", park_once, &result);
    fiber_cancel(parked);
    fiber_wake(parked);
    loop_run();
    assert_int_equal(result, -ECANCELED);
}

static void parks_again(void *arg)
{
    (void)arg;
    parked = fiber_self();
    assert_int_equal(fiber_park("first"), -ECANCELED);
    note('1');
    assert_int_equal(fiber_park("second"), -ECANCELED);
    assert_int_equal(fiber_check(), -ECANCELED);
    assert_int_equal(fiber_sleep(SEC), -ECANCELED);
    assert_int_equal(fiber_yield(), -ECANCELED);
    assert_int_equal(fiber_wait_fd(0, EV_READ, "fd"), -ECANCELED);
    note('2');
    loop_stop();
}

static void test_every_wait_after_a_cancel_returns_at_once(void **state)
{
    (void)state;
    fiber_spawn("t", parks_again, NULL);
    fiber_cancel(parked);
    loop_run();
    assert_string_equal(trace, "12");
}

static void wake_of_a_running_fiber(void *arg)
{
    (void)arg;
    fiber_wake(fiber_self());
    note('r');
    assert_int_equal(fiber_park("nobody yet"), 0);
    note('w');
}

static void wakes(void *arg)
{
    (void)arg;
    note('o');
    fiber_wake(parked);
}

static void test_wake_touches_only_parked_fibers(void **state)
{
    (void)state;
    parked = fiber_spawn("t", wake_of_a_running_fiber, NULL);
    assert_int_equal(fiber_count(), 1);
    fiber_spawn("other", wakes, NULL);
    loop_stop();
    loop_run();
    assert_string_equal(trace, "row");
}

/* ---- deadlines ---- */

static void waits_past_deadline(void *arg)
{
    int64_t start = clock_ns(), *waited = arg;
    fiber_set_deadline(fiber_self(), start + 20 * MS);
    assert_true(fiber_deadline(fiber_self()) == start + 20 * MS);
    assert_true(fiber_time_left() > 0 && fiber_time_left() <= 20 * MS);
    assert_int_equal(fiber_check(), 0);
    assert_int_equal(fiber_park("never"), -ETIMEDOUT);
    *waited = clock_ns() - start;
    assert_int_equal(fiber_check(), -ETIMEDOUT);
    assert_int_equal(fiber_park("never"), -ETIMEDOUT);
    assert_true(fiber_time_left() == 0);
    fiber_set_deadline(fiber_self(), 0);
    assert_int_equal(fiber_check(), 0);
    assert_true(fiber_time_left() == INT64_MAX);
    fiber_set_deadline(fiber_self(), clock_ns() - 1);
    assert_int_equal(fiber_park("never"), -ETIMEDOUT);
    loop_stop();
}

static void test_deadline(void **state)
{
    (void)state;
    int64_t waited = 0;
    fiber_spawn("t", waits_past_deadline, &waited);
    loop_run();
    assert_true(waited >= 20 * MS);
}

struct timed {
    int64_t ms;
    char letter;
    int *left;
};

static void waits_for_its_own_deadline(void *arg)
{
    struct timed *t = arg;
    fiber_set_deadline(fiber_self(), clock_ns() + t->ms * MS);
    assert_int_equal(fiber_park("deadline"), -ETIMEDOUT);
    note(t->letter);
    if (--*t->left == 0)
        loop_stop();
}

static void sets_and_leaves(void *arg)
{
    (void)arg;
    fiber_set_deadline(fiber_self(), clock_ns() + 5 * MS);
}

static void test_deadlines_end_in_their_order(void **state)
{
    (void)state;
    int left = 3;
    struct timed t[] = {{90, 'c', &left}, {10, 'a', &left}, {50, 'b', &left}};
    for (int i = 0; i < 3; i++)
        fiber_spawn("t", waits_for_its_own_deadline, &t[i]);
    fiber_spawn("gone before its deadline", sets_and_leaves, NULL);
    loop_run();
    assert_string_equal(trace, "abc");
}

/* ---- shield ---- */

static void shielded(void *arg)
{
    (void)arg;
    parked = fiber_self();
    fiber_shield(1);
    fiber_shield(1);
    note(fiber_park("shielded") == 0 ? '0' : 'e');
    fiber_shield(-1);
    assert_int_equal(fiber_check(), 0);
    note(fiber_yield() == 0 ? '0' : 'e');
    fiber_shield(-1);
    note(fiber_park("open") == -ECANCELED ? 'C' : 'e');
    loop_stop();
}

static void test_shield_holds_back_cancellation(void **state)
{
    (void)state;
    fiber_spawn("t", shielded, NULL);
    fiber_cancel(parked);
    loop_stop();
    loop_run();
    assert_string_equal(trace, "");
    fiber_wake(parked);
    loop_run();
    assert_string_equal(trace, "00C");
}

static void shielded_from_deadline(void *arg)
{
    (void)arg;
    fiber_set_deadline(fiber_self(), clock_ns() + 2 * MS);
    fiber_shield(1);
    assert_int_equal(fiber_sleep(30 * MS), 0);
    fiber_shield(-1);
    assert_int_equal(fiber_check(), -ETIMEDOUT);
    note('k');
    loop_stop();
}

static void test_shield_holds_back_the_deadline(void **state)
{
    (void)state;
    fiber_spawn("t", shielded_from_deadline, NULL);
    loop_run();
    assert_string_equal(trace, "k");
}

/* ---- sleep, yield, descriptors ---- */

static void sleeps(void *arg)
{
    int64_t start = clock_ns();
    (void)arg;
    assert_int_equal(fiber_sleep(15 * MS), 0);
    assert_true(clock_ns() - start >= 15 * MS);
    assert_int_equal(fiber_sleep(0), 0);
    loop_stop();
}

static void test_sleep(void **state)
{
    (void)state;
    fiber_spawn("t", sleeps, NULL);
    loop_run();
}

static int pipe_fd[2];
static void reads_a_pipe(void *arg)
{
    char c;
    (void)arg;
    assert_int_equal(fiber_wait_fd(pipe_fd[0], EV_READ, "pipe"), 0);
    assert_int_equal(read(pipe_fd[0], &c, 1), 1);
    note(c);
}

/* A pipe that is already readable is noticed while this one yields: yielding lets the loop look at its events. */
static void yields_until_the_reader_is_done(void *arg)
{
    (void)arg;
    assert_int_equal(write(pipe_fd[1], "z", 1), 1);
    for (int i = 0; !trace[0]; i++) {
        assert_true(i < 10);
        assert_int_equal(fiber_yield(), 0);
    }
    note('y');
    loop_stop();
}

static void test_yield_and_wait_fd(void **state)
{
    (void)state;
    assert_int_equal(pipe(pipe_fd), 0);
    fiber_spawn("reader", reads_a_pipe, NULL);
    fiber_spawn("yielder", yields_until_the_reader_is_done, NULL);
    loop_run();
    assert_string_equal(trace, "zy");
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

static void waits_for_fd_with_deadline(void *arg)
{
    (void)arg;
    fiber_set_deadline(fiber_self(), clock_ns() + 5 * MS);
    note(fiber_wait_fd(pipe_fd[0], EV_READ, "pipe") == -ETIMEDOUT ? 't' : 'e');
    loop_stop();
}

static void test_wait_fd_ends_at_the_deadline(void **state)
{
    (void)state;
    assert_int_equal(pipe(pipe_fd), 0);
    fiber_spawn("t", waits_for_fd_with_deadline, NULL);
    loop_run();
    assert_string_equal(trace, "t");
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

/* ---- labels, data, dump, limit ---- */

static void test_dump_names_what_waits(void **state)
{
    (void)state;
    int result, mark;
    struct buf out = {0};
    fiber_spawn("a request", park_once, &result);
    fiber_label(parked, "req-123456789-123456789-123456789-123456789-123456789-");
    fiber_set_data(parked, &mark);
    assert_ptr_equal(fiber_data(parked), &mark);
    fiber_dump(&out);
    buf_ch(&out, 0);
    assert_non_null(strstr(out.p, "a request [req-123456789-123456789-123456789-123456789-123] age "));
    assert_non_null(strstr(out.p, "waits for a test since "));
    buf_fini(&out);
    fiber_cancel(parked);
    loop_run();
}

static void test_limit(void **state)
{
    (void)state;
    int result;
    fiber_limit(1);
    assert_non_null(fiber_spawn("one", park_once, &result));
    assert_null(fiber_spawn("two", letter_b, NULL));
    fiber_wake(parked);
    loop_run();
    assert_non_null(fiber_spawn("three", letter_b, NULL));
    assert_string_equal(trace, "pwb");
}

static int many_left;
static struct fiber_queue many_queue;
static void one_of_many(void *arg)
{
    char page[4096];
    memset(page, (int)(intptr_t)arg, sizeof page);
    assert_int_equal(fiber_queue_wait(&many_queue, "all others"), 0);
    for (size_t i = 0; i < sizeof page; i++)
        assert_int_equal((unsigned char)page[i], (int)(intptr_t)arg);
    if (--many_left == 0)
        loop_stop();
}

static void test_stacks_are_separate_and_reused(void **state)
{
    (void)state;
    fiber_queue_init(&many_queue);
    for (int round = 0; round < 3; round++) {
        many_left = 700; /* more than the pool keeps */
        for (int i = 0; i < many_left; i++)
            assert_non_null(fiber_spawn("many", one_of_many, (void *)(intptr_t)(i & 255)));
        fiber_queue_wake_all(&many_queue);
        loop_run();
        assert_int_equal(fiber_count(), 0);
    }
}

/* ---- queues ---- */

static struct fiber_queue queue;
static void waits_in_queue(void *arg)
{
    int rc = fiber_queue_wait(&queue, "queue");
    note(rc == 0 ? *(char *)arg : '-');
    if (fiber_count() == 1)
        loop_stop();
}

static void test_queue_is_fair_and_loses_no_wakeup(void **state)
{
    (void)state;
    struct fiber *f[3];
    char letters[] = "abc";
    fiber_queue_init(&queue);
    assert_true(fiber_queue_empty(&queue));
    assert_false(fiber_queue_wake_one(&queue));
    for (int i = 0; i < 3; i++)
        f[i] = fiber_spawn("q", waits_in_queue, &letters[i]);
    assert_false(fiber_queue_empty(&queue));
    fiber_cancel(f[0]);                        /* cancelled, not yet run: it must not swallow the wake-up */
    assert_true(fiber_queue_wake_one(&queue)); /* for b */
    fiber_cancel(f[1]);                        /* too late: b was woken */
    assert_true(fiber_queue_wake_one(&queue)); /* for c */
    assert_false(fiber_queue_wake_one(&queue));
    assert_true(fiber_queue_empty(&queue));
    loop_run();
    assert_string_equal(trace, "-bc");
}

/* ---- fan out ---- */

static suspends int task_sleep(void *arg)
{
    int ms = *(int *)arg;
    int rc = fiber_sleep(ms * MS);
    note(rc == 0 ? 's' : rc == -ECANCELED ? 'c' : 't');
    return rc ? rc : ms;
}

static void fans_out(void *arg)
{
    (void)arg;
    int ms[3] = {0, 30, 10};
    struct fiber_task t[3] = {{task_sleep, &ms[0], -1}, {task_sleep, &ms[1], -1}, {task_sleep, &ms[2], -1}};
    int64_t start = clock_ns();
    assert_int_equal(fiber_all(t, 3), 30);
    assert_int_equal(t[0].result, 0);
    assert_int_equal(t[2].result, 10);
    assert_true(clock_ns() - start >= 30 * MS);
    assert_int_equal(fiber_all(NULL, 0), 0);
    loop_stop();
}

static void test_all_joins_and_reports_the_first_failure(void **state)
{
    (void)state;
    fiber_spawn("t", fans_out, NULL);
    loop_run();
    assert_string_equal(trace, "sss");
}

static void fans_out_slow(void *arg)
{
    int ms = 60000, deadline_ms = *(int *)arg;
    struct fiber_task t[2] = {{task_sleep, &ms, 0}, {task_sleep, &ms, 0}};
    parked = fiber_self();
    if (deadline_ms)
        fiber_set_deadline(fiber_self(), clock_ns() + deadline_ms * MS);
    assert_true(fiber_all(t, 2) < 0);
    assert_int_equal(fiber_count(), 1);
    loop_stop();
}

static void test_all_passes_on_cancellation_and_deadline(void **state)
{
    (void)state;
    int deadline = 0;
    fiber_spawn("t", fans_out_slow, &deadline);
    fiber_cancel(parked);
    loop_run();
    assert_string_equal(trace, "cc");
    deadline = 5;
    fiber_spawn("t", fans_out_slow, &deadline);
    loop_run();
    assert_string_equal(trace, "cctt");
}

static void fans_out_quick(void *arg)
{
    int ms[2] = {1, 0};
    struct fiber_task t[2] = {{task_sleep, &ms[0], -1}, {task_sleep, &ms[1], -1}};
    (void)arg;
    assert_int_equal(fiber_all(t, 2), 1);
    loop_stop();
}

static void test_all_runs_in_place_when_no_stack_is_left(void **state)
{
    (void)state;
    fiber_limit(1);
    fiber_spawn("t", fans_out_quick, NULL);
    loop_run();
    assert_string_equal(trace, "ss");
}

/* ---- blocking code ---- */

static pthread_t loop_thread;
static void blocks(void *arg)
{
    assert_false(pthread_equal(pthread_self(), loop_thread));
    usleep(5000);
    ++*(int *)arg;
}

static void calls_blocking(void *arg)
{
    int *calls = arg, mine = 0;
    for (int i = 0; i < 3; i++)
        fiber_blocking(blocks, &mine);
    assert_int_equal(mine, 3);
    if ((*calls += mine) == 24)
        loop_stop();
}

static void test_blocking_runs_elsewhere_and_is_not_cut_short(void **state)
{
    (void)state;
    int calls = 0;
    loop_thread = pthread_self();
    for (int i = 0; i < 8; i++) {
        struct fiber *f = fiber_spawn("t", calls_blocking, &calls);
        if (i == 3)
            fiber_cancel(f);
    }
    loop_run();
    assert_int_equal(calls, 24);
}

/* ---- the loop ---- */

static void hook_flush(void *arg)
{
    note(*(char *)arg);
}

static struct fiber *hook_wakes;
static void hook_backend(void *arg)
{
    (void)arg;
    note('B');
    if (hook_wakes) {
        fiber_wake(hook_wakes);
        hook_wakes = NULL;
    }
}

static void on_dead(struct loop_dead *self)
{
    (void)self;
    note('D');
}

static void test_order_of_a_turn(void **state)
{
    (void)state;
    char client = 'C', log = 'L';
    int result;
    struct loop_dead dead;
    struct loop_hook logs = {.fn = hook_flush, .arg = &log}, clients = {.fn = hook_flush, .arg = &client},
                     backends = {.fn = hook_backend};
    loop_hook_add(&logs, LOOP_FLUSH_LOGS);
    loop_hook_add(&clients, LOOP_FLUSH_CLIENTS);
    loop_hook_add(&backends, LOOP_FLUSH_BACKENDS);
    fiber_spawn("t", park_once, &result);
    hook_wakes = parked;
    loop_bury(&dead, on_dead);
    loop_run(); /* a hook made the fiber runnable: it runs in the same turn, and the hooks run once more */
    assert_string_equal(trace, "pBCLwBCLD");
    loop_hook_del(&backends);
    loop_hook_del(&clients);
    loop_hook_del(&logs);
}

static struct fiber *ping, *pong;
static void plays(void *arg)
{
    struct fiber **other = arg;
    while (!trace[0]) {
        if (*other)
            fiber_wake(*other);
        if (fiber_park("the other") < 0)
            return;
    }
}

static void test_fibers_that_wake_each_other_do_not_starve_events(void **state)
{
    (void)state;
    assert_int_equal(pipe(pipe_fd), 0);
    assert_int_equal(write(pipe_fd[1], "z", 1), 1);
    fiber_spawn("reader", reads_a_pipe, NULL);
    ping = fiber_spawn("ping", plays, &pong);
    pong = fiber_spawn("pong", plays, &ping);
    for (int i = 0; i < 4 && !trace[0]; i++) {
        event_base_loop(loop_base(), EVLOOP_NONBLOCK);
        loop_stop();
        loop_run();
    }
    assert_string_equal(trace, "z");
    fiber_cancel(ping);
    fiber_cancel(pong);
    loop_stop();
    loop_run();
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

static void looks_at_the_time(void *arg)
{
    int64_t *seen = arg;
    fiber_yield(); /* into the loop */
    seen[0] = loop_now();
    usleep(2000);
    seen[1] = loop_now();
    fiber_yield();
    seen[2] = loop_now();
    assert_true(loop_running());
    loop_stop();
    assert_false(loop_running());
}

static void test_loop_now_stands_still_within_a_turn(void **state)
{
    (void)state;
    int64_t seen[3];
    fiber_spawn("t", looks_at_the_time, seen);
    loop_run();
    assert_true(seen[0] == seen[1]);
    assert_true(seen[2] > seen[1]);
}

/* ---- the guard page ---- */

static __attribute__((noinline)) int dig(volatile char *above, int depth)
{
    volatile char here[2048];
    here[0] = above[0];
    return depth ? dig(here, depth - 1) + here[0] : 0;
}

static void overflows(void *arg)
{
    (void)arg;
    volatile char c = 0;
    printf("%d", dig(&c, 1000000));
}

static void test_overflow_hits_the_guard_page(void **state)
{
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO); /* a sanitizer's report of this is no finding */
        fiber_spawn("t", overflows, NULL);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_spawn_runs_at_once_and_nests),
        TEST(test_wake_does_not_run_inline),
        TEST(test_first_of_wake_and_cancel_wins),
        TEST(test_every_wait_after_a_cancel_returns_at_once),
        TEST(test_wake_touches_only_parked_fibers),
        TEST(test_deadline),
        TEST(test_deadlines_end_in_their_order),
        TEST(test_shield_holds_back_cancellation),
        TEST(test_shield_holds_back_the_deadline),
        TEST(test_sleep),
        TEST(test_yield_and_wait_fd),
        TEST(test_wait_fd_ends_at_the_deadline),
        TEST(test_dump_names_what_waits),
        TEST(test_limit),
        TEST(test_stacks_are_separate_and_reused),
        TEST(test_queue_is_fair_and_loses_no_wakeup),
        TEST(test_all_joins_and_reports_the_first_failure),
        TEST(test_all_passes_on_cancellation_and_deadline),
        TEST(test_all_runs_in_place_when_no_stack_is_left),
        TEST(test_blocking_runs_elsewhere_and_is_not_cut_short),
        TEST(test_order_of_a_turn),
        TEST(test_fibers_that_wake_each_other_do_not_starve_events),
        TEST(test_loop_now_stands_still_within_a_turn),
        TEST(test_overflow_hits_the_guard_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
