#include "master/oom.h"
#include "common/str.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static struct str slurp(const char *path, char *out, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, cap);
    if (fd >= 0)
        close(fd);
    return (struct str){out, n > 0 ? (size_t)n : 0};
}

/* The line "oom_kill N", which memory.events and memory.oom_control both have. */
static int64_t counter_in(const char *path)
{
    char text[1024];
    uint64_t n;
    struct str rest = slurp(path, text, sizeof text);
    while (rest.n) {
        struct str line = str_cut(&rest, '\n');
        if (str_eq(str_cut(&line, ' '), STR("oom_kill")) && str_to_u64(line, &n))
            return (int64_t)n;
    }
    return -1;
}

/* In a container the path that /proc shows may be the host's: then the root of the mount is ours. */
static int64_t counter_of(const char *mount, struct str path, const char *file)
{
    char name[512];
    snprintf(name, sizeof name, "%s" STR_FMT "/%s", mount, STR_ARG(path), file);
    int64_t n = counter_in(name);
    if (n >= 0)
        return n;
    snprintf(name, sizeof name, "%s/%s", mount, file);
    return counter_in(name);
}

int64_t oom_kills(void)
{
    char text[4096];
    struct str rest = slurp("/proc/self/cgroup", text, sizeof text);
    while (rest.n) {
        struct str path = str_cut(&rest, '\n'); /* hierarchy:controllers:path */
        struct str hierarchy = str_cut(&path, ':'), controllers = str_cut(&path, ':');
        if (str_eq(controllers, STR("memory")))
            return counter_of("/sys/fs/cgroup/memory", path, "memory.oom_control");
        if (str_eq(hierarchy, STR("0")) && rest.n == 0) { /* version 2, or both: then memory was named before */
            int64_t n = counter_of("/sys/fs/cgroup", path, "memory.events");
            if (n >= 0)
                return n;
        }
    }
    return -1;
}
