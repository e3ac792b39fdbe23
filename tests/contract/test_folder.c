/* What is in a watched folder, and what is not; notes, the lock, and a folder that is replaced. */
#include "tests/unit/fibers.h"
#include "worker/io/folder.h"
#include <sys/stat.h>

static char root[] = "/tmp/ragd-folder-XXXXXX";
static struct folder *folder;
static struct folder_scan scan;
static struct err e;
static size_t max;
static int rc;

static void sh(const char *command)
{
    char line[600];
    snprintf(line, sizeof line, "cd %s && %s", root, command);
    assert_int_equal(system(line), 0);
}

static int make_root(void **state)
{
    strcpy(root, "/tmp/ragd-folder-XXXXXX");
    if (!mkdtemp(root) || setup(state))
        return -1;
    sh("mkdir in");
    char path[64];
    snprintf(path, sizeof path, "%s/in", root);
    max = 1000;
    return folder_open(path, &folder, &e);
}

static int remove_root(void **state)
{
    folder_close(folder);
    folder = NULL;
    char line[64];
    snprintf(line, sizeof line, "rm -rf %s", root);
    return system(line) || teardown(state);
}

static suspends void look_main(void *arg)
{
    (void)arg;
    rc = folder_look(folder, max, &scan, &e);
    loop_stop();
}

static void look(void)
{
    fiber_spawn("look", look_main, NULL);
    if (fiber_count())
        loop_run();
    loop_stop(); /* when it has ended at once */
    loop_run();
}

/* "a b/c" */
static const char *names(void)
{
    static char all[400];
    all[0] = 0;
    assert_int_equal(rc, 0);
    for (size_t i = 0; i < scan.n; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? " " : "", scan.file[i].path.p);
    return all;
}

static void files_are_listed(void **state)
{
    (void)state;
    look();
    assert_string_equal(names(), "");
    assert_true(scan.complete);
    folder_scan_fini(&scan);
    sh("cd in && mkdir -p b/c .git && echo 12345 >b/c/d && echo x >a && echo x >.hidden && echo x >.git/x && mkfifo "
       "pipe");
    look();
    assert_string_equal(names(), "a b/c/d");
    assert_int_equal(scan.file[1].size, 6);
    assert_true(scan.file[0].changed_ns > 0 && scan.file[0].inode);
    folder_scan_fini(&scan);
    sh("chmod 000 in/a; chmod 700 in/a; touch -d '2030-01-01' in/a"); /* times that were set count as well */
    look();
    assert_true(scan.file[0].changed_ns > 1800000000LL * SEC);
    folder_scan_fini(&scan);
}

static void links_do_not_lead_out(void **state)
{
    static const char *const no[] = {"out", "up", "far", "dangling", "loop", "folder/secret", "folder", "../secret"};
    (void)state;
    sh("echo x >secret && mkdir more && echo x >more/secret && cd in && echo x >a && ln -s a inside && ln -s ../secret "
       "up && "
       "ln -s $PWD/../secret out && ln -s /etc/passwd far && ln -s nowhere dangling && ln -s loop loop && ln -s "
       "../more folder");
    look();
    assert_string_equal(names(), "a inside");
    assert_true(scan.complete);
    folder_scan_fini(&scan);
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        int fd = folder_open_file(folder, str_of(no[i]));
        if (fd >= 0) /* a folder beneath can be opened, but it is no file */
            fail_msg("%s was opened", no[i]);
    }
    int fd = folder_open_file(folder, STR("inside"));
    assert_true(fd >= 0);
    close(fd);
}

static void too_many_are_told(void **state)
{
    (void)state;
    sh("cd in && touch a b c d");
    max = 3;
    look();
    assert_int_equal(scan.n, 3);
    assert_false(scan.complete);
    folder_scan_fini(&scan);
    max = 4;
    look();
    assert_true(scan.complete && scan.n == 4);
    folder_scan_fini(&scan);
}

static void very_deep_ones_are_not_entered(void **state)
{
    (void)state;
    sh("d=in; for i in $(seq 80); do d=$d/d; done; mkdir -p $d && touch $d/x && touch in/a");
    look();
    assert_string_equal(names(), "a");
    assert_false(scan.complete);
    folder_scan_fini(&scan);
}

static suspends void wait_main(void *arg)
{
    int *changed = arg;
    assert_int_equal(folder_look(folder, max, &scan, &e), 0);
    folder_scan_fini(&scan);
    note('w');
    rc = folder_wait(folder, 60 * SEC);
    *changed = 1;
    loop_stop();
}

static void changes_are_noticed(void **state)
{
    static const char *const changes[] = {"mkdir in/sub",
                                          "echo x >in/sub/new",
                                          "echo y >>in/sub/new",
                                          "mv in/sub/new in/b",
                                          "mv in/sub in/c",
                                          "echo z >in/c/z",
                                          "rm in/b"};
    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        int changed = 0;
        trace[0] = 0;
        fiber_spawn("wait", wait_main, &changed);
        while (!trace[0])
            event_base_loop(loop_base(), EVLOOP_NONBLOCK), loop_stop(), loop_run();
        assert_int_equal(changed, 0);
        sh(changes[i]);
        loop_run();
        assert_int_equal(changed, 1);
        assert_int_equal(rc, 0);
    }
}

static void one_has_it(void **state)
{
    struct folder *other;
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "%s/in", root);
    assert_true(folder_lock(folder));
    assert_true(folder_lock(folder)); /* it has it already */
    assert_int_equal(folder_open(path, &other, &e), 0);
    assert_false(folder_lock(other));
    folder_close(folder);
    folder = other;
    assert_true(folder_lock(other));
}

static void a_folder_that_is_replaced_is_another(void **state)
{
    struct folder *other;
    char path[64];
    (void)state;
    assert_true(folder_is_current(folder));
    sh("mv in old");
    assert_false(folder_is_current(folder));
    sh("mkdir in");
    assert_false(folder_is_current(folder));
    snprintf(path, sizeof path, "%s/absent", root);
    assert_int_equal(folder_open(path, &other, &e), -1);
    assert_int_equal(e.code, ERR_VALIDATION);
    sh("touch file");
    snprintf(path, sizeof path, "%s/file", root);
    assert_int_equal(folder_open(path, &other, &e), -1);
}

int main(void)
{
#undef TEST
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_root, remove_root)
    const struct CMUnitTest tests[] = {
        TEST(files_are_listed),
        TEST(links_do_not_lead_out),
        TEST(too_many_are_told),
        TEST(very_deep_ones_are_not_entered),
        TEST(changes_are_noticed),
        TEST(one_has_it),
        TEST(a_folder_that_is_replaced_is_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
