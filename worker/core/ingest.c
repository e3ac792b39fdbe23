#include "worker/core/ingest.h"
#include "common/scoreboard.h"
#include "worker/core/chunk.h"
#include "worker/io/json.h"
#include <stdlib.h>

enum { PURGE_BATCH = 50 }; /* documents removed in one step */

static int permanent(struct job_context *ctx, const char *code)
{
    ctx->permanent = true;
    ctx->code = code;
    return -1;
}

static int damaged(struct job_context *ctx, struct err *e, const char *what)
{
    err_set(e, ERR_INTERNAL, "the stored file is damaged: %s; upload it again", what);
    return permanent(ctx, "damaged_file");
}

/* ---- one document ---- */

/* A part is not there: lost, or the document has another file by now. */
suspends static int part_missing(struct job_context *ctx, const struct store_document *d, struct err *e)
{
    struct store_document now;
    if (STORE_CALL(ctx->store, document_get, ctx->arena, &d->id, &now, e))
        return -1;
    if (now.content_version != d->content_version)
        return err_set(e, ERR_CONFLICT, "the document was replaced meanwhile");
    return damaged(ctx, e, "a part is missing");
}

suspends static int read_part(struct job_context *ctx, const struct store_document *d, int part, char *to, size_t n,
                              struct err *e)
{
    struct arena scratch = {0};
    struct str bytes;
    int rc = STORE_CALL(ctx->store, file_get_part, &scratch, &d->sha256, part, &bytes, e);
    if (rc && e->code == ERR_NOT_FOUND)
        rc = part_missing(ctx, d, e);
    else if (rc == 0 && bytes.n != n)
        rc = damaged(ctx, e, "a part has another length");
    if (rc == 0)
        memcpy(to, bytes.p, n);
    arena_fini(&scratch);
    return rc;
}

/* The whole file, checked against its hash. */
suspends static int read_file(struct job_context *ctx, const struct store_document *d, struct str *out, struct err *e)
{
    size_t size = (size_t)d->bytes;
    char *bytes = malloc(size + 1);
    struct sha256_ctx *hash = sha256_new();
    if (!bytes)
        abort();
    arena_own(ctx->arena, bytes, free);
    int rc = 0;
    for (size_t at = 0; at < size && rc == 0; at += STORE_PART) {
        size_t n = size - at < STORE_PART ? size - at : STORE_PART;
        rc = read_part(ctx, d, (int)(at / STORE_PART), bytes + at, n, e);
        if (rc == 0) {
            sha256_add(hash, bytes + at, n);
            rc = job_progress(ctx, DOCUMENT_parsing, "read", (int64_t)(at + n), d->bytes, e);
        }
        if (rc == 0 && fiber_yield())
            rc = err_set(e, ERR_CANCELED, "the job was cancelled");
    }
    struct sha256 found;
    sha256_end(hash, &found);
    sha256_free(hash);
    if (rc == 0 && memcmp(&found, &d->sha256, sizeof found) != 0)
        rc = damaged(ctx, e, "its hash is another one");
    *out = (struct str){bytes, size};
    return rc;
}

suspends static int extract_stage(struct job_context *ctx, const struct store_document *d, struct extracted *x,
                                  struct err *e)
{
    struct str bytes;
    const char *code = NULL;
    if (read_file(ctx, d, &bytes, e) || job_progress(ctx, DOCUMENT_parsing, "extract", 0, d->bytes, e))
        return -1;
    if (extract(ctx->arena, bytes, d->mime, d->filename, x, &code, e))
        return e->code == ERR_VALIDATION ? permanent(ctx, code) : -1;
    return 0;
}

