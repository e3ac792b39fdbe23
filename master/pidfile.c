#include "master/pidfile.h"
#include "common/log.h"
#include "master/logfile.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct flock whole(void)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

/* 1: `fd` is the file that `path` names now. */
static bool is_at(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static pid_t read_pid(int fd)
{
    char text[24] = "";
    if (pread(fd, text, sizeof text - 1, 0) <= 0)
        return 0;
    return (pid_t)atoi(text);
}

/* In one write, so that no reader ever sees a part of it: what a longer pid leaves behind it is newlines, until it is cut
 * off. */
static int write_pid(int fd, const char *path, struct err *e)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%d\n", (int)getpid());
    struct stat st;
    size_t all = (size_t)n;
    while (fstat(fd, &st) == 0 && all < sizeof text && (off_t)all < st.st_size)
        text[all++] = '\n';
    ssize_t w = pwrite(fd, text, all, 0);
    if (w != (ssize_t)all) {
        if (w >= 0)
            errno = ENOSPC;
        return err_errno(e, "cannot write pidfile %s", path);
    }
    if (ftruncate(fd, n) != 0)
        return err_errno(e, "cannot write pidfile %s", path);
    return 0;
}

static int cannot_open(const char *path, struct err *e)
{
    return err_set(e, ERR_VALIDATION,
                   "server.pidfile: cannot open %s: %s; name a file in a directory that is there and "
                   "can be written to",
                   path, errno == ELOOP ? "it is a symbolic link" : strerror(errno));
}

/* What the key names by mistake is not overwritten. */
static int is_pidfile(int fd, const char *path, struct err *e)
{
    char text[64];
    struct stat st;
    ssize_t n = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? pread(fd, text, sizeof text, 0) : -1;
    for (ssize_t i = 0; i < n; i++)
        if (!strchr("0123456789 \t\r\n", text[i]) || !text[i])
            n = -1;
    return n < 0 ? err_set(e, ERR_VALIDATION,
                           "server.pidfile: %s holds something else than a pid: remove it, or name "
                           "another file",
                           path)
                 : 0;
}

int pidfile_check(const char *path, struct err *e)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? file_check("server.pidfile", path, e) : cannot_open(path, e);
    int rc = is_pidfile(fd, path, e);
    close(fd);
    return rc;
}

int pidfile_open(struct pidfile *p, const char *path, struct err *e)
{
    *p = (struct pidfile){.fd = -1};
    if (!*path)
        return 0;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
        if (fd < 0)
            return cannot_open(path, e);
        struct flock l = whole();
        if (fcntl(fd, F_OFD_SETLK, &l) != 0) {
            int error = errno;
            pid_t pid = read_pid(fd);
            close(fd);
            if (error == EAGAIN || error == EACCES)
                return err_set(
                    e, ERR_BUSY,
                    "another instance runs: pid %d holds server.pidfile %s; stop it, or give this one a file "
                    "of its own",
                    (int)pid, path);
            errno = error;
            return err_errno(e, "server.pidfile: cannot lock %s", path);
        }
        if (!is_at(fd, path)) { /* the one before us has just ended and unlinked it: this is not the file any more */
            close(fd);
            continue;
        }
        if (is_pidfile(fd, path, e) != 0) {
            close(fd);
            return -1;
        }
        if (write_pid(fd, path, e) != 0) {
            unlink(path);
            close(fd);
            return -1;
        }
        p->fd = fd;
        p->path = strdup(path);
        if (!p->path)
            abort();
        return 0;
    }
}

void pidfile_close(struct pidfile *p)
{
    if (p->fd < 0)
        return;
    if (!p->lent && is_at(p->fd, p->path))
        unlink(p->path);
    close(p->fd);
    free(p->path);
    p->fd = -1;
    p->path = NULL;
}

void pidfile_restore(struct pidfile *p)
{
    struct pidfile fresh;
    struct err e = {.code = ERR_NONE};
    if (p->fd < 0 || is_at(p->fd, p->path))
        return;
    if (pidfile_open(&fresh, p->path, &e) != 0) {
        log_err(LOG_WARN, "the pidfile is gone and cannot be made again", &e);
        return;
    }
    log_warn("server.pidfile: %s was gone: made again", p->path);
    pidfile_close(p);
    *p = fresh;
}

int pidfile_take(struct pidfile *p, struct err *e)
{
    if (p->fd >= 0 && write_pid(p->fd, p->path, e) != 0)
        return -1;
    p->lent = false;
    return 0;
}

static bool copy_name(const struct pidfile *p, char *out, size_t cap)
{
    return p->fd >= 0 && (size_t)snprintf(out, cap, "%s.oldbin", p->path) < cap;
}

void pidfile_copy(const struct pidfile *p)
{
    char path[4096];
    struct err e;
    if (!copy_name(p, path, sizeof path))
        return;
    int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644); /* a FIFO would wait */
    if (fd < 0)
        err_errno(&e, "cannot open %s", path);
    if (fd < 0 || write_pid(fd, path, &e) != 0)
        log_err(LOG_WARN, "pidfile", &e); /* it is for people only */
    if (fd >= 0)
        close(fd);
}

void pidfile_copy_remove(const struct pidfile *p)
{
    char path[4096];
    if (copy_name(p, path, sizeof path))
        unlink(path);
}

pid_t pidfile_holder(const char *path)
{
    struct flock l = whole();
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); /* whoever may read it, may ask */
    if (fd < 0)
        return 0;
    pid_t pid = fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK ? read_pid(fd) : 0;
    close(fd);
    return pid;
}
