#include "worker/api/query.h"
#include <assert.h>
#include <stdio.h>

enum { COLLECTIONS_MAX = 64, CONTEXT_MAX = 10, TOP_K = 10, MEMBERS = 16 };

suspends static int read_collections(struct request *r, json_t *names, struct retrieve_query *q, struct err *e)
{
    size_t n = json_array_size(names);
    struct uuid *ids = arena_alloc(&r->arena, (n + 1) * sizeof *ids);
    if (api_collection_ids(r, names, ids, e))
        return -1;
    q->collections = ids;
    q->n_collections = n;
    return 0;
}

static int read_weights(struct request *r, json_t *weights, struct retrieve_query *q, struct err *e)
{
    enum { WEIGHT_MAX = 1000 };
    double lexical = 1, vector = 1;
    const struct json_member table[] = {
        {"lexical", JSON_DOUBLE, false, false, 0, WEIGHT_MAX, &lexical, NULL},
        {"vector", JSON_DOUBLE, false, false, 0, WEIGHT_MAX, &vector, NULL},
    };
    if (json_members(&r->arena, weights, "/weights", table, COUNT(table), false, e))
        return -1;
    if (lexical <= 0 && vector <= 0)
        return err_at(e, "/weights", "One of the weights must be greater than 0");
    q->weights.lexical = lexical;
    q->weights.vector = vector;
    return 0;
}

static int read_context(struct request *r, json_t *context, struct retrieve_query *q, struct err *e)
{
    int64_t before = 0, after = 0;
    const struct json_member table[] = {
        {"before", JSON_INT64, false, false, 0, CONTEXT_MAX, &before, NULL},
        {"after", JSON_INT64, false, false, 0, CONTEXT_MAX, &after, NULL},
    };
    if (json_members(&r->arena, context, "/context", table, COUNT(table), false, e))
        return -1;
    q->before = (int)before;
    q->after = (int)after;
    return 0;
}

suspends static int finish(struct request *r, struct query_fields *f, struct err *e)
{
    struct retrieve_query *q = &f->query;
    struct filter *parsed;
    if (!q->query.n)
        q->query = f->question;
    if (!retrieve_mode_parse(f->mode, &q->mode))
        return err_at(e, "/mode", "'mode' must be hybrid, lexical, vector or metadata");
    if (!q->query.n && q->mode != RETRIEVE_metadata)
        return err_at(e, "/query", "'query' is required, but in mode metadata");
    if (f->group_by.p && !str_eq(f->group_by, STR("document")))
        return err_at(e, "/group_by", "'group_by' must be document");
    if (f->context && read_context(r, f->context, q, e))
        return -1;
    if (f->weights && read_weights(r, f->weights, q, e))
        return -1;
    if (f->filter && filter_parse(&r->arena, f->filter, "/filter", &parsed, e))
        return -1;
    q->filter = f->filter ? parsed : NULL;
    q->group_by_document = f->group_by.p != NULL;
    q->top_k = (int)f->top_k;
    q->offset = (int)f->offset;
    return f->collections ? read_collections(r, f->collections, q, e) : 0;
}

suspends int query_read(struct request *r, struct query_fields *f, const struct json_member *more, size_t n,
                        struct err *e)
{
    json_t *body;
    int64_t max = r->cfg->limits_top_k;
    struct json_member table[MEMBERS] = {
        {"query", JSON_STR, false, false, 1, RETRIEVE_QUERY_MAX, &f->query.query, NULL},
        {"collections", JSON_ARR, false, true, 0, COLLECTIONS_MAX, &f->collections, NULL},
        {"mode", JSON_STR, false, false, 0, 0, &f->mode, NULL},
        {"top_k", JSON_INT64, false, false, 1, max, &f->top_k, NULL},
        {"filter", JSON_OBJ, false, true, 0, 0, &f->filter, NULL},
        {"min_score", JSON_DOUBLE, false, false, 0, 0, &f->query.min_score, NULL},
        {"weights", JSON_OBJ, false, true, 0, 0, &f->weights, NULL},
        {"group_by", JSON_STR, false, true, 0, 0, &f->group_by, NULL},
        {"context", JSON_OBJ, false, true, 0, 0, &f->context, NULL},
    };
    size_t own = 0;
    while (table[own].name)
        own++;
    assert(own + n <= MEMBERS);
    memcpy(&table[own], more, n * sizeof *more);
    f->mode = STR("hybrid");
    f->top_k = TOP_K < max ? TOP_K : max;
    if (api_body(r, false, &body, e) || json_members(&r->arena, body, "", table, own + n, false, e))
        return -1;
    return finish(r, f, e);
}

