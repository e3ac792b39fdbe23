/* cache_fetch(): of all that want the same value one makes it. Within a worker the others wait for its fiber and get
 * its value; across workers a lock in the cache tells who makes it, and the others look for the value now and then. */
#include "worker/cache/cache.h"
#include "common/clock.h"
#include "common/scoreboard.h"
#include <errno.h>
#include <stdlib.h>

enum { LOOK_FIRST_MS = 5, LOOK_MAX_MS = 200 };

/* A value that a fiber of this worker is making. */
struct making {
    struct list link; /* in the cache, until it is made */
    struct fiber_queue waiting;
    struct str key; /* of the maker's */
    int users;      /* the maker and those who wait */
    bool done;
    int rc; /* done: 0, or -1 with `err` */
    struct buf value;
    struct err err;
};

struct fetch {
    struct cache *c;
    struct arena *a;
    struct str key;
    cache_make *make;
    void *arg;
    struct str *out;
    bool *hit;
};

static suspends int look(const struct fetch *f, bool *found)
{
    struct err e;
    *found = false;
    int rc = f->c->ops->get(f->c, f->a, f->key, f->out, found, &e);
    STAT_ADD(cache_errors_total, rc < 0);
    return rc;
}

static suspends int make_and_keep(const struct fetch *f, struct err *e)
{
    struct err lost;
    bool keep = true;
    STAT_ADD(cache_misses_total, 1);
    if (f->make(f->arg, f->a, f->out, &keep, e) < 0)
        return -1;
    if (keep && (int64_t)f->out->n <= f->c->cfg->cache_max_value &&
        f->c->ops->set(f->c, f->key, *f->out, f->c->cfg->cache_ttl, &lost) < 0)
        STAT_ADD(cache_errors_total, 1);
    return 0;
}

/* Another worker makes it: looks whether it is done, less and less often. 1: there it is. 0: the lock is ours now, or we
 * waited long enough. */
static suspends int wait_for_others(const struct fetch *f, struct str lock, int64_t until, bool *ours, struct err *e)
{
    int64_t pause = LOOK_FIRST_MS;
    struct err lost;
    bool found = false;
    STAT_ADD(cache_waits_total, 1);
    while (!*ours && clock_ns() < until) {
        if (fiber_sleep(pause * MS) < 0)
            return err_set(e, fiber_check() == -ETIMEDOUT ? ERR_DEADLINE : ERR_CANCELED,
                           "the request ended while it waited for the same one of another");
        if (look(f, &found) < 0)
            return 0;
        if (found)
            return 1;
        if (f->c->ops->add(f->c, lock, STR("1"), f->c->cfg->cache_lock_timeout, ours, &lost) < 0)
            return 0;
        pause = pause * 2 < LOOK_MAX_MS ? pause * 2 : LOOK_MAX_MS;
    }
    return 0;
}

/* As the one who makes it in this worker. */
static suspends int fetch_locked(const struct fetch *f, struct err *e)
{
    struct str lock = arena_printf(f->a, "lock:" STR_FMT, STR_ARG(f->key));
    int64_t timeout = f->c->cfg->cache_lock_timeout * MS, since = clock_ns();
    struct err lost;
    bool ours = false;
    if (f->c->ops->add(f->c, lock, STR("1"), f->c->cfg->cache_lock_timeout, &ours, &lost) < 0) {
        STAT_ADD(cache_errors_total, 1);
        return make_and_keep(f, e); /* the cache is away: nothing to agree by */
    }
    if (!ours) {
        int rc = wait_for_others(f, lock, since + timeout, &ours, e);
        if (rc < 0)
            return -1;
        if (rc > 0) {
            *f->hit = true;
            return 0;
        }
        since = clock_ns();
    }
    int rc = make_and_keep(f, e);
    if (ours && clock_ns() - since < timeout) { /* later it may be somebody else's */
        fiber_shield(1);                        /* a request that was cancelled must not leave the others waiting */
        f->c->ops->remove(f->c, lock, &lost);
        fiber_shield(-1);
    }
    return rc;
}

static struct making *find_making(const struct fetch *f)
{
    list_for_each (it, &f->c->making) {
        struct making *m = list_entry(it, struct making, link);
        if (str_eq(m->key, f->key))
            return m;
    }
    return NULL;
}

static void release(struct making *m)
{
    if (--m->users)
        return;
    buf_fini(&m->value);
    free(m);
}

static suspends int fetch_as_maker(const struct fetch *f, struct err *e)
{
    struct making *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->users = 1;
    m->key = f->key;
    fiber_queue_init(&m->waiting);
    list_add(&f->c->making, &m->link);
    m->rc = fetch_locked(f, e);
    list_del(&m->link);
    m->done = true;
    if (m->rc < 0)
        m->err = *e;
    else if (m->users > 1)
        buf_str(&m->value, *f->out);
    fiber_queue_wake_all(&m->waiting);
    int rc = m->rc;
    release(m);
    return rc;
}

/* *again: whoever made it gave up, which says nothing about the value. */
static suspends int fetch_as_waiter(const struct fetch *f, struct making *m, bool *again, struct err *e)
{
    int64_t before = fiber_deadline(fiber_self()), mine = clock_ns() + f->c->cfg->cache_lock_timeout * MS;
    bool own_time = !before || mine < before;
    int rc = 0;
    STAT_ADD(cache_waits_total, 1);
    m->users++;
    if (own_time)
        fiber_set_deadline(fiber_self(), mine);
    while (!m->done && rc == 0)
        rc = fiber_queue_wait(&m->waiting, "the same value that another request makes");
    if (own_time)
        fiber_set_deadline(fiber_self(), before);
    *again = false;
    if (!m->done && own_time && rc == -ETIMEDOUT) {
        rc = make_and_keep(f, e);
    } else if (!m->done) {
        rc = err_set(e, rc == -ETIMEDOUT ? ERR_DEADLINE : ERR_CANCELED,
                     "the request ended while it waited for the same one of another");
    } else if (m->rc < 0) {
        *again = m->err.code == ERR_CANCELED || m->err.code == ERR_DEADLINE;
        *e = m->err;
        rc = -1;
    } else {
        *f->out = arena_dup(f->a, buf_view(&m->value));
        *f->hit = true;
        rc = 0;
    }
    release(m);
    return rc;
}

suspends int cache_fetch(struct cache *c, struct arena *a, struct str key, cache_make *make, void *arg, struct str *out,
                         bool *hit, struct err *e)
{
    const struct fetch f = {c, a, key, make, arg, out, hit};
    struct making *m;
    bool found, again, keep = true;
    *hit = false;
    if (!c)
        return make(arg, a, out, &keep, e);
    if (look(&f, &found) < 0 && fiber_check())
        return err_set(e, fiber_check() == -ETIMEDOUT ? ERR_DEADLINE : ERR_CANCELED, "the request ended");
    if (found)
        *hit = true;
    while (!*hit) {
        int rc = -1;
        again = false;
        m = find_making(&f);
        rc = m ? fetch_as_waiter(&f, m, &again, e) : fetch_as_maker(&f, e);
        if (rc < 0 && !again)
            return -1;
        if (rc == 0)
            break;
    }
    STAT_ADD(cache_hits_total, *hit);
    return 0;
}
