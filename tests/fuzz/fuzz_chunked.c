/* A chunked body as anybody can send it, in one piece and byte by byte: the same data and the same outcome. */
#include "worker/http/chunked.h"
#include "common/buf.h"
#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* How much of the text was taken; the data goes to `out`, the outcome behind it. */
static size_t run(struct buf *out, struct str text, size_t step)
{
    struct chunked c = {0};
    struct err e = {0};
    size_t at = 0, have = 0;
    while (have < text.n && c.state != CHUNK_END) {
        have = step < text.n - have ? have + step : text.n;
        while (at < have && c.state != CHUNK_END) {
            if (c.state == CHUNK_DATA) {
                size_t n = (int64_t)(have - at) < c.left ? have - at : (size_t)c.left;
                buf_add(out, text.p + at, n);
                chunked_data(&c, n);
                at += n;
                continue;
            }
            ssize_t n = chunked_control(&c, str_sub(text, at, have - at), &e);
            if (n < 0) {
                assert(e.code == ERR_BAD_REQUEST);
                buf_ch(out, 'x');
                return 0;
            }
            assert(n > 0);
            at += (size_t)n;
        }
    }
    assert(c.left >= 0 && out->n <= at);
    buf_ch(out, c.state == CHUNK_END ? '.' : '+');
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole = {0}, bytes = {0};
    char *copy = malloc(size ? size : 1);
    assert(copy);
    if (size)
        memcpy(copy, data, size);
    size_t n = run(&whole, (struct str){copy, size}, SIZE_MAX);
    assert(run(&bytes, (struct str){copy, size}, 1) == n);
    assert(str_eq(buf_view(&whole), buf_view(&bytes)));
    if (n && whole.p[whole.n - 1] == '.')
        assert(n >= 5 && memcmp(copy + n - 2, "\r\n", 2) == 0);
    buf_fini(&whole);
    buf_fini(&bytes);
    free(copy);
    return 0;
}
