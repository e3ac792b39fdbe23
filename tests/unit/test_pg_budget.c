/* The budget of connections over several processes: worker/io/pg_budget.c. No database is needed. */
#include "tests/unit/cm.h"
#include "common/clock.h"
#include "common/places.h"
#include "common/scoreboard.h"
#include "worker/io/pg_impl.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 8, BUDGET = 10, ROUNDS = 20000 };

static struct places *shared;
static int shared_fd;
static struct config cfg;
static struct pg pg = {.cfg = &cfg};

static int set_up(void **state)
{
    struct err e;
    (void)state;
    cfg.database_max_connections = BUDGET;
    atomic_store(&slot_self->state, WORKER_READY);
    slot_self->stat[STAT_store_connections] = 0;
    return places_create(&shared, &shared_fd, &e) || places_join(shared, shared_fd, &e);
}

static int tear_down(void **state)
{
    (void)state;
    close(shared_fd);
    places_unmap(shared);
    return 0;
}

static int take_all(int *place)
{
    int n = 0;
    while (n < BUDGET + 1 && pg_budget_take(&pg, false, &place[n]))
        n++;
    return n;
}

static void the_budget_is_kept(void **state)
{
    (void)state;
    int place[BUDGET + 1], again;
    assert_int_equal(take_all(place), BUDGET);
    assert_int_equal(slot_self->stat[STAT_store_connections], BUDGET);
    pg_budget_give(place[3]);
    assert_true(pg_budget_take(&pg, false, &again));
    assert_int_equal(again, place[3]);
    assert_false(pg_budget_take(&pg, false, &again));
}

static void who_can_do_without_leaves_some_for_others(void **state)
{
    (void)state;
    int place, n = 0;
    while (pg_budget_take(&pg, true, &place))
        n++;
    assert_int_equal(n, BUDGET - 2);
    assert_true(pg_budget_take(&pg, false, &place));
    assert_true(pg_budget_take(&pg, false, &place));
    assert_false(pg_budget_take(&pg, false, &place));
}

/* Another worker, of whatever master: a process that does something and then lives until it is killed. */
struct other {
    pid_t pid;
    uint64_t mark;
};

static void join(void)
{
    struct err e;
    if (places_join(shared, shared_fd, &e))
        _exit(1);
}

static struct other other_that(void (*does)(void))
{
    struct other o;
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    if ((o.pid = fork()) == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        join();
        does();
        o.mark = places_mark();
        if (write(fd[1], &o.mark, sizeof o.mark) != sizeof o.mark)
            _exit(1);
        for (;;)
            pause();
    }
    close(fd[1]);
    assert_int_equal(read(fd[0], &o.mark, sizeof o.mark), sizeof o.mark);
    close(fd[0]);
    return o;
}

static void end(struct other o)
{
    assert_int_equal(kill(o.pid, SIGKILL), 0);
    assert_int_equal(waitpid(o.pid, NULL, 0), o.pid);
}

static void nothing(void)
{
}

static void takes_all(void)
{
    int place[BUDGET + 1];
    if (take_all(place) != BUDGET)
        _exit(1);
}

static bool dies(uint64_t mark)
{
    int64_t end = clock_ns() + 10 * SEC;
    while (places_lives(mark) && clock_ns() < end)
        usleep(1000);
    return !places_lives(mark);
}

static void a_mark_is_that_of_one_process(void **state)
{
    (void)state;
    struct other a = other_that(nothing), b = other_that(nothing);
    assert_true(places_lives(places_mark()) && places_lives(a.mark) && places_lives(b.mark));
    assert_true(a.mark != b.mark && a.mark != places_mark());
    end(a);
    assert_true(dies(a.mark));
    struct other c = other_that(nothing); /* has the number of the dead one */
    assert_int_equal(c.mark >> 32, a.mark >> 32);
    assert_true(places_lives(c.mark) && places_lives(b.mark) && !places_lives(a.mark));
    assert_false(places_lives(UINT64_MAX >> 1) || places_lives(1)); /* and of none */
    end(b);
    end(c);
}

static void a_zombie_is_dead(void **state)
{
    (void)state;
    struct other a = other_that(nothing);
    kill(a.pid, SIGKILL);
    assert_true(dies(a.mark)); /* nobody has collected it */
    assert_int_equal(waitpid(a.pid, NULL, 0), a.pid);
}

