#include "worker/core/reindex.h"
#include "worker/core/fsck.h"
#include "worker/embed/embed.h"

enum { ROUNDS = 20, RETRIES = 100 };

struct str reindex_model(const struct backends *b)
{
    return b->embedder ? b->embedder->model : STR("");
}

struct build {
    const struct backends *b;
    const struct store_collection *c;
    const struct index_space *space;
    const struct index_watch *watch;
    int64_t done, total, added; /* documents */
};

/* Whatever the new space lacks, or has of another version, is brought; what it has too much is removed. */
suspends static int bring(void *arg, enum fsck_kind kind, int64_t no, struct err *e)
{
    struct build *k = arg;
    (void)kind;
    if (index_sync(k->b, k->c, k->space, no, NULL, e))
        return -1;
    k->added++;
    k->done += k->done < k->total;
    return k->watch ? k->watch->fn(k->watch->arg, k->done, k->total, e) : 0;
}

/* Round by round, since documents change meanwhile: until a round finds nothing to do. */
suspends static int build(const struct backends *b, const struct store_collection *c, const struct index_space *space,
                          const struct index_watch *watch, struct err *e)
{
    struct build k = {.b = b, .c = c, .space = space, .watch = watch, .total = c->documents};
    struct fsck_visit visit = {bring, &k, true};
    for (int i = 0; i < ROUNDS; i++) {
        struct fsck_counts counts = {0};
        k.added = 0;
        if (fsck_space(b, c, space, &counts, &visit, NULL, e))
            return -1;
        if (k.added == 0)
            return 0;
    }
    return err_set(e, ERR_BUSY, "The documents of the collection change faster than they can be indexed; try again");
}

/* Those that were refused while the collection was of another model. */
suspends static int retry_refused(const struct backends *b, const struct uuid *id, struct err *e)
{
    struct store_document_query q = {
        .collection = *id, .has_state = true, .state = DOCUMENT_failed, .page = {.limit = RETRIES, .ascending = true}};
    bool more = true;
    int rc = 0;
    while (rc == 0 && more) {
        struct arena a = {0};
        struct store_document *d;
        struct store_job j;
        struct err why = {0};
        size_t n;
        rc = STORE_CALL(b->store, document_list, &a, &q, &d, &n, &more, e);
        for (size_t i = 0; rc == 0 && i < n; i++) {
            if (!str_eqz(d[i].error_code, "embedder_mismatch") ||
                STORE_CALL(b->store, job_retry, &a, &d[i].job, &j, &why) == 0)
                continue;
            if (why.code == ERR_CONFLICT || why.code == ERR_NOT_FOUND) /* somebody else did */
                continue;
            *e = why;
            rc = -1;
        }
        if (rc == 0 && n) {
            q.page.has_after = true;
            q.page.after = d[n - 1].id;
        }
        arena_fini(&a);
    }
    return rc;
}

struct differing {
    const struct backends *b;
    const struct index_space *space;
};

suspends static int put_later(void *arg, enum fsck_kind kind, int64_t no, struct err *e)
{
    const struct differing *x = arg;
    (void)kind;
    return index_later(x->b, OUTBOX_put, x->space, no, NULL, e);
}

suspends int reindex_settle(const struct backends *b, const struct store_collection *c, const struct index_space *space,
                            bool compare, struct err *e)
{
    struct differing x = {b, space};
    struct fsck_visit visit = {put_later, &x, true};
    struct fsck_counts counts = {0};
    if (index_alias(b, &space->space, true, e) || (compare && fsck_space(b, c, space, &counts, &visit, NULL, e)))
        return -1;
    return retry_refused(b, &c->id, e);
}

/* The alias follows; when it cannot now, the outbox sees to it, for the flip has been done. */
suspends static int flipped(const struct backends *b, const struct store_collection *c, struct err *e)
{
    struct index_space all[INDEX_SPACES];
    struct err why = {0};
    return index_spaces(c, all) && c->dim && index_alias(b, &all[0].space, true, &why) &&
                   index_later(b, OUTBOX_alias, &all[0], 0, NULL, e)
               ? -1
               : 0;
}

/* That which is kept is the newer one after a rollback: then it is promoted again, and there is none to go back to. */
static bool may_flip(const struct store_collection *c, int64_t generation, bool back)
{
    if (back)
        return generation == c->previous.no && generation < c->generation;
    return generation == c->shadow.no || (generation == c->previous.no && generation > c->generation);
}

/* A try before this one came so far, and its answer was lost. */
static bool is_flipped(const struct store_collection *c, int64_t generation, bool back)
{
    return generation == c->generation && c->embedder.n && (!back || c->previous.no > generation);
}

static int64_t whichever(const struct store_collection *c, bool back)
{
    return back || !c->shadow.no ? c->previous.no : c->shadow.no;
}

suspends int reindex_flip(const struct backends *b, struct arena *a, const struct uuid *id, int64_t generation,
                          bool back, struct store_collection *c, struct err *e)
{
    if (STORE_CALL(b->store, collection_get, a, id, c, e))
        return -1;
    if (generation && is_flipped(c, generation, back))
        return flipped(b, c, e);
    generation = generation ? generation : whichever(c, back);
    if (!generation || !may_flip(c, generation, back))
        return err_set(e, ERR_CONFLICT,
                       back ? "The collection has no such generation to go back to"
                            : "The collection has no such generation to promote");
    return STORE_CALL(b->store, generation_flip, a, id, generation, c, e) ? -1 : flipped(b, c, e);
}

suspends int reindex_collection(const struct backends *b, struct arena *a, const struct uuid *id, bool promote,
                                const struct index_watch *watch, struct store_collection *c, struct err *e)
{
    int dim;
    if (index_ask_dim(b, &dim, e) || STORE_CALL(b->store, shadow_begin, a, id, b->embedder->model, dim, c, e))
        return -1;
    const struct index_space shadow = {
        .space = {.collection = c->id, .collection_no = c->no, .generation = c->shadow.no, .dim = dim},
        .model = c->shadow.embedder};
    int64_t generation = c->shadow.no;
    if (build(b, c, &shadow, watch, e) || STORE_CALL(b->store, shadow_built, id, generation, e))
        return -1;
    if (!promote)
        return STORE_CALL(b->store, collection_get, a, id, c, e);
    return reindex_flip(b, a, id, generation, false, c, e) || retry_refused(b, id, e) ? -1 : 0;
}
