/* Tests of what calls a model server: tests/openai_server.py runs beside them, and a test is a function on a fiber that
 * orders faults, calls, and looks at what the server saw. */
#pragma once
#include "tests/unit/fibers.h"
#include "worker/io/httpc.h"
#include "worker/io/json.h"

static struct {
    pid_t pid;
    int in, out; /* the server's standard input and output */
    int port;
} server;
static struct config *cfg;
static struct httpc *http;
static struct arena arena;
static struct err e;

static inline void server_start(void)
{
    int in[2], out[2];
    char line[64];
    size_t n = 0;
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || (server.pid = fork()) < 0)
        abort();
    if (server.pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execl("/usr/bin/python3", "python3", "tests/openai_server.py", "--dimension", "32", "--key", "secret",
              (char *)0);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    server.in = in[1];
    server.out = out[0];
    do {
        if (n == sizeof line - 1 || read(server.out, line + n, 1) != 1)
            abort();
    } while (line[n++] != '\n');
    line[n] = 0;
    if (sscanf(line, "port %d", &server.port) != 1)
        abort();
}

static inline void server_stop(void)
{
    close(server.in);
    close(server.out);
    while (waitpid(server.pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* POST /control. */
static inline void order(const char *json)
{
    struct httpc_reply reply;
    struct httpc_request q = {.method = "POST",
                              .url = arena_printf(&arena, "http://127.0.0.1:%d/control", server.port),
                              .body = str_of(json),
                              .timeout_ms = 30000};
    assert_int_equal(httpc_do(http, &arena, &q, &reply, &e), 0);
    assert_int_equal(reply.status, 200);
}

static inline json_t *seen(const char *member)
{
    struct httpc_reply reply;
    json_t *state;
    struct httpc_request q = {
        .method = "GET", .url = arena_printf(&arena, "http://127.0.0.1:%d/control", server.port), .timeout_ms = 30000};
    assert_int_equal(httpc_do(http, &arena, &q, &reply, &e), 0);
    assert_int_equal(json_parse(&arena, reply.body, 64, &state, &e), 0);
    json_t *v = json_object_get(state, member);
    assert_non_null(v);
    return v;
}
#define seen_int(member) ((int)json_integer_value(seen(member)))

static void (*test_body)(void);
static void (*test_open)(void), (*test_close)(void);

static inline void run_body(void *arg)
{
    (void)arg;
    test_body();
    loop_stop();
}

/* `sets` ends with NULL. */
static inline void run(void (*fn)(void), const char *const *sets)
{
    const char *all[16];
    char url[64], llm_url[64];
    int n = 0;
    server_start();
    snprintf(url, sizeof url, "embedding.url=http://127.0.0.1:%d/v1/", server.port);
    snprintf(llm_url, sizeof llm_url, "llm.url=http://127.0.0.1:%d/v1", server.port);
    all[n++] = url;
    all[n++] = llm_url;
    all[n++] = "embedding.api_key=secret";
    all[n++] = "llm.api_key=secret";
    all[n++] = "embedding.retry_delay=1ms";
    all[n++] = "llm.retry_delay=1ms";
    while (*sets)
        all[n++] = *sets++;
    assert_int_equal(config_load(&(struct config_args){.set = all, .n_set = n}, &cfg, &e), 0);
    arena_init(&arena);
    assert_int_equal(httpc_open(cfg, &http, &e), 0);
    test_open();
    test_body = fn;
    fiber_spawn("test", run_body, NULL);
    loop_run();
    test_close();
    httpc_close(http);
    arena_fini(&arena);
    config_free(cfg);
    server_stop();
}

#define fails_with(wanted, call)                      \
    do {                                              \
        e = (struct err){0};                          \
        assert_int_equal(call, -1);                   \
        if (e.code != (wanted))                       \
            print_message("%s (%s)\n", e.msg, e.log); \
        assert_int_equal(e.code, (wanted));           \
    } while (0)

/* A test `test_NAME` of the function NAME, with these settings. */
#define MODEL_TEST(name, ...)                                              \
    static void test_##name(void **state)                                  \
    {                                                                      \
        (void)state;                                                       \
        run(name, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL}); \
    }