suspends static int chunk_stage(struct job_context *ctx, const struct store_collection *c, const struct extracted *x,
                                struct store_chunk_new **chunks, size_t *n, struct err *e)
{
    struct chunking how;
    if (job_progress(ctx, DOCUMENT_chunking, "chunk", 0, (int64_t)x->text.n, e))
        return -1;
    if (chunking_parse(ctx->arena, c->chunking, ctx->cfg, &how, e))
        return permanent(ctx, "invalid_chunking");
    struct analyzer *an = analyzer_new(c->language.n ? c->language : str_of(ctx->cfg->ingest_language), e);
    if (!an)
        return permanent(ctx, "unknown_language");
    arena_own(ctx->arena, an, (void (*)(void *))analyzer_free);
    if (chunk_document(ctx->arena, an, x, &how, (size_t)ctx->cfg->ingest_max_chunks, chunks, n, e))
        return e->code == ERR_VALIDATION ? permanent(ctx, "too_many_chunks") : -1;
    return 0;
}

suspends static int index_stage(struct job_context *ctx, const struct store_document *d, const struct extracted *x,
                                const struct store_chunk_new *chunks, size_t n, struct err *e)
{
    if (job_progress(ctx, DOCUMENT_indexing, "index", 0, (int64_t)n, e))
        return -1;
    const struct store_index_commit commit = {
        .chunks = chunks,
        .n = n,
        .content_version = d->content_version,
        .text = x->text,
        .title = d->title.n ? STR("") : x->title,
        .language = STR(""),
        .mime = str_of(x->mime),
        .pages = x->pages,
    };
    fiber_shield(1); /* whoever gives up now does not know whether it happened */
    int rc = STORE_CALL(ctx->store, job_commit_index, &ctx->job->id, &ctx->owner, &commit, e);
    fiber_shield(-1);
    if (rc)
        return -1;
    ctx->finished = true;
    STAT_ADD(documents_indexed_total, 1);
    STAT_ADD(chunks_indexed_total, n);
    return 0;
}

suspends int ingest_run(struct job_context *ctx, struct err *e)
{
    struct store_document d;
    struct store_collection c;
    struct extracted x;
    struct store_chunk_new *chunks;
    size_t n;
    if (STORE_CALL(ctx->store, document_get, ctx->arena, &ctx->job->document, &d, e) ||
        STORE_CALL(ctx->store, collection_get, ctx->arena, &d.collection, &c, e))
        return e->code == ERR_NOT_FOUND ? permanent(ctx, "document_deleted") : -1;
    return extract_stage(ctx, &d, &x, e) || chunk_stage(ctx, &c, &x, &chunks, &n, e) ||
                   index_stage(ctx, &d, &x, chunks, n, e)
               ? -1
               : 0;
}

/* ---- removals: step by step, so that a try that is cut short has not worked in vain ---- */

suspends int ingest_delete_collection_run(struct job_context *ctx, struct err *e)
{
    int64_t left = 1, total = 0;
    while (left > 0) {
        if (STORE_CALL(ctx->store, collection_purge, &ctx->job->collection, PURGE_BATCH, &left, e)) {
            if (e->code == ERR_NOT_FOUND)
                return 0; /* an earlier try was there */
            return -1;
        }
        total = left > total ? left : total;
        if (job_progress(ctx, DOCUMENT_indexing, "delete", total - left, total, e))
            return -1;
        if (fiber_yield())
            return err_set(e, ERR_CANCELED, "the job was cancelled");
    }
    return 0;
}

suspends int ingest_delete_documents_run(struct job_context *ctx, struct err *e)
{
    json_t *payload;
    struct filter *filter;
    int64_t left = 1, total = 0;
    if (json_parse_object(ctx->arena, ctx->job->payload, (int)ctx->cfg->limits_json_depth, &payload, e) ||
        filter_parse(ctx->arena, json_object_get(payload, "filter"), "/filter", &filter, e))
        return permanent(ctx, "invalid_filter");
    while (left > 0) {
        if (STORE_CALL(ctx->store, document_delete_matching, &ctx->job->collection, filter, PURGE_BATCH, &left, e))
            return e->code == ERR_NOT_FOUND ? permanent(ctx, "collection_deleted") : -1;
        total = left + PURGE_BATCH > total ? left + PURGE_BATCH : total;
        if (job_progress(ctx, DOCUMENT_indexing, "delete", total - left, total, e))
            return -1;
        if (fiber_yield())
            return err_set(e, ERR_CANCELED, "the job was cancelled");
    }
    return 0;
}
