/* What the vector index keeps for nobody: of collections that are gone, when their end did not reach it, or the store is
 * an older one. */
#include "worker/core/fsck.h"
#include "worker/core/outbox.h"

enum { PAGE = 100, DRAIN = 100 };

struct known {
    struct arena *a;
    struct vector_space *space;
    size_t n, room;
};

static void add(struct known *k, const struct vector_space *s)
{
    if (k->n == k->room) {
        size_t room = k->room ? 2 * k->room : 256;
        struct vector_space *more = arena_alloc(k->a, room * sizeof *more);
        if (k->n)
            memcpy(more, k->space, k->n * sizeof *more);
        k->space = more;
        k->room = room;
    }
    k->space[k->n++] = *s;
}

/* All spaces of all collections; each collection at least by its id. */
suspends static int learn(const struct backends *b, struct known *k, struct err *e)
{
    struct store_page page = {.limit = PAGE, .ascending = true};
    for (bool more = true; more;) {
        struct arena a = {0};
        struct store_collection *c;
        size_t n;
        if (STORE_CALL(b->store, collection_list, &a, &page, &c, &n, &more, e))
            return -1;
        for (size_t i = 0; i < n; i++) {
            struct index_space all[INDEX_SPACES];
            add(k, &(struct vector_space){.collection = c[i].id});
            for (int x = 0, spaces = index_spaces(&c[i], all); x < spaces; x++)
                add(k, &all[x].space);
            page.has_after = true;
            page.after = c[i].id;
        }
        arena_fini(&a);
    }
    return 0;
}

static bool same(const struct vector_space *x, const struct vector_space *y)
{
    return uuid_eq(&x->collection, &y->collection) && x->generation == y->generation && x->dim == y->dim;
}

/* A job that ends a collection will take it away. */
suspends static int is_ending(const struct backends *b, const struct uuid *collection, bool *yes, struct err *e)
{
    static const enum job_state under_way[] = {JOB_queued, JOB_running};
    *yes = false;
    for (size_t i = 0; i < sizeof under_way / sizeof *under_way && !*yes; i++) {
        struct arena a = {0};
        struct store_job_query q = {.has_state = true,
                                    .state = under_way[i],
                                    .has_collection = true,
                                    .collection = *collection,
                                    .type = STR(""),
                                    .page = {.limit = 1}};
        struct store_job *j;
        size_t n;
        bool more;
        int rc = STORE_CALL(b->store, job_list, &a, &q, &j, &n, &more, e);
        arena_fini(&a);
        if (rc)
            return -1;
        *yes = n > 0;
    }
    return 0;
}

/* A place that somebody began to need while it was taken away is filled again. */
suspends static int fill_again(const struct backends *b, struct arena *a, const struct vector_space *place,
                               struct err *e)
{
    struct known k = {.a = a};
    if (learn(b, &k, e))
        return -1;
    for (size_t i = 0; i < k.n; i++) {
        struct index_space to = {.space = k.space[i]};
        if (to.space.generation == place->generation && to.space.dim == place->dim &&
            index_later(b, OUTBOX_put, &to, 0, NULL, e))
            return -1;
    }
    return 0;
}

suspends static int take_away(const struct backends *b, struct arena *a, const struct vector_space *s, struct err *e)
{
    if (VECTORS_CALL(b->vectors, drop, s, e))
        return -1;
    return uuid_is_zero(&s->collection) ? fill_again(b, a, s, e) : 0;
}

struct search {
    const struct backends *b;
    bool repair;
    struct fsck_counts *counts;
    struct err *first;
    struct known aside;             /* dealt with */
    struct vector_space last, gone; /* found by the look before; taken away last */
};

/* What is found twice, with a look at the store in between, is no collection that has just been made. */
suspends static int judge(struct search *x, struct arena *a, const struct vector_space *s, struct err *e)
{
    struct err why = {0};
    bool ending;
    size_t n;
    if (!x->repair && uuid_is_zero(&s->collection)) { /* an empty place is no fault */
        add(&x->aside, s);
        return 0;
    }
    if (!same(s, &x->last)) {
        x->last = *s;
        if (is_ending(x->b, &s->collection, &ending, e))
            return -1;
        if (ending)
            add(&x->aside, s);
        else if (outbox_drain(x->b, DRAIN, &n, &why) && why.code != ERR_NOT_READY) { /* as in fsck() */
            *e = why;
            return -1;
        }
        return 0;
    }
    bool again = same(s, &x->gone);
    x->counts->strays += !again;
    if (!again && x->repair && take_away(x->b, a, s, &why) == 0) {
        x->counts->repaired++;
        x->gone = *s;
        return 0;
    }
    if (why.code && !x->first->code)
        *x->first = why;
    add(&x->aside, s);
    return 0;
}

suspends int fsck_strays(const struct backends *b, bool repair, struct fsck_counts *counts, struct err *first,
                         struct err *e)
{
    struct arena all = {0};
    struct search x = {.b = b, .repair = repair, .counts = counts, .first = first, .aside = {.a = &all}};
    bool found = b->vectors->ops->stray != NULL;
    int rc = 0;
    while (rc == 0 && found) {
        struct arena a = {0};
        struct known k = {.a = &a};
        struct vector_space s;
        for (size_t i = 0; i < x.aside.n; i++)
            add(&k, &x.aside.space[i]);
        rc = learn(b, &k, e) || VECTORS_CALL(b->vectors, stray, k.space, k.n, &s, &found, e) ||
                     (found && judge(&x, &a, &s, e))
                 ? -1
                 : 0;
        arena_fini(&a);
    }
    arena_fini(&all);
    return rc;
}
