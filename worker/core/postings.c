#include "worker/core/postings.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/list.h"
#include "worker/core/retrieve_private.h"
#include <stdlib.h>

enum {
    BUCKETS = 4096,
    FROM_STORE = 8,     /* searches after a change that ask the store: lists pay only where others follow */
    SHARE_MAX = 4,      /* a list takes at most this part of all bytes */
    YIELD_EVERY = 8192, /* candidates */
    TOO_LONG = -1,
    LOADING = -2 /* by one search; the others ask the store meanwhile */
};

/* Each chunk takes three numbers, seven bits a byte, the lowest first: how far its number lies behind that of the one
 * before, the frequency of the term, and the chunk's length. */
struct posting_list {
    struct list link;          /* the one used last comes first */
    struct posting_list *next; /* of its bucket */
    size_t bucket, size;
    int64_t collection, revision;
    int64_t count; /* of chunks, or TOO_LONG or LOADING; without a term: of searches since the collection changed */
    int64_t made_ns;
    int refs;         /* searches, and the table */
    struct str term;  /* empty: the collection itself */
    struct str bytes; /* both stand behind this struct */
};

struct postings {
    struct posting_list *buckets[BUCKETS];
    struct list used;
    size_t size, max;
    int64_t still_ns;
};

struct postings *postings_new(int64_t max_bytes, int64_t still_ns)
{
    if (max_bytes == 0)
        return NULL;
    struct postings *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    list_init(&p->used);
    p->max = (size_t)max_bytes;
    p->still_ns = still_ns;
    return p;
}

/* ---- the table ---- */

static size_t bucket_of(int64_t collection, struct str term)
{
    uint64_t h = 0xcbf29ce484222325u ^ (uint64_t)collection;
    for (size_t i = 0; i < term.n; i++)
        h = (h ^ (unsigned char)term.p[i]) * 0x100000001b3u;
    return (h ^ h >> 32) % BUCKETS;
}

static void release(void *list)
{
    struct posting_list *l = list;
    if (--l->refs == 0)
        free(l);
}

static void drop(struct postings *p, struct posting_list *l)
{
    struct posting_list **at = &p->buckets[l->bucket];
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    list_del(&l->link);
    p->size -= l->size;
    release(l);
}

/* NULL: it has none of this revision. */
static struct posting_list *find(struct postings *p, const struct store_collection *c, struct str term)
{
    struct posting_list *l = p->buckets[bucket_of(c->no, term)];
    while (l && (l->collection != c->no || !str_eq(l->term, term)))
        l = l->next;
    if (!l)
        return NULL;
    if (l->revision != c->revision) {
        drop(p, l);
        return NULL;
    }
    list_del(&l->link);
    list_add(&p->used, &l->link);
    return l;
}

static struct posting_list *add(struct postings *p, const struct store_collection *c, struct str term, struct str bytes,
                                int64_t count)
{
    size_t size = sizeof(struct posting_list) + term.n + bytes.n;
    struct posting_list *l = malloc(size);
    if (!l)
        abort();
    char *behind = (char *)(l + 1);
    memcpy(behind, term.p, term.n);
    if (bytes.n)
        memcpy(behind + term.n, bytes.p, bytes.n);
    *l = (struct posting_list){.bucket = bucket_of(c->no, term),
                               .size = size,
                               .collection = c->no,
                               .revision = c->revision,
                               .count = count,
                               .made_ns = clock_ns(),
                               .refs = 1,
                               .term = {behind, term.n},
                               .bytes = {behind + term.n, bytes.n}};
    l->next = p->buckets[l->bucket];
    p->buckets[l->bucket] = l;
    list_add(&p->used, &l->link);
    p->size += size;
    return l;
}

static void make_room(struct postings *p)
{
    while (p->size > p->max)
        drop(p, list_entry(p->used.prev, struct posting_list, link));
}

void postings_free(struct postings *p)
{
    if (!p)
        return;
    p->max = 0;
    make_room(p);
    free(p);
}

/* ---- making lists ---- */

static void put(struct buf *b, uint64_t v)
{
    for (; v > 0x7f; v >>= 7)
        buf_ch(b, (char)(v | 0x80));
    buf_ch(b, (char)v);
}

static void encode(struct buf *b, const struct store_candidates *found)
{
    int64_t last = 0;
    for (size_t i = 0; i < found->n; i++) {
        const struct store_candidate *c = store_candidate_at(found, i);
        put(b, (uint64_t)(c->no - last));
        put(b, c->tf[0]);
        put(b, (uint64_t)c->length);
        last = c->no;
    }
}

