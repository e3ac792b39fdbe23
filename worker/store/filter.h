/* Filters over documents, as clients write them (OpenAI's filter objects):
 *   {"type":"eq|ne|gt|gte|lt|lte|in|nin","key":K,"value":V}   {"type":"and|or","filters":[…]}
 * A key names a member of the document's metadata ("year", "author.name"). Meaning, the same in every store:
 *   - a comparison with a member that is absent or of another type than the value (number, string, bool) is false;
 *   - ne and nin are the negations of eq and in, so they also match documents that lack the member;
 *   - strings compare by bytes, numbers as IEEE doubles; gt and kin on bools are refused;
 *   - eq on an array member is true when any element equals (so tags in metadata work). */
#pragma once
#include "worker/io/json.h"

enum filter_op {
    FILTER_EQ,
    FILTER_NE,
    FILTER_GT,
    FILTER_GTE,
    FILTER_LT,
    FILTER_LTE,
    FILTER_IN,
    FILTER_NIN,
    FILTER_AND,
    FILTER_OR
};

struct filter_value {
    enum { FILTER_STRING, FILTER_NUMBER, FILTER_BOOL } type;
    struct str s;
    double num;
    bool b;
};

struct filter {
    enum filter_op op;
    struct str key;             /* comparison: path with dots */
    struct filter_value *value; /* comparison: one; in and nin: several */
    size_t n;                   /* of value, or of child */
    struct filter **child;      /* and, or */
};

enum { FILTER_MAX_DEPTH = 8, FILTER_MAX_NODES = 128, FILTER_MAX_VALUES = 1000, FILTER_MAX_KEY = 128 };

/* `pointer` is where the filter stands in the body, for error messages. */
must_use int filter_parse(struct arena *a, json_t *json, const char *pointer, struct filter **out, struct err *e);
/* Evaluates in process, on a document's metadata. The reference for what the stores push down. */
bool filter_matches(const struct filter *f, json_t *metadata);
