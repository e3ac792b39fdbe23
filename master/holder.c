#include "master/holder.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TCP_LISTENING = 0x0a, UNIX_LISTENING = 0x10000, INODES_MAX = 8 };

struct inodes {
    unsigned long v[INODES_MAX];
    int n;
};

/* The kernel names those that listen first. What comes behind them, up to a hundred thousand connections of a busy server,
 * takes it seconds, and is not read. */
static void scan_tcp(const char *file, int port, struct inodes *in)
{
    char line[512];
    FILE *f = fopen(file, "re");
    if (!f)
        return;
    while (in->n < INODES_MAX && fgets(line, sizeof line, f)) {
        unsigned local_port, state;
        unsigned long inode;
        if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*u %*d %lu", &local_port, &state,
                   &inode) != 3)
            continue; /* the heading */
        if (state != TCP_LISTENING)
            break;
        if ((int)local_port == port && inode)
            in->v[in->n++] = inode;
    }
    fclose(f);
}

/* Sockets of ragd are bound as PATH.PID and renamed; the kernel goes on showing the first name. */
static bool is_path(const char *bound, const char *path)
{
    size_t n = strlen(path);
    if (strncmp(bound, path, n) != 0)
        return false;
    return !bound[n] ||
           (bound[n] == '.' && bound[n + 1] && strspn(bound + n + 1, "0123456789") == strlen(bound + n + 1));
}

static void scan_unix(const char *path, struct inodes *in)
{
    char line[512];
    FILE *f = fopen("/proc/net/unix", "re");
    if (!f)
        return;
    while (in->n < INODES_MAX && fgets(line, sizeof line, f)) {
        unsigned long inode;
        unsigned flags;
        int at = 0;
        line[strcspn(line, "\n")] = 0;
        /* What was accepted from it bears its path, too. */
        if (sscanf(line, "%*x: %*x %*x %x %*x %*x %lu %n", &flags, &inode, &at) == 2 && at && flags & UNIX_LISTENING &&
            is_path(line + at, path))
            in->v[in->n++] = inode;
    }
    fclose(f);
}

/* 1, 0, or -1: it cannot be looked at. */
static int holds(const char *pid, const struct inodes *in)
{
    char path[300], target[64];
    int found = 0;
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *d = opendir(path);
    if (!d)
        return -1;
    for (struct dirent *ent; !found && (ent = readdir(d));) {
        unsigned long inode;
        ssize_t n = readlinkat(dirfd(d), ent->d_name, target, sizeof target - 1);
        if (n <= 0)
            continue;
        target[n] = 0;
        if (sscanf(target, "socket:[%lu]", &inode) != 1)
            continue;
        for (int i = 0; i < in->n; i++)
            found |= in->v[i] == inode;
    }
    closedir(d);
    return found;
}

static void command_of(pid_t pid, char *who, size_t cap)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, who, cap - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0) {
        snprintf(who, cap, "unknown command");
        return;
    }
    while (n > 0 && !who[n - 1])
        n--;
    who[n] = 0;
    for (ssize_t i = 0; i < n; i++)
        if (!isprint((unsigned char)who[i]))
            who[i] = ' ';
}

static pid_t search(const struct inodes *in, char *who, size_t cap)
{
    pid_t best = 0;
    DIR *d = in->n ? opendir("/proc") : NULL;
    if (!d)
        return 0;
    for (struct dirent *ent; (ent = readdir(d));) {
        pid_t pid = (pid_t)atoi(ent->d_name);
        if (pid > 0 && (!best || pid < best) && holds(ent->d_name, in) > 0)
            best = pid;
    }
    closedir(d);
    if (best)
        command_of(best, who, cap);
    return best;
}

static struct inodes port_inodes(int family, int port)
{
    struct inodes in = {.n = 0};
    scan_tcp("/proc/net/tcp6", port, &in); /* a dual-stack socket blocks the IPv4 address, too */
    if (family == AF_INET)
        scan_tcp("/proc/net/tcp", port, &in);
    return in;
}

pid_t holder_of_port(int family, int port, char *who, size_t cap)
{
    struct inodes in = port_inodes(family, port);
    return search(&in, who, cap);
}

pid_t holder_of_unix(const char *path, char *who, size_t cap)
{
    struct inodes in = {.n = 0};
    scan_unix(path, &in);
    return search(&in, who, cap);
}

static bool has(pid_t pid, const struct inodes *in)
{
    char name[24];
    snprintf(name, sizeof name, "%d", (int)pid);
    return holds(name, in) != 0;
}

bool holder_has_port(pid_t pid, int family, int port)
{
    struct inodes in = port_inodes(family, port);
    return has(pid, &in);
}

bool holder_has_unix(pid_t pid, const char *path)
{
    struct inodes in = {.n = 0};
    scan_unix(path, &in);
    return has(pid, &in);
}
