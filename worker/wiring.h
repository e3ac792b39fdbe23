/* Opens, in the order in which they need each other, the backends that the settings name, and closes them. One struct
 * backends per process, owned by its role or command. */
#pragma once
#include "worker/core/backends.h"

/* `migrate` false: a database is used as it is, see store_open_unchanged(). On failure nothing stays open. */
suspends must_use int backends_open(const struct config *cfg, bool migrate, struct backends *out, struct err *e);
/* The steps of a stop, as in store.h; zeroed memory is accepted. */
void backends_drain(struct backends *b);
void backends_cancel(struct backends *b);
bool backends_leave(struct backends *b);
void backends_close(struct backends *b);
