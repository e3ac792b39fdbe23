#include "worker/fiber/impl.h"
#include "common/clock.h"
#include "worker/fiber/loop.h"
#include <assert.h>
#include <errno.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifdef HAVE_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

enum { POOL_MAX = 512, LIMIT_DEFAULT = 65536 };

static struct {
    struct fiber root; /* stands for the loop's own stack */
    struct fiber *current;
    struct fiber *pool;
    size_t pooled, alive, limit;
    struct list live, ready, yielded, timed;
    struct event timer; /* fires at timer_ns, which is never later than the earliest deadline */
    int64_t timer_ns;   /* 0: not armed */
    bool timer_made;
} all = {
    .current = &all.root,
    .limit = LIMIT_DEFAULT,
    .live = {&all.live, &all.live},
    .ready = {&all.ready, &all.ready},
    .yielded = {&all.yielded, &all.yielded},
    .timed = {&all.timed, &all.timed},
};

/* First thing on the stack that a switch arrives at. */
static void arrived(struct fiber *self)
{
#ifdef HAVE_ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &size);
    if (self != &all.root && self->resumer == &all.root && !all.root.stack.bottom) {
        all.root.stack.bottom = (char *)(uintptr_t)bottom; /* where the loop's stack is, ASan knows best */
        all.root.stack.size = size;
    }
#else
    (void)self;
#endif
}

static void trampoline(void);

/* makecontext() once for each stack: setcontext() and swapcontext() save the signal mask with a system call at every
 * switch, _setjmp() and _longjmp() do not. */
static _Noreturn __attribute__((noinline)) void launch(struct fiber *f)
{
    static ucontext_t uc; /* not on this stack: the frame is never left in order, which ASan would hold against it */
    int rc = getcontext(&uc);
    assert(rc == 0);
    uc.uc_stack = (stack_t){.ss_sp = f->stack.bottom, .ss_size = f->stack.size};
    uc.uc_link = NULL;
    makecontext(&uc, trampoline, 0);
    f->started = true;
    rc = setcontext(&uc);
    assert(rc == 0);
    __builtin_unreachable();
}

/* Each side keeps its errno: what others did meanwhile must not answer why a call of this one failed. */
static __attribute__((noinline)) void switch_to(struct fiber *to)
{
    struct fiber *self = all.current;
    int error = errno;
#ifdef HAVE_ASAN
    __sanitizer_start_switch_fiber(&self->fake_stack, to->stack.bottom, to->stack.size);
#endif
    all.current = to;
    if (_setjmp(self->env) == 0) {
        if (!to->started && to != &all.root)
            launch(to);
        _longjmp(to->env, 1);
    }
    arrived(self);
    errno = error;
}

/* First function of every stack. It never returns: a finished fiber's stack waits here for its next use. */
static void trampoline(void)
{
    struct fiber *self = all.current;
    arrived(self);
    for (;;) {
        self->fn(self->arg);
        self->state = FIBER_GONE;
        switch_to(self->resumer);
    }
}

static struct fiber *pool_take(void)
{
    struct fiber *f = all.pool;
    if (f) {
        all.pool = f->next_in_pool;
        all.pooled--;
        return f;
    }
    struct stack s;
    if (stack_map(&s) < 0)
        return NULL;
    size_t head = (sizeof *f + 63) & ~(size_t)63; /* the struct lives at the top of its own stack */
    s.size -= head;
    f = (struct fiber *)(void *)(s.bottom + s.size);
    f->stack = s;
    return f;
}

static void pool_give(struct fiber *f)
{
    if (all.pooled >= POOL_MAX) {
        struct stack s = f->stack; /* f goes with it */
        stack_unmap(&s);
        return;
    }
    f->next_in_pool = all.pool;
    all.pool = f;
    all.pooled++;
}

static void resume(struct fiber *f)
{
    f->resumer = all.current;
    f->state = FIBER_RUNNING;
    switch_to(f);
    if (f->state != FIBER_GONE)
        return;
    assert(f->shield == 0);
    list_del(&f->live);
    list_del(&f->timed);
    all.alive--;
    pool_give(f);
}

struct fiber *fiber_spawn(const char *name, void (*fn)(void *), void *arg)
{
    struct fiber *f = all.alive < all.limit ? pool_take() : NULL;
    if (!f)
        return NULL;
    f->name = name;
    f->fn = fn;
    f->arg = arg;
    f->data = NULL;
    f->why = NULL;
    f->label[0] = 0;
    f->reason = f->shield = 0;
    f->deadline = 0;
    f->born_ns = loop_now();
    list_init(&f->ready);
    list_init(&f->wait);
    list_init(&f->timed);
    list_add_tail(&all.live, &f->live);
    all.alive++;
    resume(f);
    return f;
}

struct fiber *fiber_self(void)
{
    return all.current == &all.root ? NULL : all.current;
}

/* ---- waiting ---- */

static int reason_now(struct fiber *f)
{
    if (!f->reason && f->deadline && clock_ns() >= f->deadline)
        f->reason = -ETIMEDOUT;
    return f->reason;
}

static int park(struct fiber *f, const char *why)
{
    f->state = FIBER_PARKED;
    f->why = why;
    f->parked_ns = loop_now();
    switch_to(f->resumer);
    f->why = NULL;
    return f->wait_result;
}

