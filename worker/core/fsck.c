#include "worker/core/fsck.h"
#include "common/scoreboard.h"
#include "worker/core/outbox.h"
#include "worker/embed/embed.h"
#include "worker/io/json.h"
#include <stdlib.h>

enum { PAGE = 500, COLLECTIONS = 100, DRAIN = 100 };

/* ---- one space ---- */

struct check {
    const struct backends *b;
    const struct store_collection *c;
    const struct index_space *space;
    struct fsck_counts *counts;
    const struct fsck_visit *visit;
    struct arena a; /* ends with each page */
    /* a page of the index */
    struct vector_entry *entry;
    size_t n, i;
    int64_t after;
    bool last;
};

static bool expected(const struct store_document *d)
{
    return d->indexed_version > 0 && d->chunks > 0;
}

/* A job that is under way will bring it. */
static bool on_the_way(const struct store_document *d)
{
    return d->state != DOCUMENT_ready && d->state != DOCUMENT_failed && d->state != DOCUMENT_cancelled;
}

static bool agree(const struct store_document *d, const struct vector_entry *v)
{
    if (!v)
        return !expected(d);
    return expected(d) && v->content_version == d->indexed_version && v->points == d->chunks;
}

/* Both were read at different moments: once more, and together. */
suspends static int confirm(struct check *k, int64_t no, struct err *e)
{
    struct arena a = {0};
    struct store_document d;
    struct vector_entry *v;
    size_t n;
    int rc = STORE_CALL(k->b->store, documents_by_no, &a, &no, 1, &d, e);
    if (rc == 0)
        rc = VECTORS_CALL(k->b->vectors, list, &a, &k->space->space, no - 1, 1, &v, &n, e);
    if (rc == 0) {
        const struct vector_entry *found = n && v->document_no == no ? v : NULL;
        bool wait = d.no && on_the_way(&d) && !(k->visit && k->visit->busy);
        if (!agree(&d, found) && !wait) {
            enum fsck_kind kind = !expected(&d) ? FSCK_ORPHAN : found ? FSCK_MISMATCHED : FSCK_MISSING;
            int64_t *of[] = {&k->counts->missing, &k->counts->orphans, &k->counts->mismatched};
            ++*of[kind];
            rc = k->visit ? k->visit->fn(k->visit->arg, kind, no, e) : 0;
        }
    }
    arena_fini(&a);
    return rc;
}

/* The next entry of the index, NULL at its end. Entries live until the one after the page. */
suspends static int peek(struct check *k, const struct vector_entry **out, struct err *e)
{
    *out = NULL;
    if (k->i == k->n && !k->last) {
        arena_fini(&k->a);
        if (VECTORS_CALL(k->b->vectors, list, &k->a, &k->space->space, k->after, PAGE, &k->entry, &k->n, e))
            return -1;
        k->i = 0;
        k->last = k->n < PAGE;
        if (k->n)
            k->after = k->entry[k->n - 1].document_no;
    }
    if (k->i < k->n)
        *out = &k->entry[k->i];
    return 0;
}

/* Entries below `no` belong to nobody. */
suspends static int orphans_below(struct check *k, int64_t no, struct err *e)
{
    const struct vector_entry *v;
    for (;;) {
        if (peek(k, &v, e))
            return -1;
        if (!v || v->document_no >= no)
            return 0;
        int64_t orphan = v->document_no;
        k->i++;
        if (confirm(k, orphan, e))
            return -1;
    }
}

suspends static int one_document(struct check *k, const struct store_document *d, struct err *e)
{
    const struct vector_entry *v;
    if (orphans_below(k, d->no, e) || peek(k, &v, e))
        return -1;
    const struct vector_entry *mine = v && v->document_no == d->no ? v : NULL;
    bool well = agree(d, mine);
    k->i += mine != NULL;
    k->counts->documents++;
    return well ? 0 : confirm(k, d->no, e);
}

