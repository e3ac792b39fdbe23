/* The HTTP client (worker/io/httpc.h) against a server that does what servers do, and what they must not. */
#include "tests/unit/fibers.h"
#include "tests/unit/tiny_server.h"
#include "worker/io/httpc.h"
#include "worker/io/resolve.h"

static struct tiny_server server;
static struct config *cfg;
static struct httpc *http;
static struct arena arena;
static struct httpc_reply reply;
static struct err e;
static char base[64], elsewhere[128];

enum { BIG = 48 << 20 };

static bool send_much(struct tiny_request *r)
{
    static const char block[65536];
    char head[128];
    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", BIG);
    bool ok = tiny_text(r, head);
    for (int n = 0; ok && n < BIG; n += (int)sizeof block)
        ok = tiny_send(r, block, sizeof block);
    return ok;
}

static bool answer(struct tiny_request *r)
{
    if (tiny_is(r, "/ok"))
        return tiny_reply(r, "200 OK", "Content-Type: text/plain\r\n", "hello");
    if (tiny_is(r, "/echo"))
        return tiny_reply(r, "200 OK", "", r->text);
    if (tiny_is(r, "/later"))
        return tiny_reply(r, "429 Too Many Requests", "Retry-After: 7\r\n", "");
    if (tiny_is(r, "/soon"))
        return tiny_reply(r, "503 Busy", "Retry-After: 9\r\nretry-after-ms: 250\r\n", "");
    if (tiny_is(r, "/long-ago"))
        return tiny_reply(r, "503 Busy", "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "");
    if (tiny_is(r, "/to/ok"))
        return tiny_reply(r, "302 Found", "Location: ../ok\r\n", "");
    if (tiny_is(r, "/to/echo"))
        return tiny_reply(r, "303 See Other", "Location: /echo\r\n", "");
    if (tiny_is(r, "/to/elsewhere"))
        return tiny_reply(r, "307 Temporary Redirect", elsewhere, "");
    if (tiny_is(r, "/to/itself"))
        return tiny_reply(r, "301 Moved", "Location: itself\r\n", "");
    if (tiny_is(r, "/to/file"))
        return tiny_reply(r, "301 Moved", "Location: file:///etc/passwd\r\n", "");
    if (tiny_is(r, "/cut"))
        return tiny_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") && false;
    if (tiny_is(r, "/nonsense"))
        return tiny_text(r, "whatever\r\n\r\n") && false;
    if (tiny_is(r, "/stream"))
        return tiny_text(r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\none, \r\n") &&
               tiny_text(r, "3\r\ntwo\r\n0\r\n\r\n");
    if (tiny_is(r, "/stalls"))
        tiny_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
    if (tiny_is(r, "/much"))
        return send_much(r);
    return strncmp(r->path, "http://", 7) != 0 || tiny_reply(r, "200 OK", "", r->text); /* to a proxy; else no answer */
}

static const char *url(const char *path)
{
    return arena_printf(&arena, "%s%s", base, path).p;
}

static suspends int get(const char *address, bool public_only)
{
    struct httpc_request q = {.method = "GET",
                              .url = str_of(address),
                              .timeout_ms = 30000,
                              .max_reply = 1 << 20,
                              .max_redirects = 3,
                              .public_only = public_only};
    return httpc_do(http, &arena, &q, &reply, &e);
}

#define body_is(text) assert_true(str_eqz(reply.body, text))
#define fails_with(wanted, call)            \
    do {                                    \
        assert_int_equal(call, -1);         \
        assert_int_equal(e.code, (wanted)); \
    } while (0)

/* ---- each is the body of one test, on a fiber ---- */

static suspends void answers(void)
{
    for (int i = 0; i < 3; i++) {
        assert_int_equal(get(url("/ok"), false), 0);
        body_is("hello");
        assert_int_equal(reply.status, 200);
        assert_true(str_eqz(reply.content_type, "text/plain"));
        assert_int_equal(reply.retry_after_ms, -1);
    }
    assert_int_equal(atomic_load(&server.connections), 1); /* which was kept */
}

static suspends void sends(void)
{
    struct httpc_header headers[] = {{"Authorization", STR("Bearer x")}, {"X-Empty", STR("")}};
    struct httpc_request q = {.method = "PUT",
                              .url = str_of(url("/echo?a=b#c")),
                              .header = headers,
                              .n_header = 2,
                              .body = STR("{\"a\":1}"),
                              .timeout_ms = 30000};
    assert_int_equal(httpc_do(http, &arena, &q, &reply, &e), 0);
    const char *sent = reply.body.p;
    assert_non_null(strstr(sent, "PUT /echo?a=b HTTP/1.1\r\n"));
    assert_non_null(strstr(sent, "Authorization: Bearer x\r\n"));
    assert_non_null(strstr(sent, "X-Empty:\r\n"));
    assert_non_null(strstr(sent, "Content-Length: 7\r\n"));
    assert_null(strstr(sent, "Content-Type"));
    assert_non_null(strstr(sent, "\r\n\r\n{\"a\":1}"));
    headers[0].value = STR("a\r\nInjected: b");
    fails_with(ERR_VALIDATION, httpc_do(http, &arena, &q, &reply, &e));
}

static suspends void hears_when_to_retry(void)
{
    assert_int_equal(get(url("/later"), false), 0);
    assert_int_equal(reply.status, 429);
    assert_int_equal(reply.retry_after_ms, 7000);
    assert_int_equal(get(url("/soon"), false), 0);
    assert_int_equal(reply.retry_after_ms, 250);
    assert_int_equal(get(url("/long-ago"), false), 0);
    assert_int_equal(reply.retry_after_ms, 0);
}

static suspends void follows_redirects(void)
{
    struct httpc_header secret[] = {{"Authorization", STR("Bearer x")}, {"api-key", STR("y")}};
    struct httpc_request q = {.method = "POST",
                              .url = str_of(url("/to/echo")),
                              .header = secret,
                              .n_header = 2,
                              .body = STR("abc"),
                              .timeout_ms = 30000,
                              .max_redirects = 1};
    assert_int_equal(get(url("/to/ok"), false), 0);
    body_is("hello");
    assert_true(str_eqz(reply.url, url("/ok")));
    assert_int_equal(httpc_do(http, &arena, &q, &reply, &e), 0);
    assert_non_null(strstr(reply.body.p, "GET /echo HTTP/1.1\r\n"));
    assert_non_null(strstr(reply.body.p, "Authorization"));
    assert_non_null(strstr(reply.body.p, "api-key"));
    q.url = str_of(url("/to/elsewhere")); /* localhost is another server than 127.0.0.1 */
    assert_int_equal(httpc_do(http, &arena, &q, &reply, &e), 0);
    assert_non_null(strstr(reply.body.p, "POST /echo HTTP/1.1\r\n"));
    assert_null(strstr(reply.body.p, "Authorization"));
    assert_null(strstr(reply.body.p, "api-key"));
    assert_int_equal(get(url("/to/itself"), false), 0);
    assert_int_equal(reply.status, 301);
    fails_with(ERR_VALIDATION, get(url("/to/file"), false));
}

static suspends void refuses_what_is_not_public(void)
{
    static const char *const bad[] = {
        "http://127.0.0.1/",        "http://2130706433/",       "http://0x7f.1/",    "http://[::1]/",
        "http://localhost./",       "http://[::ffff:10.0.0.1]", "http://10.0.0.1/",  "http://169.254.169.254/latest",
        "http://100.64.1.1/",       "http://0.0.0.0/",          "http://[fe80::1]/", "http://user@93.184.216.34/",
        "http://[64:ff9b::a00:1]/",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        fails_with(ERR_VALIDATION, get(bad[i], true));
    assert_int_equal(atomic_load(&server.requests), 0);
}

/* cfg allows 127.0.0.1, but where that redirects to is looked at again. */
static suspends void checks_each_redirect(void)
{
    assert_int_equal(get(url("/ok"), true), 0);
    assert_int_equal(atomic_load(&server.requests), 1);
    snprintf(elsewhere, sizeof elsewhere, "Location: http://[::1]:%d/ok\r\n", server.port);
    fails_with(ERR_VALIDATION, get(url("/to/elsewhere"), true));
    snprintf(elsewhere, sizeof elsewhere, "Location: http://10.255.255.1/\r\n");
    fails_with(ERR_VALIDATION, get(url("/to/elsewhere"), true));
    assert_int_equal(atomic_load(&server.requests), 3);
}

static suspends void refuses_nonsense(void)
{
    static const char *const bad[] = {"",
                                      "x",
                                      "ftp://127.0.0.1/",
                                      "http://",
                                      "http://a b/",
                                      "http://127.0.0.1:99999/",
                                      "file:///etc/passwd",
                                      "http://[::1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        fails_with(ERR_VALIDATION, get(bad[i], false));
}

static suspends void tells_how_it_failed(void)
{
    struct httpc_request q = {.method = "GET", .url = str_of(url("/much")), .timeout_ms = 30000, .max_reply = 100000};
    fails_with(ERR_NOT_READY, get(url("/cut"), false));
    fails_with(ERR_NOT_READY, get(url("/nonsense"), false));
    fails_with(ERR_TOO_LARGE, httpc_do(http, &arena, &q, &reply, &e));
    q.url = str_of(url("/never"));
    q.timeout_ms = 50;
    fails_with(ERR_DEADLINE, httpc_do(http, &arena, &q, &reply, &e));
    q.timeout_ms = 30000;
    fiber_set_deadline(fiber_self(), clock_ns() + 50 * MS);
    fails_with(ERR_DEADLINE, httpc_do(http, &arena, &q, &reply, &e));
    fiber_set_deadline(fiber_self(), 0);
    fails_with(ERR_NOT_READY, get("http://no-such-host.invalid/", false));
    fails_with(ERR_NOT_READY, get("http://user:secret@127.0.0.1:1/a@b", false));
    assert_non_null(strstr(e.log, "127.0.0.1:1"));
    assert_null(strstr(e.log, "secret"));
    fails_with(ERR_NOT_READY, get("http://127.0.0.1:1/", false));
    assert_null(strstr(e.msg, "127.0.0.1"));
    assert_non_null(strstr(e.log, "http://127.0.0.1:1"));
    assert_int_equal(get(url("/ok"), false), 0); /* and goes on */
}

static suspends void streams(void)
{
    struct httpc_request q = {.method = "GET", .url = str_of(url("/stream")), .timeout_ms = 30000};
    struct httpc_stream *s;
    struct buf all = {0};
    struct str piece;
    assert_int_equal(httpc_stream_open(http, &arena, &q, &s, &reply, &e), 0);
    assert_int_equal(reply.status, 200);
    do {
        assert_int_equal(httpc_stream_read(s, &piece, &e), 0);
        buf_str(&all, piece);
    } while (piece.n);
    assert_true(str_eqz(buf_view(&all), "one, two"));
    buf_fini(&all);
    httpc_stream_close(s);
    q.url = str_of(url("/stalls"));
    q.idle_timeout_ms = 50;
    assert_int_equal(httpc_stream_open(http, &arena, &q, &s, &reply, &e), 0);
    assert_int_equal(httpc_stream_read(s, &piece, &e), 0);
    assert_true(str_eqz(piece, "abc"));
    fails_with(ERR_DEADLINE, httpc_stream_read(s, &piece, &e));
    httpc_stream_close(s);
    q.url = str_of(url("/cut"));
    assert_int_equal(httpc_stream_open(http, &arena, &q, &s, &reply, &e), 0);
    assert_int_equal(httpc_stream_read(s, &piece, &e), 0);
    fails_with(ERR_NOT_READY, httpc_stream_read(s, &piece, &e));
    httpc_stream_close(s);
}

/* Whoever does not read makes the server wait: what it could send stops growing long before the end. */
static suspends void holds_the_sender_back(void)
{
    struct httpc_request q = {.method = "GET", .url = str_of(url("/much")), .timeout_ms = 60000};
    struct httpc_stream *s;
    struct str piece;
    long long before = -1, got = 0;
    assert_int_equal(httpc_stream_open(http, &arena, &q, &s, &reply, &e), 0);
    for (int same = 0; same < 5; same = atomic_load(&server.sent) == before ? same + 1 : 0) {
        before = atomic_load(&server.sent);
        fiber_sleep(20 * MS);
    }
    assert_true(before < BIG);
    do {
        assert_int_equal(httpc_stream_read(s, &piece, &e), 0);
        assert_true(piece.n <= (1 << 20));
        got += (long long)piece.n;
    } while (piece.n);
    assert_int_equal(got, BIG);
    httpc_stream_close(s);
}

static suspends void goes_through_a_proxy(void)
{
    assert_int_equal(get("http://example.invalid/x", false), 0);
    assert_non_null(strstr(reply.body.p, "GET http://example.invalid/x HTTP/1.1\r\n"));
    assert_int_equal(get(url("/ok"), false), 0); /* this machine never needs one */
    body_is("hello");
    fails_with(ERR_NOT_READY, get("http://not.intern.invalid/", false)); /* outgoing.no_proxy */
    fails_with(ERR_VALIDATION, get("http://10.0.0.1/", true));
}

/* ---- several fibers ---- */

static int under_way, ended;
static enum err_code how;

static suspends void asks_for_ever(void *arg)
{
    struct arena a = {0};
    struct httpc_reply r;
    struct err why = {0};
    struct httpc_request q = {.method = "GET", .url = str_of(arg), .timeout_ms = 60000};
    under_way++;
    assert_int_equal(httpc_do(http, &a, &q, &r, &why), -1);
    how = why.code;
    ended++;
    arena_fini(&a);
}

static suspends void until_ended(int n)
{
    while (ended < n)
        assert_int_equal(fiber_sleep(1 * MS), 0);
}

static suspends void can_be_canceled(void)
{
    struct fiber *f = fiber_spawn("asks", asks_for_ever, (void *)(uintptr_t)url("/never"));
    while (!atomic_load(&server.requests))
        assert_int_equal(fiber_sleep(1 * MS), 0);
    fiber_cancel(f);
    until_ended(1);
    assert_int_equal(how, ERR_CANCELED);
}

/* Two are under way (the setting), the third waits; closing the client ends all. */
static suspends void bounds_what_is_under_way(void)
{
    for (int i = 0; i < 3; i++)
        fiber_spawn("asks", asks_for_ever, (void *)(uintptr_t)url("/never"));
    while (atomic_load(&server.requests) < 2)
        assert_int_equal(fiber_sleep(1 * MS), 0);
    fails_with(ERR_DEADLINE, (fiber_set_deadline(fiber_self(), clock_ns() + 30 * MS), get(url("/ok"), false)));
    fiber_set_deadline(fiber_self(), 0);
    assert_int_equal(atomic_load(&server.requests), 2);
    httpc_close(http);
    http = NULL;
    until_ended(3);
    assert_int_equal(how, ERR_CANCELED);
}

/* ---- */

static void (*test_body)(void);

static suspends void run_body(void *arg)
{
    (void)arg;
    test_body();
    loop_stop();
}

static void run(void (*fn)(void), const char *const *sets, int n)
{
    assert_int_equal(config_load(&(struct config_args){.set = sets, .n_set = n}, &cfg, &e), 0);
    tiny_start(&server, answer);
    snprintf(base, sizeof base, "http://127.0.0.1:%d", server.port);
    snprintf(elsewhere, sizeof elsewhere, "Location: http://localhost:%d/echo\r\n", server.port);
    under_way = ended = 0;
    arena_init(&arena);
    assert_int_equal(httpc_open(cfg, &http, &e), 0);
    test_body = fn;
    fiber_spawn("test", run_body, NULL);
    loop_run();
    httpc_close(http);
    arena_fini(&arena);
    tiny_stop(&server);
    config_free(cfg);
}

#define PLAIN(name, body)          \
    static void name(void **state) \
    {                              \
        (void)state;               \
        run(body, NULL, 0);        \
    }
PLAIN(test_answers_on_a_kept_connection, answers)
PLAIN(test_sends_what_it_is_given, sends)
PLAIN(test_hears_when_to_retry, hears_when_to_retry)
PLAIN(test_follows_redirects, follows_redirects)
PLAIN(test_refuses_what_is_not_public, refuses_what_is_not_public)
PLAIN(test_refuses_nonsense, refuses_nonsense)
PLAIN(test_tells_how_it_failed, tells_how_it_failed)
PLAIN(test_streams, streams)
PLAIN(test_holds_the_sender_back, holds_the_sender_back)
PLAIN(test_can_be_canceled, can_be_canceled)

static void test_checks_each_redirect(void **state)
{
    (void)state;
    run(checks_each_redirect, (const char *const[]){"outgoing.allow_networks=127.0.0.1"}, 1);
}

static void test_bounds_what_is_under_way(void **state)
{
    (void)state;
    run(bounds_what_is_under_way, (const char *const[]){"outgoing.max_requests=2"}, 1);
}

static void test_goes_through_a_proxy(void **state)
{
    struct tiny_server proxy = {0};
    char set[64];
    (void)state;
    tiny_start(&proxy, answer);
    snprintf(set, sizeof set, "outgoing.http_proxy=127.0.0.1:%d", proxy.port);
    run(goes_through_a_proxy, (const char *const[]){set, "outgoing.no_proxy=intern.invalid"}, 2);
    tiny_stop(&proxy);
}

static void test_a_missing_ca_file_is_told(void **state)
{
    const char *const sets[] = {"outgoing.ca_file=/nowhere/ca.pem"};
    (void)state;
    assert_int_equal(config_load(&(struct config_args){.set = sets, .n_set = 1}, &cfg, &e), 0);
    fails_with(ERR_VALIDATION, httpc_open(cfg, &http, &e));
    assert_non_null(strstr(e.msg, "/nowhere/ca.pem"));
    config_free(cfg);
}

/* ---- names ---- */

static int resolved;

static suspends void resolves_localhost(void *arg)
{
    struct resolved r;
    (void)arg;
    assert_int_equal(resolve_name(STR("localhost"), &r, &e), 0);
    assert_true(r.n >= 1);
    for (int i = 0; i < r.n; i++)
        assert_false(resolve_is_public(&r.addr[i]));
    if (++resolved == 5)
        loop_stop();
}

static void test_resolves_once_for_all_who_ask(void **state)
{
    (void)state;
    resolve_forget();
    for (int i = 0; i < 5; i++)
        fiber_spawn("asks", resolves_localhost, NULL);
    loop_run();
    resolve_forget();
}

static void test_knows_public_addresses(void **state)
{
    static const char *const good[] = {"93.184.216.34", "1.1.1.1", "172.32.0.1", "2606:4700::1111"};
    static const char *const bad[] = {"127.0.0.1",
                                      "10.1.2.3",
                                      "172.31.255.255",
                                      "192.168.0.1",
                                      "169.254.169.254",
                                      "100.127.0.1",
                                      "0.0.0.0",
                                      "224.0.0.1",
                                      "255.255.255.255",
                                      "198.18.0.1",
                                      "::",
                                      "::1",
                                      "fe80::1",
                                      "fc00::1",
                                      "ff02::1",
                                      "::ffff:10.0.0.1",
                                      "64:ff9b::1",
                                      "2002:a00:1::",
                                      "2001:db8::1"};
    struct net_addr a;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(net_addr_parse(str_of(good[i]), &a) && resolve_is_public(&a));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_true(net_addr_parse(str_of(bad[i]), &a) && !resolve_is_public(&a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_answers_on_a_kept_connection),
        TEST(test_sends_what_it_is_given),
        TEST(test_hears_when_to_retry),
        TEST(test_follows_redirects),
        TEST(test_refuses_what_is_not_public),
        TEST(test_checks_each_redirect),
        TEST(test_refuses_nonsense),
        TEST(test_tells_how_it_failed),
        TEST(test_streams),
        TEST(test_holds_the_sender_back),
        TEST(test_can_be_canceled),
        TEST(test_bounds_what_is_under_way),
        TEST(test_goes_through_a_proxy),
        TEST(test_a_missing_ca_file_is_told),
        TEST(test_resolves_once_for_all_who_ask),
        TEST(test_knows_public_addresses),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
