#include "worker/http/exchange.h"
#include "common/uuid.h"
#include <stdlib.h>

static const struct str method_names[HTTP_METHOD_COUNT] = {
    [HTTP_GET] = {"GET", 3},         [HTTP_HEAD] = {"HEAD", 4},   [HTTP_POST] = {"POST", 4},
    [HTTP_PUT] = {"PUT", 3},         [HTTP_PATCH] = {"PATCH", 5}, [HTTP_DELETE] = {"DELETE", 6},
    [HTTP_OPTIONS] = {"OPTIONS", 7},
};

struct str http_method_name(enum http_method m)
{
    return method_names[m];
}

/* ---- percent-encoding ---- */

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes into `out`, which has room for s.n bytes. Returns the length, or -1: a bad escape or a NUL. */
static ssize_t decode(struct str s, bool plus, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '%') {
            int hi = i + 2 < s.n ? hex(s.p[i + 1]) : -1, lo = i + 2 < s.n ? hex(s.p[i + 2]) : -1;
            if (hi < 0 || lo < 0 || (hi | lo) == 0)
                return -1;
            c = (char)(hi << 4 | lo);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        out[n++] = c;
    }
    return (ssize_t)n;
}

/* Segments "." and "..", which a file system or a proxy would read as a way up. */
static bool has_dot_segment(struct str s)
{
    while (s.n) {
        size_t n = 0;
        while (n < s.n && s.p[n] != '/' && s.p[n] != PATH_SLASH)
            n++;
        if ((n == 1 || n == 2) && s.p[0] == '.' && s.p[n - 1] == '.')
            return true;
        s = str_sub(s, n + 1, SIZE_MAX);
    }
    return false;
}

static int decode_path(struct request *r, struct str raw, struct err *e)
{
    bool plain = true;
    for (size_t i = 0; i < raw.n; i++)
        plain &= raw.p[i] != '%' && raw.p[i] != '.';
    r->path = raw;
    if (plain)
        return 0;
    char *p = arena_alloc(&r->arena, raw.n + 1);
    ssize_t n = decode(raw, false, p);
    if (n < 0)
        return err_set(e, ERR_BAD_REQUEST, "the path has a bad percent escape or a NUL");
    r->path = (struct str){p, (size_t)n};
    for (ssize_t i = 0; i < n; i++)
        if ((unsigned char)p[i] < ' ' || p[i] == 0x7f)
            return err_set(e, ERR_BAD_REQUEST, "the path has a control character");
    if (!str_is_utf8(r->path))
        return err_set(e, ERR_BAD_REQUEST, "the path is not UTF-8");
    ssize_t at = 0;
    for (size_t i = 0; i < raw.n; i++, at++)
        if (raw.p[i] == '%') {
            p[at] = p[at] == '/' ? PATH_SLASH : p[at];
            i += 2;
        }
    if (has_dot_segment(r->path))
        return err_set(e, ERR_BAD_REQUEST, "the path has a . or .. segment");
    return 0;
}

struct str path_decoded(struct request *r, struct str s)
{
    if (!s.n || !memchr(s.p, PATH_SLASH, s.n))
        return s;
    struct str copy = arena_dup(&r->arena, s);
    char *p = (char *)copy.p;
    for (size_t i = 0; i < copy.n; i++)
        if (p[i] == PATH_SLASH)
            p[i] = '/';
    return copy;
}

static int check_query(struct request *r, struct err *e)
{
    char *p;
    if (!r->query.n || (!memchr(r->query.p, '%', r->query.n)))
        return 0;
    p = arena_alloc(&r->arena, r->query.n);
    ssize_t n = decode(r->query, true, p);
    if (n < 0)
        return err_set(e, ERR_BAD_REQUEST, "the query has a bad percent escape or a NUL");
    if (!str_is_utf8((struct str){p, (size_t)n}))
        return err_set(e, ERR_BAD_REQUEST, "the query is not UTF-8");
    return 0;
}

