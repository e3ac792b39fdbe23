#include "worker/store/sqlite.h"
#include "common/buf.h"
#include <stdlib.h>

enum { SLICE = 8192, TOKEN_MAX = 256 };

/* ---- the tokenizer: "12 red cat" gives the tokens "12 red" and "12 cat" ---- */

static int tokenizer_create(void *ctx, const char **args, int n, Fts5Tokenizer **out)
{
    (void)ctx;
    (void)args;
    (void)n;
    *out = (Fts5Tokenizer *)(void *)&store_sqlite_ops; /* it has no state; any address but NULL will do */
    return SQLITE_OK;
}

static void tokenizer_delete(Fts5Tokenizer *t)
{
    (void)t;
}

static int tokenize(Fts5Tokenizer *t, void *ctx, int flags, const char *text, int n,
                    int (*emit)(void *, int, const char *, int, int, int))
{
    char token[TOKEN_MAX];
    struct str rest = {text, (size_t)n}, scope = str_cut(&rest, ' ');
    (void)t;
    (void)flags;
    if (scope.n > 20)
        return SQLITE_OK;
    memcpy(token, scope.p, scope.n);
    token[scope.n] = ' ';
    size_t head = scope.n + 1;
    while (rest.n > 0) {
        struct str term = str_sub(str_cut(&rest, ' '), 0, sizeof token - head);
        if (term.n == 0)
            continue;
        memcpy(token + head, term.p, term.n);
        int from = (int)(term.p - text);
        int rc = emit(ctx, 0, token, (int)(head + term.n), from, from + (int)term.n);
        if (rc != SQLITE_OK)
            return rc;
    }
    return SQLITE_OK;
}

/* ---- candidates ---- */

struct sqlite_hits { /* what a search has found so far */
    struct store_candidates c;
    size_t cap, terms;
    int *phrase;     /* [terms]: where each stands in the expression */
    int64_t *hidden; /* documents whose chunks it does not see, ascending */
    size_t n_hidden, cap_hidden;
};

static bool is_hidden(const struct sqlite_hits *h, int64_t document)
{
    size_t from = 0, to = h->n_hidden;
    while (from < to) {
        size_t mid = (from + to) / 2;
        if (h->hidden[mid] == document)
            return true;
        if (h->hidden[mid] < document)
            from = mid + 1;
        else
            to = mid;
    }
    return false;
}

static int load_hidden(struct sqlite *db, struct sqlite_hits *h, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT document FROM hidden_chunks ORDER BY document");
    int rc;
    h->n_hidden = 0;
    while ((rc = stmt_row(s, e)) > 0) {
        if (h->n_hidden == h->cap_hidden) {
            h->cap_hidden = h->cap_hidden ? 2 * h->cap_hidden : 16;
            h->hidden = realloc(h->hidden, h->cap_hidden * sizeof *h->hidden);
            if (!h->hidden)
                abort();
        }
        h->hidden[h->n_hidden++] = col_i64(s);
    }
    return rc;
}

static void hits_grow(struct sqlite_hits *h)
{
    if (h->c.n < h->cap)
        return;
    h->cap = h->cap ? 2 * h->cap : 256;
    h->c.entries = realloc(h->c.entries, h->cap * h->c.stride);
    if (!h->c.entries)
        abort();
}

/* The first number of a record of FTS5's docsize table: a varint as SQLite writes it, seven bits a byte, the highest first
 * (https://www.sqlite.org/fileformat2.html#varint); of up to four bytes here. */
static int length_of(const unsigned char *p, int n)
{
    int length = 0;
    for (int i = 0; i < n && i < 4; i++) {
        length = length << 7 | (p[i] & 0x7f);
        if (!(p[i] & 0x80))
            return length;
    }
    return -1;
}

/* Called for each row that matches: notes number, length and frequencies. The length comes from a join, since
 * xColumnSize() would run a statement for each row: half of the time of a search. */
