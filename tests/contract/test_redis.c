/* How worker/io/redis.h lives through what happens to servers: absence, restart, standstill, refusal; TLS, Sentinel. */
#include "tests/contract/cache_world.h"
#include "worker/io/redis.h"

static struct private_redis server;

static struct str server_url(struct world *w, const char *form)
{
    static char url[200];
    (void)w;
    snprintf(url, sizeof url, form, server.port);
    return str_of(url);
}

static void run_with(void (*fn)(struct world *), const char *form)
{
    struct world w = {.c = NULL};
    world_config(&w, server_url(&w, form).p);
    world_run(&w, fn);
}

/* ---- ways to name a server ---- */

static suspends void answers(struct world *w)
{
    ok(w, cache_ping(w->c, &w->e));
    ok(w, OP(w, set, STR("way"), STR("in"), 60000, &w->e));
    must(w, str_eqz(text(w, "way"), "in"));
}

static void urls(void **state)
{
    char url[200];
    (void)state;
    run_with(answers, "redis://localhost:%d");
    run_with(answers, "redis://127.0.0.1:%d/15");
    run_with(answers, "redis://127.0.0.1:1,127.0.0.1:%d/0"); /* the first one is away */
    snprintf(url, sizeof url, "unix:%s/socket?db=2", server.dir);
    run_with(answers, url);
    snprintf(url, sizeof url, "unix://%s/socket", server.dir);
    run_with(answers, url);
}

static void wrong_urls(void **state)
{
    static const char *const bad[] = {
        "redis://",
        "redis://:6379",
        "redis://h:0",
        "redis://h:65536",
        "redis://h:x",
        "redis://h/x",
        "redis://h/65536",
        "redis://::1",
        "redis://[::1",
        "redis://[::1]6379",
        "redis://u@h",
        "redis://u:%zz@h",
        "redis://u:%4@h",
        "redis://u:%00@h",
        "redis://h?a=b",
        "redis://a,b,c,d,e,f,g,h,i",
        "unix:relative",
        "unix:/x?database=1",
        "unix:/x?db=-1",
        "redis+sentinel://h:26379",
        "redis+sentinel://h/",
        "redis+sentinel://h/m/x",
    };
    struct world w;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        world_config(&w, bad[i]);
        w.e.code = ERR_NONE;
        if (cache_check(&w.cfg, &w.e) == 0)
            fail_msg("%s was accepted", bad[i]);
        assert_int_equal(w.e.code, ERR_VALIDATION);
        assert_int_equal(strncmp(w.e.msg, "cache.url: ", 11), 0);
        assert_null(strstr(w.e.msg, "%zz"));
    }
    world_config(&w, "rediss://h");
    w.cfg.cache_ca_file = "/nonexistent.pem";
    assert_int_equal(cache_check(&w.cfg, &w.e), -1);
    assert_int_equal(strncmp(w.e.msg, "cache.ca_file: ", 15), 0);
}

/* ---- servers that are not there ---- */

static suspends void nobody_listens(struct world *w)
{
    int64_t begin = clock_ns();
    fails(w, ERR_NOT_READY, cache_ping(w->c, &w->e));
    must(w, strstr(w->e.log, "refused"));
    for (int i = 0; i < 100; i++)
        fails(w, ERR_NOT_READY, cache_ping(w->c, &w->e));
    must(w, clock_ns() - begin < w->cfg.cache_timeout * MS); /* that is 10 s: nobody waited for it */
}

static void absence_costs_nothing(void **state)
{
    char url[60];
    struct world w = {.c = NULL};
    (void)state;
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", free_port());
    world_config(&w, url);
    world_run(&w, nobody_listens);
}

static suspends void comes_back(struct world *w)
{
    ok(w, OP(w, set, STR("a"), STR("1"), 60000, &w->e));
    must(w, str_eqz(text(w, "a"), "1"));
    private_redis_halt(&server);
    until(w, cache_ping(w->c, &w->e) < 0);
    must(w, w->e.code == ERR_NOT_READY);
    private_redis_launch(&server);
    until(w, cache_ping(w->c, &w->e) == 0);
    must(w, str_eqz(text(w, "a"), "(none)"));
}

