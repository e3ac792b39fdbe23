/* The worker's half of recycling: it knows when it has served enough, is old or has grown large, and asks to be replaced.
 * The master does the rest (master/recycle.h); until the replacement is READY the worker goes on. */
#pragma once
#include "common/scoreboard.h"
#include "config/config.h"

void recycle_start(void); /* once, at the start of the worker: draws by how much its limits differ from others' */
/* Why the worker should be replaced by now; RECYCLE_none. Reads its slot. */
enum recycle recycle_due(const struct config *cfg, int64_t now);
void recycle_beat(const struct config *cfg, int64_t now); /* asks, if it is due and the worker serves */
