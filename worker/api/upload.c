#include "worker/api/upload.h"
#include "worker/core/extract.h"
#include "worker/core/given.h"
#include <assert.h>
#include <stdio.h>

enum { READ_SIZE = 64 << 10, FIELD_MAX = 1 << 20, STORE_TRIES = 3, URL_MAX = 2048 };

/* Members of the JSON form; those behind `text`, which may have been read already, and `url` are also the fields of the
 * multipart form. */
static int read_members(struct request *r, struct arena *a, json_t *object, int skip, struct upload *u, struct err *e)
{
    struct store_document_new *d = &u->doc;
    struct str on_duplicate = {0};
    json_t *metadata = NULL, *tags = NULL;
    const struct json_member table[] = {
        {"text", JSON_STR, false, false, 1, INT64_MAX, &u->text, NULL},
        {"url", JSON_STR, false, false, 1, URL_MAX, &u->url, NULL},
        {"external_id", JSON_STR, false, true, 0, UPLOAD_EXTERNAL_ID_MAX, &d->external_id, NULL},
        {"filename", JSON_STR, false, true, 0, UPLOAD_FILENAME_MAX, &d->filename, NULL},
        {"title", JSON_STR, false, true, 0, UPLOAD_TITLE_MAX, &d->title, NULL},
        {"mime", JSON_STR, false, true, 0, 127, &d->mime, NULL},
        {"language", JSON_STR, false, true, 0, 0, &d->language, NULL},
        {"metadata", JSON_OBJ, false, true, 0, 0, &metadata, NULL},
        {"tags", JSON_ARR, false, true, 0, 0, &tags, NULL},
        {"on_duplicate", JSON_STR, false, false, 0, 0, &on_duplicate, NULL},
    };
    static const char *const policies[] = {
        [DUP_SKIP] = "skip", [DUP_LINK] = "link", [DUP_VERSION] = "version", [DUP_REJECT] = "reject"};
    d->external_id = d->filename = d->title = d->mime = d->language = STR("");
    d->metadata = d->tags = STR(""); /* those of a document that is there stay */
    if (json_members(a, object, "", table + skip, COUNT(table) - (size_t)skip, false, e) ||
        api_check_text(d->external_id, UPLOAD_EXTERNAL_ID_MAX, "/external_id", "external_id", e) ||
        api_check_text(d->filename, UPLOAD_FILENAME_MAX, "/filename", "filename", e) ||
        api_check_text(d->title, UPLOAD_TITLE_MAX, "/title", "title", e) ||
        api_check_text(d->mime, 127, "/mime", "mime", e) || api_check_language(d->language, "/language", e) ||
        (metadata && api_metadata(r, a, metadata, "/metadata", &d->metadata, e)) ||
        (tags && api_tags(a, tags, "/tags", &d->tags, e)))
        return -1;
    for (size_t i = 0; on_duplicate.p && i < COUNT(policies); i++)
        if (str_eqz(on_duplicate, policies[i])) {
            d->on_duplicate = (enum store_duplicate)i;
            u->policy_given = true;
            return 0;
        }
    if (on_duplicate.p)
        return err_at(e, "/on_duplicate", "'on_duplicate' must be skip, link, version or reject");
    return 0;
}

static int too_large(struct request *r, const char *what, struct err *e)
{
    return err_set(e, ERR_TOO_LARGE, "The %s is larger than limits.upload, %lld bytes", what,
                   (long long)r->cfg->limits_upload);
}

/* A text with its vector is a document of one chunk. NULL: there is no vector. */
static int chunk_of_text(struct arena *a, json_t *object, struct upload *u, json_t **chunks, struct err *e)
{
    json_t *vector = json_object_get(object, "vector"), *text = json_object_get(object, "text"), *chunk;
    if (!vector)
        return 0;
    if (*chunks || (!u->text.p && !json_is_string(text)))
        return err_at(e, "/vector", "'vector' goes with 'text'; chunks have vectors of their own");
    text = u->text.p ? json_stringn(u->text.p, u->text.n) : json_incref(text);
    if (!text)
        return err_at(e, "/text", "'text' must be valid UTF-8");
    chunk = json_object();
    *chunks = arena_own(a, json_array(), (void (*)(void *))json_decref);
    json_object_set_new(chunk, "text", text);
    json_object_set(chunk, "vector", vector);
    json_array_append_new(*chunks, chunk);
    json_object_del(object, "text");
    json_object_del(object, "vector");
    u->text = (struct str){0};
    u->vectors_at = "/vector";
    return 0;
}

struct chunks {
    struct arena *a; /* nobody else's until they are read */
    json_t *list;
    struct upload *u;
    struct err *e;
    int rc;
};

