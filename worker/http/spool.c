#include "worker/http/http.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { IN_MEMORY = 64 * 1024 };

static void spool_end(void *p)
{
    struct spool *s = p;
    buf_fini(&s->mem);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

void spool_init(struct spool *s, struct arena *a)
{
    *s = (struct spool){.fd = -1};
    arena_own(a, s, spool_end);
}

/* Without a name from the start where the file system can do that; it vanishes with its descriptor. */
static int open_unlinked(struct err *e)
{
    const char *dir = getenv("TMPDIR");
    char path[4096];
    if (!dir || !dir[0])
        dir = "/tmp";
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    if ((size_t)snprintf(path, sizeof path, "%s/ragd-XXXXXX", dir) >= sizeof path)
        return err_set(e, ERR_INTERNAL, "TMPDIR is too long");
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        err_errno(e, "a temporary file in %s", dir);
        return -1;
    }
    unlink(path);
    return fd;
}

static int write_all(int fd, const char *p, size_t n, struct err *e)
{
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return err_errno(e, "writing a temporary file");
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

suspends int spool_add(struct spool *s, const void *p, size_t n, struct err *e)
{
    if (s->fd < 0 && s->mem.n + n <= IN_MEMORY) {
        buf_add(&s->mem, p, n);
        s->size += (int64_t)n;
        return 0;
    }
    if (s->fd < 0) {
        int fd = open_unlinked(e);
        if (fd < 0)
            return -1;
        s->fd = fd;
        if (write_all(fd, s->mem.p, s->mem.n, e))
            return -1;
        buf_fini(&s->mem);
    }
    if (write_all(s->fd, p, n, e))
        return -1;
    s->size += (int64_t)n;
    return 0;
}

int spool_read(struct spool *s, int64_t offset, void *buf, size_t n, struct err *e)
{
    char *to = buf;
    if (offset < 0 || offset > s->size || (int64_t)n > s->size - offset)
        return err_set(e, ERR_INTERNAL, "reading beyond what was received");
    if (s->fd < 0) {
        if (n)
            memcpy(to, s->mem.p + offset, n);
        return 0;
    }
    while (n) {
        ssize_t r = pread(s->fd, to, n, offset);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_errno(e, "reading a temporary file");
        if (r == 0)
            return err_set(e, ERR_INTERNAL, "a temporary file is shorter than it was");
        to += r;
        offset += r;
        n -= (size_t)r;
    }
    return 0;
}
