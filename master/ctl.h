/* The other end of the control socket: the commands that ask a running master. Each returns the exit code. */
#pragma once
#include <stdbool.h>

struct config;

int ctl_status(const struct config *cfg, bool json); /* 0, or 1 when no server answers */
int ctl_stop(const struct config *cfg, bool fast);   /* 0 once it has stopped; without a socket: through the pidfile */
int ctl_reload(const struct config *cfg);            /* 0, or 1 with the reason why everything stays as it was */