static void read_chunks(void *arg)
{
    struct chunks *c = arg;
    struct upload *u = c->u;
    c->rc =
        given_vectors_take(c->a, c->list, "/chunks", &u->vectors, c->e) || given_check(c->a, c->list, "/chunks", c->e);
    if (c->rc == 0)
        u->text = json_text(c->a, c->list);
}

/* Client-made chunks in place of a text. They are a file like any other from here on. */
suspends static int take_chunks(struct arena *a, json_t *object, json_t *list, struct upload *u, struct err *e)
{
    enum { INLINE_MAX = 16 }; /* chunks; more, with their vectors, would hold up the loop */
    struct chunks c = {a, list, u, e, 0};
    if (u->text.p || json_object_get(object, "text"))
        return err_at(e, "/chunks", "cannot be given together with text");
    if (!json_is_array(list) || json_array_size(list) == 0)
        return err_at(e, "/chunks", "must be a list of at least one chunk");
    if (json_array_size(list) > INLINE_MAX)
        fiber_blocking(read_chunks, &c);
    else
        read_chunks(&c);
    if (c.rc && u->vectors_at) /* there it stands */
        snprintf(e->pointer, sizeof e->pointer, "%s", strstr(e->pointer, "vector") ? "/vector" : "/text");
    if (c.rc)
        return -1;
    u->vectors_at = u->vectors_at ? u->vectors_at : "/chunks";
    json_object_del(object, "chunks");
    return 0;
}

/* The URL is the content until the job has fetched it (core/fetch.h). It needs an external id, by which it is replaced. */
static int from_url(struct arena *a, struct upload *u, struct err *e)
{
    struct sha256 hash;
    char hex[SHA256_TEXT_LEN];
    if (!str_ieq(str_sub(u->url, 0, 7), STR("http://")) && !str_ieq(str_sub(u->url, 0, 8), STR("https://")))
        return err_at(e, "/url", "'url' must begin with http:// or https://");
    if (api_check_text(u->url, URL_MAX, "/url", "url", e))
        return -1;
    if (u->doc.mime.n)
        return err_at(e, "/mime", "'mime' is what the server of the URL says");
    bool named = u->doc.external_id.n || u->doc.by_external_id;
    u->named_by_url = !named;
    if (!named && u->url.n <= UPLOAD_EXTERNAL_ID_MAX) {
        u->doc.external_id = u->url;
    } else if (!named) {
        sha256_of(u->url.p, u->url.n, &hash);
        sha256_text(&hash, hex);
        u->doc.external_id = arena_printf(a, "url:sha256:%.*s", SHA256_TEXT_LEN, hex);
    }
    u->text = u->url;
    u->doc.mime = STR(STORE_URL_MIME);
    u->doc.bytes = (int64_t)u->url.n;
    return 0;
}

suspends int upload_from_json(struct request *r, struct arena *a, json_t *object, struct str text, struct upload *u,
                              struct err *e)
{
    json_t *chunks = json_object_get(object, "chunks");
    u->text = text;
    if (chunk_of_text(a, object, u, &chunks, e))
        return -1;
    if (chunks && take_chunks(a, object, chunks, u, e))
        return -1;
    if (read_members(r, a, object, u->text.p != NULL, u, e))
        return -1;
    if (!u->text.p == !u->url.p)
        return err_at(e, u->url.p ? "/url" : "/text", "A document has one of 'text', 'chunks' and 'url'");
    if (u->url.p)
        return from_url(a, u, e);
    if (chunks)
        u->doc.mime = STR(GIVEN_MIME);
    if ((int64_t)u->text.n > r->cfg->limits_upload)
        return too_large(r, "text", e);
    if (!u->doc.mime.n) {
        const char *guess = u->doc.filename.n ? extract_mime_of_name(u->doc.filename) : NULL;
        u->doc.mime = guess ? str_of(guess) : STR("text/plain");
    }
    u->doc.bytes = (int64_t)u->text.n;
    return 0;
}

/* ---- multipart ---- */
suspends static int read_file(struct request *r, struct multipart *m, struct spool *s, struct err *e)
{
    char *buf = arena_alloc(&r->arena, READ_SIZE);
    ssize_t n;
    while ((n = multipart_read(m, buf, READ_SIZE, e)) > 0) {
        if (s->size + n > r->cfg->limits_upload)
            return too_large(r, "file", e);
        if (spool_add(s, buf, (size_t)n, e))
            return -1;
    }
    return n < 0 ? -1 : 0;
}

