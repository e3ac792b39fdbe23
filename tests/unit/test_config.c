/* Layers, files, names: where values come from. */
#include "tests/unit/config_case.h"
#include <sys/stat.h>

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
    char fifo[] = "/tmp/ragd-fifo-XXXXXX";
    assert_non_null(mkdtemp(fifo)); /* a free name: the folder makes way for the pipe */
    assert_int_equal(rmdir(fifo), 0);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_refused(&(struct config_args){.file = fifo}, "gives no data");
    assert_int_equal(unlink(fifo), 0);
    struct buf big = {0};
    for (int i = 0; i < CONFIG_FILE_MAX / 32 + 1; i++)
        buf_lit(&big, "# a line of some thirty-two bytes\n");
    buf_ch(&big, 0);
    assert_refused(&(struct config_args){.file = file_with(big.p)}, "is longer than");
    buf_fini(&big);
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

static void errors_that_name_a_key_get_its_place(void **state)
{
    char *const env[] = {"RAGD_HOOKS_READY=/h", NULL};
    const char *const set[] = {"server.user=u"};
    static const struct {
        const char *msg, *located; /* `located`: what is put before it */
    } errors[] = {
        {"server.pidfile: cannot open it", "F:1:19: "},
        {"server.pidfile cannot be changed", "F:1:19: "},
        {"server.pidfiles: nothing", ""},
        {"server.chroot: was not given", ""},
        {"hooks.ready: /h: is not there", "RAGD_HOOKS_READY: "},
        {"server.user: there is none", "--set: "},
        {"something else: server.pidfile", ""},
        {"", ""},
    };
    const char *file = file_with("server: {pidfile: /p}\n");
    struct config *cfg = load(&(struct config_args){.file = file, .environ = env, .set = set, .n_set = 1});
    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        char expected[400];
        bool in_file = *errors[i].located == 'F';
        err_set(&e, ERR_BUSY, "%s", errors[i].msg);
        err_log(&e, "more");
        assert_int_equal(config_locate(cfg, &e), -1);
        snprintf(expected, sizeof expected, "%s%s%s", in_file ? file : "", errors[i].located + in_file, errors[i].msg);
        assert_string_equal(e.msg, expected);
        assert_int_equal(e.code, ERR_BUSY);
        assert_string_equal(e.log, "more");
    }
    config_free(cfg);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(yaml),
        cmocka_unit_test(yaml_aliases),
        cmocka_unit_test(yaml_errors_name_the_place),
        cmocka_unit_test(yaml_files_that_are_none),
        cmocka_unit_test(set_beats_environment_beats_file),
        cmocka_unit_test(environment_names),
        cmocka_unit_test(service_links_are_not_settings),
        cmocka_unit_test(secrets_come_from_files),
        cmocka_unit_test(dotenv),
        cmocka_unit_test(errors_that_name_a_key_get_its_place),
        cmocka_unit_test(port_stands_for_two_addresses),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
