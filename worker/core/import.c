#include "worker/core/analyze.h"
#include "worker/core/export.h"
#include "worker/core/given.h"
#include "worker/core/index.h"
#include "worker/io/base64.h"
#include "worker/io/json.h"
#include <stdlib.h>

enum { DEPTH = 64, TEXT_FACTOR = 16 }; /* a text is at most so much longer than the largest file */
#define LEASE_US (300 * 1000000LL)

/* What has come of the document under way. */
struct incoming {
    struct arena a;
    struct store_document_new in;
    int64_t pages;
    bool open, indexed;
    int part;
    struct buf file, text; /* file: the only part, of a short one */
    struct store_chunk_new *chunk;
    size_t n, cap, vectors;
    struct buf ordinal, sha, v; /* of vectors that were given */
};

struct import {
    const struct backends *b;
    struct arena a; /* ends with the collection */
    struct store_collection c;
    struct str model;
    int dim;
    struct analyzer *an;
    struct incoming d;
    struct import_counts counts;
    bool begun, done;
};

struct import *import_new(const struct backends *b)
{
    struct import *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->b = b;
    return m;
}

static void forget(struct incoming *d)
{
    arena_fini(&d->a);
    buf_fini(&d->file);
    buf_fini(&d->text);
    buf_fini(&d->ordinal);
    buf_fini(&d->sha);
    buf_fini(&d->v);
    free(d->chunk);
    *d = (struct incoming){0};
}

void import_free(struct import *m)
{
    if (!m)
        return;
    forget(&m->d);
    analyzer_free(m->an);
    arena_fini(&m->a);
    free(m);
}

const struct import_counts *import_counts(const struct import *m)
{
    return &m->counts;
}

int import_end(const struct import *m, struct err *e)
{
    return m->done ? 0 : err_set(e, ERR_VALIDATION, "The export was cut off: its last line is missing");
}

/* ---- collections ---- */

static struct str raw(struct arena *a, const json_t *value)
{
    return value ? json_text(a, value) : STR("");
}

/* Of the same id, else of the same name, else new. */
suspends static int find_or_make(struct import *m, const struct store_collection *in, struct err *e)
{
    struct store *s = m->b->store;
    if (!uuid_is_zero(&in->id)) {
        if (STORE_CALL(s, collection_get, &m->a, &in->id, &m->c, e) == 0)
            return 0;
        if (e->code != ERR_NOT_FOUND)
            return -1;
    }
    if (STORE_CALL(s, collection_by_name, &m->a, in->name, &m->c, e) == 0)
        return 0;
    if (e->code != ERR_NOT_FOUND || STORE_CALL(s, collection_create, &m->a, in, &m->c, e))
        return -1;
    m->counts.collections++;
    return 0;
}

suspends static int on_collection(struct import *m, json_t *o, struct err *e)
{
    struct store_collection in = {0};
    json_t *metadata = NULL, *chunking = NULL;
    struct str type, id = STR(""), model = STR("");
    int64_t dim = 0;
    analyzer_free(m->an);
    m->an = NULL;
    arena_fini(&m->a);
    const struct json_member table[] = {
        {"type", JSON_STR, true, false, 0, 0, &type, NULL},
        {"id", JSON_STR, false, false, 0, 0, &id, NULL},
        {"name", JSON_STR, true, false, 1, 4096, &in.name, NULL},
        {"description", JSON_STR, false, false, 0, 0, &in.description, NULL},
        {"language", JSON_STR, false, false, 0, 0, &in.language, NULL},
        {"metadata", JSON_OBJ, false, false, 0, 0, &metadata, NULL},
        {"chunking", JSON_OBJ, false, false, 0, 0, &chunking, NULL},
        {"embedder", JSON_STR, false, false, 0, 0, &model, NULL},
        {"dim", JSON_INT64, false, false, 0, 1 << 16, &dim, NULL},
    };
    if (json_members(&m->a, o, "", table, sizeof table / sizeof *table, true, e))
        return -1;
    if (id.n && !uuid_parse(id, &in.id))
        return err_set(e, ERR_VALIDATION, "the id of a collection is malformed");
    in.metadata = raw(&m->a, metadata);
    in.chunking = raw(&m->a, chunking);
    if (!in.language.n)
        in.language = str_of(m->b->cfg->ingest_language);
    m->model = arena_dup(&m->a, model);
    m->dim = (int)dim;
    if (find_or_make(m, &in, e))
        return -1;
    if (m->dim && STORE_CALL(m->b->store, collection_set_embedder, &m->c.id, m->model, m->dim, e))
        return -1;
    m->c.embedder = m->model.n ? m->model : m->c.embedder;
    m->c.dim = m->dim ? m->dim : m->c.dim;
    m->an = analyzer_new(m->c.language.n ? m->c.language : str_of(m->b->cfg->ingest_language), e);
    return m->an ? 0 : -1;
}

