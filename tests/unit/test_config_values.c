/* Values, the rules they obey, and how they are printed. */
#include "tests/unit/config_case.h"

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
    assert_refused(SET("log.level=loud"), "log.level: \"loud\" is not one of error, warn, info, debug");
    assert_refused(SET("http.request_timeout=10"), "write 250ms, 10s, 5m, 24h or 7d");
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

static void vector_urls(void **state)
{
    static const char *const good[][2] = {
        {"embedded:", "embedded:"},
        {"embedded", "embedded:"},
        {"http://qdrant:6333", "http://qdrant:6333"},
        {"https://u:p@h/prefix//", "https://u:p@h/prefix"},
    };
    static const char *const bad[] = {
        "", "none:", "qdrant:6333", "http:", "http://", "http:///", "http://h?x=1", "http://h /"};
    char set[200];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(set, sizeof set, "vectors.url=%s", good[i][0]);
        struct config *cfg = load(SET(set));
        assert_string_equal(cfg->vectors_url, good[i][1]);
        config_free(cfg);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(set, sizeof set, "vectors.url=%s", bad[i]);
        assert_refused(SET(set), "vectors.url: ");
    }
    assert_refused(SET("vectors.prefix=a/b"), "vectors.prefix: ");
    assert_refused(SET("vectors.port=0"), "vectors.port: ");
}

/* QDRANT_HOST and QDRANT_PORT, as existing stacks set them, and Kubernetes beside them. */
static void a_vector_host_is_a_url(void **state)
{
    static const struct {
        const char *host, *port, *url;
    } cases[] = {
        {"QDRANT_HOST=qdrant", "QDRANT_PORT=", "http://qdrant:6333"},
        {"QDRANT_HOST=fd00::1", "QDRANT_PORT=7000", "http://[fd00::1]:7000"},
        {"QDRANT_HOST=https://q.example:6334/", "QDRANT_PORT=1", "https://q.example:6334"},
        {"QDRANT_HOST=qdrant", "QDRANT_PORT=tcp://10.0.0.1:6335", "http://qdrant:6335"},
        {"QDRANT_HOST=", "QDRANT_PORT=tcp://10.0.0.1:6335", "embedded:"},
        {"QDRANT_HOST=qdrant", "QDRANT_URL=http://other:1", "http://other:1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config *cfg = load(ENV((char *)(uintptr_t)cases[i].host, (char *)(uintptr_t)cases[i].port));
        assert_string_equal(cfg->vectors_url, cases[i].url);
        config_free(cfg);
    }
    assert_refused(ENV("QDRANT_HOST=a?b"), "QDRANT_HOST: vectors.url: ");
    struct config *cfg = load(SET("vectors.url=http://u:hunter2@h", "vectors.api_key=hunter2"));
    char *text = dump(cfg, config_dump);
    assert_null(strstr(text, "hunter2"));
    free(text);
    config_free(cfg);
}

static void cache_urls(void **state)
{
    static const char *const good[][2] = {
        {"none:", "none:"},
        {"none", "none:"},
        {"", "none:"},
        {"memory:", "memory:"},
        {"redis://h", "redis://h"},
        {"rediss://u:p@h:1/2", "rediss://u:p@h:1/2"},
        {"unix:/run/redis.sock", "unix:/run/redis.sock"},
        {"redis+sentinel://a,b/m/0", "redis+sentinel://a,b/m/0"},
    };
    static const char *const bad[] = {"h:6379", "http://h", "memcached://h", "redis:h", "none:x", "unix:x"};
    char set[200];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(set, sizeof set, "cache.url=%s", good[i][0]);
        struct config *cfg = load(SET(set));
        assert_string_equal(cfg->cache_url, good[i][1]);
        config_free(cfg);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(set, sizeof set, "cache.url=%s", bad[i]);
        assert_refused(SET(set), "cache.url: ");
    }
    assert_refused(SET("cache.prefix="), "cache.prefix: is empty");
}

