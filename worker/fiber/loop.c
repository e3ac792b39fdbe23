#include "worker/fiber/loop.h"
#include "common/clock.h"
#include "worker/fiber/impl.h"
#include <assert.h>

/* Fibers that wake each other without end must not keep the loop from its sockets. */
enum { PASSES_MAX = 16 };

static struct {
    struct event_base *base;
    struct list hooks[LOOP_PHASES];
    struct loop_dead *dead;
    int64_t now; /* 0: not read yet in this turn */
    bool stop, running;
} loop;

int loop_init(struct err *e)
{
    assert(!loop.base);
    struct event_config *cfg = event_config_new();
    if (cfg) {
        event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
        loop.base = event_base_new_with_config(cfg);
        event_config_free(cfg);
    }
    if (!loop.base)
        return err_set(e, ERR_INTERNAL, "cannot make an event loop");
    for (int i = 0; i < LOOP_PHASES; i++)
        list_init(&loop.hooks[i]);
    loop.stop = false;
    return 0;
}

static void bury_the_dead(void)
{
    while (loop.dead) {
        struct loop_dead *d = loop.dead;
        loop.dead = d->next;
        d->fn(d);
    }
}

void loop_fini(void)
{
    if (!loop.base)
        return;
    bury_the_dead();
    fiber_detach_loop();
    blocking_fini();
    event_base_free(loop.base);
    loop.base = NULL;
    loop.now = 0;
}

struct event_base *loop_base(void)
{
    return loop.base;
}

static void end_of_turn(void)
{
    fiber_unyield();
    for (int pass = 0; pass < PASSES_MAX; pass++) {
        fiber_run_ready();
        for (int phase = 0; phase < LOOP_PHASES; phase++)
            list_for_each_safe (it, &loop.hooks[phase]) {
                struct loop_hook *h = list_entry(it, struct loop_hook, link);
                h->fn(h->arg);
            }
        if (!fiber_any_ready())
            break;
    }
    bury_the_dead();
    loop.now = 0;
}

void loop_run(void)
{
    assert(loop.base && !fiber_self());
    loop.running = true;
    end_of_turn(); /* of what was done before the loop ran */
    while (!loop.stop) {
        bool more = fiber_any_ready() || fiber_any_yielded();
        event_base_loop(loop.base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY | (more ? EVLOOP_NONBLOCK : 0));
        end_of_turn();
    }
    loop.stop = loop.running = false;
}

void loop_stop(void)
{
    loop.stop = true;
}

bool loop_running(void)
{
    return loop.running && !loop.stop;
}

int64_t loop_now(void)
{
    if (!loop.now)
        loop.now = clock_ns();
    return loop.now;
}

void loop_hook_add(struct loop_hook *h, enum loop_phase phase)
{
    list_add_tail(&loop.hooks[phase], &h->link);
}

void loop_hook_del(struct loop_hook *h)
{
    list_del(&h->link);
}

void loop_bury(struct loop_dead *d, void (*fn)(struct loop_dead *self))
{
    d->fn = fn;
    d->next = loop.dead;
    loop.dead = d;
}
