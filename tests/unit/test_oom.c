/* What the memory cgroup says, read from a tree of files as the kernel would show it. */
#include "tests/unit/cm.h"
#include "master/oom.h"
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/ragd-oom-XXXXXX";

static void put(const char *path, const char *text)
{
    char name[400];
    snprintf(name, sizeof name, "%s/%s", root, path);
    for (char *slash = name + strlen(root) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        (void)mkdir(name, 0700);
    }
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static int clear(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int make(void **state)
{
    (void)state;
    strcpy(root + strlen(root) - 6, "XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

#define V2     "sys/fs/cgroup/"
#define EVENTS "low 0\nhigh 0\nmax 12\noom 3\noom_kill %d\noom_group_kill 0\n"

static void put_events(const char *path, int kills)
{
    char text[128];
    snprintf(text, sizeof text, EVENTS, kills);
    put(path, text);
}

static void version_2_has_the_limit_of_its_own_group(void **state)
{
    char what[128];
    (void)state;
    put("proc/self/cgroup", "0::/system.slice/ragd.service\n");
    put_events(V2 "system.slice/ragd.service/memory.events", 2);
    put(V2 "system.slice/ragd.service/memory.max", "536870912\n");
    put(V2 "system.slice/ragd.service/memory.current", "534773760\n");
    put(V2 "system.slice/memory.max", "max\n");
    struct oom o = oom_read(root);
    assert_int_equal(o.kills, 2);
    assert_int_equal(o.limit, 512 << 20);
    assert_int_equal(o.used, 510 << 20);
    oom_describe(&o, 430 * 1024, 3, what, sizeof what);
    assert_string_equal(what, "OOM-killed by cgroup limit 512M, RSS 430M, 3 requests");
}

static void the_tightest_limit_above_counts(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/pod/container\n");
    put_events(V2 "pod/container/memory.events", 0);
    put(V2 "pod/container/memory.max", "max\n");
    put(V2 "pod/memory.max", "104857600\n");
    put(V2 "pod/memory.current", "1048576\n");
    struct oom o = oom_read(root);
    assert_int_equal(o.kills, 0);
    assert_int_equal(o.limit, 100 << 20);
    assert_int_equal(o.used, 1 << 20);
}

static void in_a_container_the_mount_is_the_group(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/../../docker/0123456789abcdef\n");
    put_events(V2 "memory.events", 7);
    put(V2 "memory.max", "268435456\n");
    struct oom o = oom_read(root);
    assert_int_equal(o.kills, 7);
    assert_int_equal(o.limit, 256 << 20);
    assert_int_equal(o.used, -1);
}

static void version_1_goes_first_where_both_are_mounted(void **state)
{
    (void)state;
    put("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a\n0::/a\n");
    put("sys/fs/cgroup/memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
    put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    put_events(V2 "a/memory.events", 1);
    struct oom o = oom_read(root);
    assert_int_equal(o.kills, 5);
    assert_int_equal(o.limit, -1);
}

static void without_a_cgroup_nothing_is_known(void **state)
{
    char what[128];
    (void)state;
    assert_int_equal(oom_read(root).kills, -1);
    put("proc/self/cgroup", "0::/nowhere\n");
    struct oom o = oom_read(root);
    assert_int_equal(o.kills, -1);
    oom_describe(&o, 1024, 0, what, sizeof what);
    assert_string_equal(what, "OOM-killed by a limit that cannot be read, RSS 1M, 0 requests");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, clear)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(version_2_has_the_limit_of_its_own_group), TEST(the_tightest_limit_above_counts),
        TEST(in_a_container_the_mount_is_the_group),    TEST(version_1_goes_first_where_both_are_mounted),
        TEST(without_a_cgroup_nothing_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
