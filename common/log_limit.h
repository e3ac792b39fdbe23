/* Lines of one kind, at most one a second: during an outage each request is refused for the same reason, and a log full of
 * that hides everything else. What is left out is counted and told. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct log_limit { /* zeroed: nothing was logged yet */
    int64_t since_ns;
    uint64_t left_out; /* since then */
};

/* May a line be written now? No: it is counted. Yes: `told` (at least LOG_LIMIT_TEXT bytes) is what to add to the line:
 * " and 512 more in the last 1.0 s", or "". */
enum { LOG_LIMIT_TEXT = 64 };
bool log_limit(struct log_limit *l, int64_t now_ns, char *told);
/* The same when no other line of the kind comes: true if something is still to be told, and it is time to. */
bool log_limit_rest(struct log_limit *l, int64_t now_ns, char *told);
