/* Texts are cut into pieces that the model can take, pieces are gathered into batches, and some batches are under way at
 * once. What the server still finds too long is halved until it does not. A text's vector is the sum of those of its
 * pieces, by their bytes. */
#include "worker/embed/embed_openai.h"
#include "common/clock.h"
#include "common/list.h"
#include "worker/embed/embed_wire.h"
#include "worker/io/provider.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    TASKS_MAX = 16,
    PIECE_MIN = 64, /* bytes; a server that finds this too long means something else */
    ASCII_PER_TOKEN = 4,
    MAX_REPLY = 256 << 20,
};

struct openai {
    struct embedder base;
    const struct config *cfg;
    struct provider *server;
    char *identity;
};

struct piece {
    struct str text;
    size_t owner; /* which of the texts it belongs to */
};

struct batch {
    const struct piece *piece;
    size_t n;
};

/* One call of embed(). */
struct work {
    struct openai *m;
    struct arena *a;
    struct str prefix;
    size_t n_text;
    struct batch *batch;
    size_t n_batch, next;
    float *out; /* n_text × base.dim; made when the first vectors come */
    int64_t tokens;
    bool failed;
    struct err err; /* the first */
};

/* ---- pieces and batches ---- */

/* Models count differently; a text of few letters a word, or of another script, has more tokens than letters / 4. */
static int64_t tokens_of(struct str s)
{
    int64_t ascii = 0, other = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        ascii += c < 0x80;
        other += c >= 0xc0; /* first bytes of characters */
    }
    return (ascii + ASCII_PER_TOKEN - 1) / ASCII_PER_TOKEN + other;
}

/* A place near `at` to cut: after white space if there is some in the quarter before, never inside a character. */
static size_t cut_near(struct str s, size_t at)
{
    size_t i = at;
    while (i > at - at / 4 && s.p[i - 1] != ' ' && s.p[i - 1] != '\n')
        i--;
    if (i > at - at / 4)
        return i;
    while (at > 1 && ((unsigned char)s.p[at] & 0xc0) == 0x80)
        at--;
    return at;
}

static size_t piece_len(struct str s, int64_t max_tokens)
{
    size_t n = (size_t)max_tokens * ASCII_PER_TOKEN;
    if (n >= s.n && tokens_of(s) <= max_tokens)
        return s.n;
    if (n > s.n)
        n = s.n;
    for (int64_t t; n > PIECE_MIN && (t = tokens_of(str_sub(s, 0, n))) > max_tokens;)
        n = (size_t)((double)n * 0.95 * (double)max_tokens / (double)t) + 1;
    return n < s.n ? cut_near(s, n) : n;
}

static struct piece *cut(struct work *w, const struct str *text, size_t *n)
{
    struct buf b = {0};
    for (size_t i = 0; i < w->n_text; i++) {
        struct str rest = text[i];
        do {
            struct piece p = {str_sub(rest, 0, piece_len(rest, w->m->cfg->embedding_max_input_tokens)), i};
            buf_add(&b, &p, sizeof p);
            rest = str_sub(rest, p.text.n, SIZE_MAX);
        } while (rest.n);
    }
    struct piece *v = arena_alloc(w->a, b.n);
    memcpy(v, b.p, b.n);
    *n = b.n / sizeof *v;
    buf_fini(&b);
    return v;
}

static void gather(struct work *w, const struct piece *v, size_t n)
{
    const struct config *cfg = w->m->cfg;
    int64_t tokens = 0;
    w->batch = arena_alloc(w->a, n * sizeof *w->batch);
    for (size_t i = 0; i < n; i++) {
        int64_t more = tokens_of(w->prefix) + tokens_of(v[i].text);
        struct batch *last = w->n_batch ? &w->batch[w->n_batch - 1] : NULL;
        if (!last || last->n >= (size_t)cfg->embedding_batch_size || tokens + more > cfg->embedding_batch_tokens) {
            w->batch[w->n_batch++] = (struct batch){&v[i], 1};
            tokens = more;
        } else {
            last->n++;
            tokens += more;
        }
    }
}

