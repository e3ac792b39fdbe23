/* The promises of the vector index, on the test double and on the embedded index. */
#include "tests/unit/vectors.h"
#include <sys/mman.h>
#include <sys/resource.h>

static void it_finds_what_was_put(struct world *w)
{
    struct vector_entry *entry;
    struct vector_hit *hit;
    size_t n;
    struct vector_query q = {.v = vectors_of(&w->a, 1, 1, w->s.dim), .k = 10};
    ok(w, VECTORS_CALL(w->v, check, &w->e));
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 0); /* a space that is not there has no hits */
    same(w, list_all(w, &entry), 0);
    ok(w, put(w, 5, 1, 3));
    ok(w, put(w, 3, 1, 200));
    ok(w, put(w, 9, 4, 0));
    finds(w, 5, 1, 3, 2);
    finds(w, 3, 1, 200, 199);
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 10);
    for (size_t i = 1; i < n; i++)
        must(w, hit[i - 1].score >= hit[i].score);
    same(w, list_all(w, &entry), 3);
    same(w, entry[0].document_no, 3);
    same(w, entry[0].points, 200);
    same(w, entry[2].document_no, 9);
    same(w, entry[2].content_version, 4);
    same(w, entry[2].points, 0);
    ok(w, VECTORS_CALL(w->v, list, &w->a, &w->s, 3, 1, &entry, &n, &w->e));
    same(w, n, 1);
    same(w, entry[0].document_no, 5);
    q.k = 0;
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 0);
}

static void a_document_is_replaced_and_removed_as_a_whole(struct world *w)
{
    struct vector_entry *entry;
    ok(w, put(w, 1, 1, 8));
    ok(w, put(w, 2, 1, 8));
    ok(w, put(w, 1, 2, 4));
    ok(w, put(w, 1, 2, 4)); /* again: nothing changes */
    finds(w, 1, 2, 4, 3);
    same(w, list_all(w, &entry), 2);
    same(w, entry[0].points, 4);
    same(w, entry[0].content_version, 2);
    ok(w, take(w, 1));
    ok(w, take(w, 1));
    ok(w, take(w, 77));
    same(w, list_all(w, &entry), 1);
    same(w, entry[0].document_no, 2);
    int64_t several[] = {9, 2, 2, 5};
    ok(w, VECTORS_CALL(w->v, remove, &w->s, several, 4, &w->e));
    same(w, list_all(w, &entry), 0);
    ok(w, put(w, 1, 3, 1));
    finds(w, 1, 3, 1, 0);
}

static void spaces_are_apart(struct world *w)
{
    struct vector_entry *entry;
    struct vector_space other = w->s;
    other.generation = 2;
    other.dim = 100;
    ok(w, put(w, 1, 1, 2));
    ok(w, put_in(w->v, &w->a, &other, 1, 1, 5, &w->e));
    same(w, list_all(w, &entry), 1);
    same(w, entry[0].points, 2);
    finds(w, 1, 1, 2, 1);
    ok(w, VECTORS_CALL(w->v, drop, &w->s, &w->e));
    ok(w, VECTORS_CALL(w->v, drop, &w->s, &w->e));
    same(w, list_all(w, &entry), 0);
    w->s = other;
    finds(w, 1, 1, 5, 4);
    w->s.dim = 24; /* another dimension is refused by all that would mix them */
    struct vector_hit *hit;
    size_t n;
    struct vector_query q = {.v = vectors_of(&w->a, 1, 1, 24), .k = 1};
    fails(w, ERR_CONFLICT, put(w, 2, 1, 1));
    fails(w, ERR_CONFLICT, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
}

static void only_allowed_documents_are_found(struct world *w)
{
    struct vector_hit *hit;
    size_t n;
    for (int64_t no = 0; no < 100; no++)
        ok(w, put(w, no, 1, 2));
    int64_t allowed[] = {-4, 3, 4, 50, 99, 1000};
    struct vector_query q = {.v = vectors_of(&w->a, 1, 1, w->s.dim), .k = 50, .allowed = allowed, .n_allowed = 6};
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 8);
    for (size_t i = 0; i < n; i++)
        must(w, hit[i].no >> 20 == 3 || hit[i].no >> 20 == 4 || hit[i].no >> 20 == 50 || hit[i].no >> 20 == 99);
    q.n_allowed = 0;
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 0);
}

static void equal_scores_are_ordered_by_number(struct world *w)
{
    struct vector_hit *hit;
    size_t n;
    float *v = vectors_of(&w->a, 1, 1, w->s.dim);
    for (int64_t no = 300; no > 0; no--) {
        struct uuid id = uuid_v7();
        struct vector_document d = {.no = no, .id = id, .content_version = 1, .n = 1, .chunk = &id, .v = v};
        ok(w, VECTORS_CALL(w->v, put, &w->s, &d, &w->e));
    }
    struct vector_query q = {.v = v, .k = 20};
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 20);
    for (size_t i = 0; i < n; i++)
        same(w, hit[i].no >> 20, i + 1);
}

