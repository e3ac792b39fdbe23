/* `ragd status`: once, again and again, or what the fibers of the workers wait for. */
#include "common/clock.h"
#include "common/str.h"
#include "master/ctl.h"
#include "master/master.h"
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 5, INTERVAL_MAX = 3600 };

struct options {
    bool json, fibers;
    int watch; /* seconds; 0: once */
};

/* -- the table */

/* A duration in at most seven characters: 12s, 5m03s, 3h12m, 4d02h. */
static const char *duration(double seconds, char out[24])
{
    long s = (long)seconds;
    if (s < 60)
        snprintf(out, 24, "%lds", s);
    else if (s < 3600)
        snprintf(out, 24, "%ldm%02lds", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, 24, "%ldh%02ldm", s / 3600, s / 60 % 60);
    else
        snprintf(out, 24, "%ldd%02ldh", s / 86400, s / 3600 % 24);
    return out;
}

static double real(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static bool is(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

static const char *latency(const json_t *w, const char *key, char out[24])
{
    if (json_is_number(json_object_get(w, key)))
        snprintf(out, 24, "%gms", real(w, key));
    else
        snprintf(out, 24, "-");
    return out;
}

static void print_last(const char *what, const json_t *changes)
{
    char ago[24];
    int64_t at_us;
    const json_t *last = json_object_get(changes, "last");
    const char *at = ctl_text(last, "at");
    if (!json_is_object(last) || clock_parse_rfc3339(at, strlen(at), &at_us) != 0) {
        printf("%s: none so far\n", what);
        return;
    }
    printf("%s: %lld ok, %lld failed; the last one, %s ago, ", what, ctl_number(changes, "ok"),
           ctl_number(changes, "failed"), duration((double)(clock_wall_us() - at_us) / 1e6, ago));
    if (is(last, "ok"))
        printf("went well in %lld ms\n", ctl_number(last, "took_ms"));
    else if (strcmp(ctl_text(last, "stage"), "rollback") == 0)
        printf("rolled back: %s\n", ctl_text(last, "reason"));
    else
        printf("failed after %lld ms, and all stayed as it was: %s: %s\n", ctl_number(last, "took_ms"),
               ctl_text(last, "stage"), ctl_text(last, "reason"));
}

static void print_addresses(const char *what, const json_t *names)
{
    size_t i;
    json_t *name;
    json_array_foreach (names, i, name)
        printf("%s%s", i ? ", " : what, json_string_value(name));
    if (json_array_size(names))
        putchar('\n');
}

static void print_worker(const json_t *w)
{
    char up[24], p50[24], p99[24], age[24];
    const json_t *death = json_object_get(w, "last_death");
    printf("%4lld %-6s %8lld %-8s %4lld %7s %6lld %5lld %7.1f %7s %7s %6.1fM %8lld  ", ctl_number(w, "slot"),
           ctl_text(w, "role"), ctl_number(w, "pid"), ctl_text(w, "state"), ctl_number(w, "generation"),
           duration(real(w, "uptime_s"), up), ctl_number(w, "connections"), ctl_number(w, "in_flight"),
           real(w, "requests_per_s"), latency(w, "p50_ms", p50), latency(w, "p99_ms", p99), real(w, "rss_kb") / 1024,
           ctl_number(w, "restarts"));
    if (json_is_object(death))
        printf("%s: %s, %s ago\n", ctl_text(death, "reason"), ctl_text(death, "how"),
               duration(real(death, "age_s"), age));
    else
        printf("-\n");
}

static void print_status(const json_t *o)
{
    size_t i;
    json_t *w;
    char up[24];
    const json_t *target = json_object_get(o, "target");
    printf("ragd %s, pid %lld, %s, %s%s%s, up %s\n", ctl_text(o, "version"), ctl_number(o, "pid"), ctl_text(o, "phase"),
           is(o, "ready") ? "ready" : "NOT READY", is(o, "degraded") ? ", DEGRADED" : "",
           is(o, "parked") ? ", PARKED" : "", duration(real(o, "uptime_s"), up));
    printf("configuration: %s, generation %lld, sha256 %.12s\n",
           *ctl_text(o, "config") ? ctl_text(o, "config") : "without a file", ctl_number(o, "generation"),
           ctl_text(o, "config_sha256"));
    print_addresses("listening on: ", json_object_get(o, "listeners"));
    print_addresses("status on: ", json_object_get(o, "admin_listeners"));
    print_last("reloads", json_object_get(o, "reloads"));
    print_last("upgrades", json_object_get(o, "upgrades"));
    printf("workers wanted: %lld http, %lld ingest\n\n", ctl_number(target, "http"), ctl_number(target, "ingest"));
    printf("%4s %-6s %8s %-8s %4s %7s %6s %5s %7s %7s %7s %7s %8s  %s\n", "SLOT", "ROLE", "PID", "STATE", "GEN",
           "UPTIME", "CONNS", "BUSY", "REQ/S", "P50", "P99", "RSS", "RESTARTS", "LAST DEATH");
    json_array_foreach (json_object_get(o, "workers"), i, w)
        print_worker(w);
}

static void print_fibers(const json_t *o)
{
    size_t i;
    json_t *w;
    json_array_foreach (json_object_get(o, "workers"), i, w) {
        const json_t *text = json_object_get(w, "fibers");
        printf("%sworker %lld (%s, pid %lld):\n", i ? "\n" : "", ctl_number(w, "slot"), ctl_text(w, "role"),
               ctl_number(w, "pid"));
        printf("%s", !json_is_string(text)      ? "does not answer\n"
                     : json_string_length(text) ? json_string_value(text)
                                                : "nothing in hand\n");
    }
}

/* -- once and again */

static int show(const struct config *cfg, const struct options *want)
{
    json_t *o = ctl_ask(cfg, json_pack("{s:s}", "cmd", want->fibers ? "fibers" : "status"),
                        want->fibers ? 2 * PATIENCE_S : PATIENCE_S);
    if (!o)
        return 1;
    if (want->json) {
        json_dumpf(o, stdout, JSON_REAL_PRECISION(12) | (want->watch ? JSON_COMPACT : JSON_INDENT(2)));
        putchar('\n');
    } else if (want->fibers) {
        print_fibers(o);
    } else {
        print_status(o);
    }
    json_decref(o);
    return 0;
}

static const char hide_cursor[] = "\033[?25l", clear[] = "\033[H\033[2J", show_cursor[] = "\033[?25h";

static void restore(int sig)
{
    ssize_t n = write(STDOUT_FILENO, show_cursor, sizeof show_cursor - 1);
    (void)n;
    raise(sig); /* SA_RESETHAND: now it has its usual effect */
}

static void take_terminal(void)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction sa = {.sa_handler = restore, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        sigaction(ends[i], &sa, NULL);
    fputs(hide_cursor, stdout);
}

/* Until the server ends, the reader is gone or somebody presses Ctrl-C. Asking anew each time finds also the next server
 * behind the same path. */
static int watch(const struct config *cfg, const struct options *want)
{
    bool terminal = isatty(STDOUT_FILENO) && !want->json;
    int code, shown = 0;
    if (terminal)
        take_terminal();
    for (;; shown++) {
        if (terminal)
            fputs(clear, stdout);
        else if (shown && !want->json)
            putchar('\n');
        code = show(cfg, want);
        if (code != 0 || fflush(stdout) != 0)
            break;
        nanosleep(&(struct timespec){.tv_sec = want->watch}, NULL);
    }
    if (terminal)
        fputs(show_cursor, stdout);
    if (code != 0 && shown)
        fprintf(stderr, "ragd: the server has ended, or does not answer any more\n");
    return code;
}

int ctl_status(int argc, char **argv, const struct config *cfg)
{
    struct options want = {.watch = 0};
    for (int i = 1; i < argc; i++) {
        uint64_t seconds = 1;
        if (strcmp(argv[i], "--json") == 0)
            want.json = true;
        else if (strcmp(argv[i], "--fibers") == 0)
            want.fibers = true;
        else if (strncmp(argv[i], "--watch", 7) != 0 || (argv[i][7] && argv[i][7] != '='))
            return ctl_usage("status", "`ragd status` does not know '%.60s'", argv[i]);
        else if (argv[i][7] && (!str_to_u64(str_of(argv[i] + 8), &seconds) || !seconds || seconds > INTERVAL_MAX))
            return ctl_usage("status", "--watch is a number of seconds from 1 to %d, not '%.60s'", INTERVAL_MAX,
                             argv[i] + 8);
        else
            want.watch = (int)seconds;
    }
    return want.watch ? watch(cfg, &want) : show(cfg, &want);
}
