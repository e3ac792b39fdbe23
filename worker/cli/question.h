/* What `ragd search` and `ragd ask` have in common: the options that say where and how to search, and the words behind
 * them. */
#pragma once
#include "worker/cli/session.h"
#include "worker/core/retrieve.h"
#include <getopt.h>

enum { QUESTION_COLLECTIONS_MAX = 16 };

struct question {
    const char *collection[QUESTION_COLLECTIONS_MAX];
    int n_collections, top_k; /* top_k: set before as the default */
    enum retrieve_mode mode;
    struct buf text;
};

/* Reads the command line; `own` are the command's own options, flags only, ended by a zeroed one. `what` names the words
 * in messages: "the question". 0, or CLI_USAGE after saying what is wrong. question_fini() in any case. */
must_use int question_read(struct question *q, int argc, char **argv, const struct config *cfg,
                           const struct option *own, const char *what);
void question_fini(struct question *q);
/* The query that it means; `ids` has room for QUESTION_COLLECTIONS_MAX and must outlive it. */
suspends must_use int question_query(const struct question *q, struct session *s, struct uuid *ids,
                                     struct retrieve_query *out, struct err *e);
/* How a document is called where there is room for one name. */
struct str question_title(const struct store_document *d);
