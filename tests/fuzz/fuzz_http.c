/* The head of a request, as anybody can send it. Read in one piece and in pieces that the input itself chooses, it must
 * give the same: the same length or the same error, the same fields. What is accepted keeps the promises that the rest
 * of the server builds on. */
#include "worker/http/parser.h"
#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct parser_limits limits = {.request_line = 200, .header_bytes = 1000, .headers = 20};

static int in_pieces(struct parser *p, struct str text, uint32_t seed, struct err *e)
{
    *p = (struct parser){0};
    for (size_t have = 0; have < text.n;) {
        seed = seed * 1664525 + 1013904223;
        have += 1 + (seed >> 24) % 17;
        have = have < text.n ? have : text.n;
        int n = parser_scan(p, str_sub(text, 0, have), &limits, e);
        if (n)
            return n;
    }
    return 0;
}

static bool has_control(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 0x7f)
            return true;
    return false;
}

static void check_head(const struct head *h, size_t lines)
{
    int hosts = 0;
    assert(parser_is_token(h->method_name));
    assert(h->target.n && !has_control(h->target) && !memchr(h->target.p, ' ', h->target.n));
    assert(h->minor == 0 || h->minor == 1);
    assert(h->n_header == lines - 1);
    assert(!(h->chunked && h->content_length >= 0));
    assert(!(h->chunked && h->minor == 0));
    for (size_t i = 0; i < h->n_header; i++) {
        assert(parser_is_token(h->header[i].name));
        assert(!has_control(h->header[i].value));
        assert(str_eq(str_trim(h->header[i].value), h->header[i].value));
        hosts += str_ieq(h->header[i].name, STR("host"));
    }
    assert(hosts == 1 || (hosts == 0 && h->minor == 0));
    assert(parser_is_host(h->host));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct parser whole = {0}, pieces;
    struct err e = {0}, e2 = {0};
    struct header fields[32];
    struct head h = {.header = fields};
    if (size < 4)
        return 0;
    uint32_t seed;
    memcpy(&seed, data, 4);
    /* Through a copy, so that a read beyond the end is seen. */
    char *copy = malloc(size - 4 + 1);
    assert(copy);
    memcpy(copy, data + 4, size - 4);
    struct str text = {copy, size - 4};
    int n = parser_scan(&whole, text, &limits, &e);
    assert(in_pieces(&pieces, text, seed, &e2) == n);
    assert(e.code == e2.code);
    if (n > 0) {
        assert((size_t)n <= text.n && n >= 4 && memcmp(text.p + n - 4, "\r\n\r\n", 4) == 0);
        assert(memcmp(&whole, &pieces, sizeof whole) == 0);
        struct str head = {malloc((size_t)n - whole.skip), (size_t)n - whole.skip};
        memcpy((char *)head.p, text.p + whole.skip, head.n);
        if (parser_head(head, &h, &e) == 0)
            check_head(&h, whole.lines);
        else
            assert(e.code && e.msg[0]);
        free((char *)head.p);
    }
    free(copy);
    return 0;
}
