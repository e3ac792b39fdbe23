/* Retrieval on real stores, against a scorer written for the test: it reads every chunk, counts words by itself and knows
 * nothing of indexes, candidates or heaps. Both products must give what it gives, so they also agree with each other. */
#include "tests/contract/contract.h"
#include "worker/core/analyze.h"
#include "worker/core/postings.h"
#include "worker/core/retrieve.h"
#include "worker/jobs/jobs.h"
#include "worker/kinds.h"
#include <math.h>

enum { CHUNKS_MAX = 2000 };

/* ---- a corpus: words by a fixed sequence of numbers, some frequent, most rare ---- */

static const char *const words[] = {"harbour",      "tide",    "crane",  "pilot", "mooring", "ferry",
                                    "running",      "signal",  "buoy",   "chart", "Schiff",  "Größe",
                                    "東京港の水深", "café",    "dock's", "don't", "winch",   "anchor",
                                    "engineer",     "quay 17", "sluice", "x2000", "tariff",  "customs"};

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1103515245 + 12345;
    return *seed >> 16;
}

static struct str some_text(struct world *w, unsigned seed)
{
    struct buf b = {0};
    unsigned paragraphs = 1 + next_random(&seed) % 6;
    for (unsigned p = 0; p < paragraphs; p++) {
        unsigned n = 5 + next_random(&seed) % 60;
        for (unsigned i = 0; i < n; i++) {
            unsigned r = next_random(&seed) % 100; /* low numbers are frequent */
            buf_str(&b, str_of(words[r * r / 100 * 24 / 100]));
            buf_str(&b, i % 9 == 8 ? STR(". The ") : STR(" "));
        }
        buf_lit(&b, ".\n\n");
    }
    struct str text = arena_dup(&w->a, buf_view(&b));
    buf_fini(&b);
    return text;
}

static struct store_collection new_collection(struct world *w, const char *name, const char *language)
{
    struct store_collection in = {.name = str_of(name),
                                  .language = str_of(language),
                                  .metadata = STR("{}"),
                                  .chunking = STR("{\"type\":\"structure\",\"max_tokens\":40,\"overlap\":8}")},
                            out;
    ok(w, GET(w, collection_create, &in, &out));
    return out;
}

static void fill(struct world *w, const struct store_collection *c, int n, unsigned seed)
{
    for (int i = 0; i < n; i++) {
        struct store_document_new in = new_document(c, "");
        struct store_document out;
        enum store_created what;
        struct store_job job;
        in.inline_bytes = some_text(w, seed + (unsigned)i);
        in.bytes = (int64_t)in.inline_bytes.n;
        in.on_duplicate = DUP_LINK;
        in.metadata = arena_printf(&w->a, "{\"year\":%d}", 2000 + i % 10);
        sha256_of(in.inline_bytes.p, in.inline_bytes.n, &in.sha256);
        ok(w, GET(w, document_create, &in, &out, &what, &job));
    }
}

static void ingest_all(struct world *w)
{
    w->cfg->ingest_poll = 20;
    struct job_runner *r = job_runner_start(w->cfg, w->s, &w->b, -1, job_kinds, n_job_kinds);
    int64_t counts[JOB_STATE_COUNT], until = clock_ns() + 60 * SEC;
    do {
        must(w, clock_ns() < until);
        fiber_sleep(10 * MS);
        ok(w, DO(w, job_counts, counts));
    } while (counts[JOB_queued] + counts[JOB_running] > 0);
    same(w, counts[JOB_failed], 0);
    job_runner_drain(r);
    while (!job_runner_idle(r))
        fiber_sleep(2 * MS);
    for (int i = 0; i < 3; i++)
        fiber_yield();
    job_runner_free(r);
}

/* ---- the reference ---- */

struct reference {
    int64_t no;
    double score;
    struct uuid document;
    int year;
};
struct reference_set {
    struct reference r[CHUNKS_MAX];
    size_t n;
};

struct counter {
    const struct str *term;
    size_t n;
    int *tf;
    int length;
};

static bool count_term(void *arg, const struct term *t)
{
    struct counter *c = arg;
    c->length++;
    for (size_t i = 0; i < c->n; i++)
        c->tf[i] += str_eq(c->term[i], t->text);
    return true;
}

struct distinct {
    struct world *w;
    struct str term[64];
    size_t n;
};

static bool add_distinct(void *arg, const struct term *t)
{
    struct distinct *d = arg;
    for (size_t i = 0; i < d->n; i++)
        if (str_eq(d->term[i], t->text))
            return true;
    d->term[d->n++] = arena_dup(&d->w->a, t->text);
    return true;
}

