#include "worker/api/api.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

enum { PREFER_WAIT_MAX = 60, PAGE_DEFAULT = 20, WAIT_MARGIN_NS = 500000000 };

int api_failed(const char *what, struct str which, struct err *e)
{
    if (e->code == ERR_NOT_FOUND)
        err_set(e, ERR_NOT_FOUND, "No %s '%.*s'", what, (int)(which.n < 128 ? which.n : 128), which.p);
    return -1;
}

int api_id(struct request *r, size_t i, const char *what, struct uuid *out, struct err *e)
{
    if (uuid_parse(r->param[i], out))
        return 0;
    err_set(e, ERR_NOT_FOUND, "no id");
    return api_failed(what, r->param[i], e);
}

suspends int api_collection_id(struct request *r, struct str which, struct uuid *out, struct err *e)
{
    struct store_collection c;
    if (uuid_parse(which, out))
        return 0;
    if (STORE_CALL(r->app->store, collection_by_name, &r->arena, which, &c, e))
        return api_failed("collection", which, e);
    *out = c.id;
    return 0;
}

suspends int api_collection_ids(struct request *r, const json_t *list, struct uuid *out, struct err *e)
{
    char at[48];
    for (size_t i = 0, n = json_array_size(list); i < n; i++) {
        const json_t *v = json_array_get(list, i);
        struct str name = {json_string_value(v), json_string_length(v)};
        snprintf(at, sizeof at, "/collections/%zu", i);
        if (!json_is_string(v))
            return err_at(e, at, "A collection is named by its id or its name, a string");
        if (api_collection_id(r, name, &out[i], e))
            return -1;
    }
    return 0;
}

struct parse {
    struct arena *arena;
    struct str text;
    int depth, result;
    json_t **out;
    struct str *lifted;
    struct err *e;
};

static void parse_blocking(void *arg)
{
    struct parse *p = arg;
    p->result = p->lifted ? json_parse_lifting(p->arena, p->text, p->depth, "text", p->out, p->lifted, p->e)
                          : json_parse_object(p->arena, p->text, p->depth, p->out, p->e);
}

suspends int api_parse(struct request *r, struct arena *a, struct str text, json_t **out, struct str *lifted,
                       struct err *e)
{
    enum { LARGE = 1 << 20 }; /* takes longer than others should wait for their turn */
    struct parse p = {a, text, (int)r->cfg->limits_json_depth, 0, out, lifted, e};
    if (text.n > LARGE)
        fiber_blocking(parse_blocking, &p);
    else
        parse_blocking(&p);
    return p.result;
}

/* The JSON text of the body. */
suspends static int read_body(struct request *r, struct str *text, struct err *e)
{
    bool upload = r->route->body == BODY_UPLOAD;
    struct str type = request_media_type(r);
    if (type.n && !str_eq(type, STR(JSON_TYPE)) && !str_eq(type, STR("application/merge-patch+json")))
        return err_set(e, ERR_MEDIA_TYPE, "Content-Type must be application/json, not '%.80s'",
                       arena_dup(&r->arena, type).p);
    return body_all(r, (size_t)(upload ? r->cfg->limits_upload + (1 << 20) : r->cfg->limits_json_body), text, e);
}

suspends int api_body(struct request *r, bool optional, json_t **out, struct err *e)
{
    struct str text = STR("");
    if (!optional || request_has_body(r))
        if (read_body(r, &text, e))
            return -1;
    if (optional && !text.n)
        text = STR("{}");
    return api_parse(r, &r->arena, text, out, NULL, e);
}

suspends int api_body_lifting(struct request *r, json_t **out, struct str *lifted, struct err *e)
{
    struct str text;
    return read_body(r, &text, e) || api_parse(r, &r->arena, text, out, lifted, e) ? -1 : 0;
}

int api_if_match(struct request *r, int64_t *version, struct err *e)
{
    if (request_if_match(r, version, e))
        return -1;
    if (r->cfg->http_require_if_match && !request_header(r, STR("If-Match")).p)
        return err_set(e, ERR_PRECONDITION,
                       "This server takes changes with If-Match only (http.require_if_match): send the ETag you read");
    return 0;
}

static int page_id(struct request *r, const char *name, bool *has, struct uuid *out, struct err *e)
{
    struct str text;
    *has = request_query(r, str_of(name), &text);
    if (*has && !uuid_parse(text, out))
        return err_at(e, name, "'%s' must be the id of an object of this list", name);
    return 0;
}

