/* Lists of documents: pages, predicates, filters; and what is done to all that match. */
#include "tests/contract/contract.h"

static struct store_document with(struct world *w, const struct store_collection *c, const char *text,
                                  const char *metadata, const char *tags)
{
    struct store_document_new in = new_document(c, text);
    struct store_document out;
    enum store_created what;
    struct store_job job;
    in.metadata = str_of(metadata);
    in.tags = str_of(tags);
    in.title = str_of(text);
    ok(w, GET(w, document_create, &in, &out, &what, &job));
    must(w, what == STORE_CREATED);
    return out;
}

static const struct filter *filter(struct world *w, const char *json)
{
    json_t *j;
    struct filter *f;
    ok(w, json_parse(&w->a, str_of(json), 64, &j, &w->e));
    ok(w, filter_parse(&w->a, j, "/filter", &f, &w->e));
    return f;
}

static void pages(struct world *w)
{
    struct store_collection c = a_collection(w, "c"), other = a_collection(w, "other");
    struct store_document d[9], *rows;
    struct store_document_query q = {.collection = c.id, .page = {.limit = 4}};
    size_t n;
    bool more;
    for (int i = 0; i < 9; i++) {
        d[i] = a_document(w, &c, arena_printf(&w->a, "text %d", i).p);
        a_document(w, &other, arena_printf(&w->a, "text %d", i).p);
    }
    ok(w, GET(w, document_list, &q, &rows, &n, &more));
    same(w, n, 4);
    must(w, more);
    same_id(w, rows[0].id, d[8].id);
    same_id(w, rows[3].id, d[5].id);
    q.page.has_after = true;
    q.page.after = rows[3].id;
    ok(w, GET(w, document_list, &q, &rows, &n, &more));
    same_id(w, rows[0].id, d[4].id);
    q.page.after = rows[3].id;
    ok(w, GET(w, document_list, &q, &rows, &n, &more));
    same(w, n, 1);
    must(w, !more);
    same_id(w, rows[0].id, d[0].id);

    q.page = (struct store_page){.limit = 3, .ascending = true};
    ok(w, GET(w, document_list, &q, &rows, &n, &more));
    same_id(w, rows[0].id, d[0].id);
    same_id(w, rows[2].id, d[2].id);
    q.page.has_before = true;
    q.page.before = d[5].id;
    ok(w, GET(w, document_list, &q, &rows, &n, &more));
    same(w, n, 3);
    must(w, more);
    same_id(w, rows[0].id, d[2].id);
    same_id(w, rows[2].id, d[4].id);
    q.page.has_after = true;
    q.page.after = d[3].id;
    ok(w, GET(w, document_list, &q, &rows, &n, &more));
    same(w, n, 1);
    must(w, !more);
    same_id(w, rows[0].id, d[4].id);

    ok(w, DO(w, document_delete, &d[3].id, 0)); /* a cursor whose document is gone */
    q.page = (struct store_page){.limit = 1, .has_after = true, .after = d[3].id};
    ok(w, GET(w, document_list, &q, &rows, &n, &more));
    same_id(w, rows[0].id, d[2].id);
    q.collection = uuid_v7();
    fails(w, ERR_NOT_FOUND, GET(w, document_list, &q, &rows, &n, &more));
}

static size_t count(struct world *w, struct store_document_query q, const struct uuid *only)
{
    struct store_document *rows;
    size_t n;
    bool more;
    q.page.limit = 50;
    ok(w, GET(w, document_list, &q, &rows, &n, &more));
    if (only) {
        same(w, n, 1);
        same_id(w, rows[0].id, *only);
    }
    return n;
}