static void a_restart_is_survived(void **state)
{
    (void)state;
    run_with(comes_back, "redis://127.0.0.1:%d");
}

/* As its `timeout` setting does it. */
static suspends void is_cut_off(struct world *w)
{
    ok(w, cache_ping(w->c, &w->e));
    until(w, redis_says(&server, "client kill type normal skipme yes", "1") == 0);
    until(w, cache_ping(w->c, &w->e) == 0);
    answers(w);
}

static void a_closed_connection_is_made_anew(void **state)
{
    (void)state;
    run_with(is_cut_off, "redis://127.0.0.1:%d");
}

struct waiting {
    struct world *w;
    int deadline_ms; /* 0: none */
    bool done;
    int rc;
    struct err e;
    struct fiber *fiber;
};

static suspends void wait_main(void *arg)
{
    struct waiting *x = arg;
    x->fiber = fiber_self();
    if (x->deadline_ms)
        fiber_set_deadline(x->fiber, clock_ns() + x->deadline_ms * MS);
    x->rc = cache_ping(x->w->c, &x->e);
    x->done = true;
}

static suspends void stands_still(struct world *w)
{
    struct waiting x[3] = {{.w = w}, {.w = w, .deadline_ms = 10}, {.w = w}};
    ok(w, cache_ping(w->c, &w->e));
    kill(server.pid, SIGSTOP);
    fiber_spawn("cancelled", wait_main, &x[0]);
    fiber_cancel(x[0].fiber);
    until(w, x[0].done);
    must(w, x[0].e.code == ERR_CANCELED);
    fiber_spawn("short of time", wait_main, &x[1]);
    until(w, x[1].done);
    must(w, x[1].e.code == ERR_DEADLINE);
    w->cfg.cache_timeout = 50;
    fiber_spawn("patient", wait_main, &x[2]);
    until(w, x[2].done);
    must(w, x[2].e.code == ERR_NOT_READY && strstr(x[2].e.log, "cache.timeout"));
    w->cfg.cache_timeout = 600000;
    for (int i = 0; i < 100; i++) /* the breaker is open: none of these waits ten minutes */
        fails(w, ERR_NOT_READY, cache_ping(w->c, &w->e));
    kill(server.pid, SIGCONT);
    until(w, cache_ping(w->c, &w->e) == 0);
    answers(w);
}

static void a_server_that_hangs_costs_one_timeout(void **state)
{
    (void)state;
    run_with(stands_still, "redis://127.0.0.1:%d");
}

/* What leaves no trace: a call that was given up before it was sent. */
static suspends void is_overrun(struct world *w)
{
    struct waiting x = {.w = w};
    w->cfg.cache_max_queue = 3;
    for (int i = 0; i < 3; i++)
        ok(w, OP(w, set, STR("q"), STR("1"), 60000, &w->e));
    fails(w, ERR_OVERLOADED, OP(w, set, STR("q"), STR("1"), 60000, &w->e));
    until(w, cache_ping(w->c, &w->e) == 0);
    bool added = false;
    ok(w, OP(w, remove, STR("q"), &w->e));
    fiber_set_deadline(fiber_self(), clock_ns() - 1);
    fails(w, ERR_DEADLINE, OP(w, add, STR("q"), STR("1"), 60000, &added, &w->e));
    fiber_set_deadline(fiber_self(), 0);
    must(w, str_eqz(text(w, "q"), "(none)"));
    w->cfg.cache_max_queue = 1024;
    fiber_spawn("waits for a server that leaves", wait_main, &x);
    cache_close(w->c);
    w->c = NULL;
    until(w, x.done);
    must(w, x.e.code == ERR_CANCELED);
}

