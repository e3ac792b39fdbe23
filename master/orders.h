/* What the master tells its running workers, over their channels. Nobody waits: a worker carries an order out between two
 * requests and notes its serial in its slot. One that boots finds the order when its loop begins. */
#pragma once
#include "common/err.h"

struct master;
struct buf;

/* USR1: opens the logs anew and hands them to every worker; another master of this server hears of it. A file that cannot
 * be opened is an error in the log, and the old one stays. */
int orders_reopen(struct master *m, struct err *e);
int orders_logs(struct master *m, struct err *e); /* the same for this master alone */
/* Hands the access log and the pushed keys of the current generation to its workers. */
void orders_config(struct master *m);
/* Every worker that is READY has carried out all that it was told. */
bool orders_done(const struct master *m);
