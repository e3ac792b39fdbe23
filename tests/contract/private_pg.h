/* A PostgreSQL server of the test's own: in a temporary directory, on a unix socket, gone with the test. */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct private_pg {
    char bin[200], dir[64], data[80], url[200];
    pid_t pid;
    struct passwd *owner; /* NULL: the test's own user */
};

#define PRIVATE_PG_TRY(cond)                                                 \
    do {                                                                     \
        if (!(cond)) {                                                       \
            fprintf(stderr, "private_pg: %s: %s\n", #cond, strerror(errno)); \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

static inline pid_t private_pg_exec(struct private_pg *p, const char *program, char *const argv[])
{
    char path[300], log[100];
    snprintf(path, sizeof path, "%s/%s", p->bin, program);
    snprintf(log, sizeof log, "%s/log", p->dir);
    pid_t pid = fork();
    PRIVATE_PG_TRY(pid >= 0);
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    if (p->owner &&
        (initgroups(p->owner->pw_name, p->owner->pw_gid) || setgid(p->owner->pw_gid) || setuid(p->owner->pw_uid)))
        _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGQUIT); /* setuid() clears it */
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (chdir(p->dir) || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
        _exit(126);
    execv(path, argv);
    _exit(127);
}

static inline void private_pg_launch(struct private_pg *p)
{
    char *argv[] = {"postgres",
                    "-D",
                    p->data,
                    "-k",
                    p->dir,
                    "-c",
                    "listen_addresses=",
                    "-c",
                    "max_connections=40",
                    "-c",
                    "fsync=off",
                    "-c",
                    "shared_buffers=16MB",
                    NULL};
    p->pid = private_pg_exec(p, "postgres", argv);
    while (PQping(p->url) != PQPING_OK) {
        PRIVATE_PG_TRY(waitpid(p->pid, NULL, WNOHANG) == 0);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}

/* Ends the process with programs missing or broken: a test that cannot run must not pass. */
static inline void private_pg_start(struct private_pg *p)
{
    glob_t g;
    *p = (struct private_pg){.owner = geteuid() == 0 ? getpwnam("postgres") : NULL};
    PRIVATE_PG_TRY(geteuid() != 0 || p->owner);
    PRIVATE_PG_TRY(glob("/usr/lib/postgresql/*/bin", 0, NULL, &g) == 0);
    snprintf(p->bin, sizeof p->bin, "%s", g.gl_pathv[g.gl_pathc - 1]);
    globfree(&g);
    snprintf(p->dir, sizeof p->dir, "/tmp/ragd-pg-XXXXXX");
    PRIVATE_PG_TRY(mkdtemp(p->dir));
    PRIVATE_PG_TRY(!p->owner || chown(p->dir, p->owner->pw_uid, p->owner->pw_gid) == 0);
    snprintf(p->data, sizeof p->data, "%s/data", p->dir);
    snprintf(p->url, sizeof p->url, "postgresql:///postgres?host=%s&user=ragd", p->dir);
    char *argv[] = {"initdb", "-D", p->data, "-U",         "ragd",      "-A",
                    "trust",  "-E", "UTF8",  "--locale=C", "--no-sync", NULL};
    int status;
    pid_t pid = private_pg_exec(p, "initdb", argv);
    PRIVATE_PG_TRY(waitpid(pid, &status, 0) == pid && status == 0);
    private_pg_launch(p);
}

static inline void private_pg_halt(struct private_pg *p, int sig)
{
    kill(p->pid, sig);
    waitpid(p->pid, NULL, 0);
    p->pid = 0;
}

static inline void private_pg_stop(struct private_pg *p)
{
    char cmd[120];
    if (p->pid)
        private_pg_halt(p, SIGINT);
    snprintf(cmd, sizeof cmd, "rm -rf %s", p->dir);
    PRIVATE_PG_TRY(system(cmd) == 0);
}

/* Runs SQL behind everybody's back. The first value of the last statement, as a number; 0 if it gives none. */
static inline long private_pg_sql(struct private_pg *p, const char *sql)
{
    PGconn *c = PQconnectdb(p->url);
    PGresult *r = PQexec(c, sql);
    if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK) {
        fprintf(stderr, "private_pg: %s: %s\n", sql, PQerrorMessage(c));
        exit(1);
    }
    long v = PQntuples(r) ? atol(PQgetvalue(r, 0, 0)) : 0;
    PQclear(r);
    PQfinish(c);
    return v;
}
