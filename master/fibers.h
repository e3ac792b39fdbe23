/* Asks the workers for what they are waiting for: each tells its fibers over its channel. One round at a time; whoever asks
 * while it goes on gets its answers, too. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct master;

void fibers_ask(struct master *m);
bool fibers_over(struct master *m); /* collects what has come; true: all have answered, or a second has passed */
/* [{"slot","role","pid","fibers"}]: null for those that have not answered. At most about 1 MB. */
json_t *fibers_json(const struct master *m);
void fibers_free(struct master *m);
