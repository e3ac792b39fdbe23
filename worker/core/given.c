#include "worker/core/given.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    TEXT_MAX = 64 << 10,
    HEADINGS_MAX = 16,
    DEPTH = 8,
    INLINE_MAX = 64 << 10,  /* of JSON: parsing more would hold up the loop */
    YIELD_BYTES = 32 << 10, /* of text between two turns of the loop */
};

struct given {
    struct str text;
    json_t *headings;
    int64_t page;
};

static int read_one(struct arena *a, json_t *item, const char *pointer, struct given *g, struct err *e)
{
    *g = (struct given){.page = 0};
    const struct json_member table[] = {
        {"text", JSON_STR, true, false, 1, TEXT_MAX, &g->text, NULL},
        {"headings", JSON_ARR, false, true, 0, HEADINGS_MAX, &g->headings, NULL},
        {"page", JSON_INT64, false, true, 1, INT32_MAX, &g->page, NULL},
    };
    size_t i;
    json_t *h;
    char at[160];
    if (!json_is_object(item))
        return err_at(e, pointer, "must be an object with the member text");
    if (json_members(a, item, pointer, table, sizeof table / sizeof *table, false, e))
        return -1;
    json_array_foreach (g->headings, i, h) {
        snprintf(at, sizeof at, "%.100s/headings/%zu", pointer, i);
        if (!json_is_string(h))
            return err_at(e, at, "must be a string");
    }
    return 0;
}

int given_check(struct arena *a, json_t *list, const char *pointer, struct err *e)
{
    size_t i;
    json_t *item;
    struct given g;
    char at[96];
    json_array_foreach (list, i, item) {
        snprintf(at, sizeof at, "%.60s/%zu", pointer, i);
        if (read_one(a, item, at, &g, e))
            return -1;
    }
    return 0;
}

static int64_t count_chars(struct str s)
{
    int64_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

static struct store_chunk_new make(struct arena *a, struct analyzer *an, const struct given *g, struct buf *terms)
{
    struct store_chunk_new k = {.text = g->text, .page = (int)g->page};
    terms->n = 0;
    k.tokens = analyze_terms(an, g->text, terms);
    k.terms = arena_dup(a, buf_view(terms));
    k.headings = g->headings ? json_text(a, g->headings) : STR("[]");
    sha256_of(g->text.p, g->text.n, &k.sha256);
    return k;
}

struct parse {
    struct arena *a; /* nobody else's until the parsing ends */
    struct str json;
    json_t **out;
    struct err *e;
    int rc;
};

static void parse(void *arg)
{
    struct parse *p = arg;
    p->rc = json_parse(p->a, p->json, DEPTH, p->out, p->e);
}

suspends static int parse_list(struct arena *a, struct str json, json_t **out, struct err *e)
{
    struct parse p = {a, json, out, e, 0};
    if (json.n > INLINE_MAX)
        fiber_blocking(parse, &p);
    else
        parse(&p);
    return p.rc;
}

suspends static int breathe(size_t *since, size_t bytes, struct err *e)
{
    *since += bytes;
    if (*since < YIELD_BYTES || !fiber_self())
        return 0;
    *since = 0;
    return fiber_yield() ? err_set(e, ERR_CANCELED, "the job was cancelled") : 0;
}

suspends int given_chunks(struct arena *a, struct analyzer *an, struct str json, size_t max_chunks, struct extracted *x,
                          struct store_chunk_new **out, size_t *n, struct err *e)
{
    json_t *list, *item;
    struct buf text = {0}, terms = {0};
    struct given g;
    int64_t chars = 0;
    size_t i, since_yield = 0;
    if (parse_list(a, json, &list, e) || !json_is_array(list) || json_array_size(list) == 0)
        return err_set(e, ERR_VALIDATION, "the document is no list of chunks");
    if (json_array_size(list) > max_chunks)
        return err_set(e, ERR_VALIDATION, "the document has more than %zu chunks (ingest.max_chunks)", max_chunks);
    struct store_chunk_new *k = arena_alloc(a, json_array_size(list) * sizeof *k);
    int rc = 0;
    json_array_foreach (list, i, item) {
        rc = read_one(a, item, "", &g, e);
        if (rc == 0)
            rc = breathe(&since_yield, g.text.n, e);
        if (rc)
            break;
        if (i) {
            buf_lit(&text, "\n\n");
            chars += 2;
        }
        k[i] = make(a, an, &g, &terms);
        k[i].byte_start = (int64_t)text.n;
        k[i].char_start = chars;
        buf_str(&text, g.text);
        k[i].byte_end = (int64_t)text.n;
        k[i].char_end = chars += count_chars(g.text);
        x->pages = g.page > x->pages ? g.page : x->pages;
    }
    buf_fini(&terms);
    if (text.p)
        arena_own(a, text.p, free);
    x->text = buf_view(&text);
    *out = k;
    *n = json_array_size(list);
    return rc;
}
