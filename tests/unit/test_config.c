#include "tests/unit/cm.h"
#include "config/config_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char path[] = "/tmp/ragd-config-XXXXXX";
static struct err e;

static int make_file(void **state)
{
    int fd = mkstemp(path);
    (void)state;
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static const char *file_with(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    return path;
}

static struct config *load(const struct config_args *args)
{
    struct config *cfg = NULL;
    if (config_load(args, &cfg, &e))
        fail_msg("%s", e.msg);
    return cfg;
}

static struct config *load_yaml(const char *text)
{
    return load(&(struct config_args){.file = file_with(text)});
}

/* Fails, with a message that holds `expected`; a leading %s of it stands for the file. */
static void assert_refused(const struct config_args *args, const char *expected)
{
    struct config *cfg = NULL;
    if (config_load(args, &cfg, &e) == 0)
        fail_msg("accepted, although it should say: %s", expected);
    assert_null(cfg); /* outputs are left alone on failure */
    assert_int_equal(e.code, ERR_VALIDATION);
    if (!strstr(e.msg, expected))
        fail_msg("\"%s\" does not hold \"%s\"", e.msg, expected);
}

static void assert_yaml_refused(const char *text, const char *expected)
{
    char whole[400];
    assert_refused(&(struct config_args){.file = file_with(text)}, expected);
    snprintf(whole, sizeof whole, "%s:", path);
    assert_int_equal(strncmp(e.msg, whole, strlen(whole)), 0);
}

#define ENV(...) (&(struct config_args){.environ = (char *const[]){__VA_ARGS__, NULL}})
#define SET(...)                                                      \
    (&(struct config_args){.set = (const char *const[]){__VA_ARGS__}, \
                           .n_set = (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))})

static char *dump(const struct config *cfg, void (*print)(const struct config *, struct buf *))
{
    struct buf b = {0};
    print(cfg, &b);
    buf_ch(&b, 0);
    return b.p;
}

static void defaults(void **state)
{
    struct config *cfg = load(&(struct config_args){0});
    struct buf b = {0};
    (void)state;
    assert_int_equal(cfg->server_bind.n, 1);
    assert_string_equal(cfg->server_bind.v[0], "127.0.0.1:8000");
    assert_int_equal(cfg->server_workers, 0);
    assert_int_equal(cfg->http_max_request_line, 8192);
    assert_int_equal(cfg->http_request_timeout, 60000);
    assert_string_equal(cfg->database_url, "sqlite:data/ragd.db");
    assert_string_equal(cfg->server_pidfile, "");
    assert_true(cfg->search_bm25_k1 == 1.2 && cfg->search_bm25_b == 0.75);
    assert_int_equal(cfg->log_level, 2);
    assert_false(cfg->debug_faults);
    assert_in_range(config_http_workers(cfg), 1, 64);
    assert_in_range(config_ingest_workers(cfg), 1, 64);
    assert_null(cfg->file);
    config_warnings(cfg, &b);
    assert_int_equal(b.n, 0);
    config_free(cfg);
    config_free(NULL);
}

static void yaml(void **state)
{
    struct config *cfg = load_yaml("# a comment\n"
                                   "server:\n"
                                   "  bind: [127.0.0.1:9000, \"[::1]:9000\", unix:/run/ragd.sock]\n"
                                   "  workers: 4\n"
                                   "  shutdown_delay: 5s\n"
                                   "http: # nothing yet\n"
                                   "limits: {upload: 1G, \"page\": 50}\n"
                                   "search:\n"
                                   "  bm25_k1: 2\n"
                                   "log: {level: WARNING, access: \"off\"}\n"
                                   "debug: {faults: Yes}\n");
    (void)state;
    assert_int_equal(cfg->server_bind.n, 3);
    assert_string_equal(cfg->server_bind.v[1], "[::1]:9000");
    assert_int_equal(cfg->server_workers, 4);
    assert_int_equal(config_http_workers(cfg), 4);
    assert_int_equal(cfg->server_shutdown_delay, 5000);
    assert_true(cfg->limits_upload == 1LL << 30);
    assert_int_equal(cfg->limits_page, 50);
    assert_true(cfg->search_bm25_k1 == 2.0);
    assert_int_equal(cfg->log_level, 1);
    assert_string_equal(cfg->log_access, "off");
    assert_true(cfg->debug_faults);
    assert_string_equal(cfg->file, path);
    config_free(cfg);
    static const char *const empty[] = {"", "# only a comment\n", "---\n", "---\n...\n", "~\n"};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++)
        config_free(load_yaml(empty[i]));
}

