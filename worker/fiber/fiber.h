/* Fibers: functions that read top to bottom and wait without blocking their worker. One thread runs them all; a fiber
 * keeps running until it parks, so nothing changes under its feet except where it calls something marked `suspends`.
 * Only worker/fiber and worker/io see the event loop; they park fibers and wake them.
 *
 * A fiber is woken at most once per park: the first of wake, cancel and deadline wins. Once a fiber is cancelled or
 * past its deadline, every further park returns that reason at once, so that it unwinds; fiber_shield() exempts
 * a clean-up that must wait. */
#pragma once
#include "common/buf.h"
#include "common/list.h"

/* Marks a function that may park the calling fiber. tests/lint checks that its callers carry the mark too. */
#define suspends

struct fiber;

/* Runs `fn(arg)` at once, on a stack of its own, until its first wait. `name` must outlive the fiber (a literal). The
 * fiber is gone when `fn` returns, which may be before this does: whoever keeps the pointer must know that it waits.
 * Returns NULL when worker limits leave no stack (the caller answers ERR_OVERLOADED). */
struct fiber *fiber_spawn(const char *name, void (*fn)(void *), void *arg);
struct fiber *fiber_self(void); /* NULL outside of fibers */

/* Waits until somebody wakes this fiber. 0, -ECANCELED or -ETIMEDOUT. `why` shows in dumps; it is not copied.
 * errno is afterwards what it was before. */
suspends int fiber_park(const char *why);
void fiber_wake(struct fiber *f); /* never runs it inline: it becomes runnable at the end of the turn; nothing if it is
                                     * not parked, so a fiber looks at its condition before it parks */
void fiber_cancel(struct fiber *f); /* its current wait and all later ones return -ECANCELED */

/* Absolute, clock_ns(); 0 = none. Its waits return -ETIMEDOUT from then on. */
void fiber_set_deadline(struct fiber *f, int64_t ns);
int64_t fiber_deadline(const struct fiber *f);
int64_t fiber_time_left(void); /* of the current fiber, ns, >= 0; INT64_MAX without a deadline */
/* 0, -ECANCELED or -ETIMEDOUT: what a park would return at once. For loops that compute without waiting. */
int fiber_check(void);
/* While the count is positive, cancellation and deadline do not end waits (nested; +1 and -1 in pairs). */
void fiber_shield(int delta);

suspends int fiber_sleep(int64_t ns);
suspends int fiber_yield(void); /* lets the loop turn once */
/* Waits for EV_READ / EV_WRITE on a descriptor. -EBADF where such a one cannot be waited for (a file on a disk). */
suspends int fiber_wait_fd(int fd, short events, const char *why);

/* Shown in dumps beside the name: request id, job id. Copied, at most 47 bytes. */
void fiber_label(struct fiber *f, const char *label);
void fiber_set_data(struct fiber *f, void *data); /* a pointer for the owner */
void *fiber_data(const struct fiber *f);

/* Fans out and joins: runs all tasks as fibers, with the deadline of the caller, and waits for all of them. When the
 * caller is cancelled they are, too, and are still waited for. At most 16 tasks. 0 if every `result` is 0, else the
 * first that is not. */
struct fiber_task {
    suspends int (*fn)(void *arg);
    void *arg;
    int result;
};
suspends int fiber_all(struct fiber_task *tasks, size_t n);

/* A queue of waiting fibers. Zeroed memory is not an initialised one. */
struct fiber_queue {
    struct list waiting;
};
void fiber_queue_init(struct fiber_queue *q);
suspends int fiber_queue_wait(struct fiber_queue *q, const char *why); /* as fiber_park; leaves the queue in any case */
bool fiber_queue_wake_one(struct fiber_queue *q);                      /* false: nobody waits */
void fiber_queue_wake_all(struct fiber_queue *q);
bool fiber_queue_empty(const struct fiber_queue *q);

/* Runs blocking code (a library that reads files, getaddrinfo) in a helper thread while the fiber waits. The wait
 * cannot be cut short: `fn` must be bounded by itself. */
suspends void fiber_blocking(void (*fn)(void *), void *arg);

size_t fiber_count(void); /* alive */
/* One line per live fiber: name, label, age, what it waits for and since when. */
void fiber_dump(struct buf *out);
void fiber_limit(size_t max); /* at most this many at once; default 65536 */
/* Releases pooled stacks. No fiber may be alive. For tests and tidy exits. */
void fiber_fini(void);
