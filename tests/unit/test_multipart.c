#include "tests/unit/cm.h"
#include "worker/http/multipart.h"
#include <stdio.h>

/* Delivers a text in pieces of a given size. */
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
    memcpy(buf, s->rest.p, n);
    s->rest = str_sub(s->rest, n, SIZE_MAX);
    return (ssize_t)n;
}

static const char form[] =
    "preamble\r\n--B\r\nContent-Disposition: form-data; name=\"one\"\r\n\r\nfirst\r\n--B \t\r\n"
    "Content-Disposition: form-data; name=file; filename=\"C:\\dir\\a \\\"b\\\".txt\"\r\n"
    "Content-Type: text/plain; charset=utf-8\r\nX-Other: 1\r\n\r\nline\r\n--Ax\r\n\r--B\r\n\r\n"
    "--B\r\nContent-Disposition: form-data; name=\"empty\"; filename=\"\"\r\n\r\n\r\n--B--\r\nepilogue";

static void next(struct multipart *m, struct multipart_part *p, const char *body)
{
    struct err e = {0};
    char data[256];
    size_t n = 0;
    bool more = false;
    ssize_t got;
    assert_int_equal(multipart_next(m, p, &more, &e), 0);
    assert_true(more);
    while ((got = multipart_read(m, data + n, 3, &e)) > 0)
        n += (size_t)got;
    assert_int_equal(got, 0);
    assert_int_equal(n, strlen(body));
    assert_memory_equal(data, body, n);
}

static void reads_parts_however_they_arrive(void **state)
{
    (void)state;
    for (size_t step = 1; step < sizeof form; step++) {
        struct arena a = {0};
        struct source s = {{form, sizeof form - 1}, step};
        struct multipart *m = multipart_new(&a, STR("B"), source_read, &s);
        struct multipart_part p;
        struct err e = {0};
        bool more;
        next(m, &p, "first");
        assert_true(str_eqz(p.name, "one"));
        assert_null(p.filename.p);
        next(m, &p, "line\r\n--Ax\r\n\r--B\r\n");
        assert_true(str_eqz(p.name, "file"));
        assert_true(str_eqz(p.filename, "a \"b\".txt"));
        assert_true(str_eqz(p.content_type, "text/plain; charset=utf-8"));
        next(m, &p, "");
        assert_true(p.filename.p && !p.filename.n);
        assert_int_equal(multipart_next(m, &p, &more, &e), 0);
        assert_false(more);
        assert_int_equal(s.rest.n, 0); /* the epilogue is taken, too */
        arena_fini(&a);
    }
}

static void skips_parts_that_nobody_reads(void **state)
{
    struct arena a = {0};
    struct source s = {{form, sizeof form - 1}, 5};
    struct multipart *m = multipart_new(&a, STR("B"), source_read, &s);
    struct multipart_part p;
    struct err e = {0};
    bool more = true;
    int n = 0;
    (void)state;
    while (multipart_next(m, &p, &more, &e) == 0 && more)
        n++;
    assert_false(more);
    assert_int_equal(n, 3);
    arena_fini(&a);
}

static enum err_code outcome(const char *text)
{
    struct arena a = {0};
    struct source s = {str_of(text), 7};
    struct multipart *m = multipart_new(&a, STR("B"), source_read, &s);
    struct multipart_part p;
    struct err e = {0};
    bool more = true;
    int rc;
    while ((rc = multipart_next(m, &p, &more, &e)) == 0 && more)
        continue;
    if (rc) { /* once failed, always failed */
        struct err again = {0};
        char c;
        assert_int_equal(multipart_next(m, &p, &more, &again), -1);
        assert_int_equal(multipart_read(m, &c, 1, &again), -1);
    }
    arena_fini(&a);
    return rc ? e.code : ERR_NONE;
}

#define PART "--B\r\nContent-Disposition: form-data; name=\"x\"\r\n"

static void refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "no boundary at all",
        "--B",
        PART "\r\nnever ends",
        PART "\r\nx\r\n--B-",
        PART "\r\nx\r\n--Bjunk\r\n\r\n--B--",
        "--B\r\n\r\nno name\r\n--B--",
        "--B\r\nContent-Disposition: attachment; name=\"x\"\r\n\r\nx\r\n--B--",
        "--B\r\nContent-Disposition: form-data; name=\"a\x01\"\r\n\r\nx\r\n--B--",
        "--B\r\nContent-Disposition: form-data; name=\"a\xff\"\r\n\r\nx\r\n--B--",
        "--B\r\nContent-Disposition: form-data; name=x; filename*=UTF-8''%ff\r\n\r\nx\r\n--B--",
        "--B\r\nContent-Disposition : form-data; name=x\r\n\r\nx\r\n--B--",
        PART "X: a\nY: b\r\n\r\nx\r\n--B--",
        PART "nothing\r\n\r\nx\r\n--B--",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(outcome(bad[i]), ERR_BAD_REQUEST);
    assert_int_equal(outcome(PART "Content-Transfer-Encoding: base64\r\n\r\neA==\r\n--B--"), ERR_MEDIA_TYPE);
    assert_int_equal(outcome(PART "Content-Transfer-Encoding: binary\r\n\r\nx\r\n--B--\r\n"), ERR_NONE);
    assert_int_equal(outcome("--B--"), ERR_NONE);
}

static void bounds_heads(void **state)
{
    char text[70000];
    (void)state;
    memset(text, 'x', sizeof text);
    memcpy(text, PART "X: ", sizeof PART "X: " - 1);
    text[sizeof text - 1] = 0;
    assert_int_equal(outcome(text), ERR_BAD_REQUEST);
    text[sizeof PART] = 0;
    size_t n = sizeof PART - 1;
    for (int i = 0; i < 40; i++)
        n += (size_t)sprintf(text + n, "X: y\r\n");
    strcpy(text + n, "\r\nx\r\n--B--");
    assert_int_equal(outcome(text), ERR_BAD_REQUEST);
}

static void parameters(void **state)
{
    struct arena a = {0};
    (void)state;
    struct str v = STR("form-data; name=\"a;b=\\\"c\\\\d\" ; FileName=plain ;x*=UTF-8''%e2%82%ac; empty=; flag");
    assert_true(str_eqz(multipart_param(&a, v, STR("name")), "a;b=\"c\\d"));
    assert_true(str_eqz(multipart_param(&a, v, STR("filename")), "plain"));
    assert_true(str_eqz(multipart_param(&a, v, STR("x*")), "UTF-8''%e2%82%ac"));
    assert_true(multipart_param(&a, v, STR("empty")).p && !multipart_param(&a, v, STR("empty")).n);
    assert_null(multipart_param(&a, v, STR("none")).p);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_parts_however_they_arrive),
        cmocka_unit_test(skips_parts_that_nobody_reads),
        cmocka_unit_test(refuses),
        cmocka_unit_test(bounds_heads),
        cmocka_unit_test(parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
