/* Ways to wait that are built on fiber_park(). */
#include "worker/fiber/impl.h"
#include "common/clock.h"
#include "worker/fiber/loop.h"
#include <assert.h>
#include <errno.h>

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    fiber_wake(arg);
}

suspends int fiber_sleep(int64_t ns)
{
    struct event timer;
    int64_t until = clock_ns() + ns;
    int rc = fiber_check();
    evtimer_assign(&timer, loop_base(), on_event, fiber_self());
    /* libevent's clock is coarse, so a timer may fire some milliseconds early */
    for (int64_t left = ns; rc == 0 && left > 0; left = until - clock_ns()) {
        struct timeval tv = {.tv_sec = left / SEC, .tv_usec = (left % SEC + 999) / 1000};
        if (tv.tv_usec == 1000000)
            tv = (struct timeval){.tv_sec = tv.tv_sec + 1};
        evtimer_add(&timer, &tv);
        rc = fiber_park("sleep");
        evtimer_del(&timer);
    }
    return rc;
}

suspends int fiber_yield(void)
{
    return fiber_park_for_a_turn();
}

suspends int fiber_wait_fd(int fd, short events, const char *why)
{
    struct event ev;
    int rc = fiber_check();
    if (rc)
        return rc;
    event_assign(&ev, loop_base(), fd, events, on_event, fiber_self());
    if (event_add(&ev, NULL) < 0)
        return -EBADF;
    rc = fiber_park(why);
    event_del(&ev);
    return rc;
}

/* ---- queues ---- */

void fiber_queue_init(struct fiber_queue *q)
{
    list_init(&q->waiting);
}

suspends int fiber_queue_wait(struct fiber_queue *q, const char *why)
{
    struct fiber *f = fiber_self();
    assert(f && list_empty(&f->wait));
    list_add_tail(&q->waiting, &f->wait);
    int rc = fiber_park(why);
    list_del(&f->wait);
    return rc;
}

bool fiber_queue_wake_one(struct fiber_queue *q)
{
    struct list *n;
    while ((n = list_pop(&q->waiting))) {
        struct fiber *f = list_entry(n, struct fiber, wait);
        if (f->state == FIBER_PARKED) { /* else cancel or deadline came first, and the wake-up is another's */
            fiber_wake(f);
            return true;
        }
    }
    return false;
}

void fiber_queue_wake_all(struct fiber_queue *q)
{
    while (fiber_queue_wake_one(q))
        ;
}

bool fiber_queue_empty(const struct fiber_queue *q)
{
    list_for_each (it, &q->waiting)
        if (list_entry(it, struct fiber, wait)->state == FIBER_PARKED)
            return false;
    return true;
}

/* ---- fan out and join ---- */

struct join {
    struct fiber *parent;
    size_t left;
    bool waiting;
};

struct branch {
    struct fiber_task *task;
    struct join *join;
    struct fiber *fiber; /* NULL before its start and after its end */
};

static suspends void branch_main(void *arg)
{
    struct branch *b = arg;
    struct fiber *self = fiber_self(), *parent = b->join->parent;
    b->fiber = self;
    self->shield = parent->shield;
    self->data = parent->data;
    fiber_label(self, parent->label);
    fiber_set_deadline(self, parent->deadline);
    b->task->result = b->task->fn(b->task->arg);
    self->shield = 0;
    b->fiber = NULL;
    b->join->left--;
    if (b->join->waiting && b->join->left == 0)
        fiber_wake(parent);
}

suspends int fiber_all(struct fiber_task *tasks, size_t n)
{
    enum { BRANCHES = 16 };
    struct join join = {.parent = fiber_self()};
    struct branch branches[BRANCHES];
    assert(join.parent && n <= BRANCHES);
    for (size_t i = 0; i < n; i++) {
        branches[i] = (struct branch){.task = &tasks[i], .join = &join};
        join.left++;
        if (!fiber_spawn(join.parent->name, branch_main, &branches[i])) {
            join.left--; /* no stack left: its work is done on this one */
            tasks[i].result = tasks[i].fn(tasks[i].arg);
        }
    }
    join.waiting = true;
    if (join.left && fiber_park("branches") < 0) {
        for (size_t i = 0; i < n; i++)
            if (branches[i].fiber && join.parent->reason == -ECANCELED)
                fiber_cancel(branches[i].fiber);
        fiber_shield(1);
        while (join.left)
            fiber_park("branches that were cancelled");
        fiber_shield(-1);
    }
    for (size_t i = 0; i < n; i++)
        if (tasks[i].result)
            return tasks[i].result;
    return 0;
}