/* ---- the target (RFC 9112 section 3.2) ---- */

static struct str host_without_default_port(struct str h)
{
    return h.n > 3 && memcmp(h.p + h.n - 3, ":80", 3) == 0 ? str_sub(h, 0, h.n - 3) : h;
}

static int absolute_form(struct request *r, struct str host, struct str *rest, struct err *e)
{
    struct str t = r->target;
    size_t scheme = t.n > 8 && str_ieq(str_sub(t, 0, 8), STR("https://"))  ? 8
                    : t.n > 7 && str_ieq(str_sub(t, 0, 7), STR("http://")) ? 7
                                                                           : 0;
    if (!scheme)
        return err_set(e, ERR_BAD_REQUEST, "the request target is neither a path nor an absolute URL");
    t = str_sub(t, scheme, SIZE_MAX);
    size_t n = 0;
    while (n < t.n && t.p[n] != '/' && t.p[n] != '?')
        n++;
    struct str authority = str_sub(t, 0, n);
    if (!authority.n || !parser_is_host(authority))
        return err_set(e, ERR_BAD_REQUEST, "the request target's host is malformed");
    if (r->minor == 1 && !str_ieq(host_without_default_port(authority), host_without_default_port(host)))
        return err_set(e, ERR_BAD_REQUEST, "the request target's host and Host differ");
    *rest = str_sub(t, n, SIZE_MAX);
    return 0;
}

static int split_target(struct request *r, struct str host, struct err *e)
{
    struct str rest = r->target, path;
    if (str_eq(rest, STR("*"))) {
        if (r->method != HTTP_OPTIONS)
            return err_set(e, ERR_BAD_REQUEST, "the target * is for OPTIONS only");
        r->path = rest;
        return 0;
    }
    if (rest.p[0] != '/' && absolute_form(r, host, &rest, e))
        return -1;
    path = str_cut(&rest, '?');
    r->query = rest;
    if (!path.n)
        path = STR("/");
    return decode_path(r, path, e) || check_query(r, e) ? -1 : 0;
}

/* ---- identity ---- */

static void hex_digits(char *out, int n, uint64_t v)
{
    for (; n-- > 0; v >>= 4)
        out[n] = "0123456789abcdef"[v & 15];
}

/* Unique, not secret: one random part for the process, one that counts. */
void request_make_id(char *out)
{
    static char id[] = "req_<--- random ---><- count -->";
    static uint64_t count;
    if (!count) {
        struct uuid u = uuid_v7();
        uint64_t random_part;
        memcpy(&random_part, u.b + 8, sizeof random_part);
        hex_digits(id + 4, 16, random_part);
    }
    hex_digits(id + 20, 12, ++count);
    memcpy(out, id, sizeof id);
}

static void set_id(struct request *r)
{
    struct str given = request_header(r, STR("x-request-id"));
    if (given.n && given.n < sizeof r->id && parser_is_token(given))
        str_copyz(r->id, sizeof r->id, given);
    else
        request_make_id(r->id);
}

int request_fill(struct request *r, struct head *h, struct err *e)
{
    r->minor = h->minor;
    r->method_name = h->method_name;
    r->target = h->target;
    r->header = h->header;
    r->n_header = h->n_header;
    r->content_length = h->content_length;
    r->chunked = h->chunked;
    set_id(r);
    if (h->method < 0)
        return err_set(e, ERR_NOT_IMPLEMENTED, "no resource here knows the method " STR_FMT,
                       STR_ARG(str_sub(h->method_name, 0, 32)));
    r->method = (enum http_method)h->method;
    return split_target(r, h->host, e);
}

/* ---- what handlers ask ---- */

struct str request_header(const struct request *r, struct str name)
{
    for (size_t i = 0; i < r->n_header; i++)
        if (r->header[i].name.n == name.n && str_ieq(r->header[i].name, name))
            return r->header[i].value;
    return (struct str){NULL, 0};
}

