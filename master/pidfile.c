#include "master/pidfile.h"
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

static int write_pid(int fd, const char *path, struct err *e)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%d\n", (int)getpid());
    ssize_t w = pwrite(fd, text, (size_t)n, 0);
    if (w != n) {
        if (w >= 0)
            errno = ENOSPC;
        return err_errno(e, "cannot write pidfile %s", path);
    }
    if (ftruncate(fd, n) != 0)
        return err_errno(e, "cannot write pidfile %s", path);
    return 0;
}

int pidfile_open(struct pidfile *p, const char *path, struct err *e)
{
    p->fd = -1;
    p->path = NULL;
    if (!*path)
        return 0;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0)
            return err_errno(e, "cannot open pidfile %s", path);
        struct flock l = whole();
        if (fcntl(fd, F_OFD_SETLK, &l) != 0) {
            int error = errno;
            pid_t pid = read_pid(fd);
            close(fd);
            if (error == EAGAIN || error == EACCES)
                return err_set(e, ERR_BUSY, "another instance runs: pidfile %s is locked by pid %d", path, (int)pid);
            errno = error;
            return err_errno(e, "cannot lock pidfile %s", path);
        }
        if (!is_at(fd, path)) { /* the one before us has just ended and unlinked it: this is not the file any more */
            close(fd);
            continue;
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
    if (is_at(p->fd, p->path))
        unlink(p->path);
    close(p->fd);
    free(p->path);
    p->fd = -1;
    p->path = NULL;
}

pid_t pidfile_holder(const char *path)
{
    struct flock l = whole();
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return 0;
    pid_t pid = fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK ? read_pid(fd) : 0;
    close(fd);
    return pid;
}