/* ---- one request ---- */

struct reading {
    struct work *w;
    struct arena *a;
    size_t n;
    float *v;
    bool too_long;
};

static enum provider_verdict judge(void *arg, const struct httpc_reply *r, struct err *e)
{
    struct reading *x = arg;
    struct openai *m = x->w->m;
    int dim, wanted = m->base.dim ? m->base.dim : (int)m->cfg->embedding_dimensions;
    int64_t tokens;
    enum provider_verdict v = provider_judge(m->server, r, e);
    if (v != PROVIDER_OK) {
        x->too_long = embed_wire_too_long(r->status, r->body);
        return x->too_long ? PROVIDER_REFUSED : v;
    }
    if (embed_wire_read(x->a, r->body, x->n, &x->v, &dim, &tokens, e))
        return PROVIDER_FAILED;
    if (wanted && dim != wanted) {
        err_set(e, ERR_PROVIDER, "the embedding server answers with vectors of %d dimensions, not %d", dim, wanted);
        return PROVIDER_FAILED;
    }
    m->base.dim = dim;
    x->w->tokens += tokens;
    return PROVIDER_OK;
}

static void add_up(struct work *w, const struct piece *p, size_t n, const float *v)
{
    size_t dim = (size_t)w->m->base.dim;
    if (!w->out)
        w->out = arena_zalloc(w->a, w->n_text * dim * sizeof *w->out);
    for (size_t i = 0; i < n; i++) {
        float *sum = w->out + p[i].owner * dim, weight = (float)(p[i].text.n + 1);
        for (size_t k = 0; k < dim; k++)
            sum[k] += weight * v[i * dim + k];
    }
}

static suspends int embed_pieces(struct work *w, const struct piece *p, size_t n, struct err *e);

static suspends int embed_halves(struct work *w, const struct piece *p, size_t n, struct err *e)
{
    if (n > 1)
        return embed_pieces(w, p, n / 2, e) || embed_pieces(w, p + n / 2, n - n / 2, e) ? -1 : 0;
    if (p->text.n < PIECE_MIN)
        return -1; /* with the server's refusal */
    size_t at = cut_near(p->text, p->text.n / 2);
    struct piece half[] = {{str_sub(p->text, 0, at), p->owner}, {str_sub(p->text, at, SIZE_MAX), p->owner}};
    return embed_pieces(w, half, 2, e);
}

static suspends int embed_pieces(struct work *w, const struct piece *p, size_t n, struct err *e)
{
    const struct config *cfg = w->m->cfg;
    struct arena a = {0};
    struct buf body = {0};
    struct httpc_reply reply;
    struct reading x = {.w = w, .a = &a, .n = n};
    struct str *text = arena_alloc(&a, n * sizeof *text);
    for (size_t i = 0; i < n; i++)
        text[i] = p[i].text;
    embed_wire_write(&body, &(struct embed_wire_request){.model = cfg->embedding_model,
                                                         .dimensions = (int)cfg->embedding_dimensions,
                                                         .base64 = cfg->embedding_encoding == 0,
                                                         .prefix = w->prefix,
                                                         .text = text,
                                                         .n = n});
    struct provider_call call = {"/embeddings", buf_view(&body), judge, &x};
    int rc = provider_post(w->m->server, &a, &call, &reply, e);
    if (rc == 0)
        add_up(w, p, n, x.v);
    buf_fini(&body);
    arena_fini(&a);
    return rc && x.too_long ? embed_halves(w, p, n, e) : rc;
}

/* ---- all of them ---- */

static suspends int next_batches(void *arg)
{
    struct work *w = arg;
    while (!w->failed && w->next < w->n_batch) {
        const struct batch *b = &w->batch[w->next++];
        struct err why = {0};
        if (embed_pieces(w, b->piece, b->n, &why) == 0)
            continue;
        if (!w->failed)
            w->err = why;
        w->failed = true;
    }
    return 0;
}

