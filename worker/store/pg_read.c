/* Rows to objects, pages, filters: what the verbs of pg_*.c share. */
#include "worker/store/pg.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- columns ---- */

struct str next_str(struct cursor *c)
{
    return pg_str(c->r, c->row, c->col++);
}

int64_t next_i64(struct cursor *c)
{
    return pg_i64(c->r, c->row, c->col++);
}

static bool next_bool(struct cursor *c)
{
    return pg_bool(c->r, c->row, c->col++);
}

bool next_uuid(struct cursor *c, struct uuid *out)
{
    return pg_uuid(c->r, c->row, c->col++, out);
}

/* bytea as text: \x and hex digits */
void next_sha(struct cursor *c, struct sha256 *out)
{
    if (!sha256_parse(str_sub(next_str(c), 2, SIZE_MAX), out))
        memset(out, 0, sizeof *out);
}

static void next_generation(struct cursor *c, struct store_generation *out)
{
    out->no = next_i64(c);
    out->embedder = next_str(c);
    out->dim = (int)next_i64(c);
}

void read_collection(const struct pg_rows *r, int row, struct store_collection *out)
{
    struct cursor c = {r, row, 0};
    out->no = next_i64(&c);
    next_uuid(&c, &out->id);
    out->name = next_str(&c);
    out->description = next_str(&c);
    out->language = next_str(&c);
    out->metadata = next_str(&c);
    out->chunking = next_str(&c);
    out->version = next_i64(&c);
    out->updated_us = next_i64(&c);
    out->documents = next_i64(&c);
    out->failed = next_i64(&c);
    out->bytes = next_i64(&c);
    out->chunks = next_i64(&c);
    out->tokens = next_i64(&c);
    out->revision = next_i64(&c);
    out->generation = next_i64(&c);
    out->embedder = next_str(&c);
    out->dim = (int)next_i64(&c);
    next_generation(&c, &out->shadow);
    next_generation(&c, &out->previous);
    out->shadow_built = next_bool(&c);
    out->incomplete = next_bool(&c);
}

void read_document(const struct pg_rows *r, int row, struct store_document *out)
{
    struct cursor c = {r, row, 0};
    out->no = next_i64(&c);
    next_uuid(&c, &out->id);
    next_uuid(&c, &out->collection);
    out->external_id = next_str(&c);
    out->filename = next_str(&c);
    out->title = next_str(&c);
    out->mime = next_str(&c);
    out->language = next_str(&c);
    out->metadata = next_str(&c);
    out->tags = next_str(&c);
    next_sha(&c, &out->sha256);
    out->bytes = next_i64(&c);
    out->pages = next_i64(&c);
    out->chunks = next_i64(&c);
    out->tokens = next_i64(&c);
    out->state = (enum document_state)next_i64(&c);
    out->progress_done = (int)next_i64(&c);
    out->progress_total = (int)next_i64(&c);
    out->error_code = next_str(&c);
    out->error_stage = next_str(&c);
    out->error_message = next_str(&c);
    out->error_page = (int)next_i64(&c);
    out->version = next_i64(&c);
    out->content_version = next_i64(&c);
    out->updated_us = next_i64(&c);
    next_uuid(&c, &out->job);
    out->indexed_version = next_i64(&c);
    out->given = next_i64(&c);
}

void read_job(const struct pg_rows *r, int row, struct store_job *out)
{
    struct cursor c = {r, row, 0};
    *out = (struct store_job){0};
    next_uuid(&c, &out->id);
    out->type = next_str(&c);
    out->state = (enum job_state)next_i64(&c);
    out->has_document = next_uuid(&c, &out->document);
    out->has_collection = next_uuid(&c, &out->collection);
    out->payload = next_str(&c);
    out->cancel_requested = next_bool(&c);
    out->stage = next_str(&c);
    out->done = next_i64(&c);
    out->total = next_i64(&c);
    out->attempts = (int)next_i64(&c);
    out->error_code = next_str(&c);
    out->error_stage = next_str(&c);
    out->error_message = next_str(&c);
    int64_t due = next_i64(&c);
    out->run_after_us = out->state == JOB_queued ? due : 0;
    out->lease_expires_us = out->state == JOB_running ? due : 0;
    out->started_us = next_i64(&c);
    out->finished_us = next_i64(&c);
    out->updated_us = next_i64(&c);
    out->committed = next_i64(&c);
}

void read_chunk(const struct pg_rows *r, int row, struct store_chunk *out)
{
    struct cursor c = {r, row, 0};
    out->no = next_i64(&c);
    out->ordinal = (int)(out->no & 0xfffff);
    next_uuid(&c, &out->id);
    out->text = next_str(&c);
    out->headings = next_str(&c);
    next_sha(&c, &out->sha256);
    out->tokens = (int)next_i64(&c);
    out->page = (int)next_i64(&c);
    out->char_start = next_i64(&c);
    out->char_end = next_i64(&c);
    out->byte_start = next_i64(&c);
    out->byte_end = next_i64(&c);
    out->parent.char_start = next_i64(&c);
    out->parent.char_end = next_i64(&c);
    out->parent.byte_start = next_i64(&c);
    out->parent.byte_end = next_i64(&c);
}

void arg_sha(struct pg_args *args, const struct sha256 *s)
{
    pg_arg_str(args, (struct str){(const char *)s->b, sizeof s->b});
}

int changed_but_not_read(struct err *e)
{
    char why[sizeof e->log];
    if (!e || e->code == ERR_NOT_FOUND) /* somebody else has deleted it since */
        return -1;
    str_copyz(why, sizeof why, str_of(e->log[0] ? e->log : e->msg));
    err_set(e, ERR_NOT_READY, "The change was made, but the database did not give its result");
    return err_log(e, "the change has happened; reading it back: %.250s", why);
}

