/* The wiring of one worker: what role_http.c, role_ingest.c and cli/ make at start and everything above the stores
 * is handed. Owned by the role. */
#pragma once
#include "common/heritage.h"
#include "config/config.h"
#include "worker/core/backends.h"

struct app {
    const struct config *cfg;
    const struct heritage *heritage; /* NULL in one-shot commands */
    struct backends backends;
    struct store *store; /* backends.store */
    int jobs_fd;         /* -1: nobody to wake */
    bool draining;
    bool proving; /* it asks itself for /readyz, before it serves: heritage.prove */
};
