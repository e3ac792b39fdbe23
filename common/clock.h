/* Time. Deadlines and ages are monotonic nanoseconds; stamps that leave the process are UTC microseconds. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define MS  1000000LL /* nanoseconds in a millisecond */
#define SEC 1000000000LL

int64_t clock_ns(void);      /* CLOCK_MONOTONIC */
int64_t clock_wall_us(void); /* CLOCK_REALTIME, microseconds since 1970 */

/* How much too late something comes that was due at `due` (0: nothing was), when this is so much that the process cannot
 * have run: after SIGSTOP, in a frozen cgroup, on a starved machine; else 0. Deadlines are moved by it: what was stopped
 * has not used its time. Async-signal-safe. */
int64_t clock_gap(int64_t due, int64_t now);

#define CLOCK_RFC3339_LEN 27 /* 2026-01-02T03:04:05.678901Z */
/* Writes exactly CLOCK_RFC3339_LEN bytes, no NUL. */
void clock_rfc3339(char *out, int64_t wall_us);
/* RFC 3339 with `Z` or an offset, fraction optional. 0, or -1 if it is not one. */
int clock_parse_rfc3339(const char *p, size_t n, int64_t *wall_us);
#define CLOCK_HTTP_DATE_LEN 29 /* Sun, 06 Nov 1994 08:49:37 GMT */
void clock_http_date(char *out, int64_t wall_us);
/* IMF-fixdate only (RFC 9110 section 5.6.7). 0, or -1. */
int clock_parse_http_date(const char *p, size_t n, int64_t *wall_us);
