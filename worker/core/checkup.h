/* How the backends are that answers can do without, and whether there is room for what is to be written on this machine:
 * for /readyz?verbose. All are asked at once, and no backend for longer than CHECKUP_MS. */
#pragma once
#include "worker/core/backends.h"

enum { CHECKUP_MS = 2000 };
enum checkup_of { CHECKUP_VECTORS, CHECKUP_CACHE, CHECKUP_EMBEDDER, CHECKUP_LLM, CHECKUP_DISK, CHECKUPS };

struct checkup {
    const char *name;
    bool asked; /* it is configured */
    bool ok;
    double ms;
    struct err why;
};
suspends void checkup(const struct backends *b, struct checkup out[CHECKUPS]);
