#include "worker/core/watch.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/core/source.h"
#include "worker/io/folder.h"
#include "worker/io/json.h"
#include "worker/jobs/jobs.h"
#include <errno.h>
#include <stdlib.h>

enum { LOCK_MS = 1000, AGAIN_MS = 2000, REST_MS = 50, PAGE = 100, TOLD_MAX = 10 /* lines of a round */ };

/* A file as it was when it was handed over, or refused. */
struct known {
    char *path;
    int64_t size, changed_ns;
    uint64_t inode;
    int64_t failed_ns; /* when it could not be stored, or removed, for a reason of its own; 0: it is done */
};

struct watch {
    const struct backends *b;
    int jobs_fd;
    struct fiber *fiber; /* NULL: it has ended */
    struct folder *folder;
    struct uuid collection;
    struct known *known; /* in order of their paths */
    size_t n_known;
    bool first; /* the next look is the first at this folder */
    bool warned, stopping;
};

static suspends void watch_main(void *arg);

int watch_check(const struct config *cfg, struct err *e)
{
    struct folder *f;
    struct err why;
    if (!*cfg->ingest_watch)
        return 0;
    if (folder_open(cfg->ingest_watch, &f, &why) < 0)
        return err_set(e, ERR_VALIDATION, "ingest.watch: %s; make the folder, or leave the key out", why.msg);
    folder_close(f);
    return 0;
}

struct watch *watch_start(const struct backends *b, int jobs_fd)
{
    if (!*b->cfg->ingest_watch)
        return NULL;
    struct watch *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    *w = (struct watch){.b = b, .jobs_fd = jobs_fd};
    if (!fiber_spawn("watch", watch_main, w)) {
        free(w);
        return NULL;
    }
    return w;
}

void watch_stop(struct watch *w)
{
    if (!w || w->stopping)
        return;
    w->stopping = true;
    if (w->fiber)
        fiber_cancel(w->fiber);
}

bool watch_idle(const struct watch *w)
{
    return !w || !w->fiber;
}

static void forget(struct watch *w)
{
    for (size_t i = 0; i < w->n_known; i++)
        free(w->known[i].path);
    free(w->known);
    w->known = NULL;
    w->n_known = 0;
}

void watch_free(struct watch *w)
{
    if (!w)
        return;
    forget(w);
    folder_close(w->folder);
    free(w);
}

/* ---- documents ---- */

static suspends int find_collection(struct watch *w, struct err *e)
{
    struct arena a = {0};
    struct store_collection c;
    struct str name = str_of(w->b->cfg->ingest_watch_collection);
    const struct store_collection new = {.name = name,
                                         .description = STR("The files of a watched folder"),
                                         .language = str_of(w->b->cfg->ingest_language),
                                         .metadata = STR("{}"),
                                         .chunking = STR("{}")};
    int rc = STORE_CALL(w->b->store, collection_by_name, &a, name, &c, e);
    if (rc && e->code == ERR_NOT_FOUND)
        rc = STORE_CALL(w->b->store, collection_create, &a, &new, &c, e);
    if (rc == 0 && !uuid_eq(&w->collection, &c.id)) { /* another one, perhaps of the same name: it has nothing yet */
        w->collection = c.id;
        w->first = true;
        forget(w);
    }
    arena_fini(&a);
    return rc;
}

static bool is_watched(struct arena *a, const struct store_document *d)
{
    json_t *metadata;
    struct err e;
    return json_parse_object(a, d->metadata, 64, &metadata, &e) == 0 &&
           json_is_true(json_object_get(metadata, "watched"));
}

static suspends int drop_document(struct watch *w, const struct store_document *d, struct err *e)
{
    if (STORE_CALL(w->b->store, document_delete, &d->id, 0, e))
        return e->code == ERR_NOT_FOUND ? 0 : -1;
    STAT_ADD(watch_removed_total, 1);
    jobs_announce(w->jobs_fd);
    return 0;
}

/* The document of a file that has now `size` bytes, none of which can be taken; -1: it is gone. */
static suspends int drop(struct watch *w, struct str path, int64_t size, struct err *e)
{
    struct arena a = {0};
    struct store_document d;
    int rc = STORE_CALL(w->b->store, document_by_external_id, &a, &w->collection, source_external_id(&a, path), &d, e);
    if (rc && e->code == ERR_NOT_FOUND)
        rc = 0;
    else if (rc == 0 && d.bytes != size && is_watched(&a, &d))
        rc = drop_document(w, &d, e);
    arena_fini(&a);
    return rc;
}

/* 0: it is a document, or cannot be one, which is logged. -1: not now. Of a file that was emptied, or has grown too large,
 * nothing is found any more, as of one that is gone; what cannot be read keeps its document. */
