#include "worker/api/api.h"

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

/* ---- by worker ---- */
static void write_per_worker(struct buf *b, const struct scoreboard *sb, const char *name, const char *type,
                             const char *help, double (*value)(const struct slot *))
{
    family(b, name, type, help);
    for (unsigned w = 0; w < sb->slots; w++)
        if (alive(&sb->slot[w]))
            buf_printf(b, "ragd_%s{worker=\"%u\",role=\"%s\"} %.15g\n", name, w, role_name((enum role)sb->slot[w].role),
                       value(&sb->slot[w]));
}

static double rss_bytes(const struct slot *s)
{
    return (double)s->rss_kb * 1024;
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
    static const char *const reasons[] = {
#define X(name) #name,
        DEATH_REASONS(X)
#undef X
    };
    family(b, "workers", "gauge", "Workers, by role and state");
    for (int role = 0; role < ROLE_COUNT; role++)
        for (int state = WORKER_FORKED; state <= WORKER_KILLED; state++) {
            int n = 0;
            for (unsigned w = 0; w < sb->slots; w++)
                n += sb->slot[w].role == (unsigned)role && sb->slot[w].state == state;
            if (n)
                buf_printf(b, "ragd_workers{role=\"%s\",state=\"%s\"} %d\n", role_name((enum role)role),
                           worker_state_name((enum worker_state)state), n);
        }
    family(b, "worker_deaths_total", "counter", "Workers that ended otherwise than planned, by role and reason");
    for (int role = ROLE_HTTP; role < ROLE_COUNT; role++)
        for (int why = 0; why < DEATH_COUNT; why++)
            buf_printf(b, "ragd_worker_deaths_total{role=\"%s\",reason=\"%s\"} %llu\n", role_name((enum role)role),
                       reasons[why], (unsigned long long)sb->deaths[role][why]);
    write_per_worker(b, sb, "worker_rss_bytes", "gauge", "Resident memory of a worker", rss_bytes);
    write_per_worker(b, sb, "worker_cpu_seconds_total", "counter", "CPU time of a worker", cpu_seconds);
    write_per_worker(b, sb, "worker_connections", "gauge", "Connections of a worker", worker_connections);
    write_per_worker(b, sb, "worker_restarts_total", "counter", "Processes that this worker's slot has had before",
                     worker_restarts);
    family(b, "uptime_seconds", "gauge", "Since the start of the master");
    buf_printf(b, "ragd_uptime_seconds %.3f\n", (double)(clock_ns() - sb->start_ns) / 1e9);
    family(b, "reloads_total", "counter", "Reloads, by outcome");
    buf_printf(b, "ragd_reloads_total{outcome=\"ok\"} %llu\nragd_reloads_total{outcome=\"failed\"} %llu\n",
               (unsigned long long)sb->reloads_ok, (unsigned long long)sb->reloads_failed);
}

/* Counting jobs is the one thing here that asks the database; a scrape needs no better than a second old. Without the
 * database the family is left out, and everything else is still told. */
suspends static void write_jobs(struct buf *b, struct request *r)
{
    static int64_t counts[JOB_STATE_COUNT], asked_ns;
    static bool known;
    struct err e;
    if (!known || clock_ns() - asked_ns > SEC) {
        int64_t fresh[JOB_STATE_COUNT];
        asked_ns = clock_ns();
        known = STORE_CALL(r->app->store, job_counts, fresh, &e) == 0;
        if (known)
            memcpy(counts, fresh, sizeof counts);
    }
    if (!known)
        return;
    family(b, "jobs", "gauge", "Jobs, by state");
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        buf_printf(b, "ragd_jobs{state=\"%s\"} %lld\n", job_state_name((enum job_state)i), (long long)counts[i]);
}

suspends int api_metrics(struct request *r, struct err *e)
{
    struct scoreboard *sb = scoreboard_self();
    struct buf b = {0};
    const struct slot *slot = sb ? sb->slot : slot_self;
    unsigned n = sb ? sb->slots : 1;
    (void)e;
    write_stats(&b, slot, n);
    write_requests(&b, slot, n);
    write_latency(&b, slot, n);
    if (sb)
        write_workers(&b, sb);
    write_jobs(&b, r);
    buf_str(reply_begin(r, 200, "text/plain; version=0.0.4; charset=utf-8"), buf_view(&b));
    buf_fini(&b);
    return 0;
}
