#include "worker/core/ingest.h"
#include "common/scoreboard.h"
#include "worker/core/backends.h"
#include "worker/core/cage.h"
#include "worker/core/chunk.h"
#include "worker/core/fetch.h"
#include "worker/core/given.h"
#include "worker/core/index.h"
#include "worker/embed/embed.h"
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
    struct cage *cage = ctx->backends ? ctx->backends->cage : NULL;
    if (cage ? cage_extract(cage, ctx->arena, bytes, d->mime, d->filename, x, &code, &ctx->page, e)
             : extract(ctx->arena, bytes, d->mime, d->filename, x, &code, e)) {
        ctx->code = code;
        ctx->permanent = e->code == ERR_VALIDATION;
        return -1;
    }
    return 0;
}

static struct analyzer *analyzer_of(struct job_context *ctx, const struct store_collection *c, struct err *e)
{
    struct analyzer *an = analyzer_new(c->language.n ? c->language : str_of(ctx->cfg->ingest_language), e);
    if (an)
        arena_own(ctx->arena, an, (void (*)(void *))analyzer_free);
    else
        permanent(ctx, "unknown_language");
    return an;
}

suspends static int chunk_stage(struct job_context *ctx, const struct store_collection *c, const struct extracted *x,
                                struct store_chunk_new **chunks, size_t *n, struct err *e)
{
    struct chunking how;
    if (job_progress(ctx, DOCUMENT_chunking, "chunk", 0, (int64_t)x->text.n, e))
        return -1;
    if (chunking_parse(ctx->arena, c->chunking, ctx->cfg, &how, e))
        return permanent(ctx, "invalid_chunking");
    struct analyzer *an = analyzer_of(ctx, c, e);
    if (!an)
        return -1;
    if (chunk_document(ctx->arena, an, x, &how, (size_t)ctx->cfg->ingest_max_chunks, chunks, n, e))
        return e->code == ERR_VALIDATION ? permanent(ctx, "too_many_chunks") : -1;
    return 0;
}

/* Instead of both: a document that came as chunks. */
suspends static int given_stage(struct job_context *ctx, const struct store_document *d,
                                const struct store_collection *c, struct extracted *x, struct store_chunk_new **chunks,
                                size_t *n, struct err *e)
{
    struct str bytes;
    struct analyzer *an;
    *x = (struct extracted){.mime = GIVEN_MIME};
    if (read_file(ctx, d, &bytes, e) || !(an = analyzer_of(ctx, c, e)) ||
        job_progress(ctx, DOCUMENT_chunking, "chunk", 0, d->bytes, e))
        return -1;
    if (given_chunks(ctx->arena, an, bytes, (size_t)ctx->cfg->ingest_max_chunks, x, chunks, n, e))
        return e->code == ERR_VALIDATION ? permanent(ctx, "invalid_file") : -1;
    return 0;
}

suspends static int content_stage(struct job_context *ctx, const struct store_document *d,
                                  const struct store_collection *c, struct extracted *x,
                                  struct store_chunk_new **chunks, size_t *n, struct err *e)
{
    if (str_eqz(d->mime, GIVEN_MIME))
        return given_stage(ctx, d, c, x, chunks, n, e);
    return extract_stage(ctx, d, x, e) || chunk_stage(ctx, c, x, chunks, n, e) ? -1 : 0;
}

/* ---- vectors ---- */

struct stage {
    struct job_context *ctx;
    enum document_state state;
    const char *name;
};

suspends static int report(void *arg, int64_t done, int64_t total, struct err *e)
{
    struct stage *s = arg;
    return job_progress(s->ctx, s->state, s->name, done, total, e);
}

static bool vectors_due(const struct job_context *ctx)
{
    return ctx->backends && ctx->backends->embedder && ctx->backends->vectors;
}

/* The collection's vectors are of another model or length: no further try will change that. */
static int mismatch(struct job_context *ctx)
{
    return permanent(ctx, "embedder_mismatch");
}

/* Before the index is committed, so that old and new content change places at once. An embedder that is away does not keep
 * the text from being found: *later says why the job waits after the commit. */