static void yaml_aliases(void **state)
{
    struct config *cfg = load_yaml("http:\n  header_timeout: &t 7s\n  body_timeout: *t\n"
                                   "server: {bind: &b [127.0.0.1:1], trusted_proxies: [10.0.0.0/8]}\n");
    (void)state;
    assert_int_equal(cfg->http_body_timeout, 7000);
    config_free(cfg);
    assert_yaml_refused("server: &s\n  bind: *s\n", ":1:9: server.bind: is a mapping");
    assert_yaml_refused("server:\n  <<: {workers: 2}\n", ":2:3: merge keys");
    assert_yaml_refused("server:\n  bind: *nobody\n", ":2:9: ");
}

static void yaml_errors_name_the_place(void **state)
{
    (void)state;
    assert_yaml_refused("server:\n  wrokers: 3\n", ":2:3: unknown key server.wrokers; did you mean server.workers?");
    assert_yaml_refused("sever:\n  workers: 3\n", ":1:1: unknown section sever; did you mean server?");
    assert_yaml_refused("zebra: 1\n", ":1:1: unknown section zebra");
    assert_yaml_refused("http:\n  workers: 3\n", ":2:3: unknown key http.workers; did you mean ");
    assert_yaml_refused("server:\n  workers: 3\n  workers: 4\n", ":3:3: workers is there twice, first in line 2");
    assert_yaml_refused("server: {}\nserver: {}\n", ":2:1: server is there twice");
    assert_yaml_refused("server:\n  workers: many\n",
                        ":2:12: server.workers: \"many\" is not a whole number or `auto`");
    assert_yaml_refused("server:\n  workers: 200\n", ":2:12: server.workers: 200 is out of range, 1 to 128");
    assert_yaml_refused("server:\n  workers: 0\n", "0 is out of range");
    assert_yaml_refused("server:\n  workers: [1]\n", ":2:12: server.workers: is a list");
    assert_yaml_refused("server:\n  workers:\n", "server.workers: has no value");
    assert_yaml_refused("server:\n  pidfile: ~\n", ":2:12: server.pidfile: has no value");
    assert_yaml_refused("server:\n  bind: [a:1, [b:2]]\n", ":2:15: server.bind: element 2 is a list");
    assert_yaml_refused("server:\n  bind: [a:1, ]\n  x", ":4:1: could not find expected ':'");
    assert_yaml_refused("server: 5\n", ":1:9: server: is a value, keys are needed");
    assert_yaml_refused("- a\n", ":1:1: the file holds a list");
    assert_yaml_refused("server:\n  ? [a]\n  : b\n", ":2:5: a list cannot be the name of a key");
    assert_yaml_refused("server:\n  workers: !vault x\n", ":2:12: the tag !vault means nothing here");
    assert_yaml_refused("server: {}\n---\nhttp: {}\n", ":3:1: a second document");
    assert_yaml_refused("server:\n\tworkers: 3\n", ":2:1: ");
    assert_yaml_refused("server: [\n", ":2:1: ");
    assert_yaml_refused("server:\n  language: \"\xff\"\n", ":2:14: ");
    assert_yaml_refused("ingest:\n  language: \"a\\0b\"\n", ":2:13: ingest.language: contains a control character");
    assert_yaml_refused("ingest:\n  language: \"a\\x85b\"\n", "contains a control character at byte 2");
}

