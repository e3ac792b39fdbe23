/* `ragd check`: what a start would do, tried beforehand, while another instance with this configuration may run. It leaves
 * nothing behind: no socket, no file. */
#pragma once
#include "config/config.h"

/* Says each problem through `tell`, as one line. 0, or the exit code that `ragd serve` would end with: EXIT_CONFIG, or
 * EXIT_BIND when nothing is wrong but that an address cannot be had. Addresses that the running instance holds can be had:
 * that is the one that has the pidfile's lock or the control socket, or that $RAGD_PID names. */
int check_start(const struct config *cfg, void (*tell)(const char *problem));
/* What is legal but probably not meant, one line each. */
void check_warnings(const struct config *cfg, struct buf *out);
