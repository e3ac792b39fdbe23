#include "worker/api/api.h"
#include "worker/core/checkup.h"
#include "version.h"

int api_root(struct request *r, struct err *e)
{
    (void)e;
    struct json_out o = api_reply(r, 200);
    jo_begin(&o, '{');
    jo_member(&o, "status"), jo_strz(&o, "running");
    jo_member(&o, "message"), jo_strz(&o, "ragd");
    jo_member(&o, "version"), jo_strz(&o, RAGD_VERSION);
    jo_member(&o, "docs"), jo_str(&o, arena_printf(&r->arena, "%s/docs", r->cfg->server_base_path));
    jo_end(&o, '}');
    return 0;
}

int api_livez(struct request *r, struct err *e)
{
    const struct scoreboard *sb = scoreboard_self();
    (void)e;
    struct json_out o = api_reply(r, 200);
    jo_begin(&o, '{');
    jo_member(&o, "status"), jo_strz(&o, "ok");
    jo_member(&o, "version"), jo_strz(&o, RAGD_VERSION);
    jo_member(&o, "uptime_s"), jo_i64(&o, sb ? score_age(sb->start_ns, r->start_ns) / SEC : 0);
    jo_end(&o, '}');
    return 0;
}

static void write_check(struct json_out *o, bool ok, double ms, const char *why)
{
    jo_begin(o, '{');
    jo_member(o, "ok"), jo_bool(o, ok);
    jo_member(o, "ms"), jo_f64(o, ms);
    if (!ok)
        jo_member(o, "reason"), jo_strz(o, why);
    jo_end(o, '}');
}

/* The store's check covers reachability and schema. A worker that stops is not ready whatever its backends say. Those that
 * answers can do without are asked only if somebody wants to know: a probe must not wait for them. One that proves itself
 * need not be better than those that serve, where it would not be the one to blame. */
suspends int api_readyz(struct request *r, struct err *e)
{
    static const char *const allowed[] = {"verbose", NULL};
    const struct scoreboard *sb = scoreboard_self();
    struct checkup more[CHECKUPS];
    struct err why = {0};
    struct str value;
    bool verbose = request_query(r, STR("verbose"), &value), degraded = false, proving = r->app->proving;
    if (request_query_only(r, allowed, e))
        return -1;
    const char *reason = r->app->draining || (sb && sb->draining) ? "draining" : NULL;
    if (!reason && sb && sb->shedding && !proving)
        reason = "short of memory";
    int64_t start = clock_ns();
    bool db = STORE_CALL(r->app->store, check, &why) == 0;
    int64_t end = clock_ns();
    double ms = (double)((end - start) / 1000) / 1000;
    if (!proving)
        atomic_store(db ? &slot_self->store_ok_ns : &slot_self->store_away_ns, end);
    if (!reason && !db && !(proving && r->app->heritage->no_store))
        reason = why.msg;
    if (verbose)
        checkup(&r->app->backends, more);
    for (int i = 0; verbose && i < CHECKUPS; i++)
        degraded |= more[i].asked && !more[i].ok;
    struct json_out o = api_reply(r, reason ? 503 : 200);
    if (reason)
        reply_header(r, STR("Retry-After"), STR("1"));
    jo_begin(&o, '{');
    jo_member(&o, "status"), jo_strz(&o, reason ? "not_ready" : degraded ? "degraded" : "ready");
    if (reason)
        jo_member(&o, "reason"), jo_strz(&o, reason);
    if (verbose) {
        jo_member(&o, "checks"), jo_begin(&o, '{');
        jo_member(&o, "db"), write_check(&o, db, ms, why.msg);
        for (int i = 0; i < CHECKUPS; i++)
            if (more[i].asked)
                jo_key(&o, str_of(more[i].name)), write_check(&o, more[i].ok, more[i].ms, more[i].why.msg);
        jo_end(&o, '}');
    }
    jo_end(&o, '}');
    return 0;
}