static void yaml_files_that_are_none(void **state)
{
    (void)state;
    assert_refused(&(struct config_args){.file = "/nonexistent/ragd.yaml"},
                   "/nonexistent/ragd.yaml: No such file or directory");
    assert_refused(&(struct config_args){.file = "/tmp"}, "/tmp: is a directory");
    config_free(load(&(struct config_args){.file = "/dev/null"}));
    struct buf big = {0};
    for (int i = 0; i < CONFIG_FILE_MAX / 32 + 1; i++)
        buf_lit(&big, "# a line of some thirty-two bytes\n");
    buf_ch(&big, 0);
    assert_refused(&(struct config_args){.file = file_with(big.p)}, "is longer than");
    buf_fini(&big);
}

static void units(void **state)
{
    static const struct {
        const char *set;
        int64_t expected;
    } good[] = {
        {"limits.upload=2048", 2048},    {"limits.upload=64K", 65536},   {"limits.upload=64k", 65536},
        {"limits.upload=64KB", 65536},   {"limits.upload=64KiB", 65536}, {"limits.upload=3M", 3 << 20},
        {"limits.upload= 1G ", 1 << 30}, {"limits.upload=2048B", 2048},
    };
    static const struct {
        const char *set;
        int64_t expected;
    } times[] = {
        {"http.request_timeout=250ms", 250},  {"http.request_timeout=10s", 10000}, {"http.request_timeout=5m", 300000},
        {"http.request_timeout=1h", 3600000}, {"http.request_timeout=0", 0},       {"http.request_timeout=0s", 0},
    };
    static const char *const bad[] = {
        "limits.upload=",
        "limits.upload=K",
        "limits.upload=1.5M",
        "limits.upload=-1K",
        "limits.upload=1 M",
        "limits.upload=1X",
        "limits.upload=99999999999999999999",
        "limits.upload=9999999999G",
        "limits.upload=5G",
        "limits.upload=1023",
        "http.request_timeout=10",
        "http.request_timeout=s",
        "http.request_timeout=2h",
        "http.request_timeout=-1s",
        "search.bm25_b=1.5",
        "search.bm25_b=nan",
        "search.bm25_b=0x1",
        "search.bm25_b=",
        "search.bm25_b=1e999",
        "search.bm25_b=-0.1",
        "debug.faults=maybe",
        "debug.faults=",
        "log.level=loud",
        "log.level=",
        "server.backlog=1.0",
        "server.backlog=auto",
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct config *cfg = load(SET(good[i].set));
        assert_true(cfg->limits_upload == good[i].expected);
        config_free(cfg);
    }
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        struct config *cfg = load(SET(times[i].set));
        assert_true(cfg->http_request_timeout == times[i].expected);
        config_free(cfg);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(SET(bad[i]), "--set: ");
    assert_refused(SET("limits.upload=5G"), "5G is out of range, 1K to 4G are possible");
    assert_refused(SET("http.request_timeout=10"), "write 250ms, 10s, 5m, 24h or 7d");
}

static void set_beats_environment_beats_file(void **state)
{
    char *const env[] = {"RAGD_SERVER_BACKLOG=2", "RAGD_HTTP_MAX_HEADERS=22", NULL};
    const char *const set[] = {"server.backlog=1", "server.backlog=4"};
    struct config *cfg = load(
        &(struct config_args){.file = file_with("server: {backlog: 3}\nhttp: {max_headers: 33, max_pipeline: 34}\n"),
                              .environ = env,
                              .set = set,
                              .n_set = 2});
    (void)state;
    assert_int_equal(cfg->server_backlog, 4); /* the last --set wins */
    assert_int_equal(cfg->http_max_headers, 22);
    assert_int_equal(cfg->http_max_pipeline, 34);
    char *text = dump(cfg, config_dump);
    assert_non_null(strstr(text, "# command line\n"));
    assert_non_null(strstr(text, "# environment RAGD_HTTP_MAX_HEADERS\n"));
    char place[100];
    snprintf(place, sizeof place, "# %s:2:39\n", path);
    assert_non_null(strstr(text, place));
    free(text);
    config_free(cfg);
    assert_refused(SET("server.bakclog=1"), "--set: unknown key server.bakclog; did you mean server.backlog?");
    assert_refused(SET("server.backlog"), "is not of the form section.key=value");
}

