#include "worker/api/api.h"
#include "worker/api/docs.h"
#include "version.h"

/* This API as OpenAPI 3.1, from the tables of routes and schemas. */

static void raw(struct json_out *o, const char *text)
{
    jo_raw(o, STR(""));
    for (; *text; text++)
        buf_ch(o->b, *text == '\'' ? '"' : *text);
}

static void ref(struct json_out *o, struct str schema)
{
    jo_begin(o, '{');
    jo_member(o, "$ref");
    jo_raw(o, STR(""));
    buf_printf(o->b, "\"#/components/schemas/%.*s\"", STR_ARG(schema));
    jo_end(o, '}');
}

/* ---- one operation ---- */
static void write_path_params(struct json_out *o, const char *path)
{
    struct str rest = str_of(path), name;
    while (str_cut(&rest, '{'), rest.n) {
        name = str_cut(&rest, '}');
        jo_begin(o, '{');
        jo_member(o, "name"), jo_str(o, name);
        jo_member(o, "in"), jo_strz(o, "path");
        jo_member(o, "required"), jo_bool(o, true);
        jo_member(o, "schema"), raw(o, "{'type':'string'}");
        jo_end(o, '}');
    }
}

static void write_params(struct json_out *o, const char *names)
{
    struct str rest = str_of(names);
    while (rest.n) {
        const struct api_param *p = api_param_find(str_cut(&rest, ' '));
        if (!p)
            continue;
        jo_begin(o, '{');
        jo_member(o, "name"), jo_strz(o, p->name);
        jo_member(o, "in"), jo_strz(o, api_param_is_header(p) ? "header" : "query");
        jo_member(o, "description"), jo_strz(o, p->doc);
        jo_member(o, "schema"), raw(o, p->schema);
        jo_end(o, '}');
    }
}

static void write_header_param(struct json_out *o, const char *name, const char *doc)
{
    jo_begin(o, '{');
    jo_member(o, "name"), jo_strz(o, name);
    jo_member(o, "in"), jo_strz(o, "header");
    jo_member(o, "description"), jo_strz(o, doc);
    jo_member(o, "schema"), raw(o, "{'type':'string'}");
    jo_end(o, '}');
}

static void write_content(struct json_out *o, struct str type, struct str schema)
{
    jo_key(o, type);
    jo_begin(o, '{');
    if (schema.n)
        jo_member(o, "schema"), ref(o, schema);
    jo_end(o, '}');
}

static void write_request(struct json_out *o, const struct route *route, const struct api_op *op)
{
    jo_member(o, "requestBody"), jo_begin(o, '{');
    jo_member(o, "required"), jo_bool(o, strcmp(op->request, "Empty") != 0);
    jo_member(o, "content"), jo_begin(o, '{');
    write_content(o, route->body == BODY_STREAM ? STR(NDJSON_TYPE) : STR(JSON_TYPE), str_of(op->request));
    if (route->body == BODY_UPLOAD)
        write_content(o, STR("multipart/form-data"), STR("DocumentForm"));
    if (route->method == HTTP_PATCH)
        write_content(o, STR("application/merge-patch+json"), str_of(op->request));
    jo_end(o, '}'), jo_end(o, '}');
}

static void write_answers(struct json_out *o, const struct route *route, const char *answers)
{
    bool lines = route->body == BODY_STREAM;
    struct str rest = str_of(answers);
    jo_member(o, "responses"), jo_begin(o, '{');
    while (rest.n) {
        struct str what = str_cut(&rest, ' '), status = str_cut(&what, '=');
        jo_key(o, status);
        jo_begin(o, '{');
        struct str alternatives = what, first = str_cut(&alternatives, '|');
        jo_member(o, "description"), jo_str(o, api_schema_find(first) ? first : STR("See above"));
        if (!str_eq(what, STR("-"))) {
            jo_member(o, "content"), jo_begin(o, '{');
            while (what.n) {
                struct str one = str_cut(&what, '|');
                bool schema = api_schema_find(one) != NULL;
                write_content(o, !schema ? one : lines ? STR(NDJSON_TYPE) : STR(JSON_TYPE), schema ? one : STR(""));
            }
            jo_end(o, '}');
        }
        jo_end(o, '}');
    }
    jo_member(o, "default"), jo_begin(o, '{');
    jo_member(o, "description"), jo_strz(o, "Any error");
    jo_member(o, "content"), jo_begin(o, '{');
    write_content(o, STR("application/problem+json"), STR("Problem"));
    jo_end(o, '}'), jo_end(o, '}'), jo_end(o, '}');
}

