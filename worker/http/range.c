/* Conditional requests and ranges: RFC 9110 sections 13 and 14. */
#include "worker/http/exchange.h"
#include "common/clock.h"
#include <assert.h>
#include <stdio.h>

enum { PIECE = 64 * 1024 };

/* ---- entity tags ---- */

/* Takes one tag off a list: with its quotes, without W/ (then *weak). false: the list is malformed or at its end. */
static bool next_tag(struct str *list, struct str *tag, bool *weak)
{
    while (list->n && (list->p[0] == ' ' || list->p[0] == '\t' || list->p[0] == ','))
        *list = str_sub(*list, 1, SIZE_MAX);
    *weak = str_starts(*list, STR("W/"));
    if (*weak)
        *list = str_sub(*list, 2, SIZE_MAX);
    if (!list->n || list->p[0] != '"')
        return false;
    const char *end = memchr(list->p + 1, '"', list->n - 1);
    if (!end)
        return false;
    *tag = (struct str){list->p, (size_t)(end - list->p) + 1};
    *list = str_sub(*list, tag->n, SIZE_MAX);
    return true;
}

/* `any`: "*" matches. Strong comparison never matches weak tags. */
static bool list_has(struct str list, struct str etag, bool strong)
{
    struct str tag;
    bool weak;
    if (str_eq(list, STR("*")))
        return true;
    while (next_tag(&list, &tag, &weak))
        if (str_eq(tag, etag) && !(strong && weak))
            return true;
    return false;
}

static struct str version_tag(struct request *r, int64_t version)
{
    return arena_printf(&r->arena, "\"v%lld\"", (long long)version);
}

bool reply_not_modified(struct request *r, int64_t version)
{
    struct str list = request_header(r, STR("if-none-match"));
    if (!list.p || (r->method != HTTP_GET && r->method != HTTP_HEAD) || !list_has(list, version_tag(r, version), false))
        return false;
    reply_begin(r, 304, NULL);
    reply_etag(r, version);
    return true;
}

int request_if_match(struct request *r, int64_t *version, struct err *e)
{
    struct str list = request_header(r, STR("if-match")), tag, more;
    bool weak;
    *version = 0;
    if (!list.p || str_eq(list, STR("*")))
        return 0;
    if (!next_tag(&list, &tag, &weak))
        return err_set(e, ERR_BAD_REQUEST, "If-Match must be an ETag with its quotes, or *");
    if (next_tag(&list, &more, &weak))
        return err_set(e, ERR_BAD_REQUEST, "If-Match may name one ETag here");
    if (weak || tag.n < 4 || tag.p[1] != 'v' || !str_to_i64(str_sub(tag, 2, tag.n - 3), version) || *version <= 0) {
        *version = 0;
        return err_set(e, ERR_VERSION, "If-Match names an ETag that this object never had");
    }
    return 0;
}

/* ---- preconditions on content ---- */

/* A date field against the time of modification; seconds are all that HTTP dates know. */
static bool field_date(const struct request *r, struct str name, int64_t *sec)
{
    struct str v = request_header(r, name);
    int64_t us;
    if (!v.p || clock_parse_http_date(v.p, v.n, &us) != 0)
        return false;
    *sec = us / 1000000;
    return true;
}

static bool precondition_failed(const struct request *r, const struct reply_source *src)
{
    struct str match = request_header(r, STR("if-match"));
    int64_t sec;
    if (match.p)
        return !list_has(match, src->etag, true);
    return field_date(r, STR("if-unmodified-since"), &sec) && src->modified_us / 1000000 > sec;
}

static bool unmodified(const struct request *r, const struct reply_source *src)
{
    struct str none = request_header(r, STR("if-none-match"));
    int64_t sec;
    if (none.p)
        return list_has(none, src->etag, false);
    return field_date(r, STR("if-modified-since"), &sec) && src->modified_us / 1000000 <= sec;
}

static bool if_range_allows(const struct request *r, const struct reply_source *src)
{
    struct str v = request_header(r, STR("if-range"));
    int64_t sec;
    if (!v.p)
        return true;
    if (v.n && (v.p[0] == '"' || v.p[0] == 'W'))
        return list_has(v, src->etag, true) && !str_eq(v, STR("*"));
    return field_date(r, STR("if-range"), &sec) && src->modified_us / 1000000 == sec;
}

