/* Deadlines that every connection has, cheap to set and to drop: one first-in-first-out list per timeout value, so that
 * the head is always the first to expire, and one timer of the loop for all of them. A connection that moves from
 * "idle" to "reading a head" costs two list operations and no timer. Belongs to the worker's listener. */
#pragma once
#include "common/list.h"
#include "worker/fiber/loop.h"

struct timeout {
    struct list link;
    int64_t at_ns; /* when it expires; meaningless in a list without a limit */
};

struct timeout_list {
    struct list head; /* of struct timeout.link */
    int64_t limit_ns; /* 0: its members never expire, they are only kept together */
};

struct timeouts {
    struct timeout_list *list;
    int n;
    struct event timer;
    int64_t armed_ns; /* when the timer fires; 0: not armed */
    bool late;        /* the process was stopped meanwhile: what has come since then is read before anybody expires */
    void (*expired)(void *arg, struct timeout *t, int list);
    void *arg;
};

/* `list` is the caller's, n of them, with limit_ns set. `expired` is called once per expired member, which is then in
 * no list; it may set it again. */
void timeouts_init(struct timeouts *ts, struct timeout_list *list, int n,
                   void (*expired)(void *arg, struct timeout *t, int list), void *arg);
void timeouts_fini(struct timeouts *ts);

void timeout_init(struct timeout *t);
/* Moves `t` to the end of the list, counting from this turn's start. */
void timeout_set(struct timeouts *ts, struct timeout *t, int list);
/* The same with a time of its own, not before that of any other member of the list. */
void timeout_set_at(struct timeouts *ts, struct timeout *t, int list, int64_t at_ns);
void timeout_clear(struct timeout *t); /* in no list afterwards */
