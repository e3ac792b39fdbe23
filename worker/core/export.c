#include "worker/core/export.h"
#include "worker/io/base64.h"
#include "worker/io/json.h"

enum { DOCUMENTS = 50, CHUNKS = 100, TRIES = 20 };

struct out {
    const struct backends *b;
    const struct store_collection *c;
    const struct export_sink *to;
    struct arena a; /* ends with each line */
};

suspends static int send(struct out *o, struct buf *line, struct err *e)
{
    int rc = o->to->fn(o->to->arg, buf_view(line), e);
    buf_fini(line);
    arena_fini(&o->a);
    return rc;
}

static struct json_out begin(struct buf *b, const char *type)
{
    struct json_out j = json_out(b);
    jo_begin(&j, '{');
    jo_member(&j, "type"), jo_strz(&j, type);
    return j;
}

/* A line that stands for itself. */
suspends static int send_whole(struct out *o, struct buf *line, struct err *e)
{
    return send(o, line, e) ? -1 : o->to->settle(o->to->arg, true, e);
}

suspends int export_begin(const struct export_sink *to, struct err *e)
{
    struct out o = {.to = to};
    struct buf b = {0};
    struct json_out j = begin(&b, "ragd");
    jo_member(&j, "version"), jo_i64(&j, EXPORT_VERSION);
    jo_end(&j, '}');
    return send_whole(&o, &b, e);
}

suspends int export_end(const struct export_sink *to, int64_t documents, struct err *e)
{
    struct out o = {.to = to};
    struct buf b = {0};
    struct json_out j = begin(&b, "done");
    jo_member(&j, "documents"), jo_i64(&j, documents);
    jo_end(&j, '}');
    return send_whole(&o, &b, e);
}

suspends static int collection(struct out *o, struct err *e)
{
    const struct store_collection *c = o->c;
    struct buf b = {0};
    struct json_out j = begin(&b, "collection");
    jo_member(&j, "id"), jo_uuid(&j, &c->id);
    jo_member(&j, "name"), jo_str(&j, c->name);
    jo_member(&j, "description"), jo_str(&j, c->description);
    jo_member(&j, "language"), jo_str(&j, c->language);
    jo_member(&j, "metadata"), jo_raw(&j, c->metadata);
    jo_member(&j, "chunking"), jo_raw(&j, c->chunking);
    jo_member(&j, "embedder"), jo_str(&j, c->embedder);
    jo_member(&j, "dim"), jo_i64(&j, c->dim);
    jo_end(&j, '}');
    return send_whole(o, &b, e);
}

static void write_sha(struct json_out *j, const struct sha256 *sha)
{
    char text[SHA256_TEXT_LEN];
    sha256_text(sha, text);
    jo_str(j, (struct str){text, sizeof text});
}

suspends static int describe(struct out *o, const struct store_document *d, bool indexed, struct err *e)
{
    struct buf b = {0};
    struct json_out j = begin(&b, "document");
    jo_member(&j, "id"), jo_uuid(&j, &d->id);
    jo_member(&j, "content_version"), jo_i64(&j, d->content_version);
    jo_member(&j, "external_id"), jo_str(&j, d->external_id);
    jo_member(&j, "filename"), jo_str(&j, d->filename);
    jo_member(&j, "title"), jo_str(&j, d->title);
    jo_member(&j, "mime"), jo_str(&j, d->mime);
    jo_member(&j, "language"), jo_str(&j, d->language);
    jo_member(&j, "metadata"), jo_raw(&j, d->metadata);
    jo_member(&j, "tags"), jo_raw(&j, d->tags);
    jo_member(&j, "sha256"), write_sha(&j, &d->sha256);
    jo_member(&j, "bytes"), jo_i64(&j, d->bytes);
    jo_member(&j, "pages"), jo_i64(&j, d->pages);
    jo_member(&j, "indexed"), jo_bool(&j, indexed);
    jo_end(&j, '}');
    return send(o, &b, e);
}

suspends static int data(struct out *o, const char *type, struct str bytes, struct err *e)
{
    struct buf b = {0};
    struct json_out j = begin(&b, type);
    jo_member(&j, "data"), jo_str(&j, base64_encode(&o->a, bytes.p, bytes.n));
    jo_end(&j, '}');
    return send(o, &b, e);
}

suspends static int file(struct out *o, const struct store_document *d, struct err *e)
{
    for (int64_t at = 0; at < d->bytes; at += STORE_PART) {
        struct str part;
        if (STORE_CALL(o->b->store, file_get_part, &o->a, &d->sha256, (int)(at / STORE_PART), &part, e) ||
            data(o, "file", part, e))
            return -1;
    }
    return 0;
}

suspends static int text(struct out *o, const struct store_document *d, struct err *e)
{
    struct str part;
    int64_t at = 0;
    do {
        if (STORE_CALL(o->b->store, document_span, &o->a, d->no, at, STORE_PART, &part, e))
            return -1;
        at += (int64_t)part.n;
        bool last = part.n < STORE_PART;
        if (part.n && data(o, "text", part, e))
            return -1;
        if (last)
            return 0;
    } while (true);
}

