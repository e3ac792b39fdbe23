/* The embedded index: a directory with a file for each space, which all workers map. vfile.h says how a file looks. */
#include "worker/vector/vector_embedded.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/vector/vscan.h"
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SPACES_MAX = 128,
    SLICE_BYTES = 256 * 1024,
    SLICE_NS = 1 * MS,
    FIRST_LOOK_BYTES = 4 << 20,
    AWAY_BYTES = 4 << 20
};

static suspends int embedded_describe(struct vectors *, const struct vector_space *, const struct vector_document *,
                                      struct err *);
static suspends int embedded_search(struct vectors *, struct arena *, const struct vector_space *,
                                    const struct vector_query *, struct vector_hit **out, size_t *n, struct err *);
static suspends int embedded_list(struct vectors *, struct arena *, const struct vector_space *, int64_t after,
                                  size_t max, struct vector_entry **out, size_t *n, struct err *);
static suspends int embedded_check(struct vectors *, struct err *);
static void embedded_free(struct vectors *);

static const struct vector_ops embedded_ops = {
    .name = "embedded",
    .put = embedded_put,
    .remove = embedded_remove,
    .describe = embedded_describe,
    .drop = embedded_drop,
    .search = embedded_search,
    .list = embedded_list,
    .check = embedded_check,
    .stray = embedded_stray,
    .free = embedded_free,
};

char *vectors_embedded_dir(const struct config *cfg)
{
    char *dir;
    struct str path = str_of(cfg->database_url);
    if (*cfg->vectors_path)
        return strdup(cfg->vectors_path);
    if (!str_eqz(str_cut(&path, ':'), "sqlite"))
        path = STR("data/ragd.db");
    while (path.n > 0 && path.p[path.n - 1] != '/')
        path.n--;
    return asprintf(&dir, STR_FMT "vectors", STR_ARG(path)) < 0 ? NULL : dir;
}

int vectors_embedded_open(const struct config *cfg, struct vectors **out, struct err *e)
{
    struct embedded *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_INTERNAL, "No memory for the vector index");
    *m = (struct embedded){.base.ops = &embedded_ops, .max_bytes = cfg->vectors_max_bytes};
    m->dir = vectors_embedded_dir(cfg);
    if (!m->dir)
        abort();
    list_init(&m->spaces);
    *out = &m->base;
    return 0;
}

/* ---- spaces that this process has looked at ---- */

char *embedded_path(const struct embedded *m, const struct vector_space *s, const char *suffix)
{
    char id[UUID_TEXT_LEN + 1] = {0}, *path;
    uuid_text(&s->collection, id);
    if (asprintf(&path, "%s/%s.%lld.%s", m->dir, id, (long long)s->generation, suffix) < 0)
        abort();
    return path;
}

static struct vspace *find_space(struct embedded *m, const struct vector_space *s)
{
    list_for_each (it, &m->spaces) {
        struct vspace *sp = list_entry(it, struct vspace, link);
        if (sp->generation == s->generation && uuid_eq(&sp->collection, &s->collection))
            return sp;
    }
    return NULL;
}

static void space_free(struct embedded *m, struct vspace *sp)
{
    list_del(&sp->link);
    m->n_spaces--;
    vview_unref(sp->view);
    free(sp);
}

static struct vspace *use_space(struct embedded *m, const struct vector_space *s)
{
    struct vspace *sp = find_space(m, s);
    if (!sp) {
        if (m->n_spaces == SPACES_MAX)
            space_free(m, list_entry(m->spaces.prev, struct vspace, link));
        sp = calloc(1, sizeof *sp);
        if (!sp)
            abort();
        *sp = (struct vspace){.collection = s->collection, .generation = s->generation};
        list_init(&sp->link);
        m->n_spaces++;
    }
    list_del(&sp->link);
    list_add(&m->spaces, &sp->link);
    return sp;
}

void embedded_forget(struct embedded *m, const struct vector_space *s)
{
    struct vspace *sp = find_space(m, s);
    if (sp)
        space_free(m, sp);
}

struct first_look {
    const char *path;
    struct vview *view;
    enum vview_state state;
    int rc, error;
};