/* Both do the same things in the same order, by chance. */
static void it_does_what_the_double_does(struct world *w)
{
    struct vectors *real = w->v, *twin = vectors_memory_open();
    struct vector_entry *entry[2];
    struct vector_hit *hit[2];
    size_t n[2];
    for (int turn = 0; turn < 1500; turn++) {
        int64_t no = (int64_t)(draw(&w->seed) % 60), version = turn;
        size_t points = draw(&w->seed) % 12;
        bool removes = draw(&w->seed) % 4 == 0;
        struct vector_query q = {.v = vectors_of(&w->a, draw(&w->seed), 1, w->s.dim), .k = 15};
        int64_t allowed[] = {no, no + 7, no + 20};
        if (draw(&w->seed) % 2)
            q.allowed = allowed, q.n_allowed = 3;
        q.by_document = draw(&w->seed) % 2;
        for (int i = 0; i < 2; i++) {
            w->v = i ? twin : real;
            ok(w, removes ? take(w, no) : put(w, no, version, points));
            n[i] = list_all(w, &entry[i]);
        }
        same(w, n[0], n[1]);
        must(w, n[0] == 0 || memcmp(entry[0], entry[1], n[0] * sizeof *entry[0]) == 0);
        for (int i = 0; i < 2; i++)
            ok(w, VECTORS_CALL(i ? twin : real, search, &w->a, &w->s, &q, &hit[i], &n[i], &w->e));
        same(w, n[0], n[1]);
        for (size_t i = 0; i < n[0]; i++) {
            same(w, hit[0][i].no, hit[1][i].no);
            same(w, hit[0][i].content_version, hit[1][i].content_version);
        }
        arena_fini(&w->a);
    }
    w->v = real;
    vectors_close(twin);
}

/* Enough to be compacted several times, and for directories. */
static void it_stays_right_when_it_is_compacted(struct world *w)
{
    struct vector_entry *entry;
    enum { DOCUMENTS = 40, ROUNDS = 8, POINTS = 100 };
    w->s.dim = 384;
    for (int64_t version = 1; version <= ROUNDS; version++)
        for (int64_t no = 0; no < DOCUMENTS; no++) {
            ok(w, put(w, no, version, POINTS));
            arena_fini(&w->a);
        }
    struct stat st;
    must(w, stat(w->path, &st) == 0);
    int64_t once = (int64_t)DOCUMENTS * POINTS * 384 * 5;
    must(w, st.st_size < 3 * once); /* without it: 8 times */
    same(w, list_all(w, &entry), DOCUMENTS);
    for (int64_t no = 0; no < DOCUMENTS; no++)
        finds(w, no, ROUNDS, POINTS, (size_t)(no % POINTS));
}

static void many_small_documents(struct world *w)
{
    struct vector_entry *entry;
    w->s.dim = 8;
    for (int64_t no = 1; no <= 1500; no++)
        ok(w, put(w, no * 3 % 1511, 1, 1));
    for (int64_t no = 1; no <= 1500; no += 2)
        ok(w, take(w, no * 3 % 1511));
    same(w, list_all(w, &entry), 750);
    for (size_t i = 1; i < 750; i++)
        must(w, entry[i - 1].document_no < entry[i].document_no);
}

/* ---- a file that nobody has read yet ---- */

struct searcher {
    struct world *w;
    struct fiber *parent, *self;
    struct arena a;
    struct err e;
    int rc, *left;
    bool over;
};

static void search_beside(void *arg)
{
    struct searcher *x = arg;
    struct vector_hit *hit;
    size_t n;
    struct vector_query q = {.v = vectors_of(&x->a, seed_of(3, 1), 1, x->w->s.dim), .k = 1};
    x->self = fiber_self();
    x->rc = VECTORS_CALL(x->w->v, search, &x->a, &x->w->s, &q, &hit, &n, &x->e);
    if (x->rc == 0 && (n != 1 || hit[0].no != 3 << 20))
        x->rc = -2;
    x->over = true;
    --*x->left;
    fiber_wake(x->parent);
}

static bool waits_for_another(void)
{
    struct buf b = {0};
    fiber_dump(&b);
    bool found = memmem(b.p, b.n, "vector index being read", 23) != NULL;
    buf_fini(&b);
    return found;
}

/* One search reads it, in a helper thread; the others neither scan it on the loop meanwhile, nor read it, too. When the
 * one is given up, the next goes on. */
