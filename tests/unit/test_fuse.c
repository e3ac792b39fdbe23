/* Two ranked lists become one. */
#include "tests/unit/cm.h"
#include "worker/core/retrieve_private.h"
#include <math.h>

enum { MAX = 40 };

struct arm_list {
    struct ranked r[MAX];
    struct ranking all;
};

/* Scores fall, numbers are those of chunks; `more`: further ones match, with less. */
static struct ranking *list(struct arm_list *l, bool words, const int64_t *no, const double *score, size_t n, bool more)
{
    *l = (struct arm_list){0};
    for (size_t i = 0; i < n; i++) {
        l->r[i] = (struct ranked){.no = no[i], .score = score[i]};
        *(words ? &l->r[i].lexical : &l->r[i].vector) = (int)i + 1;
        *(words ? &l->r[i].bm25 : &l->r[i].cosine) = score[i];
    }
    l->all = (struct ranking){.r = l->r, .n = n, .total = (int64_t)n + more};
    return &l->all;
}

static void an_arm_that_is_sure_outweighs_one_that_is_not(void **state)
{
    (void)state;
    struct arena a = {0};
    struct arm_list w, v;
    struct ranking out;
    /* Words are sure of 1, and hardly tell 2 from 3; vectors find everything equally near, and 1 not at all. */
    fuse(&a, list(&w, true, (int64_t[]){1, 2, 3}, (double[]){20, 3, 2.9}, 3, true),
         list(&v, false, (int64_t[]){2, 4, 5, 6}, (double[]){0.43, 0.42, 0.41, 0.40}, 4, true), 1, 1, MAX, false, &out);
    assert_int_equal(out.n, 6);
    assert_int_equal(out.r[0].no, 1);
    assert_int_equal(out.r[1].no, 2);
    assert_true(out.r[1].rrf > out.r[0].rrf); /* by rank alone it would be the other way round */
    assert_true(out.r[0].lexical_share > 0.99 && out.r[0].vector_share == 0 && out.r[0].score < 1);
    /* And the other way round. */
    fuse(&a, list(&w, true, (int64_t[]){2, 4, 5, 6}, (double[]){4.3, 4.2, 4.1, 4.0}, 4, true),
         list(&v, false, (int64_t[]){1, 2, 3}, (double[]){0.9, 0.3, 0.29}, 3, true), 1, 1, MAX, false, &out);
    assert_int_equal(out.r[0].no, 1);
    assert_true(out.r[0].vector_share > 0.99 && out.r[0].lexical_share == 0);
    arena_fini(&a);
}

static void the_only_match_of_a_rare_word_is_not_lost(void **state)
{
    (void)state;
    struct arena a = {0};
    struct arm_list w, v;
    struct ranking out;
    int64_t no[MAX];
    double score[MAX];
    for (int i = 0; i < MAX; i++) {
        no[i] = 100 + i;
        score[i] = 0.8 - 0.01 * i;
    }
    fuse(&a, list(&w, true, (int64_t[]){7}, (double[]){0.4}, 1, false), list(&v, false, no, score, MAX, true), 1, 1,
         MAX, false, &out);
    assert_int_equal(out.r[0].no, 7);
    assert_true(out.r[0].lexical_share == 1);
    arena_fini(&a);
}

