/* Whether the kernel has killed somebody for want of memory: the counter of our own memory cgroup, version 1 or 2.
 * Without it a SIGKILL that nobody sent stays a riddle. */
#pragma once
#include <stdint.h>

int64_t oom_kills(void); /* kills in this cgroup so far; -1: not known */
