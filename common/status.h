/* What the server does, told from the scoreboard alone: by the master over its control socket and by the status process
 * over HTTP, in the same words. */
#pragma once
#include "common/buf.h"
#include "common/scoreboard.h"

/* Appends one JSON object. Rates and latencies are those of the last ten seconds of each worker; a latency is the upper
 * bound of its bucket in the histogram. */
void status_json(const struct scoreboard *sb, struct buf *out);

/* Whether requests can be answered now, as far as can be told without asking a worker: the server does not stop, memory is
 * not short, and a worker is READY; or another master of this server has taken over. Otherwise `why` (may be NULL) gets
 * the reasons, separated by "; ". */
bool status_ready(const struct scoreboard *sb, struct buf *why);
