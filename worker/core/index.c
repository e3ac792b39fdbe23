#include "worker/core/index.h"
#include "common/scoreboard.h"
#include "worker/embed/embed.h"
#include <stdlib.h>

enum { PAGE = 200 }; /* chunks looked up, and embedded, at a time */

/* ---- where to ---- */

static int add_space(const struct store_collection *c, int64_t generation, struct str model, int dim,
                     struct index_space *out)
{
    *out = (struct index_space){
        .space = {.collection = c->id, .collection_no = c->no, .generation = generation, .dim = dim}, .model = model};
    return 1;
}

int index_spaces(const struct store_collection *c, struct index_space out[INDEX_SPACES])
{
    int n = 0;
    if (c->embedder.n)
        n += add_space(c, c->generation, c->embedder, c->dim, &out[n]);
    if (c->shadow.no)
        n += add_space(c, c->shadow.no, c->shadow.embedder, c->shadow.dim, &out[n]);
    if (c->previous.no)
        n += add_space(c, c->previous.no, c->previous.embedder, c->previous.dim, &out[n]);
    return n;
}

int index_targets(const struct backends *b, const struct store_collection *c, struct index_space out[INDEX_SPACES])
{
    struct index_space all[INDEX_SPACES];
    int n = 0, spaces = index_spaces(c, all);
    if (!c->embedder.n)
        n += add_space(c, c->generation, b->embedder->model, 0, &out[n]);
    for (int i = 0; i < spaces; i++)
        if (str_eq(all[i].model, b->embedder->model))
            out[n++] = all[i];
    return n;
}

suspends int index_later(const struct backends *b, enum outbox_kind kind, const struct index_space *to,
                         int64_t document_no, const struct uuid *document, struct err *e)
{
    const struct store_outbox o = {.kind = kind,
                                   .collection = to->space.collection,
                                   .collection_no = to->space.collection_no,
                                   .generation = to->space.generation,
                                   .dim = to->space.dim,
                                   .document = document ? *document : (struct uuid){{0}},
                                   .document_no = document_no};
    return STORE_CALL(b->store, outbox_add, &o, 1, e);
}

/* ---- vectors of chunks ---- */

suspends int index_ask_dim(const struct backends *b, int *dim, struct err *e)
{
    struct arena a = {0};
    struct str text = STR("How long is a vector?");
    float *v;
    if (!b->embedder)
        return err_set(e, ERR_VALIDATION, "embedding.url is none: there is nothing to embed with");
    int rc = b->embedder->ops->embed(b->embedder, &a, EMBED_DOCUMENT, &text, 1, &v, dim, e);
    arena_fini(&a);
    return rc;
}

/* At most PAGE chunks of a document, and what is known of them. */
struct page {
    struct arena a;
    int64_t document;
    int from; /* ordinal of the first one */
    struct sha256 sha[PAGE];
    struct str text[PAGE];
    const float *v[PAGE];
    size_t n;
};

static int no_embedder(struct str model, struct err *e)
{
    return err_set(e, ERR_CONFLICT,
                   "Vectors of " STR_FMT " are missing, and embedding.model is another one: run `ragd reindex`",
                   STR_ARG(str_sub(model, 0, 100)));
}

/* Embeds those that have no vector, each text once, and keeps them. */
suspends static int embed_missing(const struct backends *b, struct str model, struct page *p, int *dim, struct err *e)
{
    size_t at[PAGE], n = 0;
    struct str text[PAGE];
    struct sha256 sha[PAGE];
    int found;
    float *v;
    for (size_t i = 0; i < p->n; i++) {
        size_t k = 0;
        while (k < n && memcmp(&sha[k], &p->sha[i], sizeof sha[k]) != 0)
            k++;
        at[i] = k;
        if (p->v[i] || k < n)
            continue;
        sha[n] = p->sha[i];
        text[n++] = p->text[i];
    }
    STAT_ADD(embeddings_reused_total, p->n - n);
    if (n == 0)
        return 0;
    if (!b->embedder || !str_eq(b->embedder->model, model))
        return no_embedder(model, e);
    if (b->embedder->ops->embed(b->embedder, &p->a, EMBED_DOCUMENT, text, n, &v, &found, e))
        return -1;
    if (*dim && found != *dim)
        return err_set(e, ERR_CONFLICT,
                       "The vectors of the collection have %d dimensions, those of the embedder %d: run `ragd reindex`",
                       *dim, found);
    *dim = found;
    STAT_ADD(embeddings_made_total, n);
    for (size_t i = 0; i < p->n; i++)
        if (!p->v[i])
            p->v[i] = v + at[i] * (size_t)found;
    return STORE_CALL(b->store, embeddings_put, model, found, sha, n, v, e);
}