static void note_hit(const Fts5ExtensionApi *api, Fts5Context *fts, sqlite3_context *ctx, int n, sqlite3_value **args)
{
    struct sqlite *db = api->xUserData(fts);
    struct sqlite_hits *h = db->hits;
    int col, off, length = n == 1 ? length_of(sqlite3_value_blob(args[0]), sqlite3_value_bytes(args[0])) : -1;
    Fts5PhraseIter it;
    sqlite3_int64 no = api->xRowid(fts);
    if (h->n_hidden && is_hidden(h, no >> 20))
        return;
    hits_grow(h);
    struct store_candidate *hit = store_candidate_at(&h->c, h->c.n);
    hit->no = no;
    int rc = length < 0 ? api->xColumnSize(fts, 0, &length) : SQLITE_OK;
    hit->length = length;
    for (size_t i = 0; i < h->terms && rc == SQLITE_OK; i++) {
        unsigned tf = 0;
        rc = api->xPhraseFirst(fts, h->phrase[i], &it, &col, &off);
        for (; rc == SQLITE_OK && col >= 0; api->xPhraseNext(fts, &it, &col, &off))
            tf++;
        hit->tf[i] = (uint16_t)(tf < UINT16_MAX ? tf : UINT16_MAX);
    }
    if (rc != SQLITE_OK)
        sqlite3_result_error_code(ctx, rc);
    else
        h->c.n++;
}

static void filter_row(sqlite3_context *ctx, int n, sqlite3_value **args)
{
    struct sqlite *db = sqlite3_user_data(ctx);
    (void)n;
    const char *text = (const char *)sqlite3_value_text(args[0]);
    json_t *metadata = text ? json_loadb(text, (size_t)sqlite3_value_bytes(args[0]), 0, NULL) : NULL;
    sqlite3_result_int(ctx, metadata && filter_matches(db->filter, metadata));
    json_decref(metadata);
}

static int fts5_api_of(struct sqlite *db, fts5_api **out, struct err *e)
{
    sqlite3_stmt *st;
    *out = NULL;
    int rc = sqlite3_prepare_v2(db->h, "SELECT fts5(?)", -1, &st, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_bind_pointer(st, 1, out, "fts5_api_ptr", NULL);
        sqlite3_step(st);
        rc = sqlite3_finalize(st);
    }
    if (rc == SQLITE_OK && *out)
        return 0;
    err_set(e, ERR_NOT_READY, "This SQLite was built without FTS5");
    return err_log(e, "%s", sqlite3_errmsg(db->h));
}

