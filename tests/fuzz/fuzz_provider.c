/* What model servers answer. The first byte chooses the reader. Vectors that are accepted have length 1; an answer in words
 * is the same however its bytes arrive. */
#include "worker/embed/embed_wire.h"
#include "worker/llm/llm_wire.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void vectors(struct str body, size_t n)
{
    struct arena a = {0};
    struct err e = {0};
    float *v;
    int dim;
    int64_t tokens;
    if (embed_wire_read(&a, body, n, &v, &dim, &tokens, &e)) {
        assert(e.code == ERR_PROVIDER && e.msg[0]);
    } else {
        assert(dim > 0 && dim <= EMBED_DIM_MAX && tokens >= 0);
        for (size_t i = 0; i < n; i++) {
            double sum = 0;
            for (int k = 0; k < dim; k++)
                sum += (double)v[i * (size_t)dim + (size_t)k] * v[i * (size_t)dim + (size_t)k];
            assert(fabs(sum - 1) < 1e-3);
        }
    }
    embed_wire_too_long(400, body);
    arena_fini(&a);
}

static int words(struct str body, const char *type, size_t step, struct buf *out)
{
    struct llm_reader r;
    struct err e = {0};
    int rc = 0;
    llm_reader_init(&r, str_of(type));
    while (rc == 0 && body.n) {
        rc = llm_reader_feed(&r, str_sub(body, 0, step), &e);
        body = str_sub(body, step, SIZE_MAX);
    }
    if (rc == 0)
        rc = llm_reader_end(&r, &e);
    assert(rc == 0 || e.code == ERR_PROVIDER);
    assert(r.usage.prompt_tokens >= -1 && r.usage.completion_tokens >= -1);
    buf_str(out, buf_view(&r.text));
    llm_reader_fini(&r);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct str body = {(const char *)data + 1, size - 1};
    if (data[0] & 1) {
        vectors(body, (size_t)(data[0] >> 1) % 4 + 1);
        return 0;
    }
    const char *type = data[0] & 2 ? "application/json" : "text/event-stream";
    struct buf one = {0}, other = {0};
    int rc = words(body, type, 1, &one);
    assert(rc == words(body, type, SIZE_MAX, &other));
    assert(str_eq(buf_view(&one), buf_view(&other)));
    buf_fini(&one);
    buf_fini(&other);
    return 0;
}
