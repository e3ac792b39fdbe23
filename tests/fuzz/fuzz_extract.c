/* From the bytes of a file to its chunks. The first byte chooses what the client says of it and how it is cut; the rest is
 * the file. Whatever it is: it is refused with a code, or its blocks, chunks and terms keep their promises. */
#include "tests/fuzz/blocks.h"
#include "worker/core/chunk.h"
#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    const char *mime, *filename;
} said[] = {
    {"", "a.md"}, {"text/html", ""}, {"", "a.txt"}, {"", "a.c"}, {"text/plain; charset=koi8-r", ""}, {"", ""},
};

static void check_terms(struct str terms)
{
    for (size_t i = 0, n = 0; i <= terms.n; i++) {
        if (i < terms.n && terms.p[i] != ' ') {
            assert((unsigned char)terms.p[i] > ' ');
            n++;
            continue;
        }
        assert(terms.n == 0 || (n > 0 && n <= ANALYZE_TERM_MAX));
        n = 0;
    }
    assert(str_is_utf8(terms));
}

static void check_chunks(const struct extracted *x, const struct store_chunk_new *k, size_t n, int max_tokens)
{
    int64_t last = 0, chars = 0;
    size_t at = 0;
    assert(n > 0);
    for (size_t i = 0; i < n; i++, k++) {
        assert(k->byte_start >= 0 && k->byte_start < k->byte_end && k->byte_end <= (int64_t)x->text.n);
        assert(k->byte_end > last && k->tokens <= 3 * max_tokens); /* A AB B */
        last = k->byte_end;
        assert(str_eq(k->text, str_sub(x->text, (size_t)k->byte_start, (size_t)(k->byte_end - k->byte_start))));
        assert(str_is_utf8(k->text));
        if ((size_t)k->byte_start < at)
            at = 0, chars = 0;
        for (; at < (size_t)k->byte_start; at++)
            chars += ((unsigned char)x->text.p[at] & 0xc0) != 0x80;
        assert(k->char_start == chars);
        check_terms(k->terms);
    }
    assert(last == (int64_t)x->text.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const languages[] = {"english", "none", "german", "russian"};
    if (size == 0)
        return 0;
    struct arena a = {0};
    struct err e = {0};
    struct extracted x;
    const char *code = NULL;
    unsigned how = data[0];
    size_t s = how % (sizeof said / sizeof *said);
    char *copy = malloc(size); /* so that a read beyond the end is seen */
    assert(copy);
    memcpy(copy, data + 1, size - 1);
    if (extract(&a, (struct str){copy, size - 1}, str_of(said[s].mime), str_of(said[s].filename), &x, &code, &e)) {
        assert(e.code == ERR_VALIDATION && code && e.msg[0]);
    } else {
        check_blocks(&x);
        struct chunking c = {how / 6 % 4, how / 24 % 2 ? 16 : 100, how / 48 % 2 ? 8 : 0, 200};
        struct analyzer *an = analyzer_new(str_of(languages[how / 96 % 4]), &e);
        struct store_chunk_new *chunks;
        size_t n;
        assert(an && chunk_document(&a, an, &x, &c, 1000000, &chunks, &n, &e) == 0);
        check_chunks(&x, chunks, n, c.max_tokens);
        analyzer_free(an);
    }
    free(copy);
    arena_fini(&a);
    return 0;
}
