/* The promises of worker/cache/cache.h, on each product. */
#include "tests/contract/cache_world.h"

static struct private_redis server;

/* ---- values ---- */

static suspends void values_are_kept(struct world *w)
{
    bool added = false;
    must(w, str_eqz(text(w, "a"), "(none)"));
    ok(w, OP(w, set, STR("a"), STR("1"), 60000, &w->e));
    must(w, str_eqz(text(w, "a"), "1"));
    ok(w, OP(w, set, STR("a"), STR("two\r\n\0three"), 60000, &w->e));
    must(w, str_eq(text(w, "a"), STR("two\r\n\0three")));
    ok(w, OP(w, add, STR("a"), STR("x"), 60000, &added, &w->e));
    must(w, !added);
    ok(w, OP(w, add, STR("b"), STR(""), 60000, &added, &w->e));
    must(w, added);
    must(w, str_eqz(text(w, "b"), ""));
    ok(w, OP(w, remove, STR("a"), &w->e));
    must(w, str_eqz(text(w, "a"), "(none)"));
    ok(w, OP(w, remove, STR("a"), &w->e));
    ok(w, cache_ping(w->c, &w->e));
}

static suspends void values_end(struct world *w)
{
    int64_t now;
    ok(w, OP(w, set, STR("short"), STR("1"), 20, &w->e));
    ok(w, OP(w, set, STR("long"), STR("1"), 60000, &w->e));
    ok(w, OP(w, count, STR("n"), 1, 20, &now, &w->e));
    until(w, str_eqz(text(w, "short"), "(none)"));
    until(w, str_eqz(text(w, "n"), "(none)"));
    must(w, str_eqz(text(w, "long"), "1"));
}

static suspends void counters_count_until_they_end(struct world *w)
{
    int64_t now = 0;
    ok(w, OP(w, count, STR("n"), 5, 60000, &now, &w->e));
    must(w, now == 5);
    ok(w, OP(w, count, STR("n"), -2, 1, &now, &w->e)); /* the first use says when it ends */
    must(w, now == 3);
    fiber_sleep(20 * MS);
    ok(w, cache_count(w->c, STR("n"), 1, 60000, &now, &w->e));
    must(w, now == 4);
    ok(w, OP(w, set, STR("text"), STR("abc"), 60000, &w->e));
    fails(w, ERR_INTERNAL, OP(w, count, STR("text"), 1, 60000, &now, &w->e));
    must(w, str_eqz(text(w, "text"), "abc"));
}

static suspends void long_keys_are_told_apart(struct world *w)
{
    char a[3000], b[3000];
    memset(a, 'k', sizeof a);
    memcpy(b, a, sizeof b);
    b[2999] = 'x';
    ok(w, OP(w, set, ((struct str){a, sizeof a}), STR("a"), 60000, &w->e));
    ok(w, OP(w, set, ((struct str){b, sizeof b}), STR("b"), 60000, &w->e));
    a[2999] = 0, b[2999] = 0;
    struct str out;
    bool found;
    a[2999] = 'k', b[2999] = 'x';
    ok(w, OP(w, get, &w->a, ((struct str){a, sizeof a}), &out, &found, &w->e));
    must(w, found && str_eqz(out, "a"));
    ok(w, OP(w, get, &w->a, ((struct str){b, sizeof b}), &out, &found, &w->e));
    must(w, found && str_eqz(out, "b"));
}

static suspends void a_flush_takes_all(struct world *w)
{
    char key[20];
    int64_t removed = 0;
    ok(w, cache_flush(w->c, &removed, &w->e));
    for (int i = 0; i < 1200; i++) {
        if (i % 500 == 499) /* values are handed over without waiting, up to cache.max_queue */
            ok(w, cache_ping(w->c, &w->e));
        snprintf(key, sizeof key, "k%d", i);
        ok(w, OP(w, set, str_of(key), STR("v"), 60000, &w->e));
    }
    ok(w, cache_flush(w->c, &removed, &w->e));
    must(w, removed == 1200);
    must(w, str_eqz(text(w, "k7"), "(none)"));
    ok(w, cache_flush(w->c, &removed, &w->e));
    must(w, removed == 0);
}

/* ---- cache_fetch() ---- */

struct job {
    struct world *w;
    const char *key;
    int makes; /* how often it was called */
    bool fail, keep, blocks, hit, done;
    int rc;
    struct str out;
    struct arena a;
    struct err e;
    struct fiber *fiber;
};
static bool gate_open;

static suspends int make(void *arg, struct arena *a, struct str *out, bool *keep, struct err *e)
{
    struct job *j = arg;
    j->makes++;
    while (j->blocks && !gate_open)
        if (fiber_sleep(MS) < 0)
            return err_set(e, ERR_CANCELED, "cancelled");
    *keep = j->keep;
    if (j->fail)
        return err_set(e, ERR_PROVIDER, "the model is away");
    *out = arena_printf(a, "made by %s", j->key);
    return 0;
}

