/* All ways to compare codes give the same sums, and codes lose little of the floats. */
#include "tests/unit/vectors.h"
#include "worker/vector/dot.h"
#include "worker/vector/vscan.h"

static void fill(int8_t *p, size_t n, uint64_t *seed, bool extreme)
{
    for (size_t i = 0; i < n; i++) {
        int v = (int)(draw(seed) % 255) - 127;
        p[i] = (int8_t)(extreme ? (v < 0 ? -127 : 127) : v);
    }
}

static void every_kernel_gives_the_same_sums(void **state)
{
    static const size_t strides[] = {32, 64, 96, 384, 1024, 3072, VFILE_DIM_MAX};
    enum { N = 5 };
    int8_t *a = malloc(VFILE_DIM_MAX), *v = malloc((size_t)N * VFILE_DIM_MAX);
    uint64_t seed = 7;
    (void)state;
    assert_true(a && v);
    for (size_t i = 0; i < 2 * sizeof strides / sizeof *strides; i++) {
        size_t stride = strides[i / 2];
        int32_t want[N], got[N];
        fill(a, stride, &seed, i % 2);
        fill(v, N * stride, &seed, i % 2);
        for (size_t k = 0; k < N; k++) {
            want[k] = 0;
            for (size_t x = 0; x < stride; x++)
                want[k] += a[x] * v[k * stride + x];
        }
        for (const struct dot_kernel *k = dot_kernels; k->name; k++) {
            if (k->usable && !k->usable())
                continue;
            k->fn(a, v, stride, N, got);
            assert_memory_equal(want, got, sizeof want);
        }
    }
    free(a);
    free(v);
}

static void codes_are_near_the_floats(void **state)
{
    enum { DIM = 100, STRIDE = 128 };
    struct arena a = {0};
    (void)state;
    float *v = vectors_of(&a, 3, 200, DIM), scale[2];
    int8_t code[2][STRIDE];
    for (size_t i = 0; i + 1 < 200; i++) {
        int32_t sum;
        for (size_t k = 0; k < 2; k++) {
            assert_true(dot_encode(v + (i + k) * DIM, DIM, STRIDE, code[k], &scale[k]));
            for (size_t x = DIM; x < STRIDE; x++)
                assert_int_equal(code[k][x], 0);
        }
        dot_best()(code[0], code[1], STRIDE, 1, &sum);
        float exact = dot_exact(v + i * DIM, v + (i + 1) * DIM, DIM);
        assert_true(fabsf((float)sum * scale[0] * scale[1] - exact) < 0.005f);
    }
    memset(v, 0, DIM * sizeof *v);
    assert_true(dot_encode(v, DIM, STRIDE, code[0], scale));
    v[5] = NAN;
    assert_false(dot_encode(v, DIM, STRIDE, code[0], scale));
    v[5] = INFINITY;
    assert_false(dot_encode(v, DIM, STRIDE, code[0], scale));
    arena_fini(&a);
}

/* What the scan of codes finds, with every kernel, is what comparing all floats finds. */
static void the_scan_finds_what_brute_force_finds(struct world *w)
{
    enum { DOCUMENTS = 60, POINTS = 100, K = 10, QUERIES = 20 };
    struct arena own = {0};
    struct vector_hit *want = malloc((size_t)DOCUMENTS * POINTS * sizeof *want), *hit;
    size_t n;
    must(w, want);
    w->s.dim = 384;
    for (int64_t no = 0; no < DOCUMENTS; no++)
        ok(w, put(w, no, 1, POINTS));
    for (uint64_t i = 0; i < QUERIES; i++) {
        float *query = vectors_of(&own, 1000000 + i, 1, 384);
        for (int64_t no = 0; no < DOCUMENTS; no++) {
            float *v = vectors_of(&own, seed_of(no, 1), POINTS, 384);
            for (int64_t x = 0; x < POINTS; x++)
                want[no * POINTS + x] = (struct vector_hit){no << 20 | x, 1, dot_exact(query, v + x * 384, 384)};
        }
        qsort(want, (size_t)DOCUMENTS * POINTS, sizeof *want, vectors_hit_order);
        struct vector_query q = {.v = query, .k = K};
        ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
        same(w, n, K);
        for (size_t x = 0; x < K; x++)
            same(w, hit[x].no, want[x].no);
        for (const struct dot_kernel *k = dot_kernels; k->name; k++) {
            enum vview_state found;
            struct vview *view = NULL;
            struct vscan s;
            if (k->usable && !k->usable())
                continue;
            must(w, vview_refresh(&view, w->path, &found) == 0 && found == VVIEW_FOUND);
            vscan_begin(&s, &own, view, &q, k->fn);
            while (vscan_step(&s, 1000) == 0)
                ;
            vscan_end(&s, &own, &hit, &n);
            same(w, s.scanned, DOCUMENTS * POINTS);
            for (size_t x = 0; x < K; x++)
                same(w, hit[x].no, want[x].no);
            vview_unref(view);
            vview_unref(view);
        }
        arena_fini(&own);
    }
    free(want);
}

static void brute_force(void **state)
{
    (void)state;
    world_run(open_embedded, the_scan_finds_what_brute_force_finds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_gives_the_same_sums),
        cmocka_unit_test(codes_are_near_the_floats),
        cmocka_unit_test(brute_force),
    };
    log_init(LOG_ERROR, false, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
