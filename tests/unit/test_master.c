/* The parts of the master that work without a server: addresses, sockets, the pidfile's lock, back-off. */
#include "tests/unit/cm.h"
#include "master/activate.h"
#include "master/holder.h"
#include "master/listen.h"
#include "master/pidfile.h"
#include "master/spawn.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct config *with(const char *bind)
{
    char set[600];
    const char *sets[] = {set};
    struct config *cfg;
    struct err e = {.code = ERR_NONE};
    snprintf(set, sizeof set, "server.bind=%s", bind);
    if (config_load(&(struct config_args){.set = sets, .n_set = 1}, &cfg, &e) != 0)
        fail_msg("%s: %s", bind, e.msg);
    return cfg;
}

static struct listen_set open_all(const char *bind, const struct listen_set *old)
{
    struct listen_set set;
    struct err e = {.code = ERR_NONE};
    struct config *cfg = with(bind);
    if (listen_open(&set, cfg, old, &e) != 0)
        fail_msg("%s: %s", bind, e.msg);
    config_free(cfg);
    return set;
}

static const char *dir(void)
{
    static char path[] = "/tmp/ragd-unit-XXXXXX";
    static bool made;
    if (!made)
        assert_non_null(mkdtemp(path));
    made = true;
    return path;
}

static const char *in_dir(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir(), name);
    return path;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir()); /* fails when something was left in it */
}