static suspends void run(struct work *w)
{
    struct fiber_task task[TASKS_MAX];
    size_t n = (size_t)w->m->cfg->embedding_concurrency;
    if (n > w->n_batch)
        n = w->n_batch;
    if (n > TASKS_MAX)
        n = TASKS_MAX;
    if (n == 1) {
        next_batches(w);
        return;
    }
    for (size_t i = 0; i < n; i++)
        task[i] = (struct fiber_task){next_batches, w, 0};
    fiber_all(task, n);
}

/* A query has less patience than its request: the search can go on without a vector. */
static suspends void run_query(struct work *w)
{
    int64_t before = fiber_deadline(fiber_self()), within = clock_ns() + w->m->cfg->embedding_query_timeout * MS;
    bool narrow = !before || within < before;
    if (narrow)
        fiber_set_deadline(fiber_self(), within);
    run(w);
    fiber_set_deadline(fiber_self(), before);
    if (narrow && w->failed && w->err.code == ERR_DEADLINE)
        err_set(&w->err, ERR_NOT_READY, "the embedding server took too long for a query");
}

static suspends int openai_embed(struct embedder *base, struct arena *a, enum embed_purpose purpose,
                                 const struct str *text, size_t n, float **out, int *dim, struct err *e)
{
    struct openai *m = list_entry(base, struct openai, base);
    const char *prefix = purpose == EMBED_QUERY ? m->cfg->embedding_query_prefix : m->cfg->embedding_document_prefix;
    struct work w = {.m = m, .a = a, .prefix = str_of(prefix), .n_text = n};
    size_t pieces;
    assert(n > 0);
    const struct piece *v = cut(&w, text, &pieces);
    gather(&w, v, pieces);
    if (purpose == EMBED_QUERY)
        run_query(&w);
    else
        run(&w);
    for (size_t i = 0; !w.failed && i < n; i++)
        if (!embed_wire_normalise(w.out + i * (size_t)base->dim, base->dim)) {
            w.failed = true; /* parts that cancel each other out */
            err_set(&w.err, ERR_PROVIDER, "the vector of a text has no length");
        }
    STAT_ADD(embedding_tokens_total, (uint64_t)w.tokens);
    if (w.failed) {
        *e = w.err;
        return -1;
    }
    STAT_ADD(embedding_texts_total, n);
    *out = w.out;
    *dim = base->dim;
    return 0;
}

static int openai_state(struct embedder *base, struct err *e)
{
    return provider_state(list_entry(base, struct openai, base)->server, e);
}

static void openai_free(struct embedder *base)
{
    struct openai *m = list_entry(base, struct openai, base);
    provider_close(m->server);
    free(m->identity);
    free(m);
}

static char *identity_of(const struct config *cfg)
{
    char *s;
    const char *prefix = cfg->embedding_document_prefix;
    if (asprintf(&s, *prefix ? "%s (document_prefix \"%s\")" : "%s", cfg->embedding_model, prefix) < 0)
        abort();
    return s;
}

struct embedder *embed_openai_open(const struct config *cfg, struct httpc *http)
{
    static const struct embed_ops ops = {"openai", openai_embed, openai_state, openai_free};
    struct provider_settings s = {.what = "embedding server",
                                  .url = cfg->embedding_url,
                                  .key = cfg->embedding_api_key,
                                  .timeout_ms = cfg->embedding_timeout,
                                  .retries = cfg->embedding_retries,
                                  .retry_delay_ms = cfg->embedding_retry_delay,
                                  .concurrency = cfg->embedding_concurrency,
                                  .breaker_failures = cfg->embedding_breaker_failures,
                                  .breaker_pause_ms = cfg->embedding_breaker_pause,
                                  .max_reply = MAX_REPLY,
                                  .requests = STAT_embedding_requests_total,
                                  .retried = STAT_embedding_retries_total,
                                  .failed = STAT_embedding_errors_total};
    struct openai *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->identity = identity_of(cfg);
    m->base = (struct embedder){&ops, str_of(m->identity), 0};
    m->cfg = cfg;
    provider_open(http, &s, &m->server);
    return &m->base;
}
