/* The description of the API as data: worker/api/schemas.def, looked up by handler. For /openapi.json and /docs. */
#pragma once
#include "common/str.h"

struct api_schema {
    const char *name, *text; /* text: JSON with ' for " */
};
struct api_param {
    const char *name, *schema, *doc;
};
bool api_param_is_header(const struct api_param *p); /* else it is one of the query */
struct api_op {
    const char *handler, *tag, *params, *request, *answers;
};
extern const struct api_schema api_schemas[];
extern const struct api_param api_params[];
extern const size_t n_api_schemas, n_api_params;

const struct api_op *api_op_find(const char *handler);     /* NULL: not described */
const struct api_param *api_param_find(struct str name);   /* NULL: not described */
const struct api_schema *api_schema_find(struct str name); /* NULL: no schema of that name */