static void predicates(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document a = with(w, &c, "Red Apple", "{\"n\": 1}", "[\"fruit\", \"red\"]"),
                          b = with(w, &c, "green pear", "{\"n\": 2}", "[\"fruit\"]");
    struct store_document_query q = {.collection = c.id};
    same(w, count(w, q, NULL), 2);
    q.tag = STR("fruit");
    same(w, count(w, q, NULL), 2);
    q.tag = STR("red");
    count(w, q, &a.id);
    q.tag = STR("re");
    same(w, count(w, q, NULL), 0);
    q = (struct store_document_query){.collection = c.id, .q = STR("APPLE")};
    count(w, q, &a.id);
    q.q = STR("%");
    same(w, count(w, q, NULL), 0);
    q.q = STR("A.TXT");
    same(w, count(w, q, NULL), 2);
    q = (struct store_document_query){.collection = c.id, .has_sha256 = true, .sha256 = b.sha256};
    count(w, q, &b.id);
    q = (struct store_document_query){.collection = c.id, .has_state = true, .state = DOCUMENT_queued};
    same(w, count(w, q, NULL), 2);
    index_document(w, &a.id, (const char *[]){"red"}, 1);
    count(w, q, &b.id);
    q.state = DOCUMENT_ready;
    count(w, q, &a.id);
    q.filter = filter(w, "{\"type\": \"eq\", \"key\": \"n\", \"value\": 1}");
    count(w, q, &a.id);
    q.state = DOCUMENT_failed;
    same(w, count(w, q, NULL), 0);
    q = (struct store_document_query){.collection = c.id, .external_id = STR("none")};
    same(w, count(w, q, NULL), 0);
}

enum { MANY = 2300 };
static const struct store_collection *crowded;

static int create_sparse(struct world *w, int i, struct arena *a, struct err *e)
{
    struct store_document_new in = new_document(crowded, arena_printf(a, "text %d", i).p);
    struct store_document out;
    enum store_created what;
    struct store_job job;
    in.metadata = i % 460 == 0 ? STR("{\"rare\": true}") : STR("{}");
    return STORE_CALL(w->s, document_create, a, &in, &out, &what, &job, e);
}

/* More documents than a store looks at in one go, of which few match. */
static void sparse_matches(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct store_document_query q = {.collection = c.id, .page = {.limit = 2}};
    struct store_document *rows;
    size_t n, seen = 0;
    bool more = true;
    crowded = &c;
    in_parallel(w, MANY, create_sparse);
    q.filter = filter(w, "{\"type\": \"eq\", \"key\": \"rare\", \"value\": true}");
    for (int pages = 0; more; pages++) {
        must(w, pages < 4);
        ok(w, GET(w, document_list, &q, &rows, &n, &more));
        for (size_t i = 0; i < n; i++)
            must(w, strstr(arena_dup(&w->a, rows[i].metadata).p, "rare"));
        seen += n;
        q.page.has_after = true;
        q.page.after = rows[n - 1].id;
    }
    same(w, seen, 5);
    int64_t total;
    ok(w, DO(w, document_count_matching, &c.id, q.filter, &total));
    same(w, total, 5);
    ok(w, DO(w, document_count_matching, &c.id, NULL, &total));
    same(w, total, MANY);
}

static void match_and_delete(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    const struct filter *odd = filter(w, "{\"type\": \"eq\", \"key\": \"odd\", \"value\": true}");
    int64_t *nos, left;
    size_t n;
    for (int i = 0; i < 10; i++)
        with(w, &c, arena_printf(&w->a, "text %d", i).p, i % 2 ? "{\"odd\": true}" : "{\"odd\": false}", "[]");
    ok(w, GET(w, document_match, &c.id, odd, NULL, &nos, &n));
    same(w, n, 5);
    for (size_t i = 1; i < n; i++)
        must(w, nos[i - 1] < nos[i]);
    ok(w, DO(w, document_delete_matching, &c.id, odd, 3, &left));
    same(w, left, 2);
    ok(w, DO(w, document_delete_matching, &c.id, odd, 3, &left));
    same(w, left, 0);
    ok(w, GET(w, document_match, &c.id, odd, NULL, &nos, &n));
    same(w, n, 0);
    ok(w, GET(w, document_match, &c.id, NULL, NULL, &nos, &n));
    same(w, n, 5);
    same(w, collection_of(w, &c.id).documents, 5);
    struct uuid nobody = uuid_v7();
    fails(w, ERR_NOT_FOUND, GET(w, document_match, &nobody, odd, NULL, &nos, &n));
    fails(w, ERR_NOT_FOUND, DO(w, document_count_matching, &nobody, odd, &left));
    fails(w, ERR_NOT_FOUND, DO(w, document_delete_matching, &nobody, odd, 3, &left));
}

