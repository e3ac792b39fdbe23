/* Writing to the embedded index. One writer at a time has a file: he who holds its lock, which belongs to the open
 * file and so ends with its process. The others try again while their fibers sleep. What blocks (writing, waiting for
 * the disk) happens in a helper thread. */
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/vector/dot.h"
#include "worker/vector/vcompact.h"
#include "worker/vector/vector_embedded.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    PAUSE_MIN_NS = 1 * MS,
    PAUSE_MAX_NS = 32 * MS,
    TAIL_MIN = 512,           /* entries that readers keep in memory, or a 16th of the directory */
    DEAD_MIN = 4 << 20,       /* bytes that nobody refers to, and half of what lives: time to compact */
    SCATTERED_MIN = 16 << 20, /* of codes that do not lie side by side, and a quarter: these take 3 times as long */
};

struct writer {
    struct embedded *m;
    const struct vector_space *s;
    char *path, *tmp;
    int fd;             /* locked; -1: there is no file */
    struct vview *view; /* the commit that is added to */
};

/* What one commit adds: the points of a document, or numbers to remove. */
struct addition {
    struct writer *w;
    const struct vector_document *put; /* NULL: remove */
    int64_t *no;                       /* to remove, ascending, all of them there */
    size_t n;
    bool with_directory;
    struct vfile_commit next;
    struct vfile_entry entry; /* of `put` */
    int error;                /* errno */
    bool not_finite, no_room, committing;
};

/* ---- the lock ---- */

