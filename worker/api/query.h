/* What search and ask take in common, and how they write passages: the members of the body, checked, as a
 * struct retrieve_query. */
#pragma once
#include "worker/api/api.h"
#include "worker/core/retrieve.h"

struct query_fields {
    struct retrieve_query query; /* whole after query_read() */
    struct str question;         /* stands for a `query` that is not given */
    struct str mode, group_by;
    int64_t top_k, offset;
    json_t *collections, *filter, *context, *weights;
};

/* Reads the body: the members that search and ask share, and `more` that the caller adds. */
suspends must_use int query_read(struct request *r, struct query_fields *f, const struct json_member *more, size_t n,
                                 struct err *e);

/* ["vectors", …] */
void query_write_degraded(struct json_out *o, unsigned degraded);
void query_write_hit(struct json_out *o, const struct retrieve_query *q, const struct retrieve_hit *h);
