/* Recycling: a worker that has served its requests, its time or its memory asks to be replaced, in its slot, and goes on
 * serving. It counts no longer towards the target, so another one is forked, as for any other gap; once there are more
 * READY than needed, the old one drains. Were the new one to fail, it is tried again, and the old one stays. */
#pragma once
#include <stdint.h>

struct master;

void recycle_tick(struct master *m, int64_t now);
