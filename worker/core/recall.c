#include "worker/core/recall.h"
#include "version.h"
#include "worker/cache/cache.h"
#include "worker/embed/embed.h"

enum { DIM_MAX = 65536 };

/* ---- keys ---- */

static void add_number(struct buf *b, double v)
{
    buf_add(b, &v, sizeof v);
}

static void add_int(struct buf *b, int64_t v)
{
    buf_add(b, &v, sizeof v);
}

/* With its length, so that no two lists of texts look alike. */
static void add_text(struct buf *b, struct str s)
{
    add_int(b, (int64_t)s.n);
    buf_str(b, s);
}

static void add_filter(struct buf *b, const struct filter *f)
{
    add_int(b, f != NULL);
    if (!f)
        return;
    add_int(b, f->op);
    add_text(b, f->key);
    add_int(b, (int64_t)f->n);
    for (size_t i = 0; i < f->n; i++)
        if (f->op == FILTER_AND || f->op == FILTER_OR) {
            add_filter(b, f->child[i]);
        } else {
            add_int(b, f->value[i].type);
            add_text(b, f->value[i].type == FILTER_STRING ? f->value[i].s : STR(""));
            add_number(b, f->value[i].type == FILTER_NUMBER ? f->value[i].num : 0);
            add_int(b, f->value[i].type == FILTER_BOOL && f->value[i].b);
        }
}

static void add_query(struct buf *b, const struct retrieve_query *q)
{
    add_int(b, q->mode);
    add_text(b, q->query);
    add_int(b, q->top_k), add_int(b, q->offset);
    add_number(b, q->min_score), add_number(b, q->weights.lexical), add_number(b, q->weights.vector);
    add_int(b, q->before), add_int(b, q->after);
    add_int(b, q->highlight), add_int(b, q->explain), add_int(b, q->group_by_document);
    add_filter(b, q->filter);
}

static void add_settings(struct buf *b, const struct backends *s)
{
    const struct config *cfg = s->cfg;
    add_number(b, cfg->search_bm25_k1), add_number(b, cfg->search_bm25_b);
    add_int(b, cfg->search_max_candidates), add_int(b, cfg->search_vector_candidates),
        add_int(b, cfg->limits_query_terms);
    add_text(b, str_of(cfg->ingest_language));
    add_text(b, s->embedder ? s->embedder->model : STR(""));
    add_text(b, str_of(cfg->embedding_query_prefix));
    add_text(b, str_of(cfg->vectors_url));
}

static void add_scope(struct buf *b, const struct retrieve_scope *scope)
{
    add_int(b, (int64_t)scope->n);
    for (size_t i = 0; i < scope->n; i++) {
        const struct store_collection *c = &scope->c[i];
        buf_add(b, &c->id, sizeof c->id);
        add_int(b, c->revision), add_int(b, c->version), add_int(b, c->generation);
    }
}

static struct str key_of(struct arena *a, const char *kind, struct buf *b)
{
    char hex[SHA256_TEXT_LEN];
    struct sha256 hash;
    sha256_of(b->p, b->n, &hash);
    sha256_text(&hash, hex);
    buf_fini(b);
    return arena_printf(a, "%s:%.*s", kind, SHA256_TEXT_LEN, hex);
}

/* ---- answers ---- */

struct recalling {
    const struct backends *b;
    const struct retrieve_query *q;
    recall_render *render;
    void *arg;
};

static void free_buf(void *arg)
{
    buf_fini(arg);
}

suspends static int make(void *arg, struct arena *a, struct str *out, bool *keep, struct err *e)
{
    const struct recalling *x = arg;
    struct retrieve_result found;
    struct buf *b = arena_own(a, arena_zalloc(a, sizeof *b), free_buf);
    if (retrieve(x->b, a, x->q, &found, e))
        return -1;
    x->render(x->arg, b, &found);
    *out = buf_view(b);
    *keep = !found.degraded || !x->b->embedder; /* without an embedder it is what this server has to say */
    return 0;
}

suspends int recall_search(const struct backends *b, struct arena *a, const struct retrieve_query *q,
                           recall_render *render, void *arg, struct buf *out, bool *hit, struct err *e)
{
    struct retrieve_scope scope;
    struct retrieve_query scoped = *q;
    struct recalling x = {b, &scoped, render, arg};
    struct buf key = {0};
    struct str text;
    if (retrieve_scope_of(b, a, q, &scope, e))
        return -1;
    scoped.scope = &scope;
    add_text(&key, STR(RAGD_VERSION));
    add_query(&key, q);
    add_settings(&key, b);
    add_scope(&key, &scope);
    if (cache_fetch(b->cache, a, key_of(a, "search", &key), make, &x, &text, hit, e))
        return -1;
    buf_str(out, text);
    return 0;
}

/* ---- vectors ---- */

struct embedding {
    struct embedder *m;
    struct str query;
};

suspends static int embed(void *arg, struct arena *a, struct str *out, bool *keep, struct err *e)
{
    const struct embedding *x = arg;
    float *v;
    int dim;
    (void)keep;
    if (x->m->ops->embed(x->m, a, EMBED_QUERY, &x->query, 1, &v, &dim, e))
        return -1;
    *out = (struct str){(const char *)v, (size_t)dim * sizeof *v};
    return 0;
}

suspends int recall_vector(const struct backends *b, struct arena *a, struct str query, const float **out, int *dim,
                           struct err *e)
{
    struct embedding x = {b->embedder, query};
    struct buf key = {0};
    struct str bytes;
    bool hit, keep;
    add_text(&key, b->embedder->model);
    add_text(&key, str_of(b->cfg->embedding_query_prefix));
    add_int(&key, b->cfg->embedding_dimensions);
    add_text(&key, query);
    if (cache_fetch(b->cache, a, key_of(a, "vector", &key), embed, &x, &bytes, &hit, e))
        return -1;
    if (bytes.n % sizeof(float) || !bytes.n || bytes.n / sizeof(float) > DIM_MAX) /* somebody else wrote it */
        if (embed(&x, a, &bytes, &keep, e))
            return -1;
    float *v = arena_alloc(a, bytes.n); /* aligned */
    memcpy(v, bytes.p, bytes.n);
    *out = v;
    *dim = (int)(bytes.n / sizeof *v);
    return 0;
}

suspends int recall_flush(const struct backends *b, struct recall_flushed *out, struct err *e)
{
    if (!b->cache)
        return err_set(e, ERR_CONFLICT, "There is no cache: cache.url is none");
    *out = (struct recall_flushed){.cache = b->cache->ops->name, .shared = b->cache->ops->shared};
    return cache_flush(b->cache, &out->removed, e);
}
