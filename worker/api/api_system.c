#include "worker/api/api.h"
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
    jo_member(&o, "uptime_s"), jo_i64(&o, sb ? (clock_ns() - sb->start_ns) / SEC : 0);
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

/* The store's check covers reachability and schema. A worker that stops is not ready whatever its backends say. */
suspends int api_readyz(struct request *r, struct err *e)
{
    static const char *const allowed[] = {"verbose", NULL};
    const struct scoreboard *sb = scoreboard_self();
    struct err why = {0};
    struct str verbose;
    if (request_query_only(r, allowed, e))
        return -1;
    bool draining = r->app->draining || (sb && sb->draining);
    int64_t start = clock_ns();
    bool db = STORE_CALL(r->app->store, check, &why) == 0;
    double ms = (double)((clock_ns() - start) / 1000) / 1000;
    struct json_out o = api_reply(r, db && !draining ? 200 : 503);
    if (!db || draining)
        reply_header(r, STR("Retry-After"), STR("1"));
    jo_begin(&o, '{');
    jo_member(&o, "status"), jo_strz(&o, db && !draining ? "ready" : "not_ready");
    if (draining || !db)
        jo_member(&o, "reason"), jo_strz(&o, draining ? "draining" : why.msg);
    if (request_query(r, STR("verbose"), &verbose)) {
        jo_member(&o, "checks"), jo_begin(&o, '{');
        jo_member(&o, "db"), write_check(&o, db, ms, why.msg);
        jo_end(&o, '}');
    }
    jo_end(&o, '}');
    return 0;
}