static void look_first(void *arg)
{
    struct first_look *l = arg;
    l->rc = vview_refresh(&l->view, l->path, &l->state);
    l->error = errno;
}

/* The whole directory of a file that was not seen before is read and checked: of a large one in a helper thread. */
static suspends int refresh(struct embedded *m, const struct vector_space *s, const char *path, struct vspace **out,
                            enum vview_state *state)
{
    struct first_look l = {.path = path};
    struct stat st;
    *out = use_space(m, s);
    if ((*out)->view && vview_is_of((*out)->view, path))
        return vview_refresh(&(*out)->view, path, state);
    if (stat(path, &st) == 0 && st.st_size > FIRST_LOOK_BYTES)
        fiber_blocking(look_first, &l);
    else
        look_first(&l);
    *out = use_space(m, s); /* others have run meanwhile */
    if (l.view && (*out)->view && vview_is_of((*out)->view, path)) {
        vview_unref(l.view); /* both references */
        vview_unref(l.view);
        return vview_refresh(&(*out)->view, path, state);
    }
    vview_unref((*out)->view);
    (*out)->view = l.view;
    *state = l.state;
    errno = l.error;
    return l.rc;
}

suspends int embedded_view(struct embedded *m, const struct vector_space *s, struct vview **out, bool *damaged,
                           struct err *e)
{
    struct vspace *sp;
    enum vview_state state;
    char *path = embedded_path(m, s, "vec");
    int rc = refresh(m, s, path, &sp, &state);
    if (rc != 0) {
        err_errno(e, "The vector index cannot be read");
        err_log(e, "%s", path);
        if (e && e->code == ERR_INTERNAL)
            e->code = ERR_NOT_READY;
    } else {
        *damaged = state == VVIEW_DAMAGED;
        if (*damaged && !sp->damaged)
            log_error("%s: damaged; `ragd fsck --repair` makes it anew", path);
        sp->damaged = *damaged;
        *out = sp->view;
    }
    if (!sp->view && !sp->damaged) /* a space that is not there needs no memory */
        space_free(m, sp);
    free(path);
    return rc;
}

int embedded_same_dim(const struct vview *v, const struct vector_space *s, struct err *e)
{
    if ((int)v->map->dim == s->dim)
        return 0;
    return err_set(e, ERR_CONFLICT, "The index has vectors of length %u, not %d", v->map->dim, s->dim);
}

int embedded_ended(struct err *e)
{
    return fiber_time_left() == 0 ? err_set(e, ERR_DEADLINE, "The vector index took too long")
                                  : err_set(e, ERR_CANCELED, "Canceled");
}

