/* Golden sets, and what is kept of what was found with them. */
#include "tests/contract/contract.h"

static struct store_eval_set a_set(struct world *w, const char *name)
{
    struct store_eval_set in = {.name = str_of(name), .questions = 2, .text = STR("{\"a\":1}\n{\"b\":\"ü\"}\n")}, out;
    ok(w, GET(w, eval_set_create, &in, 100, &out));
    return out;
}

static void sets(struct world *w)
{
    struct store_eval_set first = a_set(w, "first"), found,
                          in = {.name = STR("first"), .questions = 1, .text = STR("x")};
    struct store_eval_set *rows;
    size_t n;
    bool more;
    fails(w, ERR_NAME_TAKEN, GET(w, eval_set_create, &in, 100, &found));
    in.name = STR("second");
    fails(w, ERR_QUOTA, GET(w, eval_set_create, &in, 1, &found));
    struct store_eval_set second = a_set(w, "second");
    ok(w, GET(w, eval_set_get, NULL, STR("first"), &found));
    must(w, uuid_eq(&found.id, &first.id) && found.questions == 2);
    same_str(w, found.text, "{\"a\":1}\n{\"b\":\"ü\"}\n");
    ok(w, GET(w, eval_set_get, &second.id, STR(""), &found));
    same_str(w, found.name, "second");
    struct store_page page = {.limit = 1};
    ok(w, GET(w, eval_set_list, &page, &rows, &n, &more));
    must(w, n == 1 && more && uuid_eq(&rows[0].id, &second.id) && rows[0].text.n == 0);
    page = (struct store_page){.limit = 1, .has_after = true, .after = second.id};
    ok(w, GET(w, eval_set_list, &page, &rows, &n, &more));
    must(w, n == 1 && !more && uuid_eq(&rows[0].id, &first.id));
    ok(w, STORE_CALL(w->s, eval_set_delete, &first.id, &w->e));
    fails(w, ERR_NOT_FOUND, STORE_CALL(w->s, eval_set_delete, &first.id, &w->e));
    fails(w, ERR_NOT_FOUND, GET(w, eval_set_get, &first.id, STR(""), &found));
    fails(w, ERR_NOT_FOUND, GET(w, eval_set_get, NULL, STR("first"), &found));
}

static void put(struct world *w, const struct uuid *job, const struct uuid *set, const char *text, int keep)
{
    ok(w, STORE_CALL(w->s, eval_result_put, job, set, str_of(text), keep, &w->e));
}

static void results(struct world *w)
{
    struct store_eval_set set = a_set(w, "set"), other = a_set(w, "other");
    struct uuid job[4] = {uuid_v7(), uuid_v7(), uuid_v7(), uuid_v7()};
    struct str text;
    put(w, &job[3], &other.id, "{}", 1);
    for (int i = 0; i < 3; i++)
        put(w, &job[i], &set.id, "{\"n\":1}", 2);
    fails(w, ERR_NOT_FOUND, GET(w, eval_result_get, &job[0], &text)); /* of two sets, each has its own */
    ok(w, GET(w, eval_result_get, &job[1], &text));
    ok(w, GET(w, eval_result_get, &job[3], &text));
    put(w, &job[2], &set.id, "{\"n\":2}", 1); /* by another try */
    ok(w, GET(w, eval_result_get, &job[2], &text));
    same_str(w, text, "{\"n\":2}");
    fails(w, ERR_NOT_FOUND, GET(w, eval_result_get, &job[1], &text));
    ok(w, STORE_CALL(w->s, eval_set_delete, &set.id, &w->e));
    fails(w, ERR_NOT_FOUND, GET(w, eval_result_get, &job[2], &text));
    fails(w, ERR_NOT_FOUND, STORE_CALL(w->s, eval_result_put, &job[2], &set.id, STR("{}"), 1, &w->e));
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {TEST(sets), TEST(results)};
    return contract_main("golden sets", tests, sizeof tests / sizeof *tests, argc, argv);
}