static void blocks_of_another_kind_are_not_used(void **state)
{
    (void)state;
    struct places *same, *none = NULL;
    int small = memfd_create("small", 0);
    assert_true(places_adopt(shared_fd, &same));
    atomic_store(&same->place[7], 77);
    assert_int_equal(atomic_load(&shared->place[7]), 77);
    same->layout++;
    assert_false(places_adopt(shared_fd, &none));
    assert_false(places_adopt(small, &none) || places_adopt(-1, &none));
    assert_null(none);
    assert_int_equal(ftruncate(shared_fd, 0), -1); /* no worker can take it away */
    places_unmap(same);
    close(small);
}

static void misses(void)
{
    int place;
    if (pg_budget_take(&pg, false, &place))
        _exit(1);
}

/* Only who needs a place waits, until it has one; one that does not look any more, since it is dead or stuck, does not. */
static void who_waits_is_seen(void **state)
{
    (void)state;
    int place[BUDGET + 1], one;
    assert_int_equal(take_all(place), BUDGET);
    assert_true(pg_budget_wanted(&pg)); /* it was one too many */
    pg_budget_give(place[0]);
    assert_true(pg_budget_take(&pg, false, &place[0]));
    assert_false(pg_budget_wanted(&pg));
    assert_false(pg_budget_take(&pg, true, &one));
    assert_false(pg_budget_wanted(&pg));
    struct other o = other_that(misses);
    assert_true(pg_budget_wanted(&pg));
    end(o);
    while (pg_budget_wanted(&pg))
        usleep(1000);
}

static void who_has_waited_longest_goes_first(void **state)
{
    (void)state;
    int place[BUDGET + 1], one;
    assert_int_equal(take_all(place), BUDGET); /* and waits for another */
    pg_budget_give(place[0]);
    struct other later = other_that(misses);
    assert_true(pg_budget_take(&pg, false, &place[0]));
    end(later);
    assert_true(dies(later.mark));

    while (pg_budget_wanted(&pg))
        usleep(1000);
    struct other earlier = other_that(misses);
    pg_budget_give(place[0]);
    assert_false(pg_budget_take(&pg, false, &one) || pg_budget_take(&pg, true, &one));
    end(earlier);
    while (!pg_budget_take(&pg, false, &one)) /* it does not look any more */
        usleep(1000);
}

/* The server has a moment to notice, too. */
static void places_of_the_dead_are_free_after_a_while(void **state)
{
    (void)state;
    int mine;
    struct other o = other_that(takes_all);
    assert_false(pg_budget_take(&pg, false, &mine));
    end(o);
    int64_t begin = clock_ns();
    assert_false(pg_budget_take(&pg, false, &mine));
    while (!pg_budget_take(&pg, false, &mine))
        usleep(1000);
    assert_true(clock_ns() - begin >= PG_CHECK_MS * MS);
}

static void race(_Atomic int *holders, _Atomic int *most)
{
    int place, taken = 0;
    join();
    for (int i = 0; i < ROUNDS; i++) {
        if (!pg_budget_take(&pg, false, &place))
            continue;
        int now = atomic_fetch_add(holders, 1) + 1;
        for (int before = atomic_load(most); now > before;)
            if (atomic_compare_exchange_weak(most, &before, now))
                break;
        atomic_fetch_sub(holders, 1);
        pg_budget_give(place);
        taken++;
    }
    _exit(taken ? 0 : 1);
}

/* More workers than places: never more holders than places, and somebody always gets on. */
static void workers_that_race_for_the_last_places(void **state)
{
    (void)state;
    _Atomic int *count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(count, MAP_FAILED);
    cfg.database_max_connections = 3;
    pid_t child[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++)
        if ((child[i] = fork()) == 0)
            race(&count[0], &count[1]);
    for (int i = 0; i < WORKERS; i++) {
        int status;
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_int_equal(status, 0);
    }
    assert_in_range(atomic_load(&count[1]), 1, 3);
    munmap((void *)count, 4096);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_budget_is_kept),
        TEST(who_can_do_without_leaves_some_for_others),
        TEST(a_mark_is_that_of_one_process),
        TEST(a_zombie_is_dead),
        TEST(blocks_of_another_kind_are_not_used),
        TEST(who_waits_is_seen),
        TEST(who_has_waited_longest_goes_first),
        TEST(places_of_the_dead_are_free_after_a_while),
        TEST(workers_that_race_for_the_last_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
