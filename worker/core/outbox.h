/* The outbox of the vector index: what changed in the store and has not reached the index yet. Ingest workers drain it, in
 * the background and as often as it takes: an entry that fails is due again when its lease has run out, after some tries
 * when a multiple of it has. */
#pragma once
#include "worker/core/backends.h"

/* Works on what is due, at most `max` entries. *n: how many there were. An error is the first one met, for a log; the
 * entries that it concerns stay. */
suspends must_use int outbox_drain(const struct backends *b, int max, size_t *n, struct err *e);

/* How a worker that drains keeps pace with an index, or embedder, that was away. Zeroed when it begins. */
struct outbox_pace {
    bool over;       /* nothing waits any more for longer than a lease */
    int width;       /* how many are hastened next; 0: one */
    int64_t next_ns; /* clock_ns(): when one is, although nothing was due */
};
/* outbox_drain(), for a worker that does so again and again. However long the pauses between tries have become, they end
 * when the index answers again: while it does not, every 5 s one of the entries that wait is due at once, and while none
 * meets it away ever more of them are. */
suspends must_use int outbox_tend(const struct backends *b, struct outbox_pace *pace, int max, size_t *n,
                                  struct err *e);