/* ---- documents ---- */

static int on_document(struct import *m, json_t *o, struct err *e)
{
    struct incoming *d = &m->d;
    struct store_document_new *in = &d->in;
    struct str id, sha;
    json_t *metadata = NULL, *tags = NULL;
    const struct json_member table[] = {
        {"id", JSON_STR, true, false, 0, 0, &id, NULL},
        {"content_version", JSON_INT64, true, false, 1, INT64_MAX, &in->content_version, NULL},
        {"external_id", JSON_STR, false, false, 0, 0, &in->external_id, NULL},
        {"filename", JSON_STR, false, false, 0, 0, &in->filename, NULL},
        {"title", JSON_STR, false, false, 0, 0, &in->title, NULL},
        {"mime", JSON_STR, false, false, 0, 0, &in->mime, NULL},
        {"language", JSON_STR, false, false, 0, 0, &in->language, NULL},
        {"metadata", JSON_OBJ, false, false, 0, 0, &metadata, NULL},
        {"tags", JSON_ARR, false, false, 0, 0, &tags, NULL},
        {"sha256", JSON_STR, true, false, 0, 0, &sha, NULL},
        {"bytes", JSON_INT64, true, false, 0, INT64_MAX, &in->bytes, NULL},
        {"pages", JSON_INT64, false, false, 0, INT64_MAX, &d->pages, NULL},
        {"indexed", JSON_BOOLEAN, true, false, 0, 0, &d->indexed, NULL},
    };
    if (!m->an || d->open)
        return err_set(e, ERR_VALIDATION,
                       d->open ? "a document begins inside another one" : "a document has no collection");
    if (json_members(&d->a, o, "", table, sizeof table / sizeof *table, true, e))
        return -1;
    if (!uuid_parse(id, &in->id) || !sha256_parse(sha, &in->sha256))
        return err_set(e, ERR_VALIDATION, "id or sha256 of a document is malformed");
    struct str *strings[] = {&in->external_id, &in->filename, &in->title, &in->mime, &in->language};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        *strings[i] = arena_dup(&d->a, *strings[i]);
    in->collection = m->c.id;
    in->hold_us = d->indexed ? LEASE_US : 0;
    in->metadata = raw(&d->a, metadata);
    in->tags = raw(&d->a, tags);
    d->open = true;
    return 0;
}

/* The member `data`, decoded. */
static int decode(struct arena *a, const json_t *o, const char *name, struct str *out, struct err *e)
{
    const json_t *v = json_object_get(o, name);
    struct str text = {json_string_value(v), json_string_length(v)};
    ptrdiff_t n = text.p ? base64_decoded_len(text) : -1;
    if (n < 0)
        return err_set(e, ERR_VALIDATION, "%s is no base64", name);
    uint8_t *bytes = arena_alloc(a, (size_t)n + 1);
    base64_decode(text, bytes);
    *out = (struct str){(const char *)bytes, (size_t)n};
    return 0;
}

suspends static int on_file(struct import *m, const json_t *o, struct arena *a, struct err *e)
{
    struct incoming *d = &m->d;
    struct str bytes;
    if (decode(a, o, "data", &bytes, e))
        return -1;
    if (bytes.n > STORE_PART)
        return err_set(e, ERR_VALIDATION, "a part of a file is too long");
    if (d->in.bytes > STORE_PART)
        return STORE_CALL(m->b->store, file_put_part, &d->in.sha256, d->part++, bytes, e);
    if (d->file.n + bytes.n > STORE_PART)
        return err_set(e, ERR_VALIDATION, "a file is longer than its document says");
    buf_str(&d->file, bytes);
    return 0;
}

static int on_text(struct import *m, const json_t *o, struct arena *a, struct err *e)
{
    struct str bytes;
    if (decode(a, o, "data", &bytes, e))
        return -1;
    if (m->d.text.n + bytes.n > (size_t)m->b->cfg->limits_upload * TEXT_FACTOR)
        return err_set(e, ERR_VALIDATION, "a text is too long");
    buf_str(&m->d.text, bytes);
    return 0;
}

