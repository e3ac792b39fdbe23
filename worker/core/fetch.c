#include "worker/core/fetch.h"
#include "worker/core/backends.h"
#include "worker/core/extract.h"
#include "worker/io/crypto.h"
#include "worker/io/httpc.h"
#include "worker/io/json.h"

enum { REDIRECTS_MAX = 5, FILENAME_MAX_BYTES = 255 };

/* Its content is the URL. */
static bool never_fetched(const struct store_document *d)
{
    return str_eq(d->mime, STR(STORE_URL_MIME)) && d->external_id.n;
}

bool fetch_due(const struct job_context *ctx, const struct store_document *d)
{
    return never_fetched(d) || !str_eq(ctx->job->payload, STR("{}"));
}

static int permanent(struct job_context *ctx, const char *code)
{
    ctx->permanent = true;
    ctx->code = code;
    return -1;
}

/* ---- asking ---- */

/* A server that is away is, unlike a database or a model, this document's own trouble: such a try counts. */
static int not_fetched(struct job_context *ctx, struct err *e)
{
    if (e->code == ERR_VALIDATION)
        return permanent(ctx, "blocked_url");
    if (e->code == ERR_TOO_LARGE)
        return permanent(ctx, "too_large");
    if (e->code == ERR_NOT_READY || (e->code == ERR_DEADLINE && fiber_check() == 0))
        e->code = ERR_PROVIDER;
    return -1;
}

static int refused(struct job_context *ctx, int status, struct err *e)
{
    bool passing = status == 408 || status == 425 || status == 429 || status >= 500;
    if (status >= 300 && status < 400)
        err_set(e, ERR_PROVIDER, "the URL was redirected more than %d times, or to nowhere", REDIRECTS_MAX);
    else
        err_set(e, ERR_PROVIDER, "the server of the URL answered with status %d", status);
    return passing ? -1 : permanent(ctx, "fetch_refused");
}

static suspends int url_of(struct job_context *ctx, const struct store_document *d, struct str *url, struct err *e)
{
    json_t *payload;
    if (never_fetched(d))
        return STORE_CALL(ctx->store, file_get_part, ctx->arena, &d->sha256, 0, url, e);
    const struct json_member member = {"url", JSON_STR, true, false, 1, INT64_MAX, url, NULL};
    if (json_parse_object(ctx->arena, ctx->job->payload, (int)ctx->cfg->limits_json_depth, &payload, e) ||
        json_members(ctx->arena, payload, "", &member, 1, true, e))
        return permanent(ctx, "invalid_url");
    return 0;
}

static suspends int ask(struct job_context *ctx, const struct store_document *d, struct httpc_reply *out, struct err *e)
{
    struct httpc_request q = {.method = "GET",
                              .timeout_ms = ctx->cfg->ingest_fetch_timeout,
                              .max_reply = (size_t)ctx->cfg->limits_upload,
                              .max_redirects = REDIRECTS_MAX,
                              .public_only = true};
    if (url_of(ctx, d, &q.url, e))
        return -1;
    if (httpc_do(ctx->backends->http, ctx->arena, &q, out, e))
        return not_fetched(ctx, e);
    if (out->status != 200)
        return refused(ctx, out->status, e);
    if (out->body.n)
        return 0;
    err_set(e, ERR_PROVIDER, "the URL leads to an empty file");
    return permanent(ctx, "empty_file");
}

/* ---- what came ---- */

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The last part of the path, without what it may not contain. */
static struct str name_of(struct arena *a, struct str url)
{
    size_t end = 0, from = 0;
    for (size_t i = 0; i + 2 < url.n && !from; i++)
        if (memcmp(url.p + i, "://", 3) == 0)
            from = i + 3;
    while (from < url.n && url.p[from] != '/')
        from++;
    for (end = from; end < url.n && url.p[end] != '?'; end++)
        if (url.p[end] == '/')
            from = end + 1;
    char *name = arena_alloc(a, end - from + 1), *to = name;
    for (size_t i = from; i < end; i++) {
        bool escaped = url.p[i] == '%' && i + 2 < end && hex(url.p[i + 1]) >= 0 && hex(url.p[i + 2]) >= 0;
        char c = escaped ? (char)(hex(url.p[i + 1]) << 4 | hex(url.p[i + 2])) : url.p[i];
        i += escaped ? 2 : 0;
        if ((unsigned char)c >= ' ' && c != '/' && c != 0x7f)
            *to++ = c;
    }
    struct str s = {name, (size_t)(to - name)};
    return s.n <= FILENAME_MAX_BYTES && str_is_utf8(s) ? s : STR("");
}

