#include "worker/api/docs.h"

#define SCHEMA(name, text)
#define PARAM(name, schema, doc)
#define OP(handler, tag, params, request, answers)

#undef SCHEMA
#define SCHEMA(name, text) {#name, text},
const struct api_schema api_schemas[] = {
#include "worker/api/schemas.def"
};
#undef SCHEMA
#define SCHEMA(name, text)

#undef PARAM
#define PARAM(name, schema, doc) {#name, schema, doc},
const struct api_param api_params[] = {
#include "worker/api/schemas.def"
};
#undef PARAM
#define PARAM(name, schema, doc)

#undef OP
#define OP(handler, tag, params, request, answers) {#handler, tag, params, request, answers},
static const struct api_op ops[] = {
#include "worker/api/schemas.def"
};

const size_t n_api_schemas = sizeof api_schemas / sizeof *api_schemas;
const size_t n_api_params = sizeof api_params / sizeof *api_params;

const struct api_op *api_op_find(const char *handler)
{
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (strcmp(ops[i].handler, handler) == 0)
            return &ops[i];
    return NULL;
}

const struct api_param *api_param_find(struct str name)
{
    for (size_t i = 0; i < n_api_params; i++)
        if (str_eqz(name, api_params[i].name))
            return &api_params[i];
    return NULL;
}

const struct api_schema *api_schema_find(struct str name)
{
    for (size_t i = 0; i < n_api_schemas; i++)
        if (str_eqz(name, api_schemas[i].name))
            return &api_schemas[i];
    return NULL;
}

bool api_param_is_header(const struct api_param *p)
{
    return p->name[0] >= 'A' && p->name[0] <= 'Z';
}
