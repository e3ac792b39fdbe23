#include "worker/recycle.h"
#include "common/clock.h"
#include "common/log.h"
#include <stdlib.h>

static struct {
    int64_t start_ns;
    uint64_t served_before; /* by the slot's earlier processes: its counters go on */
    double luck;            /* 0 to 1 */
} self;

static uint64_t served(void)
{
    uint64_t n = 0;
    for (int route = 0; route < SCORE_ROUTES; route++)
        for (int class = 0; class < SCORE_CLASSES; class ++)
            n += slot_self->route[route].by_class[class];
    return n;
}

void recycle_start(void)
{
    self.start_ns = clock_ns();
    self.served_before = served();
    self.luck = (double)random() / RAND_MAX;
}

enum recycle recycle_due(const struct config *cfg, int64_t now)
{
    double requests = (double)cfg->server_max_requests + self.luck * (double)cfg->server_max_requests_jitter;
    double lifetime = (double)cfg->server_max_lifetime * MS * (0.9 + 0.2 * self.luck);
    if (cfg->server_max_requests && (double)(served() - self.served_before) >= requests)
        return RECYCLE_requests;
    if (cfg->server_max_lifetime && (double)(now - self.start_ns) >= lifetime)
        return RECYCLE_lifetime;
    if (cfg->server_max_rss && slot_self->anon_kb >= cfg->server_max_rss / 1024)
        return RECYCLE_rss;
    return RECYCLE_none;
}

void recycle_beat(const struct config *cfg, int64_t now)
{
    if (atomic_load(&slot_self->state) != WORKER_READY || atomic_load(&slot_self->recycle) != RECYCLE_none)
        return;
    enum recycle why = recycle_due(cfg, now);
    if (why == RECYCLE_none)
        return;
    atomic_store(&slot_self->recycle, why);
    log_debug("asking to be replaced: %s", recycle_name(why));
}
