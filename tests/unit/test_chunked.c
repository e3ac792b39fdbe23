#include "tests/unit/cm.h"
#include "worker/http/chunked.h"

/* The data of the body in `out`; 1 at its end, 0 when more is needed, -1. `*used`: bytes of the text taken. */
static int decode(const char *text, char *out, size_t *used)
{
    struct chunked c = {0};
    struct err e;
    struct str in = str_of(text);
    size_t n = 0;
    *used = 0;
    while (*used < in.n && c.state != CHUNK_END) {
        if (c.state == CHUNK_DATA) {
            out[n++] = in.p[(*used)++];
            chunked_data(&c, 1);
            continue;
        }
        ssize_t taken = chunked_control(&c, str_sub(in, *used, SIZE_MAX), &e);
        if (taken < 0)
            return -1;
        *used += (size_t)taken;
    }
    out[n] = 0;
    return c.state == CHUNK_END;
}

static void decodes(void **state)
{
    static const struct {
        const char *text, *data;
        int end;
        size_t rest;
    } good[] = {
        {"0\r\n\r\n", "", 1, 0},
        {"5\r\nhello\r\n0\r\n\r\nGET /", "hello", 1, 5},
        {"00a;x=\"y z\"\r\n0123456789\r\nB\r\nabcdefghijk\r\n000\r\nX: y\r\nZ:\r\n\r\n", "0123456789abcdefghijk", 1, 0},
        {"5\r\nhel", "hel", 0, 0},
        {"5\r\nhello\r\n0\r\n", "hello", 0, 0},
        {"7fffffffffffff\r\nx", "x", 0, 0},
    };
    char out[64];
    size_t used;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(decode(good[i].text, out, &used), good[i].end);
        assert_string_equal(out, good[i].data);
        assert_int_equal(strlen(good[i].text) - used, good[i].rest);
    }
}

static void refuses(void **state)
{
    static const char *const bad[] = {
        "\r\n",
        "+1\r\n",
        "-1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "1 \r\n",
        "1 ;a\r\n",
        "1\n",
        "1\r\nab",
        "1\r\na\n",
        "g\r\n",
        "ffffffffffffffffff\r\n",
        "1;\x01\r\n",
        "1;a\rb",
        "0\r\n\rx",
        "0\r\n: y\r\n",
        "0\r\nX : y\r\n",
        "0\r\n y\r\n",
        "0\r\nX: \x7f\r\n",
        "0\r\nX: y\n",
        "0\r\nX: y\rz",
        "000000000000000000000000000000000001\r\n",
    };
    char out[64];
    size_t used;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(decode(bad[i], out, &used), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decodes), cmocka_unit_test(refuses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