/* Weight of a media range, in thousandths. */
static int quality(struct str params)
{
    while (params.n) {
        struct str p = str_trim(str_cut(&params, ';'));
        if (p.n < 3 || (p.p[0] | 0x20) != 'q' || p.p[1] != '=')
            continue;
        int q = p.p[2] == '1' ? 1000 : 0;
        for (size_t i = 4, unit = 100; i < p.n && unit && p.p[2] == '0'; i++, unit /= 10)
            q += (p.p[i] >= '0' && p.p[i] <= '9' ? p.p[i] - '0' : 0) * (int)unit;
        return q;
    }
    return 1000;
}

bool request_accepts(const struct request *r, struct str type)
{
    struct str accept = request_header(r, STR("accept")), rest = type;
    struct str major = str_cut(&rest, '/');
    int best = 0, best_quality = 0; /* the most specific range decides */
    if (!str_trim(accept).n)
        return true;
    while (accept.n) {
        struct str params = str_cut(&accept, ',');
        struct str range = str_trim(str_cut(&params, ';')), minor = range;
        int rank = 0;
        if (str_ieq(range, type))
            rank = 3;
        else if (str_ieq(str_cut(&minor, '/'), major) && str_eq(minor, STR("*")))
            rank = 2;
        else if (str_eq(range, STR("*/*")))
            rank = 1;
        if (rank > best) {
            best = rank;
            best_quality = quality(params);
        }
    }
    return best && best_quality > 0;
}

/* The raw value of the first parameter of that name, and whether there is one. Names are compared decoded. */
static bool find_query(struct request *r, struct str name, struct str *value)
{
    struct str rest = r->query;
    while (rest.n) {
        struct str v = str_cut(&rest, '&'), key = str_cut(&v, '=');
        if (memchr(key.n ? key.p : "", '%', key.n)) {
            char *p = arena_alloc(&r->arena, key.n);
            ssize_t n = decode(key, true, p);
            key = (struct str){p, n < 0 ? 0 : (size_t)n};
        }
        if (str_eq(key, name)) {
            *value = v;
            return true;
        }
    }
    return false;
}

bool request_query(struct request *r, struct str name, struct str *out)
{
    struct str raw;
    if (!find_query(r, name, &raw))
        return false;
    char *p = arena_alloc(&r->arena, raw.n + 1);
    ssize_t n = decode(raw, true, p); /* escapes were checked with the head */
    p[n < 0 ? 0 : n] = 0;
    *out = (struct str){p, n < 0 ? 0 : (size_t)n};
    return true;
}

int request_query_only(struct request *r, const char *const *allowed, struct err *e)
{
    struct str rest = r->query;
    while (rest.n) {
        struct str v = str_cut(&rest, '&'), key = str_cut(&v, '=');
        bool known = !key.n;
        for (size_t i = 0; allowed[i] && !known; i++)
            known = str_eqz(key, allowed[i]);
        if (!known) {
            err_set(e, ERR_VALIDATION, "unknown query parameter '" STR_FMT "'", STR_ARG(str_sub(key, 0, 64)));
            return -1;
        }
    }
    return 0;
}

int request_query_int(struct request *r, const char *name, int64_t def, int64_t min, int64_t max, int64_t *out,
                      struct err *e)
{
    struct str s;
    int64_t v;
    if (!request_query(r, str_of(name), &s)) {
        *out = def;
        return 0;
    }
    if (!str_to_i64(s, &v) || v < min || v > max)
        return err_set(e, ERR_VALIDATION, "query parameter '%s' must be a number from %lld to %lld", name,
                       (long long)min, (long long)max);
    *out = v;
    return 0;
}

struct str request_media_type(struct request *r)
{
    struct str v = request_header(r, STR("content-type"));
    struct str type = arena_dup(&r->arena, str_trim(str_cut(&v, ';')));
    char *p = (char *)type.p;
    for (size_t i = 0; i < type.n; i++)
        if (p[i] >= 'A' && p[i] <= 'Z')
            p[i] |= 0x20;
    return type;
}