suspends int fiber_park(const char *why)
{
    struct fiber *f = fiber_self();
    assert(f);
    if (!f->shield && reason_now(f))
        return f->reason;
    return park(f, why);
}

static void make_ready(struct fiber *f, int result)
{
    if (f->state != FIBER_PARKED)
        return;
    f->state = FIBER_READY;
    f->wait_result = result;
    list_del(&f->ready); /* of those that yielded */
    list_add_tail(&all.ready, &f->ready);
}

void fiber_wake(struct fiber *f)
{
    make_ready(f, 0);
}

static void give_up(struct fiber *f, int reason)
{
    if (!f->reason)
        f->reason = reason;
    if (!f->shield)
        make_ready(f, f->reason);
}

void fiber_cancel(struct fiber *f)
{
    give_up(f, -ECANCELED);
}

int fiber_check(void)
{
    struct fiber *f = fiber_self();
    assert(f);
    return f->shield ? 0 : reason_now(f);
}

void fiber_shield(int delta)
{
    struct fiber *f = fiber_self();
    assert(f && f->shield + delta >= 0);
    f->shield += delta;
}

suspends int fiber_park_for_a_turn(void)
{
    struct fiber *f = fiber_self();
    assert(f);
    if (!f->shield && reason_now(f))
        return f->reason;
    list_add_tail(&all.yielded, &f->ready);
    return park(f, "yield");
}

/* ---- deadlines ----
 * Every request sets one and hardly any is reached, so setting must cost next to nothing: deadlines stand in a list
 * without order, and one timer is armed for the earliest that was seen. When it fires, the list is looked through. */

static void arm(int64_t now, int64_t ns);

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    int64_t now = clock_ns(), earliest = 0;
    all.timer_ns = 0;
    list_for_each_safe (it, &all.timed) {
        struct fiber *f = list_entry(it, struct fiber, timed);
        if (f->deadline <= now) {
            list_del(&f->timed);
            give_up(f, -ETIMEDOUT);
        } else if (!earliest || f->deadline < earliest) {
            earliest = f->deadline;
        }
    }
    if (earliest)
        arm(now, earliest);
}

static void arm(int64_t now, int64_t ns)
{
    int64_t us = ns > now ? (ns - now + 999) / 1000 : 0;
    if (us < 1000)
        us = 1000; /* many close deadlines must not mean as many looks through the list */
    struct timeval tv = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    if (!all.timer_made) {
        evtimer_assign(&all.timer, loop_base(), on_timer, NULL);
        all.timer_made = true;
    }
    evtimer_add(&all.timer, &tv);
    all.timer_ns = ns;
}

void fiber_set_deadline(struct fiber *f, int64_t ns)
{
    f->deadline = ns;
    if (f->reason == -ETIMEDOUT)
        f->reason = 0;
    list_del(&f->timed);
    if (!ns)
        return;
    list_add_tail(&all.timed, &f->timed);
    if (!all.timer_ns || ns < all.timer_ns)
        arm(clock_ns(), ns);
}

int64_t fiber_deadline(const struct fiber *f)
{
    return f->deadline;
}

int64_t fiber_time_left(void)
{
    struct fiber *f = fiber_self();
    if (!f || !f->deadline)
        return INT64_MAX;
    int64_t left = f->deadline - clock_ns();
    return left > 0 ? left : 0;
}

/* ---- end of a turn ---- */

void fiber_unyield(void)
{
    list_for_each_safe (it, &all.yielded)
        make_ready(list_entry(it, struct fiber, ready), 0);
}

bool fiber_any_ready(void)
{
    return !list_empty(&all.ready);
}

bool fiber_any_yielded(void)
{
    return !list_empty(&all.yielded);
}

void fiber_run_ready(void)
{
    struct list batch, *it;
    list_init(&batch);
    list_splice_tail(&batch, &all.ready);
    while ((it = list_pop(&batch)))
        resume(list_entry(it, struct fiber, ready));
}

/* ---- looking at fibers ---- */

void fiber_label(struct fiber *f, const char *label)
{
    str_copyz(f->label, sizeof f->label, str_of(label));
}

void fiber_set_data(struct fiber *f, void *data)
{
    f->data = data;
}

void *fiber_data(const struct fiber *f)
{
    return f->data;
}

size_t fiber_count(void)
{
    return all.alive;
}

void fiber_dump(struct buf *out)
{
    int64_t now = clock_ns();
    list_for_each (it, &all.live) {
        struct fiber *f = list_entry(it, struct fiber, live);
        buf_printf(out, "%s [%s] age %.3f s, ", f->name, f->label, (double)(now - f->born_ns) / 1e9);
        if (f->state == FIBER_PARKED)
            buf_printf(out, "waits for %s since %.3f s\n", f->why, (double)(now - f->parked_ns) / 1e9);
        else
            buf_printf(out, f->state == FIBER_READY ? "ready\n" : "running\n");
    }
}

void fiber_limit(size_t max)
{
    all.limit = max;
}

void fiber_detach_loop(void)
{
    if (all.timer_made)
        evtimer_del(&all.timer);
    all.timer_made = false;
    all.timer_ns = 0;
}

void fiber_fini(void)
{
    assert(all.alive == 0);
    while (all.pool) {
        struct stack s = all.pool->stack;
        all.pool = all.pool->next_in_pool;
        stack_unmap(&s);
    }
    all.pooled = 0;
    blocking_fini();
}