/* Adds every chunk of the collection that holds a word of the query. */
static void reference(struct world *w, const struct store_collection *c, const char *query, struct reference_set *out)
{
    static int tf[CHUNKS_MAX][64], length[CHUNKS_MAX];
    static struct reference all[CHUNKS_MAX];
    struct analyzer *an = analyzer_new(c->language, &w->e);
    struct distinct q = {.w = w};
    analyze(an, str_of(query), add_distinct, &q);
    struct store_document_query list = {.collection = c->id, .page = {.limit = 1000}};
    struct store_document *d;
    size_t n_docs, n = 0;
    bool more;
    ok(w, GET(w, document_list, &list, &d, &n_docs, &more));
    must(w, !more);
    double total = 0;
    for (size_t i = 0; i < n_docs; i++) {
        struct store_chunk *k;
        size_t nk;
        ok(w, GET(w, document_chunks, &d[i].id, 0, 1000, &k, &nk));
        for (size_t j = 0; j < nk; j++, n++) {
            must(w, n < CHUNKS_MAX);
            memset(tf[n], 0, sizeof tf[n]);
            struct counter count = {q.term, q.n, tf[n], 0};
            analyze_indexed(an, k[j].text, count_term, &count);
            total += length[n] = count.length;
            const char *year = memmem(d[i].metadata.p, d[i].metadata.n, "20", 2);
            all[n] = (struct reference){.no = k[j].no, .document = d[i].id, .year = atoi(year)};
        }
    }
    for (size_t t = 0; t < q.n; t++) {
        double df = 0;
        for (size_t i = 0; i < n; i++)
            df += tf[i][t] > 0;
        double idf = log(1 + ((double)n - df + 0.5) / (df + 0.5));
        for (size_t i = 0; i < n; i++) {
            double f = tf[i][t], norm = 1.2 * (1 - 0.75 + 0.75 * length[i] / (total / (double)n));
            all[i].score += f > 0 ? idf * f * 2.2 / (f + norm) : 0;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (all[i].score > 0)
            out->r[out->n++] = all[i];
    analyzer_free(an);
}

static int by_score(const void *x, const void *y)
{
    const struct reference *a = x, *b = y;
    if (fabs(a->score - b->score) > 1e-12)
        return a->score > b->score ? -1 : 1;
    return a->no < b->no ? -1 : 1;
}

static struct retrieve_result search(struct world *w, const struct retrieve_query *q)
{
    struct retrieve_result r;
    ok(w, retrieve(&w->b, &w->a, q, &r, &w->e));
    return r;
}

static void same_ranking(struct world *w, struct reference_set *set, const struct retrieve_query *q)
{
    struct retrieve_result r = search(w, q);
    qsort(set->r, set->n, sizeof *set->r, by_score);
    size_t offset = (size_t)q->offset, expected = set->n > offset ? set->n - offset : 0;
    if (expected > (size_t)q->top_k)
        expected = (size_t)q->top_k;
    same(w, r.n, expected);
    must(w, !r.truncated);
    for (size_t i = 0; i < r.n; i++) {
        const struct reference *x = &set->r[offset + i];
        if (fabs(r.hit[i].score - x->score) > 1e-9 || r.hit[i].chunk.no != x->no)
            fail_at(w, __LINE__, "rank %zu: chunk %lld with %.12f, not %lld with %.12f", offset + i + 1,
                    (long long)r.hit[i].chunk.no, r.hit[i].score, (long long)x->no, x->score);
        same_id(w, r.hit[i].document.id, x->document);
        same_id(w, r.hit[i].chunk.document, x->document);
        same(w, r.hit[i].rank, offset + i + 1);
    }
}

static const char *const queries[] = {
    "harbour",          "tide crane",  "Runs and SIGNALS",      "grosse schiffe",
    "東京港",           "cafe quay",   "docks dont x2000",      "nothing of this kind",
    "sluice 17",        "the harbour", "engineers engineering", "...",
    "winch winch winch"};
enum { N_QUERIES = sizeof queries / sizeof *queries };

static void ranking_is_exactly_bm25(struct world *w)
{
    struct store_collection en = new_collection(w, "en", "english"), de = new_collection(w, "de", "german");
    fill(w, &en, 60, 1);
    fill(w, &de, 20, 900);
    ingest_all(w);
    static struct reference_set set;
    for (int i = 0; i < N_QUERIES; i++) {
        struct retrieve_query q = {
            .query = str_of(queries[i]), .collections = &en.id, .n_collections = 1, .top_k = 1000};
        set.n = 0;
        reference(w, &en, queries[i], &set);
        same_ranking(w, &set, &q);
        same(w, search(w, &q).total, set.n);
        if (i == 0)
            must(w, set.n > 30);
        for (q.offset = 0, q.top_k = 7; q.offset < 30; q.offset += 7)
            same_ranking(w, &set, &q);
        /* each collection by its own language and statistics; none named: all */
        reference(w, &de, queries[i], &set);
        q = (struct retrieve_query){.query = str_of(queries[i]), .top_k = 1000};
        same_ranking(w, &set, &q);
        const struct uuid twice[] = {de.id, en.id, de.id};
        q.collections = twice;
        q.n_collections = 3;
        same_ranking(w, &set, &q);
    }
}

/* How often candidates were looked for, and how often without those that have only frequent words. */
static const struct store_ops *looked_at_ops;
static int looked, pruned, loaded;
suspends static int look(struct store *s, struct arena *a, const struct store_collection *c, const struct str *terms,
                         const bool *optional, size_t n, size_t max, struct store_candidates *out, struct err *e)
{
    looked++;
    pruned += optional != NULL;
    loaded += n == 1;
    if (n == 1)
        fiber_yield();
    return looked_at_ops->search_candidates(s, a, c, terms, optional, n, max, out, e);
}

static void what_frequent_words_leave_out_changes_nothing(struct world *w)
{
    static const char *const asked[] = {"harbour customs", "the harbour tide tariff",
                                        "harbour harbour sluice customs x2000"};
    static struct reference_set set, best, kept;
    struct store_collection c = new_collection(w, "c", "english");
    struct store_ops ops = *w->s->ops;
    fill(w, &c, 250, 3);
    ingest_all(w);
    json_t *json;
    struct filter *filter;
    ok(w, json_parse(&w->a, STR("{\"type\":\"gte\",\"key\":\"year\",\"value\":2003}"), 8, &json, &w->e));
    ok(w, filter_parse(&w->a, json, "/filter", &filter, &w->e));
    looked_at_ops = w->s->ops;
    ops.search_candidates = look;
    w->s->ops = &ops;
    looked = pruned = 0;
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        struct retrieve_query q = {.query = str_of(asked[i]), .top_k = 5};
        set.n = kept.n = best.n = 0;
        reference(w, &c, asked[i], &set);
        same_ranking(w, &set, &q);
        int64_t total = search(w, &q).total;
        must(w, total > (int64_t)set.n * 8 / 10 && total < (int64_t)set.n * 12 / 10);
        for (size_t k = 0; k < set.n; k++) {
            if (set.r[k].year >= 2003)
                kept.r[kept.n++] = set.r[k];
            size_t j = 0;
            while (j < best.n && !uuid_eq(&best.r[j].document, &set.r[k].document))
                j++;
            if (j == best.n)
                best.r[best.n++] = set.r[k];
        }
        q.filter = filter;
        same_ranking(w, &kept, &q);
        q.filter = NULL;
        q.group_by_document = true;
        same_ranking(w, &best, &q);
    }
    must(w, w->sqlite ? pruned >= 9 : pruned == 0);
    must(w, w->sqlite ? looked - pruned < pruned : looked == 12);
    struct retrieve_query all = {.query = str_of(asked[0]), .top_k = 1000};
    looked = pruned = 0; /* more are asked for than hold the rare word: then it has to be everything */
    set.n = 0;
    reference(w, &c, asked[0], &set);
    same_ranking(w, &set, &all);
    same(w, looked, w->sqlite ? 2 : 1);
    w->s->ops = looked_at_ops;
}

/* Each query ten times; returns how often the store was asked for candidates in the last round. */
static int ask_often(struct world *w, const struct store_collection *c, const char *const *asked, size_t n)
{
    static struct reference_set set[4];
    for (size_t i = 0; i < n; i++) {
        set[i].n = 0;
        reference(w, c, asked[i], &set[i]);
    }
    for (size_t i = 0; i < n * 10; i++) {
        struct retrieve_query q = {.query = str_of(asked[i % n]), .top_k = i % 3 ? 5 : 1000};
        if (i == n * 9)
            looked = 0;
        same_ranking(w, &set[i % n], &q);
    }
    return looked;
}

static suspends int ask_once(void *arg)
{
    struct world *w = arg;
    struct arena a = {0};
    struct err e;
    struct retrieve_result r;
    struct retrieve_query q = {.query = STR("the harbour"), .top_k = 5};
    int rc = retrieve(&w->b, &a, &q, &r, &e) || r.n != 5 ? -1 : 0;
    arena_fini(&a);
    return rc;
}

static void kept_postings_change_nothing(struct world *w)
{
    static const char *const asked[] = {"harbour customs", "the harbour tide tariff", "Schiff", "nowhere"};
    static const int64_t sizes[] = {1 << 20, 6000};
    struct store_collection c = new_collection(w, "c", "english");
    struct store_ops ops = *w->s->ops;
    struct store_document_query list = {.collection = c.id, .page = {.limit = 1000}};
    struct store_document *d;
    size_t n;
    bool more;
    looked_at_ops = w->s->ops;
    ops.search_candidates = look;
    fill(w, &c, 250, 3);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ingest_all(w);
        w->b.postings = postings_new(sizes[i], 0);
        w->s->ops = &ops;
        loaded = 0;
        for (int k = 0; k < 8; k++)
            same(w, ask_once(w), 0);
        same(w, loaded, 0);
        struct fiber_task at_once[4] = {{ask_once, w, 0}, {ask_once, w, 0}, {ask_once, w, 0}, {ask_once, w, 0}};
        same(w, fiber_all(at_once, 4), 0);
        must(w, i > 0 || loaded == 2); /* only one of them makes the lists */
        int asked_for = ask_often(w, &c, asked, 4);
        must(w, i == 0 ? asked_for == 0 : asked_for > 0); /* too few bytes: some or all of them are asked for anew */
        ok(w, GET(w, document_list, &list, &d, &n, &more));
        ok(w, DO(w, document_delete, &d[n / 2].id, 0));
        must(w, ask_often(w, &c, asked, 1) == 0 || i > 0);
        w->s->ops = looked_at_ops;
        fill(w, &c, 10, 5000 + 100 * (unsigned)i);
        ingest_all(w);
        w->s->ops = &ops;
        ask_often(w, &c, asked, 4);
        w->cfg->search_max_candidates = 100; /* fewer than hold a word */
        struct retrieve_query q = {.query = STR("the harbour"), .top_k = 5};
        postings_free(w->b.postings);
        w->b.postings = postings_new(sizes[i], 0);
        for (int k = 0; k < 20; k++)
            must(w, search(w, &q).truncated);
        w->cfg->search_max_candidates = 200000;
        postings_free(w->b.postings);
        w->b.postings = NULL;
        w->s->ops = looked_at_ops;
    }
    w->b.postings = postings_new(sizes[0], 3600 * SEC); /* the collection changed less than an hour ago */
    w->s->ops = &ops;
    loaded = 0;
    for (int k = 0; k < 20; k++)
        same(w, ask_once(w), 0);
    same(w, loaded, 0);
    w->s->ops = looked_at_ops;
    postings_free(w->b.postings);
    w->b.postings = NULL;
    must(w, !postings_new(0, 0));
}