static void write_chunk(struct out *o, struct json_out *j, const struct store_chunk *k, const float *v, int dim)
{
    jo_begin(j, '{');
    jo_member(j, "headings"), jo_raw(j, k->headings);
    jo_member(j, "sha256"), write_sha(j, &k->sha256);
    jo_member(j, "page"), jo_i64(j, k->page);
    jo_member(j, "span"), jo_begin(j, '[');
    const int64_t span[] = {k->char_start,        k->char_end,        k->byte_start,        k->byte_end,
                            k->parent.char_start, k->parent.char_end, k->parent.byte_start, k->parent.byte_end};
    for (size_t i = 0; i < sizeof span / sizeof *span; i++)
        jo_i64(j, span[i]);
    jo_end(j, ']');
    if (v)
        jo_member(j, "vector"), jo_str(j, base64_encode(&o->a, v, (size_t)dim * sizeof *v));
    jo_end(j, '}');
}

/* A page of chunks with the vectors of the generation that is searched. *n = 0: there are no more. */
suspends static int chunks(struct out *o, const struct store_document *d, int from, size_t *n, struct err *e)
{
    struct store_chunk *k;
    struct sha256 sha[CHUNKS];
    const float *v[CHUNKS] = {NULL};
    int dim = o->c->dim;
    if (STORE_CALL(o->b->store, document_chunks, &o->a, &d->id, from, CHUNKS, &k, n, e))
        return -1;
    if (*n == 0)
        return 0;
    for (size_t i = 0; i < *n; i++)
        sha[i] = k[i].sha256;
    if (dim && STORE_CALL(o->b->store, embeddings_get, &o->a, o->c->embedder, &dim, d->no, from, sha, *n, v, e))
        return -1;
    struct buf b = {0};
    struct json_out j = begin(&b, "chunks");
    jo_member(&j, "chunks"), jo_begin(&j, '[');
    for (size_t i = 0; i < *n; i++)
        write_chunk(o, &j, &k[i], v[i], dim);
    jo_end(&j, ']');
    jo_end(&j, '}');
    return send(o, &b, e);
}

suspends static int lines(struct out *o, const struct store_document *d, struct err *e)
{
    struct buf b = {0};
    /* what was indexed of an earlier content is of no use: it is ingested there */
    bool indexed = d->chunks > 0 && d->indexed_version == d->content_version;
    size_t n = 0;
    if (describe(o, d, indexed, e) || file(o, d, e) || (indexed && text(o, d, e)))
        return -1;
    for (int at = 0; indexed && at < d->chunks; at += (int)n)
        if (chunks(o, d, at, &n, e) || n == 0)
            return n == 0 ? err_set(e, ERR_INTERNAL, "A document has fewer chunks than it says") : -1;
    struct json_out j = begin(&b, "end");
    jo_end(&j, '}');
    return send(o, &b, e);
}

static bool same_content(const struct store_document *a, const struct store_document *b)
{
    return a->content_version == b->content_version && a->indexed_version == b->indexed_version &&
           a->chunks == b->chunks && a->tokens == b->tokens && uuid_eq(&a->job, &b->job) &&
           (a->state == DOCUMENT_ready) == (b->state == DOCUMENT_ready);
}

/* Clients go on changing documents: what changed while its lines were made is begun anew, what was deleted is passed over.
 * 1: it was written, 0: it is gone, -1. */
suspends static int document(struct out *o, struct arena *a, const struct store_document *listed, struct err *e)
{
    struct store_document now = *listed, after;
    for (int i = 0; i < TRIES; i++) {
        struct err why;
        int rc = lines(o, &now, e);
        bool gone = STORE_CALL(o->b->store, document_get, a, &now.id, &after, &why) != 0;
        if (gone && why.code != ERR_NOT_FOUND) {
            if (rc == 0)
                *e = why;
            return -1;
        }
        bool same = !gone && same_content(&now, &after);
        if (same && rc) /* that is no consequence of a change */
            return -1;
        if (o->to->settle(o->to->arg, same, e))
            return -1;
        if (same || gone)
            return same;
        now = after;
    }
    return err_set(e, ERR_CONFLICT, "The document '" STR_FMT "' changes faster than it can be exported",
                   STR_ARG(str_sub(now.filename, 0, 100)));
}

/* Its documents go away one by one: what was written is only a part, and must not be taken for the whole. */
suspends static int still_there(const struct out *o, struct arena *a, struct err *e)
{
    struct store_collection now;
    if (STORE_CALL(o->b->store, collection_get, a, &o->c->id, &now, e) == 0)
        return 0;
    return e->code != ERR_NOT_FOUND
               ? -1
               : err_set(e, ERR_NOT_FOUND, "The collection '" STR_FMT "' was deleted while it was exported",
                         STR_ARG(str_sub(o->c->name, 0, 100)));
}

suspends int export_collection(const struct backends *b, const struct store_collection *c, const struct export_sink *to,
                               int64_t *documents, struct err *e)
{
    struct out o = {.b = b, .c = c, .to = to};
    struct store_document_query q = {.collection = c->id, .page = {.limit = DOCUMENTS, .ascending = true}};
    bool more = true;
    int rc = collection(&o, e);
    while (rc == 0 && more) {
        struct arena a = {0};
        struct store_document *d;
        size_t n;
        rc = STORE_CALL(b->store, document_list, &a, &q, &d, &n, &more, e);
        for (size_t i = 0; rc == 0 && i < n; i++) {
            int written = document(&o, &a, &d[i], e);
            rc = written < 0 ? -1 : 0;
            *documents += written > 0;
        }
        if (rc == 0 && n) {
            q.page.has_after = true;
            q.page.after = d[n - 1].id;
        }
        arena_fini(&a);
    }
    if (rc == 0 || e->code == ERR_NOT_FOUND)
        rc = still_there(&o, &o.a, e) ? -1 : rc;
    arena_fini(&o.a);
    return rc;
}
