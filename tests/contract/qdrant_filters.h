/* What Qdrant makes of filters: tests of test_qdrant.c. */
#pragma once
#include "tests/unit/vectors.h"
#include "worker/io/json.h"
#include "worker/store/filter.h"

static inline suspends void put_described(struct world *w, int64_t no, const char *metadata)
{
    struct uuid id = uuid_v7();
    struct vector_document d = {.no = no,
                                .id = uuid_v7(),
                                .content_version = 1,
                                .metadata = str_of(metadata),
                                .tags = STR("[]"),
                                .n = 1,
                                .chunk = &id,
                                .v = vectors_of(&w->a, (uint64_t)no, 1, w->s.dim)};
    ok(w, VECTORS_CALL(w->v, put, &w->s, &d, &w->e));
}

/* What a filter lets through holds all that match, and where `exact` nothing else. */
static inline suspends void check_filter(struct world *w, const char *const *metadata, size_t n, const char *text,
                                         bool exact)
{
    struct filter *f;
    struct vector_hit *hit;
    size_t found;
    json_t *json;
    ok(w, json_parse(&w->a, str_of(text), 64, &json, &w->e));
    ok(w, filter_parse(&w->a, json, "", &f, &w->e));
    struct vector_query q = {.v = vectors_of(&w->a, 1, 1, w->s.dim), .k = 100, .filter = f};
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &found, &w->e));
    for (size_t i = 0; i < n; i++) {
        bool in = false;
        ok(w, json_parse(&w->a, str_of(metadata[i]), 64, &json, &w->e));
        for (size_t k = 0; k < found; k++)
            in |= hit[k].no >> 20 == (int64_t)i;
        if (filter_matches(f, json) ? !in : in && exact)
            fail_at(w, __LINE__, "%s and %s: %s", text, metadata[i], in ? "found" : "not found");
    }
}

static inline suspends void filters_mean_what_they_mean_elsewhere(struct world *w)
{
    static const char *const metadata[] = {
        "{}",
        "{\"year\":2024,\"lang\":\"en\",\"ok\":true}",
        "{\"year\":2024.5,\"lang\":\"de\",\"ok\":false}",
        "{\"year\":\"2024\",\"lang\":[\"en\",\"fr\"],\"ok\":\"true\"}",
        "{\"year\":[2023,2024],\"author\":{\"name\":\"Ada\"}}",
        "{\"year\":null,\"author\":{\"name\":\"Bob\",\"age\":40},\"odd key\":1}",
        "{\"year\":-1e300,\"author\":[{\"name\":\"Ada\"}],\"a\\\"b\":1}",
    };
    static const struct {
        const char *text;
        bool exact;
    } filters[] = {
        {"{\"type\":\"eq\",\"key\":\"year\",\"value\":2024}", true},
        {"{\"type\":\"ne\",\"key\":\"year\",\"value\":2024}", true},
        {"{\"type\":\"eq\",\"key\":\"year\",\"value\":\"2024\"}", true},
        {"{\"type\":\"gt\",\"key\":\"year\",\"value\":2023.5}", false},
        {"{\"type\":\"gte\",\"key\":\"author.age\",\"value\":40}", true},
        {"{\"type\":\"lt\",\"key\":\"year\",\"value\":0}", true},
        {"{\"type\":\"lte\",\"key\":\"lang\",\"value\":\"e\"}", false},
        {"{\"type\":\"in\",\"key\":\"lang\",\"value\":[\"fr\",\"de\",7]}", true},
        {"{\"type\":\"nin\",\"key\":\"lang\",\"value\":[\"en\",\"de\"]}", true},
        {"{\"type\":\"eq\",\"key\":\"ok\",\"value\":true}", true},
        {"{\"type\":\"eq\",\"key\":\"author.name\",\"value\":\"Ada\"}", true},
        {"{\"type\":\"ne\",\"key\":\"author.name\",\"value\":\"Ada\"}", true},
        {"{\"type\":\"eq\",\"key\":\"odd key\",\"value\":1}", true},
        {"{\"type\":\"eq\",\"key\":\"a\\\"b\",\"value\":1}", false},
        {"{\"type\":\"and\",\"filters\":[{\"type\":\"eq\",\"key\":\"year\",\"value\":2024},"
         "{\"type\":\"lt\",\"key\":\"lang\",\"value\":\"x\"}]}",
         false},
        {"{\"type\":\"or\",\"filters\":[{\"type\":\"eq\",\"key\":\"lang\",\"value\":\"de\"},"
         "{\"type\":\"lt\",\"key\":\"lang\",\"value\":\"x\"}]}",
         false},
        {"{\"type\":\"and\",\"filters\":[{\"type\":\"ne\",\"key\":\"lang\",\"value\":\"de\"},{\"type\":\"or\","
         "\"filters\":[{\"type\":\"eq\",\"key\":\"ok\",\"value\":true},{\"type\":\"gt\",\"key\":\"author.age\","
         "\"value\":1}]}]}",
         true},
    };
    size_t n = sizeof metadata / sizeof *metadata;
    for (size_t i = 0; i < n; i++)
        put_described(w, (int64_t)i, metadata[i]);
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        check_filter(w, metadata, n, filters[i].text, filters[i].exact);
}

