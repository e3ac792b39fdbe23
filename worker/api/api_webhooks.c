#include "worker/api/api.h"
#include "worker/core/webhook.h"
#include <stdio.h>

enum { URL_MAX_BYTES = 2048, HEADERS_MAX = 16, HEADER_NAME_MAX = 64, HEADER_VALUE_MAX = 1024, PATCH_TRIES = 8 };
#define REDACTED "********"

/* ---- to the reply ---- */

static void write_headers(struct request *r, struct json_out *o, struct str headers)
{
    json_t *all, *value;
    const char *name;
    struct err e;
    jo_begin(o, '{');
    if (json_parse_object(&r->arena, headers, 4, &all, &e) == 0)
        json_object_foreach (all, name, value)
            jo_key(o, str_of(name)), jo_strz(o, REDACTED);
    jo_end(o, '}');
}

/* `secret` is told only to whoever has just been given one. */
static void write_webhook(struct request *r, struct json_out *o, const struct store_webhook *h, bool secret)
{
    jo_begin(o, '{');
    jo_member(o, "id"), jo_uuid(o, &h->id);
    jo_member(o, "object"), jo_strz(o, "webhook");
    jo_member(o, "url"), jo_str(o, h->url);
    jo_member(o, "events"), jo_raw(o, h->events);
    jo_member(o, "secret"), secret ? jo_str(o, h->secret) : jo_strz(o, REDACTED);
    jo_member(o, "headers"), write_headers(r, o, h->headers);
    jo_member(o, "enabled"), jo_bool(o, h->enabled);
    jo_member(o, "disabled_reason"), h->disabled_reason.n ? jo_str(o, h->disabled_reason) : jo_null(o);
    jo_member(o, "failures"), jo_i64(o, h->failures);
    jo_member(o, "failing_since"), jo_time(o, h->failing_since_us);
    jo_member(o, "last_try_at"), jo_time(o, h->last_try_us);
    jo_member(o, "last_status"), h->last_status ? jo_i64(o, h->last_status) : jo_null(o);
    jo_member(o, "last_error"), h->last_error.n ? jo_str(o, h->last_error) : jo_null(o);
    jo_member(o, "dropped"), jo_i64(o, h->dropped);
    jo_member(o, "last_dropped_at"), jo_time(o, h->last_dropped_us);
    jo_member(o, "version"), jo_i64(o, h->version);
    jo_member(o, "created_at"), jo_time(o, uuid_time_us(&h->id));
    jo_member(o, "updated_at"), jo_time(o, h->updated_us);
    jo_end(o, '}');
}

static void reply_webhook(struct request *r, int status, const struct store_webhook *h, bool secret)
{
    struct json_out o = api_reply(r, status);
    reply_etag(r, h->version);
    write_webhook(r, &o, h, secret);
}

static void write_delivery(struct json_out *o, const struct store_delivery *d)
{
    jo_begin(o, '{');
    jo_member(o, "id"), jo_uuid(o, &d->id);
    jo_member(o, "object"), jo_strz(o, "webhook.delivery");
    jo_member(o, "type"), jo_str(o, d->type);
    jo_member(o, "status"), jo_strz(o, delivery_state_name(d->state));
    jo_member(o, "tries"), jo_i64(o, d->tries);
    jo_member(o, "last_status"), d->status ? jo_i64(o, d->status) : jo_null(o);
    jo_member(o, "last_error"), d->error.n ? jo_str(o, d->error) : jo_null(o);
    jo_member(o, "next_try_at"), jo_time(o, d->state == DELIVERY_waiting ? d->due_us : 0);
    jo_member(o, "created_at"), jo_time(o, d->created_us);
    jo_member(o, "ended_at"), jo_time(o, d->ended_us);
    jo_member(o, "data"), jo_raw(o, d->data);
    jo_end(o, '}');
}

/* ---- from the request ---- */

struct fields {
    struct str url, secret;
    json_t *events, *headers;
    bool enabled, has_url, has_events, has_secret, has_headers, has_enabled;
};

static int read_fields(struct request *r, json_t *body, bool creating, struct fields *f, struct err *e)
{
    bool null = !creating; /* a merge patch: no headers, a new secret */
    const struct json_member table[] = {
        {"url", JSON_STR, creating, false, 1, URL_MAX_BYTES, &f->url, &f->has_url},
        {"events", JSON_ARR, creating, false, 1, 16, &f->events, &f->has_events},
        {"secret", JSON_STR, false, null, 0, 0, &f->secret, &f->has_secret},
        {"headers", JSON_OBJ, false, null, 0, 0, &f->headers, &f->has_headers},
        {"enabled", JSON_BOOLEAN, false, false, 0, 0, &f->enabled, &f->has_enabled},
    };
    *f = (struct fields){.url = STR(""), .secret = STR(""), .enabled = true};
    if (json_members(&r->arena, body, "", table, COUNT(table), false, e))
        return -1;
    if (f->secret.n && !webhook_secret_valid(f->secret))
        return err_at(e, "/secret",
                      "'secret' must be whsec_ and the base64 of 24 to 64 bytes; without one, one is made");
    return 0;
}

