/* The HTTP client (worker/io/httpc.h) and certificates: of an authority that is trusted or not, for another host, of
 * yesterday. The authority is made by openssl in a directory of the test. */
#include "tests/unit/fibers.h"
#include "tests/unit/tiny_server.h"
#include "worker/io/httpc.h"
#include <openssl/ssl.h>

static char dir[] = "/tmp/ragd-tls.XXXXXX", elsewhere[128];
static struct tiny_server server, plain;
static struct httpc *http;
static struct arena arena;
static struct httpc_reply reply;
static struct err e;

enum { MUCH = 4 << 20 };

static bool answer(struct tiny_request *r)
{
    static const char block[65536];
    if (tiny_is(r, "/to/elsewhere"))
        return tiny_reply(r, "307 Temporary Redirect", elsewhere, "");
    if (!tiny_is(r, "/much"))
        return tiny_reply(r, "200 OK", "", r->text);
    bool ok = tiny_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n");
    for (int n = 0; ok && n < MUCH; n += (int)sizeof block)
        ok = tiny_send(r, block, sizeof block);
    return ok;
}

static int make_certificates(void **state)
{
    static const char script[] =
        "req='openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes' && "
        "for ca in ca other; do $req -x509 -keyout $ca.key -out $ca.pem -days 2 -subj /CN=$ca || exit 1; done && "
        "$req -keyout key.pem -out req.pem -subj /CN=server && "
        "sign() { printf \"subjectAltName=$3\" >ext && openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key "
        "-CAcreateserial -days $2 -extfile ext -out $1; } && "
        "sign good.pem 2 DNS:localhost,IP:127.0.0.1 && sign foreign.pem 2 DNS:elsewhere.invalid && "
        "sign old.pem -1 DNS:localhost && echo nonsense >broken.pem";
    char line[1024];
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(line, sizeof line, "cd %s && { %s; } >log 2>&1", dir, script);
    return system(line);
}

static int remove_certificates(void **state)
{
    char line[64];
    (void)state;
    snprintf(line, sizeof line, "rm -r %s", dir);
    return system(line);
}