int wrong_version(int64_t have, int64_t want, struct err *e)
{
    return err_set(e, ERR_VERSION, "The version is %lld, not %lld", (long long)have, (long long)want);
}

void arg_if(struct pg_args *args, bool set, struct str s)
{
    if (set)
        pg_arg_str(args, s);
    else
        pg_arg_null(args);
}

/* ---- pages ---- */

struct page page_of(const struct store_page *p)
{
    struct page out = {.backwards = p->has_before && !p->has_after};
    memset(&out.hi, 0xff, sizeof out.hi);
    out.up = p->ascending != out.backwards;
    if (p->has_after)
        *(p->ascending ? &out.lo : &out.hi) = p->after;
    if (p->has_before)
        *(p->ascending ? &out.hi : &out.lo) = p->before;
    return out;
}

suspends int page_rows(struct store *st, struct arena *a, const struct store_page *p, enum pg_statement up,
                       enum pg_statement down, struct pg_rows *r, struct err *e)
{
    struct page page = page_of(p);
    struct pg_args args;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, &page.hi);
    pg_arg_uuid(&args, &page.lo);
    pg_arg_i64(&args, p->limit + 1);
    return pg_call(pg_of(st)->pg, page.up ? up : down, &args, a, r, e);
}

void page_end(const struct store_page *p, void *rows, size_t size, size_t *n, bool *more)
{
    char *at = rows, tmp[512];
    assert(size <= sizeof tmp);
    *more = *n > (size_t)p->limit;
    *n = *more ? (size_t)p->limit : *n;
    if (!p->has_before || p->has_after)
        return;
    for (size_t i = 0, k = *n; i + 1 < k--; i++) {
        memcpy(tmp, at + i * size, size);
        memcpy(at + i * size, at + k * size, size);
        memcpy(at + k * size, tmp, size);
    }
}

/* ---- filters ---- */

/* Path and values of all comparisons go into two arrays, since a filter may have more of them than a statement has
 * parameters; comparisons refer to their elements by number. */
struct constants {
    struct pg_array keys, values;
    int base; /* number of the parameter that `keys` becomes */
};

static void add_value(struct constants *k, const struct filter_value *v)
{
    struct buf b = {0};
    if (v->type == FILTER_STRING)
        json_escape(&b, v->s);
    else if (v->type == FILTER_NUMBER)
        buf_printf(&b, "%.17g", v->num);
    else
        buf_printf(&b, "%s", v->b ? "true" : "false");
    pg_array_add(&k->values, b.p, b.n);
    buf_fini(&b);
}

static void member_sql(struct query *q, struct constants *k, struct str key)
{
    buf_lit(&q->sql, "d.metadata::jsonb");
    while (key.n > 0) {
        struct str part = str_cut(&key, '.');
        pg_array_add(&k->keys, part.p, part.n);
        buf_printf(&q->sql, " -> ($%d::text[])[%d]", k->base, (int)k->keys.n);
    }
}

static void comparison_sql(struct query *q, struct constants *k, const struct filter *f)
{
    static const char *const orders[] = {
        [FILTER_GT] = "> 0", [FILTER_GTE] = ">= 0", [FILTER_LT] = "< 0", [FILTER_LTE] = "<= 0"};
    int first = (int)k->values.n + 1;
    for (size_t i = 0; i < f->n; i++)
        add_value(k, &f->value[i]);
    if (f->op == FILTER_GT || f->op == FILTER_GTE || f->op == FILTER_LT || f->op == FILTER_LTE) {
        buf_lit(&q->sql, "coalesce(ragd_order(");
        member_sql(q, k, f->key);
        buf_printf(&q->sql, ", ($%d::text[])[%d]::jsonb) %s, false)", k->base + 1, first, orders[f->op]);
        return;
    }
    if (f->op == FILTER_NE || f->op == FILTER_NIN)
        buf_lit(&q->sql, "NOT ");
    buf_lit(&q->sql, "ragd_in(");
    member_sql(q, k, f->key);
    buf_printf(&q->sql, ", ($%d::text[])[%d:%d]::jsonb[])", k->base + 1, first, (int)k->values.n);
}

static void node_sql(struct query *q, struct constants *k, const struct filter *f)
{
    if (f->op != FILTER_AND && f->op != FILTER_OR) {
        comparison_sql(q, k, f);
        return;
    }
    buf_printf(&q->sql, "(%s", f->op == FILTER_AND ? "true" : "false");
    for (size_t i = 0; i < f->n; i++) {
        buf_printf(&q->sql, " %s ", f->op == FILTER_AND ? "AND" : "OR");
        node_sql(q, k, f->child[i]);
    }
    buf_ch(&q->sql, ')');
}

void filter_sql(struct query *q, const struct filter *f)
{
    struct constants k = {.base = q->args.n + 1};
    pg_array_init(&k.keys, PG_TEXT);
    pg_array_init(&k.values, PG_TEXT);
    node_sql(q, &k, f);
    bool keys = k.keys.n, values = k.values.n;
    pg_arg_array(&q->args, &k.keys);
    pg_arg_array(&q->args, &k.values);
    if (!keys) /* a parameter that is nowhere used would have no type */
        buf_printf(&q->sql, " AND $%d::text[] IS NOT NULL", k.base);
    if (!values)
        buf_printf(&q->sql, " AND $%d::text[] IS NOT NULL", k.base + 1);
}
