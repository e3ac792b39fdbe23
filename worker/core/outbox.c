#include "worker/core/outbox.h"
#include "common/clock.h"
#include "common/scoreboard.h"
#include "worker/core/reindex.h"

#define LEASE_US (30 * 1000000LL) /* of an entry; also the pause before it is tried again */
#define PROBE_NS (5 * SEC)        /* between two looks whether it is over */
enum { HASTEN_MAX = 4096 };

struct drain {
    const struct backends *b;
    struct arena *a;
    const struct store_outbox *rows;
    size_t n;
    int64_t *done; /* numbers of entries that need nothing more */
    size_t n_done;
    bool stuck; /* the index or the embedder is away, or full */
};

static struct vector_space space_of(const struct store_outbox *o)
{
    return (struct vector_space){
        .collection = o->collection, .collection_no = o->collection_no, .generation = o->generation, .dim = o->dim};
}

static bool same_space(const struct store_outbox *x, const struct store_outbox *y)
{
    return x->collection_no == y->collection_no && x->generation == y->generation;
}

/* The entries from `at` on that remove documents of one space. */
static size_t run_of_removals(const struct drain *d, size_t at)
{
    size_t end = at;
    while (end < d->n && d->rows[end].kind == OUTBOX_remove && same_space(&d->rows[end], &d->rows[at]))
        end++;
    return end;
}

/* What is not in the store is removed from the index. What is there was indexed again meanwhile: its job puts it. */
suspends static int remove_gone(struct drain *d, size_t from, size_t to, struct err *e)
{
    size_t n = to - from, gone = 0;
    int64_t *nos = arena_alloc(d->a, n * sizeof *nos);
    struct store_document *now = arena_alloc(d->a, n * sizeof *now);
    struct vector_space space = space_of(&d->rows[from]);
    for (size_t i = 0; i < n; i++)
        nos[i] = d->rows[from + i].document_no;
    if (STORE_CALL(d->b->store, documents_by_no, d->a, nos, n, now, e))
        return -1;
    for (size_t i = 0; i < n; i++)
        if (now[i].indexed_version == 0)
            nos[gone++] = nos[i];
    if (gone && VECTORS_CALL(d->b->vectors, remove, &space, nos, gone, e))
        return -1;
    /* One that came back between the look and the removal: it lost its points. */
    if (gone && STORE_CALL(d->b->store, documents_by_no, d->a, nos, gone, now, e))
        return -1;
    for (size_t i = 0; i < gone; i++) {
        struct store_outbox again = d->rows[from];
        again.kind = OUTBOX_put;
        again.document_no = now[i].no;
        again.document = now[i].id;
        if (now[i].indexed_version > 0 && STORE_CALL(d->b->store, outbox_add, &again, 1, e))
            return -1;
    }
    return 0;
}

suspends static int describe(struct drain *d, const struct index_space *to, const struct store_outbox *o, struct err *e)
{
    struct store_document now;
    if (STORE_CALL(d->b->store, documents_by_no, d->a, &o->document_no, 1, &now, e))
        return -1;
    if (now.indexed_version == 0)
        return 0; /* its removal is another entry */
    struct vector_document v = {
        .no = now.no, .id = now.id, .content_version = now.indexed_version, .metadata = now.metadata, .tags = now.tags};
    return VECTORS_CALL(d->b->vectors, describe, &to->space, &v, e);
}

/* A job may have put points into it after it was dropped. */
suspends static int drop_again(struct drain *d, const struct store_outbox *o, struct err *e)
{
    struct vector_space space = space_of(o);
    return o->kind == OUTBOX_put ? VECTORS_CALL(d->b->vectors, drop, &space, e) : 0;
}

/* A document, or, after a flip, all of them. A space that is not searched any more is of no interest as a whole. */
suspends static int bring_into(struct drain *d, const struct store_collection *c, const struct index_space *to,
                               const struct store_outbox *o, struct err *e)
{
    if (o->document_no == 0)
        return to->space.generation == c->generation ? reindex_settle(d->b, c, to, o->kind == OUTBOX_put, e) : 0;
    return o->kind == OUTBOX_describe ? describe(d, to, o, e) : index_sync(d->b, c, to, o->document_no, NULL, e);
}

