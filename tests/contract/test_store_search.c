/* The lexical index: candidates with length and frequencies, per collection, and the chunks behind them. */
#include "tests/contract/contract.h"

static struct store_candidates search(struct world *w, const struct store_collection *c, const char *words, size_t max)
{
    struct str terms[16], rest = str_of(words);
    struct store_candidates hits;
    size_t n = 0;
    while (rest.n)
        terms[n++] = str_cut(&rest, ' ');
    ok(w, GET(w, search_candidates, c, terms, NULL, n, max, &hits));
    for (size_t i = 1; i < hits.n; i++)
        must(w, store_candidate_at(&hits, i - 1)->no < store_candidate_at(&hits, i)->no);
    return hits;
}

static void frequencies(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a"), b = a_document(w, &c, "b");
    index_document(w, &a.id, (const char *[]){"red red green", "blue", "green"}, 3);
    index_document(w, &b.id, (const char *[]){"red blue", "black"}, 2);
    struct store_candidates hits = search(w, &c, "red green", 100);
    must(w, !hits.truncated);
    same(w, hits.n, 3);
    struct store_candidate *h = store_candidate_at(&hits, 0);
    same(w, h->no, a.no << 20);
    same(w, h->length, 3);
    same(w, h->tf[0], 2);
    same(w, h->tf[1], 1);
    h = store_candidate_at(&hits, 1);
    same(w, h->no, a.no << 20 | 2);
    same(w, h->length, 1);
    same(w, h->tf[0], 0);
    same(w, h->tf[1], 1);
    h = store_candidate_at(&hits, 2);
    same(w, h->no, b.no << 20);
    same(w, h->tf[0], 1);
    same(w, h->tf[1], 0);
    same(w, search(w, &c, "re", 100).n, 0); /* whole terms */
    same(w, search(w, &c, "nothing", 100).n, 0);
    same(w, search(w, &c, "", 100).n, 0);
    hits = search(w, &c, "red green blue black", 2);
    same(w, hits.n, 2);
    must(w, hits.truncated);
    hits = search(w, &c, "red green blue black", 5);
    same(w, hits.n, 5);
    must(w, !hits.truncated);
}

static void optional_terms(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = a_document(w, &c, "a"), b = a_document(w, &c, "b");
    index_document(w, &a.id, (const char *[]){"red the the", "the", "blue the"}, 3);
    index_document(w, &b.id, (const char *[]){"green \"the\" of red", "of blue"}, 2);
    const struct str terms[] = {STR("the"), STR("red"), STR("of"), STR("green")};
    const bool optional[] = {true, false, true, false};
    struct store_candidates hits;
    ok(w, GET(w, search_candidates, &c, terms, optional, 4, 100, &hits));
    size_t found = 0;
    for (size_t i = 0; i < hits.n; i++) {
        struct store_candidate *h = store_candidate_at(&hits, i);
        if (!h->tf[1] && !h->tf[3])
            continue; /* it may be left out, and need not */
        found++;
        same(w, h->no, h->tf[3] ? b.no << 20 : a.no << 20);
        same(w, h->tf[0], h->tf[3] ? 0 : 2);
        same(w, h->tf[1], 1);
        same(w, h->tf[2], h->tf[3] ? 1 : 0);
        same(w, h->length, h->tf[3] ? 4 : 3);
    }
    same(w, found, 2);
}

static void counts_of_terms(struct world *w)
{
    struct store_collection c = a_collection(w, "c"), other = a_collection(w, "other");
    struct store_document a = a_document(w, &c, "a"), b = a_document(w, &c, "b"), o = a_document(w, &other, "o");
    const struct str terms[] = {STR("red"), STR("blue"), STR("none")};
    int64_t n[3];
    bool known;
    if (!w->s->ops->search_counts)
        return;
    index_document(w, &a.id, (const char *[]){"red red", "blue", "red blue"}, 3);
    index_document(w, &b.id, (const char *[]){"red"}, 1);
    index_document(w, &o.id, (const char *[]){"red blue none"}, 1);
    ok(w, DO(w, search_counts, &c, terms, 3, n, &known));
    must(w, known && n[0] == 3 && n[1] == 2 && n[2] == 0);
    ok(w, DO(w, document_delete, &b.id, 0));
    ok(w, DO(w, search_counts, &c, terms, 3, n, &known));
    must(w, !known || (n[0] == 2 && n[1] == 2)); /* not known until its chunks are gone */
    behind_its_back(w, "INSERT INTO hidden_chunks VALUES (1000)", "");
    ok(w, DO(w, search_counts, &c, terms, 3, n, &known));
    must(w, !known);
}

