#include "tests/unit/cm.h"
#include "worker/core/cite.h"
#include <stdio.h>
#include <stdlib.h>

/* The text as it is shown, and its spans as "source:statement|…", whatever the pieces are. */
static void check(const char *text, size_t sources, const char *shown, const char *spans)
{
    for (size_t step = 1; step < 9; step++) {
        struct cite c;
        struct buf out = {0}, told = {0};
        cite_init(&c, sources);
        struct str rest = str_of(text);
        while (rest.n) {
            cite_add(&c, str_sub(rest, 0, step), &out);
            rest = str_sub(rest, step, rest.n);
        }
        cite_end(&c, &out);
        buf_ch(&out, 0);
        assert_string_equal(out.p, shown);
        assert_true(str_eqz(buf_view(&c.text), shown));
        for (size_t i = 0; i < c.n; i++) {
            size_t at = 0, chars = 0, from = 0;
            for (; at <= c.text.n; at++) {
                bool begins = at == c.text.n || ((unsigned char)c.text.p[at] & 0xc0) != 0x80;
                if (begins && chars == (size_t)c.span[i].from)
                    from = at;
                if (begins && chars++ == (size_t)c.span[i].to)
                    break;
            }
            buf_printf(&told, "%s%zu:%.*s", i ? "|" : "", c.span[i].source, (int)(at - from), c.text.p + from);
        }
        buf_ch(&told, 0);
        assert_string_equal(told.p, spans);
        buf_fini(&told);
        buf_fini(&out);
        cite_fini(&c);
    }
}

static void test_statements(void **state)
{
    (void)state;
    check("Foo is bar [1]. Baz is qux [2].", 2, "Foo is bar [1]. Baz is qux [2].", "1:Foo is bar|2:Baz is qux");
    check("Foo. [1] Bar! Baz? [2]", 2, "Foo. [1] Bar! Baz? [2]", "1:Foo.|2:Baz?");
    check("It is 157.5 m high[1][2], they say [1].", 2, "It is 157.5 m high[1][2], they say [1].",
          "1:It is 157.5 m high|2:It is 157.5 m high|1:they say");
    check("Der Käse ist grün. 東京は首都です。京都は違う[1]。", 1, "Der Käse ist grün. 東京は首都です。京都は違う[1]。",
          "1:京都は違う");
    check("- one\n- two [1]\n", 1, "- one\n- two [1]\n", "1:- two");
    check("Both [1, 2].", 2, "Both [1, 2].", "1:Both|2:Both");
    check("All [1-3].", 4, "All [1, 2, 3].", "1:All|2:All|3:All");
    check("Some [1, 3 – 4].", 4, "Some [1, 3, 4].", "1:Some|3:Some|4:Some");
}

static void test_inventions_are_removed(void **state)
{
    (void)state;
    check("Foo [3]. Bar [1,7].", 2, "Foo. Bar [1].", "1:Bar");
    check("Foo [0][2024][12].", 2, "Foo[2024].", "");
    check("[1] Foo", 1, "[1] Foo", "");
    check("Foo [7] bar [1].", 1, "Foo bar [1].", "1:Foo bar");
    check("Nothing known [1].", 0, "Nothing known.", "");
    check("Foo [2-4]. Bar [1-999].", 2, "Foo [2]. Bar [1, 2].", "2:Foo|1:Bar|2:Bar");
}

static void test_what_is_no_mark(void **state)
{
    (void)state;
    check("a [b] [] [1 [1.] [ ] [,1] [", 1, "a [b] [] [1 [1.] [ ] [,1] [", "");
    check("Digits [0-9], [3-1], [1-], [-1], [1-2-3], [1–] and [–]", 3,
          "Digits [0-9], [3-1], [1-], [-1], [1-2-3], [1–] and [–]", "");
    check("Code `a[7]` and ```x [8]\n```[1]", 1, "Code `a[7]` and ```x [8]\n```[1]", "1:```");
    check("many            spaces and [1111111111111111111111111111111111111111111111111111111111111111111111111]", 1,
          "many            spaces and [1111111111111111111111111111111111111111111111111111111111111111111111111]", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statements),
        cmocka_unit_test(test_inventions_are_removed),
        cmocka_unit_test(test_what_is_no_mark),
    };
    return cmocka_run_group_tests_name("cite", tests, NULL, NULL);
}