static int make_dirs(char *path)
{
    for (char *p = path + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        int rc = mkdir(path, 0700);
        *p = '/';
        if (rc != 0 && errno != EEXIST)
            return -1;
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : -1;
}

int embedded_make_dir(const struct embedded *m, struct err *e)
{
    if (make_dirs(m->dir) == 0)
        return 0;
    err_errno(e, "The directory of the vector index cannot be made");
    return err_log(e, "%s", m->dir);
}

/* ---- verbs that read ---- */

static suspends int embedded_describe(struct vectors *v, const struct vector_space *s, const struct vector_document *d,
                                      struct err *e)
{
    (void)v, (void)s, (void)d, (void)e; /* it holds no metadata */
    return 0;
}

static int64_t waits_for_the_disk(void)
{
    struct rusage u;
    return getrusage(RUSAGE_THREAD, &u) == 0 ? u.ru_majflt : 0;
}

struct step {
    struct vscan *s;
    size_t bytes;
    int done;
};

static void step(void *arg)
{
    struct step *x = arg;
    x->done = vscan_step(x->s, x->bytes);
}

/* Slices of about a millisecond: nobody else waits longer for his turn. What was in memory may have been taken from it
 * again since it was warmed; once that is felt, the rest is scanned in a helper thread. */
static suspends int scan(struct vscan *s, struct err *e)
{
    struct step x = {s, SLICE_BYTES, 0};
    int64_t since = clock_ns(), waits = waits_for_the_disk();
    while (x.done == 0) {
        if (s->away) {
            x.bytes = AWAY_BYTES;
            fiber_blocking(step, &x);
        } else {
            step(&x);
            s->away = waits_for_the_disk() > waits;
            if (!s->away && clock_ns() - since < SLICE_NS)
                continue;
            fiber_yield();
            waits = waits_for_the_disk();
        }
        if (fiber_check() != 0)
            return embedded_ended(e);
        since = clock_ns();
    }
    if (x.done < 0)
        return err_set(e, ERR_NOT_READY, "The vector index of this collection is damaged: run `ragd fsck --repair`");
    return 0;
}

/* Lets one search read the file in a helper thread; the others wait for it. When it is given up, the next one goes on. */
static suspends int warm(struct vview *view, struct err *e)
{
    struct vmap *m = view->map;
    while (m->heat == VHEAT_WARMING)
        if (fiber_queue_wait(&m->waiting, "vector index being read") != 0)
            return embedded_ended(e);
    if (m->heat == VHEAT_WARM)
        return 0;
    struct vwarming w = {.view = view, .from = m->warmed};
    m->heat = VHEAT_WARMING;
    while (!w.done && fiber_check() == 0)
        fiber_blocking(vview_warm, &w);
    m->heat = w.done ? VHEAT_WARM : VHEAT_COLD;
    m->warmed = w.from;
    fiber_queue_wake_all(&m->waiting);
    return w.done ? 0 : embedded_ended(e);
}

static suspends int search_view(struct vview *view, struct arena *a, const struct vector_query *q,
                                struct vector_hit **out, size_t *n, struct err *e)
{
    struct vscan s;
    if (warm(view, e))
        return -1;
    vscan_begin(&s, a, view, q, NULL);
    int rc = scan(&s, e);
    STAT_ADD(vector_points_scanned_total, s.scanned);
    if (rc == 0)
        vscan_end(&s, a, out, n);
    return rc;
}

static suspends int embedded_search(struct vectors *v, struct arena *a, const struct vector_space *s,
                                    const struct vector_query *q, struct vector_hit **out, size_t *n, struct err *e)
{
    struct vview *view;
    bool damaged;
    int rc = -1;
    STAT_ADD(vector_searches_total, 1);
    if (embedded_view(embedded_of(v), s, &view, &damaged, e))
        return -1;
    if (damaged)
        return err_set(e, ERR_NOT_READY, "The vector index of this collection is damaged: run `ragd fsck --repair`");
    if (!view) {
        *n = 0;
        return 0;
    }
    if (embedded_same_dim(view, s, e) == 0)
        rc = search_view(view, a, q, out, n, e);
    vview_unref(view);
    return rc;
}

static suspends int embedded_list(struct vectors *v, struct arena *a, const struct vector_space *s, int64_t after,
                                  size_t max, struct vector_entry **out, size_t *n, struct err *e)
{
    const struct vfile_entry *d;
    struct vcursor at = {0};
    struct vview *view;
    bool damaged;
    if (embedded_view(embedded_of(v), s, &view, &damaged, e))
        return -1;
    if (damaged)
        return err_set(e, ERR_CONFLICT, "The vector index of this collection is damaged: run `ragd fsck --repair`");
    *n = 0;
    if (!view || after == INT64_MAX) {
        vview_unref(view);
        return 0;
    }
    size_t most = view->n_directory + view->n_tail;
    *out = arena_alloc(a, (most < max ? most : max) * sizeof **out);
    while (*n < max && (d = vview_next(view, &at, after + 1)))
        (*out)[(*n)++] = (struct vector_entry){d->document_no, d->content_version, (int64_t)d->n};
    vview_unref(view);
    return 0;
}

static suspends int embedded_check(struct vectors *v, struct err *e)
{
    struct embedded *m = embedded_of(v);
    if (access(m->dir, R_OK | W_OK | X_OK) == 0)
        return 0;
    if (errno == ENOENT)
        return embedded_make_dir(m, e);
    err_errno(e, "The directory of the vector index cannot be written");
    return err_log(e, "%s", m->dir);
}

static void embedded_free(struct vectors *v)
{
    struct embedded *m = embedded_of(v);
    while (!list_empty(&m->spaces))
        space_free(m, list_entry(m->spaces.next, struct vspace, link));
    free(m->dir);
    free(m);
}