int sqlite_search_register(struct sqlite *db, struct err *e)
{
    fts5_tokenizer tokenizer = {tokenizer_create, tokenizer_delete, tokenize};
    fts5_api *api;
    if (fts5_api_of(db, &api, e) < 0)
        return -1;
    int rc = api->xCreateTokenizer(api, "ragd", NULL, &tokenizer, NULL);
    if (rc == SQLITE_OK)
        rc = api->xCreateFunction(api, "ragd_hit", db, note_hit, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function(db->h, "ragd_filter", 1, SQLITE_UTF8, db, filter_row, NULL, NULL);
    return rc == SQLITE_OK ? 0 : sqlite_fail(db, rc, e);
}

static void add_term(struct buf *b, int64_t collection, struct str term)
{
    buf_ch(b, '"');
    buf_i64(b, collection);
    buf_ch(b, ' ');
    for (size_t k = 0; k < term.n; k++) {
        if (term.p[k] == '"')
            buf_ch(b, '"');
        buf_ch(b, term.p[k]);
    }
    buf_ch(b, '"');
}

/* The terms that are, or are not, optional, joined by OR. `phrase`: notes their places, the first of which is `at`. */
static int add_terms(struct buf *b, int64_t collection, const struct str *terms, size_t n, const bool *optional,
                     bool which, int at, int *phrase)
{
    int first = at;
    for (size_t i = 0; i < n; i++) {
        if (which != (optional && optional[i]))
            continue;
        if (at > first)
            buf_lit(b, " OR ");
        add_term(b, collection, terms[i]);
        if (phrase)
            phrase[i] = at;
        at++;
    }
    return at;
}

/* `a OR b`; with c optional, `a OR b OR ((a OR b) AND (c))`: the same chunks without c, but with its places in them. */
static struct str match_expression(struct buf *b, int64_t collection, const struct str *terms, const bool *optional,
                                   size_t n, int *phrase)
{
    int needed = add_terms(b, collection, terms, n, optional, false, 0, phrase);
    if ((size_t)needed < n) {
        buf_lit(b, " OR ((");
        add_terms(b, collection, terms, n, optional, false, needed, NULL);
        buf_lit(b, ") AND (");
        add_terms(b, collection, terms, n, optional, true, 2 * needed, phrase);
        buf_lit(b, "))");
    }
    return buf_view(b);
}

/* One slice, behind the number `after`; *done when there is no further one. */
static int search_slice(struct sqlite *db, struct sqlite_hits *h, struct str expression, size_t max, int64_t after,
                        bool *done, struct err *e)
{
    size_t before = h->c.n, stop = before + SLICE < max ? before + SLICE : max;
    int rc = 1;
    if (load_hidden(db, h, e) < 0)
        return -1;
    struct stmt *s = stmt_get(db, "SELECT ragd_hit(chunk_index, d.sz) FROM chunk_index CROSS JOIN"
                                  " chunk_index_docsize d ON d.id = chunk_index.rowid WHERE chunk_index MATCH ?"
                                  " AND chunk_index.rowid > ? ORDER BY chunk_index.rowid");
    bind_str(s, expression);
    bind_i64(s, after);
    db->hits = h;
    while (h->c.n <= stop && (rc = stmt_row(s, e)) > 0)
        ;
    if (rc > 0)
        stmt_end(s);
    if (rc < 0) {
        h->c.n = before;
        return -1;
    }
    *done = rc == 0 || h->c.n > max;
    return 0;
}

static suspends int search_all(struct sqlite *db, struct sqlite_hits *h, struct str expression, size_t max,
                               struct err *e)
{
    bool done = false;
    while (!done) {
        int64_t after = h->c.n ? store_candidate_at(&h->c, h->c.n - 1)->no : -1;
        if (SQLITE_TRY(db, e, search_slice(db, h, expression, max, after, &done, e)) < 0)
            return -1;
        if (!done)
            fiber_yield();
        if (fiber_check() != 0)
            return fiber_time_left() == 0 ? err_set(e, ERR_DEADLINE, "The search took too long")
                                          : err_set(e, ERR_CANCELED, "Canceled");
    }
    return 0;
}

suspends int sqlite_search_candidates(struct store *st, struct arena *a, const struct store_collection *collection,
                                      const struct str *terms, const bool *optional, size_t n, size_t max,
                                      struct store_candidates *out, struct err *e)
{
    struct sqlite_hits h = {.terms = n, .phrase = arena_alloc(a, (n + 1) * sizeof *h.phrase)};
    struct buf b = {0};
    h.c.stride = store_candidate_stride(n);
    struct str expression = match_expression(&b, collection->no, terms, optional, n, h.phrase);
    int rc = n == 0 ? 0 : search_all(sqlite_of(st), &h, expression, max, e);
    buf_fini(&b);
    free(h.hidden);
    if (rc < 0) {
        free(h.c.entries);
        return -1;
    }
    if (h.c.n > max) {
        h.c.truncated = true;
        h.c.n = max;
    }
    if (h.c.entries)
        arena_own(a, h.c.entries, free);
    *out = h.c;
    return 0;
}

/* ---- how frequent terms are ---- */

/* None are hidden: the index still counts those that are. */
static int counts_are_known(struct sqlite *db, bool *known, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT 1 FROM hidden_chunks LIMIT 1");
    int rc = stmt_row(s, e);
    if (rc > 0)
        stmt_end(s);
    *known = rc == 0;
    return rc < 0 ? -1 : 0;
}

static int count_term(struct sqlite *db, int64_t collection, struct str term, int64_t *count, struct err *e)
{
    char token[TOKEN_MAX];
    size_t head = (size_t)snprintf(token, sizeof token, "%lld ", (long long)collection);
    term = str_sub(term, 0, sizeof token - head); /* as the tokenizer has it */
    memcpy(token + head, term.p, term.n);
    struct stmt *s = stmt_get(db, "SELECT doc FROM chunk_terms WHERE term = ?");
    bind_str(s, (struct str){token, head + term.n});
    int rc = stmt_row(s, e);
    *count = rc > 0 ? col_i64(s) : 0;
    if (rc > 0)
        stmt_end(s);
    return rc < 0 ? -1 : 0;
}

suspends int sqlite_search_counts(struct store *st, const struct store_collection *collection, const struct str *terms,
                                  size_t n, int64_t *counts, bool *known, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    if (SQLITE_TRY(db, e, counts_are_known(db, known, e)) < 0)
        return -1;
    for (size_t i = 0; i < n && *known; i++) {
        if (SQLITE_TRY(db, e, count_term(db, collection->no, terms[i], &counts[i], e)) < 0)
            return -1;
        if (fiber_self() && fiber_yield() != 0)
            return fiber_time_left() == 0 ? err_set(e, ERR_DEADLINE, "The search took too long")
                                          : err_set(e, ERR_CANCELED, "Canceled");
    }
    return 0;
}

/* ---- chunks ---- */

void chunk_read(struct stmt *s, struct arena *a, struct store_chunk *out)
{
    out->no = col_i64(s);
    out->ordinal = (int)(out->no & 0xfffff);
    col_uuid(s, &out->id);
    out->text = col_str(s, a);
    out->headings = col_str(s, a);
    col_sha(s, &out->sha256);
    out->tokens = (int)col_i64(s);
    out->page = (int)col_i64(s);
    out->char_start = col_i64(s);
    out->char_end = col_i64(s);
    out->byte_start = col_i64(s);
    out->byte_end = col_i64(s);
    out->parent.char_start = col_i64(s);
    out->parent.char_end = col_i64(s);
    out->parent.byte_start = col_i64(s);
    out->parent.byte_end = col_i64(s);
}

static int fetch_one(struct sqlite *db, struct arena *a, int64_t no, struct store_chunk *chunk, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT " CHUNK_COLUMNS " FROM chunks k WHERE k.no = ?");
    bind_i64(s, no);
    int rc = stmt_row(s, e);
    if (rc > 0) {
        chunk_read(s, a, chunk);
        stmt_end(s);
    }
    return rc;
}

static int fetch(struct sqlite *db, struct arena *a, const int64_t *nos, size_t n, struct store_chunk *chunks,
                 struct store_document *documents, struct err *e)
{
    struct err gone;
    for (size_t i = 0; i < n; i++) {
        memset(&chunks[i], 0, sizeof chunks[i]);
        memset(&documents[i], 0, sizeof documents[i]);
        if (fetch_one(db, a, nos[i], &chunks[i], e) < 0)
            return -1;
        if (chunks[i].no == 0)
            continue;
        if (i > 0 && documents[i - 1].no == nos[i] >> 20)
            documents[i] = documents[i - 1];
        else if (document_by_no(db, a, nos[i] >> 20, &documents[i], &gone) < 0 && gone.code != ERR_NOT_FOUND)
            return e ? (*e = gone, -1) : -1;
        if (documents[i].chunks == 0) { /* on its way out, or being written */
            memset(&chunks[i], 0, sizeof chunks[i]);
            memset(&documents[i], 0, sizeof documents[i]);
            continue;
        }
        chunks[i].document = documents[i].id;
    }
    return 0;
}

suspends int sqlite_search_fetch(struct store *st, struct arena *a, const int64_t *nos, size_t n,
                                 struct store_chunk *chunks, struct store_document *documents, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY_MANY(db, e, fetch(db, a, nos, n, chunks, documents, e));
}

static int chunk_by_id(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_chunk *out,
                       struct err *e)
{
    struct store_document d;
    struct stmt *s = stmt_get(db, "SELECT " CHUNK_COLUMNS " FROM chunks k WHERE k.id = ?");
    bind_uuid(s, id);
    int rc = stmt_row(s, e);
    if (rc < 0)
        return -1;
    if (rc > 0) {
        chunk_read(s, a, out);
        stmt_end(s);
        if (document_by_no(db, a, out->no >> 20, &d, e) == 0 && d.chunks > 0) {
            out->document = d.id;
            return 0;
        }
        if (db->busy)
            return -1;
    }
    return err_set(e, ERR_NOT_FOUND, "No such chunk");
}

suspends int sqlite_chunk_get(struct store *st, struct arena *a, const struct uuid *id, struct store_chunk *out,
                              struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct store_chunk k;
    if (SQLITE_TRY(db, e, chunk_by_id(db, a, id, &k, e)) < 0)
        return -1;
    *out = k;
    return 0;
}

static int chunks_of(struct sqlite *db, struct arena *a, const struct uuid *id, int from, int limit,
                     struct store_chunk *rows, size_t *n, struct err *e)
{
    struct store_document d;
    int rc;
    if (document_by_id(db, a, id, &d, e) < 0)
        return -1;
    struct stmt *s = stmt_get(db, "SELECT " CHUNK_COLUMNS " FROM chunks k WHERE k.no BETWEEN ? AND ?"
                                  " ORDER BY k.no LIMIT ?");
    bind_i64(s, d.no << 20 | (from & 0xfffff));
    bind_i64(s, d.no << 20 | 0xfffff);
    bind_i64(s, d.chunks > 0 ? limit : 0); /* none while they are being written */
    *n = 0;
    while ((rc = stmt_row(s, e)) > 0) {
        chunk_read(s, a, &rows[*n]);
        rows[(*n)++].document = d.id;
    }
    return rc;
}

suspends int sqlite_document_chunks(struct store *st, struct arena *a, const struct uuid *id, int from_ordinal,
                                    int limit, struct store_chunk **out, size_t *n, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct store_chunk *rows = arena_alloc(a, (size_t)limit * sizeof *rows);
    size_t found;
    if (SQLITE_TRY(db, e, chunks_of(db, a, id, from_ordinal, limit, rows, &found, e)) < 0)
        return -1;
    *out = rows;
    *n = found;
    return 0;
}

static int text_of(struct sqlite *db, struct buf *text, const struct uuid *id, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT d.no, d.state, d.indexed_version" DOCUMENT_FROM "WHERE d.id = ?");
    bind_uuid(s, id);
    int rc = stmt_row(s, e);
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, NO_DOCUMENT);
    if (rc < 0)
        return -1;
    int64_t no = col_i64(s), state = col_i64(s), indexed_version = col_i64(s);
    stmt_end(s);
    if (!indexed_version)
        return err_set(e, ERR_CONFLICT, "The document is not ready: it is %s",
                       document_state_name((enum document_state)state));
    s = stmt_get(db, "SELECT text FROM texts WHERE no BETWEEN ? AND ? ORDER BY no");
    bind_i64(s, no << 20);
    bind_i64(s, no << 20 | 0xfffff);
    text->n = 0;
    while ((rc = stmt_row(s, e)) > 0)
        buf_str(text, col_peek(s));
    return rc;
}

suspends int sqlite_document_text(struct store *st, struct arena *a, const struct uuid *id, struct str *out,
                                  struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    struct buf text = {0};
    int rc = SQLITE_TRY(db, e, text_of(db, &text, id, e));
    if (rc < 0) {
        buf_fini(&text);
        return -1;
    }
    *out = buf_view(&text);
    if (text.p)
        arena_own(a, text.p, free);
    return 0;
}