suspends static int read_field(struct request *r, struct multipart *m, const char *name, struct str *out, struct err *e)
{
    struct buf b = {0};
    char piece[4096];
    ssize_t n;
    while ((n = multipart_read(m, piece, sizeof piece, e)) > 0) {
        if (b.n + (size_t)n > FIELD_MAX) {
            n = err_set(e, ERR_TOO_LARGE, "Form field '%.64s' is larger than %d bytes", name, FIELD_MAX);
            break;
        }
        buf_add(&b, piece, (size_t)n);
    }
    if (n == 0)
        *out = arena_dup(&r->arena, buf_view(&b));
    buf_fini(&b);
    return n < 0 ? -1 : 0;
}

/* A field as the member of a JSON object that it stands for, so that both forms are checked by one table. */
static int add_field(struct request *r, json_t *fields, const char *name, struct str value, struct err *e)
{
    char at[sizeof e->pointer];
    json_t *v, *tags;
    bool is_tags = strcmp(name, "tags") == 0 || strcmp(name, "tags[]") == 0;
    bool is_json = strcmp(name, "metadata") == 0 || (is_tags && value.n && value.p[0] == '[');
    json_pointer(at, sizeof at, "", name);
    if (!str_is_utf8(value))
        return err_at(e, at, "Form field '%.64s' must be valid UTF-8", name);
    if (is_json) {
        if (json_parse(&r->arena, value, (int)r->cfg->limits_json_depth, &v, e)) {
            snprintf(e->pointer, sizeof e->pointer, "%s", at);
            e->code = ERR_VALIDATION;
            return -1;
        }
        json_incref(v);
    } else {
        v = json_stringn(value.p, value.n);
    }
    if (!is_tags) {
        if (json_object_get(fields, name)) {
            json_decref(v);
            return err_at(e, at, "Form field '%.64s' is given twice", name);
        }
        return json_object_set_new(fields, name, v);
    }
    if (json_is_array(v))
        return json_object_set_new(fields, "tags", v);
    tags = json_object_get(fields, "tags");
    if (!tags)
        json_object_set_new(fields, "tags", tags = json_array());
    return json_array_append_new(tags, v);
}

/* The declared type if it says anything, else what the name says. */
static struct str file_type(struct str declared, struct str filename)
{
    const char *guess = filename.n ? extract_mime_of_name(filename) : NULL;
    if (declared.n && declared.n <= 127 && !str_eq(declared, STR("application/octet-stream")))
        return declared;
    return guess ? str_of(guess) : STR("application/octet-stream");
}

suspends static int read_parts(struct request *r, struct multipart *m, json_t *fields, struct upload *u,
                               struct multipart_part *file, struct err *e)
{
    struct multipart_part part;
    struct str value;
    bool more;
    for (;;) {
        if (multipart_next(m, &part, &more, e))
            return -1;
        if (!more)
            return 0;
        if (!str_is_utf8(part.name) || memchr(part.name.p, 0, part.name.n))
            return err_set(e, ERR_BAD_REQUEST, "A form field's name must be valid UTF-8");
        const char *name = arena_dup(&r->arena, part.name).p;
        if (strcmp(name, "file") == 0) {
            if (u->spool)
                return err_at(e, "/file", "Only one 'file' is taken at a time");
            *file = part;
            u->spool = arena_alloc(&r->arena, sizeof *u->spool);
            spool_init(u->spool, &r->arena);
            if (read_file(r, m, u->spool, e))
                return -1;
        } else if (read_field(r, m, name, &value, e) || add_field(r, fields, name, value, e)) {
            return -1;
        }
    }
}

static void release(void *value)
{
    json_decref(value);
}

suspends int upload_from_multipart(struct request *r, struct upload *u, struct err *e)
{
    struct multipart_part file = {0};
    json_t *fields = arena_own(&r->arena, json_object(), release);
    struct multipart *m = multipart_open(r, e);
    if (!m || read_parts(r, m, fields, u, &file, e))
        return -1;
    if (!u->spool)
        return err_at(e, "/file", "The form must have a part named 'file'");
    if (!u->spool->size)
        return err_at(e, "/file", "The file is empty");
    if (read_members(r, &r->arena, fields, 2, u, e))
        return -1;
    if (!u->doc.filename.n && file.filename.p) {
        if (api_check_text(file.filename, UPLOAD_FILENAME_MAX, "/file", "filename", e))
            return -1;
        u->doc.filename = file.filename;
    }
    if (!u->doc.mime.n) {
        if (api_check_text(file.content_type, 127, "/file", "content type", e))
            return -1;
        u->doc.mime = file_type(file.content_type, u->doc.filename);
    }
    u->doc.bytes = u->spool->size;
    return 0;
}

