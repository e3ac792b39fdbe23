#include "worker/io/folder.h"
#include "common/clock.h"
#include "common/log.h"
#include "worker/fiber/loop.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEPTH_MAX = 64, PATH_BYTES = 4096 };
static const uint32_t NOTES =
    IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ATTRIB | IN_ONLYDIR | IN_EXCL_UNLINK;

struct folder {
    char *path;
    int fd;   /* of the folder, with the lock */
    int note; /* inotify; -1: there is none, then only the clock says when to look */
    bool warned;
    dev_t dev;
    ino_t ino;
};

int folder_open(const char *path, struct folder **out, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        err_set(e, ERR_VALIDATION, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    struct folder *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    *f = (struct folder){.path = strdup(path), .fd = fd, .dev = st.st_dev, .ino = st.st_ino};
    f->note = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (!f->path)
        abort();
    *out = f;
    return 0;
}

void folder_close(struct folder *f)
{
    if (!f)
        return;
    if (f->note >= 0)
        close(f->note);
    close(f->fd);
    free(f->path);
    free(f);
}

/* flock(), not fcntl(): it works on folders, which cannot be opened for writing, and belongs to the open file as well. A
 * file system that has no locks is watched all the same: two who watch hand over the same files, which changes nothing. */
bool folder_lock(struct folder *f)
{
    return flock(f->fd, LOCK_EX | LOCK_NB) == 0 || (errno != EWOULDBLOCK && errno != EINTR);
}

bool folder_is_current(const struct folder *f)
{
    struct stat st;
    return stat(f->path, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino;
}

/* Without openat2: one name after the other, and no link is followed, not even within. */
static int open_by_steps(const struct folder *f, const char *path, int flags)
{
    char name[NAME_MAX + 1];
    int at = f->fd;
    for (struct str rest = str_of(path); rest.n;) {
        struct str one = str_cut(&rest, '/');
        bool up = str_eqz(one, "..") || str_copyz(name, sizeof name, one) < one.n;
        int next = up ? -1 : openat(at, name, O_CLOEXEC | O_NOFOLLOW | (rest.n ? O_PATH | O_DIRECTORY : flags));
        int saved = up ? EXDEV : errno;
        if (at != f->fd)
            close(at);
        if (next < 0) {
            errno = saved;
            return -1;
        }
        at = next;
    }
    return at;
}

static int open_beneath(const struct folder *f, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, f->fd, path, &how, sizeof how);
    bool unknown = fd < 0 && (errno == ENOSYS || errno == EPERM); /* to the kernel, or to a container's filter */
    return unknown ? open_by_steps(f, path, (int)flags) : fd;
}

/* O_NONBLOCK: what was a file a moment ago may be a pipe now. */
int folder_open_file(struct folder *f, struct str path)
{
    return open_beneath(f, path.p, O_RDONLY | O_NONBLOCK | O_NOCTTY);
}

/* ---- a look, in a helper thread ---- */

struct look {
    struct folder *f;
    struct folder_scan *out;
    size_t max, cap;
    int depth;
    char path[PATH_BYTES]; /* of the folder that is being read, "" or "a/b" */
    bool failed;
    int saved_errno;
};

static void look_into(struct look *l, int fd, size_t length);

static int64_t ns_of(const struct timespec *t)
{
    return t->tv_sec * SEC + t->tv_nsec;
}

static void add_file(struct look *l, const struct stat *st, size_t length)
{
    struct folder_scan *s = l->out;
    if (s->n == l->max) {
        s->complete = false;
        return;
    }
    if (s->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 256;
        s->file = realloc(s->file, l->cap * sizeof *s->file);
        if (!s->file)
            abort();
    }
    int64_t written = ns_of(&st->st_mtim), changed = ns_of(&st->st_ctim);
    s->file[s->n++] = (struct folder_file){
        .path = arena_dup(&s->a, (struct str){l->path, length}),
        .size = st->st_size,
        .changed_ns = written > changed ? written : changed,
        .inode = st->st_ino,
    };
}

/* What vanishes between two calls was never there; what cannot be read may be there. */
static void not_seen(struct look *l)
{
    if (errno != ENOENT && errno != ELOOP && errno != EXDEV && errno != ENOTDIR)
        l->out->complete = false;
}

/* One name; l->path[0..length) is its path. */
static void look_at(struct look *l, int parent, const char *name, size_t length)
{
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        not_seen(l);
        return;
    }
    if (S_ISREG(st.st_mode)) {
        add_file(l, &st, length);
    } else if (S_ISDIR(st.st_mode)) {
        int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            not_seen(l);
        else
            look_into(l, fd, length);
    } else if (S_ISLNK(st.st_mode)) {
        int fd = open_beneath(l->f, l->path, O_PATH);
        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
            add_file(l, &st, length);
        if (fd >= 0)
            close(fd);
    }
}