static suspends int take(struct watch *w, const struct folder_file *f, struct err *e)
{
    struct arena a = {0};
    const struct str path = f->path;
    struct source src;
    struct store_document d;
    enum store_created what;
    const char *refusal;
    struct err why = {0};
    if (fiber_check())
        return err_set(e, ERR_CANCELED, "the worker is stopping");
    struct str id = source_external_id(&a, path);
    int rc = 0, fd = folder_open_file(w->folder, path);
    if (fd < 0) {
        err_set(&why, ERR_VALIDATION, "%s", strerror(errno));
    } else if (source_open(&src, fd, w->b->cfg->limits_upload, &a, &refusal, &why) == 0) {
        why.code = ERR_NONE;
        rc = id.n > SOURCE_ID_MAX
                 ? err_set(e, ERR_VALIDATION, "its path has more than %d bytes", SOURCE_ID_MAX)
                 : source_put(&src, w->b->store, &a, &w->collection, id, STR("{\"watched\":true}"), &d, &what, e);
        source_close(&src);
        if (rc && (e->code == ERR_VALIDATION || e->code == ERR_TOO_LARGE)) {
            why = *e;
            rc = 0;
        } else if (rc == 0 && what != STORE_UNCHANGED) {
            STAT_ADD(watch_taken_total, 1);
            jobs_announce(w->jobs_fd);
        }
    } else if (strcmp(refusal, "unreadable") != 0) {
        rc = drop(w, path, f->size, e);
    }
    if (why.code && !fiber_check()) {
        STAT_ADD(watch_refused_total, 1);
        log_warn("ingest.watch: " STR_FMT ": %s", STR_ARG(path), why.msg);
    }
    arena_fini(&a);
    return rc;
}

static int by_text(const void *a, const void *b)
{
    struct str x = *(const struct str *)a, y = *(const struct str *)b;
    int order = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
    return order ? order : (x.n > y.n) - (x.n < y.n);
}

/* Has only this file or document failed? Then it does not hold the others up. */
static bool of_its_own(const struct err *e)
{
    return !err_retryable(e->code) && e->code != ERR_NOT_FOUND && e->code != ERR_CANCELED;
}

/* The first look after a start: documents whose files went while nobody watched. */
static suspends int drop_orphans(struct watch *w, const struct folder_scan *s, struct err *e)
{
    struct arena all = {0};
    struct str *ids = arena_alloc(&all, s->n * sizeof *ids);
    struct store_document_query q = {.collection = w->collection, .page = {.limit = PAGE, .ascending = true}};
    struct err why = {0};
    int rc = 0;
    for (size_t i = 0; i < s->n; i++)
        ids[i] = source_external_id(&all, s->file[i].path);
    qsort(ids, s->n, sizeof *ids, by_text);
    for (bool more = true; rc == 0 && more;) {
        struct arena a = {0};
        struct store_document *d;
        size_t n;
        rc = STORE_CALL(w->b->store, document_list, &a, &q, &d, &n, &more, e);
        for (size_t i = 0; rc == 0 && i < n; i++)
            if (d[i].external_id.n && !bsearch(&d[i].external_id, ids, s->n, sizeof *ids, by_text) &&
                is_watched(&a, &d[i]) && drop_document(w, &d[i], e)) {
                why = *e;
                rc = of_its_own(e) ? 0 : -1;
            }
        if (rc == 0 && n) {
            q.page.after = d[n - 1].id;
            q.page.has_after = true;
        }
        arena_fini(&a);
    }
    arena_fini(&all);
    if (rc == 0 && why.code) { /* the others are gone */
        *e = why;
        rc = -1;
    }
    return rc;
}

/* ---- a round ---- */

static bool settled(const struct watch *w, const struct folder_file *f, int64_t now, int64_t *next)
{
    int64_t settle = w->b->cfg->ingest_watch_settle * MS, age = now - f->changed_ns;
    if (age >= settle || age < -settle) /* a clock that was set back must not hold files up */
        return true;
    if (settle - age < *next)
        *next = settle - age;
    return false;
}

static bool same_file(const struct known *k, const struct folder_file *f)
{
    return k->size == f->size && k->changed_ns == f->changed_ns && k->inode == f->inode;
}

static void remember(struct known *k, const struct folder_file *f)
{
    if (!k->path && !(k->path = strdup(f->path.p)))
        abort();
    k->size = f->size;
    k->changed_ns = f->changed_ns;
    k->inode = f->inode;
}

/* Is there something to do about a file, or about what is known of one that is gone (`f` NULL)? If only later, *next says
 * when. */
static bool is_due(const struct watch *w, const struct folder_scan *s, const struct folder_file *f,
                   const struct known *k, int64_t *next)
{
    bool same = k->path && (!f || same_file(k, f));
    if (!f && !s->complete)
        return false;
    if (same && k->failed_ns) {
        int64_t left = k->failed_ns + w->b->cfg->ingest_watch_rescan * MS - clock_ns();
        if (left > 0 && left < *next)
            *next = left;
        return left <= 0;
    }
    return !f || (!same && settled(w, f, clock_wall_us() * 1000, next));
}

