/* Fibers: spawn, park, wake, cancel, deadlines, dumps, stacks (worker/fiber/fiber.h). */
#include "tests/unit/fibers.h"

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

static void keeps_its_errno(void *arg)
{
    int *after = arg;
    errno = EAGAIN;
    assert_int_equal(fiber_park("a test"), 0);
    *after = errno;
    loop_stop();
}

static void test_errno_is_of_the_fiber(void **state)
{
    (void)state;
    int after = 0;
    struct fiber *f = fiber_spawn("t", keeps_its_errno, &after);
    errno = ENOENT;
    fiber_wake(f);
    loop_run();
    assert_int_equal(after, EAGAIN);
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
    fiber_set_deadline(fiber_self(), start + 60 * SEC);
    assert_true(fiber_deadline(fiber_self()) == start + 60 * SEC);
    assert_true(fiber_time_left() > 0 && fiber_time_left() <= 60 * SEC);
    assert_int_equal(fiber_check(), 0);
    fiber_set_deadline(fiber_self(), start + 20 * MS);
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
    const struct CMUnitTest tests[] = {
        TEST(test_spawn_runs_at_once_and_nests),
        TEST(test_wake_does_not_run_inline),
        TEST(test_errno_is_of_the_fiber),
        TEST(test_first_of_wake_and_cancel_wins),
        TEST(test_every_wait_after_a_cancel_returns_at_once),
        TEST(test_wake_touches_only_parked_fibers),
        TEST(test_deadline),
        TEST(test_deadlines_end_in_their_order),
        TEST(test_shield_holds_back_cancellation),
        TEST(test_shield_holds_back_the_deadline),
        TEST(test_dump_names_what_waits),
        TEST(test_limit),
        TEST(test_stacks_are_separate_and_reused),
        TEST(test_overflow_hits_the_guard_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
