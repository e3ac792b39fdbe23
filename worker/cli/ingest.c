/* Files and folders → documents. The command reads, hashes and enqueues; processes of its own (hands.c), and those of a
 * server if one runs, do the work; leases keep them from doing it twice. */
#include "common/clock.h"
#include "common/cpus.h"
#include "worker/cli/commands.h"
#include "worker/cli/hands.h"
#include "worker/cli/report.h"
#include "worker/cli/session.h"
#include "worker/core/source.h"
#include "worker/jobs/jobs.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum {
    SENDERS = 8,        /* files on their way to the database at once: PostgreSQL commits them together */
    WINDOW = 64,        /* oldest unfinished documents looked at in one round */
    ROUND_MS = 100,     /* between two rounds */
    PATIENCE_MS = 30000 /* a database that is away longer than this ends the command */
};

struct pending {
    struct uuid document;
    size_t file;
    bool updated;
};

struct ingest {
    struct session *session;
    const char *collection_name;
    int jobs, no_wait, json;
    struct walk walk;
    struct report report;
    struct hands hands;
    struct store_collection collection;
    struct pending *pending; /* in order of sending; entries before `head` are through */
    size_t n_pending, head, next_file;
    int senders; /* still at work */
    bool failed; /* for good: everybody stops */
};

static suspends int run(struct session *s, void *arg, struct err *e);
static suspends int sender(void *arg);
static suspends int watcher(void *arg);

int cli_ingest(int argc, char **argv, const struct config *cfg)
{
    struct ingest in = {.collection_name = "default", .jobs = cpus_available()};
    struct arena paths = {0};
    struct err e;
    const struct option table[] = {{"collection", required_argument, NULL, 'c'},
                                   {"jobs", required_argument, NULL, 'j'},
                                   {"no-wait", no_argument, &in.no_wait, 1},
                                   {"json", no_argument, &in.json, 1},
                                   {NULL, 0, NULL, 0}};
    int c, code;
    if (in.jobs > 64)
        in.jobs = 64;
    while ((c = session_option(argc, argv, table)) != -1) {
        if (c == '?' || (c == 'j' && !session_number(argv[0], "--jobs", optarg, 1, 64, &in.jobs)))
            return CLI_USAGE;
        if (c == 'c')
            in.collection_name = optarg;
    }
    if (optind == argc)
        return session_usage(argv[0], "a file or folder is missing");
    in.walk.arena = &paths;
    for (int i = optind; i < argc; i++)
        walk_add(&in.walk, argv[i]);
    walk_sort(&in.walk);
    report_init(&in.report, &in.walk, str_of(in.collection_name), in.json);
    /* Before the database is opened: nothing of it may cross the fork. */
    if (!in.no_wait && hands_start(&in.hands, cfg, in.jobs, &e)) {
        code = session_error(argv[0], &e);
    } else {
        if (in.no_wait)
            in.hands.jobs_fd = -1;
        code = session_run(argv[0], cfg, run, &in);
        if (!in.no_wait)
            hands_stop(&in.hands);
    }
    free(in.pending);
    report_fini(&in.report);
    walk_fini(&in.walk);
    arena_fini(&paths);
    return code;
}

static suspends int run(struct session *s, void *arg, struct err *e)
{
    struct ingest *in = arg;
    struct fiber_task task[SENDERS + 1];
    int code = CLI_OK;
    in->session = s;
    in->pending = calloc(in->walk.n + 1, sizeof *in->pending);
    if (!in->pending)
        abort();
    if (session_collection(s, str_of(in->collection_name), STR(""), &in->collection, e))
        return -1;
    in->senders = SENDERS;
    for (int i = 0; i < SENDERS; i++)
        task[i] = (struct fiber_task){.fn = sender, .arg = in};
    task[SENDERS] = (struct fiber_task){.fn = watcher, .arg = in};
    if (fiber_all(task, SENDERS + 1))
        code = CLI_FAILED;
    report_end(&in->report);
    for (size_t i = 0; i < in->walk.n; i++)
        if (in->walk.file[i].named && in->report.item[i].outcome == OUTCOME_REFUSED)
            code = CLI_FAILED;
    return code;
}

