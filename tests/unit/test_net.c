#include "tests/unit/cm.h"
#include "common/clock.h"
#include "worker/net/addr.h"
#include "worker/net/conn.h"
#include "worker/net/timeouts.h"
#include <fcntl.h>
#include <unistd.h>

/* ---- addresses ---- */

static struct net_addr addr(const char *text)
{
    struct net_addr a;
    assert_true(net_addr_parse(str_of(text), &a));
    return a;
}

static void addresses(void **state)
{
    static const char *const same[] = {"0.0.0.0", "127.0.0.1", "255.255.255.255", "10.9.8.7", "::1", "2001:db8::7"};
    static const char *const bad[] = {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "a", "::g", "[::1]", "1.2.3.4 "};
    char text[NET_ADDR_TEXT];
    struct net_addr a;
    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        a = addr(same[i]);
        assert_int_equal(net_addr_text(&a, text), strlen(same[i]));
        assert_string_equal(text, same[i]);
    }
    a = addr("::ffff:192.0.2.1");
    net_addr_text(&a, text);
    assert_string_equal(text, "192.0.2.1");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(net_addr_parse(str_of(bad[i]), &a));
}

static bool within(const char *network, const char *address)
{
    struct net_network n;
    struct net_addr a = addr(address);
    assert_true(net_network_parse(str_of(network), &n));
    return net_network_has(&n, &a);
}

static void networks(void **state)
{
    struct net_network n;
    struct net_addr local = {.family = AF_UNIX};
    (void)state;
    assert_true(within("10.0.0.0/8", "10.255.0.1"));
    assert_false(within("10.0.0.0/8", "11.0.0.0"));
    assert_true(within("192.0.2.128/25", "192.0.2.200"));
    assert_false(within("192.0.2.128/25", "192.0.2.100"));
    assert_true(within("192.0.2.1", "192.0.2.1"));
    assert_false(within("192.0.2.1", "192.0.2.3"));
    assert_true(within("0.0.0.0/0", "8.8.8.8"));
    assert_false(within("0.0.0.0/0", "::1"));
    assert_true(within("2001:db8::/33", "2001:db8:7fff::1"));
    assert_false(within("2001:db8::/33", "2001:db8:8000::1"));
    assert_true(within("*", "::1"));
    assert_true(net_network_parse(STR("unix"), &n));
    assert_true(net_network_has(&n, &local));
    assert_false(net_network_parse(STR("10.0.0.0/33"), &n));
    assert_false(net_network_parse(STR("10.0.0.0/"), &n));
    assert_false(net_network_parse(STR("host"), &n));
}

/* ---- the loop ---- */

static int setup(void **state)
{
    struct err e;
    (void)state;
    return loop_init(&e);
}

static int teardown(void **state)
{
    (void)state;
    loop_fini();
    return 0;
}

enum { SHORT, LONG, NEVER, LISTS };
static struct timeout_list lists[LISTS] = {{.limit_ns = 20 * MS}, {.limit_ns = 60 * MS}, {.limit_ns = 0}};
static struct timeouts ts;
static struct timeout members[4];
static int order[8], n_order;

static void expired(void *arg, struct timeout *t, int list)
{
    (void)arg;
    assert_true(clock_ns() >= t->at_ns);
    assert_true(list_empty(&t->link));
    order[n_order++] = (int)(t - members) * 10 + list;
    if (list == LONG)
        loop_stop();
}

static void timeouts_fire_in_order(void **state)
{
    (void)state;
    timeouts_init(&ts, lists, LISTS, expired, NULL);
    for (int i = 0; i < 4; i++)
        timeout_init(&members[i]);
    timeout_set(&ts, &members[0], LONG);
    timeout_set(&ts, &members[1], SHORT);
    timeout_set(&ts, &members[2], NEVER);
    timeout_set(&ts, &members[3], SHORT);
    timeout_set(&ts, &members[1], SHORT); /* to the end */
    loop_run();
    assert_int_equal(n_order, 3);
    assert_int_equal(order[0], 3 * 10 + SHORT);
    assert_int_equal(order[1], 1 * 10 + SHORT);
    assert_int_equal(order[2], 0 * 10 + LONG);
    timeout_clear(&members[2]);
    timeouts_fini(&ts);
}

