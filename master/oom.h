/* Whether the kernel has killed somebody for want of memory, as our own memory cgroup knows it, version 1 or 2. Without it
 * a SIGKILL that nobody sent stays a riddle. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct oom {
    int64_t kills; /* in this cgroup so far; -1: not known, and nothing else either */
    int64_t limit; /* bytes, the tightest of this cgroup and those above it; -1: none */
    int64_t used;  /* bytes, of the cgroup with that limit; -1: not known */
};

/* `root` stands before /proc and /sys: "", but for tests. */
struct oom oom_read(const char *root);
/* "OOM-killed by cgroup limit 512M, RSS 430M, 3 requests" */
void oom_describe(const struct oom *o, int64_t rss_kb, int requests, char *out, size_t cap);
