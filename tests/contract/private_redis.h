/* A Redis of the test's own, in a temporary directory; also as a Sentinel. It ends with the test. */
#pragma once
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct private_redis {
    char dir[64];
    int port;
    pid_t pid;
    const char *options; /* further lines of its configuration */
    const char *mode;    /* "--sentinel", or NULL */
};

static inline void private_redis_try(int good, int line)
{
    if (!good) {
        fprintf(stderr, "private_redis: line %d failed\n", line);
        exit(1);
    }
}
#define REDIS_TRY(good) private_redis_try(good, __LINE__)

static inline void redis_pause(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

static inline int free_port(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    REDIS_TRY(fd >= 0 && bind(fd, (struct sockaddr *)&sa, n) == 0 && getsockname(fd, (struct sockaddr *)&sa, &n) == 0);
    close(fd);
    return ntohs(sa.sin_port);
}

static inline int redis_listens(int port)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int yes = connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
    close(fd);
    return yes;
}

static inline void private_redis_launch(struct private_redis *r)
{
    char path[100], log[100];
    snprintf(path, sizeof path, "%s/redis.conf", r->dir);
    snprintf(log, sizeof log, "%s/log", r->dir);
    FILE *f = fopen(path, "w");
    REDIS_TRY(f != NULL);
    fprintf(f, "dir %s\nport %d\nbind 127.0.0.1 127.0.0.2\n%s\n", r->dir, r->port, r->options ? r->options : "");
    if (!r->mode)
        fprintf(f, "unixsocket %s/socket\nsave \"\"\n", r->dir);
    REDIS_TRY(fclose(f) == 0);
    r->pid = fork();
    REDIS_TRY(r->pid >= 0);
    if (r->pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (dup2(fd, 1) >= 0 && dup2(fd, 2) >= 0)
            execlp("redis-server", "redis-server", path, r->mode, NULL);
        _exit(127);
    }
    while (!redis_listens(r->port)) {
        REDIS_TRY(waitpid(r->pid, NULL, WNOHANG) == 0);
        redis_pause();
    }
}

static inline void private_redis_start(struct private_redis *r)
{
    snprintf(r->dir, sizeof r->dir, "/tmp/ragd-redis-XXXXXX");
    REDIS_TRY(mkdtemp(r->dir) != NULL);
    r->port = r->port ? r->port : free_port();
    private_redis_launch(r);
}

static inline void private_redis_halt(struct private_redis *r)
{
    kill(r->pid, SIGKILL);
    waitpid(r->pid, NULL, 0);
    r->pid = 0;
}

static inline void private_redis_stop(struct private_redis *r)
{
    char cmd[100];
    if (r->pid)
        private_redis_halt(r);
    snprintf(cmd, sizeof cmd, "rm -rf %s", r->dir);
    REDIS_TRY(!r->dir[0] || system(cmd) == 0);
    r->dir[0] = 0;
}

/* redis-cli as a stranger; 0 when it says `expected`. */
static inline int redis_says(const struct private_redis *r, const char *command, const char *expected)
{
    char line[600] = "", text[300];
    snprintf(text, sizeof text, "redis-cli --no-auth-warning -p %d %s 2>&1", r->port, command);
    FILE *f = popen(text, "r");
    REDIS_TRY(f != NULL);
    size_t n = fread(line, 1, sizeof line - 1, f);
    pclose(f);
    while (n && line[n - 1] == '\n')
        line[--n] = 0;
    return strcmp(line, expected);
}
