#include "tests/unit/cm.h"
#include "worker/http/parser.h"
#include <stdlib.h>

static const struct parser_limits limits = {.request_line = 64, .header_bytes = 256, .headers = 4};

static int scan_all(struct parser *p, const char *text, struct err *e)
{
    *p = (struct parser){0};
    return parser_scan(p, str_of(text), &limits, e);
}

static int parse(const char *text, struct head *h, struct err *e)
{
    static struct header fields[8];
    *h = (struct head){.header = fields};
    return parser_head(str_of(text), h, e);
}

static void finds_the_end(void **state)
{
    struct parser p;
    struct err e;
    (void)state;
    assert_int_equal(scan_all(&p, "GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", &e), 27);
    assert_int_equal(p.lines, 2);
    assert_int_equal(scan_all(&p, "\r\n\r\nGET / HTTP/1.1\r\n\r\n", &e), 22);
    assert_int_equal(p.skip, 4);
    assert_int_equal(scan_all(&p, "GET / HTTP/1.1\r\nHost: a\r\n", &e), 0);
    assert_int_equal(scan_all(&p, "", &e), 0);
}

static void every_split_gives_the_same(void **state)
{
    static const char *const texts[] = {
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\x16\x03\x01 TLS",
        "GET /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    };
    (void)state;
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        struct parser whole;
        struct err e = {0}, e2 = {0};
        int expected = scan_all(&whole, texts[t], &e);
        struct parser p = {0};
        int got = 0;
        size_t n = strlen(texts[t]);
        for (size_t i = 1; i <= n && got == 0; i++)
            got = parser_scan(&p, (struct str){texts[t], i}, &limits, &e2);
        assert_int_equal(got, expected);
        assert_int_equal(e.code, e2.code);
        if (got > 0)
            assert_memory_equal(&p, &whole, sizeof p);
    }
}

static void bounds_lines_and_sections(void **state)
{
    struct parser p;
    struct err e;
    char text[1024];
    (void)state;
    memset(text, 'x', sizeof text);
    text[66] = 0;
    assert_int_equal(scan_all(&p, text, &e), -1);
    assert_int_equal(e.code, ERR_URI_TOO_LONG);
    memcpy(text, "GET / HTTP/1.1\r\nX: ", 19);
    text[66] = 'x';
    text[400] = 0;
    assert_int_equal(scan_all(&p, text, &e), -1);
    assert_int_equal(e.code, ERR_HEADERS);
    assert_int_equal(scan_all(&p, "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n", &e), 42);
    assert_int_equal(scan_all(&p, "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n\r\n", &e), -1);
    assert_int_equal(e.code, ERR_HEADERS);
}

static void takes_a_head_apart(void **state)
{
    struct head h;
    struct err e;
    (void)state;
    assert_int_equal(parse("POST /a?b HTTP/1.1\r\nhost: h:1\r\nContent-Length: 12\r\nX:  a b \t\r\n\r\n", &h, &e), 0);
    assert_int_equal(h.method, HTTP_POST);
    assert_int_equal(h.minor, 1);
    assert_true(str_eqz(h.target, "/a?b"));
    assert_true(str_eqz(h.host, "h:1"));
    assert_int_equal(h.content_length, 12);
    assert_int_equal(h.n_header, 3);
    assert_true(str_eqz(h.header[2].name, "X") && str_eqz(h.header[2].value, "a b"));
    assert_true(h.keep_alive);
    assert_false(h.chunked || h.expect_continue);
    assert_int_equal(parse("BREW / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", &h, &e), 0);
    assert_int_equal(h.method, -1);
    assert_int_equal(h.content_length, -1);
    assert_true(h.chunked);
    assert_int_equal(
        parse("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nConnection: x , close\r\n\r\n", &h, &e), 0);
    assert_true(h.expect_continue);
    assert_false(h.keep_alive);
    assert_int_equal(parse("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", &h, &e), 0);
    assert_false(h.keep_alive || h.expect_continue);
    assert_int_equal(parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &h, &e), 0);
    assert_true(h.keep_alive);
    assert_int_equal(parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", &h, &e), 0);
    assert_false(h.keep_alive);
}

/* Each refused, and with which code; the wire tests have many more. */
static void refuses(void **state)
{
    static const struct {
        const char *text;
        enum err_code code;
    } bad[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n", ERR_NOT_IMPLEMENTED},
        {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", ERR_HTTP_VERSION},
        {"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", ERR_EXPECTATION},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct head h;
        struct err e = {0};
        assert_int_equal(parse(bad[i].text, &h, &e), -1);
        assert_int_equal(e.code, bad[i].code);
    }
}

static void knows_hosts(void **state)
{
    static const char *const good[] = {"", "a", "a.b-c:80", "127.0.0.1", "[::1]", "[2001:db8::1]:443", "a:", "x%41"};
    static const char *const bad[] = {":80",  "a b", "a/b",    "u@a", "a:b",  "a:65536",
                                      "[::1", "::1", "[::1]x", "[]",  "a:1:2"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(parser_is_host(str_of(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(parser_is_host(str_of(bad[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_end),
        cmocka_unit_test(every_split_gives_the_same),
        cmocka_unit_test(bounds_lines_and_sections),
        cmocka_unit_test(takes_a_head_apart),
        cmocka_unit_test(refuses),
        cmocka_unit_test(knows_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
