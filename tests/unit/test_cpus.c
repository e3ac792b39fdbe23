/* CPU quotas, read from a copy of /proc and /sys made for the test. */
#include "tests/unit/cm.h"
#include "common/cpus.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

static void put(const char *path, const char *text)
{
    char full[512], *p;
    snprintf(full, sizeof full, "%s%s", root, path);
    for (p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(full, 0700);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int fresh(void **state)
{
    (void)state;
    strcpy(root, "/tmp/ragd-cpus-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int done(void **state)
{
    char cmd[128];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -r %s", root);
    return system(cmd);
}

static void no_cgroup_no_limit(void **state)
{
    (void)state;
    assert_int_equal(cpus_quota(root), 0);
    put("/proc/self/cgroup", "0::/user.slice\n");
    assert_int_equal(cpus_quota(root), 0);
    put("/sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
    assert_int_equal(cpus_quota(root), 0);
}

static void v2_takes_the_least_of_the_path(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
    assert_int_equal(cpus_quota(root), 4);
    put("/sys/fs/cgroup/a/cpu.max", "150000 100000\n"); /* one and a half: two */
    assert_int_equal(cpus_quota(root), 2);
    put("/sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
    assert_int_equal(cpus_quota(root), 1);
}

/* A container with its own cgroup namespace sees "/", and its quota at the mount. */
static void v2_in_a_container(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "300000 100000\n");
    assert_int_equal(cpus_quota(root), 3);
}

/* Docker on v1 shows the path of the host, which does not exist inside. */
static void v1_in_a_container(void **state)
{
    (void)state;
    put("/proc/self/cgroup",
        "12:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n2:cpuset:/docker/0123\n0::/docker/0123\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus_quota(root), 2);
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(cpus_quota(root), 0);
}

static void nonsense_is_no_limit(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "nonsense\n\n::\n0::\n4:cpu\n");
    put("/sys/fs/cgroup/cpu.max", "100000 0\n");
    assert_int_equal(cpus_quota(root), 0);
    put("/sys/fs/cgroup/cpu.max", "\n");
    assert_int_equal(cpus_quota(root), 0);
}

static void at_least_one(void **state)
{
    (void)state;
    assert_in_range(cpus_available(), 1, sysconf(_SC_NPROCESSORS_CONF));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_cgroup_no_limit, fresh, done),
        cmocka_unit_test_setup_teardown(v2_takes_the_least_of_the_path, fresh, done),
        cmocka_unit_test_setup_teardown(v2_in_a_container, fresh, done),
        cmocka_unit_test_setup_teardown(v1_in_a_container, fresh, done),
        cmocka_unit_test_setup_teardown(nonsense_is_no_limit, fresh, done),
        cmocka_unit_test(at_least_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
