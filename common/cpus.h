/* How many CPUs this process may really use: those it is allowed to run on, bounded by the CPU quota of its cgroup (v1 or
 * v2) and of every cgroup above it. A container that may use 2 of 64 CPUs gets 2. */
#pragma once

int cpus_available(void); /* >= 1 */

/* The quota alone, rounded up; 0 = no limit. `root` stands before /proc and /sys: "" but in tests. */
int cpus_quota(const char *root);