/* One chunk: its text is a span of the document's, which came before. */
static int read_chunk(struct import *m, const json_t *o, struct store_chunk_new *k, struct err *e)
{
    struct incoming *d = &m->d;
    const json_t *span = json_object_get(o, "span"), *sha = json_object_get(o, "sha256");
    int64_t v[8];
    struct buf terms = {0};
    for (size_t i = 0; i < 8; i++)
        v[i] = json_integer_value(json_array_get(span, i));
    if (v[0] < 0 || v[2] < 0 || v[3] <= v[2] || v[3] > (int64_t)d->text.n || v[4] < 0 || v[6] < 0 ||
        v[7] > (int64_t)d->text.n)
        return err_set(e, ERR_VALIDATION, "a chunk lies outside of its text");
    struct str text = arena_dup(&d->a, (struct str){d->text.p + v[2], (size_t)(v[3] - v[2])});
    *k = (struct store_chunk_new){.text = text,
                                  .headings = raw(&d->a, json_object_get(o, "headings")),
                                  .page = (int)json_integer_value(json_object_get(o, "page")),
                                  .char_start = v[0],
                                  .char_end = v[1],
                                  .byte_start = v[2],
                                  .byte_end = v[3],
                                  .parent = {v[4], v[5], v[6], v[7]}};
    struct sha256 said;
    sha256_of(text.p, text.n, &k->sha256);
    if (!sha256_parse((struct str){json_string_value(sha), json_string_length(sha)}, &said) ||
        memcmp(&said, &k->sha256, sizeof said) != 0 || !str_is_utf8(text))
        return err_set(e, ERR_VALIDATION, "a chunk is not what its hash says");
    k->tokens = analyze_terms(m->an, text, &terms);
    k->terms = arena_dup(&d->a, buf_view(&terms));
    buf_fini(&terms);
    return 0;
}

suspends static int on_chunks(struct import *m, const json_t *o, struct arena *a, struct err *e)
{
    struct incoming *d = &m->d;
    const json_t *list = json_object_get(o, "chunks");
    size_t n = json_array_size(list), size = (size_t)m->dim * sizeof(float), found = 0;
    int *ordinal = arena_alloc(a, (n + 1) * sizeof *ordinal);
    struct sha256 *sha = arena_alloc(a, (n + 1) * sizeof *sha);
    float *v = arena_alloc(a, (n + 1) * (size ? size : 1));
    if (d->n + n > d->cap) {
        d->cap = d->n + n > 2 * d->cap ? d->n + n : 2 * d->cap;
        d->chunk = realloc(d->chunk, d->cap * sizeof *d->chunk);
        if (!d->chunk)
            abort();
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        struct str bytes;
        if (read_chunk(m, item, &d->chunk[d->n], e))
            return -1;
        if (m->dim && json_object_get(item, "vector")) {
            if (decode(a, item, "vector", &bytes, e))
                return -1;
            if (bytes.n != size)
                return err_set(e, ERR_VALIDATION, "a vector has another length than its collection says");
            memcpy((char *)v + found * size, bytes.p, size);
            ordinal[found] = (int)d->n;
            sha[found++] = d->chunk[d->n].sha256;
        }
        d->n++;
    }
    d->vectors += found;
    if (str_eqz(d->in.mime, GIVEN_MIME)) { /* the client may have made them: they are for this document alone */
        buf_add(&d->ordinal, ordinal, found * sizeof *ordinal);
        buf_add(&d->sha, sha, found * sizeof *sha);
        buf_add(&d->v, v, found * size);
        return 0;
    }
    return found ? STORE_CALL(m->b->store, embeddings_put, m->model, m->dim, sha, found, v, e) : 0;
}

/* ---- the end of a document ---- */

suspends static int put_vectors(struct import *m, const struct store_document *made, struct err *e)
{
    struct index_space to = {
        .space = {.collection = m->c.id, .collection_no = m->c.no, .generation = m->c.generation, .dim = m->dim},
        .model = m->model};
    return index_sync(m->b, &m->c, &to, made->no, NULL, e);
}

/* Makes the index from what came. A worker that has the job after all, since this took too long, ingests the document:
 * that is as good. */
