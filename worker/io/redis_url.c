/* The URLs by which Redis is named. */
#include "worker/io/redis_impl.h"
#include <stdlib.h>

enum { PORT = 6379, SENTINEL_PORT = 26379, DB_MAX = 65535 };

/* %41 is A; false for what is too long or no escape. NUL has no place in any of the parts. */
static bool unescape(struct str s, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i], hex[3] = "", *end;
        if (c == '%') {
            str_copyz(hex, sizeof hex, str_sub(s, i + 1, 2));
            c = (char)strtoul(hex, &end, 16);
            if (strlen(hex) != 2 || *end || strchr("+- ", hex[0]))
                return false;
            i += 2;
        }
        if (!c || n + 1 >= cap)
            return false;
        out[n++] = c;
    }
    out[n] = 0;
    return true;
}

/* The part behind the last `sep`, which stays in front; "" when there is none. */
static bool split_last(struct str *s, char sep, struct str *behind)
{
    const char *at = memrchr(s->p, sep, s->n);
    *behind = STR("");
    if (!at)
        return false;
    *behind = str_sub(*s, (size_t)(at + 1 - s->p), SIZE_MAX);
    s->n = (size_t)(at - s->p);
    return true;
}

static const char *set_credentials(struct str s, struct redis_url *out)
{
    struct str user = str_cut(&s, ':');
    if (!unescape(user, out->user, sizeof out->user) || !unescape(s, out->password, sizeof out->password))
        return "user or password is too long, or has a wrong % escape";
    return out->user[0] && !out->password[0] ? "a user needs a password: redis://user:password@host" : NULL;
}

static const char *add_host(struct str s, int port, struct redis_url *out)
{
    struct redis_host *h = &out->host[out->n_host];
    struct str number = STR("");
    uint64_t v = (uint64_t)port;
    if (out->n_host == REDIS_HOSTS_MAX)
        return "names more than 8 hosts";
    if (s.n && s.p[0] == '[') {
        const char *end = memchr(s.p, ']', s.n);
        if (!end)
            return "an address in [ lacks its ]";
        number = str_sub(s, (size_t)(end + 1 - s.p), SIZE_MAX);
        s = str_sub(s, 1, (size_t)(end - s.p - 1));
        if (number.n && number.p[0] != ':')
            return "behind ] a port is expected: [::1]:6379";
        number = str_sub(number, 1, SIZE_MAX);
    } else if (split_last(&s, ':', &number) && memchr(s.p, ':', s.n)) {
        return "an IPv6 address stands in brackets: [::1]:6379";
    }
    if (number.n && (!str_to_u64(number, &v) || v < 1 || v > 65535))
        return "a port is a number from 1 to 65535";
    if (!s.n || s.n >= sizeof h->name)
        return "the host is missing or too long";
    str_copyz(h->name, sizeof h->name, s);
    h->port = (int)v;
    out->n_host++;
    return NULL;
}

static const char *set_db(struct str s, struct redis_url *out)
{
    uint64_t v = 0;
    if (s.n && (!str_to_u64(s, &v) || v > DB_MAX))
        return "the database is a number: redis://host:6379/0";
    out->db = (int)v;
    return NULL;
}

static const char *parse_unix(struct str rest, struct redis_url *out)
{
    struct str path = str_cut(&rest, '?'), credentials;
    const char *problem = NULL;
    if (str_starts(path, STR("//"))) { /* unix://user:password@/path */
        path = str_sub(path, 2, SIZE_MAX);
        const char *at = memchr(path.p, '@', path.n);
        if (at) {
            credentials = str_sub(path, 0, (size_t)(at - path.p));
            path = str_sub(path, credentials.n + 1, SIZE_MAX);
            problem = set_credentials(credentials, out);
        }
    }
    if (problem)
        return problem;
    if (!path.n || path.p[0] != '/' || path.n >= sizeof out->path)
        return "unix: takes an absolute path of at most 107 bytes";
    str_copyz(out->path, sizeof out->path, path);
    struct str value = rest, name = str_cut(&value, '=');
    if (rest.n && !str_eqz(name, "db"))
        return "unix: knows one parameter, ?db=0";
    return set_db(value, out);
}

static const char *parse_hosts(struct str rest, bool sentinel, struct redis_url *out)
{
    const char *problem = NULL;
    struct str authority, hosts;
    if (memchr(rest.p, '?', rest.n))
        return "takes no parameters behind a ?";
    /* A / in a password must be escaped, as everywhere. */
    authority = str_cut(&rest, '/');
    hosts = authority;
    if (split_last(&authority, '@', &hosts))
        problem = set_credentials(authority, out);
    else
        hosts = authority;
    do {
        if (!problem)
            problem = add_host(str_cut(&hosts, ','), sentinel ? SENTINEL_PORT : PORT, out);
    } while (!problem && hosts.n);
    if (sentinel && !problem) {
        struct str master = str_cut(&rest, '/');
        if (!master.n || !unescape(master, out->master, sizeof out->master))
            problem = "the name of the master is missing: redis+sentinel://host:26379/mymaster/0";
    }
    return problem ? problem : set_db(rest, out);
}

int redis_url_parse(const struct config *cfg, struct redis_url *out, struct err *e)
{
    struct str rest = str_of(cfg->cache_url), scheme = str_cut(&rest, ':'); /* config/ has checked it */
    struct redis_url url = {.tls = str_starts(scheme, STR("rediss"))};
    bool sentinel = memmem(scheme.p, scheme.n, "+sentinel", 9) != NULL;
    const char *problem =
        str_eqz(scheme, "unix") ? parse_unix(rest, &url) : parse_hosts(str_sub(rest, 2, SIZE_MAX), sentinel, &url);
    if (problem)
        return err_set(e, ERR_VALIDATION, "cache.url: %s", problem);
    if (!url.password[0] &&
        str_copyz(url.password, sizeof url.password, str_of(cfg->cache_password)) < strlen(cfg->cache_password))
        return err_set(e, ERR_VALIDATION, "cache.password: is too long");
    *out = url;
    return 0;
}