static void match_what_has_chunks(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    const struct filter *odd = filter(w, "{\"type\": \"eq\", \"key\": \"odd\", \"value\": true}");
    const char *terms[] = {"one", "two", "three"};
    int64_t *nos, chunks, indexed[6];
    size_t n;
    ok(w, GET(w, document_match, &c.id, NULL, &chunks, &nos, &n));
    same(w, n, 0);
    same(w, chunks, 0);
    for (int i = 0; i < 6; i++) {
        struct store_document d =
            with(w, &c, arena_printf(&w->a, "text %d", i).p, i % 2 ? "{\"odd\": true}" : "{}", "[]");
        indexed[i] = d.no;
        if (i < 4)
            index_document(w, &d.id, terms, (size_t)(i + 2) / 2); /* 1, 1, 2, 2 chunks; the others wait */
    }
    ok(w, GET(w, document_match, &c.id, NULL, NULL, &nos, &n));
    same(w, n, 6);
    ok(w, GET(w, document_match, &c.id, NULL, &chunks, &nos, &n));
    same(w, n, 4);
    same(w, chunks, 6);
    for (size_t i = 0; i < n; i++)
        same(w, nos[i], indexed[i]);
    ok(w, GET(w, document_match, &c.id, odd, &chunks, &nos, &n));
    same(w, n, 2);
    same(w, chunks, 3);
    must(w, nos[0] == indexed[1] && nos[1] == indexed[3]);
}

/* ---- any filter on any metadata means what filter_matches() says ---- */