/* ---- passages ---- */

void query_write_degraded(struct json_out *o, unsigned degraded)
{
    static const char *const names[] = {"vectors", "embedder", "llm"};
    jo_begin(o, '[');
    for (size_t i = 0; i < COUNT(names); i++)
        if (degraded & 1u << i)
            jo_strz(o, names[i]);
    jo_end(o, ']');
}

/* Spans in characters, as clients count; those of a hit are bytes. */
static void write_highlights(struct json_out *o, const struct retrieve_hit *h)
{
    size_t at = 0, chars = 0;
    jo_begin(o, '[');
    for (size_t i = 0; i < h->n_highlight; i++) {
        jo_begin(o, '[');
        for (int end = 0; end < 2; end++) {
            size_t to = end ? h->highlight[i].to : h->highlight[i].from;
            for (; at < to && at < h->chunk.text.n; at++)
                chars += ((unsigned char)h->chunk.text.p[at] & 0xc0) != 0x80;
            jo_i64(o, (int64_t)chars);
        }
        jo_end(o, ']');
    }
    jo_end(o, ']');
}

static void write_scores(struct json_out *o, const struct retrieve_hit *h)
{
    jo_begin(o, '{');
    jo_member(o, "bm25"), h->lexical ? jo_f64(o, h->bm25) : jo_null(o);
    jo_member(o, "cosine"), h->vector ? jo_f64(o, h->cosine) : jo_null(o);
    jo_member(o, "rrf"), h->rrf > 0 ? jo_f64(o, h->rrf) : jo_null(o);
    jo_member(o, "ranks"), jo_begin(o, '{');
    if (h->lexical)
        jo_member(o, "lexical"), jo_i64(o, h->lexical);
    if (h->vector)
        jo_member(o, "vector"), jo_i64(o, h->vector);
    jo_end(o, '}'), jo_end(o, '}');
}

void query_write_hit(struct json_out *o, const struct retrieve_query *q, const struct retrieve_hit *h)
{
    const struct store_chunk *c = &h->chunk;
    const struct store_document *d = &h->document;
    char hex[SHA256_TEXT_LEN];
    jo_begin(o, '{');
    jo_member(o, "chunk_id"), jo_uuid(o, &c->id);
    jo_member(o, "document_id"), jo_uuid(o, &d->id);
    jo_member(o, "collection_id"), jo_uuid(o, &d->collection);
    jo_member(o, "external_id"), d->external_id.n ? jo_str(o, d->external_id) : jo_null(o);
    jo_member(o, "filename"), d->filename.n ? jo_str(o, d->filename) : jo_null(o);
    jo_member(o, "title"), d->title.n ? jo_str(o, d->title) : jo_null(o);
    jo_member(o, "page"), c->page ? jo_i64(o, c->page) : jo_null(o);
    jo_member(o, "ordinal"), jo_i64(o, c->ordinal);
    jo_member(o, "headings"), jo_raw(o, c->headings.n ? c->headings : STR("[]"));
    jo_member(o, "text"), jo_str(o, c->text);
    jo_member(o, "score"), jo_f64(o, h->score);
    jo_member(o, "scores"), write_scores(o, h);
    jo_member(o, "span"), jo_begin(o, '{');
    jo_member(o, "char_start"), jo_i64(o, c->char_start);
    jo_member(o, "char_end"), jo_i64(o, c->char_end);
    jo_member(o, "byte_start"), jo_i64(o, c->byte_start);
    jo_member(o, "byte_end"), jo_i64(o, c->byte_end);
    jo_end(o, '}');
    sha256_text(&c->sha256, hex);
    jo_member(o, "sha256"), jo_str(o, (struct str){hex, sizeof hex});
    jo_member(o, "tags"), jo_raw(o, d->tags.n ? d->tags : STR("[]"));
    jo_member(o, "metadata"), jo_raw(o, d->metadata.n ? d->metadata : STR("{}"));
    if (q->before || q->after || h->has_parent) {
        jo_member(o, "context"), jo_begin(o, '{');
        jo_member(o, "before"), jo_str(o, h->before);
        jo_member(o, "after"), jo_str(o, h->after);
        jo_end(o, '}');
    }
    if (q->highlight)
        jo_member(o, "highlights"), write_highlights(o, h);
    if (q->explain)
        jo_member(o, "explain"), jo_raw(o, h->explain.n ? h->explain : STR("{}"));
    jo_end(o, '}');
}