/* ---- into the store ---- */
static int part_of(struct upload *u, int64_t offset, void *scratch, struct str *out, struct err *e)
{
    int64_t left = u->doc.bytes - offset;
    size_t n = (size_t)(left < STORE_PART ? left : STORE_PART);
    if (!u->spool) {
        *out = str_sub(u->text, (size_t)offset, n);
        return 0;
    }
    if (u->spool->fd < 0) {
        *out = (struct str){u->spool->mem.p + offset, n};
        return 0;
    }
    if (spool_read(u->spool, offset, scratch, n, e))
        return -1;
    *out = (struct str){scratch, n};
    return 0;
}

/* Hashing yields between parts: others' requests wait no longer than for one of them. */
suspends static int hash(struct upload *u, void *scratch, struct err *e)
{
    struct sha256_ctx *c = sha256_new();
    struct str part;
    int failed = 0;
    for (int64_t at = 0; !failed && at < u->doc.bytes; at += STORE_PART) {
        failed = part_of(u, at, scratch, &part, e);
        if (!failed)
            sha256_add(c, part.p, part.n);
        if (!failed && fiber_yield())
            failed = err_set(e, ERR_CANCELED, "Upload interrupted");
    }
    sha256_end(c, &u->doc.sha256);
    sha256_free(c);
    return failed;
}

suspends static int put_parts(struct request *r, struct upload *u, void *scratch, struct err *e)
{
    struct str part;
    for (int64_t at = 0; at < u->doc.bytes; at += STORE_PART)
        if (part_of(u, at, scratch, &part, e) ||
            STORE_CALL(r->app->store, file_put_part, &u->doc.sha256, (int)(at / STORE_PART), part, e))
            return -1;
    return 0;
}

/* The collection has a document of this URL, which was fetched. */
suspends static int same_url(struct request *r, struct arena *a, struct upload *u, struct store_document *d,
                             enum store_created *what, struct store_job *job, struct err *e)
{
    struct store *s = r->app->store;
    if (u->doc.on_duplicate != DUP_SKIP)
        return err_set(
            e, ERR_CONFLICT,
            "The collection has a document of this URL: on_duplicate 'version' fetches it again, and another "
            "one needs an external_id of its own");
    if (STORE_CALL(s, document_by_external_id, a, &u->doc.collection, u->doc.external_id, d, e)) {
        e->code = e->code == ERR_NOT_FOUND ? ERR_CONFLICT : e->code; /* it was deleted meanwhile */
        return -1;
    }
    *what = STORE_DUPLICATE;
    if (d->state != DOCUMENT_failed && d->state != DOCUMENT_cancelled)
        return 0;
    u->doc.by_external_id = true;
    return STORE_CALL(s, document_create, a, &u->doc, d, what, job, e);
}

suspends int upload_store(struct request *r, struct arena *a, struct upload *u, struct store_document *d,
                          enum store_created *what, struct store_job *job, struct err *e)
{
    bool small = u->doc.bytes <= STORE_PART;
    void *scratch = u->spool && u->spool->fd >= 0 ? arena_alloc(a, STORE_PART) : NULL;
    int failed = -1;
    assert(u->doc.bytes > 0);
    if (!u->url.p && str_eq(u->doc.mime, STR(STORE_URL_MIME)))
        return err_at(e, "/mime", "This media type is reserved; name a document by 'url'");
    if (!u->policy_given)
        u->doc.on_duplicate = u->doc.by_external_id ? DUP_LINK : DUP_SKIP;
    if (u->named_by_url && u->doc.on_duplicate == DUP_VERSION)
        u->doc.by_external_id = true;
    if (small) {
        if (part_of(u, 0, scratch, &u->doc.inline_bytes, e))
            return -1;
        sha256_of(u->doc.inline_bytes.p, u->doc.inline_bytes.n, &u->doc.sha256);
    } else if (hash(u, scratch, e)) {
        return -1;
    }
    if (given_vectors_check(&r->app->backends, &u->doc.collection, &u->vectors, u->vectors_at, &u->doc.given, e))
        return -1;
    /* Parts that nobody refers to yet may be swept away at any time: then they are put once more. */
    for (int i = 0; failed && i < STORE_TRIES; i++) {
        if (!small && put_parts(r, u, scratch, e))
            return -1;
        failed = STORE_CALL(r->app->store, document_create, a, &u->doc, d, what, job, e);
        if (failed && (small || e->code != ERR_CONFLICT || u->doc.on_duplicate == DUP_REJECT))
            break;
    }
    if (failed && e->code == ERR_CONFLICT && u->named_by_url)
        failed = same_url(r, a, u, d, what, job, e);
    if (!failed && !uuid_is_zero(&job->id))
        jobs_announce(r->app->jobs_fd);
    return failed;
}
