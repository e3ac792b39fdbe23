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

enum { TCP_LISTENING = 0x0a, INODES_MAX = 8 };

struct inodes {
    unsigned long v[INODES_MAX];
    int n;
};

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
                   &inode) == 3 &&
            state == TCP_LISTENING && (int)local_port == port && inode)
            in->v[in->n++] = inode;
    }
    fclose(f);
}

static void scan_unix(const char *path, struct inodes *in)
{
    char line[512];
    FILE *f = fopen("/proc/net/unix", "re");
    if (!f)
        return;
    while (in->n < INODES_MAX && fgets(line, sizeof line, f)) {
        unsigned long inode;
        int at = 0;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%*x: %*x %*x %*x %*x %*x %lu %n", &inode, &at) == 1 && at && strcmp(line + at, path) == 0)
            in->v[in->n++] = inode;
    }
    fclose(f);
}

static int holds(const char *pid, const struct inodes *in)
{
    char path[300], target[64];
    int found = 0;
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *d = opendir(path);
    if (!d)
        return 0;
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
        if (pid > 0 && (!best || pid < best) && holds(ent->d_name, in))
            best = pid;
    }
    closedir(d);
    if (best)
        command_of(best, who, cap);
    return best;
}

pid_t holder_of_port(int family, int port, char *who, size_t cap)
{
    struct inodes in = {.n = 0};
    scan_tcp("/proc/net/tcp6", port, &in); /* a dual-stack socket blocks the IPv4 address, too */
    if (family == AF_INET)
        scan_tcp("/proc/net/tcp", port, &in);
    return search(&in, who, cap);
}

pid_t holder_of_unix(const char *path, char *who, size_t cap)
{
    struct inodes in = {.n = 0};
    scan_unix(path, &in);
    return search(&in, who, cap);
}