/* Takes a file, or removes the document of one that is gone, and notes it in *k. 0 also when that has to wait, which is
 * logged once, until it succeeds or the file changes. */
static suspends int follow_one(struct watch *w, const struct folder_file *f, struct known *k, int *told, struct err *e)
{
    bool again = k->failed_ns && (!f || same_file(k, f));
    int rc = f ? take(w, f, e) : drop(w, str_of(k->path), -1, e);
    if (rc && !of_its_own(e))
        return -1;
    if (rc && !again && ++*told <= TOLD_MAX) {
        log_warn("ingest.watch: %s has to wait%s", f ? f->path.p : k->path, *told == TOLD_MAX ? ", as may others" : "");
        log_err(LOG_WARN, "ingest.watch", e);
    }
    k->failed_ns = rc ? clock_ns() : 0;
    if (f) {
        remember(k, f);
    } else if (rc == 0) {
        free(k->path);
        k->path = NULL;
    }
    return 0;
}

/* Goes along both lists, which are in the same order. What could not be done now is done in a later round, which *next
 * says the time of, from now. */
static suspends int follow(struct watch *w, const struct folder_scan *s, int64_t *next, struct err *e)
{
    struct known *now = malloc((s->n + w->n_known + 1) * sizeof *now);
    size_t n = 0, k = 0, i = 0;
    int rc = 0, told = 0;
    if (!now)
        abort();
    while (i < s->n || k < w->n_known) {
        int order = i == s->n ? 1 : k == w->n_known ? -1 : strcmp(s->file[i].path.p, w->known[k].path);
        const struct folder_file *f = order > 0 ? NULL : &s->file[i++]; /* NULL: it is gone */
        struct known x = order < 0 ? (struct known){0} : w->known[k++];
        if (rc == 0 && is_due(w, s, f, &x, next))
            rc = follow_one(w, f, &x, &told, e);
        if (x.path)
            now[n++] = x;
    }
    free(w->known);
    w->known = now;
    w->n_known = n;
    return rc;
}

static suspends int round_of(struct watch *w, int64_t *next, struct err *e)
{
    struct folder_scan s;
    int rc = folder_look(w->folder, (size_t)w->b->cfg->ingest_watch_max_files, &s, e);
    if (rc == 0 && !s.complete && !w->warned)
        log_warn("ingest.watch: not everything was looked at: more than ingest.watch_max_files, or unreadable; "
                 "nothing is removed");
    w->warned = rc == 0 && !s.complete;
    if (rc == 0) {
        STAT_SUB(watch_files, slot_self->stat[STAT_watch_files]);
        STAT_ADD(watch_files, s.n);
        rc = find_collection(w, e);
    }
    if (rc == 0)
        rc = follow(w, &s, next, e);
    if (rc == 0 && w->first && s.complete && s.n)
        rc = drop_orphans(w, &s, e);
    if (rc == 0 && s.n)
        w->first = false;
    folder_scan_fini(&s);
    return rc;
}

/* Opens the folder, and waits until it is this worker's. */
static suspends bool acquire(struct watch *w)
{
    struct err e;
    bool told = false;
    while (!w->stopping) {
        if (!w->folder && folder_open(w->b->cfg->ingest_watch, &w->folder, &e) < 0 && !told) {
            log_warn("ingest.watch: %s", e.msg);
            told = true;
        }
        if (w->folder && folder_lock(w->folder)) {
            w->first = true;
            forget(w);
            log_info("ingest.watch: watches %s", w->b->cfg->ingest_watch);
            return true;
        }
        folder_close(w->folder); /* it may be another one the next time */
        w->folder = NULL;
        if (fiber_sleep(LOCK_MS * MS))
            break;
    }
    return false;
}

static suspends void watch_main(void *arg)
{
    struct watch *w = arg;
    bool told = false;
    w->fiber = fiber_self();
    while (!w->stopping && acquire(w)) {
        while (!w->stopping && folder_is_current(w->folder)) {
            struct err e;
            int64_t next = w->b->cfg->ingest_watch_rescan * MS, begin = clock_ns();
            int rc = round_of(w, &next, &e);
            int64_t took = clock_ns() - begin;
            if (rc && !told && !w->stopping)
                log_err(LOG_WARN, "ingest.watch: some changes have to wait", &e);
            told = rc != 0;
            if (rc ? fiber_sleep(AGAIN_MS * MS) : folder_wait(w->folder, next))
                break;
            if (fiber_sleep(took > REST_MS * MS ? took
                                                : REST_MS * MS)) /* changes without end take half the time at most */
                break;
        }
        folder_close(w->folder);
        w->folder = NULL;
    }
    STAT_SUB(watch_files, slot_self->stat[STAT_watch_files]);
    w->fiber = NULL;
}
