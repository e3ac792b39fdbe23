#include "worker/cli/report.h"
#include "common/clock.h"
#include "worker/cli/session.h"
#include "worker/io/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { BAR_WIDTH = 30, BAR_EVERY_MS = 100, LINE_EVERY_MS = 5000 };

void report_init(struct report *r, const struct walk *w, struct str collection, bool json)
{
    *r = (struct report){.walk = w, .collection = collection, .json = json, .terminal = isatty(STDERR_FILENO)};
    r->item = calloc(w->n + 1, sizeof *r->item);
    if (!r->item)
        abort();
    r->count[OUTCOME_WAITING] = w->n;
    r->start_ns = clock_ns();
    r->shown_ns = r->terminal ? 0 : r->start_ns; /* the bar is there at once, the first line after its interval */
}

void report_fini(struct report *r)
{
    free(r->item);
    r->item = NULL;
}

void report_set(struct report *r, size_t file, enum outcome outcome, const char *code, const char *reason)
{
    struct report_item *it = &r->item[file];
    r->count[it->outcome]--;
    r->count[outcome]++;
    *it = (struct report_item){outcome, code, reason};
}

static void print_duration(int64_t s)
{
    if (s >= 3600)
        fprintf(stderr, "%lld:%02lld:%02lld", (long long)(s / 3600), (long long)(s / 60 % 60), (long long)(s % 60));
    else
        fprintf(stderr, "%lld:%02lld", (long long)(s / 60), (long long)(s % 60));
}

void report_progress(struct report *r)
{
    int64_t now = clock_ns(), every = (r->terminal ? BAR_EVERY_MS : LINE_EVERY_MS) * MS;
    size_t n = r->walk->n, done = n - r->count[OUTCOME_WAITING];
    if (now - r->shown_ns < every || !n)
        return;
    r->shown_ns = now;
    double seconds = (double)(now - r->start_ns) / SEC, rate = seconds > 0 ? (double)done / seconds : 0;
    if (r->terminal) {
        size_t full = done * BAR_WIDTH / n;
        fputs("\r[", stderr);
        for (size_t i = 0; i < BAR_WIDTH; i++)
            fputc(i < full ? '#' : '.', stderr);
        fputs("] ", stderr);
    } else {
        fputs("ragd ingest: ", stderr);
    }
    fprintf(stderr, "%zu of %zu files, %zu refused, %.1f/s, ETA ", done, n, r->count[OUTCOME_REFUSED], rate);
    if (rate > 0)
        print_duration((int64_t)((double)(n - done) / rate));
    else
        fputs("unknown", stderr);
    fputs(r->terminal ? "\033[K" : "\n", stderr);
    fflush(stderr);
}

static void print_json(const struct report *r)
{
    static const char *const names[] = {"unfinished", "ready", "updated", "unchanged", "queued", "refused"};
    struct buf b = {0};
    struct json_out o = json_out(&b);
    int64_t ms = (clock_ns() - r->start_ns) / MS;
    jo_begin(&o, '{');
    jo_member(&o, "collection"), jo_str(&o, r->collection);
    jo_member(&o, "files"), jo_i64(&o, (int64_t)r->walk->n);
    for (int i = OUTCOME_WAITING; i < OUTCOME_REFUSED; i++)
        jo_key(&o, str_of(names[i])), jo_i64(&o, (int64_t)r->count[i]);
    jo_member(&o, "seconds"), jo_f64(&o, (double)ms / 1000);
    jo_member(&o, "refused"), jo_begin(&o, '[');
    for (size_t i = 0; i < r->walk->n; i++) {
        if (r->item[i].outcome != OUTCOME_REFUSED)
            continue;
        jo_begin(&o, '{');
        jo_member(&o, "path"), jo_str(&o, r->walk->file[i].path);
        jo_member(&o, "code"), jo_strz(&o, r->item[i].code);
        jo_member(&o, "reason"), jo_strz(&o, r->item[i].reason);
        jo_end(&o, '}');
    }
    jo_end(&o, ']');
    jo_end(&o, '}');
    buf_ch(&b, '\n');
    fwrite(b.p, 1, b.n, stdout);
    buf_fini(&b);
}

void report_end(struct report *r)
{
    if (r->terminal)
        fputs("\r\033[K", stderr);
    if (r->json) {
        print_json(r);
        return;
    }
    for (size_t i = 0; i < r->walk->n; i++) {
        if (r->item[i].outcome != OUTCOME_REFUSED)
            continue;
        fputs("refused  ", stdout);
        session_print(stdout, r->walk->file[i].path);
        fputs(": ", stdout);
        session_print(stdout, str_of(r->item[i].reason));
        putchar('\n');
    }
    printf("%zu files into " STR_FMT ": %zu ready", r->walk->n, STR_ARG(r->collection), r->count[OUTCOME_READY]);
    if (r->count[OUTCOME_UPDATED])
        printf(", %zu updated", r->count[OUTCOME_UPDATED]);
    printf(", %zu skipped (unchanged), %zu refused", r->count[OUTCOME_UNCHANGED], r->count[OUTCOME_REFUSED]);
    if (r->count[OUTCOME_QUEUED])
        printf(", %zu queued", r->count[OUTCOME_QUEUED]);
    if (r->count[OUTCOME_WAITING])
        printf(", %zu unfinished: run it again to go on", r->count[OUTCOME_WAITING]);
    printf(" in %.1f s\n", (double)(clock_ns() - r->start_ns) / SEC);
}
