/* The PostgreSQL product of the store: not there yet, so that the rest can be linked and used on SQLite. */
#include "worker/store/store.h"

suspends int store_pg_open(const struct config *cfg, struct store **out, struct err *e)
{
    (void)cfg;
    (void)out;
    return err_set(e, ERR_NOT_READY, "This build has no PostgreSQL store");
}