static void collections_apart(struct world *w)
{
    struct store_collection c[12];
    struct store_document d[12];
    for (int i = 0; i < 12; i++) { /* so that the number of one begins like that of another */
        c[i] = a_collection(w, arena_printf(&w->a, "c%d", i).p);
        d[i] = a_document(w, &c[i], "x");
        index_document(w, &d[i].id, (const char *[]){"word 1 2 11"}, 1);
    }
    for (int i = 0; i < 12; i++) {
        struct store_candidates hits = search(w, &c[i], "word 1 11", 100);
        same(w, hits.n, 1);
        same(w, store_candidate_at(&hits, 0)->no >> 20, d[i].no);
        same(w, store_candidate_at(&hits, 0)->tf[0], 1);
        same(w, store_candidate_at(&hits, 0)->tf[1], 1);
        same(w, store_candidate_at(&hits, 0)->length, 4);
    }
}

/* Terms are bytes without a space; nothing in them is syntax. */
static void odd_terms(struct world *w)
{
    static const char *const odd[] = {"and", "or",  "not", "NEAR",         "\"",       "a\"b", "*",     "a*",   "(",
                                      "'",   "a'b", "^x",  "-x",           "a:b",      "body", "\\",    "a\\b", "&",
                                      "|",   "!",   "<->", "\xe6\x97\xa5", "\xc3\xa9", ":*",   "a\\'b", "--",   "%",
                                      "$1",  "?",   ";",   "{a}",          "1.5"};
    enum { ODD = sizeof odd / sizeof *odd };
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "x");
    const char **chunks = arena_alloc(&w->a, ODD * sizeof *chunks);
    for (int i = 0; i < ODD; i++)
        chunks[i] = arena_printf(&w->a, "first %s last", odd[i]).p;
    index_document(w, &d.id, chunks, ODD);
    for (int i = 0; i < ODD; i++) {
        struct store_candidates hits = search(w, &c, odd[i], 100);
        if (hits.n != 1 || store_candidate_at(&hits, 0)->no != (d.no << 20 | i) ||
            store_candidate_at(&hits, 0)->tf[0] != 1)
            fail_at(w, __LINE__, "'%s' finds %zu", odd[i], hits.n);
        same(w, store_candidate_at(&hits, 0)->length, 3);
    }
    char longest[65];
    memset(longest, 'w', 64);
    longest[64] = 0;
    struct store_document e = a_document(w, &c, "y");
    index_document(w, &e.id, (const char *[]){longest}, 1);
    same(w, search(w, &c, longest, 100).n, 1);
}

/* Around the places where a length takes one byte more. */
static void lengths(struct world *w)
{
    static const int n[] = {1, 127, 128, 300, 16383, 16384, 20000};
    struct store_collection c = a_collection(w, "c");
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        struct store_document d = a_document(w, &c, arena_printf(&w->a, "d%zu", i).p);
        struct buf b = {0};
        for (int k = 0; k < n[i]; k++)
            buf_printf(&b, "%sw%d", k ? " " : "", k % 100);
        const char *text = arena_dup(&w->a, buf_view(&b)).p;
        index_document(w, &d.id, (const char *[]){text}, 1);
        buf_fini(&b);
    }
    struct store_candidates hits = search(w, &c, "w0", 100);
    same(w, hits.n, sizeof n / sizeof *n);
    for (size_t i = 0; i < hits.n; i++)
        same(w, store_candidate_at(&hits, i)->length, n[i]);
}

static void many_chunks(struct world *w)
{
    enum { MANY = 20000 };
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "x");
    const char **chunks = arena_alloc(&w->a, MANY * sizeof *chunks);
    for (int i = 0; i < MANY; i++)
        chunks[i] = i % 1000 == 0 ? "common rare" : i % 3 == 0 ? "common common" : "other";
    index_document(w, &d.id, chunks, MANY);
    struct store_candidates hits = search(w, &c, "rare common", MANY);
    int expect = 0;
    for (int i = 0; i < MANY; i++)
        expect += i % 1000 == 0 || i % 3 == 0;
    same(w, hits.n, expect);
    for (size_t i = 0; i < hits.n; i++) {
        struct store_candidate *h = store_candidate_at(&hits, i);
        int ordinal = (int)(h->no & 0xfffff);
        same(w, h->tf[0], ordinal % 1000 == 0);
        same(w, h->tf[1], ordinal % 1000 == 0 ? 1 : 2);
    }
    same(w, search(w, &c, "common", 6000).n, 6000);
    ok(w, DO(w, document_delete, &d.id, 0));
    same(w, search(w, &c, "common", MANY).n, 0);
}

