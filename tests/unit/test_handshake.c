/* What two masters say to each other arrives, also when one of them goes at once. */
#include "master/handshake.h"
#include "tests/unit/cm.h"
#include <string.h>
#include <sys/socket.h>

static void pair(struct handshake *a, struct handshake *b)
{
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    *a = (struct handshake){.fd = fd[0]};
    *b = (struct handshake){.fd = fd[1]};
}

static void messages_arrive_one_by_one(void **state)
{
    struct handshake a, b;
    char text[HANDSHAKE_MAX];
    const char *rest;
    (void)state;
    pair(&a, &b);
    assert_int_equal(handshake_receive(&b, text), 0);
    handshake_send(&a, "READY %d", 7);
    handshake_send(&a, "STOP");
    assert_int_equal(handshake_receive(&b, text), 1);
    assert_true(handshake_is(text, "READY", &rest));
    assert_string_equal(rest, "7");
    assert_int_equal(handshake_receive(&b, text), 1);
    assert_true(handshake_is(text, "STOP", NULL));
    assert_false(handshake_is(text, "STO", NULL));
    handshake_close(&a);
    assert_int_equal(handshake_receive(&b, text), -1);
    assert_int_equal(b.fd, -1);
    assert_int_equal(handshake_receive(&b, text), 0); /* said once */
    handshake_send(&b, "GO");                         /* to nobody */
}

static void the_last_word_arrives_also_when_nobody_listened_to_ours(void **state)
{
    struct handshake a, b;
    char text[HANDSHAKE_MAX];
    (void)state;
    pair(&a, &b);
    handshake_send(&a, "READY {}");
    handshake_send(&b, "ABORT");
    handshake_close(&b);
    assert_int_equal(handshake_receive(&a, text), 1);
    assert_string_equal(text, "ABORT");
    assert_int_equal(handshake_receive(&a, text), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_arrive_one_by_one),
        cmocka_unit_test(the_last_word_arrives_also_when_nobody_listened_to_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
