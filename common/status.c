#include "common/status.h"
#include "common/clock.h"
#include "common/note.h"

static void string(struct buf *b, const char *value)
{
    buf_ch(b, '"');
    for (struct str rest = str_of(value); rest.n; rest = str_sub(rest, 1, rest.n)) {
        unsigned char c = (unsigned char)*rest.p;
        if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if (c < 0x20)
            buf_printf(b, "\\u%04x", c);
        else
            buf_ch(b, (char)c);
    }
    buf_ch(b, '"');
}

static void text(struct buf *b, const char *key, const char *value)
{
    buf_printf(b, "\"%s\":", key);
    string(b, value);
}

/* Not after the year 9999, nor before 1970: that is no time, whoever wrote it. */
static void when(struct buf *b, const char *key, int64_t wall_us)
{
    static const int64_t year_10000 = 253402300800000000;
    char stamp[CLOCK_RFC3339_LEN];
    clock_rfc3339(stamp, wall_us >= 0 && wall_us < year_10000 ? wall_us : 0);
    buf_printf(b, "\"%s\":\"%.*s\"", key, CLOCK_RFC3339_LEN, stamp);
}

/* What does not fit in 63 bits many readers of JSON refuse, and with it all the rest. */
static unsigned long long whole(uint64_t n)
{
    return n <= INT64_MAX ? n : INT64_MAX;
}

static const char *yes(bool is)
{
    return is ? "true" : "false";
}

/* ---- workers ---- */

static uint64_t requests_of(const struct slot *s)
{
    uint64_t n = 0;
    for (int i = 0; i < SCORE_ROUTES; i++)
        for (int k = 0; k < SCORE_CLASSES; k++)
            n += s->route[i].by_class[k];
    return n;
}

static uint64_t count_of(const struct window *w)
{
    uint64_t n = 0;
    for (int i = 0; i < LATENCY_BUCKETS; i++)
        n += w->latency[i];
    return n;
}

static double requests_per_s(const struct window *w)
{
    return w->span_ns > 0 ? (double)count_of(w) * SEC / (double)w->span_ns : 0;
}

/* In milliseconds. What is slower than the last bound is given as that bound. */
static void quantile(struct buf *b, const char *key, const struct window *w, double share)
{
    static const int64_t bounds[] = LATENCY_BOUNDS_US;
    uint64_t total = count_of(w), below = 0;
    int i = 0;
    if (!total) {
        buf_printf(b, "\"%s\":null", key);
        return;
    }
    while (i < LATENCY_BUCKETS - 2 && (double)(below += w->latency[i]) < share * (double)total)
        i++;
    buf_printf(b, "\"%s\":%g", key, (double)bounds[i] / 1000);
}

static void last_death(struct buf *b, const struct slot *s)
{
    char how[64];
    if (!s->death_us) {
        buf_lit(b, "\"last_death\":null");
        return;
    }
    buf_lit(b, "\"last_death\":{");
    when(b, "at", s->death_us);
    buf_printf(b, ",\"age_s\":%.1f,", (double)score_age(s->death_us, clock_wall_us()) / 1e6);
    text(b, "reason", death_name((enum death)s->death));
    buf_lit(b, ",");
    death_describe((int)s->death_status, how, sizeof how);
    text(b, "how", how);
    buf_lit(b, "}");
}

/* What a process held is gone with it; what it has counted stays. */
static void worker(struct buf *b, const struct slot *s, unsigned index, int64_t now)
{
    static const struct window none;
    pid_t pid = atomic_load(&s->pid);
    const struct window *w = pid ? &s->window : &none;
    uint64_t in_flight = s->stat[STAT_requests_in_flight] + s->stat[STAT_jobs_running];
    buf_printf(b, "{\"slot\":%u,", index);
    text(b, "role", role_name((enum role)s->role));
    buf_printf(b, ",\"pid\":%d,", (int)pid);
    text(b, "state", worker_state_name((enum worker_state)atomic_load(&s->state)));
    buf_printf(b, ",\"generation\":%u,\"uptime_s\":%.1f,\"beat_age_s\":%.1f", s->generation,
               pid ? (double)score_age(atomic_load(&s->fork_ns), now) / SEC : 0.0,
               pid ? (double)score_age(atomic_load(&s->beat_ns), now) / SEC : 0.0);
    buf_printf(b, ",\"connections\":%d,\"in_flight\":%llu,\"requests\":%llu,\"requests_per_s\":%.1f,",
               pid ? atomic_load(&s->connections) : 0, whole(pid ? in_flight : 0), whole(requests_of(s)),
               requests_per_s(w));
    quantile(b, "p50_ms", w, 0.50);
    buf_lit(b, ",");
    quantile(b, "p99_ms", w, 0.99);
    buf_printf(b, ",\"rss_kb\":%lld,\"anon_kb\":%lld,\"cpu_ms\":%lld,\"restarts\":%u,\"failures\":%u,",
               (long long)(pid ? s->rss_kb : 0), (long long)(pid ? s->anon_kb : 0), (long long)s->cpu_us / 1000,
               s->restarts, s->failures);
    text(b, "recycle", recycle_name((enum recycle)atomic_load(&s->recycle)));
    buf_lit(b, ",");
    last_death(b, s);
    buf_lit(b, "}");
}