/* Notes are asked for before the names are read: so no change falls between. */
static void ask_for_notes(struct look *l, int fd)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (l->f->note < 0 || inotify_add_watch(l->f->note, path, NOTES) >= 0 || l->f->warned)
        return;
    l->f->warned = true;
    log_warn("ingest.watch: the kernel tells not of all changes (%s, see fs.inotify.max_user_watches); "
             "ingest.watch_rescan finds them",
             strerror(errno));
}

/* Takes `fd` over. */
static void look_into(struct look *l, int fd, size_t length)
{
    DIR *dir;
    ask_for_notes(l, fd);
    if (l->depth == DEPTH_MAX || !(dir = fdopendir(fd))) {
        l->out->complete = false;
        close(fd);
        return;
    }
    l->depth++;
    for (struct dirent *d; l->out->n <= l->max && (errno = 0, d = readdir(dir));) {
        size_t n = strlen(d->d_name), at = length ? length + 1 : 0;
        if (d->d_name[0] == '.')
            continue;
        if (at + n >= sizeof l->path) {
            l->out->complete = false;
            continue;
        }
        if (length)
            l->path[length] = '/';
        memcpy(l->path + at, d->d_name, n + 1);
        look_at(l, dirfd(dir), d->d_name, at + n);
        errno = 0;
    }
    if (errno)
        l->out->complete = false;
    closedir(dir);
    l->path[length] = 0;
    l->depth--;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct folder_file *)a)->path.p, ((const struct folder_file *)b)->path.p);
}

static void look(void *arg)
{
    struct look *l = arg;
    int fd = open_beneath(l->f, ".", O_RDONLY | O_DIRECTORY);
    if (fd < 0) {
        l->failed = true;
        l->saved_errno = errno;
        return;
    }
    look_into(l, fd, 0);
    if (l->out->n)
        qsort(l->out->file, l->out->n, sizeof *l->out->file, by_path);
}

static bool forget_notes(struct folder *f)
{
    char events[4096] __attribute__((aligned(8)));
    bool any = false;
    while (f->note >= 0 && read(f->note, events, sizeof events) > 0)
        any = true;
    return any;
}

suspends int folder_look(struct folder *f, size_t max, struct folder_scan *out, struct err *e)
{
    struct look *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    *out = (struct folder_scan){.complete = true};
    l->f = f;
    l->out = out;
    l->max = max;
    forget_notes(f);
    fiber_blocking(look, l);
    bool failed = l->failed;
    if (failed)
        err_set(e, ERR_VALIDATION, "%s: %s", f->path, strerror(l->saved_errno));
    free(l);
    return failed ? -1 : 0;
}

void folder_scan_fini(struct folder_scan *s)
{
    free(s->file);
    arena_fini(&s->a);
    *s = (struct folder_scan){0};
}

suspends int folder_wait(struct folder *f, int64_t ns)
{
    struct fiber *self = fiber_self();
    int rc;
    if (f->note < 0) {
        rc = fiber_sleep(ns);
    } else {
        fiber_set_deadline(self, clock_ns() + ns);
        rc = fiber_wait_fd(f->note, EV_READ, "changes in the watched folder");
        fiber_set_deadline(self, 0);
    }
    return rc == -ECANCELED ? -1 : 0;
}