static const char *in_dir(const char *name)
{
    static char path[2][64];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static suspends int get(const char *host, const char *path)
{
    struct httpc_header secret = {"api-key", STR("hunter2")};
    struct httpc_request q = {.method = "GET",
                              .url = arena_printf(&arena, "https://%s:%d%s", host, server.port, path),
                              .header = &secret,
                              .n_header = 1,
                              .timeout_ms = 60000,
                              .max_redirects = 1};
    return httpc_do(http, &arena, &q, &reply, &e);
}

/* ---- each is the body of one test, on a fiber ---- */

static suspends void works(void)
{
    assert_int_equal(get("localhost", "/"), 0);
    assert_non_null(strstr(reply.body.p, "api-key: hunter2"));
    assert_int_equal(get("127.0.0.1", "/much"), 0);
    assert_int_equal(reply.body.n, MUCH);
    assert_int_equal(get("127.0.0.1", "/"), 0);
    assert_int_equal(atomic_load(&server.connections), 2); /* a host each, which were kept */
}

static suspends void streams(void)
{
    struct httpc_request q = {
        .method = "GET", .url = arena_printf(&arena, "https://localhost:%d/much", server.port), .timeout_ms = 60000};
    struct httpc_stream *s;
    struct str piece;
    size_t n = 0;
    assert_int_equal(httpc_stream_open(http, &arena, &q, &s, &reply, &e), 0);
    do {
        assert_int_equal(httpc_stream_read(s, &piece, &e), 0);
        n += piece.n;
    } while (piece.n);
    assert_int_equal(n, MUCH);
    httpc_stream_close(s);
}

/* A redirect to another server, with TLS or without, does not take the key along. */
static suspends void keeps_the_key_at_home(void)
{
    snprintf(elsewhere, sizeof elsewhere, "Location: https://127.0.0.1:%d/\r\n", server.port);
    assert_int_equal(get("localhost", "/to/elsewhere"), 0);
    assert_int_equal(reply.status, 200);
    assert_null(strstr(reply.body.p, "hunter2"));
    snprintf(elsewhere, sizeof elsewhere, "Location: http://localhost:%d/\r\n", plain.port);
    assert_int_equal(get("localhost", "/to/elsewhere"), 0);
    assert_int_equal(reply.status, 200);
    assert_null(strstr(reply.body.p, "hunter2"));
    assert_int_equal(atomic_load(&plain.requests), 1);
}

/* The log says why, and which setting helps if one does; the key is not in it. No request has been sent. */
static suspends void is_refused(const char *why, bool curable)
{
    assert_int_equal(get("localhost", "/"), -1);
    assert_int_equal(e.code, ERR_NOT_READY);
    assert_non_null(strstr(e.log, "https://localhost:"));
    assert_non_null(strstr(e.log, why));
    assert_int_equal(strstr(e.log, "outgoing.ca_file") != NULL, curable);
    assert_null(strstr(e.log, "hunter2"));
    assert_null(strstr(e.msg, "hunter2"));
    assert_int_equal(atomic_load(&server.requests), 0);
}

static suspends void is_a_stranger(void)
{
    is_refused("unable to get local issuer certificate", true);
}

static suspends void is_for_another_host(void)
{
    is_refused("localhost", false);
    assert_non_null(strstr(e.log, "name"));
}

static suspends void has_expired(void)
{
    is_refused("expired", false);
}

static suspends void vanishes(void)
{
    assert_int_equal(unlink(in_dir("vanishing.pem")), 0);
    assert_int_equal(get("localhost", "/"), -1);
    assert_int_equal(e.code, ERR_NOT_READY);
    assert_non_null(strstr(e.log, "outgoing.ca_file"));
}

/* ---- */

static void (*test_body)(void);

static suspends void run_body(void *arg)
{
    (void)arg;
    test_body();
    loop_stop();
}

/* `ca` NULL: the authorities of the system. */
static void run(void (*fn)(void), const char *certificate, const char *ca)
{
    struct config *cfg;
    char set[128];
    const char *const sets[] = {set, "outgoing.connect_timeout=60s"};
    snprintf(set, sizeof set, "outgoing.ca_file=%s", ca ? in_dir(ca) : "");
    assert_int_equal(config_load(&(struct config_args){.set = sets, .n_set = 2}, &cfg, &e), 0);
    server.tls = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate_chain_file(server.tls, in_dir(certificate)), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(server.tls, in_dir("key.pem"), SSL_FILETYPE_PEM), 1);
    tiny_start(&server, answer);
    tiny_start(&plain, answer);
    arena_init(&arena);
    assert_int_equal(httpc_open(cfg, &http, &e), 0);
    test_body = fn;
    fiber_spawn("test", run_body, NULL);
    loop_run();
    httpc_close(http);
    arena_fini(&arena);
    tiny_stop(&plain);
    tiny_stop(&server);
    SSL_CTX_free(server.tls);
    config_free(cfg);
}

#define CASE(name, body, certificate, ca) \
    static void name(void **state)        \
    {                                     \
        (void)state;                      \
        run(body, certificate, ca);       \
    }
CASE(test_a_trusted_authority, works, "good.pem", "ca.pem")
CASE(test_a_stream, streams, "good.pem", "ca.pem")
CASE(test_a_redirect, keeps_the_key_at_home, "good.pem", "ca.pem")
CASE(test_an_authority_that_the_system_does_not_know, is_a_stranger, "good.pem", NULL)
CASE(test_another_authority, is_a_stranger, "good.pem", "other.pem")
CASE(test_another_host, is_for_another_host, "foreign.pem", "ca.pem")
CASE(test_a_certificate_of_yesterday, has_expired, "old.pem", "ca.pem")

static void test_a_ca_file_that_vanishes(void **state)
{
    char line[128];
    (void)state;
    snprintf(line, sizeof line, "cp %s/ca.pem %s/vanishing.pem", dir, dir);
    assert_int_equal(system(line), 0);
    run(vanishes, "good.pem", "vanishing.pem");
}

static void test_a_ca_file_without_certificates(void **state)
{
    struct config *cfg;
    char set[128];
    const char *const sets[] = {set};
    (void)state;
    snprintf(set, sizeof set, "outgoing.ca_file=%s", in_dir("broken.pem"));
    assert_int_equal(config_load(&(struct config_args){.set = sets, .n_set = 1}, &cfg, &e), 0);
    assert_int_equal(httpc_open(cfg, &http, &e), -1);
    assert_int_equal(e.code, ERR_VALIDATION);
    assert_non_null(strstr(e.msg, "outgoing.ca_file"));
    config_free(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_trusted_authority),
        TEST(test_a_stream),
        TEST(test_a_redirect),
        TEST(test_an_authority_that_the_system_does_not_know),
        TEST(test_another_authority),
        TEST(test_another_host),
        TEST(test_a_certificate_of_yesterday),
        TEST(test_a_ca_file_that_vanishes),
        TEST(test_a_ca_file_without_certificates),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