static unsigned seed = 20240607;
static unsigned pick(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

static const char *const values[] = {"1",
                                     "1.0",
                                     "2",
                                     "-3.5",
                                     "1e3",
                                     "9007199254740993",
                                     "0",
                                     "\"1\"",
                                     "\"a\"",
                                     "\"b\"",
                                     "\"aa\"",
                                     "\"\"",
                                     "\"\xc3\xa9\"",
                                     "true",
                                     "false",
                                     "\"A\"",
                                     "1e-7",
                                     "\"true\"",
                                     "\"a.b\"",
                                     "\"it's \\\"q\\\" \\\\ %\""};
static const char *const keys[] = {"k", "n", "a.b", "deep.er.still", "it's", "sp ace", "\xc3\xbc", "quo\\\"te"};
enum { VALUES = sizeof values / sizeof *values, KEYS = sizeof keys / sizeof *keys };

static struct str any_member(struct arena *a, int depth)
{
    switch (pick(depth > 0 ? 8 : 5)) {
    case 0: return STR("null");
    case 5: return arena_printf(a, "[%s, %s]", values[pick(VALUES)], values[pick(VALUES)]);
    case 6: return arena_printf(a, "{\"b\": %s}", any_member(a, depth - 1).p);
    case 7: return arena_printf(a, "{\"er\": {\"still\": %s}}", any_member(a, depth - 1).p);
    default: return str_of(values[pick(VALUES)]);
    }
}

static const char *any_metadata(struct arena *a)
{
    static const char *const members[] = {"k", "n", "a", "deep", "it's", "sp ace", "\xc3\xbc", "quo\\\"te"};
    struct str s = STR("{\"always\": 1");
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if (pick(3)) {
            struct str member = any_member(a, 2);
            s = arena_printf(a, STR_FMT ", \"%s\": " STR_FMT, STR_ARG(s), members[i], STR_ARG(member));
        }
    return arena_printf(a, STR_FMT "}", STR_ARG(s)).p;
}

static const char *any_filter(struct arena *a, int depth)
{
    static const char *const orders[] = {"gt", "gte", "lt", "lte"}, *const equals[] = {"eq", "ne"},
                             *const lists[] = {"in", "nin"};
    const char *key = keys[pick(KEYS)], *value = values[pick(VALUES)];
    switch (pick(depth > 0 ? 5 : 3)) {
    case 0:
        while (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)
            value = values[pick(VALUES)];
        return arena_printf(a, "{\"type\": \"%s\", \"key\": \"%s\", \"value\": %s}", orders[pick(4)], key, value).p;
    case 1: return arena_printf(a, "{\"type\": \"%s\", \"key\": \"%s\", \"value\": %s}", equals[pick(2)], key, value).p;
    case 2:
        return arena_printf(a, "{\"type\": \"%s\", \"key\": \"%s\", \"value\": [%s, %s]}", lists[pick(2)], key, value,
                            values[pick(VALUES)])
            .p;
    default:
        return arena_printf(a, "{\"type\": \"%s\", \"filters\": [%s, %s]}", pick(2) ? "and" : "or",
                            any_filter(a, depth - 1), any_filter(a, depth - 1))
            .p;
    }
}

static void filters_mean_the_same(struct world *w)
{
    enum { DOCS = 120, FILTERS = 400 };
    struct store_collection c = a_collection(w, "c");
    const char **metadata = arena_alloc(&w->a, DOCS * sizeof *metadata);
    json_t **parsed = arena_alloc(&w->a, DOCS * sizeof *parsed);
    int64_t no[DOCS];
    for (int i = 0; i < DOCS; i++) {
        metadata[i] = any_metadata(&w->a);
        ok(w, json_parse(&w->a, str_of(metadata[i]), 64, &parsed[i], &w->e));
        no[i] = with(w, &c, arena_printf(&w->a, "text %d", i).p, metadata[i], "[]").no;
    }
    int matched = 0;
    for (int k = 0; k < FILTERS; k++) {
        const char *json = any_filter(&w->a, 2);
        const struct filter *f = filter(w, json);
        int64_t *nos;
        size_t n, at = 0;
        ok(w, GET(w, document_match, &c.id, f, NULL, &nos, &n));
        for (int i = 0; i < DOCS; i++) {
            bool stored = at < n && nos[at] == no[i];
            at += stored;
            matched += stored;
            if (stored != filter_matches(f, parsed[i]))
                fail_at(w, __LINE__, "the store says %s of %s on %s", stored ? "yes" : "no", json, metadata[i]);
        }
        same(w, at, n);
    }
    must(w, matched > DOCS && matched < DOCS * (FILTERS - 1)); /* the generator makes both kinds */
}

struct deleter {
    struct world *w;
    const struct uuid *collection;
    const struct filter *filter;
    struct fiber *parent;
    bool done;
    int rc;
};

static void delete_one_color(void *arg)
{
    struct deleter *d = arg;
    struct err e;
    int64_t left;
    d->rc = STORE_CALL(d->w->s, document_delete_matching, d->collection, d->filter, 10, &left, &e);
    d->done = true;
    fiber_wake(d->parent);
}

/* A document that is changed so that it matches no more, while it is about to be deleted. */
static void spared(struct world *w)
{
    struct store_collection c = a_collection(w, "c");
    struct deleter d = {.w = w, .collection = &c.id, .parent = fiber_self()};
    if (w->sqlite) /* one writer at a time */
        return;
    d.filter = filter(w, "{\"type\": \"eq\", \"key\": \"color\", \"value\": \"red\"}");
    for (int i = 0; i < 2; i++) {
        struct store_document_new in = new_document(&c, i ? "a" : "b");
        struct store_document out;
        enum store_created what;
        struct store_job job;
        in.metadata = STR("{\"color\": \"red\"}");
        in.filename = i ? STR("spared") : STR("gone");
        ok(w, GET(w, document_create, &in, &out, &what, &job));
    }
    PGconn *other = PQconnectdb(w->url);
    PQclear(PQexec(other, "BEGIN; UPDATE documents SET metadata = '{}' WHERE filename = 'spared'"));
    must(w, fiber_spawn("delete", delete_one_color, &d));
    for (bool waits = false; !waits;) {
        PGresult *r = PQexec(other, "SELECT 1 FROM pg_locks WHERE NOT granted");
        waits = PQntuples(r) > 0;
        PQclear(r);
        must(w, !d.done);
        ok(w, fiber_sleep(5 * MS));
    }
    PQclear(PQexec(other, "COMMIT"));
    PQfinish(other);
    while (!d.done)
        ok(w, fiber_park("the deleter"));
    same(w, d.rc, 0);
    struct store_document_query q = {.collection = c.id, .page = {.limit = 10}};
    struct store_document *rows;
    size_t n;
    bool more;
    ok(w, GET(w, document_list, &q, &rows, &n, &more));
    same(w, n, 1);
    same_str(w, rows[0].filename, "spared");
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {TEST(pages),
                                    TEST(predicates),
                                    TEST(sparse_matches),
                                    TEST(match_and_delete),
                                    TEST(match_what_has_chunks),
                                    TEST(spared),
                                    TEST(filters_mean_the_same)};
    return contract_main("store lists", tests, sizeof tests / sizeof *tests, argc, argv);
}
