/* The loop: the order of a turn (worker/fiber/loop.h). */
#include "tests/unit/fibers.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_order_of_a_turn),
        TEST(test_fibers_that_wake_each_other_do_not_starve_events),
        TEST(test_loop_now_stands_still_within_a_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
