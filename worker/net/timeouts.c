#include "worker/net/timeouts.h"
#include "common/clock.h"

static void arm(struct timeouts *ts, int64_t at_ns)
{
    int64_t wait = at_ns - loop_now();
    if (ts->armed_ns && ts->armed_ns <= at_ns)
        return; /* it fires early, finds nothing due, and arms itself again */
    if (wait < MS)
        wait = MS;
    struct timeval tv = {wait / SEC, wait % SEC / 1000};
    ts->armed_ns = at_ns;
    event_add(&ts->timer, &tv);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct timeouts *ts = arg;
    int64_t now = loop_now(), next = 0, due = ts->armed_ns;
    (void)fd;
    (void)what;
    ts->armed_ns = 0;
    ts->late = !ts->late && clock_gap(due, now);
    if (ts->late) { /* once: a loop that is always late must still come to an end with somebody */
        arm(ts, now);
        return;
    }
    for (int i = 0; i < ts->n; i++) {
        struct timeout_list *l = &ts->list[i];
        if (!l->limit_ns)
            continue;
        while (!list_empty(&l->head)) {
            struct timeout *t = list_entry(l->head.next, struct timeout, link);
            if (t->at_ns > now) {
                if (!next || t->at_ns < next)
                    next = t->at_ns;
                break;
            }
            list_del(&t->link);
            ts->expired(ts->arg, t, i);
        }
    }
    if (next)
        arm(ts, next);
}

void timeouts_init(struct timeouts *ts, struct timeout_list *list, int n,
                   void (*expired)(void *arg, struct timeout *t, int list), void *arg)
{
    *ts = (struct timeouts){.list = list, .n = n, .expired = expired, .arg = arg};
    for (int i = 0; i < n; i++)
        list_init(&list[i].head);
    evtimer_assign(&ts->timer, loop_base(), on_timer, ts);
}

void timeouts_fini(struct timeouts *ts)
{
    event_del(&ts->timer);
}

void timeout_init(struct timeout *t)
{
    list_init(&t->link);
}

void timeout_set(struct timeouts *ts, struct timeout *t, int list)
{
    timeout_set_at(ts, t, list, loop_now() + ts->list[list].limit_ns);
}

void timeout_set_at(struct timeouts *ts, struct timeout *t, int list, int64_t at_ns)
{
    struct timeout_list *l = &ts->list[list];
    list_del(&t->link);
    list_add_tail(&l->head, &t->link);
    if (!l->limit_ns)
        return;
    t->at_ns = at_ns;
    arm(ts, at_ns);
}

void timeout_clear(struct timeout *t)
{
    list_del(&t->link);
}
