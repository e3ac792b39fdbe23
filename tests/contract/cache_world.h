/* What the tests of the cache share: a test is a function on a fiber with an open cache. */
#pragma once
#include "tests/contract/private_redis.h"
#include "tests/failure.h"
#include "common/clock.h"
#include "common/scoreboard.h"
#include "worker/cache/cache.h"
#include "worker/fiber/loop.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

struct world {
    struct config cfg; /* as the cache was opened with */
    struct cache *c;
    struct arena a;
    struct err e;
    char url[400];
    jmp_buf failed;
    char what[600];
    int line;
};

#define OP(w, verb, ...) ((w)->c->ops->verb((w)->c, __VA_ARGS__))

/* Until it is so, for at most half a minute; other fibers run meanwhile. */
#define until(w, cond)                                          \
    for (int64_t end_ = clock_ns() + 30 * SEC; !(cond);) {      \
        if (clock_ns() > end_)                                  \
            fail_at(w, __LINE__, "never came true: %s", #cond); \
        fiber_sleep(20 * MS);                                   \
    }

static inline void world_config(struct world *w, const char *url)
{
    snprintf(w->url, sizeof w->url, "%s", url);
    w->cfg = (struct config){.cache_url = w->url,
                             .cache_password = "",
                             .cache_ca_file = "",
                             .cache_prefix = "t*:",
                             .cache_ttl = 60000,
                             .cache_timeout = 10000,
                             .cache_connect_timeout = 10000,
                             .cache_lock_timeout = 30000,
                             .cache_max_value = 1 << 20,
                             .cache_max_queue = 1024,
                             .cache_memory = 1 << 20};
}

static inline void reopen(struct world *w)
{
    cache_close(w->c);
    w->c = NULL;
    ok(w, cache_open(&w->cfg, &w->c, &w->e));
}

struct world_run {
    struct world *w;
    void (*fn)(struct world *);
};

static suspends void world_body(void *arg)
{
    struct world_run *r = arg;
    struct world *w = r->w;
    if (setjmp(w->failed) == 0) {
        if (cache_open(&w->cfg, &w->c, &w->e) < 0)
            fail_at(w, __LINE__, "open: %s", w->e.msg);
        r->fn(w);
    }
    cache_close(w->c);
    w->c = NULL;
    while (fiber_count() > 1)
        fiber_sleep(MS);
    loop_stop();
}

/* `w` is configured. Ends the cmocka test that calls it when something failed. */
static inline void world_run(struct world *w, void (*fn)(struct world *))
{
    struct world_run r = {w, fn};
    alarm(120); /* a test that hangs must end */
    if (loop_init(&w->e) < 0)
        fail();
    fiber_spawn("test", world_body, &r);
    loop_run();
    fiber_fini();
    loop_fini();
    arena_fini(&w->a);
    alarm(0);
    if (w->line)
        fail_msg("line %d: %s", w->line, w->what);
}

static inline struct str text(struct world *w, const char *key)
{
    struct str out = STR("");
    bool found = false;
    if (w->c->ops->get(w->c, &w->a, str_of(key), &out, &found, &w->e) < 0)
        return STR("(error)");
    return found ? out : STR("(none)");
}