static void workers(struct buf *b, const struct scoreboard *sb, int64_t now)
{
    bool first = true;
    buf_lit(b, "\"workers\":[");
    for (unsigned i = 0; i < scoreboard_slots(sb); i++) {
        if (atomic_load(&sb->slot[i].state) == WORKER_FREE)
            continue;
        if (!first)
            buf_lit(b, ",");
        first = false;
        worker(b, &sb->slot[i], i, now);
    }
    buf_lit(b, "]");
}

/* ---- the server ---- */

static void verdict(struct buf *b, const struct verdict *v)
{
    if (!v->at_us) {
        buf_lit(b, "\"last\":null");
        return;
    }
    buf_printf(b, "\"last\":{\"ok\":%s,", yes(v->ok));
    when(b, "at", v->at_us);
    buf_printf(b, ",\"took_ms\":%lld,", (long long)v->took_ms);
    text(b, "stage", v->stage);
    buf_lit(b, ",");
    text(b, "reason", v->reason);
    buf_lit(b, "}");
}

static void changes(struct buf *b, const char *name, uint64_t ok, uint64_t failed, const struct verdict *v)
{
    buf_printf(b, "\"%s\":{\"ok\":%llu,\"failed\":%llu,", name, whole(ok), whole(failed));
    verdict(b, v);
    buf_lit(b, "},");
}

static void listeners(struct buf *b, const char *key, const struct note *n, bool admin)
{
    bool first = true;
    buf_printf(b, "\"%s\":[", key);
    for (int i = 0; i < n->n_listen; i++) {
        if (n->listen[i].admin != admin)
            continue;
        if (!first)
            buf_lit(b, ",");
        string(b, n->listen[i].name);
        first = false;
    }
    buf_lit(b, "],");
}

void status_json(const struct scoreboard *sb, struct buf *b)
{
    struct note n;
    int64_t now = clock_ns();
    (void)note_read(sb, &n);
    buf_lit(b, "{\"ok\":true,");
    text(b, "version", n.version);
    buf_printf(b, ",\"pid\":%d,", n.pid);
    text(b, "phase", n.phase);
    buf_printf(b, ",\"ready\":%s,\"degraded\":%s,\"parked\":%s,\"uptime_s\":%.1f,\"generation\":%u,",
               yes(status_ready(sb, NULL)), yes(n.degraded), yes(n.parked), (double)score_age(sb->start_ns, now) / SEC,
               n.generation);
    when(b, "started", sb->start_wall_us);
    buf_lit(b, ",");
    text(b, "config", n.config);
    buf_lit(b, ",");
    text(b, "config_sha256", n.sha256);
    buf_lit(b, ",");
    listeners(b, "listeners", &n, false);
    listeners(b, "admin_listeners", &n, true);
    buf_printf(b, "\"target\":{\"http\":%d,\"ingest\":%d},", n.target[ROLE_HTTP], n.target[ROLE_INGEST]);
    changes(b, "reloads", atomic_load(&sb->reloads_ok), atomic_load(&sb->reloads_failed), &n.reload);
    changes(b, "upgrades", atomic_load(&sb->upgrades_ok), atomic_load(&sb->upgrades_failed), &n.upgrade);
    workers(b, sb, now);
    buf_lit(b, "}");
}

/* ---- readiness ---- */

static bool any_ready(const struct scoreboard *sb, enum role role)
{
    for (unsigned i = 0; i < scoreboard_slots(sb); i++)
        if (sb->slot[i].role == role && atomic_load(&sb->slot[i].state) == WORKER_READY)
            return true;
    return false;
}

/* Requests are answered without ingest workers, too; a server that has nothing else needs them. */
bool status_ready(const struct scoreboard *sb, struct buf *why)
{
    struct note n;
    if (atomic_load(
            &sb->handed_over)) /* a probe that still comes here is not to hear of workers that leave for others */
        return true;
    (void)note_read(sb, &n);
    enum role role = n.target[ROLE_INGEST] > 0 && n.target[ROLE_HTTP] == 0 ? ROLE_INGEST : ROLE_HTTP;
    const struct {
        bool is;
        const char *what;
    } reasons[] = {
        {atomic_load(&sb->draining), "the server is stopping"},
        {atomic_load(&sb->shedding), "memory is short"},
        {!any_ready(sb, role), role == ROLE_HTTP ? "no http worker is ready" : "no ingest worker is ready"},
    };
    bool ready = true;
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (!reasons[i].is)
            continue;
        if (why)
            buf_printf(why, "%s%s", ready ? "" : "; ", reasons[i].what);
        ready = false;
    }
    return ready;
}