static void environment_names(void **state)
{
    struct config *cfg = load(ENV("WEB_CONCURRENCY=3", "LOG_LEVEL=CRITICAL", "PATH=/bin", "REDIS_URL=redis://r",
                                  "ENVIRONMENT=production", "RAGD_DEBUG_FAULTS=on", "NOVALUE"));
    (void)state;
    assert_int_equal(cfg->server_workers, 3);
    assert_int_equal(cfg->log_level, 0);
    assert_true(cfg->debug_faults);
    config_free(cfg);
    cfg = load(ENV("WEB_CONCURRENCY=3", "RAGD_SERVER_WORKERS=5")); /* its own name comes first */
    assert_int_equal(cfg->server_workers, 5);
    config_free(cfg);
    cfg = load(ENV("RAGD_SERVER_WORKERS=", "DATABASE_URL=")); /* ${X:-} of a composed file */
    assert_int_equal(cfg->server_workers, 0);
    assert_string_equal(cfg->database_url, "sqlite:data/ragd.db");
    config_free(cfg);
    assert_refused(ENV("RAGD_SERVER_WORKER=3"), "did you mean RAGD_SERVER_WORKERS?");
    assert_refused(ENV("RAGD_XYZ=3"), "RAGD_XYZ is not the name of a key");
    assert_refused(ENV("PORT=http"), "PORT: server.port: \"http\" is not a whole number");
    assert_refused(ENV("RAGD_SERVER_WORKERS_FILE=/x"), "is not the name of a key"); /* only secrets come from files */
}

/* What Kubernetes puts there for Services named ragd and ragd-server. */
static void service_links_are_not_settings(void **state)
{
    struct config *cfg =
        load(ENV("RAGD_SERVICE_HOST=10.0.0.1", "RAGD_SERVICE_PORT=8000", "RAGD_SERVICE_PORT_HTTP=8000",
                 "RAGD_PORT=tcp://10.0.0.1:8000", "RAGD_PORT_8000_TCP=tcp://10.0.0.1:8000",
                 "RAGD_PORT_8000_TCP_PROTO=tcp", "RAGD_PORT_8000_TCP_PORT=8000", "RAGD_PORT_8000_TCP_ADDR=10.0.0.1",
                 "RAGD_SERVER_PORT=tcp://10.0.0.1:8000", "RAGD_SERVER_SERVICE_HOST=10.0.0.1"));
    (void)state;
    assert_int_equal(cfg->server_port, 0);
    config_free(cfg);
    cfg = load(ENV("RAGD_SERVER_PORT=9000"));
    assert_int_equal(cfg->server_port, 9000);
    config_free(cfg);
}

static void secrets_come_from_files(void **state)
{
    char own[100], alias[100];
    (void)state;
    snprintf(own, sizeof own, "RAGD_DATABASE_URL_FILE=%s", path);
    snprintf(alias, sizeof alias, "DATABASE_URL_FILE=%s", path);
    file_with("postgresql://u:p@h/db\r\n");
    struct config *cfg = load(ENV(own));
    assert_string_equal(cfg->database_url, "postgresql://u:p@h/db");
    config_free(cfg);
    cfg = load(ENV(alias));
    assert_string_equal(cfg->database_url, "postgresql://u:p@h/db");
    config_free(cfg);
    assert_refused(ENV(alias, "DATABASE_URL=sqlite:x"), "DATABASE_URL and DATABASE_URL_FILE are both set");
    assert_refused(ENV("DATABASE_URL_FILE=/nonexistent"), "DATABASE_URL_FILE: /nonexistent: No such file");
    file_with("\n");
    assert_refused(ENV(alias), "the file is empty");
    file_with("postgresql://u:p@h/db\nsecond line\n");
    assert_refused(ENV(alias), "contains a control character");
    file_with("mysql://u:hunter2@h/db");
    assert_refused(ENV(alias), "the scheme is not one of");
    assert_null(strstr(e.msg, "hunter2"));
}