/* ---- connections ---- */

static int drained, wrote, readable;

static void on_readable(struct net_conn *c)
{
    readable++;
    if (net_fill(c) <= 0)
        loop_stop();
}

static void on_drained(struct net_conn *c)
{
    (void)c;
    drained++;
    loop_stop();
}

static void on_wrote(struct net_conn *c)
{
    (void)c;
    wrote++;
}

static const struct net_ops ops = {on_readable, on_drained, on_wrote};

static void make_pair(struct net_conn *c, int *peer)
{
    int fds[2];
    struct net_addr none = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(net_conn_init(c, fds[0], &none, &ops), 0);
    *peer = fds[1];
}

static void input_survives_other_connections(void **state)
{
    struct net_conn a, b;
    int pa, pb;
    char text[8];
    (void)state;
    make_pair(&a, &pa);
    make_pair(&b, &pb);
    assert_int_equal(write(pa, "hello", 5), 5);
    assert_int_equal(net_fill(&a), 5);
    net_consume(&a, 2);
    assert_int_equal(write(pb, "other", 5), 5);
    assert_int_equal(net_fill(&b), 5); /* takes the buffer of the worker; what a has left is kept for it */
    assert_true(str_eqz(net_input(&a), "llo"));
    assert_true(str_eqz(net_input(&b), "other"));
    assert_int_equal(write(pa, "!", 1), 1);
    assert_int_equal(net_fill(&a), 1);
    assert_int_equal(net_read(&a, text, sizeof text), 4);
    assert_memory_equal(text, "llo!", 4);
    assert_null(a.in);
    assert_int_equal(net_fill(&a), -1);
    assert_false(a.broken || a.eof);
    net_consume(&b, 5);
    close(pa);
    assert_int_equal(net_fill(&a), 0);
    assert_true(a.eof);
    net_conn_fini(&a);
    net_conn_fini(&b);
    close(pb);
}

static void output_is_queued_and_drained(void **state)
{
    struct net_conn c;
    int peer;
    static char data[1 << 20], back[1 << 16];
    size_t total = 0;
    (void)state;
    make_pair(&c, &peer);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 7 % 251);
    struct iovec iov[2] = {{data, 1000}, {data + 1000, sizeof data - 1000}};
    assert_int_equal(net_write(&c, iov, 2), 0);
    assert_true(net_queued(&c) > 0 && net_queued(&c) < sizeof data);
    drained = 0;
    while (total < sizeof data) {
        ssize_t n = read(peer, back, sizeof back);
        if (n < 0) {
            event_base_loop(loop_base(), EVLOOP_ONCE);
            continue;
        }
        assert_memory_equal(back, data + total, (size_t)n);
        total += (size_t)n;
    }
    while (!drained)
        event_base_loop(loop_base(), EVLOOP_ONCE);
    assert_int_equal(net_queued(&c), 0);
    assert_null(c.out);
    close(peer);
    struct iovec one = {data, 10};
    assert_int_equal(net_write(&c, &one, 1), -1);
    assert_true(c.broken);
    net_conn_fini(&c);
}

static void corked_writes_leave_together(void **state)
{
    struct net_conn c;
    int peer;
    char back[64];
    (void)state;
    make_pair(&c, &peer);
    struct iovec iov[2] = {{(char *)"ab", 2}, {(char *)"cd", 2}};
    net_cork(&c);
    assert_int_equal(net_write(&c, iov, 2), 0);
    assert_int_equal(net_write(&c, iov, 1), 0);
    assert_int_equal(read(peer, back, sizeof back), -1);
    net_uncork(&c);
    assert_int_equal(read(peer, back, sizeof back), 6);
    assert_memory_equal(back, "abcdab", 6);
    net_conn_fini(&c);
    close(peer);
}

static void an_idle_connection_is_small(void **state)
{
    (void)state;
    assert_true(sizeof(struct net_conn) <= 208);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(networks),
        cmocka_unit_test_setup_teardown(timeouts_fire_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(input_survives_other_connections, setup, teardown),
        cmocka_unit_test_setup_teardown(output_is_queued_and_drained, setup, teardown),
        cmocka_unit_test_setup_teardown(corked_writes_leave_together, setup, teardown),
        cmocka_unit_test(an_idle_connection_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