int api_page(struct request *r, struct store_page *out, struct err *e)
{
    struct store_page p = {0};
    struct str order;
    int64_t limit, max = r->cfg->limits_page;
    if (request_query_int(r, "limit", max < PAGE_DEFAULT ? max : PAGE_DEFAULT, 1, max, &limit, e) ||
        page_id(r, "after", &p.has_after, &p.after, e) || page_id(r, "before", &p.has_before, &p.before, e))
        return -1;
    if (request_query(r, STR("order"), &order)) {
        p.ascending = str_eq(order, STR("asc"));
        if (!p.ascending && !str_eq(order, STR("desc")))
            return err_at(e, "order", "'order' must be asc or desc");
    }
    p.limit = (int)limit;
    *out = p;
    return 0;
}

int api_filter_text(struct request *r, struct str text, const struct filter **out, struct err *e)
{
    struct filter *f;
    json_t *json;
    if (json_parse_object(&r->arena, text, (int)r->cfg->limits_json_depth, &json, e)) {
        char why[sizeof e->msg];
        snprintf(why, sizeof why, "%s", e->msg);
        return err_at(e, "filter", "'filter' must be a filter object: %.280s", why);
    }
    if (filter_parse(&r->arena, json, "/filter", &f, e))
        return -1;
    *out = f;
    return 0;
}

struct api_prefer api_prefer(struct request *r)
{
    struct api_prefer p = {0};
    struct str rest = request_header(r, STR("Prefer"));
    while (rest.n) {
        struct str one = str_trim(str_cut(&rest, ','));
        struct str name = str_trim(str_cut(&one, '='));
        uint64_t seconds;
        one = str_trim(one);
        if (str_ieq(name, STR("wait")) && str_to_u64(one, &seconds))
            p.wait_ns = (int64_t)(seconds < PREFER_WAIT_MAX ? seconds : PREFER_WAIT_MAX) * SEC;
        else if (str_ieq(name, STR("return")) && str_ieq(one, STR("minimal")))
            p.minimal = true;
    }
    return p;
}

struct json_out api_reply(struct request *r, int status)
{
    return json_out(reply_begin(r, status, JSON_TYPE));
}

void api_location(struct request *r, const char *fmt, ...)
{
    char path[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    reply_header(r, STR("Location"), arena_printf(&r->arena, "%s%s", r->cfg->server_base_path, path));
}

struct json_out api_list_begin(struct request *r)
{
    struct json_out o = api_reply(r, 200);
    jo_begin(&o, '{');
    jo_member(&o, "object"), jo_strz(&o, "list");
    jo_member(&o, "data"), jo_begin(&o, '[');
    return o;
}

void api_list_end(struct json_out *o, const struct uuid *first, const struct uuid *last, bool more)
{
    jo_end(o, ']');
    jo_member(o, "first_id");
    first ? jo_uuid(o, first) : jo_null(o);
    jo_member(o, "last_id");
    last ? jo_uuid(o, last) : jo_null(o);
    jo_member(o, "has_more"), jo_bool(o, more);
    jo_end(o, '}');
}

bool api_job_over(const struct store_job *j)
{
    return j->state != JOB_queued && j->state != JOB_running;
}

suspends int api_job_await(struct request *r, int64_t wait_ns, struct store_job *j, struct err *e)
{
    int64_t pause = 10 * MS, until, left = fiber_time_left();
    jobs_announce(r->app->jobs_fd);
    if (left < INT64_MAX && wait_ns > left - WAIT_MARGIN_NS)
        wait_ns = left - WAIT_MARGIN_NS; /* the answer must still leave within the request's time */
    until = clock_ns() + wait_ns;
    while (!api_job_over(j) && clock_ns() + pause < until) {
        int why = fiber_sleep(pause);
        if (why)
            return err_set(e, why == -ETIMEDOUT ? ERR_DEADLINE : ERR_CANCELED, "Waiting for job was interrupted");
        if (STORE_CALL(r->app->store, job_get, &r->arena, &j->id, j, e))
            return -1;
        if (pause < 320 * MS)
            pause *= 2;
    }
    return 0;
}

suspends int api_job_reply(struct request *r, struct store_job *j, struct err *e)
{
    char id[UUID_TEXT_LEN];
    if (api_job_await(r, api_prefer(r).wait_ns, j, e))
        return -1;
    uuid_text(&j->id, id);
    struct json_out o = api_reply(r, api_job_over(j) ? 200 : 202);
    api_location(r, "/api/v1/jobs/%.*s", UUID_TEXT_LEN, id);
    api_write_job(&o, j);
    return 0;
}