static void dotenv(void **state)
{
    const char *text = "# a stack's file\n"
                       "\n"
                       "export WEB_CONCURRENCY=7\n"
                       "LOG_LEVEL = debug # trailing\r\n"
                       "RAGD_SERVER_PIDFILE='/run/#1 $x.pid'\n"
                       "RAGD_SERVER_CONTROL=\"/run/\\\"q\\\"\" # comment\n"
                       "OTHER=\"several\nlines\"\n"
                       "EMPTY=\n"
                       "RAGD_SERVER_BACKLOG=10\n"
                       "RAGD_SERVER_BACKLOG=11\n"
                       "RAGD_HTTP_MAX_HEADERS=12";
    char *const env[] = {"RAGD_HTTP_MAX_HEADERS=13", NULL};
    (void)state;
    struct config *cfg = load(&(struct config_args){.dotenv = file_with(text), .environ = env});
    assert_int_equal(cfg->server_workers, 7);
    assert_int_equal(cfg->log_level, 3);
    assert_string_equal(cfg->server_pidfile, "/run/#1 $x.pid");
    assert_string_equal(cfg->server_control, "/run/\"q\"");
    assert_int_equal(cfg->server_backlog, 11);
    assert_int_equal(cfg->http_max_headers, 13); /* the environment is stronger */
    config_free(cfg);
    config_free(load(&(struct config_args){.dotenv = "/nonexistent/.env"}));
    static const struct {
        const char *text, *expected;
    } bad[] = {
        {"A=1\nRAGD_SERVER_WORKERS=x\n", ":2:1: server.workers: \"x\""},
        {"A=\"1\n2\"\nRAGD_NOPE=x\n", ":3:1: RAGD_NOPE is not the name of a key"},
        {"A=1\nnonsense\n", ":2:1: is not of the form NAME=value"},
        {"=x\n", ":1:1: is not of the form NAME=value"},
        {"1A=x\n", "\"1A\" is not a name"},
        {"A=\"x\nB=1\n", ":1:1: the quote \" is not closed"},
        {"A='x' y\n", "text after the closing quote"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(&(struct config_args){.dotenv = file_with(bad[i].text)}, bad[i].expected);
}

static void port_stands_for_two_addresses(void **state)
{
    struct config *cfg = load(ENV("PORT=8003"));
    (void)state;
    assert_int_equal(cfg->server_bind.n, 2);
    assert_string_equal(cfg->server_bind.v[0], "0.0.0.0:8003");
    assert_string_equal(cfg->server_bind.v[1], "[::]:8003");
    config_free(cfg);
    char *const env[] = {"PORT=8003", "RAGD_BIND=127.0.0.1:1", NULL};
    const char *const set[] = {"server.bind=127.0.0.1:2"};
    cfg = load(&(struct config_args){.environ = env}); /* equally strong: the platform's PORT */
    assert_string_equal(cfg->server_bind.v[0], "0.0.0.0:8003");
    config_free(cfg);
    cfg = load(&(struct config_args){.environ = env, .set = set, .n_set = 1});
    assert_int_equal(cfg->server_bind.n, 1);
    assert_string_equal(cfg->server_bind.v[0], "127.0.0.1:2");
    assert_int_equal(cfg->server_port, 0);
    config_free(cfg);
}

static void database_urls(void **state)
{
    static const char *const good[][2] = {
        {"postgresql://u:p@h:5432/db", "postgresql://u:p@h:5432/db"},
        {"postgres://u:p@h/db", "postgresql://u:p@h/db"},
        {"postgresql+asyncpg://u:p@h/db?ssl=require", "postgresql://u:p@h/db?sslmode=require"},
        {"postgresql+asyncpg://u:p@h/db?a=b&ssl=true&c=d", "postgresql://u:p@h/db?a=b&sslmode=require&c=d"},
        {"postgresql+psycopg2://u:p@h/db", "postgresql://u:p@h/db"},
        {"postgresql://a:1,b:2/db?target_session_attrs=primary",
         "postgresql://a:1,b:2/db?target_session_attrs=primary"},
        {"sqlite:data/x.db", "sqlite:data/x.db"},
        {"sqlite:/abs/x.db", "sqlite:/abs/x.db"},
        {"sqlite:///rel/x.db", "sqlite:rel/x.db"},
        {"sqlite:////abs/x.db", "sqlite:/abs/x.db"},
        {"sqlite+aiosqlite:///./x.db", "sqlite:./x.db"},
    };
    static const char *const bad[] = {
        "",           "ragd.db",         "mysql://h/db",       "sqlite:",       "sqlite://",
        "sqlite:///", "sqlite::memory:", "sqlite:///:memory:", "sqlite://x.db", "postgresql:db",
        "redis://h"};
    char set[200];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(set, sizeof set, "database.url=%s", good[i][0]);
        struct config *cfg = load(SET(set));
        assert_string_equal(cfg->database_url, good[i][1]);
        config_free(cfg);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(set, sizeof set, "database.url=%s", bad[i]);
        assert_refused(SET(set), "database.url: ");
    }
}

static void addresses(void **state)
{
    static const char *const good[] = {":8000",    "localhost:0", "0.0.0.0:65535",
                                       "[::1]:80", "unix:/run/x", "[::]:80,0.0.0.0:80"};
    static const char *const bad[] = {"8000",   "",     "a:65536",     "a:",    "a:b",     "::1:80",  "[::1:80",
                                      "[x]:80", "[]:1", "http://a:80", "unix:", "a:1,a:1", "a:1,,b:2"};
    char set[400];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(set, sizeof set, "server.bind=%s", good[i]);
        config_free(load(SET(set)));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(set, sizeof set, "server.bind=%s", bad[i]);
        assert_refused(SET(set), "server.bind: ");
    }
    snprintf(set, sizeof set, "server.bind=unix:/%0120d", 1);
    assert_refused(SET(set), "too long for a unix socket");
    struct config *cfg = load(SET("server.trusted_proxies=10.0.0.0/8, ::1, unix"));
    assert_int_equal(cfg->server_trusted_proxies.n, 3);
    assert_string_equal(cfg->server_trusted_proxies.v[1], "::1");
    config_free(cfg);
    cfg = load(ENV("FORWARDED_ALLOW_IPS=*"));
    assert_int_equal(cfg->server_trusted_proxies.n, 3);
    assert_string_equal(cfg->server_trusted_proxies.v[0], "0.0.0.0/0");
    config_free(cfg);
    assert_refused(SET("server.trusted_proxies=10.0.0.0/33"), "is not an address");
    assert_refused(SET("server.trusted_proxies=proxy"), "is not an address");
    cfg = load(SET("server.base_path=/rag/"));
    assert_string_equal(cfg->server_base_path, "/rag");
    config_free(cfg);
    cfg = load(SET("server.base_path=/"));
    assert_string_equal(cfg->server_base_path, "");
    config_free(cfg);
    assert_refused(SET("server.base_path=rag"), "does not begin with /");
    assert_refused(SET("server.base_path=/a/../b"), "is not a plain path");
}

