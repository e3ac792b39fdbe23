#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include "worker/api/docs.h"
#include "worker/io/json.h"

/* The tables of routes, operations and schemas must tell of each other completely. */
static const char *const handlers[] = {
#define ROUTE(method, path, access, body, key, handler, summary) #handler,
#include "worker/routes.def"
#undef ROUTE
};
static const char *const operations[] = {
#define SCHEMA(name, text)
#define PARAM(name, schema, doc)
#define OP(handler, tag, params, request, answers) #handler,
#include "worker/api/schemas.def"
#undef SCHEMA
#undef PARAM
#undef OP
};
enum { HANDLERS = sizeof handlers / sizeof *handlers, OPERATIONS = sizeof operations / sizeof *operations };

static json_t *parse(struct arena *a, const char *name, const char *text)
{
    struct err e;
    json_t *v;
    char *copy = arena_strdup(a, text);
    for (char *c = copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    if (json_parse(a, str_of(copy), 32, &v, &e))
        fail_msg("%s: %s", name, e.msg);
    return v;
}

static void every_route_is_described(void **state)
{
    (void)state;
    for (size_t i = 0; i < HANDLERS; i++)
        if (!api_op_find(handlers[i]))
            fail_msg("worker/api/schemas.def lacks an OP for %s", handlers[i]);
}

static void every_description_has_a_route(void **state)
{
    (void)state;
    for (size_t i = 0; i < OPERATIONS; i++) {
        size_t k = 0;
        while (k < HANDLERS && strcmp(handlers[k], operations[i]) != 0)
            k++;
        if (k == HANDLERS)
            fail_msg("no route has the handler %s", operations[i]);
    }
}

static bool used_by_operation(struct str schema)
{
    for (size_t i = 0; i < OPERATIONS; i++) {
        const struct api_op *op = api_op_find(operations[i]);
        struct str rest = str_of(op->answers);
        if (str_eqz(schema, op->request))
            return true;
        while (rest.n) {
            struct str what = str_cut(&rest, ' ');
            str_cut(&what, '=');
            while (what.n)
                if (str_eq(schema, str_cut(&what, '|')))
                    return true;
        }
    }
    return false;
}

static bool used_by_schema(const char *name)
{
    if (strcmp(name, "Event") == 0)
        return true; /* by what ragd sends: api_openapi.c, and a test of the API holds deliveries against it */
    char ref[96];
    snprintf(ref, sizeof ref, "'#/components/schemas/%s'", name);
    for (size_t i = 0; i < n_api_schemas; i++)
        if (strstr(api_schemas[i].text, ref))
            return true;
    return false;
}

static void every_schema_is_json_and_used(void **state)
{
    struct arena a = {0};
    (void)state;
    for (size_t i = 0; i < n_api_schemas; i++) {
        const struct api_schema *s = &api_schemas[i];
        assert_true(json_is_object(parse(&a, s->name, s->text)));
        bool implied = strcmp(s->name, "Problem") == 0 || strcmp(s->name, "DocumentForm") == 0; /* by kinds of routes */
        if (!implied && !used_by_operation(str_of(s->name)) && !used_by_schema(s->name))
            fail_msg("schema %s is used nowhere", s->name);
    }
    arena_fini(&a);
}

static void every_reference_resolves(void **state)
{
    static const char mark[] = "#/components/schemas/";
    (void)state;
    for (size_t i = 0; i < n_api_schemas; i++)
        for (const char *at = api_schemas[i].text; (at = strstr(at, mark));) {
            struct str rest = str_of(at += strlen(mark));
            if (!api_schema_find(str_cut(&rest, '\'')))
                fail_msg("%s refers to what is not there: %.40s", api_schemas[i].name, at);
        }
    for (size_t i = 0; i < OPERATIONS; i++) {
        const char *request = api_op_find(operations[i])->request;
        if (request[0] && !api_schema_find(str_of(request)))
            fail_msg("%s takes a %s, which is not there", operations[i], request);
    }
}

static void parameters_and_operations_agree(void **state)
{
    struct arena a = {0};
    bool used[64] = {false};
    (void)state;
    assert_true(n_api_params <= 64);
    for (size_t i = 0; i < OPERATIONS; i++) {
        struct str rest = str_of(api_op_find(operations[i])->params);
        while (rest.n) {
            struct str name = str_cut(&rest, ' ');
            const struct api_param *p = api_param_find(name);
            if (!p)
                fail_msg("%s: parameter %.*s is not described", operations[i], STR_ARG(name));
            used[p - api_params] = true;
        }
    }
    for (size_t i = 0; i < n_api_params; i++) {
        assert_true(json_is_object(parse(&a, api_params[i].name, api_params[i].schema)));
        if (!used[i])
            fail_msg("parameter %s is used nowhere", api_params[i].name);
    }
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_is_described),        cmocka_unit_test(every_description_has_a_route),
        cmocka_unit_test(every_schema_is_json_and_used),   cmocka_unit_test(every_reference_resolves),
        cmocka_unit_test(parameters_and_operations_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