static void the_queue_is_bounded(void **state)
{
    (void)state;
    run_with(is_overrun, "redis://127.0.0.1:%d");
}

static suspends void many_at_once(struct world *w)
{
    enum { N = 300, BYTES = 20000 };
    struct waiting *x = calloc(N, sizeof *x);
    char *big = malloc(BYTES);
    memset(big, 'b', BYTES);
    for (int i = 0; i < N; i++) { /* more than the socket takes at once */
        ok(w, OP(w, set, STR("big"), ((struct str){big, BYTES}), 60000, &w->e));
        x[i].w = w;
        fiber_spawn("one of many", wait_main, &x[i]);
    }
    for (int i = 0; i < N; i++) {
        until(w, x[i].done);
        must(w, x[i].rc == 0);
    }
    struct str got = text(w, "big");
    must(w, str_eq(got, ((struct str){big, BYTES})));
    free(big);
    free(x);
}

static void bursts_are_pipelined(void **state)
{
    (void)state;
    run_with(many_at_once, "redis://127.0.0.1:%d");
}

/* ---- who may ---- */

static suspends void is_refused(struct world *w)
{
    fails(w, ERR_NOT_READY, cache_ping(w->c, &w->e));
    must(w, strstr(w->e.log, "WRONGPASS") || strstr(w->e.log, "NOAUTH"));
    must(w, !strstr(w->e.log, "hunter") && !strstr(w->e.msg, "hunter"));
}

static void passwords(void **state)
{
    static const char *const bad[] = {"redis://127.0.0.1:%d", "redis://:hunter3@127.0.0.1:%d",
                                      "redis://eve:hunter2@127.0.0.1:%d"};
    static const char *const good[] = {"redis://:hunter%%2F2@127.0.0.1:%d", "redis://default:hunter%%2F2@127.0.0.1:%d",
                                       "redis://app:p%%40ss@127.0.0.1:%d/1"};
    struct world w = {.c = NULL};
    (void)state;
    private_redis_halt(&server);
    server.options = "requirepass hunter/2\nuser app on >p@ss ~t\\*:* +@all";
    private_redis_launch(&server);
    for (int i = 0; i < 3; i++)
        run_with(is_refused, bad[i]);
    for (int i = 0; i < 3; i++)
        run_with(answers, good[i]);
    world_config(&w, server_url(&w, "redis://127.0.0.1:%d").p);
    w.cfg.cache_password = "hunter/2"; /* cache.password */
    world_run(&w, answers);
    private_redis_halt(&server);
    server.options = NULL;
    private_redis_launch(&server);
}

/* ---- TLS ---- */

static int sh(const char *dir, const char *command)
{
    char line[900];
    snprintf(line, sizeof line, "cd %s && { %s; } >openssl.log 2>&1", dir, command);
    return system(line);
}

static suspends void bad_certificate(struct world *w, const char *why, bool curable)
{
    fails(w, ERR_NOT_READY, cache_ping(w->c, &w->e));
    must(w, strstr(w->e.log, "certificate"));
    must(w, strstr(w->e.log, why));
    must(w, !strstr(w->e.log, "cache.ca_file") == !curable);
}

static suspends void is_not_trusted(struct world *w)
{
    bad_certificate(w, "self-signed certificate in", true);
}

static suspends void is_of_another(struct world *w)
{
    bad_certificate(w, "mismatch", false);
}

static suspends void has_expired(struct world *w)
{
    bad_certificate(w, "expired", false);
}

