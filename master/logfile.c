#include "master/logfile.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* O_NONBLOCK: to open a FIFO would else wait for its reader, and to write to it for one that has stopped. */
enum { APPEND = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, MODE = 0640 };

static int cannot_open(const char *key, const char *path, struct err *e)
{
    if (errno == ENXIO)
        return err_set(e, ERR_VALIDATION,
                       "%s: %s is a FIFO that nobody reads, or a socket: start its reader first, or write to a file",
                       key, path);
    return err_errno(e, "%s: cannot open %s", key, path);
}

/* A file that is there already stays whose it is: workers get it open. */
static int open_existing(const char *key, const char *path, struct err *e)
{
    struct stat st;
    int fd = open(path, APPEND | O_NOFOLLOW);
    if (fd < 0 && errno == ELOOP)
        return err_set(
            e, ERR_VALIDATION,
            "%s: %s is a symbolic link, which the master does not follow for workers of another user (server.user): "
            "write where it leads to",
            key, path);
    if (fd < 0)
        return cannot_open(key, path, e);
    if (fstat(fd, &st) != 0 || (S_ISREG(st.st_mode) && st.st_nlink > 1)) {
        close(fd);
        return err_set(e, ERR_VALIDATION, "%s: %s has further hard links: remove it, or write to another file", key,
                       path);
    }
    return fd;
}

static int open_for_others(const char *key, const char *path, const struct privileges *p, struct err *e)
{
    int fd = open(path, APPEND | O_CREAT | O_EXCL, MODE);
    if (fd < 0)
        return errno == EEXIST ? open_existing(key, path, e) : cannot_open(key, path, e);
    if (fchown(fd, p->uid, p->gid) == 0)
        return fd;
    err_errno(e, "%s: cannot give %s to the workers", key, path);
    close(fd);
    return -1;
}

static bool is_stream(const char *where, int *fd)
{
    static const struct {
        const char *name;
        int fd;
    } streams[] = {{"off", -1}, {"stdout", STDOUT_FILENO}, {"stderr", STDERR_FILENO}};
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        if (strcmp(where, streams[i].name) == 0) {
            *fd = streams[i].fd;
            return true;
        }
    return false;
}

static int open_one(const char *key, const char *where, const struct privileges *p, int *fd, struct err *e)
{
    if (is_stream(where, fd))
        return 0;
    int r = p->change ? open_for_others(key, where, p, e) : open(where, APPEND | O_CREAT, MODE);
    if (r < 0)
        return p->change ? -1 : cannot_open(key, where, e);
    *fd = r;
    return 0;
}

int logfiles_open(struct logfiles *out, const struct config *cfg, const struct privileges *p, struct err *e)
{
    struct logfiles l = LOGFILES_NONE;
    if (open_one("log.access", cfg->log_access, p, &l.access, e) != 0 ||
        open_one("log.file", cfg->log_file, p, &l.events, e) != 0) {
        logfiles_close(&l);
        return -1;
    }
    *out = l;
    return 0;
}

void logfiles_close(struct logfiles *l)
{
    if (l->access > STDERR_FILENO)
        close(l->access);
    if (l->events > STDERR_FILENO)
        close(l->events);
    *l = (struct logfiles)LOGFILES_NONE;
}

int logfiles_events(const struct logfiles *l, int stderr_fd)
{
    return l->events == STDERR_FILENO ? stderr_fd : l->events;
}

int file_check(const char *key, const char *path, struct err *e)
{
    struct stat st;
    if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0) {
        errno = EISDIR;
        return stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? err_errno(e, "%s: cannot open %s", key, path) : 0;
    }
    if (errno != ENOENT)
        return err_errno(e, "%s: cannot open %s", key, path);
    char *dir = strdup(path);
    if (!dir)
        abort();
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    int r = faccessat(AT_FDCWD, slash ? dir : ".", W_OK | X_OK, AT_EACCESS);
    free(dir);
    return r == 0 ? 0 : err_errno(e, "%s: cannot make %s", key, path);
}

static int check_one(const char *key, const char *where, struct err *e)
{
    int fd;
    return is_stream(where, &fd) ? 0 : file_check(key, where, e);
}

int logfiles_check(const struct config *cfg, struct err *e)
{
    return check_one("log.access", cfg->log_access, e) != 0 ? -1 : check_one("log.file", cfg->log_file, e);
}