/* As stacks give them that know Redis by host and port, in a pod that has links to services. */
static void a_redis_host_is_a_url(void **state)
{
    (void)state;
    struct config *cfg = load(ENV("REDIS_HOST=redis", "REDIS_PORT=tcp://10.0.0.1:6380", "REDIS_DB=2", "CACHE_TTL=300"));
    assert_string_equal(cfg->cache_url, "redis://redis:6380/2");
    assert_int_equal(cfg->cache_ttl, 300000);
    config_free(cfg);
    cfg = load(ENV("REDIS_HOST=redis", "REDIS_URL=redis://:hunter2@other", "CACHE_TTL=2m"));
    assert_string_equal(cfg->cache_url, "redis://:hunter2@other");
    assert_int_equal(cfg->cache_ttl, 120000);
    char *text = dump(cfg, config_dump);
    assert_null(strstr(text, "hunter2"));
    free(text);
    config_free(cfg);
    assert_refused(ENV("REDIS_HOST=redis://h"), "cache.host: ");
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

static void models(void **state)
{
    (void)state;
    struct config *cfg = load(SET("embedding.url=https://api.openai.com/v1/", "llm.url=none"));
    assert_string_equal(cfg->embedding_url, "https://api.openai.com/v1");
    assert_string_equal(cfg->llm_url, "none:");
    config_free(cfg);
    assert_refused(SET("embedding.url=api.openai.com"), "embedding.url: write none: or the URL");
    assert_refused(SET("llm.url=http://"), "llm.url: write none: or the URL");
    assert_refused(SET("embedding.url=http://h/v1/embeddings"), "leave out /embeddings");
    assert_refused(SET("llm.model="), "llm.model: is empty");
}

static void outgoing(void **state)
{
    (void)state;
    struct config *cfg = load(SET("outgoing.http_proxy=proxy:3128", "outgoing.allow_networks=10.0.0.0/8, ::1"));
    assert_string_equal(cfg->outgoing_http_proxy, "http://proxy:3128");
    assert_int_equal(cfg->outgoing_allow_networks.n, 2);
    config_free(cfg);
    assert_refused(SET("outgoing.https_proxy=socks5://proxy"), "only HTTP proxies");
    assert_refused(SET("outgoing.allow_networks=intranet"), "is not an address");
    assert_refused(SET("outgoing.ca_file=ca.pem"), "does not begin with /");
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

/* What goes over to another process arrives there, and only what may change in a running worker. */
static void pushed_keys_arrive(void **state)
{
    struct config *from = load(SET("log.level=debug", "limits.upload=3M", "http.keepalive_timeout=90s",
                                   "log.access=/var/log/a=b.log", "server.base_path=/rag"));
    struct config *to = load(&(struct config_args){0});
    struct buf lines = {0};
    (void)state;
    config_push_lines(from, &lines);
    buf_lit(&lines, "server.base_path=/forged\nlimits.of_tomorrow=7\n");
    assert_int_equal(config_push(to, buf_view(&lines), &e), 0);
    for (int k = 0; k < KEY_COUNT; k++)
        assert_int_equal(config_same(from, to, (enum config_key)k), k != KEY_server_base_path);
    assert_string_equal(to->server_base_path, "");
    assert_int_equal(config_push(to, STR("limits.upload=much\n"), &e), -1);
    assert_int_equal(to->limits_upload, 3 << 20);
    buf_fini(&lines);
    config_free(from);
    config_free(to);
}

/* A secret would be redacted on the way. */
static void no_secret_is_pushed(void **state)
{
    (void)state;
    for (int k = 0; k < KEY_COUNT; k++)
        assert_false(config_keys[k].type == CONFIG_SECRET && config_keys[k].apply == CONFIG_HOT);
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
        for (int j = 0; j < k; j++) { /* no two keys share a name, but for the one key that serves both models */
            config_env_name((enum config_key)j, other);
            assert_string_not_equal(name, other);
            for (struct str rest = str_of(d->aliases); rest.n;) {
                struct str alias = str_cut(&rest, ' '), theirs = str_of(config_keys[j].aliases);
                assert_false(str_eqz(alias, other));
                while (theirs.n && !str_eqz(alias, "OPENAI_API_KEY"))
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
        cmocka_unit_test(units),
        cmocka_unit_test(database_urls),
        cmocka_unit_test(vector_urls),
        cmocka_unit_test(a_vector_host_is_a_url),
        cmocka_unit_test(cache_urls),
        cmocka_unit_test(a_redis_host_is_a_url),
        cmocka_unit_test(addresses),
        cmocka_unit_test(models),
        cmocka_unit_test(outgoing),
        cmocka_unit_test(rules_between_keys),
        cmocka_unit_test(dumps_read_back),
        cmocka_unit_test(pushed_keys_arrive),
        cmocka_unit_test(no_secret_is_pushed),
        cmocka_unit_test(passwords_are_hidden),
        cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(the_example_is_current),
        cmocka_unit_test(the_reference_names_every_key),
        cmocka_unit_test(texts),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