static void filters_narrow_without_changing_scores(struct world *w)
{
    struct store_collection c = new_collection(w, "c", "english");
    fill(w, &c, 40, 5);
    ingest_all(w);
    json_t *json;
    struct filter *filter;
    ok(w, json_parse(&w->a, STR("{\"type\":\"gte\",\"key\":\"year\",\"value\":2007}"), 8, &json, &w->e));
    ok(w, filter_parse(&w->a, json, "/filter", &filter, &w->e));
    static struct reference_set set, kept;
    set.n = kept.n = 0;
    reference(w, &c, "harbour tide", &set);
    for (size_t i = 0; i < set.n; i++)
        if (set.r[i].year >= 2007)
            kept.r[kept.n++] = set.r[i];
    must(w, kept.n > 5 && kept.n < set.n);
    struct retrieve_query q = {.query = STR("harbour tide"), .top_k = 1000, .filter = filter};
    same_ranking(w, &kept, &q);
    size_t half = kept.n / 2;
    while (half + 1 < kept.n && kept.r[half].score - kept.r[half + 1].score < 1e-9)
        half++; /* those of one score stay together */
    q.min_score = kept.r[half].score - 1e-9;
    kept.n = half + 1;
    same_ranking(w, &kept, &q);
}

static void grouping_keeps_the_best_chunk(struct world *w)
{
    struct store_collection c = new_collection(w, "c", "english");
    fill(w, &c, 30, 77);
    ingest_all(w);
    static struct reference_set set, best;
    set.n = best.n = 0;
    reference(w, &c, "tide pilot", &set);
    qsort(set.r, set.n, sizeof *set.r, by_score);
    for (size_t i = 0; i < set.n; i++) {
        size_t j = 0;
        while (j < best.n && !uuid_eq(&best.r[j].document, &set.r[i].document))
            j++;
        if (j == best.n)
            best.r[best.n++] = set.r[i];
    }
    must(w, best.n < set.n);
    struct retrieve_query q = {.query = STR("tide pilot"), .top_k = 1000, .group_by_document = true};
    same_ranking(w, &best, &q);
}