static bool same_file(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Opens and locks. 1: somebody else has it, or has just replaced the file. */
static int try_lock(struct writer *w, bool create, struct err *e)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(w->path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (fd < 0 && errno == ENOENT && create)
        return embedded_make_dir(w->m, e) < 0 ? -1 : 1;
    if (fd < 0 && errno == ENOENT)
        return 0;
    int rc = fd < 0 ? -1 : fcntl(fd, F_OFD_SETLK, &lock);
    if (rc == 0 && same_file(fd, w->path)) {
        w->fd = fd;
        return 0;
    }
    int saved = rc == 0 ? EAGAIN : errno;
    if (fd >= 0)
        close(fd);
    if (saved == EAGAIN || saved == EACCES || saved == EINTR)
        return 1;
    errno = saved;
    err_errno(e, "The vector index cannot be written");
    return err_log(e, "%s", w->path);
}

static suspends int take_lock(struct writer *w, bool create, struct err *e)
{
    int64_t pause = PAUSE_MIN_NS;
    int rc;
    while ((rc = try_lock(w, create, e)) > 0) {
        if (fiber_sleep(pause) != 0)
            return embedded_ended(e);
        pause = 2 * pause < PAUSE_MAX_NS ? 2 * pause : PAUSE_MAX_NS;
    }
    return rc;
}

struct making {
    struct writer *w;
    int error;
};

static void make_file(void *arg)
{
    struct making *k = arg;
    const struct vector_space *s = k->w->s;
    struct vfile_commit first;
    if (vfile_format(k->w->fd, (uint32_t)s->dim, &s->collection, s->generation, &first) != 0 ||
        vfile_sync_name(k->w->path) != 0 || vfile_sync_name(k->w->m->dir) != 0)
        k->error = errno;
}

static suspends int get_view(struct writer *w, struct err *e)
{
    bool damaged;
    vview_unref(w->view);
    w->view = NULL;
    if (embedded_view(w->m, w->s, &w->view, &damaged, e))
        return -1;
    if (damaged)
        return err_set(e, ERR_NOT_READY, "The vector index of this collection is damaged: run `ragd fsck --repair`");
    return w->view ? embedded_same_dim(w->view, w->s, e) : 0;
}

static suspends int get_or_make_view(struct writer *w, bool create, struct err *e)
{
    struct making k = {.w = w};
    if (get_view(w, e))
        return -1;
    if (w->view || !create)
        return 0;
    fiber_blocking(make_file, &k);
    if (k.error) {
        errno = k.error;
        return err_errno(e, "The vector index cannot be made");
    }
    if (get_view(w, e))
        return -1;
    return w->view ? 0 : err_set(e, ERR_NOT_READY, "The vector index vanished while it was being made");
}

static void writer_end(struct writer *w)
{
    vview_unref(w->view);
    if (w->fd >= 0)
        close(w->fd); /* and the lock is gone */
    free(w->path);
    free(w->tmp);
}

/* On success w->view is NULL when there is nothing yet, and nothing is to be made. writer_end() in any case. */
static suspends int writer_begin(struct writer *w, struct vectors *v, const struct vector_space *s, bool create,
                                 struct err *e)
{
    *w = (struct writer){.m = embedded_of(v), .s = s, .fd = -1};
    w->path = embedded_path(w->m, s, "vec");
    w->tmp = embedded_path(w->m, s, "new");
    if (take_lock(w, create, e))
        return -1;
    if (w->fd < 0)
        return 0;
    unlink(w->tmp); /* of a compaction that died */
    return get_or_make_view(w, create, e);
}

/* ---- one commit ---- */

static uint64_t living_bytes(const struct writer *w, uint64_t points)
{
    return vfile_codes_bytes((uint32_t)w->s->dim, points) + vfile_floats_bytes((uint32_t)w->s->dim, points);
}

static int64_t directory_bytes(const char *dir)
{
    struct dirent *entry;
    struct stat st;
    int64_t sum = 0;
    DIR *d = opendir(dir);
    while (d && (entry = readdir(d)))
        if (fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            sum += st.st_size;
    if (d)
        closedir(d);
    return sum;
}

static void write_points(struct addition *a, struct vout *o)
{
    const struct vector_document *d = a->put;
    size_t dim = (size_t)a->w->s->dim, stride = vfile_stride((uint32_t)dim);
    float *scale = malloc((d->n + 1) * sizeof *scale);
    int8_t *code = malloc(stride);
    if (!scale || !code)
        abort();
    a->entry = (struct vfile_entry){d->no, d->content_version, d->n, .codes = vout_at(o)};
    for (size_t i = 0; i < d->n; i++) {
        a->not_finite |= !dot_encode(d->v + i * dim, dim, stride, code, &scale[i]);
        vout_add(o, code, stride);
    }
    vout_add(o, scale, d->n * sizeof *scale);
    vout_fill(o);
    a->entry.floats = vout_at(o);
    vout_add(o, d->v, d->n * dim * sizeof *d->v);
    vout_fill(o);
    free(scale);
    free(code);
}

/* An entry of the view lives on, unless this addition takes it away or replaces it. `i`: place in a->no. */
static bool lives_on(const struct addition *a, int64_t no, size_t *i)
{
    if (a->put)
        return no != a->put->no;
    while (*i < a->n && a->no[*i] < no)
        ++*i;
    return *i == a->n || a->no[*i] != no;
}

static uint64_t write_entries(const struct addition *a, struct vout *o)
{
    const struct vfile_entry *e;
    struct vcursor at = {0};
    bool put_is_due = a->put != NULL;
    uint64_t n = 0;
    size_t i = 0;
    do {
        e = vview_next(a->w->view, &at, INT64_MIN);
        if (put_is_due && (!e || e->document_no >= a->put->no)) {
            vout_add(o, &a->entry, sizeof a->entry);
            n++;
            put_is_due = false;
        }
        if (e && lives_on(a, e->document_no, &i)) {
            vout_add(o, e, sizeof *e);
            n++;
        }
    } while (e);
    vout_fill(o);
    return n;
}

/* One record at the end: its body first, then its head. */
static void append(struct addition *a, enum vfile_kind kind)
{
    struct vfile_record r = {.kind = kind, .seq = a->next.seq};
    struct vout o;
    vout_begin(&o, a->w->fd, a->next.end + sizeof r);
    if (kind == VFILE_PUT) {
        write_points(a, &o);
        r.document_no = a->put->no;
        r.content_version = a->put->content_version;
        r.n = a->put->n;
    } else if (kind == VFILE_REMOVE) {
        vout_add(&o, a->no, a->n * sizeof *a->no);
        vout_fill(&o);
        r.n = a->n;
    } else {
        r.n = write_entries(a, &o);
    }
    vout_flush(&o);
    r.bytes = vout_at(&o) - a->next.end;
    r.body_sum = a->entry.sum = vsum_end(&o.sum);
    a->error = o.error;
    vout_end(&o);
    if (!a->error && vfile_write_head(a->w->fd, a->next.end, &r) != 0)
        a->error = errno;
    a->next.end += r.bytes;
}

static void append_directory(struct addition *a)
{
    struct vfile_entry keep = a->entry;
    a->next.directory = a->next.end;
    append(a, VFILE_DIRECTORY);
    a->next.tail = a->next.end;
    a->entry = keep;
}

/* In a helper thread. */
static void write_addition(void *arg)
{
    struct addition *a = arg;
    uint64_t more = a->put ? living_bytes(a->w, a->put->n) : 0;
    if (more && directory_bytes(a->w->m->dir) + (int64_t)more > a->w->m->max_bytes) {
        a->no_room = true;
        return;
    }
    append(a, a->put ? VFILE_PUT : VFILE_REMOVE);
    if (!a->error && !a->not_finite && a->with_directory)
        append_directory(a);
    if (!a->error && !a->not_finite) {
        a->committing = true;
        if (vfile_write_commit(a->w->fd, &a->next) != 0)
            a->error = errno;
    }
    /* Gives the room back; never once the commit may count. Failing is no harm: the next writer writes over it. */
    int cut = a->committing ? 0 : ftruncate(a->w->fd, (off_t)a->w->view->at.end);
    (void)cut;
}

static void uncount(struct addition *a, int64_t no)
{
    const struct vfile_entry *e = vview_find(a->w->view, no);
    if (!e)
        return;
    a->next.points -= e->n;
    a->next.living -= living_bytes(a->w, e->n);
}

static suspends int add(struct addition *a, struct err *e)
{
    const struct vview *v = a->w->view;
    size_t most = v->n_directory / 16 > TAIL_MIN ? v->n_directory / 16 : TAIL_MIN;
    a->next = v->at;
    a->next.seq++;
    a->with_directory = v->n_tail + (a->put ? 1 : a->n) > most;
    if (a->put) {
        uncount(a, a->put->no);
        a->next.points += a->put->n;
        a->next.living += living_bytes(a->w, a->put->n);
        a->next.scattered += living_bytes(a->w, a->put->n);
    }
    for (size_t i = 0; i < a->n; i++)
        uncount(a, a->no[i]);
    fiber_blocking(write_addition, a);
    if (a->not_finite)
        return err_set(e, ERR_VALIDATION, "A vector has an element that is no number");
    if (!a->error)
        return 0;
    errno = a->error == EFBIG ? ENOSPC : a->error; /* a limit on file sizes is no different */
    err_errno(e, "The vector index cannot be written");
    return err_log(e, "%s", a->w->path);
}

/* ---- compaction ---- */

static bool worth_compacting(const struct vfile_commit *c)
{
    uint64_t all = c->end - VFILE_DATA, dead = all > c->living ? all - c->living : 0;
    return (dead > DEAD_MIN && dead > c->living / 2) || (c->scattered > SCATTERED_MIN && c->scattered > c->living / 4);
}

/* Whatever happens, the old file is whole. After it the lock is on a file that nobody finds any more. */
static suspends void compact(struct writer *w)
{
    struct vcompact c;
    int64_t since = clock_ns();
    uint64_t before = w->view->at.end;
    vcompact_begin(&c, w->view, w->path, w->tmp);
    while (!c.error && c.phase != VCOMPACT_DONE && fiber_check() == 0)
        fiber_blocking(vcompact_step, &c);
    if (c.error)
        log_warn("%s: not compacted: %s", w->path, strerror(c.error));
    if (c.lost)
        log_error("%s: %zu documents are damaged and left out; `ragd fsck --repair` brings them back", w->path, c.lost);
    if (c.phase == VCOMPACT_DONE) {
        STAT_ADD(vector_compactions_total, 1);
        log_info("%s: compacted from %llu to %llu KB in %lld ms", w->path, (unsigned long long)before / 1024,
                 (unsigned long long)c.commit.end / 1024, (long long)((clock_ns() - since) / MS));
    }
    vcompact_end(&c);
}

/* Half of what is free may be taken for a while: a try that fills the disk fails, and so do others meanwhile. */
static bool has_room(const char *path, const struct vfile_commit *c)
{
    struct statvfs fs;
    return statvfs(path, &fs) != 0 || c->living < (uint64_t)fs.f_bavail * fs.f_frsize / 2;
}

static suspends void compact_if_due(struct writer *w)
{
    if (get_view(w, NULL) == 0 && w->view && worth_compacting(&w->view->at) && has_room(w->path, &w->view->at))
        compact(w);
}

/* ---- verbs ---- */

static int too_full(struct err *e)
{
    err_set(e, ERR_STORAGE_FULL, "The vector index is full");
    return err_log(e, "vectors.max_bytes");
}

/* *again: there was no room, but compacting has made some. */
static suspends int put_once(struct vectors *v, const struct vector_space *s, const struct vector_document *d,
                             bool may_compact, bool *again, struct err *e)
{
    struct writer w;
    int rc = writer_begin(&w, v, s, true, e);
    *again = false;
    if (rc == 0) {
        struct addition a = {.w = &w, .put = d};
        rc = add(&a, e);
        if (rc == 0 && !a.no_room)
            compact_if_due(&w);
        if (rc == 0 && a.no_room) {
            uint64_t all = w.view->at.end - VFILE_DATA;
            *again = may_compact && all > w.view->at.living;
            if (*again)
                compact(&w);
            else
                rc = too_full(e);
        }
    }
    writer_end(&w);
    return rc;
}

suspends int embedded_put(struct vectors *v, const struct vector_space *s, const struct vector_document *d,
                          struct err *e)
{
    bool again;
    STAT_ADD(vector_writes_total, 1);
    if (s->dim < 1 || s->dim > VFILE_DIM_MAX)
        return err_set(e, ERR_VALIDATION, "Vectors of length %d: 1 to %d are possible", s->dim, VFILE_DIM_MAX);
    if (d->n > VFILE_POINTS_MAX)
        return err_set(e, ERR_VALIDATION, "A document of %zu chunks: %d are possible", d->n, VFILE_POINTS_MAX);
    int rc = put_once(v, s, d, true, &again, e);
    return rc == 0 && again ? put_once(v, s, d, false, &again, e) : rc;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Ascending, each once, and only what is there. */
static size_t present(const struct vview *v, int64_t *no, size_t n)
{
    size_t k = 0;
    qsort(no, n, sizeof *no, by_number);
    for (size_t i = 0; i < n; i++)
        if ((k == 0 || no[k - 1] != no[i]) && vview_find(v, no[i]))
            no[k++] = no[i];
    return k;
}

suspends int embedded_remove(struct vectors *v, const struct vector_space *s, const int64_t *document_no, size_t n,
                             struct err *e)
{
    struct writer w;
    STAT_ADD(vector_writes_total, 1);
    int rc = writer_begin(&w, v, s, false, e);
    if (rc == 0 && w.view && n > 0) {
        struct addition a = {.w = &w, .no = malloc(n * sizeof *a.no)};
        if (!a.no)
            abort();
        memcpy(a.no, document_no, n * sizeof *a.no);
        a.n = present(w.view, a.no, n);
        if (a.n > 0)
            rc = add(&a, e);
        if (rc == 0 && a.n > 0)
            compact_if_due(&w);
        free(a.no);
    }
    writer_end(&w);
    return rc;
}

suspends int embedded_drop(struct vectors *v, const struct vector_space *s, struct err *e)
{
    struct writer w = {.m = embedded_of(v), .s = s, .fd = -1};
    w.path = embedded_path(w.m, s, "vec");
    w.tmp = embedded_path(w.m, s, "new");
    int rc = take_lock(&w, false, e);
    if (rc == 0 && w.fd >= 0) {
        unlink(w.tmp);
        if (unlink(w.path) != 0 || vfile_sync_name(w.path) != 0) {
            err_errno(e, "The vector index cannot be removed");
            rc = err_log(e, "%s", w.path);
        }
    }
    embedded_forget(w.m, s);
    writer_end(&w);
    return rc;
}
