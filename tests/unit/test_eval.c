/* Golden sets as files give them, and the scores of results. */
#include "tests/unit/cm.h"
#include "worker/core/eval.h"
#include <math.h>
#include <string.h>

static struct arena a;
static struct err e;

static int fini(void **state)
{
    (void)state;
    arena_fini(&a);
    return 0;
}

static void a_set_is_read(void **state)
{
    struct eval_set set;
    (void)state;
    assert_int_equal(
        eval_parse(
            &a,
            STR("{\"query\": \"kettle\", \"relevant\": [\"a.md\", {\"external_id\": \"b.md\", \"grade\": 2}]}\r\n"
                "\n"
                "{\"id\": \"q2\", \"query\": \"tea\", \"more\": 1, \"relevant\": [{\"grade\": 0, "
                "\"external_id\": \"x\"}, {\"chunk_id\": \"01890a5d-ac96-774b-bcce-b302099a8057\"}, "
                "{\"document_id\": \"01890a5d-ac96-774b-bcce-b302099a8058\", \"grade\": 0.5}]}"),
            &set, &e),
        0);
    assert_int_equal(set.n, 2);
    assert_true(str_eqz(set.question[0].id, "kettle") && str_eqz(set.question[1].id, "q2"));
    assert_int_equal(set.question[0].n, 2);
    assert_true(set.question[0].relevant[0].grade == 1 && set.question[0].relevant[1].grade == 2);
    assert_false(set.question[0].chunks);
    assert_int_equal(set.question[1].n, 2); /* what is wrong is not right */
    assert_int_equal(set.question[1].relevant[0].kind, EVAL_CHUNK);
    assert_int_equal(set.question[1].relevant[1].kind, EVAL_DOCUMENT);
    assert_true(set.question[1].chunks);
}

static void wrong_sets_are_refused(void **state)
{
    static const char *const cases[][2] = {
        {"", "there is no question"},
        {"\n\n", "there is no question"},
        {"x", "line 1: "},
        {"[]", "line 1: "},
        {"{\"query\": \"a\"}", "line 1: "},
        {"{\"query\": \"\", \"relevant\": [\"a\"]}", "line 1: /query"},
        {"{\"query\": \"a\", \"relevant\": []}", "line 1: /relevant"},
        {"{\"query\": \"a\", \"relevant\": [1]}", "line 1: relevant: an element"},
        {"{\"query\": \"a\", \"relevant\": [{\"grade\": 1}]}", "line 1: relevant: an element"},
        {"{\"query\": \"a\", \"relevant\": [{\"chunk_id\": \"7\"}]}", "line 1: relevant: \"7\" is not an id"},
        {"{\"query\": \"a\", \"relevant\": [{\"external_id\": \"x\", \"grade\": 0}]}", "nothing has a grade"},
        {"{\"query\": \"a\", \"relevant\": [{\"external_id\": \"x\", \"grade\": 101}]}", "line 1: /relevant/grade"},
        {"{\"query\": \"a\", \"relevant\": [\"x\"]}\n{", "line 2: "},
    };
    struct eval_set set;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(eval_parse(&a, str_of(cases[i][0]), &set, &e), -1);
        assert_int_equal(e.code, ERR_VALIDATION);
        if (!strstr(e.msg, cases[i][1]))
            fail_msg("%s: \"%s\" does not hold \"%s\"", cases[i][0], e.msg, cases[i][1]);
    }
}

/* An array of JSON says where in it something is wrong. */
static void arrays_are_taken(void **state)
{
    struct eval_set set;
    json_t *v;
    (void)state;
    assert_int_equal(json_parse(&a, STR("[{\"query\": \"a\", \"relevant\": [\"x\"]}]"), 8, &v, &e), 0);
    assert_int_equal(eval_take(&a, v, "/q", &set, &e), 0);
    assert_true(set.n == 1 && str_eqz(set.question[0].id, "a") &&
                str_eqz(set.question[0].relevant[0].external_id, "x"));
    assert_int_equal(json_parse(&a, STR("[{\"query\": \"a\", \"relevant\": [\"x\"]}, {\"query\": \"\"}]"), 8, &v, &e),
                     0);
    assert_int_equal(eval_take(&a, v, "/q", &set, &e), -1);
    assert_true(e.code == ERR_VALIDATION && strcmp(e.pointer, "/q/1/query") == 0);
    assert_int_equal(json_parse(&a, STR("[{\"query\": \"a\", \"relevant\": [7]}]"), 8, &v, &e), 0);
    assert_int_equal(eval_take(&a, v, "/q", &set, &e), -1);
    assert_string_equal(e.pointer, "/q/0");
    assert_int_equal(json_parse(&a, STR("[{\"query\": \"a\", \"relevant\": [\"x\"], \"more\": 1}]"), 8, &v, &e), 0);
    assert_int_equal(eval_take(&a, v, "/q", &set, &e), -1);
    assert_string_equal(e.pointer, "/q/0/more");
}

static bool near(double x, double y)
{
    return fabs(x - y) < 1e-9;
}

static void results_are_scored(void **state)
{
    struct eval_judgement right[3] = {{.grade = 1}, {.grade = 3}, {.grade = 2}};
    struct eval_question q = {.relevant = right, .n = 3};
    struct eval_score s = {0};
    (void)state;
    eval_rate(&q, (double[]){3, 2, 1}, 3, 10, &s); /* the best there is */
    assert_true(near(s.recall, 1) && near(s.rr, 1) && near(s.ndcg, 1));
    eval_rate(&q, (double[]){0}, 0, 10, &s); /* nothing */
    assert_true(s.recall == 0 && s.rr == 0 && s.ndcg == 0);
    eval_rate(&q, (double[]){0, 2, 0, 1}, 4, 2, &s);
    double ideal = 3 + 2 / log2(3) + 1 / log2(4);
    assert_true(near(s.recall, 1.0 / 3)); /* of three, one is among the first two */
    assert_true(near(s.rr, 0.5));
    assert_true(near(s.ndcg, (2 / log2(3) + 1 / log2(5)) / ideal));
    double late[12] = {[10] = 3, [11] = 1}; /* behind the tenth */
    eval_rate(&q, late, 12, 12, &s);
    assert_true(near(s.recall, 2.0 / 3) && near(s.rr, 1.0 / 11) && s.ndcg == 0);
}

/* More right answers than places: the best order of ten is all that can be asked for. */
static void many_right_answers(void **state)
{
    struct eval_judgement right[20];
    double gain[10];
    struct eval_score s = {0};
    (void)state;
    for (int i = 0; i < 20; i++)
        right[i] = (struct eval_judgement){.grade = 1};
    for (int i = 0; i < 10; i++)
        gain[i] = 1;
    eval_rate(&(struct eval_question){.relevant = right, .n = 20}, gain, 10, 10, &s);
    assert_true(near(s.ndcg, 1) && near(s.recall, 0.5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_set_is_read, fini),
        cmocka_unit_test_teardown(wrong_sets_are_refused, fini),
        cmocka_unit_test_teardown(arrays_are_taken, fini),
        cmocka_unit_test(results_are_scored),
        cmocka_unit_test(many_right_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