suspends static int load(struct postings *p, struct store *s, const struct store_collection *c, struct str term,
                         size_t max, struct posting_list **out, struct err *e)
{
    struct arena a = {0};
    struct buf b = {0};
    struct store_candidates found;
    add(p, c, term, STR(""), LOADING);
    int rc = STORE_CALL(s, search_candidates, &a, c, &term, NULL, 1, max, &found, e);
    struct posting_list *mark = find(p, c, term);
    if (mark)
        drop(p, mark);
    if (rc == 0) {
        bool fits = !found.truncated;
        if (fits)
            encode(&b, &found);
        fits = fits && b.n <= p->max / SHARE_MAX;
        *out = add(p, c, term, fits ? buf_view(&b) : (struct str){0}, fits ? (int64_t)found.n : TOO_LONG);
    }
    buf_fini(&b);
    arena_fini(&a);
    return rc;
}

static bool wanted(struct postings *p, const struct store_collection *c)
{
    struct posting_list *l = find(p, c, STR(""));
    if (!l)
        l = add(p, c, STR(""), STR(""), 0);
    bool pays = l->count++ >= FROM_STORE && clock_ns() - l->made_ns >= p->still_ns;
    make_room(p);
    return pays;
}

suspends int postings_get(struct postings *p, struct store *s, struct arena *a, const struct store_collection *c,
                          const struct str *terms, size_t n, size_t max, const struct posting_list ***lists,
                          struct err *e)
{
    const struct posting_list **found = arena_alloc(a, (n + 1) * sizeof *found);
    *lists = NULL;
    if (!p || !wanted(p, c))
        return 0;
    for (size_t i = 0; i < n; i++) {
        struct posting_list *l = find(p, c, terms[i]);
        if (!l && load(p, s, c, terms[i], max, &l, e))
            return -1;
        l->refs++;
        found[i] = arena_own(a, l, release);
        make_room(p);
        if (l->count < 0)
            return 0;
    }
    *lists = found;
    return 0;
}

int64_t posting_count(const struct posting_list *l)
{
    return l->count;
}

/* ---- reading them ---- */

struct cursor {
    const unsigned char *at, *end;
    int64_t no; /* INT64_MAX: there are no more */
    int32_t length;
    uint16_t tf;
};

static inline uint64_t take(struct cursor *x)
{
    uint64_t v = *x->at & 0x7f;
    for (int shift = 7; *x->at++ & 0x80; shift += 7)
        v |= (uint64_t)(*x->at & 0x7f) << shift;
    return v;
}

static inline void advance(struct cursor *x)
{
    if (x->at == x->end) {
        x->no = INT64_MAX;
        return;
    }
    x->no += (int64_t)take(x);
    x->tf = (uint16_t)take(x);
    x->length = (int32_t)take(x);
}

suspends int postings_merge(const struct posting_list *const *lists, const bool *optional, size_t n, size_t max,
                            struct arena *a, struct store_candidates *out, struct err *e)
{
    struct cursor *x = arena_zalloc(a, (n + 1) * sizeof *x);
    struct store_candidates c = {.stride = store_candidate_stride(n)};
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        x[i].at = (const unsigned char *)lists[i]->bytes.p;
        x[i].end = x[i].at + lists[i]->bytes.n;
        advance(&x[i]);
        most += optional && optional[i] ? 0 : (size_t)lists[i]->count;
    }
    c.entries = malloc((most < max ? most : max) * c.stride + 1);
    if (!c.entries)
        abort();
    arena_own(a, c.entries, free);
    for (;;) {
        int64_t no = INT64_MAX;
        for (size_t i = 0; i < n; i++)
            if (x[i].no < no && !(optional && optional[i]))
                no = x[i].no;
        c.truncated = no != INT64_MAX && c.n == max;
        if (no == INT64_MAX || c.truncated)
            break;
        struct store_candidate *hit = store_candidate_at(&c, c.n);
        hit->no = no;
        for (size_t i = 0; i < n; i++) {
            while (x[i].no < no) /* an optional one */
                advance(&x[i]);
            hit->tf[i] = 0;
            if (x[i].no != no)
                continue;
            hit->tf[i] = x[i].tf;
            hit->length = x[i].length;
            advance(&x[i]);
        }
        if (++c.n % YIELD_EVERY == 0 && search_breathe(e))
            return -1;
    }
    *out = c;
    return 0;
}