suspends static int documents(struct check *k, const int64_t *nos, size_t n, const struct index_watch *watch,
                              struct err *e)
{
    int rc = 0;
    for (size_t at = 0; at < n && rc == 0; at += PAGE) {
        struct arena a = {0};
        size_t m = n - at < PAGE ? n - at : PAGE;
        struct store_document *d = arena_alloc(&a, m * sizeof *d);
        rc = STORE_CALL(k->b->store, documents_by_no, &a, nos + at, m, d, e);
        for (size_t i = 0; i < m && rc == 0; i++)
            rc = d[i].no ? one_document(k, &d[i], e) : 0;
        if (rc == 0 && watch)
            rc = watch->fn(watch->arg, (int64_t)(at + m), (int64_t)n, e);
        arena_fini(&a);
    }
    return rc ? -1 : orphans_below(k, INT64_MAX, e);
}

suspends int fsck_space(const struct backends *b, const struct store_collection *c, const struct index_space *space,
                        struct fsck_counts *counts, const struct fsck_visit *visit, const struct index_watch *watch,
                        struct err *e)
{
    struct arena a = {0};
    struct check k = {.b = b, .c = c, .space = space, .counts = counts, .visit = visit, .after = -1};
    int64_t *nos;
    size_t n;
    int rc = STORE_CALL(b->store, document_match, &a, &c->id, NULL, NULL, &nos, &n, e);
    counts->spaces++;
    if (rc == 0)
        rc = documents(&k, nos, n, watch, e);
    arena_fini(&k.a);
    arena_fini(&a);
    return rc;
}

/* ---- everything ---- */

struct mend {
    const struct backends *b;
    const struct store_collection *c;
    const struct index_space *space;
    struct fsck_counts *counts;
    struct err first; /* why something could not be mended */
    int64_t last;     /* document that was mended, or 0 */
};

suspends static int mend(void *arg, enum fsck_kind kind, int64_t no, struct err *e)
{
    struct mend *m = arg;
    struct err why = {0};
    (void)kind; /* index_sync() looks for itself */
    if (index_sync(m->b, m->c, m->space, no, NULL, &why) == 0) {
        m->counts->repaired++;
        m->last = no;
        return 0;
    }
    if (!m->first.code)
        m->first = why;
    if (why.code != ERR_CANCELED && why.code != ERR_DEADLINE)
        return 0; /* the next may be mended */
    *e = why;
    return -1;
}

/* Answers that were kept are stale: as after any entry of the outbox. */
suspends static int notice(const struct mend *m, struct err *e)
{
    return m->last ? index_later(m->b, OUTBOX_describe, m->space, m->last, NULL, e) : 0;
}

/* A space that is damaged as a whole. */
suspends static int from_nothing(struct mend *m, const struct fsck_visit *visit, const struct index_watch *watch,
                                 struct err *e)
{
    *e = (struct err){0};
    return VECTORS_CALL(m->b->vectors, drop, &m->space->space, e)
               ? -1
               : fsck_space(m->b, m->c, m->space, m->counts, visit, watch, e);
}

suspends static int collection(const struct backends *b, const struct store_collection *c, bool repair,
                               struct fsck_counts *counts, const struct index_watch *watch, struct err *first,
                               struct err *e)
{
    struct index_space all[INDEX_SPACES];
    int n = index_spaces(c, all), rc = 0;
    for (int i = 0; i < n && rc == 0; i++) {
        if (c->shadow.no == all[i].space.generation && !c->shadow_built)
            continue; /* being built */
        bool fits = b->embedder && str_eq(b->embedder->model, all[i].model);
        if (all[i].space.generation != c->generation && !fits)
            continue; /* of documents that came since it has no vectors, and does not need them */
        struct mend m = {.b = b, .c = c, .space = &all[i], .counts = counts};
        struct fsck_visit visit = {mend, &m, false};
        struct err why = {0};
        rc = fsck_space(b, c, &all[i], counts, repair ? &visit : NULL, watch, &why);
        if (rc && why.code == ERR_CONFLICT) /* nobody can tell what is in it */
            rc = repair ? from_nothing(&m, &visit, watch, &why) : 0;
        if (rc)
            *e = why;
        rc = rc ? -1 : notice(&m, e);
        m.first = m.first.code || rc ? m.first : why;
        if (m.first.code && !first->code)
            *first = m.first;
    }
    return rc;
}

