#include "worker/api/api.h"
#include "worker/api/docs.h"
#include "version.h"

/* This API as one static page without scripts, from the same tables as /openapi.json. */

static const char head[] =
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">"
    "<title>ragd API</title><style>"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 "
    "1rem;color:#222;background:#fff}"
    "code,pre{font:14px/1.4 "
    "ui-monospace,monospace}pre{background:#f4f4f4;padding:.6rem;white-space:pre-wrap;overflow-wrap:anywhere}"
    "h2{border-bottom:1px solid #ccc;margin-top:2.5rem}h3{margin-bottom:0}h3 b{display:inline-block;min-width:4.5rem}"
    "p{margin:.3rem 0}a{color:#0645ad}dt{float:left;clear:left;min-width:9rem}dd{margin-left:9.5rem}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#242424}a{color:#8ab4f8}}"
    "</style>";

static void text(struct buf *b, const char *z)
{
    for (; *z; z++) {
        switch (*z) {
        case '<': buf_lit(b, "&lt;"); break;
        case '>': buf_lit(b, "&gt;"); break;
        case '&': buf_lit(b, "&amp;"); break;
        case '\'': buf_lit(b, "&quot;"); break;
        default: buf_ch(b, *z);
        }
    }
}

static void schema_link(struct buf *b, struct str name)
{
    if (api_schema_find(name))
        buf_printf(b, "<a href=\"#%.*s\">%.*s</a>", STR_ARG(name), STR_ARG(name));
    else
        buf_printf(b, "<code>%.*s</code>", STR_ARG(name));
}

static void write_params(struct buf *b, const char *names)
{
    struct str rest = str_of(names);
    if (!rest.n)
        return;
    buf_lit(b, "<dl>");
    while (rest.n) {
        const struct api_param *p = api_param_find(str_cut(&rest, ' '));
        if (!p)
            continue;
        buf_printf(b, api_param_is_header(p) ? "<dt><code>%s:</code><dd>" : "<dt><code>?%s=</code><dd>", p->name);
        text(b, p->doc);
    }
    buf_lit(b, "</dl>");
}

static void write_route(struct buf *b, const struct route *route, const struct api_op *op)
{
    struct str rest = str_of(op->answers);
    buf_printf(b, "<h3><b>%.*s</b> <code>%s</code></h3><p>", STR_ARG(http_method_name(route->method)), route->path);
    text(b, route->summary);
    buf_lit(b, "</p>");
    write_params(b, op->params);
    if (op->request[0]) {
        buf_lit(b, "<p>Body: ");
        schema_link(b, str_of(op->request));
        if (route->body == BODY_UPLOAD) {
            buf_lit(b, " or multipart ");
            schema_link(b, STR("DocumentForm"));
        }
        buf_lit(b, "</p>");
    }
    buf_lit(b, "<p>Answer:");
    while (rest.n) {
        struct str what = str_cut(&rest, ' '), status = str_cut(&what, '=');
        buf_printf(b, " %.*s ", STR_ARG(status));
        for (bool first = true; what.n && !str_eq(what, STR("-")); first = false) {
            buf_str(b, first ? STR("") : STR(" or "));
            schema_link(b, str_cut(&what, '|'));
        }
    }
    buf_lit(b, "</p>");
}

int api_docs(struct request *r, struct err *e)
{
    static const char *const tags[] = {"Documents", "Collections", "Search", "Jobs",
                                       "Webhooks",  "Evaluation",  "Admin",  "System"};
    struct buf *b = reply_begin(r, 200, "text/html; charset=utf-8");
    (void)e;
    reply_header(r, STR("Content-Security-Policy"), STR("default-src 'none'; style-src 'unsafe-inline'"));
    buf_str(b, (struct str){head, sizeof head - 1});
    buf_printf(b,
               "<h1>ragd %s</h1><p>Also as <a href=\"%s/openapi.json\">OpenAPI 3.1</a>. Errors are "
               "<a href=\"#Problem\">problem documents</a>.</p>",
               RAGD_VERSION, r->cfg->server_base_path);
    for (size_t t = 0; t < COUNT(tags); t++) {
        buf_printf(b, "<h2>%s</h2>", tags[t]);
        for (size_t i = 0; i < n_routes; i++) {
            const struct api_op *op = api_op_find(routes[i].name);
            if (op && strcmp(op->tag, tags[t]) == 0)
                write_route(b, &routes[i], op);
        }
    }
    buf_lit(b, "<h2>Schemas</h2>");
    for (size_t i = 0; i < n_api_schemas; i++) {
        buf_printf(b, "<h3 id=%s>%s</h3><pre>", api_schemas[i].name, api_schemas[i].name);
        text(b, api_schemas[i].text);
        buf_lit(b, "</pre>");
    }
    return 0;
}