static void one_search_reads_a_cold_file(struct world *w)
{
    enum { SEARCHERS = 3 };
    w->s.dim = 1024;
    for (int64_t no = 1; no <= 6; no++) { /* of more than one piece */
        ok(w, put(w, no, 1, 700));
        arena_fini(&w->a);
    }
    for (int given_up = 0; given_up < 2; given_up++) {
        struct searcher x[SEARCHERS];
        struct vector_entry *entry;
        int left = SEARCHERS;
        vectors_close(w->v); /* another process sees it for the first time */
        w->v = open_embedded(w);
        same(w, list_all(w, &entry), 6);
        for (int i = 0; i < SEARCHERS; i++) {
            x[i] = (struct searcher){.w = w, .parent = fiber_self(), .left = &left};
            must(w, fiber_spawn("searcher", search_beside, &x[i]));
            must(w, !x[i].over);
            must(w, waits_for_another() == (i > 0));
        }
        if (given_up)
            fiber_cancel(x[0].self);
        while (left > 0)
            must(w, fiber_park("the others") == 0);
        for (int i = 0; i < SEARCHERS; i++) {
            same(w, x[i].rc, given_up && i == 0 ? -1 : 0);
            arena_fini(&x[i].a);
        }
        must(w, !given_up || x[0].e.code == ERR_CANCELED);
        struct searcher again = {.w = w, .parent = fiber_self(), .left = &left};
        must(w, fiber_spawn("searcher", search_beside, &again));
        must(w, !waits_for_another());
        while (!again.over)
            must(w, fiber_park("the search") == 0);
        same(w, again.rc, 0);
        arena_fini(&again.a);
    }
}

/* The kernel takes the pages of the file from memory, as it does when others need it, and reads none ahead. */
static void page_out(struct world *w)
{
    char line[600], *path;
    FILE *f = fopen("/proc/self/maps", "r");
    must(w, f);
    while (fgets(line, sizeof line, f)) {
        unsigned long from, to;
        if (!(path = strchr(line, '/')) || strncmp(path, w->path, strlen(w->path)) != 0 ||
            sscanf(line, "%lx-%lx", &from, &to) != 2)
            continue;
        struct stat st;
        must(w, stat(w->path, &st) == 0);
        size_t n = (size_t)st.st_size < to - from ? (size_t)st.st_size : to - from;
#ifdef MADV_PAGEOUT
        madvise((void *)from, n, MADV_PAGEOUT);
        madvise((void *)from, n, MADV_RANDOM);
#endif
    }
    fclose(f);
}

static int64_t waits_for_the_disk(void)
{
    struct rusage u;
    return getrusage(RUSAGE_THREAD, &u) == 0 ? u.ru_majflt : -1;
}

static void what_was_paged_out_is_not_read_on_the_loop(struct world *w)
{
    enum { DOCUMENTS = 100, POINTS = 64 };
    w->s.dim = 1024;
    for (int64_t no = 1; no <= DOCUMENTS; no++) { /* 32 MB of which 6.5 MB are looked at */
        ok(w, put(w, no, 1, POINTS));
        arena_fini(&w->a);
    }
    finds(w, 3, 1, POINTS, 5);
    for (int i = 0; i < 3; i++) {
        page_out(w);
        int64_t before = waits_for_the_disk();
        finds(w, 3, 1, POINTS, 5);

        must(w, waits_for_the_disk() - before < 200);
    }
}

#define EACH(X)                                      \
    X(it_finds_what_was_put)                         \
    X(a_document_is_replaced_and_removed_as_a_whole) \
    X(spaces_are_apart)                              \
    X(only_allowed_documents_are_found)              \
    X(equal_scores_are_ordered_by_number)            \
    X(the_best_of_each_document)                     \
    X(it_does_what_the_double_does)                  \
    X(it_stays_right_when_it_is_compacted)           \
    X(many_small_documents)                          \
    X(one_search_reads_a_cold_file)                  \
    X(what_was_paged_out_is_not_read_on_the_loop)

#define X(fn)                           \
    static void embedded_##fn(void **s) \
    {                                   \
        (void)s;                        \
        world_run(open_embedded, fn);   \
    }
EACH(X)
#undef X

static void memory_finds(void **s)
{
    (void)s;
    world_run(open_memory, it_finds_what_was_put);
    world_run(open_memory, a_document_is_replaced_and_removed_as_a_whole);
    world_run(open_memory, spaces_are_apart);
    world_run(open_memory, only_allowed_documents_are_found);
    world_run(open_memory, equal_scores_are_ordered_by_number);
}

int main(void)
{
#define X(fn) cmocka_unit_test(embedded_##fn),
    const struct CMUnitTest tests[] = {EACH(X) cmocka_unit_test(memory_finds)};
    log_init(LOG_ERROR, false, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
