#include "worker/api/api.h"
#include "common/note.h"
#include "common/status.h"
#include "worker/api/metrics.h"

/* Prometheus text (version 0.0.4) from the scoreboard: sums over all workers, whichever of them is asked. */

static void family(struct buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP ragd_%s %s\n# TYPE ragd_%s %s\n", name, help, name, type);
}

static bool alive(const struct slot *s)
{
    return s->state == WORKER_BOOTING || s->state == WORKER_READY || s->state == WORKER_DRAINING;
}

/* ---- from stats.def ---- */
static const struct {
    const char *name, *type, *help;
} stats[STAT_COUNT] = {
#define COUNTER(name, help) {#name, "counter", help},
#define GAUGE(name, help)   {#name, "gauge", help},
#include "common/stats.def"
#undef COUNTER
#undef GAUGE
};

static void write_stats(struct buf *b, const struct slot *slot, unsigned n)
{
    for (int i = 0; i < STAT_COUNT; i++) {
        bool gauge = stats[i].type[0] == 'g';
        uint64_t sum = 0;
        for (unsigned w = 0; w < n; w++)
            if (!gauge || alive(&slot[w])) /* what a dead worker held is gone with it */
                sum += slot[w].stat[i];
        family(b, stats[i].name, stats[i].type, stats[i].help);
        buf_printf(b, "ragd_%s %lld\n", stats[i].name, (long long)sum);
    }
}

/* ---- by route ---- */
static void label(struct buf *b, unsigned route)
{
    if (!route)
        buf_lit(b, "route=\"none\"");
    else
        buf_printf(b, "method=\"%.*s\",route=\"%s\"", STR_ARG(http_method_name(routes[route - 1].method)),
                   routes[route - 1].path);
}

static void write_requests(struct buf *b, const struct slot *slot, unsigned n)
{
    family(b, "requests_total", "counter", "Requests answered, by route and class of status");
    for (unsigned route = 0; route <= n_routes && route < SCORE_ROUTES; route++)
        for (int class = 0; class < SCORE_CLASSES; class ++) {
            uint64_t sum = 0;
            for (unsigned w = 0; w < n; w++)
                sum += slot[w].route[route].by_class[class];
            if (!sum)
                continue;
            buf_lit(b, "ragd_requests_total{");
            label(b, route);
            buf_printf(b, ",code=\"%dxx\"} %llu\n", class + 1, (unsigned long long)sum);
        }
}

static void write_latency(struct buf *b, const struct slot *slot, unsigned n)
{
    static const int bounds[] = LATENCY_BOUNDS_US;
    family(b, "request_duration_seconds", "histogram", "From a request's first byte to the end of its answer");
    for (unsigned route = 0; route <= n_routes && route < SCORE_ROUTES; route++) {
        uint64_t bucket[LATENCY_BUCKETS] = {0}, sum_us = 0, count = 0;
        for (unsigned w = 0; w < n; w++) {
            for (int i = 0; i < LATENCY_BUCKETS; i++) {
                bucket[i] += slot[w].route[route].latency[i];
                count += slot[w].route[route].latency[i];
            }
            sum_us += slot[w].route[route].latency_sum_us;
        }
        uint64_t below = 0;
        for (int i = 0; count && i < LATENCY_BUCKETS; i++) {
            below += bucket[i];
            buf_lit(b, "ragd_request_duration_seconds_bucket{");
            label(b, route);
            if (i < LATENCY_BUCKETS - 1)
                buf_printf(b, ",le=\"%g\"} %llu\n", bounds[i] / 1e6, (unsigned long long)below);
            else
                buf_printf(b, ",le=\"+Inf\"} %llu\n", (unsigned long long)below);
        }
        if (!count)
            continue;
        buf_lit(b, "ragd_request_duration_seconds_sum{");
        label(b, route);
        buf_printf(b, "} %.6f\nragd_request_duration_seconds_count{", (double)sum_us / 1e6);
        label(b, route);
        buf_printf(b, "} %llu\n", (unsigned long long)count);
    }
}

/* ---- by format of documents ---- */
static void write_cages(struct buf *b, const struct slot *slot, unsigned n)
{
#define X(name) #name,
    static const char *const formats[] = {CAGE_FORMATS(X)}, *const outcomes[] = {CAGE_OUTCOMES(X)};
#undef X
    uint64_t sum_us[CAGE_FORMAT_COUNT] = {0};
    family(b, "cage_documents_total", "counter", "Documents read in cages, by format and outcome");
    for (int format = 0; format < CAGE_FORMAT_COUNT; format++)
        for (int outcome = 0; outcome < CAGE_OUTCOME_COUNT; outcome++) {
            uint64_t count = 0;
            for (unsigned w = 0; w < n; w++)
                count += slot[w].cage[format].by_outcome[outcome];
            if (count)
                buf_printf(b, "ragd_cage_documents_total{format=\"%s\",outcome=\"%s\"} %llu\n", formats[format],
                           outcomes[outcome], (unsigned long long)count);
        }
    family(b, "cage_seconds_total", "counter",
           "Time that documents were in cages, from the request to the text, by format");
    for (int format = 0; format < CAGE_FORMAT_COUNT; format++) {
        for (unsigned w = 0; w < n; w++)
            sum_us[format] += slot[w].cage[format].sum_us;
        if (sum_us[format])
            buf_printf(b, "ragd_cage_seconds_total{format=\"%s\"} %.6f\n", formats[format],
                       (double)sum_us[format] / 1e6);
    }
}