/* Two routes may share a handler; ids of operations must differ: api_livez of /health is health. */
static struct str operation_id(size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (routes[k].handler == routes[i].handler)
            return str_of(strrchr(routes[i].path, '/') + 1);
    return str_of(routes[i].name + strlen("api_"));
}

static void write_operation(struct json_out *o, size_t i)
{
    static const char *const methods[] = {"get", "head", "post", "put", "patch", "delete", "options"};
    const struct route *route = &routes[i];
    const struct api_op *op = api_op_find(route->name);
    if (!op)
        return; /* a test finds it */
    jo_key(o, str_of(methods[route->method])), jo_begin(o, '{');
    jo_member(o, "operationId"), jo_str(o, operation_id(i));
    jo_member(o, "tags"), jo_begin(o, '['), jo_strz(o, op->tag), jo_end(o, ']');
    jo_member(o, "summary"), jo_strz(o, route->summary);
    jo_member(o, "parameters"), jo_begin(o, '[');
    write_path_params(o, route->path);
    write_params(o, op->params);
    if (route->idempotent_key)
        write_header_param(o, "Idempotency-Key", "Repeated within 24 hours, the first answer is given again");
    if (strncmp(op->answers, "202", 3) == 0)
        write_header_param(o, "Prefer", "wait=N: answer when the job is over, or after N seconds; return=minimal");
    jo_end(o, ']');
    if (op->request[0])
        write_request(o, route, op);
    write_answers(o, route, op->answers);
    jo_end(o, '}');
}

/* ---- the document ---- */
static bool shown(const struct request *r, size_t i)
{
    return r->cfg->debug_faults || strncmp(routes[i].path, "/debug/", 7) != 0;
}

static bool first_of_path(size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(routes[k].path, routes[i].path) == 0)
            return false;
    return true;
}

static void write_paths(struct request *r, struct json_out *o)
{
    jo_member(o, "paths"), jo_begin(o, '{');
    for (size_t i = 0; i < n_routes; i++) {
        if (!shown(r, i) || !first_of_path(i))
            continue;
        jo_key(o, str_of(routes[i].path)), jo_begin(o, '{');
        for (size_t k = i; k < n_routes; k++)
            if (strcmp(routes[k].path, routes[i].path) == 0)
                write_operation(o, k);
        jo_end(o, '}');
    }
    jo_end(o, '}');
}

/* What ragd sends itself. */
static const char delivery[] =
    "{'event':{'post':{'summary':'A delivery to a "
    "webhook','requestBody':{'required':true,'content':{'application/json':"
    "{'schema':{'$ref':'#/components/schemas/Event'}}}},'responses':{'2XX':{'description':'Accepted: not sent again'},"
    "'410':{'description':'Disables the webhook'},'default':{'description':'Sent again, after Retry-After or what is "
    "set'}}}}}";

int api_openapi(struct request *r, struct err *e)
{
    (void)e;
    struct json_out o = api_reply(r, 200);
    jo_begin(&o, '{');
    jo_member(&o, "openapi"), jo_strz(&o, "3.1.0");
    jo_member(&o, "info"), jo_begin(&o, '{');
    jo_member(&o, "title"), jo_strz(&o, "ragd");
    jo_member(&o, "version"), jo_strz(&o, RAGD_VERSION);
    jo_member(&o, "description"), jo_strz(&o, "A document server for retrieval-augmented generation");
    jo_end(&o, '}');
    jo_member(&o, "servers"), jo_begin(&o, '['), jo_begin(&o, '{');
    jo_member(&o, "url"), jo_strz(&o, r->cfg->server_base_path[0] ? r->cfg->server_base_path : "/");
    jo_end(&o, '}'), jo_end(&o, ']');
    write_paths(r, &o);
    jo_member(&o, "webhooks"), raw(&o, delivery);
    jo_member(&o, "components"), jo_begin(&o, '{');
    jo_member(&o, "schemas"), jo_begin(&o, '{');
    for (size_t i = 0; i < n_api_schemas; i++) {
        jo_key(&o, str_of(api_schemas[i].name));
        raw(&o, api_schemas[i].text);
    }
    jo_end(&o, '}'), jo_end(&o, '}'), jo_end(&o, '}');
    return 0;
}