/* What the server says, unless it says nothing; extraction looks at the bytes in any case. */
static struct str type_of(struct arena *a, const struct httpc_reply *r, struct str filename)
{
    struct str rest = r->content_type, declared = str_trim(str_cut(&rest, ';'));
    const char *guess = filename.n ? extract_mime_of_name(filename) : NULL;
    bool vague = !declared.n || declared.n > 127 || !str_is_utf8(declared) ||
                 str_starts(declared, STR("application/vnd.ragd.")) ||
                 str_ieq(declared, STR("application/octet-stream"));
    if (!vague)
        return arena_dup(a, declared);
    return guess ? str_of(guess) : STR("application/octet-stream");
}

/* Yields between parts, as a megabyte takes milliseconds. */
static suspends int hash(struct str bytes, struct sha256 *out, struct err *e)
{
    struct sha256_ctx *c = sha256_new();
    int rc = 0;
    for (size_t at = 0; at < bytes.n && rc == 0; at += STORE_PART) {
        struct str part = str_sub(bytes, at, STORE_PART);
        sha256_add(c, part.p, part.n);
        if (bytes.n > STORE_PART && fiber_yield())
            rc = err_set(e, ERR_CANCELED, "the job was cancelled");
    }
    sha256_end(c, out);
    sha256_free(c);
    return rc;
}

static suspends int put_bytes(struct job_context *ctx, struct store_document_new *in, struct str bytes, struct err *e)
{
    if (hash(bytes, &in->sha256, e))
        return -1;
    in->bytes = (int64_t)bytes.n;
    if (bytes.n <= STORE_PART) {
        in->inline_bytes = bytes;
        return 0;
    }
    for (size_t at = 0; at < bytes.n; at += STORE_PART)
        if (STORE_CALL(ctx->store, file_put_part, &in->sha256, (int)(at / STORE_PART), str_sub(bytes, at, STORE_PART),
                       e))
            return -1;
    return 0;
}

/* A client has sent something else meanwhile: what this URL leads to must not take its place. */
static int newest(struct job_context *ctx, const struct store_document *d, struct err *e)
{
    if (uuid_eq(&d->job, &ctx->job->id))
        return 0;
    err_set(e, ERR_CONFLICT, "the document has a newer job");
    return permanent(ctx, "superseded");
}

/* By the external id, which every such document has. This job then serves the new content, as with any replacement. */
static suspends int replace(struct job_context *ctx, struct store_document *d, const struct httpc_reply *r,
                            struct err *e)
{
    struct store_document now;
    enum store_created what;
    struct store_job job;
    struct str name = d->filename.n ? d->filename : name_of(ctx->arena, r->url);
    struct store_document_new in = {.collection = d->collection,
                                    .external_id = d->external_id,
                                    .by_external_id = true,
                                    .filename = name,
                                    .title = STR(""),
                                    .mime = type_of(ctx->arena, r, name),
                                    .language = STR(""),
                                    .metadata = STR(""),
                                    .tags = STR("")};
    if (put_bytes(ctx, &in, r->body, e) || STORE_CALL(ctx->store, document_get, ctx->arena, &d->id, &now, e))
        return -1;
    if (now.content_version != d->content_version)
        return err_set(e, ERR_CONFLICT, "the document was replaced meanwhile");
    if (newest(ctx, &now, e))
        return -1;
    if (memcmp(&now.sha256, &in.sha256, sizeof now.sha256) == 0) { /* it has that content */
        *d = now;
        return 0;
    }
    in.if_version = now.version;
    if (STORE_CALL(ctx->store, document_create, ctx->arena, &in, d, &what, &job, e)) {
        if (e->code == ERR_VERSION)
            e->code = ERR_CONFLICT;
        return -1;
    }
    return 0;
}

suspends int fetch_stage(struct job_context *ctx, struct store_document *d, struct err *e)
{
    struct httpc_reply reply;
    if (job_progress(ctx, DOCUMENT_parsing, "fetch", 0, 0, e))
        return -1;
    ctx->stage = "fetch";
    if (newest(ctx, d, e) || ask(ctx, d, &reply, e) || replace(ctx, d, &reply, e))
        return -1;
    return 0;
}
