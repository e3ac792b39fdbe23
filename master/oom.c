#include "master/oom.h"
#include "common/procfile.h"
#include <stdio.h>
#include <string.h>

enum { PATH_MAX_HERE = 512 };

static const struct version {
    const char *controller, *mount, *events, *limit, *used;
} versions[] = {
    {"memory", "/sys/fs/cgroup/memory", "memory.oom_control", "memory.limit_in_bytes", "memory.usage_in_bytes"},
    {"", "/sys/fs/cgroup", "memory.events", "memory.max", "memory.current"},
};
static const int64_t no_limit = 1LL << 60; /* version 1 writes about 2^63, version 2 "max" */

static struct str slurp(const char *dir, const char *file, char *out, size_t cap)
{
    char name[PATH_MAX_HERE + 64];
    snprintf(name, sizeof name, "%s/%s", dir, file);
    return procfile_read(name, out, cap);
}

/* The line "oom_kill N", which memory.events and memory.oom_control both have. */
static int64_t kills_in(const char *dir, const struct version *v)
{
    char text[1024];
    uint64_t n;
    struct str rest = slurp(dir, v->events, text, sizeof text);
    while (rest.n) {
        struct str line = str_cut(&rest, '\n');
        if (str_eq(str_cut(&line, ' '), STR("oom_kill")) && str_to_u64(line, &n))
            return (int64_t)n;
    }
    return -1;
}

static int64_t number_in(const char *dir, const char *file)
{
    char text[64];
    uint64_t n;
    struct str rest = slurp(dir, file, text, sizeof text);
    return str_to_u64(str_cut(&rest, '\n'), &n) && n < (uint64_t)no_limit ? (int64_t)n : -1;
}

/* The limit may be that of a group above, as the one of a pod is: `dir` is shortened up to the mount. */
static void find_limit(char *dir, size_t mount, const struct version *v, struct oom *out)
{
    for (;;) {
        int64_t limit = number_in(dir, v->limit);
        if (limit >= 0 && (out->limit < 0 || limit < out->limit)) {
            out->limit = limit;
            out->used = number_in(dir, v->used);
        }
        char *slash = strrchr(dir + mount, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

/* In a container the path that /proc shows may be the host's: then the root of the mount is ours. */
static bool read_group(const char *root, const struct version *v, struct str path, struct oom *out)
{
    char dir[PATH_MAX_HERE];
    size_t mount = strlen(root) + strlen(v->mount);
    snprintf(dir, sizeof dir, "%s%s" STR_FMT, root, v->mount, STR_ARG(path));
    out->kills = kills_in(dir, v);
    if (out->kills < 0) {
        dir[mount < sizeof dir ? mount : 0] = 0;
        out->kills = kills_in(dir, v);
    }
    if (out->kills < 0)
        return false;
    find_limit(dir, mount, v, out);
    return true;
}

struct oom oom_read(const char *root)
{
    char text[4096];
    struct oom out = {-1, -1, -1};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) { /* where both are mounted, 1 has the memory */
        struct str rest = slurp(root, "proc/self/cgroup", text, sizeof text);
        while (rest.n) {
            struct str path = str_cut(&rest, '\n'); /* hierarchy:controllers:path */
            (void)str_cut(&path, ':');
            if (str_eq(str_cut(&path, ':'), str_of(versions[i].controller)) &&
                read_group(root, &versions[i], path, &out))
                return out;
        }
    }
    return out;
}

void oom_describe(const struct oom *o, int64_t rss_kb, int requests, char *out, size_t cap)
{
    char limit[40] = "a limit that cannot be read";
    if (o->limit >= 0)
        snprintf(limit, sizeof limit, "cgroup limit %lldM", (long long)(o->limit >> 20));
    snprintf(out, cap, "OOM-killed by %s, RSS %lldM, %d requests", limit, (long long)rss_kb / 1024, requests);
}