static inline suspends struct filter *filter_of(struct world *w, const char *text)
{
    struct filter *f;
    json_t *json;
    ok(w, json_parse(&w->a, str_of(text), 64, &json, &w->e));
    ok(w, filter_parse(&w->a, json, "", &f, &w->e));
    return f;
}

/* Where a filter cannot be said the documents can be named, and the nearest ones are not in their way. */
static inline suspends void documents_stand_for_a_filter_that_cannot_be_said(struct world *w)
{
#define TEXT_ORDER "{\"type\":\"gt\",\"key\":\"s\",\"value\":\"m\"}"
#define NUMBER     "{\"type\":\"lt\",\"key\":\"n\",\"value\":7}"
    static const struct {
        const char *text;
        bool said;
    } filters[] = {
        {NUMBER, true},
        {TEXT_ORDER, false},
        {"{\"type\":\"in\",\"key\":\"s\",\"value\":[\"a\",\"b\"]}", true},
        {"{\"type\":\"eq\",\"key\":\"a\\\"b\",\"value\":1}", false},
        {"{\"type\":\"and\",\"filters\":[" NUMBER "," NUMBER "]}", true},
        {"{\"type\":\"and\",\"filters\":[" NUMBER "," TEXT_ORDER "]}", false},
        {"{\"type\":\"or\",\"filters\":[" NUMBER ",{\"type\":\"and\",\"filters\":[" TEXT_ORDER "]}]}", false},
    };
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        same(w, w->v->ops->says(filter_of(w, filters[i].text)), filters[i].said);
    for (int64_t no = 0; no < 20; no++)
        put_described(w, no, arena_printf(&w->a, "{\"n\":%d,\"s\":\"%c\"}", (int)no % 10, 'a' + (int)no).p);
    int64_t allowed[] = {13, 15, 16}; /* as if these were all: what they have is not asked for again */
    struct vector_query q = {.v = vectors_of(&w->a, 1, 1, w->s.dim), .k = 3, .allowed = allowed, .n_allowed = 3};
    struct vector_hit *hit;
    size_t n;
    q.filter = filter_of(w, filters[5].text);
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 3);
    for (size_t i = 0; i < n; i++)
        must(w, hit[i].no >> 20 == 13 || hit[i].no >> 20 == 15 || hit[i].no >> 20 == 16);
    q.filter = filter_of(w, NUMBER); /* this is said as it is */
    q.k = 20;
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 14);
}

static inline suspends void describing_changes_what_filters_see(struct world *w)
{
    static const char *const before[] = {"{\"a\":1,\"b\":2}"}, *const after[] = {"{\"a\":5}"};
    static const char a[] = "{\"type\":\"eq\",\"key\":\"a\",\"value\":5}",
                      b[] = "{\"type\":\"eq\",\"key\":\"b\",\"value\":2}";
    put_described(w, 0, before[0]);
    check_filter(w, before, 1, a, true);
    check_filter(w, before, 1, b, true);
    struct vector_document d = {.no = 0, .content_version = 1, .metadata = str_of(after[0]), .tags = STR("[]")};
    ok(w, VECTORS_CALL(w->v, describe, &w->s, &d, &w->e));
    check_filter(w, after, 1, a, true);
    check_filter(w, after, 1, b, true);
    d.no = 7; /* of which there is nothing */
    ok(w, VECTORS_CALL(w->v, describe, &w->s, &d, &w->e));
}