suspends static int check_url(struct request *r, struct str url, struct err *e)
{
    if (api_check_text(url, URL_MAX_BYTES, "/url", "url", e))
        return -1;
    if (webhook_check_url(&r->app->backends, &r->arena, url, e) == 0)
        return 0;
    if (e->code == ERR_NOT_READY)
        return err_at(e, "/url", "the host of 'url' does not resolve: try again, or correct it");
    if (e->code == ERR_BLOCKED_URL)
        str_copyz(e->pointer, sizeof e->pointer, STR("/url"));
    return -1;
}

static bool is_event(const char *s)
{
    for (size_t i = 0; i < n_webhook_events; i++)
        if (s && strcmp(s, webhook_events[i]) == 0)
            return true;
    return false;
}

static int check_events(struct request *r, json_t *events, struct str *out, struct err *e)
{
    char pointer[32];
    size_t i;
    json_t *v;
    json_array_foreach (events, i, v)
        if (!is_event(json_string_value(v))) {
            snprintf(pointer, sizeof pointer, "/events/%zu", i);
            return err_at(e, pointer,
                          "an event is one of document.ready, document.failed, job.succeeded, job.failed, "
                          "job.cancelled, or document.* or job.* for all of them");
        }
    *out = json_text(&r->arena, events);
    return 0;
}

/* A token (RFC 9110, section 5.6.2) that names nothing which the delivery or the connection says itself. */
static bool header_name_ok(struct str name)
{
    static const char *const ours[] = {"connection", "content-length",   "content-type", "expect",
                                       "host",       "keep-alive",       "te",           "trailer",
                                       "upgrade",    "transfer-encoding"};
    if (!name.n || name.n > HEADER_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (!c || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    for (size_t i = 0; i < COUNT(ours); i++)
        if (str_ieq(name, str_of(ours[i])))
            return false;
    return !str_ieq(str_sub(name, 0, 8), STR("webhook-")) && !str_ieq(str_sub(name, 0, 6), STR("proxy-"));
}

/* Visible ASCII, with spaces inside (section 5.5): what curl passes on as it is. */
static bool header_value_ok(struct str value)
{
    if (!value.n || value.n > HEADER_VALUE_MAX || value.p[0] == ' ' || value.p[value.n - 1] == ' ')
        return false;
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] < ' ' || value.p[i] > '~')
            return false;
    return true;
}

static int check_headers(struct request *r, json_t *headers, struct str *out, struct err *e)
{
    char pointer[sizeof e->pointer];
    const char *name, *other;
    json_t *v, *w;
    *out = STR("{}");
    if (!headers)
        return 0;
    if (json_object_size(headers) > HEADERS_MAX)
        return err_at(e, "/headers", "'headers' must have at most %d members", HEADERS_MAX);
    json_object_foreach (headers, name, v) {
        json_pointer(pointer, sizeof pointer, "/headers", name);
        if (!header_name_ok(str_of(name)))
            return err_at(e, pointer,
                          "is no name of a header that may be set: at most %d letters, digits or !#$%%&'*+-.^_`|~,"
                          " and none that the delivery sets itself",
                          HEADER_NAME_MAX);
        if (!json_is_string(v) || !header_value_ok((struct str){json_string_value(v), json_string_length(v)}))
            return err_at(e, pointer, "the value of a header is a string of 1 to %d visible ASCII characters",
                          HEADER_VALUE_MAX);
        if (strcmp(json_string_value(v), REDACTED) == 0)
            return err_at(e, pointer, "this stands for the value in answers: leave the header out to keep it");
        json_object_foreach (headers, other, w)
            if (w != v && str_ieq(str_of(name), str_of(other)))
                return err_at(e, pointer, "the header is there twice");
    }
    *out = json_text(&r->arena, headers);
    return 0;
}

/* ---- handlers ---- */

suspends int api_webhook_create(struct request *r, struct err *e)
{
    struct store_webhook in = {0}, out;
    struct fields f;
    json_t *body;
    char id[UUID_TEXT_LEN];
    if (api_body(r, false, &body, e) || read_fields(r, body, true, &f, e) || check_events(r, f.events, &in.events, e) ||
        check_headers(r, f.headers, &in.headers, e) || check_url(r, f.url, e))
        return -1;
    in.url = f.url;
    in.enabled = f.enabled;
    in.secret = f.secret.n ? f.secret : webhook_secret_new(&r->arena);
    if (STORE_CALL(r->app->store, webhook_create, &r->arena, &in, r->cfg->webhooks_max, &out, e))
        return -1;
    reply_webhook(r, 201, &out, !f.secret.n);
    uuid_text(&out.id, id);
    api_location(r, "/api/v1/webhooks/%.*s", UUID_TEXT_LEN, id);
    return 0;
}