static void highlights_and_explanations(struct world *w)
{
    struct store_collection c = new_collection(w, "c", "english");
    a_document(w, &c, "The cranes lift. A crane! 東京港の水深 is deep; lifting stops.");
    a_document(w, &c, "Nothing about it.");
    ingest_all(w);
    struct retrieve_query q = {
        .query = STR("Crane lifts 東京港 missing"), .top_k = 10, .highlight = true, .explain = true};
    struct retrieve_result r = search(w, &q);
    same(w, r.n, 1);
    struct retrieve_hit *h = &r.hit[0];
    const char *const expected[] = {"cranes", "lift", "crane", "東京港", "lifting"};
    same(w, h->n_highlight, 5);
    for (size_t i = 0; i < 5; i++)
        same_str(w, str_sub(h->chunk.text, h->highlight[i].from, h->highlight[i].to - h->highlight[i].from),
                 expected[i]);
    json_t *json;
    ok(w, json_parse_object(&w->a, h->explain, 8, &json, &w->e));
    same(w, json_integer_value(json_object_get(json, "chunks")), 2);
    json_t *terms = json_object_get(json, "terms");
    same(w, json_array_size(terms), 5);
    double sum = 0;
    for (size_t i = 0; i < 5; i++)
        sum += json_number_value(json_object_get(json_array_get(terms, i), "contribution"));
    must(w, fabs(sum - h->score) < 1e-9);
    same(w, json_integer_value(json_object_get(json_array_get(terms, 0), "tf")), 2);
    same(w, json_integer_value(json_object_get(json_array_get(terms, 4), "df")), 0);
}

