#include "worker/api/api.h"
#include "worker/core/retrieve.h"
#include <stdio.h>

enum { COLLECTIONS_MAX = 64, QUERY_MAX = 8192, OFFSET_MAX = 10000 };

struct search {
    struct retrieve_query query;
    struct str mode;
};

suspends static int read_collections(struct request *r, json_t *names, struct retrieve_query *q, struct err *e)
{
    char at[48];
    size_t n = json_array_size(names);
    struct uuid *ids = arena_alloc(&r->arena, (n + 1) * sizeof *ids);
    for (size_t i = 0; i < n; i++) {
        json_t *v = json_array_get(names, i);
        struct str name = {json_string_value(v), json_string_length(v)};
        snprintf(at, sizeof at, "/collections/%zu", i);
        if (!json_is_string(v))
            return err_at(e, at, "A collection is named by its id or its name, a string");
        if (api_collection_id(r, name, &ids[i], e))
            return -1;
    }
    q->collections = ids;
    q->n_collections = n;
    return 0;
}

suspends static int read_search(struct request *r, struct search *s, struct err *e)
{
    struct retrieve_query *q = &s->query;
    int64_t top_k = 10, offset = 0;
    json_t *body, *names = NULL, *filter = NULL;
    struct filter *parsed;
    struct str group_by = {0};
    if (top_k > r->cfg->limits_top_k)
        top_k = r->cfg->limits_top_k;
    const struct json_member table[] = {
        {"query", JSON_STR, true, false, 1, QUERY_MAX, &q->query, NULL},
        {"collections", JSON_ARR, false, true, 0, COLLECTIONS_MAX, &names, NULL},
        {"mode", JSON_STR, false, false, 0, 0, &s->mode, NULL},
        {"top_k", JSON_INT64, false, false, 1, r->cfg->limits_top_k, &top_k, NULL},
        {"offset", JSON_INT64, false, false, 0, OFFSET_MAX, &offset, NULL},
        {"filter", JSON_OBJ, false, true, 0, 0, &filter, NULL},
        {"min_score", JSON_DOUBLE, false, false, 0, 0, &q->min_score, NULL},
        {"group_by", JSON_STR, false, true, 0, 0, &group_by, NULL},
        {"highlight", JSON_BOOLEAN, false, false, 0, 0, &q->highlight, NULL},
        {"explain", JSON_BOOLEAN, false, false, 0, 0, &q->explain, NULL},
    };
    s->mode = STR("hybrid");
    if (api_body(r, false, &body, e) || json_members(&r->arena, body, "", table, COUNT(table), false, e))
        return -1;
    if (str_eq(s->mode, STR("vector")))
        return err_at(e, "/mode", "Mode 'vector' needs an embedder, and none is configured; use lexical or hybrid");
    if (!str_eq(s->mode, STR("hybrid")) && !str_eq(s->mode, STR("lexical")))
        return err_at(e, "/mode", "'mode' must be hybrid or lexical");
    if (group_by.p && !str_eq(group_by, STR("document")))
        return err_at(e, "/group_by", "'group_by' must be document");
    if (filter && filter_parse(&r->arena, filter, "/filter", &parsed, e))
        return -1;
    q->filter = filter ? parsed : NULL;
    q->group_by_document = group_by.p != NULL;
    q->top_k = (int)top_k;
    q->offset = (int)offset;
    return names ? read_collections(r, names, q, e) : 0;
}

/* Spans in characters, as clients count; the scorer's are bytes. */
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

static void write_hit(struct json_out *o, const struct search *s, const struct retrieve_hit *h)
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
    jo_member(o, "scores"), jo_begin(o, '{');
    jo_member(o, "bm25"), jo_f64(o, h->bm25);
    jo_member(o, "ranks"), jo_begin(o, '{');
    jo_member(o, "lexical"), jo_i64(o, h->rank);
    jo_end(o, '}'), jo_end(o, '}');
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
    if (s->query.highlight)
        jo_member(o, "highlights"), write_highlights(o, h);
    if (s->query.explain)
        jo_member(o, "explain"), jo_raw(o, h->explain.n ? h->explain : STR("{}"));
    jo_end(o, '}');
}

suspends int api_search(struct request *r, struct err *e)
{
    struct search s = {0};
    struct retrieve_result found = {0};
    int64_t start_ns = clock_ns();
    if (read_search(r, &s, e) || retrieve(r->cfg, r->app->store, &r->arena, &s.query, &found, e))
        return -1;
    struct json_out o = api_reply(r, 200);
    jo_begin(&o, '{');
    jo_member(&o, "hits"), jo_begin(&o, '[');
    for (size_t i = 0; i < found.n; i++)
        write_hit(&o, &s, &found.hit[i]);
    jo_end(&o, ']');
    jo_member(&o, "total_estimate"), jo_i64(&o, found.total);
    jo_member(&o, "truncated"), jo_bool(&o, found.truncated);
    jo_member(&o, "ignored_terms"), jo_raw(&o, found.ignored_terms.n ? found.ignored_terms : STR("[]"));
    jo_member(&o, "generation"), jo_i64(&o, 0);
    jo_member(&o, "took_ms"), jo_f64(&o, (double)((clock_ns() - start_ns) / 1000) / 1000);
    jo_member(&o, "degraded"), jo_begin(&o, '[');
    if (str_eq(s.mode, STR("hybrid")))
        jo_strz(&o, "vectors"); /* asked for, and there is no embedder */
    jo_end(&o, ']');
    jo_end(&o, '}');
    return 0;
}