/* ---- by worker ---- */
static void write_per_worker(struct buf *b, const struct scoreboard *sb, const char *name, const char *type,
                             const char *help, double (*value)(const struct slot *))
{
    family(b, name, type, help);
    for (unsigned w = 0; w < scoreboard_slots(sb); w++)
        if (alive(&sb->slot[w]))
            buf_printf(b, "ragd_%s{worker=\"%u\",role=\"%s\"} %.15g\n", name, w, role_name((enum role)sb->slot[w].role),
                       value(&sb->slot[w]));
}

static double rss_bytes(const struct slot *s)
{
    return (double)s->rss_kb * 1024;
}

static double anon_bytes(const struct slot *s)
{
    return (double)s->anon_kb * 1024;
}

static double cpu_seconds(const struct slot *s)
{
    return (double)s->cpu_us / 1e6;
}

static double worker_connections(const struct slot *s)
{
    return s->connections;
}

static double worker_restarts(const struct slot *s)
{
    return s->restarts;
}

static void write_workers(struct buf *b, const struct scoreboard *sb)
{
    family(b, "workers", "gauge", "Workers, by role and state");
    for (int role = 0; role < ROLE_COUNT; role++)
        for (int state = WORKER_FORKED; state <= WORKER_KILLED; state++) {
            int n = 0;
            for (unsigned w = 0; w < scoreboard_slots(sb); w++)
                n += sb->slot[w].role == (unsigned)role && sb->slot[w].state == state;
            if (n)
                buf_printf(b, "ragd_workers{role=\"%s\",state=\"%s\"} %d\n", role_name((enum role)role),
                           worker_state_name((enum worker_state)state), n);
        }
    family(b, "worker_deaths_total", "counter", "Workers that ended otherwise than planned, by role and reason");
    for (int role = ROLE_HTTP; role < ROLE_COUNT; role++)
        for (int why = 0; why < DEATH_COUNT; why++)
            buf_printf(b, "ragd_worker_deaths_total{role=\"%s\",reason=\"%s\"} %llu\n", role_name((enum role)role),
                       death_name((enum death)why), (unsigned long long)sb->deaths[role][why]);
    family(b, "worker_recycled_total", "counter", "Workers replaced because they asked for it, by role and reason");
    for (int role = ROLE_HTTP; role < ROLE_COUNT; role++)
        for (int why = RECYCLE_none + 1; why < RECYCLE_COUNT; why++)
            buf_printf(b, "ragd_worker_recycled_total{role=\"%s\",reason=\"%s\"} %llu\n", role_name((enum role)role),
                       recycle_name((enum recycle)why), (unsigned long long)sb->recycled[role][why]);
    write_per_worker(b, sb, "worker_rss_bytes", "gauge", "Resident memory of a worker, mapped files included",
                     rss_bytes);
    write_per_worker(b, sb, "worker_anon_bytes", "gauge",
                     "Resident memory of a worker without mapped files: what server.max_rss limits", anon_bytes);
    write_per_worker(b, sb, "worker_cpu_seconds_total", "counter", "CPU time of a worker", cpu_seconds);
    write_per_worker(b, sb, "worker_connections", "gauge", "Connections of a worker", worker_connections);
    write_per_worker(b, sb, "worker_restarts_total", "counter", "Processes that this worker's slot has had before",
                     worker_restarts);
}

/* ---- the server as a whole ---- */
static void write_last(struct buf *b, const char *what, uint64_t ok, uint64_t failed, const struct verdict *v)
{
    char name[64], help[80];
    snprintf(name, sizeof name, "%ss_total", what);
    snprintf(help, sizeof help, "%c%ss, by outcome", what[0] - 'a' + 'A', what + 1);
    family(b, name, "counter", help);
    buf_printf(b, "ragd_%s{outcome=\"ok\"} %llu\nragd_%s{outcome=\"failed\"} %llu\n", name, (unsigned long long)ok,
               name, (unsigned long long)failed);
    if (!v->at_us)
        return;
    snprintf(name, sizeof name, "last_%s_ok", what);
    snprintf(help, sizeof help, "1: the last %s went well", what);
    family(b, name, "gauge", help);
    buf_printf(b, "ragd_%s %d\n", name, v->ok);
    snprintf(name, sizeof name, "last_%s_timestamp_seconds", what);
    snprintf(help, sizeof help, "When the last %s began", what);
    family(b, name, "gauge", help);
    buf_printf(b, "ragd_%s %.3f\n", name, (double)v->at_us / 1e6);
}

