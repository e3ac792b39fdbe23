#include "common/cpus.h"
#include "common/procfile.h"
#include "common/str.h"
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

enum { PATH_LEN = 1024, TEXT_LEN = 8192 };

int cpus_available(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int quota = cpus_quota("");
    if (quota && quota < n)
        n = quota;
    return n > 0 ? n : 1;
}

static int ceil_div(uint64_t quota, uint64_t period)
{
    uint64_t n = period ? (quota + period - 1) / period : 0;
    return n > 4096 ? 4096 : (int)n;
}

/* "max 100000" or "150000 100000" */
static int quota_v2(const char *dir)
{
    char path[PATH_LEN + 32], text[128];
    uint64_t quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", dir);
    struct str rest = procfile_read(path, text, sizeof text), first = str_cut(&rest, ' ');
    return str_to_u64(first, &quota) && str_to_u64(rest, &period) ? ceil_div(quota, period) : 0;
}

/* cpu.cfs_quota_us is -1 without a limit. */
static int quota_v1(const char *dir)
{
    char path[PATH_LEN + 32], quota_text[64], period_text[64];
    uint64_t quota, period;
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    struct str q = procfile_read(path, quota_text, sizeof quota_text);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    struct str p = procfile_read(path, period_text, sizeof period_text);
    return str_to_u64(q, &quota) && str_to_u64(p, &period) ? ceil_div(quota, period) : 0;
}

/* The least quota of a group and of all above it, up to the mount. A path that does not exist here is that of the host,
 * seen from inside a container: then the mount itself is the container's group, and the walk ends there. */
static int least(const char *mount, struct str group, int (*quota)(const char *))
{
    char dir[PATH_LEN];
    size_t base = strlen(mount);
    int min = 0;
    if (base + group.n >= sizeof dir)
        group.n = 0;
    snprintf(dir, sizeof dir, "%s" STR_FMT, mount, STR_ARG(group));
    for (size_t n = strlen(dir); n >= base; n--) {
        if (n > base && dir[n] != '/' && dir[n] != 0)
            continue;
        dir[n] = 0;
        int q = quota(dir);
        if (q && (!min || q < min))
            min = q;
    }
    return min;
}

static bool has_word(struct str list, struct str word)
{
    while (list.n)
        if (str_eq(str_cut(&list, ','), word))
            return true;
    return false;
}

/* Lines of /proc/self/cgroup: "0::/path" is v2, "4:cpu,cpuacct:/path" is v1. */
int cpus_quota(const char *root)
{
    char path[PATH_LEN], text[TEXT_LEN];
    int min = 0;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    struct str lines = procfile_read(path, text, sizeof text);
    while (lines.n) {
        struct str group = str_cut(&lines, '\n'), number = str_cut(&group, ':'), names = str_cut(&group, ':');
        int q = 0;
        if (str_eqz(number, "0") && !names.n) {
            snprintf(path, sizeof path, "%s/sys/fs/cgroup", root);
            q = least(path, group, quota_v2);
        } else if (has_word(names, STR("cpu"))) {
            snprintf(path, sizeof path, "%s/sys/fs/cgroup/cpu", root);
            q = least(path, group, quota_v1);
        }
        if (q && (!min || q < min))
            min = q;
    }
    return min;
}
