#include "worker/core/chunk.h"
#include "worker/core/sentence.h"
#include "worker/io/json.h"
#include <stdlib.h>

enum {
    BYTES_PER_TOKEN = 24,   /* text poor in words (rulers, base64) costs by its bytes */
    YIELD_BYTES = 32 << 10, /* of text between two turns of the loop */
    HEADING_TEXT_MAX = 200, /* bytes of a heading kept in a chunk */
    HEADING_LEVELS = 6,
    PARENT_TOKENS_MAX = 16384,
    PARENT_CHILDREN = 4, /* by default */
    CUT_BYTES = 64,      /* that decide about a cut before them */
};

/* ---- options ---- */

int chunking_parse(struct arena *a, struct str json, const struct config *cfg, struct chunking *out, struct err *e)
{
    static const char *const names[] = {"auto", "static", "structure", "parent_child"};
    enum { TYPES = sizeof names / sizeof *names };
    struct chunking c = {CHUNK_AUTO, (int)cfg->ingest_chunk_tokens, (int)cfg->ingest_chunk_overlap, 0};
    struct str type = STR("auto");
    int64_t tokens = c.max_tokens, overlap = c.overlap, parent = 0;
    bool has_tokens = false, has_overlap = false, has_parent = false;
    struct json_member members[] = {
        {.name = "type", .kind = JSON_STR, .out = &type},
        {.name = "max_tokens", .kind = JSON_INT64, .min = 16, .max = 4096, .out = &tokens, .present = &has_tokens},
        {.name = "overlap", .kind = JSON_INT64, .min = 0, .max = 2048, .out = &overlap, .present = &has_overlap},
        {.name = "parent_tokens",
         .kind = JSON_INT64,
         .min = 32,
         .max = PARENT_TOKENS_MAX,
         .out = &parent,
         .present = &has_parent},
    };
    json_t *object;
    if (json_parse_object(a, json.n ? json : STR("{}"), 8, &object, e) ||
        json_members(a, object, "/chunking", members, sizeof members / sizeof *members, false, e))
        return -1;
    size_t t = 0;
    while (t < TYPES && !str_eqz(type, names[t]))
        t++;
    if (t == TYPES)
        return err_at(e, "/chunking/type", "must be one of auto, static, structure, parent_child");
    if (t == CHUNK_AUTO && (has_tokens || has_overlap))
        return err_at(e, has_tokens ? "/chunking/max_tokens" : "/chunking/overlap",
                      "belongs to the types static and structure");
    if (t == CHUNK_PARENT_CHILD ? has_overlap : has_parent)
        return err_at(e, has_overlap ? "/chunking/overlap" : "/chunking/parent_tokens",
                      "does not belong to the type " STR_FMT, STR_ARG(type));
    if (t == CHUNK_PARENT_CHILD && !has_parent)
        parent = PARENT_CHILDREN * tokens;
    if (t == CHUNK_PARENT_CHILD && parent < 2 * tokens)
        return err_at(e, "/chunking/parent_tokens", "must be at least twice max_tokens (%lld)",
                      (long long)(2 * tokens));
    if (!has_overlap && overlap > tokens / 2)
        overlap = tokens / 2;
    if (overlap > tokens / 2)
        return err_at(e, "/chunking/overlap", "must be at most half of max_tokens (%lld)", (long long)tokens / 2);
    c.type = t;
    c.max_tokens = (int)tokens;
    c.overlap = t == CHUNK_PARENT_CHILD ? 0 : (int)overlap;
    c.parent_tokens = (int)parent;
    *out = c;
    return 0;
}

/* ---- pieces: what is never cut, in order; chunks are runs of them ---- */

/* The headings above a place, as JSON strings; "" = none of that level. */
struct path {
    struct str level[HEADING_LEVELS];
};

struct piece {
    size_t from, to;  /* bytes */
    size_t char_from; /* characters before `from` */
    size_t cost;      /* tokens, or more if it is long for its tokens */
    const struct path *path;
    int page;
    bool heading;
    bool first; /* of its block */
};

