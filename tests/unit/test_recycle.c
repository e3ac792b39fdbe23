/* When a worker asks to be replaced. */
#include "tests/unit/cm.h"
#include "common/clock.h"
#include "worker/recycle.h"
#include <stdlib.h>
#include <string.h>

static struct config cfg;

static int set_up(void **state)
{
    (void)state;
    memset(&cfg, 0, sizeof cfg);
    memset(slot_self, 0, sizeof *slot_self);
    slot_self->route[3].by_class[1] = 1000; /* of an earlier process */
    srandom(1);
    recycle_start();
    return 0;
}

static void nothing_is_due_by_default(void **state)
{
    (void)state;
    slot_self->route[0].by_class[3] = 1000000;
    slot_self->anon_kb = 1 << 30;
    assert_int_equal(recycle_due(&cfg, clock_ns() + 1000000 * SEC), RECYCLE_none);
}

static void requests_are_counted_from_the_start_of_the_process(void **state)
{
    (void)state;
    cfg.server_max_requests = 100;
    slot_self->route[5].by_class[1] = 60;
    slot_self->route[6].by_class[4] = 39;
    assert_int_equal(recycle_due(&cfg, clock_ns()), RECYCLE_none);
    slot_self->route[6].by_class[4]++;
    assert_int_equal(recycle_due(&cfg, clock_ns()), RECYCLE_requests);
}

/* Of many workers with a jitter, some go early and some late, and none out of bounds. */
static void workers_are_not_due_together(void **state)
{
    (void)state;
    int by_tenth[10] = {0};
    cfg.server_max_requests = 100;
    cfg.server_max_requests_jitter = 100;
    for (int worker = 0; worker < 300; worker++) {
        memset(slot_self, 0, sizeof *slot_self);
        recycle_start();
        while (recycle_due(&cfg, clock_ns()) == RECYCLE_none)
            slot_self->route[1].by_class[1]++;
        uint64_t n = slot_self->route[1].by_class[1];
        assert_in_range(n, 100, 200);
        by_tenth[n == 200 ? 9 : (n - 100) / 10]++;
    }
    for (int i = 0; i < 10; i++)
        assert_in_range(by_tenth[i], 1, 100);
}

static void lifetime_and_memory(void **state)
{
    (void)state;
    cfg.server_max_lifetime = 10000;
    cfg.server_max_rss = 64 << 20;
    slot_self->anon_kb = 64 * 1024 - 1;
    assert_int_equal(recycle_due(&cfg, clock_ns() + 8 * SEC), RECYCLE_none);
    assert_int_equal(recycle_due(&cfg, clock_ns() + 11 * SEC), RECYCLE_lifetime);
    slot_self->anon_kb++;
    assert_int_equal(recycle_due(&cfg, clock_ns()), RECYCLE_rss);
}

static void it_asks_once_and_only_while_it_serves(void **state)
{
    (void)state;
    cfg.server_max_requests = 1;
    slot_self->route[0].by_class[1] = 1;
    atomic_store(&slot_self->state, WORKER_DRAINING);
    recycle_beat(&cfg, clock_ns());
    assert_int_equal(atomic_load(&slot_self->recycle), RECYCLE_none);
    atomic_store(&slot_self->state, WORKER_READY);
    recycle_beat(&cfg, clock_ns());
    assert_int_equal(atomic_load(&slot_self->recycle), RECYCLE_requests);
    cfg.server_max_requests = 0;
    cfg.server_max_rss = 1024;
    slot_self->anon_kb = 1;
    recycle_beat(&cfg, clock_ns());
    assert_int_equal(atomic_load(&slot_self->recycle), RECYCLE_requests);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, set_up)
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_due_by_default),
        TEST(requests_are_counted_from_the_start_of_the_process),
        TEST(workers_are_not_due_together),
        TEST(lifetime_and_memory),
        TEST(it_asks_once_and_only_while_it_serves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