static const char **words(struct world *w, const char *format, int n)
{
    const char **out = arena_alloc(&w->a, (size_t)n * sizeof *out);
    for (int i = 0; i < n; i++)
        out[i] = arena_printf(&w->a, "%s w%d", format, i).p;
    return out;
}

/* A long document is found whole or not at all, whatever it was before, and the counts agree. */
static void long_documents(struct world *w)
{
    static const int sizes[] = {3, 2700, 1900, 1, 1001, 1000, 0};
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "x"), other = a_document(w, &c, "y");
    struct store_chunk *k;
    struct store_job job;
    size_t n;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (i > 0)
            ok(w, GET(w, document_reprocess, &d.id, &job));
        else
            ok(w, GET(w, job_cancel, &other.job, &job));
        index_document(w, &d.id, words(w, i % 2 ? "odd" : "even", sizes[i]), (size_t)sizes[i]);
        same(w, search(w, &c, i % 2 ? "odd" : "even", 10000).n, sizes[i]);
        same(w, search(w, &c, i % 2 ? "even" : "odd", 10000).n, 0);
        same(w, document_of(w, &d.id).chunks, sizes[i]);
        same(w, collection_of(w, &c.id).chunks, sizes[i]);
        same(w, collection_of(w, &c.id).tokens, 2 * sizes[i]);
        ok(w, GET(w, document_chunks, &d.id, 0, 5000, &k, &n));
        same(w, n, sizes[i]);
    }
}

/* A term more often than a frequency can say: it saturates. */
static void saturation(struct world *w)
{
    enum { TIMES = 70000 };
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "x");
    char *text = arena_alloc(&w->a, 2 * TIMES);
    for (int i = 0; i < TIMES; i++)
        memcpy(text + 2 * i, "a ", 2);
    text[2 * TIMES - 1] = 0;
    index_document(w, &d.id, (const char *[]){text}, 1);
    struct store_candidates hits = search(w, &c, "a", 10);
    same(w, hits.n, 1);
    must(w, store_candidate_at(&hits, 0)->tf[0] >= 255); /* PostgreSQL keeps no more positions than that of a word */
}

static void fetch(struct world *w)
{
    struct store_collection c = a_collection(w, "c"), doomed = a_collection(w, "doomed");
    struct store_document a = a_document(w, &c, "a"), b = a_document(w, &c, "b"), x = a_document(w, &doomed, "x");
    struct store_chunk k[6];
    struct store_document d[6];
    struct store_job job;
    index_document(w, &a.id, (const char *[]){"a0", "a1"}, 2);
    index_document(w, &b.id, (const char *[]){"b0"}, 1);
    index_document(w, &x.id, (const char *[]){"x0"}, 1);
    int64_t nos[6] = {b.no << 20, a.no << 20 | 1, a.no << 20, a.no << 20 | 2, x.no << 20, a.no << 20 | 1};
    ok(w, GET(w, search_fetch, nos, 6, k, d));
    same_str(w, k[0].text, "b0");
    same_id(w, d[0].id, b.id);
    same_str(w, k[1].text, "a1");
    same_id(w, d[1].id, a.id);
    same_id(w, k[1].document, a.id);
    same(w, k[1].ordinal, 1);
    same_str(w, k[2].text, "a0");
    same(w, k[3].no, 0);
    same_str(w, k[4].text, "x0");
    same_id(w, k[5].id, k[1].id);
    ok(w, GET(w, collection_delete, &doomed.id, 0, &job));
    ok(w, DO(w, document_delete, &b.id, 0));
    ok(w, GET(w, search_fetch, nos, 6, k, d));
    same(w, k[0].no, 0);
    same(w, k[4].no, 0);
    same_str(w, k[5].text, "a1");
    ok(w, GET(w, search_fetch, nos, 0, k, d));
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(frequencies), TEST(optional_terms), TEST(counts_of_terms), TEST(collections_apart), TEST(odd_terms),
        TEST(lengths),     TEST(many_chunks),    TEST(saturation),      TEST(long_documents),    TEST(fetch)};
    return contract_main("store search", tests, sizeof tests / sizeof *tests, argc, argv);
}
