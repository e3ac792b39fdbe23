/* Meaning beyond the type: addresses parse, paths fit, URLs take their normal form; and the rules between keys. */
#include "config/config_impl.h"
#include "common/heritage.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

enum { UNIX_PATH_MAX = sizeof(((struct sockaddr_un *)0)->sun_path) - 1, STOP_MAX_MS = 30000, PROXY_IDLE_MS = 60000 };

static int check_bind(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_base_path(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_proxies(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_control(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_database(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_vectors(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_service_port(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_vectors_prefix(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_cache(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_not_empty(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_log_file(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_umask(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_absolute(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_proxy(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_networks(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
static int check_model(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);

static const struct {
    enum config_key key;
    int (*fn)(struct config *, enum config_key, const struct config_source *, struct err *);
} checks[] = {
    {KEY_server_bind, check_bind},
    {KEY_server_base_path, check_base_path},
    {KEY_server_control, check_control},
    {KEY_server_trusted_proxies, check_proxies},
    {KEY_database_url, check_database},
    {KEY_ingest_language, check_not_empty},
    {KEY_log_access, check_not_empty},
    {KEY_log_file, check_log_file},
    {KEY_server_umask, check_umask},
    {KEY_server_chroot, check_absolute},
    {KEY_hooks_ready, check_absolute},
    {KEY_hooks_reload_failed, check_absolute},
    {KEY_hooks_worker_hung, check_absolute},
    {KEY_hooks_worker_died, check_absolute},
    {KEY_vectors_url, check_vectors},
    {KEY_vectors_port, check_service_port},
    {KEY_vectors_prefix, check_vectors_prefix},
    {KEY_outgoing_https_proxy, check_proxy},
    {KEY_outgoing_http_proxy, check_proxy},
    {KEY_outgoing_ca_file, check_absolute},
    {KEY_outgoing_allow_networks, check_networks},
    {KEY_cache_url, check_cache},
    {KEY_cache_port, check_service_port},
    {KEY_cache_prefix, check_not_empty},
    {KEY_embedding_url, check_model},
    {KEY_llm_url, check_model},
    {KEY_embedding_model, check_not_empty},
    {KEY_llm_model, check_not_empty},
};

int config_check_key(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        if (checks[i].key == key)
            return checks[i].fn(cfg, key, at, e);
    return 0;
}

static const char **text_of(struct config *cfg, enum config_key key)
{
    return config_value(cfg, key);
}

/* host:port, [v6]:port, :port, unix:/path. Names are resolved when the socket is opened. */
static const char *bind_problem(struct str s)
{
    uint64_t port;
    if (s.n >= LISTEN_NAME_MAX)
        return "is too long";
    if (str_starts(s, STR("unix:"))) {
        struct str path = str_sub(s, 5, SIZE_MAX);
        if (!path.n)
            return "lacks the path after unix:";
        return path.n > UNIX_PATH_MAX ? "is too long for a unix socket, 107 bytes are possible" : NULL;
    }
    size_t colon = s.n;
    while (colon > 0 && s.p[colon - 1] != ':')
        colon--;
    if (!colon)
        return "lacks a port; write host:port";
    struct str host = str_sub(s, 0, colon - 1), number = str_sub(s, colon, SIZE_MAX);
    if (!str_to_u64(number, &port) || port > 65535)
        return "does not end in a port, 0 to 65535";
    if (host.n && host.p[0] == '[') {
        struct in6_addr v6;
        char z[INET6_ADDRSTRLEN];
        if (host.p[host.n - 1] != ']' || host.n - 2 >= sizeof z)
            return "is not an IPv6 address in brackets";
        str_copyz(z, sizeof z, str_sub(host, 1, host.n - 2));
        return inet_pton(AF_INET6, z, &v6) == 1 ? NULL : "is not an IPv6 address in brackets";
    }
    if (host.n && memchr(host.p, ':', host.n))
        return "is ambiguous; write an IPv6 address in brackets: [::1]:8000";
    if (host.n && memchr(host.p, '/', host.n))
        return "is not an address; write host:port without a scheme, or unix:/path";
    return NULL;
}

static int check_bind(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    const struct config_list *l = config_value(cfg, key);
    if (l->n < 1 || l->n > LISTEN_MAX)
        return config_fail(e, at, "server.bind: %d addresses; 1 to %d are possible", l->n, LISTEN_MAX);
    for (int i = 0; i < l->n; i++) {
        const char *problem = bind_problem(str_of(l->v[i]));
        if (problem)
            return config_fail(e, at, "server.bind: \"%.60s\" %s", l->v[i], problem);
        for (int j = 0; j < i; j++)
            if (strcmp(l->v[i], l->v[j]) == 0)
                return config_fail(e, at, "server.bind: %s is there twice", l->v[i]);
    }
    return 0;
}

/* "/rag/" means "/rag", "/" means none. */
static int check_base_path(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    struct str s = str_of(*text_of(cfg, key));
    if (s.n && s.p[0] != '/')
        return config_fail(e, at, "server.base_path: \"%.60s\" does not begin with /", s.p);
    while (s.n && s.p[s.n - 1] == '/')
        s.n--;
    for (size_t i = 0; i < s.n; i++)
        if (strchr(" ?#%\\", s.p[i]) || (s.p[i] == '/' && (s.p[i + 1] == '/' || s.p[i + 1] == '.')))
            return config_fail(e, at, "server.base_path: \"%.60s\" is not a plain path such as /rag", s.p);
    *text_of(cfg, key) = arena_dup(&cfg->origin->arena, s).p;
    return 0;
}

static bool network_valid(const char *z)
{
    char addr[INET6_ADDRSTRLEN];
    uint8_t bytes[16];
    uint64_t bits;
    struct str prefix = str_of(z), ip = str_cut(&prefix, '/');
    bool has_prefix = strchr(z, '/') != NULL, v6 = strchr(z, ':') != NULL;
    if (str_copyz(addr, sizeof addr, ip) < ip.n || inet_pton(v6 ? AF_INET6 : AF_INET, addr, bytes) != 1)
        return false;
    return !has_prefix || (str_to_u64(prefix, &bits) && bits <= (v6 ? 128 : 32));
}

/* "*", as the variable FORWARDED_ALLOW_IPS of other servers says it, becomes the networks that it means. */
static int check_proxies(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    static char *everyone[] = {"0.0.0.0/0", "::/0", "unix"};
    struct config_list *l = config_value(cfg, key);
    if (l->n == 1 && strcmp(l->v[0], "*") == 0) {
        *l = (struct config_list){everyone, 3};
        return 0;
    }
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->v[i], "unix") != 0 && !network_valid(l->v[i]))
            return config_fail(e, at,
                               "server.trusted_proxies: \"%.60s\" is not an address, a network such as 10.0.0.0/8, "
                               "`unix`, or a single `*`",
                               l->v[i]);
    return 0;
}

static int check_control(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    if (strlen(*text_of(cfg, key)) > UNIX_PATH_MAX)
        return config_fail(e, at, "server.control: the path is too long for a unix socket, %d bytes are possible",
                           (int)UNIX_PATH_MAX);
    return 0;
}

static int check_not_empty(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    return **text_of(cfg, key) ? 0 : config_fail(e, at, "%s: is empty", config_key_name(key));
}

static int check_log_file(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    const char *text = *text_of(cfg, key);
    if (!*text || strcmp(text, "off") == 0)
        return config_fail(e, at, "log.file: events cannot be switched off; see log.level, or write to /dev/null");
    return 0;
}

static int check_umask(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    const char *text = *text_of(cfg, key);
    if (strspn(text, "01234567") != strlen(text) || strtoul(text, NULL, 8) > 0777)
        return config_fail(e, at, "server.umask: \"%.60s\" is not an octal number from 0 to 777", text);
    return 0;
}

static int check_absolute(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    const char *path = *text_of(cfg, key);
    if (*path && *path != '/')
        return config_fail(e, at, "%s: \"%.60s\" does not begin with /", config_key_name(key), path);
    return 0;
}

static int check_networks(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    const struct config_list *l = config_value(cfg, key);
    for (int i = 0; i < l->n; i++)
        if (!network_valid(l->v[i]))
            return config_fail(e, at, "%s: \"%.60s\" is not an address or a network such as 10.0.0.0/8",
                               config_key_name(key), l->v[i]);
    return 0;
}

/* "host:port", as it is often written, means http://host:port. */
static int check_proxy(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    const char *url = *text_of(cfg, key), *scheme = strstr(url, "://");
    if (*url && !scheme)
        *text_of(cfg, key) = arena_printf(&cfg->origin->arena, "http://%s", url).p;
    else if (scheme && strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return config_fail(e, at, "%s: only HTTP proxies are known; write http://host:port", config_key_name(key));
    return 0;
}

/* SQLAlchemy's names: sqlite:///relative, sqlite:////absolute. */
static int sqlite_path(struct config *cfg, struct str rest, const struct config_source *at, struct err *e)
{
    if (str_starts(rest, STR("///")))
        rest = str_sub(rest, 3, SIZE_MAX);
    else if (str_starts(rest, STR("//")))
        return config_fail(e, at,
                           "database.url: sqlite:// lacks a path; write sqlite:data/ragd.db or "
                           "sqlite:/var/lib/ragd/ragd.db");
    if (!rest.n || str_eqz(rest, ":memory:"))
        return config_fail(e, at,
                           "database.url: the database needs a file, for several processes share it; write "
                           "sqlite:data/ragd.db");
    cfg->database_url = arena_printf(&cfg->origin->arena, "sqlite:" STR_FMT, STR_ARG(rest)).p;
    return 0;
}

/* libpq knows the parameter that asyncpg calls `ssl` as `sslmode`. */
static void pg_url(struct config *cfg, struct str rest)
{
    struct str url = arena_printf(&cfg->origin->arena, "postgresql:" STR_FMT, STR_ARG(rest));
    const char *ssl = strstr(url.p, "?ssl=");
    if (!ssl)
        ssl = strstr(url.p, "&ssl=");
    if (ssl) {
        const char *value = ssl + 5;
        size_t skip = str_starts(str_of(value), STR("true")) ? 4 : 0;
        url = arena_printf(&cfg->origin->arena, "%.*ssslmode=%s%s", (int)(ssl + 1 - url.p), url.p,
                           skip ? "require" : "", value + skip);
    }
    cfg->database_url = url.p;
}

static int check_database(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    static const struct {
        const char *scheme;
        bool postgres;
    } known[] = {
        {"sqlite", false},  {"sqlite+aiosqlite", false},  {"sqlite+pysqlite", false},   {"postgresql", true},
        {"postgres", true}, {"postgresql+asyncpg", true}, {"postgresql+psycopg", true}, {"postgresql+psycopg2", true},
    };
    struct str rest = str_of(*text_of(cfg, key)), scheme = str_cut(&rest, ':');
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!str_ieq(scheme, str_of(known[i].scheme)))
            continue;
        if (!known[i].postgres)
            return sqlite_path(cfg, rest, at, e);
        if (!str_starts(rest, STR("//")))
            return config_fail(e, at, "database.url: write postgresql://user:password@host:port/name");
        pg_url(cfg, rest);
        return 0;
    }
    return config_fail(e, at,
                       "database.url: the scheme is not one of sqlite:, postgresql://; write sqlite:data/ragd.db or "
                       "postgresql://user:password@host:port/name");
}

/* A URL of an HTTP server loses its last slashes; every other text but `embedded:` is refused. */
static int check_vectors(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    struct str url = str_of(*text_of(cfg, key)), rest = url, scheme = str_cut(&rest, ':');
    if (str_eqz(url, "embedded:") || str_eqz(url, "embedded")) {
        cfg->vectors_url = "embedded:";
        return 0;
    }
    if ((!str_ieq(scheme, STR("http")) && !str_ieq(scheme, STR("https"))) || !str_starts(rest, STR("//")))
        return config_fail(e, at, "vectors.url: write embedded: or the URL of a Qdrant server, http://qdrant:6333");
    while (url.p[url.n - 1] == '/')
        url.n--;
    if (url.n <= scheme.n + 1)
        return config_fail(e, at, "vectors.url: lacks a host; write http://qdrant:6333");
    for (size_t i = 0; i < url.n; i++)
        if (strchr(" ?#", url.p[i]))
            return config_fail(e, at, "vectors.url: write http://host:port or http://host:port/prefix, nothing more");
    *text_of(cfg, key) = arena_dup(&cfg->origin->arena, url).p;
    return 0;
}

/* A common slip is the whole path of a call, which comes from us. */
static int check_model(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    static const char *const calls[] = {"/embeddings", "/chat/completions"};
    struct str url = str_of(*text_of(cfg, key)), host = url, scheme = str_cut(&host, ':');
    if (str_eqz(url, "none:") || str_eqz(url, "none")) {
        *text_of(cfg, key) = "none:";
        return 0;
    }
    if ((!str_ieq(scheme, STR("http")) && !str_ieq(scheme, STR("https"))) || !str_starts(host, STR("//")) ||
        host.n < 3 || strpbrk(host.p + 2, " ?#") || host.p[2] == '/')
        return config_fail(e, at, "%s: write none: or the URL of a server, https://api.openai.com/v1",
                           config_key_name(key));
    while (url.p[url.n - 1] == '/')
        url.n--;
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(calls[i]);
        if (url.n > n && str_eqz(str_sub(url, url.n - n, n), calls[i]))
            return config_fail(e, at, "%s: leave out %s, which is added to the URL", config_key_name(key), calls[i]);
    }
    *text_of(cfg, key) = arena_dup(&cfg->origin->arena, url).p;
    return 0;
}

/* Kubernetes sets QDRANT_PORT=tcp://10.0.0.1:6333 where a service is called qdrant: the port is what counts. */
static int check_service_port(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    struct str s = str_of(*text_of(cfg, key));
    uint64_t port;
    if (str_starts(s, STR("tcp://")))
        s = str_of(strrchr(s.p, ':') + 1);
    if (!str_to_u64(s, &port) || port < 1 || port > 65535)
        return config_fail(e, at, "%s: \"%.60s\" is not a port, 1 to 65535", config_key_name(key), *text_of(cfg, key));
    *text_of(cfg, key) = arena_dup(&cfg->origin->arena, s).p;
    return 0;
}

static int check_vectors_prefix(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    const char *s = *text_of(cfg, key);
    static const char legal[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    if (!*s || strlen(s) > 64 || s[strspn(s, legal)])
        return config_fail(e, at, "vectors.prefix: \"%.60s\" is not 1 to 64 letters, digits, _ and -", s);
    return 0;
}

/* vectors.host stands for a URL, unless vectors.url was said in a stronger place, or in the same. */
static int apply_vectors_host(struct config *cfg, struct err *e)
{
    struct config_source *of = cfg->origin->of;
    const char *host = cfg->vectors_host;
    if (!*host || of[KEY_vectors_url].layer >= of[KEY_vectors_host].layer)
        return 0;
    bool v6 = strchr(host, ':') && host[0] != '[';
    cfg->vectors_url =
        strstr(host, "://")
            ? host
            : arena_printf(&cfg->origin->arena, v6 ? "http://[%s]:%s" : "http://%s:%s", host, cfg->vectors_port).p;
    of[KEY_vectors_url] = of[KEY_vectors_host];
    return check_vectors(cfg, KEY_vectors_url, &of[KEY_vectors_host], e);
}

/* The rest of the URL is worker/io/redis_url.c's affair. */
static int check_cache(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e)
{
    static const char *const schemes[] = {"none:",  "memory:",           "redis://",          "rediss://",
                                          "unix:/", "redis+sentinel://", "rediss+sentinel://"};
    struct str url = str_of(*text_of(cfg, key));
    if (!url.n || str_eqz(url, "none")) {
        cfg->cache_url = "none:";
        return 0;
    }
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (i < 2 ? str_eqz(url, schemes[i]) : str_starts(url, str_of(schemes[i])))
            return 0;
    return config_fail(e, at,
                       "cache.url: is not one of none:, memory:, redis://host:port/db, rediss://, unix:/path, "
                       "redis+sentinel://host:port/master/db");
}

/* cache.host in the same way. */
static int apply_cache_host(struct config *cfg, struct err *e)
{
    struct config_source *of = cfg->origin->of;
    const char *host = cfg->cache_host;
    if (!*host || of[KEY_cache_url].layer >= of[KEY_cache_host].layer)
        return 0;
    if (strpbrk(host, "/?#@, "))
        return config_fail(e, &of[KEY_cache_host],
                           "cache.host: \"%.60s\" is no name or address of a host; URLs go to cache.url", host);
    bool v6 = strchr(host, ':') && host[0] != '[';
    cfg->cache_url = arena_printf(&cfg->origin->arena, v6 ? "redis://[%s]:%s/%d" : "redis://%s:%s/%d", host,
                                  cfg->cache_port, (int)cfg->cache_db)
                         .p;
    of[KEY_cache_url] = of[KEY_cache_host];
    return 0;
}

/* server.port stands for two addresses, unless server.bind was said in a stronger place (--set beats PORT). After this
 * everybody reads server.bind only. */
static void apply_port(struct config *cfg)
{
    struct config_source *of = cfg->origin->of;
    struct arena *a = &cfg->origin->arena;
    if (!cfg->server_port)
        return;
    if (of[KEY_server_bind].layer > of[KEY_server_port].layer) {
        cfg->server_port = 0;
        of[KEY_server_port] = of[KEY_server_bind];
        return;
    }
    char **v = arena_alloc(a, 2 * sizeof *v);
    v[0] = (char *)(uintptr_t)arena_printf(a, "0.0.0.0:%d", (int)cfg->server_port).p;
    v[1] = (char *)(uintptr_t)arena_printf(a, "[::]:%d", (int)cfg->server_port).p;
    cfg->server_bind = (struct config_list){v, 2};
    of[KEY_server_bind] = of[KEY_server_port];
}

/* Where the stronger of two keys comes from: that is the place to mend. */
static const struct config_source *stronger(const struct config *cfg, enum config_key a, enum config_key b)
{
    const struct config_source *of = cfg->origin->of;
    return of[b].layer > of[a].layer ? &of[b] : &of[a];
}

int config_check_all(struct config *cfg, struct err *e)
{
    apply_port(cfg);
    if (apply_vectors_host(cfg, e) || apply_cache_host(cfg, e))
        return -1;
    if (cfg->server_workers > cfg->server_max_workers)
        return config_fail(e, stronger(cfg, KEY_server_workers, KEY_server_max_workers),
                           "server.workers: %d is more than server.max_workers (%d)", (int)cfg->server_workers,
                           (int)cfg->server_max_workers);
    if (cfg->ingest_chunk_overlap >= cfg->ingest_chunk_tokens)
        return config_fail(e, stronger(cfg, KEY_ingest_chunk_overlap, KEY_ingest_chunk_tokens),
                           "ingest.chunk_overlap: %d must be less than ingest.chunk_tokens (%d)",
                           (int)cfg->ingest_chunk_overlap, (int)cfg->ingest_chunk_tokens);
    return 0;
}

/* Not reachable from other machines. */
static bool is_local(const char *address)
{
    static const char *const local[] = {"127.", "localhost:", "[::1]:", "unix:"};
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        if (strncmp(address, local[i], strlen(local[i])) == 0)
            return true;
    return false;
}

void config_warnings(const struct config *cfg, struct buf *out)
{
    int64_t stop = cfg->server_shutdown_delay + cfg->server_graceful_timeout + cfg->server_fast_timeout + 1000;
    int64_t lanes = 3LL * (config_http_workers(cfg) + config_ingest_workers(cfg));
    if (stop > STOP_MAX_MS) {
        buf_lit(out, "a stop may take ");
        config_print_number(out, CONFIG_TIME, stop);
        buf_lit(out, " (server.shutdown_delay + graceful_timeout + fast_timeout + 1s); Docker kills after 10s and "
                     "Kubernetes after 30s unless told otherwise (stop_grace_period, terminationGracePeriodSeconds)\n");
    }
    if (cfg->server_trusted_proxies.n && cfg->http_keepalive_timeout && cfg->http_keepalive_timeout <= PROXY_IDLE_MS)
        buf_lit(out, "http.keepalive_timeout should exceed the proxy's idle timeout (nginx: 60s), or the proxy sends "
                     "requests into connections that are being closed\n");
    if (str_starts(str_of(cfg->database_url), STR("postgresql:")) && lanes > cfg->database_max_connections)
        buf_printf(
            out, "database.max_connections is %d; %d HTTP and %d ingest workers can use %d or more, some will wait\n",
            (int)cfg->database_max_connections, config_http_workers(cfg), config_ingest_workers(cfg), (int)lanes);
    for (int i = 0; i < cfg->server_admin_bind.n; i++)
        if (!is_local(cfg->server_admin_bind.v[i]))
            buf_printf(out,
                       "server.admin_bind: '%s' can be reached from other machines, and nobody is asked who he is\n",
                       cfg->server_admin_bind.v[i]);
    if (cfg->debug_faults)
        buf_lit(out, "debug.faults is on: anybody who reaches the server can crash its workers\n");
}