static void tls(void **state)
{
    char ca[100], options[400];
    struct private_redis secure = {.options = options};
    struct world w = {.c = NULL};
    (void)state;
    int port = free_port();
    /* A certificate for localhost and 127.0.0.1, signed by an authority of the test. */
    assert_int_equal(
        sh(server.dir,
           "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 "
           "-subj /CN=ca && "
           "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out req.pem -subj "
           "/CN=redis && "
           "printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' >ext && "
           "openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out serve.pem "
           "&& "
           "openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days -1 -extfile ext -out old.pem"),
        0);
    snprintf(ca, sizeof ca, "%s/ca.pem", server.dir);
    snprintf(
        options, sizeof options,
        "tls-port %d\ntls-cert-file %s/serve.pem\ntls-key-file %s/key.pem\ntls-ca-cert-file %s\ntls-auth-clients no",
        port, server.dir, server.dir, ca);
    private_redis_start(&secure);
    const struct {
        const char *form, *ca;
        void (*fn)(struct world *);
    } cases[] = {
        {"rediss://127.0.0.1:%d/1", ca, answers},
        {"rediss://localhost:%d", ca, answers},
        {"rediss://localhost:%d", ca, many_at_once},
        {"rediss://localhost:%d", "", is_not_trusted}, /* by the authorities of the system */
        {"rediss://127.0.0.2:%d", ca, is_of_another},
        {"rediss://localhost:%d", ca, has_expired},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char url[100];
        if (cases[i].fn == has_expired) {
            private_redis_halt(&secure);
            assert_int_equal(sh(server.dir, "cp old.pem serve.pem"), 0);
            private_redis_launch(&secure);
        }
        snprintf(url, sizeof url, cases[i].form, port);
        world_config(&w, url);
        w.cfg.cache_ca_file = cases[i].ca;
        world_run(&w, cases[i].fn);
    }
    private_redis_stop(&secure);
}

/* ---- Sentinel ---- */

static struct private_redis second, sentinel;

static suspends void fails_over(struct world *w)
{
    answers(w);
    char want[60];
    until(w, redis_says(&server, "role | head -1", "master") == 0);
    snprintf(want, sizeof want, "127.0.0.1\n%d", second.port);
    until(w, redis_says(&sentinel, "sentinel replicas mymaster | grep -c slave-repl-offset", "1") == 0);
    until(w, redis_says(&sentinel, "sentinel failover mymaster", "OK") == 0);
    until(w, redis_says(&sentinel, "sentinel get-master-addr-by-name mymaster", want) == 0);
    bool added = false; /* a write: reads would be answered by the old master, which is a replica now */
    until(w, OP(w, add, STR("after"), STR("1"), 60000, &added, &w->e) == 0 &&
                 redis_says(&second, "-n 4 get 't*:after'", "1") == 0);
}

static void sentinels(void **state)
{
    char options[200], of[100], url[200];
    struct world w = {.c = NULL};
    (void)state;
    snprintf(of, sizeof of, "replicaof 127.0.0.1 %d\nrepl-diskless-sync-delay 0", server.port);
    second.options = of;
    assert_int_equal(redis_says(&server, "config set repl-diskless-sync-delay 0", "OK"), 0);
    private_redis_start(&second);
    snprintf(options, sizeof options,
             "sentinel monitor mymaster 127.0.0.1 %d 1\nsentinel failover-timeout mymaster 20000", server.port);
    sentinel = (struct private_redis){.mode = "--sentinel", .options = options};
    private_redis_start(&sentinel);
    assert_int_equal(redis_says(&sentinel, "sentinel debug info-period 100 publish-period 100", "OK"),
                     0); /* be quick */
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:1,127.0.0.1:%d/mymaster/4", sentinel.port);
    world_config(&w, url);
    world_run(&w, fails_over);
    private_redis_stop(&sentinel);
    private_redis_stop(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls),
        cmocka_unit_test(wrong_urls),
        cmocka_unit_test(absence_costs_nothing),
        cmocka_unit_test(a_restart_is_survived),
        cmocka_unit_test(a_closed_connection_is_made_anew),
        cmocka_unit_test(a_server_that_hangs_costs_one_timeout),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(bursts_are_pipelined),
        cmocka_unit_test(passwords),
        cmocka_unit_test(tls),
        cmocka_unit_test(sentinels),
    };
    private_redis_start(&server);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    private_redis_stop(&server);
    return failed;
}
