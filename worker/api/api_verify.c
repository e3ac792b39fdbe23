#include "worker/api/api.h"

/* Does a citation still hold? The quoted characters are compared with what the document's text, as it is indexed now, has
 * in that place. Answers why not, as one word. */

struct citation {
    int64_t char_start, char_end;
    bool has_quote, has_sha256;
    struct str quote;
    struct sha256 sha256; /* of the quote */
};

static int read_citation(struct request *r, struct citation *c, struct err *e)
{
    static const char *const allowed[] = {"char_start", "char_end", "quote", "sha256", NULL};
    struct str hex;
    if (request_query_only(r, allowed, e) || request_query_int(r, "char_start", -1, 0, INT64_MAX, &c->char_start, e) ||
        request_query_int(r, "char_end", -1, 0, INT64_MAX, &c->char_end, e))
        return -1;
    c->has_quote = request_query(r, STR("quote"), &c->quote);
    c->has_sha256 = request_query(r, STR("sha256"), &hex);
    if (c->has_sha256 && !sha256_parse(hex, &c->sha256))
        return err_at(e, "sha256", "'sha256' must be 64 hexadecimal digits: the hash of the quote");
    if (c->char_start < 0 || c->char_end < 0)
        return err_at(e, c->char_start < 0 ? "char_start" : "char_end", "'char_start' and 'char_end' are required");
    if (!c->has_quote && !c->has_sha256)
        return err_at(e, "quote", "'quote', 'sha256' of the quote, or both are required");
    return 0;
}

/* The bytes of n characters from the beginning; SIZE_MAX when there are fewer. */
static size_t bytes_of(struct str s, int64_t n)
{
    size_t at = 0;
    for (; n > 0; n--) {
        if (at >= s.n)
            return SIZE_MAX;
        do
            at++;
        while (at < s.n && ((unsigned char)s.p[at] & 0xc0) == 0x80);
    }
    return at;
}

/* NULL: it holds. */
static const char *refute(const struct store_chunk *k, const struct citation *c)
{
    struct sha256 hash;
    if (c->char_start < k->char_start || c->char_end > k->char_end || c->char_end <= c->char_start)
        return "out_of_range";
    size_t from = bytes_of(k->text, c->char_start - k->char_start);
    size_t to = bytes_of(k->text, c->char_end - k->char_start);
    if (from == SIZE_MAX || to == SIZE_MAX)
        return "out_of_range";
    struct str now = str_sub(k->text, from, to - from);
    if (c->has_quote && !str_eq(now, c->quote))
        return "text_differs";
    sha256_of(now.p, now.n, &hash);
    if (c->has_sha256 && memcmp(&hash, &c->sha256, sizeof hash) != 0)
        return "hash_differs";
    return NULL;
}

suspends int api_chunk_verify(struct request *r, struct err *e)
{
    struct citation c = {0};
    struct store_document d;
    struct store_chunk k;
    struct uuid document, id;
    if (api_id(r, 0, "document", &document, e) || api_id(r, 1, "chunk", &id, e) || read_citation(r, &c, e))
        return -1;
    if (STORE_CALL(r->app->store, document_get, &r->arena, &document, &d, e))
        return api_failed("document", r->param[0], e);
    const char *reason;
    if (STORE_CALL(r->app->store, chunk_get, &r->arena, &id, &k, e) == 0)
        reason = uuid_eq(&k.document, &document) ? refute(&k, &c) : "chunk_gone";
    else if (e->code == ERR_NOT_FOUND)
        reason = "chunk_gone"; /* the document has another text by now */
    else
        return -1;
    struct json_out o = api_reply(r, 200);
    jo_begin(&o, '{');
    jo_member(&o, "valid"), jo_bool(&o, !reason);
    jo_member(&o, "reason"), reason ? jo_strz(&o, reason) : jo_null(&o);
    jo_end(&o, '}');
    return 0;
}
