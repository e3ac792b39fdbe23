/* A generation: one configuration, the sockets and log files that it names, and how many workers it wants. */
#include "master/master.h"
#include <stdlib.h>

struct generation *generation_new(const struct master *m, uint32_t number, struct config *cfg)
{
    struct generation *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->number = number;
    g->cfg = cfg;
    g->privileges = &m->privileges;
    g->logs = (struct logfiles)LOGFILES_NONE;
    config_sha256(cfg, g->sha256);
    g->target[ROLE_HTTP] = m->args.http ? config_http_workers(cfg) : 0;
    g->target[ROLE_INGEST] = m->args.ingest ? config_ingest_workers(cfg) : 0;
    return g;
}

int generation_wants_status(const struct generation *g)
{
    for (int i = 0; i < g->listen.n; i++)
        if (listen_is_admin(&g->listen.v[i]))
            return 1;
    return 0;
}

int generation_open(struct generation *g, const struct listen_set *have, struct err *e)
{
    if (listen_open(&g->listen, g->cfg, have, e) != 0)
        return -1;
    g->target[ROLE_STATUS] = generation_wants_status(g);
    if (g->privileges->change)
        listen_give(&g->listen, g->privileges->uid, g->privileges->gid);
    return 0;
}

void generation_free(struct generation *g, const struct generation *keep)
{
    if (!g)
        return;
    listen_close(&g->listen, keep ? &keep->listen : NULL);
    logfiles_close(&g->logs);
    config_free(g->cfg);
    free(g);
}