static void refuse(struct ingest *in, size_t file, struct str code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void refuse(struct ingest *in, size_t file, struct str code, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    report_set(&in->report, file, OUTCOME_REFUSED, arena_dup(&in->session->arena, code).p,
               arena_strdup(&in->session->arena, text));
}

/* The command cannot go on; what was sent is safe, and the next run takes up the rest. */
static int give_up(struct ingest *in, const struct err *e)
{
    if (!in->failed) {
        if (in->report.terminal)
            fputc('\n', stderr);
        session_error(in->session->command, e);
    }
    in->failed = true;
    return -1;
}

/* ---- sending ---- */

/* The document exists with these bytes already: through, on its way, or worth another try. */
static suspends int settle(struct ingest *in, size_t file, struct arena *a, const struct store_document *d,
                           bool updated, enum outcome through, struct err *e)
{
    struct store_job job;
    if (d->state == DOCUMENT_ready) {
        report_set(&in->report, file, through, NULL, NULL);
        return 0;
    }
    if (d->state == DOCUMENT_failed) {
        refuse(in, file, d->error_code, STR_FMT, STR_ARG(d->error_message));
        return 0;
    }
    if (d->state == DOCUMENT_cancelled && STORE_CALL(in->session->store, document_reprocess, a, &d->id, &job, e) &&
        e->code != ERR_BUSY)
        return -1;
    jobs_announce(in->hands.jobs_fd);
    if (in->no_wait)
        report_set(&in->report, file, OUTCOME_QUEUED, NULL, NULL);
    else
        in->pending[in->n_pending++] = (struct pending){d->id, file, updated};
    return 0;
}

static suspends int send_source(struct ingest *in, size_t file, const struct source *src, struct arena *a,
                                struct err *e)
{
    struct store_document doc;
    enum store_created what;
    struct str id = source_external_id(a, in->walk.file[file].path);
    if (source_put(src, in->session->store, a, &in->collection.id, id, STR(""), &doc, &what, e))
        return -1;
    return settle(in, file, a, &doc, what == STORE_UPDATED, what == STORE_UNCHANGED ? OUTCOME_UNCHANGED : OUTCOME_READY,
                  e);
}

static suspends int send_opened(struct ingest *in, size_t file, const struct source *src, struct arena *a)
{
    struct err e;
    int64_t end = clock_ns() + PATIENCE_MS * MS;
    int r;
    while ((r = send_source(in, file, src, a, &e)) && source_passing(e.code) && clock_ns() < end && !in->failed)
        if (fiber_sleep(200 * MS))
            break;
    if (r && (e.code == ERR_VALIDATION || e.code == ERR_TOO_LARGE || e.code == ERR_QUOTA)) {
        refuse(in, file, str_of(err_wire(e.code)), "%s", e.msg);
        return 0;
    }
    return r ? give_up(in, &e) : 0;
}

static suspends int send_file(struct ingest *in, size_t file, struct arena *a)
{
    const struct walk_file *f = &in->walk.file[file];
    const char *refusal;
    struct source src;
    struct err e;
    if (f->refusal) {
        refuse(in, file, STR("not_a_file"), "%s", f->refusal);
        return 0;
    }
    /* O_NONBLOCK: what was a file a moment ago may be a pipe now. */
    int fd = open(f->path.p, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        refuse(in, file, STR("unreadable"), "%s", strerror(errno));
        return 0;
    }
    if (source_open(&src, fd, in->session->cfg->limits_upload, a, &refusal, &e)) {
        refuse(in, file, str_of(refusal), "%s", e.msg);
        return 0;
    }
    int r = send_opened(in, file, &src, a);
    source_close(&src);
    return r;
}

static suspends int sender(void *arg)
{
    struct ingest *in = arg;
    int r = 0;
    while (r == 0 && !in->failed && in->next_file < in->walk.n) {
        struct arena a = {0};
        size_t file = in->next_file++;
        r = send_file(in, file, &a);
        arena_fini(&a);
        if (r == 0)
            r = fiber_yield(); /* SQLite answers at once: the others want their turn */
    }
    in->senders--;
    return r;
}

/* ---- watching ---- */

static suspends int look(struct ingest *in, struct pending *p, bool *through, struct err *e)
{
    struct arena a = {0};
    struct store_document d;
    int r = STORE_CALL(in->session->store, document_get, &a, &p->document, &d, e);
    *through = r == 0 || e->code == ERR_NOT_FOUND;
    if (r && e->code == ERR_NOT_FOUND) {
        refuse(in, p->file, STR("deleted"), "was deleted while it was worked on");
        r = 0;
    } else if (r == 0 && d.state == DOCUMENT_failed) {
        refuse(in, p->file, d.error_code, STR_FMT, STR_ARG(d.error_message));
    } else if (r == 0 && d.state == DOCUMENT_cancelled) {
        refuse(in, p->file, STR("cancelled"), "was cancelled while it was worked on");
    } else if (r == 0 && d.state == DOCUMENT_ready) {
        report_set(&in->report, p->file, p->updated ? OUTCOME_UPDATED : OUTCOME_READY, NULL, NULL);
    } else {
        *through = false;
    }
    arena_fini(&a);
    return r;
}

/* Jobs are taken in about the order in which they were queued, so looking at the oldest is enough. Those that are
 * through leave; the rest keep their order. */
static suspends int look_round(struct ingest *in, struct err *e)
{
    size_t end = in->head + WINDOW < in->n_pending ? in->head + WINDOW : in->n_pending, keep = end;
    int r = 0;
    for (size_t i = end; i-- > in->head;) {
        bool through = false;
        if (r == 0)
            r = look(in, &in->pending[i], &through, e);
        if (!through)
            in->pending[--keep] = in->pending[i];
    }
    in->head = keep;
    return r;
}

static suspends int watcher(void *arg)
{
    struct ingest *in = arg;
    struct err e;
    int64_t good = clock_ns();
    while (!in->failed && (in->senders || in->head < in->n_pending)) {
        size_t before = in->head;
        if (look_round(in, &e) == 0)
            good = clock_ns();
        else if (!source_passing(e.code) || clock_ns() - good > PATIENCE_MS * MS)
            return give_up(in, &e);
        if (!in->no_wait && !hands_alive(&in->hands)) {
            err_set(&e, ERR_INTERNAL, "the processes that work on the files die as soon as they begin");
            return give_up(in, &e);
        }
        report_progress(&in->report);
        if (in->head - before < WINDOW && fiber_sleep(ROUND_MS * MS))
            return -1;
    }
    return in->failed ? -1 : 0;
}
