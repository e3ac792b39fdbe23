/* What fibers wait for: time, descriptors, queues, each other, helper threads (worker/fiber/fiber.h). */
#include "tests/unit/fibers.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sleep),
        TEST(test_yield_and_wait_fd),
        TEST(test_wait_fd_ends_at_the_deadline),
        TEST(test_queue_is_fair_and_loses_no_wakeup),
        TEST(test_all_joins_and_reports_the_first_failure),
        TEST(test_all_passes_on_cancellation_and_deadline),
        TEST(test_all_runs_in_place_when_no_stack_is_left),
        TEST(test_blocking_runs_elsewhere_and_is_not_cut_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
