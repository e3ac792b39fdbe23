/* The lexical index in PostgreSQL: a tsvector for each chunk, made here, whose lexemes are "collection term". */
#include "worker/store/pg.h"
#include "common/buf.h"
#include <math.h>
#include <stdlib.h>

/* Bounds of tsvector: a lexeme keeps at most 255 positions, none above 16383; ts_rank() therefore tells frequencies up
 * to this one apart. */
enum { TF_MAX = 255 };

/* ---- term frequencies ----
 * tsvector has no function that gives the frequency of a lexeme without unfolding the whole vector. ts_rank() of a query
 * of one lexeme with all weights 1 is H(tf) / 1.64493406685, where H(n) = 1 + 1/4 + 1/9 + … + 1/n² (calc_rank_or() in
 * src/backend/utils/adt/tsrank.c). H grows strictly, so the frequency can be read back: the same sums are made here, in
 * the same order and precision, and the nearest one is looked up. */
static const float *rank_table(void)
{
    static float table[TF_MAX + 1];
    if (table[1] == 0.0F) {
        float sum = 0.0F;
        for (int n = 1; n <= TF_MAX; n++) {
            sum = sum + 1.0F / (float)(n * n);
            table[n] = (float)((double)sum / 1.64493406685);
        }
    }
    return table;
}

static uint16_t frequency(const char *rank)
{
    const float *table = rank_table();
    float r = strtof(rank, NULL);
    int lo = 0, hi = TF_MAX;
    while (hi - lo > 1) { /* table[lo] <= r < table[hi], or hi is the last */
        int mid = (lo + hi) / 2;
        if (table[mid] <= r)
            lo = mid;
        else
            hi = mid;
    }
    return (uint16_t)(fabsf(table[hi] - r) < fabsf(r - table[lo]) ? hi : lo);
}

/* ---- candidates ---- */

/* A lexeme as the input functions of tsvector and tsquery want it quoted. */
static void add_lexeme(struct buf *b, int64_t collection, struct str term)
{
    buf_ch(b, '\'');
    buf_i64(b, collection);
    buf_ch(b, ' ');
    for (size_t i = 0; i < term.n; i++) {
        if (term.p[i] == '\'' || term.p[i] == '\\')
            buf_ch(b, term.p[i]);
        buf_ch(b, term.p[i]);
    }
    buf_ch(b, '\'');
}

/* The queries are made once, in a CTE: as parameters of a generic plan they would be parsed for each row. */
static void candidates_sql(struct query *q, size_t n)
{
    buf_lit(&q->sql, "WITH q AS MATERIALIZED (SELECT $1::text::tsquery AS any_term");
    for (size_t i = 0; i < n; i++)
        buf_printf(&q->sql, ", ($3::text[])[%zu]::tsquery AS q%zu", i + 1, i);
    buf_lit(&q->sql, ") SELECT k.no, k.tokens");
    for (size_t i = 0; i < n; i++)
        buf_printf(&q->sql, ", ts_rank('{1,1,1,1}', k.tsv, q.q%zu)", i);
    buf_lit(&q->sql, " FROM q, chunk_index k WHERE k.tsv @@ q.any_term ORDER BY k.no LIMIT $2::bigint");
    buf_ch(&q->sql, 0);
}

static void take_candidates(const struct pg_rows *r, size_t terms, struct arena *a, size_t max,
                            struct store_candidates *out)
{
    *out = (struct store_candidates){.stride = store_candidate_stride(terms), .truncated = (size_t)r->n > max};
    out->n = out->truncated ? max : (size_t)r->n;
    out->entries = arena_alloc(a, out->n * out->stride + 1);
    for (size_t i = 0; i < out->n; i++) {
        struct store_candidate *c = store_candidate_at(out, i);
        c->no = pg_i64(r, (int)i, 0);
        c->length = (int32_t)pg_i64(r, (int)i, 1);
        for (size_t k = 0; k < terms; k++)
            c->tf[k] = frequency(pg_str(r, (int)i, (int)k + 2).p);
    }
}

suspends int pg_search_candidates(struct store *st, struct arena *a, const struct store_collection *collection,
                                  const struct str *terms, const bool *optional, size_t n, size_t max,
                                  struct store_candidates *out, struct err *e)
{
    struct arena scratch = {0};
    struct query q = {0};
    struct buf any = {0};
    struct pg_array each;
    struct pg_rows r = {0};
    int rc = 0;
    (void)optional;
    pg_args_init(&q.args, &scratch);
    pg_array_init(&each, PG_TEXT);
    for (size_t i = 0; i < n; i++) {
        struct buf lexeme = {0};
        add_lexeme(&lexeme, collection->no, terms[i]);
        pg_array_add(&each, lexeme.p, lexeme.n);
        if (i)
            buf_lit(&any, " | ");
        buf_str(&any, buf_view(&lexeme));
        buf_fini(&lexeme);
    }
    pg_arg_str(&q.args, buf_view(&any));
    pg_arg_i64(&q.args, (int64_t)max + 1);
    pg_arg_array(&q.args, &each);
    if (n > 0) {
        candidates_sql(&q, n);
        rc = pg_query(pg_of(st)->pg, q.sql.p, false, &q.args, &scratch, &r, e);
    }
    if (rc == 0)
        take_candidates(&r, n, a, max, out);
    buf_fini(&any);
    buf_fini(&q.sql);
    arena_fini(&scratch);
    return rc;
}

