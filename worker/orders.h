/* The worker's end of its channel: orders of the master, carried out between two requests. */
#pragma once
#include "common/heritage.h"

struct orders_ops {
    void (*reconfigured)(void); /* cfg has changed: take over what was derived from it */
    void (*orphaned)(void);     /* the master is gone */
};

void orders_start(const struct heritage *h, const struct orders_ops *ops);
void orders_stop(void);