struct chunker {
    struct arena *a;
    struct analyzer *an;
    const struct extracted *x;
    struct chunking how;
    size_t max_bytes; /* of a piece */
    size_t max_chunks;
    struct err *e;

    struct piece *piece;  /* of the chunk being filled */
    size_t n, cap, fresh; /* fresh: index of the first piece that no chunk has yet */
    size_t cost;

    struct store_chunk_new *chunk;
    size_t n_chunk, cap_chunk;
    struct buf terms;

    size_t at_byte, at_char; /* how far characters are counted */
    size_t since_yield;
    const struct path *path; /* of the current place */
};

static size_t chars_before(struct chunker *c, size_t byte)
{
    for (; c->at_byte < byte; c->at_byte++)
        c->at_char += ((unsigned char)c->x->text.p[c->at_byte] & 0xc0) != 0x80;
    return c->at_char;
}

static bool count_term(void *arg, const struct term *t)
{
    (void)t;
    ++*(size_t *)arg;
    return true;
}

static struct str text_of(const struct chunker *c, size_t from, size_t to)
{
    return (struct str){c->x->text.p + from, to - from};
}

static size_t cost_of(struct chunker *c, size_t from, size_t to)
{
    size_t tokens = 0, bytes = (to - from + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN;
    analyze(c->an, text_of(c, from, to), count_term, &tokens);
    return tokens > bytes ? tokens : bytes;
}

/* ---- chunks ---- */

static size_t count_chars(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

static size_t budget(const struct chunker *c)
{
    return (size_t)(c->how.type == CHUNK_PARENT_CHILD ? c->how.parent_tokens : c->how.max_tokens);
}

/* Leaves what `path` has in common with `other`. */
static void path_share(struct path *path, const struct path *other)
{
    int i = 0;
    while (i < HEADING_LEVELS && str_eq(path->level[i], other->level[i]))
        i++;
    for (; i < HEADING_LEVELS; i++)
        path->level[i] = STR("");
}

/* The headings that all text of some pieces stands under; headings that nothing follows stand under themselves. */
static struct path path_of(const struct piece *p, size_t n)
{
    size_t from = 0;
    while (from < n && p[from].heading)
        from++;
    struct path path = *p[from < n ? from : 0].path;
    for (size_t i = from; i < n; i++)
        if (!p[i].heading)
            path_share(&path, p[i].path);
    return path;
}

static struct str path_json(struct chunker *c, const struct path *path)
{
    struct buf json = {0};
    buf_ch(&json, '[');
    for (int i = 0; i < HEADING_LEVELS; i++) {
        if (!path->level[i].n)
            continue;
        if (json.n > 1)
            buf_ch(&json, ',');
        buf_str(&json, path->level[i]);
    }
    buf_ch(&json, ']');
    struct str all = arena_dup(c->a, buf_view(&json));
    buf_fini(&json);
    return all;
}

/* One chunk of n pieces from `first` on; `parent`: NULL, or the span around it. */
static int emit_chunk(struct chunker *c, const struct piece *first, size_t n, const struct store_span *parent)
{
    if (c->n_chunk == c->max_chunks)
        return err_set(
            c->e, ERR_VALIDATION,
            "the document would have more than %zu chunks (ingest.max_chunks); split it or use larger chunks",
            c->max_chunks);
    if (c->n_chunk == c->cap_chunk) {
        size_t cap = c->cap_chunk ? 2 * c->cap_chunk : 16;
        struct store_chunk_new *grown = arena_alloc(c->a, cap * sizeof *grown);
        if (c->n_chunk)
            memcpy(grown, c->chunk, c->n_chunk * sizeof *grown);
        c->chunk = grown;
        c->cap_chunk = cap;
    }
    const struct piece *last = &first[n - 1];
    struct str text = text_of(c, first->from, last->to);
    c->terms.n = 0;
    int tokens = analyze_terms(c->an, text, &c->terms);
    struct path path = path_of(first, n);
    struct store_chunk_new *k = &c->chunk[c->n_chunk++];
    *k = (struct store_chunk_new){
        .text = text,
        .terms = arena_dup(c->a, buf_view(&c->terms)),
        .headings = path_json(c, &path),
        .tokens = tokens,
        .page = first->page,
        .byte_start = (int64_t)first->from,
        .byte_end = (int64_t)last->to,
        .char_start = (int64_t)first->char_from,
        .char_end = (int64_t)(first->char_from + count_chars(text)),
    };
    if (parent && (parent->byte_start != k->byte_start || parent->byte_end != k->byte_end))
        k->parent = *parent;
    sha256_of(text.p, text.n, &k->sha256);
    return 0;
}

/* The chunks of a parent: as many pieces of a page each as fit, a heading with what it heads. */
static int emit_children(struct chunker *c, size_t n)
{
    const struct piece *p = c->piece;
    struct str text = text_of(c, p[0].from, p[n - 1].to);
    struct store_span parent = {.char_start = (int64_t)p[0].char_from,
                                .char_end = (int64_t)(p[0].char_from + count_chars(text)),
                                .byte_start = (int64_t)p[0].from,
                                .byte_end = (int64_t)p[n - 1].to};
    for (size_t at = 0, end; at < n; at = end) {
        size_t cost = p[at].cost;
        for (end = at + 1; end < n && p[end].page == p[at].page && cost + p[end].cost <= (size_t)c->how.max_tokens;
             end++)
            cost += p[end].cost;
        while (end < n && p[end].page == p[at].page && end > at + 1 && p[end - 1].heading)
            end--;
        if (emit_chunk(c, p + at, end - at, &parent))
            return -1;
    }
    return 0;
}

static int emit(struct chunker *c, size_t n)
{
    return c->how.type == CHUNK_PARENT_CHILD ? emit_children(c, n) : emit_chunk(c, c->piece, n, NULL);
}

static void keep_from(struct chunker *c, size_t first, size_t fresh)
{
    memmove(c->piece, c->piece + first, (c->n - first) * sizeof *c->piece);
    c->n -= first;
    c->fresh = fresh;
    c->cost = 0;
    for (size_t i = 0; i < c->n; i++)
        c->cost += c->piece[i].cost;
}

/* The section ends here: what follows shares nothing with it. */
static int end_section(struct chunker *c)
{
    if (c->n > c->fresh && emit(c, c->n))
        return -1;
    keep_from(c, c->n, 0);
    return 0;
}

/* How well a chunk may begin with this piece; the least is best. Headings before blocks before sentences, and among
 * their like whatever their first bytes say: the same place wins whatever stood before it. */
static uint64_t cut_rank(const struct chunker *c, const struct piece *p)
{
    struct str s = str_sub(text_of(c, p->from, p->to), 0, CUT_BYTES);
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < s.n; i++)
        hash = (hash ^ (unsigned char)s.p[i]) * 0x100000001b3;
    hash ^= hash >> 32;
    return (uint64_t)(p->heading ? 0 : p->first ? 1 : 2) << 62 | hash >> 2;
}

/* The piece before which the full chunk ends, in its second half; the end when there is no such place. What is cut off must
 * fit into a chunk with the next piece. */
static size_t best_cut(const struct chunker *c, const struct piece *next)
{
    size_t least = budget(c) / 2, cost = 0, best = 0;
    uint64_t best_rank = UINT64_MAX;
    for (size_t i = 0; i <= c->n && c->how.type != CHUNK_STATIC; i++) {
        const struct piece *p = i < c->n ? &c->piece[i] : next;
        if (i > c->fresh && cost >= least && !c->piece[i - 1].heading && c->cost - cost + next->cost <= budget(c)) {
            uint64_t rank = cut_rank(c, p);
            best = rank < best_rank ? i : best;
            best_rank = rank < best_rank ? rank : best_rank;
        }
        cost += i < c->n ? p->cost : 0;
    }
    if (best)
        return best;
    size_t n = c->n;
    while (n > c->fresh && c->piece[n - 1].heading)
        n--; /* a heading goes with what it heads */
    return n > c->fresh ? n : c->n;
}

/* The chunk is full and more of the section comes: repeat its end, as much as overlaps. `p` must fit beside it. */
static int end_full(struct chunker *c, const struct piece *p)
{
    size_t n = best_cut(c, p), room = budget(c), next = p->cost;
    if (emit(c, n))
        return -1;
    size_t first = n, repeated = 0;
    for (size_t i = n; i < c->n; i++)
        next += c->piece[i].cost;
    bool headed = (n < c->n ? &c->piece[n] : p)->heading;
    while (first > 1 && !headed && !c->piece[first - 1].heading) {
        size_t cost = c->piece[first - 1].cost;
        if (repeated + cost > (size_t)c->how.overlap || repeated + cost + next > room)
            break;
        repeated += cost;
        first--;
    }
    keep_from(c, first, n - first);
    return 0;
}

static bool fits(const struct chunker *c, size_t cost)
{
    return c->cost + cost <= budget(c);
}

static int add(struct chunker *c, struct piece p)
{
    if (c->n > c->fresh && !fits(c, p.cost) && end_full(c, &p))
        return -1;
    if (c->n && !fits(c, p.cost) && end_section(c)) /* long headings, or no room for the repetition */
        return -1;
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 64;
        c->piece = realloc(c->piece, c->cap * sizeof *c->piece);
        if (!c->piece)
            abort();
    }
    c->piece[c->n++] = p;
    c->cost += p.cost;
    return 0;
}