/* A space without points needs no alias. Both may change between two looks: twice, with what is searched then. */
suspends static int misled(const struct backends *b, const struct uuid *id, struct vector_space *s, bool *yes,
                           struct err *e)
{
    bool led = !b->vectors->ops->has_alias;
    int rc = 0;
    for (int i = 0; i < 2 && rc == 0 && !led; i++) {
        struct arena a = {0};
        struct store_collection c;
        struct index_space all[INDEX_SPACES];
        struct vector_entry *v;
        struct err why = {0};
        size_t n = 0;
        rc = STORE_CALL(b->store, collection_get, &a, id, &c, &why);
        if (rc && why.code == ERR_NOT_FOUND) {
            rc = 0;
            led = true;
        } else if (rc == 0 && index_spaces(&c, all) && c.dim) {
            *s = all[0].space;
            rc = VECTORS_CALL(b->vectors, has_alias, s, &led, &why) ||
                         VECTORS_CALL(b->vectors, list, &a, s, -1, 1, &v, &n, &why)
                     ? -1
                     : 0;
        }
        led |= n == 0;
        if (rc)
            *e = why;
        arena_fini(&a);
    }
    *yes = !led;
    return rc;
}

suspends static int check_alias(const struct backends *b, const struct uuid *id, bool repair,
                                struct fsck_counts *counts, struct err *first, struct err *e)
{
    struct vector_space s;
    struct err why = {0};
    bool wrong;
    if (misled(b, id, &s, &wrong, e))
        return -1;
    counts->aliases += wrong;
    if (!wrong || !repair)
        return 0;
    if (index_alias(b, &s, true, &why) == 0)
        counts->repaired++;
    else if (!first->code)
        *first = why;
    return 0;
}

suspends static int drain_all(const struct backends *b, struct err *e)
{
    size_t n;
    do
        if (outbox_drain(b, DRAIN, &n, e))
            return -1;
    while (n == DRAIN);
    return 0;
}

suspends int fsck(const struct backends *b, bool repair, struct fsck_counts *counts, const struct index_watch *watch,
                  struct err *e)
{
    struct store_page page = {.limit = COLLECTIONS, .ascending = true};
    struct err first = {0};
    bool more = true;
    *counts = (struct fsck_counts){0};
    struct err why = {0};
    int rc = drain_all(b, &why);
    if (rc && why.code != ERR_NOT_READY) { /* else the index is away, as will show, or one space of it is damaged */
        *e = why;
        return -1;
    }
    rc = 0;
    while (rc == 0 && more) {
        struct arena a = {0};
        struct store_collection *c;
        size_t n;
        rc = STORE_CALL(b->store, collection_list, &a, &page, &c, &n, &more, e);
        for (size_t i = 0; rc == 0 && i < n; i++)
            rc = collection(b, &c[i], repair, counts, watch, &first, e) ||
                         check_alias(b, &c[i].id, repair, counts, &first, e)
                     ? -1
                     : 0;
        if (rc == 0 && n) {
            page.has_after = true;
            page.after = c[n - 1].id;
        }
        arena_fini(&a);
    }
    if (rc == 0)
        rc = fsck_strays(b, repair, counts, &first, e);
    if (rc == 0 && counts->repaired)
        rc = drain_all(b, e);
    STAT_ADD(fsck_missing_total, (uint64_t)counts->missing);
    STAT_ADD(fsck_orphans_total, (uint64_t)counts->orphans);
    STAT_ADD(fsck_mismatched_total, (uint64_t)counts->mismatched);
    STAT_ADD(fsck_strays_total, (uint64_t)counts->strays);
    STAT_ADD(fsck_repaired_total, (uint64_t)counts->repaired);
    if (rc == 0 && first.code) {
        *e = first;
        return -1;
    }
    return rc;
}

void fsck_result(struct buf *out, const struct fsck_counts *c)
{
    struct json_out j = json_out(out);
    jo_begin(&j, '{');
    jo_member(&j, "spaces"), jo_i64(&j, c->spaces);
    jo_member(&j, "documents"), jo_i64(&j, c->documents);
    jo_member(&j, "missing"), jo_i64(&j, c->missing);
    jo_member(&j, "orphans"), jo_i64(&j, c->orphans);
    jo_member(&j, "mismatched"), jo_i64(&j, c->mismatched);
    jo_member(&j, "aliases"), jo_i64(&j, c->aliases);
    jo_member(&j, "strays"), jo_i64(&j, c->strays);
    jo_member(&j, "repaired"), jo_i64(&j, c->repaired);
    jo_end(&j, '}');
}
