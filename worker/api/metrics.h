/* Metrics as Prometheus reads them, from the scoreboard: sums over all workers, whichever process is asked. */
#pragma once
#include "common/buf.h"

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

void metrics_text(struct buf *out);
