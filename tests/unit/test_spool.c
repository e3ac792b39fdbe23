#include "tests/unit/cm.h"
#include "worker/http/http.h"
#include <fcntl.h>
#include <unistd.h>

static void fill(struct spool *s, size_t total, size_t piece)
{
    static char data[1 << 16];
    struct err e;
    for (size_t at = 0; at < total;) {
        size_t n = piece < total - at ? piece : total - at;
        for (size_t i = 0; i < n; i++)
            data[i] = (char)((at + i) % 251);
        assert_int_equal(spool_add(s, data, n, &e), 0);
        at += n;
    }
    assert_int_equal(s->size, total);
}

static void check(struct spool *s, int64_t offset, size_t n)
{
    static char data[1 << 18];
    struct err e = {0};
    assert_int_equal(spool_read(s, offset, data, n, &e), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal((unsigned char)data[i], (unsigned char)(((size_t)offset + i) % 251));
}

static void small_stays_in_memory(void **state)
{
    struct arena a = {0};
    struct spool s;
    struct err e;
    char c;
    (void)state;
    spool_init(&s, &a);
    fill(&s, 64 * 1024, 1000);
    assert_int_equal(s.fd, -1);
    check(&s, 0, 64 * 1024);
    check(&s, 65535, 1);
    check(&s, 65536, 0);
    assert_int_equal(spool_read(&s, 65536, &c, 1, &e), -1);
    assert_int_equal(spool_read(&s, -1, &c, 1, &e), -1);
    arena_fini(&a);
}

static void large_goes_to_a_file_without_a_name(void **state)
{
    struct arena a = {0};
    struct spool s;
    (void)state;
    spool_init(&s, &a);
    fill(&s, 200 * 1000, 4321);
    int fd = s.fd;
    assert_true(fd >= 0);
    check(&s, 0, 200 * 1000);
    check(&s, 65000, 2000);
    arena_fini(&a);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed with the arena */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_stays_in_memory),
        cmocka_unit_test(large_goes_to_a_file_without_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