static suspends void fetch(struct job *j)
{
    j->rc = cache_fetch(j->w->c, &j->a, str_of(j->key), make, j, &j->out, &j->hit, &j->e);
    j->done = true;
}

static suspends void fetch_main(void *arg)
{
    struct job *j = arg;
    j->fiber = fiber_self();
    fetch(j);
}

static suspends void what_was_made_is_found(struct world *w)
{
    struct job one = {.w = w, .key = "f", .keep = true}, two = one, not_kept = {.w = w, .key = "g"}, again = not_kept;
    struct job failed = {.w = w, .key = "h", .fail = true};
    fetch(&one);
    fetch(&two);
    must(w, one.rc == 0 && one.makes == 1 && !one.hit);
    must(w, two.rc == 0 && two.makes == 0 && two.hit && str_eqz(two.out, "made by f"));
    fetch(&not_kept);
    fetch(&again);
    must(w, not_kept.makes == 1 && again.makes == 1 && !again.hit);
    fetch(&failed);
    must(w, failed.rc == -1 && failed.e.code == ERR_PROVIDER);
    fetch(&failed);
    must(w, failed.makes == 2);
    arena_fini(&one.a), arena_fini(&two.a), arena_fini(&not_kept.a), arena_fini(&again.a), arena_fini(&failed.a);
}

static suspends void one_makes_it_for_all(struct world *w)
{
    enum { N = 20 };
    struct job job[N];
    int makes = 0, hits = 0;
    gate_open = false;
    for (int i = 0; i < N; i++) {
        job[i] = (struct job){.w = w, .key = "all", .keep = true, .blocks = true};
        fiber_spawn("fetch", fetch_main, &job[i]);
    }
    until(w, job[0].makes);
    gate_open = true;
    for (int i = 0; i < N; i++) {
        until(w, job[i].done);
        must(w, job[i].rc == 0 && str_eqz(job[i].out, "made by all"));
        makes += job[i].makes;
        hits += job[i].hit;
        arena_fini(&job[i].a);
    }
    must(w, makes == 1 && hits == N - 1);
}

/* Who makes it is cancelled: one of those who wait takes over. A failure, though, is everybody's. */
static suspends void a_maker_that_leaves_is_replaced(struct world *w)
{
    struct job first = {.w = w, .key = "gone", .keep = true, .blocks = true}, second = first;
    gate_open = false;
    fiber_spawn("first", fetch_main, &first);
    until(w, first.makes);
    fiber_spawn("second", fetch_main, &second);
    fiber_sleep(5 * MS);
    fiber_cancel(first.fiber);
    until(w, first.done);
    must(w, first.e.code == ERR_CANCELED);
    gate_open = true;
    until(w, second.done);
    must(w, second.rc == 0 && second.makes == 1 && !second.hit);
    arena_fini(&first.a), arena_fini(&second.a);

    struct job fail = {.w = w, .key = "bad", .fail = true, .blocks = true}, waits = fail;
    gate_open = false;
    fiber_spawn("first", fetch_main, &fail);
    until(w, fail.makes);
    fiber_spawn("second", fetch_main, &waits);
    fiber_sleep(5 * MS);
    gate_open = true;
    until(w, fail.done && waits.done);
    must(w, fail.makes + waits.makes == 1 && waits.e.code == ERR_PROVIDER);
    arena_fini(&fail.a), arena_fini(&waits.a);
}

/* As another worker does it: the lock is in the cache. */
static suspends void other_workers_are_waited_for(struct world *w)
{
    bool added;
    struct job waits = {.w = w, .key = "x", .keep = true}, alone = waits;
    ok(w, OP(w, add, STR("lock:x"), STR("1"), 60000, &added, &w->e));
    must(w, added);
    fiber_spawn("waits", fetch_main, &waits);
    fiber_sleep(20 * MS);
    must(w, !waits.done);
    ok(w, OP(w, set, STR("x"), STR("from elsewhere"), 60000, &w->e));
    until(w, waits.done);
    must(w, waits.makes == 0 && waits.hit && str_eqz(waits.out, "from elsewhere"));
    ok(w, OP(w, remove, STR("x"), &w->e));
    w->cfg.cache_lock_timeout = 50; /* whoever holds the lock is slow, or dead */
    fetch(&alone);
    must(w, alone.rc == 0 && alone.makes == 1);
    w->cfg.cache_lock_timeout = 30000;
    ok(w, OP(w, remove, STR("x"), &w->e));
    ok(w, OP(w, remove, STR("lock:x"), &w->e));
    arena_fini(&waits.a), arena_fini(&alone.a);
}