static void bounds_are_told(struct world *w)
{
    struct store_collection c = new_collection(w, "c", "english");
    fill(w, &c, 20, 3);
    ingest_all(w);
    w->cfg->limits_query_terms = 2;
    struct retrieve_query q = {.query = STR("tide tides crane \"pilot\" buoy pilots"), .top_k = 3};
    struct retrieve_result r = search(w, &q);
    same_str(w, r.ignored_terms, "[\"pilot\",\"buoy\"]");
    must(w, !r.truncated);
    w->cfg->search_max_candidates = 4;
    r = search(w, &q);
    must(w, r.truncated);
    same(w, r.total, 4);
    struct uuid nobody = uuid_v7();
    q.collections = &nobody;
    q.n_collections = 1;
    fails(w, ERR_NOT_FOUND, retrieve(&w->b, &w->a, &q, &r, &w->e));
}

static void deleted_and_replaced_documents_are_not_found(struct world *w)
{
    struct store_collection c = new_collection(w, "c", "english");
    struct store_document_new in = new_document(&c, "old anchor");
    struct store_document d, other = a_document(w, &c, "anchor elsewhere");
    enum store_created what;
    struct store_job job;
    in.external_id = STR("x");
    in.by_external_id = true;
    ok(w, GET(w, document_create, &in, &d, &what, &job));
    ingest_all(w);
    struct retrieve_query q = {.query = STR("anchor"), .top_k = 10};
    same(w, search(w, &q).n, 2);
    in.inline_bytes = STR("new winch");
    in.bytes = 9;
    sha256_of("new winch", 9, &in.sha256);
    ok(w, GET(w, document_create, &in, &d, &what, &job));
    ok(w, DO(w, document_delete, &other.id, 0));
    ingest_all(w);
    same(w, search(w, &q).n, 0);
    q.query = STR("winches");
    struct retrieve_result r = search(w, &q);
    same(w, r.n, 1);
    same_id(w, r.hit[0].document.id, d.id);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(ranking_is_exactly_bm25),
        TEST(what_frequent_words_leave_out_changes_nothing),
        TEST(kept_postings_change_nothing),
        TEST(filters_narrow_without_changing_scores),
        TEST(grouping_keeps_the_best_chunk),
        TEST(highlights_and_explanations),
        TEST(bounds_are_told),
        TEST(deleted_and_replaced_documents_are_not_found),
    };
    return contract_main("retrieve", tests, sizeof tests / sizeof *tests, argc, argv);
}