static void addresses_become_listeners(void **state)
{
    (void)state;
    struct listen_set set = open_all("127.0.0.1:0", NULL);
    assert_int_equal(set.n, 1);
    assert_string_equal(set.v[0].key, "127.0.0.1:0");
    assert_string_not_equal(set.v[0].l.name, set.v[0].key); /* the real port */
    assert_false(set.v[0].l.unix_socket);
    assert_true(fcntl(set.v[0].l.fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(set.v[0].l.fd, F_GETFD) & FD_CLOEXEC);
    listen_close(&set, NULL);
    assert_int_equal(set.n, 0);
}

static void both_families_share_a_port(void **state)
{
    (void)state;
    struct listen_set set = open_all("localhost:0", NULL);
    assert_true(set.n >= 1);
    if (set.n == 2) /* this machine has IPv6 */
        assert_string_equal(strrchr(set.v[0].l.name, ':'), strrchr(set.v[1].l.name, ':'));
    listen_close(&set, NULL);
}

static void a_reload_keeps_what_both_have(void **state)
{
    char both[200];
    (void)state;
    struct listen_set old = open_all("127.0.0.1:0", NULL);
    int fd = old.v[0].l.fd;
    snprintf(both, sizeof both, "127.0.0.1:0,unix:%s", in_dir("s"));
    struct listen_set new = open_all(both, &old);
    assert_int_equal(new.n, 2);
    assert_int_equal(new.v[0].l.fd, fd);
    listen_close(&old, &new); /* closes nothing: all is shared */
    assert_true(fcntl(fd, F_GETFD) >= 0);
    struct listen_set last = open_all("127.0.0.1:0", &new);
    listen_close(&new, &last);
    assert_int_equal(access(in_dir("s"), F_OK), -1);
    assert_true(fcntl(fd, F_GETFD) >= 0);
    listen_close(&last, NULL);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void a_failure_closes_only_what_is_new(void **state)
{
    char spec[400];
    struct listen_set out = {.n = -1};
    struct err e = {.code = ERR_NONE};
    (void)state;
    struct listen_set old = open_all("127.0.0.1:0", NULL);
    struct listen_set taken = open_all("127.0.0.1:0", NULL);
    snprintf(spec, sizeof spec, "127.0.0.1:0,unix:%s,%s", in_dir("s"), taken.v[0].l.name);
    struct config *cfg = with(spec);
    assert_int_equal(listen_open(&out, cfg, &old, &e), -1);
    config_free(cfg);
    assert_int_equal(out.n, -1); /* outputs are left alone */
    assert_int_equal(e.code, ERR_BUSY);
    assert_non_null(strstr(e.msg, "this server itself holds the port"));
    assert_int_equal(access(in_dir("s"), F_OK), -1);
    assert_true(fcntl(old.v[0].l.fd, F_GETFD) >= 0);
    listen_close(&old, NULL);
    listen_close(&taken, NULL);
}

static void unlinks_only_its_own_socket(void **state)
{
    dev_t dev;
    ino_t ino;
    struct err e = {.code = ERR_NONE};
    (void)state;
    int fd = listen_unix(in_dir("s"), 0600, 5, false, &dev, &ino, &e);
    assert_true(fd >= 0);
    struct stat st;
    assert_int_equal(stat(in_dir("s"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(listen_unix(in_dir("s"), 0600, 5, false, &dev, &ino, &e), -1); /* alive */
    assert_int_equal(e.code, ERR_BUSY);
    close(fd);
    dev_t dev2;
    ino_t ino2;
    int next = listen_unix(in_dir("s"), 0600, 5, false, &dev2, &ino2, &e); /* dead: replaced */
    assert_true(next >= 0);
    listen_unlink(in_dir("s"), dev2, ino2 + 1);
    assert_int_equal(access(in_dir("s"), F_OK), 0);
    listen_unlink(in_dir("s"), dev2, ino2);
    assert_int_equal(access(in_dir("s"), F_OK), -1);
    close(next);
}

static void names_the_holder(void **state)
{
    char who[200] = "";
    (void)state;
    struct listen_set set = open_all("127.0.0.1:0", NULL);
    int port = atoi(strrchr(set.v[0].l.name, ':') + 1);
    assert_int_equal(holder_of_port(AF_INET, port, who, sizeof who), getpid());
    assert_non_null(strstr(who, "test_master"));
    listen_close(&set, NULL);
    assert_int_equal(holder_of_port(AF_INET, port, who, sizeof who), 0);
}

/* An OFD lock belongs to the open file, so one process can play both instances. */
static void a_pidfile_that_cannot_be_taken_stays_the_other_masters(void **state)
{
    struct pidfile lent;
    struct err e;
    char path[] = "/tmp/ragd-test-pidfile-XXXXXX";
    int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    close(fd);
    lent = (struct pidfile){.fd = open(path, O_RDONLY | O_CLOEXEC), .path = strdup(path), .lent = true};
    assert_int_equal(pidfile_take(&lent, &e), -1);
    pidfile_close(&lent);
    assert_int_equal(unlink(path), 0);
}

static void pidfile_has_one_holder(void **state)
{
    struct pidfile a, b;
    struct err e = {.code = ERR_NONE};
    char path[128];
    (void)state;
    snprintf(path, sizeof path, "%s", in_dir("pid"));
    assert_int_equal(pidfile_holder(path), 0);
    assert_int_equal(pidfile_open(&a, path, &e), 0);
    assert_int_equal(pidfile_holder(path), getpid());
    assert_int_equal(pidfile_open(&b, path, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    pidfile_close(&b);
    pidfile_close(&a);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(pidfile_open(&b, path, &e), 0);
    pidfile_close(&b);
    assert_int_equal(pidfile_open(&a, "", &e), 0); /* none */
    pidfile_close(&a);
}

static void pidfile_of_somebody_else_is_left_alone(void **state)
{
    struct pidfile a;
    struct err e = {.code = ERR_NONE};
    char path[128], aside[140];
    (void)state;
    snprintf(path, sizeof path, "%s", in_dir("pid"));
    snprintf(aside, sizeof aside, "%s.aside", path);
    assert_int_equal(pidfile_open(&a, path, &e), 0);
    assert_int_equal(rename(path, aside), 0);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    pidfile_close(&a);
    assert_int_equal(unlink(path), 0); /* it was still there */
    assert_int_equal(unlink(aside), 0);
}

/* The variables are for one process only, and go also when it is not this one. */
static void the_holder_of_a_busy_unix_socket_is_found(void **state)
{
    enum { CLIENTS = 20 };
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct err e;
    dev_t dev;
    ino_t ino;
    int fd[2 * CLIENTS];
    char who[64];
    (void)state;
    str_copyz(sa.sun_path, sizeof sa.sun_path, str_of(in_dir("busy")));
    int listening = listen_unix(sa.sun_path, 0600, CLIENTS, false, &dev, &ino, &e);
    assert_true(listening >= 0);
    for (int i = 0; i < 2 * CLIENTS; i += 2) {
        fd[i] = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(fd[i], (struct sockaddr *)&sa, sizeof sa), 0);
        fd[i + 1] = accept(listening, NULL, NULL);
        assert_true(fd[i + 1] >= 0);
    }
    assert_true(holder_has_unix(getpid(), sa.sun_path));
    assert_int_equal(holder_of_unix(sa.sun_path, who, sizeof who), getpid());
    listen_unlink(sa.sun_path, dev, ino);
    close(listening);
    assert_int_equal(holder_of_unix(sa.sun_path, who, sizeof who), 0); /* connections alone hold no address */
    for (int i = 0; i < 2 * CLIENTS; i++)
        close(fd[i]);
}

static void nobody_inherits_the_word_of_passed_sockets(void **state)
{
    struct listen_set http = {.n = 0};
    struct err e = {.code = ERR_NONE};
    char pid[24];
    (void)state;
    for (int ours = 0; ours < 2; ours++) {
        snprintf(pid, sizeof pid, "%d", (int)getpid() + !ours);
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", "18446744073709551615", 1);
        setenv("LISTEN_FDNAMES", "a:b", 1);
        assert_int_equal(activate_take(&http, &e), ours ? -1 : 0);
        assert_null(getenv("LISTEN_PID"));
        assert_null(getenv("LISTEN_FDS"));
        assert_null(getenv("LISTEN_FDNAMES"));
    }
    assert_int_equal(http.n, 0);
    assert_non_null(strstr(e.msg, "(name 'a')"));
    assert_int_equal(activate_take(&http, &e), 0); /* nothing is said: nothing is passed */
}

static void sockets_are_adopted_by_their_address_or_by_a_key(void **state)
{
    struct listen_set set = {.n = 0};
    struct err e = {.code = ERR_NONE};
    (void)state;
    struct listen_set bound = open_all("127.0.0.1:0,127.0.0.2:0", NULL);
    assert_int_equal(listen_adopt(&set, bound.v[0].l.fd, NULL, false, &e), 0);
    assert_int_equal(listen_adopt(&set, bound.v[1].l.fd, "127.0.0.1:0", false, &e), 0);
    assert_int_equal(set.n, 2);
    assert_true(set.v[0].activated);
    assert_string_equal(set.v[0].key, bound.v[0].l.name);
    assert_false(set.v[1].activated);
    assert_string_equal(set.v[1].key, "127.0.0.1:0");
    assert_string_equal(set.v[1].l.name, bound.v[1].l.name);
    listen_close(&bound, NULL);
}

static void delays_double_up_to_a_limit(void **state)
{
    static const int64_t expected[] = {0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000};
    (void)state;
    for (unsigned i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_int_equal(crew_delay_ms(i), expected[i]);
    assert_int_equal(crew_delay_ms(1000000), 30000);
}

static void ends_are_described(void **state)
{
    char how[64];
    (void)state;
    death_describe(3 << 8, how, sizeof how);
    assert_string_equal(how, "exit 3");
    death_describe(9, how, sizeof how);
    assert_string_equal(how, "signal 9 (KILL)");
    death_describe(11 | 0x80, how, sizeof how);
    assert_string_equal(how, "signal 11 (SEGV), core dumped");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_become_listeners),
        cmocka_unit_test(both_families_share_a_port),
        cmocka_unit_test(a_reload_keeps_what_both_have),
        cmocka_unit_test(a_failure_closes_only_what_is_new),
        cmocka_unit_test(unlinks_only_its_own_socket),
        cmocka_unit_test(names_the_holder),
        cmocka_unit_test(a_pidfile_that_cannot_be_taken_stays_the_other_masters),
        cmocka_unit_test(pidfile_has_one_holder),
        cmocka_unit_test(pidfile_of_somebody_else_is_left_alone),
        cmocka_unit_test(the_holder_of_a_busy_unix_socket_is_found),
        cmocka_unit_test(nobody_inherits_the_word_of_passed_sockets),
        cmocka_unit_test(sockets_are_adopted_by_their_address_or_by_a_key),
        cmocka_unit_test(delays_double_up_to_a_limit),
        cmocka_unit_test(ends_are_described),
    };
    return cmocka_run_group_tests(tests, NULL, remove_dir);
}
