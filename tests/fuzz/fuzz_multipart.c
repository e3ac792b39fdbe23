/* multipart/form-data as anybody can send it, delivered in pieces of two different sizes: parts, their names and their
 * bytes must be the same, and no name may lead out of a folder. The first byte chooses the boundary's length. */
#include "worker/http/multipart.h"
#include "common/buf.h"
#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct source {
    struct str rest;
    size_t step;
};

static ssize_t source_read(void *arg, void *buf, size_t cap, struct err *e)
{
    struct source *s = arg;
    (void)e;
    size_t n = s->step < cap ? s->step : cap;
    n = n < s->rest.n ? n : s->rest.n;
    if (n)
        memcpy(buf, s->rest.p, n);
    s->rest = str_sub(s->rest, n, SIZE_MAX);
    return (ssize_t)n;
}

/* Everything that was read, as text; the outcome as its last byte. */
static void run(struct buf *out, struct str boundary, struct str body, size_t step, size_t cap)
{
    struct arena a = {0};
    struct source s = {body, step};
    struct multipart *m = multipart_new(&a, boundary, source_read, &s);
    struct multipart_part p;
    struct err e = {0};
    char data[300];
    bool more = true;
    int rc;
    while ((rc = multipart_next(m, &p, &more, &e)) == 0 && more) {
        ssize_t n;
        assert(p.name.p && str_is_utf8(p.name) && str_is_utf8(p.filename));
        assert(!p.filename.n || (!memchr(p.filename.p, '/', p.filename.n) && !memchr(p.filename.p, 0, p.filename.n)));
        buf_printf(out, "[%zu %zu %zu]", p.name.n, p.filename.n, p.content_type.n);
        buf_str(out, p.name);
        buf_str(out, p.filename);
        while ((n = multipart_read(m, data, cap, &e)) > 0)
            buf_add(out, data, (size_t)n);
        if (n < 0)
            break;
    }
    assert(rc == 0 || e.code == ERR_BAD_REQUEST || e.code == ERR_MEDIA_TYPE);
    if (rc == 0 && !more)
        assert(s.rest.n == 0);
    buf_ch(out, rc ? 'x' : '.');
    arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf a = {0}, b = {0};
    if (size < 2)
        return 0;
    size_t n = data[0] % 4 + 1;
    if (size < n + 1)
        return 0;
    struct str boundary = {(const char *)data + 1, n}, body = {(const char *)data + 1 + n, size - 1 - n};
    run(&a, boundary, body, SIZE_MAX, 300);
    run(&b, boundary, body, 1 + data[0] % 7, 1 + data[0] % 50);
    assert(str_eq(buf_view(&a), buf_view(&b)));
    buf_fini(&a);
    buf_fini(&b);
    return 0;
}