suspends static int commit(struct import *m, const struct store_document *made, const struct store_job *job,
                           struct err *e)
{
    struct incoming *d = &m->d;
    struct store *s = m->b->store;
    struct uuid owner = uuid_v7();
    struct store_job mine;
    bool due = d->n && d->vectors == d->n;
    const struct store_index_commit in = {.chunks = d->chunk,
                                          .n = d->n,
                                          .content_version = d->in.content_version,
                                          .text = buf_view(&d->text),
                                          .pages = d->pages,
                                          .vectors_due = due};
    if (STORE_CALL(s, job_claim, &d->a, &job->id, &owner, LEASE_US, &mine, e))
        return e->code == ERR_CONFLICT ? 0 : -1;
    if (STORE_CALL(s, job_commit_index, &job->id, &owner, &in, e) || (due && put_vectors(m, made, e)) ||
        (due && STORE_CALL(s, job_finish, &job->id, &owner, JOB_succeeded, STR(""), STR(""), STR(""), 0, e)))
        return -1;
    m->counts.chunks += (int64_t)d->n;
    m->counts.vectors += (int64_t)d->vectors;
    return 0;
}

suspends static int on_end(struct import *m, struct err *e)
{
    struct incoming *d = &m->d;
    struct store_document made, there;
    struct store_job job;
    enum store_created what;
    if (d->in.bytes <= STORE_PART) {
        struct sha256 sha;
        d->in.inline_bytes = buf_view(&d->file);
        sha256_of(d->file.p, d->file.n, &sha);
        if ((int64_t)d->file.n != d->in.bytes || memcmp(&sha, &d->in.sha256, sizeof sha) != 0)
            return err_set(e, ERR_VALIDATION, "the file of a document is not what its hash says");
    }
    d->in.given = (struct store_given){.model = m->model,
                                       .dim = m->dim,
                                       .n = d->ordinal.n / sizeof(int),
                                       .ordinal = (const void *)d->ordinal.p,
                                       .sha = (const void *)d->sha.p,
                                       .v = (const void *)d->v.p};
    if (STORE_CALL(m->b->store, document_create, &d->a, &d->in, &made, &what, &job, e)) {
        struct err why;
        if (e->code != ERR_CONFLICT || STORE_CALL(m->b->store, document_get, &d->a, &d->in.id, &there, &why))
            return -1;
        m->counts.present++;
        return 0;
    }
    m->counts.documents++;
    return d->indexed ? commit(m, &made, &job, e) : 0;
}

/* ---- lines ---- */

suspends static int dispatch(struct import *m, struct arena *a, json_t *o, struct str type, struct err *e)
{
    if (!m->begun) {
        m->begun = str_eqz(type, "ragd") && json_integer_value(json_object_get(o, "version")) == EXPORT_VERSION;
        return m->begun ? 0
                        : err_set(e, ERR_VALIDATION,
                                  "This is no export of ragd, or of a version that this release does not know");
    }
    if (str_eqz(type, "collection"))
        return on_collection(m, o, e);
    if (str_eqz(type, "document"))
        return on_document(m, o, e);
    if (str_eqz(type, "done")) {
        m->done = !m->d.open;
        return 0;
    }
    if (!m->d.open)
        return err_set(e, ERR_VALIDATION, "a line of type " STR_FMT " belongs to no document",
                       STR_ARG(str_sub(type, 0, 40)));
    if (str_eqz(type, "file"))
        return on_file(m, o, a, e);
    if (str_eqz(type, "text"))
        return on_text(m, o, a, e);
    if (str_eqz(type, "chunks"))
        return on_chunks(m, o, a, e);
    if (!str_eqz(type, "end"))
        return err_set(e, ERR_VALIDATION, "unknown line of type " STR_FMT, STR_ARG(str_sub(type, 0, 40)));
    int rc = on_end(m, e);
    forget(&m->d);
    return rc;
}

suspends int import_line(struct import *m, struct str line, struct err *e)
{
    struct arena a = {0}; /* ends with the line */
    json_t *o;
    if (line.n == 0)
        return 0;
    int rc = json_parse_object(&a, line, DEPTH, &o, e);
    if (rc == 0) {
        const json_t *type = json_object_get(o, "type");
        rc = dispatch(m, &a, o, (struct str){json_string_value(type), json_string_length(type)}, e);
    }
    arena_fini(&a);
    return rc;
}
