#include "worker/api/api.h"

/* The bytes of a document: the original file in parts from the store, and the text that was found in it. */
struct file {
    struct request *r;
    struct sha256 sha256;
    struct arena arena; /* of the part that was read last */
    struct str part;
    int number;
};

suspends static int read_file(void *arg, int64_t offset, void *buf, size_t n, struct err *e)
{
    struct file *f = arg;
    char *to = buf;
    while (n) {
        int number = (int)(offset / STORE_PART);
        size_t at = (size_t)(offset % STORE_PART);
        if (f->number != number) {
            arena_fini(&f->arena);
            f->number = -1;
            if (STORE_CALL(f->r->app->store, file_get_part, &f->arena, &f->sha256, number, &f->part, e))
                return -1;
            f->number = number;
        }
        struct str piece = str_sub(f->part, at, n);
        if (!piece.n)
            return err_set(e, ERR_INTERNAL, "The stored file is shorter than it should be");
        memcpy(to, piece.p, piece.n);
        to += piece.n;
        offset += (int64_t)piece.n;
        n -= piece.n;
    }
    return 0;
}

static int read_text(void *arg, int64_t offset, void *buf, size_t n, struct err *e)
{
    struct str *text = arg;
    (void)e;
    memcpy(buf, text->p + offset, n);
    return 0;
}

static void file_fini(void *arg)
{
    arena_fini(&((struct file *)arg)->arena);
}

/* RFC 6266 and RFC 8187: the name in UTF-8, everything but unreserved characters escaped. */
static void disposition(struct request *r, struct str filename)
{
    static const char hex[] = "0123456789ABCDEF";
    struct buf b = {0};
    buf_lit(&b, "attachment");
    if (filename.n)
        buf_lit(&b, "; filename*=UTF-8''");
    for (size_t i = 0; i < filename.n; i++) {
        unsigned char c = (unsigned char)filename.p[i];
        bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '.' || c == '-' || c == '_';
        if (plain)
            buf_ch(&b, (char)c);
        else
            buf_add(&b, (char[]){'%', hex[c >> 4], hex[c & 15]}, 3);
    }
    reply_header(r, STR("Content-Disposition"), buf_view(&b));
    buf_fini(&b);
}

static struct str hash_etag(struct request *r, const struct sha256 *s)
{
    char hex[SHA256_TEXT_LEN];
    sha256_text(s, hex);
    return arena_printf(&r->arena, "\"%.*s\"", SHA256_TEXT_LEN, hex);
}

suspends int api_document_content(struct request *r, struct err *e)
{
    struct store_document d;
    struct uuid id;
    if (api_id(r, 0, "document", &id, e))
        return -1;
    if (STORE_CALL(r->app->store, document_get, &r->arena, &id, &d, e))
        return api_failed("document", r->param[0], e);
    struct file *f = arena_zalloc(&r->arena, sizeof *f);
    f->r = r;
    f->sha256 = d.sha256;
    f->number = -1;
    arena_own(&r->arena, f, file_fini);
    /* What users upload must not act as a page of this origin. */
    reply_header(r, STR("X-Content-Type-Options"), STR("nosniff"));
    reply_header(r, STR("Content-Security-Policy"), STR("sandbox"));
    disposition(r, d.filename);
    struct reply_source src = {.size = d.bytes,
                               .etag = hash_etag(r, &d.sha256),
                               .modified_us = d.updated_us,
                               .type = d.mime.n ? arena_dup(&r->arena, d.mime).p : "application/octet-stream",
                               .read = read_file,
                               .arg = f};
    fiber_set_deadline(fiber_self(), 0); /* a large file may take long; http.write_timeout watches the client */
    return reply_range(r, &src, e);
}

suspends int api_document_text(struct request *r, struct err *e)
{
    struct uuid id;
    struct sha256 hash;
    struct str *text = arena_alloc(&r->arena, sizeof *text);
    if (api_id(r, 0, "document", &id, e))
        return -1;
    if (STORE_CALL(r->app->store, document_text, &r->arena, &id, text, e))
        return api_failed("document", r->param[0], e);
    sha256_of(text->p, text->n, &hash);
    struct reply_source src = {.size = (int64_t)text->n,
                               .etag = hash_etag(r, &hash),
                               .type = "text/plain; charset=utf-8",
                               .read = read_text,
                               .arg = text};
    fiber_set_deadline(fiber_self(), 0);
    return reply_range(r, &src, e);
}