static void rules_between_keys(void **state)
{
    struct buf b = {0};
    (void)state;
    assert_refused(SET("server.workers=9", "server.max_workers=8"), "--set: server.workers: 9 is more than");
    assert_yaml_refused("ingest:\n  chunk_tokens: 32\n", ": ingest.chunk_overlap: 48 must be less than");
    struct config *cfg = load(SET("server.graceful_timeout=40s", "debug.faults=1", "server.trusted_proxies=unix",
                                  "http.keepalive_timeout=5s", "database.url=postgresql://h/d", "server.workers=20"));
    config_warnings(cfg, &b);
    buf_ch(&b, 0);
    assert_non_null(strstr(b.p, "a stop may take 43s"));
    assert_non_null(strstr(b.p, "http.keepalive_timeout should exceed"));
    assert_non_null(strstr(b.p, "database.max_connections is 40"));
    assert_non_null(strstr(b.p, "debug.faults is on"));
    buf_fini(&b);
    config_free(cfg);
}

/* Both dumps are configurations again, and mean the same. */
static void dumps_read_back(void **state)
{
    struct config *cfg = load(SET("server.bind=127.0.0.1:1,unix:/x \"y\\z\"", "limits.upload=3M", "log.level=error",
                                  "http.request_timeout=1500ms", "search.bm25_b=0.1", "server.workers=3",
                                  "server.pidfile=/a: #\xe2\x80\xa8\xef\xbb\xbf", "server.trusted_proxies=unix"));
    void (*const print[])(const struct config *, struct buf *) = {config_dump, config_dump_json};
    (void)state;
    for (int i = 0; i < 2; i++) {
        char *text = dump(cfg, print[i]);
        struct config *again = load_yaml(text);
        for (int k = 0; k < KEY_COUNT; k++)
            if (!config_same(cfg, again, (enum config_key)k))
                fail_msg("%s differs", config_key_name((enum config_key)k));
        config_free(again);
        free(text);
    }
    struct config *other = load(&(struct config_args){0});
    int differ = 0;
    for (int k = 0; k < KEY_COUNT; k++)
        differ += !config_same(cfg, other, (enum config_key)k);
    assert_int_equal(differ, 8);
    assert_int_equal(config_key_apply(KEY_server_bind), CONFIG_LISTEN);
    assert_int_equal(config_key_apply(KEY_log_level), CONFIG_HOT);
    config_free(other);
    config_free(cfg);
}