/* ---- Range ---- */

enum range_kind { RANGE_WHOLE, RANGE_PART, RANGE_UNSATISFIABLE };

/* Malformed ranges, other units and several ranges are answered with the whole, as the RFC allows. */
static enum range_kind parse_range(struct str v, int64_t size, int64_t *from, int64_t *n)
{
    uint64_t first, last;
    struct str rest = v, unit = str_cut(&rest, '=');
    if (!str_ieq(str_trim(unit), STR("bytes")) || memchr(rest.n ? rest.p : "", ',', rest.n))
        return RANGE_WHOLE;
    struct str to = str_trim(rest);
    if (!to.n || !memchr(to.p, '-', to.n))
        return RANGE_WHOLE;
    struct str a = str_cut(&to, '-');
    if (!a.n) { /* the last so many */
        if (!str_to_u64(to, &last))
            return RANGE_WHOLE;
        if (!last || !size)
            return RANGE_UNSATISFIABLE;
        *n = last < (uint64_t)size ? (int64_t)last : size;
        *from = size - *n;
        return RANGE_PART;
    }
    if (!str_to_u64(a, &first) || (to.n && (!str_to_u64(to, &last) || last < first)))
        return RANGE_WHOLE;
    if (first >= (uint64_t)size)
        return RANGE_UNSATISFIABLE;
    if (!to.n || last >= (uint64_t)size)
        last = (uint64_t)size - 1;
    *from = (int64_t)first;
    *n = (int64_t)(last - first) + 1;
    return RANGE_PART;
}

static void describe(struct request *r, const struct reply_source *src)
{
    char date[CLOCK_HTTP_DATE_LEN];
    if (src->etag.n)
        reply_header(r, STR("ETag"), src->etag);
    if (src->modified_us) {
        clock_http_date(date, src->modified_us);
        reply_header(r, STR("Last-Modified"), (struct str){date, sizeof date});
    }
    reply_header(r, STR("Accept-Ranges"), STR("bytes"));
}

static void content_range(struct request *r, int64_t from, int64_t n, int64_t size)
{
    char text[80];
    int len = n ? snprintf(text, sizeof text, "bytes %lld-%lld/%lld", (long long)from, (long long)(from + n - 1),
                           (long long)size)
                : snprintf(text, sizeof text, "bytes */%lld", (long long)size);
    reply_header(r, STR("Content-Range"), (struct str){text, (size_t)len});
}

static suspends int send_part(struct request *r, const struct reply_source *src, int status, int64_t from, int64_t n,
                              struct err *e)
{
    if (reply_stream(r, status, src->type, n, e))
        return -1;
    if (r->method == HTTP_HEAD)
        return 0;
    char *buf = arena_alloc(&r->arena, n < PIECE ? (size_t)n : PIECE);
    while (n > 0) {
        size_t piece = n < PIECE ? (size_t)n : PIECE;
        if (src->read(src->arg, from, buf, piece, e) || reply_write(r, buf, piece, e))
            return -1;
        from += (int64_t)piece;
        n -= (int64_t)piece;
    }
    return 0;
}

suspends int reply_range(struct request *r, const struct reply_source *src, struct err *e)
{
    struct str range = request_header(r, STR("range"));
    int64_t from = 0, n = src->size;
    enum range_kind kind = RANGE_WHOLE;
    if (precondition_failed(r, src))
        return err_set(e, ERR_VERSION, "the content is not the one that If-Match or If-Unmodified-Since names");
    describe(r, src);
    if (unmodified(r, src)) {
        reply_begin(r, 304, NULL);
        return 0;
    }
    if (range.p && r->method == HTTP_GET && if_range_allows(r, src))
        kind = parse_range(range, src->size, &from, &n);
    if (kind == RANGE_UNSATISFIABLE) {
        struct err unsatisfiable = {0};
        err_set(&unsatisfiable, ERR_RANGE, "the content has %lld bytes", (long long)src->size);
        content_range(r, 0, 0, src->size);
        reply_problem(r, &unsatisfiable);
        return 0;
    }
    if (kind == RANGE_PART)
        content_range(r, from, n, src->size);
    return send_part(r, src, kind == RANGE_PART ? 206 : 200, from, n, e);
}