/* ---- chunks with their documents ---- */

static suspends int by_numbers(struct store *st, enum pg_statement stmt, const int64_t *nos, size_t n, int shift,
                               struct arena *a, struct pg_rows *r, struct err *e)
{
    struct pg_args args;
    struct pg_array x;
    pg_args_init(&args, a);
    pg_array_init(&x, PG_INT8);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || nos[i] >> shift != nos[i - 1] >> shift)
            pg_array_i64(&x, nos[i] >> shift);
    pg_arg_array(&args, &x);
    return pg_call(pg_of(st)->pg, stmt, &args, a, r, e);
}

static int row_of(const struct pg_rows *r, int64_t no)
{
    for (int i = 0; i < r->n; i++)
        if (pg_i64(r, i, 0) == no)
            return i;
    return -1;
}

suspends int pg_search_fetch(struct store *st, struct arena *a, const int64_t *nos, size_t n,
                             struct store_chunk *chunks, struct store_document *documents, struct err *e)
{
    struct pg_rows k, d;
    if (n == 0)
        return 0;
    if (by_numbers(st, S_CHUNKS_BY_NO, nos, n, 0, a, &k, e) < 0 ||
        by_numbers(st, S_DOCUMENTS_BY_NO, nos, n, 20, a, &d, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        int chunk = row_of(&k, nos[i]), document = row_of(&d, nos[i] >> 20);
        memset(&chunks[i], 0, sizeof chunks[i]);
        memset(&documents[i], 0, sizeof documents[i]);
        if (chunk < 0 || document < 0)
            continue;
        read_chunk(&k, chunk, &chunks[i]);
        read_document(&d, document, &documents[i]);
        chunks[i].document = documents[i].id;
    }
    return 0;
}

/* ---- the new index of a document ---- */

struct place {
    struct str term;
    int pos;
};

static int by_term(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    size_t n = x->term.n < y->term.n ? x->term.n : y->term.n;
    int c = n ? memcmp(x->term.p, y->term.p, n) : 0;
    if (c == 0)
        c = (x->term.n > y->term.n) - (x->term.n < y->term.n);
    return c ? c : x->pos - y->pos;
}

/* 'collection term':1,5 'collection other':2 … Positions beyond the bound would be folded into one: a chunk that long
 * numbers the places of each term by themselves instead, which keeps the frequency. */
static void add_tsvector(struct pg_array *out, int64_t collection, struct str terms, struct buf *scratch)
{
    struct place *places = malloc((terms.n / 2 + 1) * sizeof *places);
    int n = 0;
    if (!places)
        abort();
    for (struct str rest = terms; rest.n > 0;) {
        struct str term = str_cut(&rest, ' ');
        if (term.n) {
            places[n].term = term;
            places[n].pos = n + 1;
            n++;
        }
    }
    qsort(places, (size_t)n, sizeof *places, by_term);
    scratch->n = 0;
    for (int i = 0, tf = 0; i < n; i++) {
        bool first = i == 0 || !str_eq(places[i].term, places[i - 1].term);
        tf = first ? 1 : tf + 1;
        if (tf > TF_MAX)
            continue;
        if (first) {
            if (i)
                buf_ch(scratch, ' ');
            add_lexeme(scratch, collection, places[i].term);
        }
        buf_ch(scratch, first ? ':' : ',');
        buf_i64(scratch, n > 16383 ? tf : places[i].pos);
    }
    pg_array_add(out, scratch->p, scratch->n);
    free(places);
}

static void texts_of(struct pg_array *out, struct str text)
{
    pg_array_init(out, PG_BYTEA);
    for (; text.n > 0; text = str_sub(text, STORE_PART, SIZE_MAX))
        pg_array_add(out, text.p, text.n < STORE_PART ? text.n : STORE_PART);
}

static void add_parent(struct pg_array *x, const struct store_span *p)
{
    pg_array_i64(&x[0], p->char_start);
    pg_array_i64(&x[1], p->char_end);
    pg_array_i64(&x[2], p->byte_start);
    pg_array_i64(&x[3], p->byte_end);
}

/* An index on its way into arguments, which are nobody else's until all are there. */
struct indexing {
    struct pg_args *args;
    const struct uuid *document;
    int64_t collection;
    const struct store_index_commit *in;
};

static void chunk_args(void *arg)
{
    const struct indexing *g = arg;
    const struct store_index_commit *in = g->in;
    enum { ID, TEXT, HEADINGS, SHA, TOKENS, PAGE, CHAR_START, CHAR_END, BYTE_START, BYTE_END, TSV, PARENT };
    enum { COLS = PARENT + 4 };
    static const enum pg_type types[COLS] = {PG_UUID, PG_TEXT, PG_TEXT, PG_BYTEA, PG_INT8, PG_INT8, PG_INT8, PG_INT8,
                                             PG_INT8, PG_INT8, PG_TEXT, PG_INT8,  PG_INT8, PG_INT8, PG_INT8};
    struct pg_array x[COLS];
    struct buf scratch = {0};
    for (int i = 0; i < COLS; i++)
        pg_array_init(&x[i], types[i]);
    for (size_t i = 0; i < in->n; i++) {
        const struct store_chunk_new *k = &in->chunks[i];
        struct uuid id = store_chunk_id(g->document, in->content_version, (int)i);
        pg_array_add(&x[ID], id.b, sizeof id.b);
        pg_array_add(&x[TEXT], k->text.p, k->text.n);
        pg_array_add(&x[HEADINGS], k->headings.n ? k->headings.p : "[]", k->headings.n ? k->headings.n : 2);
        pg_array_add(&x[SHA], k->sha256.b, sizeof k->sha256.b);
        pg_array_i64(&x[TOKENS], k->tokens);
        pg_array_i64(&x[PAGE], k->page);
        pg_array_i64(&x[CHAR_START], k->char_start);
        pg_array_i64(&x[CHAR_END], k->char_end);
        pg_array_i64(&x[BYTE_START], k->byte_start);
        pg_array_i64(&x[BYTE_END], k->byte_end);
        add_tsvector(&x[TSV], g->collection, k->terms, &scratch);
        add_parent(&x[PARENT], &k->parent);
    }
    for (int i = 0; i < COLS; i++)
        pg_arg_array(g->args, &x[i]);
    buf_fini(&scratch);
}

static suspends int commit(struct store *st, struct arena *a, const struct uuid *job, const struct uuid *owner,
                           const struct store_index_commit *in, struct err *e)
{
    enum { FEW = 64, INLINE_MAX = 64 << 10 }; /* sorting the terms of more would hold up the loop */
    struct pg_args args;
    struct pg_rows r;
    struct pg_array texts;
    struct uuid document;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, job);
    if (pg_call(pg_of(st)->pg, S_INDEX_SUBJECT, &args, a, &r, e) < 0)
        return -1;
    struct cursor c = {.r = &r};
    if (!r.n) /* whoever deleted the document has ended the job */
        return err_set(e, ERR_CONFLICT, "The lease of the job is lost");
    next_uuid(&c, &document);
    int64_t collection = next_i64(&c), before = next_i64(&c);
    bool light = in->text.n <= STORE_LIGHT && in->n <= FEW && before <= FEW;
    pg_args_init(&args, a);
    pg_arg_uuid(&args, job);
    pg_arg_uuid(&args, owner);
    pg_arg_i64(&args, in->content_version);
    pg_arg_str(&args, in->title);
    pg_arg_str(&args, in->language);
    pg_arg_str(&args, in->mime);
    pg_arg_i64(&args, in->pages);
    texts_of(&texts, in->text);
    pg_arg_array(&args, &texts);
    struct indexing g = {&args, &document, collection, in};
    if (in->text.n > INLINE_MAX)
        fiber_blocking(chunk_args, &g);
    else
        chunk_args(&g);
    pg_arg_bool(&args, in->vectors_due);
    if (pg_call(pg_of(st)->pg, light ? S_INDEX_COMMIT_LIGHT : S_INDEX_COMMIT, &args, a, &r, e) < 0)
        return -1;
    switch (pg_i64(&r, 0, 0)) {
    case 0: return 0;
    case -1:
    case -3: return err_set(e, ERR_CONFLICT, "The lease of the job is lost");
    default: return err_set(e, ERR_CONFLICT, "The document has changed meanwhile: it is indexed again");
    }
}

suspends int pg_job_commit_index(struct store *st, const struct uuid *job, const struct uuid *owner,
                                 const struct store_index_commit *in, struct err *e)
{
    struct arena a = {0};
    if (in->n > 0xfffff)
        return err_set(e, ERR_VALIDATION, "A document has more chunks than can be numbered");
    int rc = commit(st, &a, job, owner, in, e);
    arena_fini(&a);
    return rc;
}