/* The length of a new collection's vectors is the one that is set, or that of what the embedder makes now: what is kept may
 * be of other settings, or of another model that had the name before. *dim stays 0 when nothing needs to be known yet. */
suspends static int find_dim(const struct backends *b, struct str model, bool kept, int *dim, struct err *e)
{
    *dim = (int)b->cfg->embedding_dimensions;
    if (*dim || !b->embedder || !str_eq(b->embedder->model, model))
        return 0;
    *dim = b->embedder->dim;
    return *dim || !kept ? 0 : index_ask_dim(b, dim, e);
}

suspends static int page_vectors(const struct backends *b, struct str model, struct page *p, int *dim, struct err *e)
{
    int kept = *dim;
    if (STORE_CALL(b->store, embeddings_get, &p->a, model, &kept, p->document, p->from, p->sha, p->n, p->v, e))
        return -1;
    if (*dim == 0) {
        if (find_dim(b, model, kept > 0, dim, e))
            return -1;
        if (kept && *dim && kept != *dim &&
            STORE_CALL(b->store, embeddings_get, &p->a, model, dim, p->document, p->from, p->sha, p->n, p->v, e))
            return -1;
        if (*dim == 0)
            *dim = kept;
    }
    return embed_missing(b, model, p, dim, e);
}

static int watched(const struct index_watch *w, size_t done, size_t total, struct err *e)
{
    return w ? w->fn(w->arg, (int64_t)done, (int64_t)total, e) : 0;
}

suspends int index_embed(const struct backends *b, struct str model, int64_t document_no,
                         const struct store_chunk_new *chunks, size_t n, int *dim, const struct index_watch *watch,
                         struct err *e)
{
    struct page *p = calloc(1, sizeof *p);
    int rc = 0;
    if (!p)
        abort();
    p->document = document_no;
    for (size_t at = 0; at < n && rc == 0; at += p->n) {
        p->from = (int)at;
        for (p->n = 0; p->n < PAGE && at + p->n < n; p->n++) {
            p->sha[p->n] = chunks[at + p->n].sha256;
            p->text[p->n] = chunks[at + p->n].text;
        }
        rc = watched(watch, at, n, e);
        if (rc == 0)
            rc = page_vectors(b, model, p, dim, e);
        arena_fini(&p->a);
    }
    free(p);
    return rc;
}

/* ---- a document ---- */

struct loaded {
    struct uuid *id;
    float *v;
    size_t n, cap;
    int dim;
};

static void *grown(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (!p)
        abort();
    return p;
}

static void take_page(struct loaded *l, const struct page *p, const struct store_chunk *chunks)
{
    size_t dim = (size_t)l->dim;
    if (l->n + p->n > l->cap) {
        l->cap = l->n + p->n > 2 * l->cap ? l->n + p->n : 2 * l->cap;
        l->id = grown(l->id, l->cap * sizeof *l->id);
        l->v = grown(l->v, l->cap * dim * sizeof *l->v);
    }
    for (size_t i = 0; i < p->n; i++, l->n++) {
        l->id[l->n] = chunks[i].id;
        memcpy(l->v + l->n * dim, p->v[i], dim * sizeof *l->v);
    }
}

suspends static int load(const struct backends *b, struct str model, const struct store_document *d, struct loaded *l,
                         const struct index_watch *watch, struct err *e)
{
    struct page *p = calloc(1, sizeof *p);
    struct store_chunk *chunks;
    int rc = 0;
    if (!p)
        abort();
    p->document = d->no;
    do {
        arena_fini(&p->a);
        p->from = (int)l->n;
        rc = STORE_CALL(b->store, document_chunks, &p->a, &d->id, p->from, PAGE, &chunks, &p->n, e);
        if (rc || p->n == 0)
            break;
        for (size_t i = 0; i < p->n; i++) {
            p->sha[i] = chunks[i].sha256;
            p->text[i] = chunks[i].text;
        }
        rc = watched(watch, l->n, (size_t)d->chunks, e);
        if (rc == 0)
            rc = page_vectors(b, model, p, &l->dim, e);
        if (rc == 0)
            take_page(l, p, chunks);
    } while (rc == 0 && p->n == PAGE);
    arena_fini(&p->a);
    free(p);
    return rc;
}

/* Whoever wrote an older version, or older vectors, last has made room for it in the index, and a change of what the
 * document says of itself may have come before its points: somebody shall look again. */
