/* Chunks that a client made. Whatever the bytes are: they are refused, or the chunks lie in their text one behind the other. */
#include "worker/core/given.h"
#include "worker/core/given_vectors.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Vectors are refused, or of length 1. */
static void vectors(struct arena *a, struct str json)
{
    json_t *list;
    struct given_vectors g;
    struct err e = {0};
    if (json_parse(a, json, 8, &list, &e) || !json_is_array(list))
        return;
    if (given_vectors_take(a, list, "/chunks", &g, &e)) {
        assert(e.code == ERR_VALIDATION && e.msg[0] && e.pointer[0]);
        return;
    }
    for (size_t i = 0; i < g.n; i++) {
        double sum = 0;
        for (int k = 0; k < g.dim; k++)
            sum += pow(g.v[i * (size_t)g.dim + (size_t)k], 2);
        assert(fabs(sum - 1) < 1e-3);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {0};
    struct err e = {0};
    struct extracted x = {0};
    struct store_chunk_new *k;
    size_t n;
    struct analyzer *an = analyzer_new(STR("english"), &e);
    char *copy = malloc(size + 1); /* so that a read beyond the end is seen */
    assert(an && copy);
    memcpy(copy, data, size);
    if (given_chunks(&a, an, (struct str){copy, size}, 1000, &x, &k, &n, &e)) {
        assert((e.code == ERR_VALIDATION || e.code == ERR_BAD_REQUEST) && e.msg[0]);
    } else {
        int64_t last = 0;
        assert(n > 0);
        for (size_t i = 0; i < n; i++) {
            assert(k[i].byte_start >= last && k[i].byte_start < k[i].byte_end);
            assert(str_eq(k[i].text, str_sub(x.text, (size_t)k[i].byte_start, k[i].text.n)));
            assert(str_is_utf8(k[i].text));
            last = k[i].byte_end;
        }
        assert(last == (int64_t)x.text.n);
    }
    vectors(&a, (struct str){copy, size});
    analyzer_free(an);
    free(copy);
    arena_fini(&a);
    return 0;
}
