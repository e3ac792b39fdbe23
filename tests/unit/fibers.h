/* What the tests of fibers and of the loop share. */
#pragma once
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
static inline void note(char c)
{
    size_t n = strlen(trace);
    assert_true(n + 1 < sizeof trace);
    trace[n] = c;
    trace[n + 1] = 0;
}

static inline int setup(void **state)
{
    struct err e;
    (void)state;
    trace[0] = 0;
    fiber_limit(65536);
    return loop_init(&e);
}

static inline int teardown(void **state)
{
    (void)state;
    assert_int_equal(fiber_count(), 0);
    fiber_fini();
    loop_fini();
    return 0;
}

static struct fiber *parked;
static inline void park_once(void *arg)
{
    int *result = arg;
    parked = fiber_self();
    note('p');
    *result = fiber_park("a test");
    note('w');
    loop_stop();
}

static int pipe_fd[2];
static inline void reads_a_pipe(void *arg)
{
    char c;
    (void)arg;
    assert_int_equal(fiber_wait_fd(pipe_fd[0], EV_READ, "pipe"), 0);
    assert_int_equal(read(pipe_fd[0], &c, 1), 1);
    note(c);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