static suspends void large_values_are_not_kept(struct world *w)
{
    w->cfg.cache_max_value = 3;
    struct job one = {.w = w, .key = "large", .keep = true}, two = one;
    fetch(&one);
    fetch(&two);
    must(w, one.makes == 1 && two.makes == 1 && two.rc == 0);
    w->cfg.cache_max_value = 1 << 20;
    arena_fini(&one.a), arena_fini(&two.a);
}

/* ---- without one, and in memory only ---- */

static suspends void none_is_a_cache(struct world *w)
{
    int64_t n;
    struct job one = {.w = w, .key = "f", .keep = true}, two = one;
    must(w, w->c == NULL);
    fetch(&one);
    fetch(&two);
    must(w, one.makes == 1 && two.makes == 1 && two.rc == 0 && !two.hit);
    ok(w, cache_ping(w->c, &w->e));
    fails(w, ERR_NOT_READY, cache_count(w->c, STR("n"), 1, 1000, &n, &w->e));
    fails(w, ERR_NOT_READY, cache_flush(w->c, &n, &w->e));
    arena_fini(&one.a), arena_fini(&two.a);
}

static suspends void memory_follows_the_flush_of_others(struct world *w)
{
    int64_t removed;
    struct cache *other;
    ok(w, cache_open(&w->cfg, &other, &w->e));
    ok(w, OP(w, set, STR("k"), STR("v"), 60000, &w->e));
    ok(w, cache_flush(other, &removed, &w->e));
    cache_close(other);
    must(w, removed == 0);
    must(w, str_eqz(text(w, "k"), "(none)"));
    ok(w, OP(w, set, STR("k"), STR("v"), 60000, &w->e));
    must(w, str_eqz(text(w, "k"), "v"));
}

static suspends void memory_is_bounded(struct world *w)
{
    char value[20000] = "", key[20];
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "m%d", i);
        ok(w, OP(w, set, str_of(key), ((struct str){value, sizeof value}), 60000, &w->e));
        must(w, !str_eqz(text(w, "m0"), "(none)")); /* is used all the time */
    }
    must(w, str_eqz(text(w, "m100"), "(none)"));
    must(w, !str_eqz(text(w, "m199"), "(none)"));
}

/* ---- all of them on each product ---- */

static const struct {
    const char *name;
    void (*fn)(struct world *);
} promises[] = {
#define PROMISE(fn) \
    {               \
#fn, fn     \
    }
    PROMISE(values_are_kept),
    PROMISE(values_end),
    PROMISE(counters_count_until_they_end),
    PROMISE(long_keys_are_told_apart),
    PROMISE(a_flush_takes_all),
    PROMISE(what_was_made_is_found),
    PROMISE(one_makes_it_for_all),
    PROMISE(a_maker_that_leaves_is_replaced),
    PROMISE(other_workers_are_waited_for),
    PROMISE(large_values_are_not_kept),
};
enum { PROMISES = sizeof promises / sizeof *promises };

static void run_on(const char *url, void (*fn)(struct world *))
{
    struct world w = {.c = NULL};
    world_config(&w, url);
    world_run(&w, fn);
}

static const char *redis_url(void)
{
    static char url[100];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/3", server.port);
    return url;
}

static void on_memory(void **state)
{
    run_on("memory:", promises[*(int *)*state].fn);
}

static void on_redis(void **state)
{
    run_on(redis_url(), promises[*(int *)*state].fn);
}

static void none_works(void **s)
{
    (void)s;
    run_on("none:", none_is_a_cache);
}

static void memory_has_an_end(void **s)
{
    (void)s;
    run_on("memory:", memory_follows_the_flush_of_others);
    run_on("memory:", memory_is_bounded);
}

/* Others' keys stay: those in the same database, and the prefix is no pattern. */
static void only_own_keys_are_flushed(void **s)
{
    (void)s;
    assert_int_equal(redis_says(&server, "-n 3 mset tx:other 1 other 2", "OK"), 0);
    run_on(redis_url(), a_flush_takes_all);
    assert_int_equal(redis_says(&server, "-n 3 mget tx:other other", "1\n2"), 0);
}

int main(void)
{
    struct CMUnitTest tests[2 * PROMISES + 3] = {cmocka_unit_test(none_works), cmocka_unit_test(memory_has_an_end),
                                                 cmocka_unit_test(only_own_keys_are_flushed)};
    int index[PROMISES];
    char name[2 * PROMISES][80];
    for (int i = 0; i < 2 * PROMISES; i++) {
        int k = i / 2;
        index[k] = k;
        snprintf(name[i], sizeof name[i], "%s: %s", i % 2 ? "redis" : "memory", promises[k].name);
        tests[3 + i] = (struct CMUnitTest){name[i], i % 2 ? on_redis : on_memory, NULL, NULL, &index[k]};
    }
    private_redis_start(&server);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    private_redis_stop(&server);
    return failed;
}