static void passwords_are_hidden(void **state)
{
    static const char *const cases[][2] = {
        {"postgresql://u:p@h/db", "postgresql://u:***@h/db"},
        {"postgresql://u:p@ss/w?rd@h/db", "postgresql://u:***@h/db"},
        {"postgresql://u@h:5432/db", "postgresql://u@h:5432/db"},
        {"postgresql://h:5432/db?password=p&sslmode=require", "postgresql://h:5432/db?password=***&sslmode=require"},
        {"postgresql://h/db?user=u&sslpassword=p", "postgresql://h/db?user=u&sslpassword=***"},
        {"sqlite:data/ragd.db", "sqlite:data/ragd.db"},
        {"", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = {0};
        config_redact_url(cases[i][0], &b);
        buf_ch(&b, 0);
        assert_string_equal(b.p, cases[i][1]);
        buf_fini(&b);
    }
    struct config *cfg = load(SET("database.url=postgresql://u:hunter2@h/db"));
    void (*const print[])(const struct config *, struct buf *) = {config_dump, config_dump_json};
    for (int i = 0; i < 2; i++) {
        char *text = dump(cfg, print[i]);
        assert_null(strstr(text, "hunter2"));
        assert_non_null(strstr(text, "postgresql://u:***@h/db"));
        free(text);
    }
    config_free(cfg);
}

static void the_table_is_sound(void **state)
{
    (void)state;
    for (int k = 0; k < KEY_COUNT; k++) {
        char name[CONFIG_ENV_NAME_MAX], other[CONFIG_ENV_NAME_MAX];
        const struct config_key_def *d = &config_keys[k];
        assert_int_equal(config_find(str_of(d->full)), k);
        assert_true(strlen(d->doc) > 5 && d->doc[strlen(d->doc) - 1] != '.');
        assert_true(d->min <= d->max);
        assert_true(*config_section_doc(d->section));
        config_env_name((enum config_key)k, name);
        for (int j = 0; j < k; j++) { /* no two keys share a name */
            config_env_name((enum config_key)j, other);
            assert_string_not_equal(name, other);
            for (struct str rest = str_of(d->aliases); rest.n;) {
                struct str alias = str_cut(&rest, ' '), theirs = str_of(config_keys[j].aliases);
                assert_false(str_eqz(alias, other));
                while (theirs.n)
                    assert_false(str_eq(alias, str_cut(&theirs, ' ')));
            }
        }
    }
}

static void the_example_is_current(void **state)
{
    struct buf b = {0};
    char kept[1 << 16];
    (void)state;
    config_example(&b);
    FILE *f = fopen("config/ragd.example.yaml", "r");
    if (!f)
        fail_msg("run this in the top-level folder");
    size_t n = fread(kept, 1, sizeof kept, f);
    fclose(f);
    if (n != b.n || memcmp(kept, b.p, n) != 0)
        fail_msg("config/ragd.example.yaml is stale; `make generated` refreshes it");
    buf_fini(&b);
    struct config *cfg = load(&(struct config_args){.file = "config/ragd.example.yaml"}),
                  *def = load(&(struct config_args){0});
    for (int k = 0; k < KEY_COUNT; k++)
        assert_true(config_same(cfg, def, (enum config_key)k));
    config_free(cfg);
    config_free(def);
}

static void the_reference_names_every_key(void **state)
{
    struct buf b = {0};
    (void)state;
    config_reference(&b);
    buf_ch(&b, 0);
    for (int k = 0; k < KEY_COUNT; k++) {
        char row[100];
        snprintf(row, sizeof row, "\n| `%s` | ", config_keys[k].full);
        assert_non_null(strstr(b.p, row));
    }
    buf_fini(&b);
}

static void texts(void **state)
{
    struct config *cfg = load(SET("limits.upload=1536K", "server.bind=a:1,b:2", "database.url=postgresql://u:p@h/d"));
    static const struct {
        enum config_key key;
        const char *expected;
    } cases[] = {
        {KEY_limits_upload, "1536K"},
        {KEY_server_bind, "a:1, b:2"},
        {KEY_database_url, "postgresql://u:***@h/d"},
        {KEY_server_workers, "auto"},
        {KEY_search_bm25_b, "0.75"},
        {KEY_log_format, "text"},
        {KEY_server_shutdown_delay, "0s"},
        {KEY_database_prepared, "true"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = {0};
        config_text(cfg, cases[i].key, &b);
        buf_ch(&b, 0);
        assert_string_equal(b.p, cases[i].expected);
        buf_fini(&b);
    }
    config_free(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(yaml),
        cmocka_unit_test(yaml_aliases),
        cmocka_unit_test(yaml_errors_name_the_place),
        cmocka_unit_test(yaml_files_that_are_none),
        cmocka_unit_test(units),
        cmocka_unit_test(set_beats_environment_beats_file),
        cmocka_unit_test(environment_names),
        cmocka_unit_test(service_links_are_not_settings),
        cmocka_unit_test(secrets_come_from_files),
        cmocka_unit_test(dotenv),
        cmocka_unit_test(port_stands_for_two_addresses),
        cmocka_unit_test(database_urls),
        cmocka_unit_test(addresses),
        cmocka_unit_test(rules_between_keys),
        cmocka_unit_test(dumps_read_back),
        cmocka_unit_test(passwords_are_hidden),
        cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(the_example_is_current),
        cmocka_unit_test(the_reference_names_every_key),
        cmocka_unit_test(texts),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
