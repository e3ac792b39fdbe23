/* An answer with marks as any model may write it, in one piece and in small ones: the same must be shown, no mark of a
 * source that there is not, and every span lies in the text. */
#include "worker/core/cite.h"
#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(struct cite *c, struct buf *out, struct str text, size_t sources, size_t step)
{
    cite_init(c, sources);
    for (; text.n; text = str_sub(text, step, text.n))
        cite_add(c, str_sub(text, 0, step), out);
    cite_end(c, out);
    assert(str_eq(buf_view(&c->text), buf_view(out)));
    for (size_t i = 0; i < c->n; i++) {
        const struct cite_span *s = &c->span[i];
        assert(s->source >= 1 && s->source <= sources && s->from >= 0 && s->from < s->to && s->to <= c->chars);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf a = {0}, b = {0};
    struct cite x, y;
    if (size < 2)
        return 0;
    struct str text = {(const char *)data + 1, size - 1};
    run(&x, &a, text, data[0] % 5, SIZE_MAX);
    run(&y, &b, text, data[0] % 5, 1 + data[0] % 7);
    assert(str_eq(buf_view(&a), buf_view(&b)) && x.n == y.n && x.chars == y.chars && x.invented == y.invented);
    assert(a.n <= 2 * text.n);
    cite_fini(&x);
    cite_fini(&y);
    buf_fini(&a);
    buf_fini(&b);
    return 0;
}