static void write_server(struct buf *b, const struct scoreboard *sb)
{
    struct note n;
    (void)note_read(sb, &n);
    family(b, "info", "gauge", "Version and settings of the server");
    buf_printf(b, "ragd_info{version=\"%s\",config_sha256=\"%s\"} 1\n", n.version, n.sha256);
    family(b, "ready", "gauge", "1: requests can be answered");
    buf_printf(b, "ragd_ready %d\n", status_ready(sb, NULL));
    family(b, "degraded", "gauge", "1: no worker of a wanted role is ready");
    buf_printf(b, "ragd_degraded %d\n", n.degraded);
    family(b, "generation", "gauge", "Generation of settings and workers in effect");
    buf_printf(b, "ragd_generation %u\n", sb->generation);
    family(b, "workers_wanted", "gauge", "Workers to keep, by role");
    for (int role = ROLE_HTTP; role <= ROLE_INGEST; role++)
        buf_printf(b, "ragd_workers_wanted{role=\"%s\"} %d\n", role_name((enum role)role), n.target[role]);
    family(b, "uptime_seconds", "gauge", "Since the start of the master");
    buf_printf(b, "ragd_uptime_seconds %.3f\n", (double)score_age(sb->start_ns, clock_ns()) / 1e9);
    family(b, "shedding", "gauge", "1 while requests are refused because memory is short");
    buf_printf(b, "ragd_shedding %d\n", (int)sb->shedding);
    family(b, "sheddings_total", "counter", "Times that this began");
    buf_printf(b, "ragd_sheddings_total %u\n", (unsigned)sb->sheddings);
    write_last(b, "reload", sb->reloads_ok, sb->reloads_failed, &n.reload);
    write_last(b, "upgrade", sb->upgrades_ok, sb->upgrades_failed, &n.upgrade);
}

/* Counting jobs and deliveries is all here that asks the database; a scrape needs no better than a second old. Without
 * the database the family is left out, and everything else is still told. */
struct counted {
    int64_t n[JOB_STATE_COUNT], asked_ns;
    bool known;
};

static bool is_stale(struct counted *c)
{
    if (c->known && clock_ns() - c->asked_ns <= SEC)
        return false;
    c->asked_ns = clock_ns();
    return true;
}

suspends static void write_jobs(struct buf *b, struct request *r)
{
    static struct counted jobs;
    int64_t n[JOB_STATE_COUNT];
    struct err e;
    if (is_stale(&jobs) && (jobs.known = STORE_CALL(r->app->store, job_counts, n, &e) == 0))
        memcpy(jobs.n, n, sizeof n);
    if (!jobs.known)
        return;
    family(b, "jobs", "gauge", "Jobs, by state");
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        buf_printf(b, "ragd_jobs{state=\"%s\"} %lld\n", job_state_name((enum job_state)i), (long long)jobs.n[i]);
}

suspends static void write_deliveries(struct buf *b, struct request *r)
{
    _Static_assert((int)DELIVERY_STATE_COUNT <= (int)JOB_STATE_COUNT, "struct counted has room for both");
    static struct counted deliveries;
    int64_t n[DELIVERY_STATE_COUNT];
    struct err e;
    if (is_stale(&deliveries) && (deliveries.known = STORE_CALL(r->app->store, delivery_counts, n, &e) == 0))
        memcpy(deliveries.n, n, sizeof n);
    if (!deliveries.known)
        return;
    family(b, "webhook_deliveries", "gauge", "Webhook deliveries that are kept, by state");
    for (int i = 0; i < DELIVERY_STATE_COUNT; i++)
        buf_printf(b, "ragd_webhook_deliveries{state=\"%s\"} %lld\n", delivery_state_name((enum delivery_state)i),
                   (long long)deliveries.n[i]);
}

void metrics_text(struct buf *b)
{
    const struct scoreboard *sb = scoreboard_self();
    const struct slot *slot = sb ? sb->slot : slot_self;
    unsigned n = sb ? scoreboard_slots(sb) : 1;
    write_stats(b, slot, n);
    write_requests(b, slot, n);
    write_latency(b, slot, n);
    write_cages(b, slot, n);
    if (!sb)
        return;
    write_workers(b, sb);
    write_server(b, sb);
}

suspends int api_metrics(struct request *r, struct err *e)
{
    struct buf b = {0};
    (void)e;
    metrics_text(&b);
    write_jobs(&b, r);
    write_deliveries(&b, r);
    buf_str(reply_begin(r, 200, METRICS_TYPE), buf_view(&b));
    buf_fini(&b);
    return 0;
}
