/* The channel between master and worker: messages, descriptors, the end. */
#include "common/channel.h"
#include "tests/unit/cm.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char buffer[CHANNEL_TEXT_MAX];

static void messages_keep_their_bounds(void **state)
{
    int fd[2];
    struct err e;
    struct channel_message m;
    (void)state;
    assert_int_equal(channel_open(fd, &e), 0);
    assert_int_equal(channel_receive(fd[1], buffer, &m), 0);
    assert_int_equal(channel_send(fd[0], CHANNEL_CONFIG, 7, STR("a.b=c\n"), -1), 0);
    assert_int_equal(channel_send(fd[0], CHANNEL_FIBERS, 8, STR(""), -1), 0);
    assert_int_equal(channel_receive(fd[1], buffer, &m), 1);
    assert_int_equal(m.kind, CHANNEL_CONFIG);
    assert_int_equal(m.serial, 7);
    assert_true(str_eq(m.text, STR("a.b=c\n")));
    assert_int_equal(m.fd, -1);
    assert_int_equal(channel_receive(fd[1], buffer, &m), 1);
    assert_int_equal(m.kind, CHANNEL_FIBERS);
    assert_int_equal(m.text.n, 0);
    assert_int_equal(channel_receive(fd[1], buffer, &m), 0);
    close(fd[0]);
    assert_int_equal(channel_receive(fd[1], buffer, &m), -1);
    assert_int_equal(channel_send(fd[1], CHANNEL_FIBERS, 9, STR("x"), -1), -1);
    assert_int_equal(errno, EPIPE);
    close(fd[1]);
}

static void descriptors_come_along(void **state)
{
    int fd[2];
    struct err e;
    struct channel_message m;
    struct stat a, b;
    (void)state;
    assert_int_equal(channel_open(fd, &e), 0);
    int file = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_int_equal(channel_send(fd[0], CHANNEL_LOGS, 1, STR(""), file), 0);
    assert_int_equal(channel_receive(fd[1], buffer, &m), 1);
    assert_true(m.fd >= 0 && m.fd != file);
    assert_int_equal(fcntl(m.fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fstat(file, &a), 0);
    assert_int_equal(fstat(m.fd, &b), 0);
    assert_int_equal(a.st_rdev, b.st_rdev);
    close(m.fd);
    close(file);
    close(fd[0]);
    close(fd[1]);
}

static void a_descriptor_for_which_there_is_no_room_is_told(void **state)
{
    int fd[2];
    struct err e;
    struct channel_message m;
    struct rlimit was, now;
    const char *preload = getenv("LD_PRELOAD");
    (void)state;
    if (preload && strstr(preload, "vgpreload")) /* valgrind keeps a limit of its own, which the kernel does not know */
        return;
    assert_int_equal(channel_open(fd, &e), 0);
    int file = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_int_equal(channel_send(fd[0], CHANNEL_LOGS, 1, STR("x"), file), 0);
    assert_int_equal(channel_send(fd[0], CHANNEL_LOGS, 2, STR("y"), -1), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    now = was;
    now.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    assert_int_equal(channel_receive(fd[1], buffer, &m), 1);
    assert_true(m.fd < 0 && m.fd_lost && str_eq(m.text, STR("x")));
    assert_int_equal(channel_receive(fd[1], buffer, &m), 1);
    assert_true(m.fd < 0 && !m.fd_lost && str_eq(m.text, STR("y")));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    close(file);
    close(fd[0]);
    close(fd[1]);
}

static void long_text_is_cut_and_a_full_channel_refuses(void **state)
{
    static char text[CHANNEL_TEXT_MAX + 100];
    int fd[2], sent = 0;
    struct err e;
    struct channel_message m;
    (void)state;
    memset(text, 'x', sizeof text);
    assert_int_equal(channel_open(fd, &e), 0);
    while (channel_send(fd[0], CHANNEL_FIBERS, 0, (struct str){text, sizeof text}, -1) == 0)
        sent++;
    assert_int_equal(errno, EAGAIN);
    assert_true(sent > 0);
    assert_int_equal(channel_receive(fd[1], buffer, &m), 1);
    assert_int_equal(m.text.n, CHANNEL_TEXT_MAX);
    close(fd[0]);
    close(fd[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_keep_their_bounds),
        cmocka_unit_test(descriptors_come_along),
        cmocka_unit_test(a_descriptor_for_which_there_is_no_room_is_told),
        cmocka_unit_test(long_text_is_cut_and_a_full_channel_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