suspends int api_webhook_list(struct request *r, struct err *e)
{
    static const char *const allowed[] = {API_PAGE_QUERY, NULL};
    struct store_webhook *h;
    struct store_page page;
    size_t n;
    bool more;
    if (request_query_only(r, allowed, e) || api_page(r, &page, e) ||
        STORE_CALL(r->app->store, webhook_list, &r->arena, &page, &h, &n, &more, e))
        return -1;
    struct json_out o = api_list_begin(r);
    for (size_t i = 0; i < n; i++)
        write_webhook(r, &o, &h[i], false);
    api_list_end(&o, n ? &h[0].id : NULL, n ? &h[n - 1].id : NULL, more);
    return 0;
}

suspends static int find(struct request *r, struct store_webhook *h, struct err *e)
{
    struct uuid id;
    if (api_id(r, 0, "webhook", &id, e))
        return -1;
    return STORE_CALL(r->app->store, webhook_get, &r->arena, &id, h, e) ? api_failed("webhook", r->param[0], e) : 0;
}

/* Never 304: how it fares is no part of its version. */
suspends int api_webhook_get(struct request *r, struct err *e)
{
    struct store_webhook h;
    if (find(r, &h, e))
        return -1;
    reply_webhook(r, 200, &h, false);
    return 0;
}

suspends static int patch_once(struct request *r, const struct fields *f, struct store_webhook_patch *p,
                               int64_t if_version, struct err *e)
{
    struct store_webhook h;
    json_t *merged;
    if (find(r, &h, e))
        return -1;
    if (if_version && if_version != h.version)
        return err_set(e, ERR_VERSION, "The webhook is at version %lld now", (long long)h.version);
    if (f->has_headers) {
        if (f->headers && api_merge(r, h.headers, f->headers, &merged, e))
            return -1;
        if (check_headers(r, f->headers ? merged : NULL, &p->headers, e))
            return -1;
    }
    if (STORE_CALL(r->app->store, webhook_patch, &r->arena, &h.id, p, h.version, &h, e))
        return api_failed("webhook", r->param[0], e);
    reply_webhook(r, 200, &h, f->has_secret && !f->secret.n);
    return 0;
}

suspends int api_webhook_patch(struct request *r, struct err *e)
{
    struct store_webhook_patch p = {0};
    struct fields f;
    json_t *body;
    int64_t if_version;
    if (api_if_match(r, &if_version, e) || api_body(r, false, &body, e) || read_fields(r, body, false, &f, e) ||
        (f.has_events && check_events(r, f.events, &p.events, e)) || (f.has_url && check_url(r, f.url, e)))
        return -1;
    p.set_url = f.has_url;
    p.set_events = f.has_events;
    p.set_secret = f.has_secret;
    p.set_headers = f.has_headers;
    p.set_enabled = f.has_enabled;
    p.url = f.url;
    p.secret = f.secret.n ? f.secret : webhook_secret_new(&r->arena);
    p.enabled = f.enabled;
    for (int i = 0; i < PATCH_TRIES; i++) {
        if (!patch_once(r, &f, &p, if_version, e))
            return 0;
        if (e->code != ERR_VERSION || if_version)
            return -1;
    }
    return err_set(e, ERR_BUSY, "The webhook is being changed by others all the time; try again");
}

suspends int api_webhook_delete(struct request *r, struct err *e)
{
    struct uuid id;
    int64_t if_version;
    if (api_if_match(r, &if_version, e) || api_id(r, 0, "webhook", &id, e))
        return -1;
    if (STORE_CALL(r->app->store, webhook_delete, &id, if_version, e))
        return api_failed("webhook", r->param[0], e);
    reply_begin(r, 204, NULL);
    return 0;
}

suspends int api_webhook_test(struct request *r, struct err *e)
{
    struct store_delivery in = {.type = STR(WEBHOOK_TEST), .data = STR("{\"document\":null,\"job\":null}")}, out;
    struct uuid id;
    json_t *body;
    if (api_id(r, 0, "webhook", &id, e) || api_body(r, true, &body, e) ||
        json_members(&r->arena, body, "", NULL, 0, false, e))
        return -1;
    if (STORE_CALL(r->app->store, delivery_create, &r->arena, &id, &in, &out, e))
        return api_failed("webhook", r->param[0], e);
    struct json_out o = api_reply(r, 201);
    write_delivery(&o, &out);
    return 0;
}

suspends int api_webhook_deliveries(struct request *r, struct err *e)
{
    static const char *const allowed[] = {"limit", "after", NULL};
    struct store_delivery *d;
    struct store_page page;
    struct uuid id;
    size_t n;
    bool more;
    if (request_query_only(r, allowed, e) || api_page(r, &page, e) || api_id(r, 0, "webhook", &id, e))
        return -1;
    if (STORE_CALL(r->app->store, delivery_list, &r->arena, &id, page.has_after ? &page.after : NULL, page.limit, &d,
                   &n, &more, e))
        return api_failed("webhook", r->param[0], e);
    struct json_out o = api_list_begin(r);
    for (size_t i = 0; i < n; i++)
        write_delivery(&o, &d[i]);
    api_list_end(&o, n ? &d[0].id : NULL, n ? &d[n - 1].id : NULL, more);
    return 0;
}
