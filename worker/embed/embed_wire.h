/* What goes to and comes from `POST /embeddings`. */
#pragma once
#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"

enum { EMBED_DIM_MAX = 16384 };

struct embed_wire_request {
    const char *model;
    int dimensions; /* 0: not asked for */
    bool base64;
    struct str prefix; /* before each text */
    const struct str *text;
    size_t n;
};
void embed_wire_write(struct buf *out, const struct embed_wire_request *q);

/* The vectors of an answer, in the order of the texts: n × *dim floats of length 1 each. *tokens: what the server
 * counted, 0 if it did not say. ERR_PROVIDER: there are not n vectors, they differ in length, or hold no numbers. */
must_use int embed_wire_read(struct arena *a, struct str body, size_t n, float **out, int *dim, int64_t *tokens,
                             struct err *e);

/* Does a refusal mean that a text was too long? Servers say it in words of their own. */
bool embed_wire_too_long(int status, struct str body);
/* Makes the length 1; false when it has none. */
bool embed_wire_normalise(float *v, int dim);