/* Describes or puts, if the space is still one of the collection's. */
suspends static int bring(struct drain *d, const struct store_outbox *o, struct err *e)
{
    struct store_collection c;
    struct index_space all[INDEX_SPACES];
    struct err why = {0};
    if (STORE_CALL(d->b->store, collection_get, d->a, &o->collection, &c, &why)) {
        if (why.code == ERR_NOT_FOUND)
            return drop_again(d, o, e);
        *e = why;
        return -1;
    }
    for (int i = 0, n = index_spaces(&c, all); i < n; i++) {
        if (all[i].space.generation != o->generation)
            continue;
        int rc = bring_into(d, &c, &all[i], o, &why);
        if (rc && why.code == ERR_CONFLICT && o->generation == c.previous.no)
            return 0; /* going back to it puts the document */
        if (rc)
            *e = why;
        return rc;
    }
    return drop_again(d, o, e);
}

/* A flip has been done, and the alias did not follow. */
suspends static int alias(struct drain *d, const struct store_outbox *o, struct err *e)
{
    struct store_collection c;
    struct index_space all[INDEX_SPACES];
    struct err why = {0};
    if (STORE_CALL(d->b->store, collection_get, d->a, &o->collection, &c, &why)) {
        if (why.code == ERR_NOT_FOUND)
            return 0;
        *e = why;
        return -1;
    }
    return index_spaces(&c, all) && c.dim ? index_alias(d->b, &all[0].space, true, e) : 0;
}

suspends static int work_on(struct drain *d, size_t from, size_t to, struct err *e)
{
    const struct store_outbox *o = &d->rows[from];
    struct vector_space space = space_of(o);
    switch (o->kind) {
    case OUTBOX_remove: return remove_gone(d, from, to, e);
    case OUTBOX_drop: return VECTORS_CALL(d->b->vectors, drop, &space, e);
    case OUTBOX_alias: return alias(d, o, e);
    default: return bring(d, o, e);
    }
}

/* Works on all entries that were taken; an error is the first one met. */
suspends static int work(struct drain *d, struct err *e)
{
    int failed = 0;
    for (size_t at = 0, next; at < d->n; at = next) {
        next = run_of_removals(d, at);
        next = next > at ? next : at + 1;
        struct err its = {0};
        if (work_on(d, at, next, &its)) {
            STAT_ADD(outbox_failed_total, next - at);
            if (its.code == ERR_CONFLICT)
                continue; /* it waits for the embedder of its space: nothing is wrong with the index */
            if (!failed)
                *e = its;
            failed = -1;
            d->stuck |= its.code != ERR_PROVIDER && its.code != ERR_VALIDATION && its.code != ERR_INTERNAL;
            if (its.code == ERR_CANCELED)
                break;
            continue; /* others may be about something else */
        }
        for (size_t i = at; i < next; i++)
            d->done[d->n_done++] = d->rows[i].no;
    }
    return failed;
}

suspends static int drain(const struct backends *b, int max, size_t *n, bool *stuck, struct err *e)
{
    struct arena a = {0};
    struct store_outbox *rows;
    struct err why = {0};
    *stuck = false;
    if (STORE_CALL(b->store, outbox_take, &a, LEASE_US, max, &rows, n, e)) {
        arena_fini(&a);
        return -1;
    }
    struct drain d = {.b = b, .a = &a, .rows = rows, .n = *n};
    d.done = arena_alloc(&a, (*n + 1) * sizeof *d.done);
    int failed = work(&d, &why);
    *stuck = d.stuck;
    STAT_ADD(outbox_done_total, d.n_done);
    int rc = STORE_CALL(b->store, outbox_done, d.done, d.n_done, e);
    arena_fini(&a);
    if (rc == 0 && failed && e)
        *e = why;
    return rc ? -1 : failed;
}

suspends int outbox_drain(const struct backends *b, int max, size_t *n, struct err *e)
{
    bool stuck;
    return drain(b, max, n, &stuck, e);
}

/* One entry is enough to see whether it is over; then ever more, as long as they succeed. */
suspends static int hasten(const struct backends *b, struct outbox_pace *pace, struct err *e)
{
    int64_t n;
    int width = pace->width > 0 ? pace->width : 1;
    if (STORE_CALL(b->store, outbox_hasten, LEASE_US, width, &n, e))
        return -1;
    pace->over = n < width;
    pace->width = 2 * width < HASTEN_MAX ? 2 * width : HASTEN_MAX;
    pace->next_ns = clock_ns() + PROBE_NS;
    return 0;
}

suspends int outbox_tend(const struct backends *b, struct outbox_pace *pace, int max, size_t *n, struct err *e)
{
    bool stuck;
    int rc = drain(b, max, n, &stuck, e);
    if (stuck)
        *pace = (struct outbox_pace){.next_ns = clock_ns() + PROBE_NS};
    else if (rc == 0 && !pace->over && (*n > 0 || clock_ns() >= pace->next_ns))
        rc = hasten(b, pace, e);
    return rc;
}
