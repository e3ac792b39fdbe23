/* What `ragd ingest` says: progress while it runs, on a terminal as a bar, otherwise as a line now and then; and what
 * became of every file at the end. Progress goes to stderr, the outcome to stdout. */
#pragma once
#include "common/arena.h"
#include "worker/cli/walk.h"

enum outcome { OUTCOME_WAITING, OUTCOME_READY, OUTCOME_UPDATED, OUTCOME_UNCHANGED, OUTCOME_QUEUED, OUTCOME_REFUSED };

struct report_item {
    enum outcome outcome;
    const char *code, *reason; /* of a refusal; live as long as the command */
};

struct report {
    const struct walk *walk;
    struct report_item *item; /* one for each file of the walk */
    struct str collection;
    bool json, terminal;
    size_t count[OUTCOME_REFUSED + 1];
    int64_t start_ns, shown_ns;
};

void report_init(struct report *r, const struct walk *w, struct str collection, bool json);
void report_fini(struct report *r);
void report_set(struct report *r, size_t file, enum outcome outcome, const char *code, const char *reason);
void report_progress(struct report *r); /* call often; shows itself when it is time */
void report_end(struct report *r);
