/* arena, buf and list: who owns what, and in which order things end. */
#include "tests/unit/cm.h"
#include "common/arena.h"
#include "common/buf.h"
#include "common/list.h"
#include <stdlib.h>

static int order[8], n_order;

static void note(void *res)
{
    order[n_order++] = *(int *)res;
}

static void arena_gives_aligned_lasting_memory(void **state)
{
    struct arena a = {0};
    char *all[200];
    (void)state;
    for (size_t i = 0; i < 200; i++) {
        size_t n = i * 37 % 3000 + (i % 17 == 0 ? 9000 : 0);
        all[i] = arena_alloc(&a, n);
        assert_int_equal((uintptr_t)all[i] % 16, 0);
        memset(all[i], (int)i, n);
    }
    for (size_t i = 0; i < 200; i++) { /* nothing overlapped */
        size_t n = i * 37 % 3000 + (i % 17 == 0 ? 9000 : 0);
        for (size_t k = 0; k < n; k++)
            assert_int_equal((unsigned char)all[i][k], i);
    }
    char *zero = arena_zalloc(&a, 5000);
    for (size_t k = 0; k < 5000; k++)
        assert_int_equal(zero[k], 0);
    assert_true(arena_size(&a) > 200 * 100);
    arena_fini(&a);
    assert_int_equal(arena_size(&a), 0);
    assert_non_null(arena_alloc(&a, 0)); /* may be used again */
    arena_fini(&a);
}

static void arena_copies(void **state)
{
    struct arena a;
    (void)state;
    arena_init(&a);
    assert_int_equal(arena_size(&a), 0);
    char source[] = "text";
    struct str s = arena_dup(&a, str_of(source));
    char *z = arena_strdup(&a, source);
    source[0] = 'x';
    assert_string_equal(s.p, "text"); /* terminated behind its length */
    assert_string_equal(z, "text");
    assert_string_equal(arena_dup(&a, (struct str){NULL, 0}).p, "");
    assert_string_equal(arena_printf(&a, "%s-%d", "a", 7).p, "a-7");
    struct str wide = arena_printf(&a, "%01000d", 7);
    assert_int_equal(wide.n, 1000);
    assert_int_equal(strlen(wide.p), 1000);
    arena_fini(&a);
}

static void arena_releases_what_it_owns_last_first(void **state)
{
    struct arena a = {0};
    int one = 1, two = 2, three = 3;
    (void)state;
    n_order = 0;
    assert_ptr_equal(arena_own(&a, &one, note), &one);
    arena_own(&a, &two, note);
    arena_own(&a, &three, note);
    arena_own(&a, malloc(10), free); /* a leak would be reported */
    arena_fini(&a);
    assert_int_equal(n_order, 3);
    assert_int_equal(order[0], 3);
    assert_int_equal(order[2], 1);
    arena_fini(&a);
    assert_int_equal(n_order, 3);
}

static void buf_grows(void **state)
{
    struct buf b;
    (void)state;
    buf_init(&b);
    buf_lit(&b, "a");
    buf_ch(&b, 'b');
    buf_str(&b, STR("cd"));
    buf_add(&b, NULL, 0);
    buf_printf(&b, "%d", 12);
    buf_u64(&b, UINT64_MAX);
    buf_ch(&b, ' ');
    buf_i64(&b, INT64_MIN);
    buf_ch(&b, ' ');
    buf_i64(&b, 0);
    assert_true(str_eqz(buf_view(&b), "abcd1218446744073709551615 -9223372036854775808 0"));
    b.n = 0;
    buf_printf(&b, "%01000d", 5); /* longer than what is reserved at first */
    assert_int_equal(b.n, 1000);
    assert_int_equal(b.p[999], '5');
    for (int i = 0; i < 100000; i++)
        buf_ch(&b, 'x');
    assert_int_equal(b.n, 101000);
    buf_fini(&b);
    assert_int_equal(b.n, 0);
    buf_fini(&b);
    buf_fini(NULL);
}

static void buf_drops_from_the_front(void **state)
{
    struct buf b = {0};
    (void)state;
    buf_drop(&b, 0);
    buf_lit(&b, "abcdef");
    buf_drop(&b, 2);
    assert_true(str_eqz(buf_view(&b), "cdef"));
    buf_drop(&b, 4);
    assert_int_equal(b.n, 0);
    buf_fini(&b);
}

struct item {
    int v;
    struct list link;
};

static int sum(const struct list *head)
{
    int s = 0;
    list_for_each (it, head)
        s = s * 10 + list_entry(it, struct item, link)->v;
    return s;
}

static void lists(void **state)
{
    struct list a, b;
    struct item i[4] = {{.v = 1}, {.v = 2}, {.v = 3}, {.v = 4}};
    (void)state;
    list_init(&a);
    list_init(&b);
    assert_true(list_empty(&a));
    assert_null(list_pop(&a));
    list_add_tail(&a, &i[0].link);
    list_add_tail(&a, &i[1].link);
    list_add(&a, &i[2].link);
    assert_int_equal(sum(&a), 312);
    list_add(&b, &i[3].link);
    list_splice_tail(&a, &b);
    assert_true(list_empty(&b));
    list_splice_tail(&a, &b); /* of an empty one: nothing */
    assert_int_equal(sum(&a), 3124);
    list_for_each_safe (it, &a)
        if (list_entry(it, struct item, link)->v % 2 == 0)
            list_del(it);
    assert_int_equal(sum(&a), 31);
    list_del(&i[1].link); /* already out: harmless */
    assert_ptr_equal(list_pop(&a), &i[2].link);
    assert_ptr_equal(list_pop(&a), &i[0].link);
    assert_true(list_empty(&a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_gives_aligned_lasting_memory),
        cmocka_unit_test(arena_copies),
        cmocka_unit_test(arena_releases_what_it_owns_last_first),
        cmocka_unit_test(buf_grows),
        cmocka_unit_test(buf_drops_from_the_front),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