suspends static int look_again(const struct backends *b, const struct index_space *to, const struct store_document *put,
                               struct err *e)
{
    struct arena a = {0};
    struct store_document now;
    int rc = STORE_CALL(b->store, documents_by_no, &a, &put->no, 1, &now, e);
    if (rc == 0 && (now.indexed_version != put->indexed_version || now.given != put->given))
        rc = index_later(b, OUTBOX_put, to, put->no, &put->id, e);
    else if (rc == 0 && (!str_eq(now.metadata, put->metadata) || !str_eq(now.tags, put->tags)))
        rc = index_later(b, OUTBOX_describe, to, put->no, &put->id, e);
    arena_fini(&a);
    return rc;
}

/* A space that was dropped before the points came has them now, and nobody knows of it. */
suspends static int still_there(const struct backends *b, const struct index_space *to, struct err *e)
{
    struct arena a = {0};
    struct store_collection c;
    struct index_space all[INDEX_SPACES];
    struct err why = {0};
    bool found = false;
    int rc = STORE_CALL(b->store, collection_get, &a, &to->space.collection, &c, &why);
    for (int i = 0, n = rc ? 0 : index_spaces(&c, all); i < n; i++)
        found |= all[i].space.generation == to->space.generation;
    arena_fini(&a);
    if (rc && why.code != ERR_NOT_FOUND) {
        *e = why;
        return -1;
    }
    return found ? 0 : index_later(b, OUTBOX_drop, to, 0, NULL, e);
}

/* The space that is searched now, into *s; *gone: there is none. */
suspends static int searched(const struct backends *b, struct vector_space *s, bool *gone, struct err *e)
{
    struct arena a = {0};
    struct store_collection c;
    struct err why = {0};
    int rc = STORE_CALL(b->store, collection_get, &a, &s->collection, &c, &why);
    *gone = rc ? why.code == ERR_NOT_FOUND : c.dim == 0;
    if (rc == 0) {
        s->generation = c.generation;
        s->dim = c.dim;
    }
    arena_fini(&a);
    if (rc && *gone)
        return 0;
    if (rc)
        *e = why;
    return rc;
}

suspends int index_alias(const struct backends *b, const struct vector_space *now, bool anew, struct err *e)
{
    struct vector_space s = *now, last;
    bool changed, gone;
    if (!b->vectors->ops->alias)
        return 0;
    do {
        last = s;
        if (VECTORS_CALL(b->vectors, alias, &s, anew, &changed, e))
            return -1;
        if (!changed)
            return 0;
        if (searched(b, &s, &gone, e))
            return -1;
        if (gone) /* with its alias, which came after the drop */
            return index_later(b, OUTBOX_drop, &(struct index_space){.space = last}, 0, NULL, e);
        anew = true;
    } while (s.generation != last.generation || s.dim != last.dim);
    return 0;
}

suspends static int put(const struct backends *b, const struct store_collection *c, const struct index_space *to,
                        const struct store_document *d, const struct index_watch *watch, struct err *e)
{
    struct loaded l = {.dim = to->space.dim};
    struct index_space known = *to;
    int rc = load(b, to->model, d, &l, watch, e);
    if (rc == 0 && l.n && to->space.dim == 0) { /* the first vectors of the collection say how long they are */
        known.space.dim = l.dim;
        rc = STORE_CALL(b->store, collection_set_embedder, &c->id, to->model, l.dim, e);
    }
    if (rc == 0 && l.n && to->space.generation == c->generation) /* before: what has points has an alias */
        rc = index_alias(b, &known.space, false, e);
    if (rc == 0 && l.n) {
        struct vector_document v = {.no = d->no,
                                    .id = d->id,
                                    .content_version = d->indexed_version,
                                    .metadata = d->metadata,
                                    .tags = d->tags,
                                    .n = l.n,
                                    .chunk = l.id,
                                    .v = l.v};
        rc = STORE_CALL(b->store, document_embedded, d->no, e) || VECTORS_CALL(b->vectors, put, &known.space, &v, e) ||
                     still_there(b, &known, e)
                 ? -1
                 : 0;
    } else if (rc == 0 && to->space.dim) {
        rc = VECTORS_CALL(b->vectors, remove, &to->space, &d->no, 1, e);
    }
    free(l.id);
    free(l.v);
    return rc ? -1 : look_again(b, &known, d, e);
}

suspends int index_sync(const struct backends *b, const struct store_collection *c, const struct index_space *to,
                        int64_t document_no, const struct index_watch *watch, struct err *e)
{
    struct arena a = {0};
    struct store_document d;
    int rc = STORE_CALL(b->store, documents_by_no, &a, &document_no, 1, &d, e);
    if (rc == 0 && d.indexed_version > 0)
        rc = put(b, c, to, &d, watch, e);
    else if (rc == 0 && to->space.dim) {
        d.no = document_no;
        rc = VECTORS_CALL(b->vectors, remove, &to->space, &document_no, 1, e);
        rc = rc ? -1 : look_again(b, to, &d, e);
    }
    arena_fini(&a);
    return rc;
}