suspends static int embed_stage(struct job_context *ctx, const struct store_document *d,
                                const struct store_collection *c, const struct store_chunk_new *chunks, size_t n,
                                struct err *later, struct err *e)
{
    struct index_space to[INDEX_SPACES];
    struct stage stage = {ctx, DOCUMENT_embedding, "embed"};
    struct index_watch watch = {report, &stage};
    if (!vectors_due(ctx) || index_targets(ctx->backends, c, to) == 0)
        return 0;
    if (index_embed(ctx->backends, to->model, d->no, chunks, n, &to->space.dim, &watch, e) == 0)
        return 0;
    if (e->code == ERR_NOT_READY)
        *later = *e;
    else if (e->code != ERR_CONFLICT || job_lost(ctx)) /* a mismatch is told once the text can be found */
        return -1;
    return 0;
}

/* Generations that came while vectors were made for those that were known: the outbox puts the document there. */
suspends static int others_later(struct job_context *ctx, const struct store_document *d, const struct uuid *collection,
                                 const struct index_space *served, int n, struct err *e)
{
    struct store_collection now;
    struct index_space to[INDEX_SPACES];
    if (STORE_CALL(ctx->store, collection_get, ctx->arena, collection, &now, e))
        return e->code == ERR_NOT_FOUND ? permanent(ctx, "document_deleted") : -1;
    for (int i = 0, k, m = index_targets(ctx->backends, &now, to); i < m; i++) {
        for (k = 0; k < n && served[k].space.generation != to[i].space.generation; k++)
            ;
        if (k == n && index_later(ctx->backends, OUTBOX_put, &to[i], d->no, &d->id, e))
            return -1;
    }
    return 0;
}

/* An earlier try had an embedder, this one has none: as with documents that come without vectors. */
suspends static int all_later(struct job_context *ctx, const struct store_document *d, const struct store_collection *c,
                              struct err *e)
{
    struct index_space to[INDEX_SPACES];
    for (int i = 0, n = ctx->backends ? index_spaces(c, to) : 0; i < n; i++)
        if (index_later(ctx->backends, OUTBOX_put, &to[i], d->no, &d->id, e))
            return -1;
    return 0;
}

/* What is left to do once the index is committed; also of a job whose earlier try ended there. */
suspends static int vector_stage(struct job_context *ctx, const struct store_document *d,
                                 const struct store_collection *c, struct err *e)
{
    struct index_space to[INDEX_SPACES];
    struct stage stage = {ctx, DOCUMENT_indexing, "index vectors"};
    struct index_watch watch = {report, &stage};
    if (!vectors_due(ctx)) /* it was configured away meanwhile */
        return all_later(ctx, d, c, e);
    int n = index_targets(ctx->backends, c, to), rc = 0;
    if (n == 0) {
        err_set(e, ERR_CONFLICT,
                "The collection was embedded with " STR_FMT ", and embedding.model is " STR_FMT
                " now: run `ragd reindex " STR_FMT "`, or set it back",
                STR_ARG(str_sub(c->embedder, 0, 60)), STR_ARG(str_sub(ctx->backends->embedder->model, 0, 60)),
                STR_ARG(str_sub(c->name, 0, 60)));
        return mismatch(ctx);
    }
    for (int i = 0; i < n && rc == 0; i++)
        rc = index_sync(ctx->backends, c, &to[i], d->no, &watch, e);
    if (rc && e->code == ERR_CONFLICT && !job_lost(ctx))
        return mismatch(ctx);
    return rc ? -1 : others_later(ctx, d, &c->id, to, n, e);
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
        .vectors_due = vectors_due(ctx),
    };
    if (!commit.vectors_due && x->text.n <= STORE_LIGHT && job_gather(ctx, e))
        return -1;
    fiber_shield(1); /* whoever gives up now does not know whether it happened */
    int rc = STORE_CALL(ctx->store, job_commit_index, &ctx->job->id, &ctx->owner, &commit, e);
    fiber_shield(-1);
    if (rc)
        return -1;
    ctx->finished = !commit.vectors_due;
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
    if (fetch_due(ctx, &d) && fetch_stage(ctx, &d, e))
        return -1;
    struct err later = {0};
    if (ctx->job->committed != d.content_version || d.indexed_version != d.content_version)
        if (content_stage(ctx, &d, &c, &x, &chunks, &n, e) || embed_stage(ctx, &d, &c, chunks, n, &later, e) ||
            index_stage(ctx, &d, &x, chunks, n, e))
            return -1;
    if (ctx->finished)
        return 0;
    if (later.code) {
        ctx->stage = "embed";
        *e = later;
        return -1;
    }
    return vector_stage(ctx, &d, &c, e);
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