static struct piece piece_of(struct chunker *c, const struct block *b, size_t from, size_t to, size_t cost)
{
    return (struct piece){
        .from = from,
        .to = to,
        .char_from = chars_before(c, from),
        .cost = cost,
        .path = c->path,
        .page = b->page,
        .heading = b->kind == BLOCK_HEADING && c->how.type != CHUNK_STATIC,
        .first = from == b->from,
    };
}

/* ---- cutting ---- */

static bool space(char c)
{
    return c == ' ' || c == '\n' || c == '\t';
}

struct words {
    struct chunker *c;
    const struct block *b;
    size_t base, from; /* of the text; of the word that is open */
    size_t last;       /* where the latest term begins */
    size_t tokens;     /* that begin in it */
    int rc;
};

static int add_word(struct words *w, size_t end)
{
    while (end > w->from + 1 && space(w->c->x->text.p[end - 1]))
        end--;
    size_t bytes = (end - w->from + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN;
    return add(w->c, piece_of(w->c, w->b, w->from, end, bytes > w->tokens ? bytes : w->tokens));
}

static bool word(void *arg, const struct term *t)
{
    struct words *w = arg;
    size_t at = w->base + t->from;
    if (w->tokens && at > w->last) { /* several terms may come of one word */
        w->rc = add_word(w, at);
        w->from = at;
        w->tokens = 0;
    }
    w->last = at;
    w->tokens++;
    return w->rc == 0;
}

/* One piece per word, with what follows it up to the next. */
static int add_words(struct chunker *c, const struct block *b, size_t from, size_t to, size_t glued)
{
    struct words w = {.c = c, .b = b, .base = from, .from = from, .last = from, .tokens = glued};
    analyze(c->an, text_of(c, from, to), word, &w);
    return w.rc ? -1 : add_word(&w, to);
}

suspends static int breathe(struct chunker *c, size_t bytes)
{
    c->since_yield += bytes;
    if (c->since_yield < YIELD_BYTES || !fiber_self())
        return 0;
    c->since_yield = 0;
    return fiber_yield() ? err_set(c->e, ERR_CANCELED, "chunking was cancelled") : 0;
}

/* A chunk is on one page, as it names but one. The context of chunks may reach over several. */
static bool begins_page(const struct chunker *c, const struct block *b)
{
    return c->how.type != CHUNK_PARENT_CHILD && c->n && c->piece[c->n - 1].page != b->page;
}

suspends static int add_block(struct chunker *c, const struct block *b)
{
    if (begins_page(c, b) && end_section(c))
        return -1;
    struct str text = c->x->text;
    bool lines = b->kind == BLOCK_CODE || b->kind == BLOCK_TABLE_ROW, by_word = c->how.type == CHUNK_STATIC;
    size_t last_end = SIZE_MAX;
    for (size_t at = b->from; at < b->to;) {
        while (at < b->to && (lines ? text.p[at] == '\n' : space(text.p[at])))
            at++;
        if (at == b->to)
            break;
        size_t len = sentence_next(str_sub(text, at, b->to - at), lines, c->max_bytes), end = at + len;
        while (end > at + 1 && space(text.p[end - 1]))
            end--;
        size_t glued = at == last_end; /* a run of bigrams that was cut has one more when it is whole again */
        size_t cost = glued + cost_of(c, at, end);
        int rc = by_word || cost > (size_t)c->how.max_tokens ? add_words(c, b, at, end, glued)
                                                             : add(c, piece_of(c, b, at, end, cost));
        last_end = end;
        if (rc || breathe(c, len))
            return -1;
        at += len;
    }
    return 0;
}

/* ---- headings ---- */

static size_t back_to_character(struct str s, size_t at)
{
    while (at > 0 && ((unsigned char)s.p[at] & 0xc0) == 0x80)
        at--;
    return at;
}

static void set_heading(struct chunker *c, const struct block *b)
{
    int level = b->level < 1 ? 1 : b->level > HEADING_LEVELS ? HEADING_LEVELS : b->level;
    struct str text = text_of(c, b->from, b->to);
    if (text.n > HEADING_TEXT_MAX)
        text.n = back_to_character(text, HEADING_TEXT_MAX);
    struct buf json = {0};
    json_escape(&json, text);
    struct path *path = arena_zalloc(c->a, sizeof *path);
    for (int i = 0; i < level - 1; i++)
        path->level[i] = c->path->level[i];
    path->level[level - 1] = arena_dup(c->a, buf_view(&json));
    c->path = path;
    buf_fini(&json);
}

static bool only_headings(const struct chunker *c)
{
    for (size_t i = c->fresh; i < c->n; i++)
        if (!c->piece[i].heading)
            return false;
    return true;
}

/* Whether the chunk in hand and the section that begins are parts of one section. */
static bool related(const struct chunker *c)
{
    struct path path = path_of(c->piece, c->n);
    path_share(&path, c->path);
    for (int i = 0; i < HEADING_LEVELS; i++)
        if (path.level[i].n)
            return true;
    return false;
}

/* A new section begins a new chunk. `auto` lets short parts of one section share one, as long as a quarter of it is empty;
 * it then carries the headings of that section. */
static int begin_section(struct chunker *c)
{
    if (c->how.type == CHUNK_STATIC || only_headings(c))
        return 0;
    if (c->how.type == CHUNK_AUTO && c->cost < (size_t)c->how.max_tokens / 4 && related(c))
        return 0;
    return end_section(c);
}

int chunk_document(struct arena *a, struct analyzer *an, const struct extracted *x, const struct chunking *how,
                   size_t max_chunks, struct store_chunk_new **out, size_t *n, struct err *e)
{
    static const struct path none;
    struct chunker c = {.a = a, .an = an, .x = x, .how = *how, .max_chunks = max_chunks, .e = e, .path = &none};
    c.max_bytes = (size_t)how->max_tokens * BYTES_PER_TOKEN;
    if (how->type == CHUNK_PARENT_CHILD)
        c.how.overlap = 0;
    int rc = 0;
    for (size_t i = 0; i < x->n && rc == 0; i++) {
        if (x->block[i].kind == BLOCK_HEADING) {
            set_heading(&c, &x->block[i]);
            rc = begin_section(&c);
        }
        if (rc == 0)
            rc = add_block(&c, &x->block[i]);
    }
    if (rc == 0)
        rc = end_section(&c);
    if (rc == 0) {
        *out = c.chunk;
        *n = c.n_chunk;
    }
    free(c.piece);
    buf_fini(&c.terms);
    return rc;
}
