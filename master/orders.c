#include "master/orders.h"
#include "common/channel.h"
#include "common/log.h"
#include "master/master.h"
#include <errno.h>
#include <string.h>

static void tell(struct master *m, struct worker *w, enum channel_kind kind, struct str text, int fd)
{
    if (w->pid && channel_send(w->channel, kind, m->order, text, fd) != 0 && errno != EPIPE)
        log_error("worker %u (%s, pid %d) takes no orders: %s", w->slot, role_name(w->role), (int)w->pid,
                  strerror(errno));
}

static void tell_logs(struct master *m, struct worker *w)
{
    const struct logfiles *l = w->gen ? &w->gen->logs : &m->gen->logs;
    tell(m, w, CHANNEL_LOGS, STR(""), l->access);
    tell(m, w, CHANNEL_EVENTS, STR(""), logfiles_events(l, m->stderr_fd));
}

int orders_reopen(struct master *m, struct err *e)
{
    upgrade_reopen(m);
    return orders_logs(m, e);
}

int orders_logs(struct master *m, struct err *e)
{
    struct generation *all[] = {m->gen, m->reload.next};
    struct logfiles fresh[] = {LOGFILES_NONE, LOGFILES_NONE};
    for (int i = 0; i < 2; i++)
        if (all[i] && logfiles_open(&fresh[i], all[i]->cfg, all[i]->privileges, e) != 0) {
            log_err(LOG_ERROR, "the logs stay as they are", e);
            logfiles_close(&fresh[0]);
            return -1;
        }
    for (int i = 0; i < 2; i++)
        if (all[i]) {
            logfiles_close(&all[i]->logs);
            all[i]->logs = fresh[i];
        }
    master_log_to(m, m->gen);
    m->order++;
    crew_for_each (w, &m->crew) /* also those that drain: they still log requests */
        tell_logs(m, w);
    log_info("logs reopened");
    return 0;
}

void orders_config(struct master *m)
{
    struct buf lines = {0};
    config_push_lines(m->gen->cfg, &lines);
    m->order++;
    crew_for_each (w, &m->crew) {
        if (w->gen == m->gen || !w->gen) /* also those that only leave, or stand in: the old files are closed */
            tell_logs(m, w);
        if (w->gen == m->gen)
            tell(m, w, CHANNEL_CONFIG, buf_view(&lines), -1);
    }
    buf_fini(&lines);
}

bool orders_done(const struct master *m)
{
    crew_for_each (w, &m->crew)
        if (crew_ready(m, w) && !w->blind && (int32_t)(atomic_load(&m->sb->slot[w->slot].order) - m->order) < 0)
            return false;
    return true;
}