static void scores_lie_between_0_and_1(void **state)
{
    (void)state;
    struct arena a = {0};
    struct arm_list w, v;
    struct ranking out;
    /* First in both; all alike in one of them. */
    fuse(&a, list(&w, true, (int64_t[]){1, 2}, (double[]){5, 5}, 2, true),
         list(&v, false, (int64_t[]){1, 3}, (double[]){-0.1, -0.3}, 2, true), 1, 1, MAX, false, &out);
    assert_true(out.r[0].no == 1 && fabs(out.r[0].score - 1) < 1e-12);
    assert_true(out.r[0].lexical_share == 0.5 && out.r[0].vector_share == 1);
    assert_true(out.r[1].no == 2 && fabs(out.r[1].score - 1.0 / 3) < 1e-12);
    assert_true(out.r[2].no == 3 && out.r[2].score == 0);
    /* Weights count; an empty list takes nothing away. */
    fuse(&a, list(&w, true, (int64_t[]){1}, (double[]){5}, 1, false),
         list(&v, false, (int64_t[]){3}, (double[]){0.3}, 1, true), 1, 3, MAX, false, &out);
    assert_true(out.r[0].no == 3 && fabs(out.r[0].score - 0.75) < 1e-12 && fabs(out.r[1].score - 0.25) < 1e-12);
    fuse(&a, list(&w, true, NULL, NULL, 0, false), list(&v, false, (int64_t[]){3}, (double[]){0.3}, 1, true), 1, 1, MAX,
         false, &out);
    assert_true(out.n == 1 && out.r[0].score == 1);
    fuse(&a, list(&w, true, NULL, NULL, 0, false), list(&v, false, NULL, NULL, 0, false), 1, 1, MAX, false, &out);
    assert_int_equal(out.n, 0);
    /* A weight of nothing: what only that arm knows is worth nothing. */
    fuse(&a, list(&w, true, (int64_t[]){1}, (double[]){5}, 1, false), list(&v, false, NULL, NULL, 0, false), 0, 1, MAX,
         false, &out);
    assert_true(out.n == 1 && out.r[0].score == 0);
    arena_fini(&a);
}

/* Longer lists of the arms, for a later page, change nothing in what came before. */
static void a_longer_list_begins_like_a_shorter_one(void **state)
{
    (void)state;
    enum { ELIGIBLE = 5 };
    struct arena a = {0};
    struct arm_list w, v;
    struct ranking shorter, longer;
    int64_t word[MAX], near[MAX];
    double score[MAX];
    for (int i = 0; i < MAX; i++) {
        word[i] = (i * 7) % MAX;
        near[i] = (i * 11 + 3) % (2 * MAX);
        score[i] = 9 - 0.2 * i;
    }
    for (size_t k = ELIGIBLE; k < MAX; k++) {
        fuse(&a, list(&w, true, word, score, k, true), list(&v, false, near, score, k, true), 1, 1, ELIGIBLE, false,
             &shorter);
        fuse(&a, list(&w, true, word, score, k + 1, true), list(&v, false, near, score, k + 1, true), 1, 1, ELIGIBLE,
             false, &longer);
        assert_true(longer.n >= shorter.n && shorter.n >= k);
        for (size_t i = 0; i < k; i++) {
            assert_int_equal(longer.r[i].no, shorter.r[i].no);
            assert_true(longer.r[i].score == shorter.r[i].score);
        }
    }
    arena_fini(&a);
}

/* Documents have votes, not their chunks: what words and vectors like of one need not be the same chunk. */
static void votes_for_chunks_are_votes_for_their_document(void **state)
{
    (void)state;
    enum { D = 1 << 20 };
    struct arena a = {0};
    struct arm_list w, v;
    struct ranking out;
    int64_t words[] = {2 * D, D + 7, 3 * D}, near[] = {D + 1, 3 * D + 2, 4 * D + 5};
    fuse(&a, list(&w, true, words, (double[]){5, 4, 3}, 3, false),
         list(&v, false, near, (double[]){0.9, 0.8, 0.7}, 3, true), 1, 1, MAX, true, &out);
    assert_int_equal(out.n, 4);
    assert_int_equal(out.r[0].no, D + 1); /* second and first: before what is first in one list only */
    assert_true(out.r[0].lexical == 2 && out.r[0].vector == 1 && out.r[0].bm25 == 4 && out.r[0].cosine == 0.9);
    assert_true(out.r[0].lexical_share > 0 && out.r[0].vector_share > 0);
    assert_int_equal(out.r[1].no, 2 * D);
    assert_true(out.r[2].no == 3 * D + 2 || out.r[2].no == 3 * D);
    assert_int_equal(out.r[3].no, 4 * D + 5);
    assert_int_equal(out.total, 4);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_arm_that_is_sure_outweighs_one_that_is_not),
        cmocka_unit_test(the_only_match_of_a_rare_word_is_not_lost),
        cmocka_unit_test(scores_lie_between_0_and_1),
        cmocka_unit_test(a_longer_list_begins_like_a_shorter_one),
        cmocka_unit_test(votes_for_chunks_are_votes_for_their_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
