/* What the files of the Qdrant product share: qdrant_call.c makes one call, qdrant_filter.c translates a filter,
 * qdrant_collection.c makes collections and aliases, qdrant_stray.c finds what nobody needs, vector_qdrant.c has the other
 * verbs. */
#pragma once
#include "common/buf.h"
#include "worker/io/httpc.h"
#include "worker/io/json.h"
#include "worker/store/filter.h"
#include "worker/vector/vector.h"

enum { QDRANT_KNOWN = 32, QDRANT_NAME_MAX = 128, QDRANT_ALIASES = 4096 };

struct qdrant_alias {
    struct uuid collection;
    int64_t generation; /* 0: none */
};

struct qdrant {
    struct vectors base;
    const struct config *cfg;
    struct httpc *http;
    char known[QDRANT_KNOWN][QDRANT_NAME_MAX]; /* Qdrant collections that are there as they should be */
    size_t n_known;                            /* ever; the oldest is overwritten */
    /* Where this process has made them lead; a place for each id, taken over by the next one that has the same. */
    struct qdrant_alias alias[QDRANT_ALIASES];
};

struct qdrant_reply {
    int status;     /* 2xx, 404 or 409: all others are errors */
    json_t *result; /* of the arena */
};

/* One call, tried again as vectors.retries says, for all calls are idempotent. `path` begins with a slash. A body that is
 * empty is none. `fast`: fails early, for probes. */
suspends must_use int qdrant_call(struct qdrant *q, struct arena *a, const char *method, struct str path,
                                  struct str body, bool fast, struct qdrant_reply *out, struct err *e);
/* The same for a change of points or indexes, at a path without a query: done only when Qdrant says that it is completed.
 * *missing: there is no such collection. */
suspends must_use int qdrant_update(struct qdrant *q, struct arena *a, const char *method, struct str path,
                                    struct str body, bool *missing, struct err *e);

/* The collection of Qdrant that holds a space; a path to it, and further. */
struct str qdrant_name(struct qdrant *q, struct arena *a, const struct vector_space *s);
struct str qdrant_path(struct arena *a, struct str name, const char *rest);
/* Makes it as it should be, if it is not there. ERR_CONFLICT: it is of another kind. */
suspends must_use int qdrant_ensure(struct qdrant *q, struct arena *a, struct str name, int dim, struct err *e);
void qdrant_forget(struct qdrant *q, struct str name); /* it may not be there any more */
/* The verbs alias and has_alias of vector.h. ERR_CONFLICT: a collection has that name. */
suspends must_use int qdrant_alias_set(struct vectors *, const struct vector_space *, bool anew, bool *changed,
                                       struct err *);
suspends must_use int qdrant_alias_is_set(struct vectors *, const struct vector_space *, bool *yes, struct err *);
struct str qdrant_alias_name(struct qdrant *q, struct arena *a, const struct vector_space *s);
/* Takes the alias away if it leads to this space. */
suspends must_use int qdrant_alias_drop(struct qdrant *q, struct arena *a, const struct vector_space *s, struct err *e);
/* The verb stray of vector.h. */
suspends must_use int qdrant_stray(struct vectors *, const struct vector_space *known, size_t n,
                                   struct vector_space *out, bool *found, struct err *);

/* Adds `filter` as a condition on the payload's metadata: it lets through all that match, and others where Qdrant cannot
 * say it (text has no order there; a number in an array is in the range when any element is). False, and nothing is
 * added, when it would let through everything. */
bool qdrant_filter(struct buf *out, const struct filter *f);
/* The verb says of vector.h: nothing of it is left out. */
bool qdrant_says(const struct filter *f);
