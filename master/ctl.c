#include "master/ctl.h"
#include "common/buf.h"
#include "config/config.h"
#include "master/control.h"
#include "master/master.h"
#include "master/pidfile.h"
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 5 };

static int run_reload(int argc, char **argv, const struct config *cfg);
static int run_reopen(int argc, char **argv, const struct config *cfg);
static int run_diff(int argc, char **argv, const struct config *cfg);
static int run_scale(int argc, char **argv, const struct config *cfg);
static int run_upgrade(int argc, char **argv, const struct config *cfg);
static int run_rollback(int argc, char **argv, const struct config *cfg);
static int run_stop(int argc, char **argv, const struct config *cfg);

const struct ctl_command ctl_commands[] = {
    {"status", "[--json] [--watch[=SECONDS]] [--fibers]", "Show what the running server does",
     "  --json        as JSON; with --watch, one object a line\n"
     "  --watch       again each second, or every SECONDS, until Ctrl-C or the end of the server\n"
     "  --fibers      what each fiber of each worker waits for, instead of the table\n"
     "REQ/S, P50 and P99 are those of the last ten seconds; a latency is the upper bound of its bucket.\n"
     "Exit codes: 0, 1 no server answers, 2 wrong usage.\n",
     ctl_status},
    {"reload", "", "Read the configuration again; workers are told, or exchanged; waits for the outcome",
     "The server reads the file that it was started with.\n"
     "Exit codes: 0 done, 1 it failed, and the server goes on as before.\n",
     run_reload},
    {"reopen", "", "Open the logs anew, after they were renamed; waits until every worker writes there",
     "As USR1 to the master. Exit codes: 0 done, 1 it cannot be opened: the old one stays.\n", run_reopen},
    {"diff", "[--json]", "Show what a reload would change",
     "  --json        as JSON\n"
     "Compares the settings in effect with those that the server reads now, from the file that it was started with.\n"
     "Exit codes: 0, 1 they cannot be read or no server answers.\n",
     run_diff},
    {"scale", "[--role http|ingest] N|+N|-N", "Change the number of workers until the next reload",
     "  --role ROLE   which workers: http (default) or ingest\n"
     "Exit codes: 0 done, 1 refused, 2 wrong usage.\n",
     run_scale},
    {"upgrade", "", "Start the binary again, as it is on disk now, and hand over to it; waits for the outcome",
     "As USR2 to the master. No request is lost; the new master has another pid, unless it is PID 1.\n"
     "Exit codes: 0 done, 1 it failed, and the server goes on as before.\n",
     run_upgrade},
    {"rollback", "", "Undo an upgrade within server.rollback_window: the old workers come back",
     "Exit codes: 0 done, 1 refused, and the new ones go on.\n", run_rollback},
    {"stop", "[--fast]", "Stop the running server; waits for its end",
     "  --fast        do not wait for requests in flight\n"
     "Finds the server through server.control or server.pidfile.\n"
     "Exit codes: 0 it has ended, 1 no server was found, or it goes on.\n",
     run_stop},
    {0},
};

/* -- asking */

int ctl_dial(const struct config *cfg, bool quiet)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    char path[512];
    control_path(cfg, path, sizeof path);
    if (!*path || strlen(path) >= sizeof sa.sun_path) {
        if (!quiet)
            fprintf(stderr, "ragd: %s\n",
                    *path ? "the path of server.control is too long"
                          : "no control socket: set server.control for the server, and name it here, in the file given "
                            "with -c or as --set server.control=PATH");
        errno = ENOENT;
        return -1;
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
        return fd;
    int reason = errno;
    if (!quiet)
        fprintf(stderr, "ragd: no server answers at %s: %s; --set server.control=PATH names another socket\n", path,
                strerror(reason));
    if (fd >= 0)
        close(fd);
    errno = reason;
    return -1;
}

static bool send_line(int fd, const char *line, size_t n)
{
    while (n) {
        ssize_t sent = send(fd, line, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        line += sent;
        n -= (size_t)sent;
    }
    return true;
}

static json_t *read_line(int fd)
{
    struct buf b = {0};
    char chunk[16384];
    json_t *o = NULL;
    json_error_t bad;
    for (ssize_t n; (n = recv(fd, chunk, sizeof chunk, 0)) != 0;) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        buf_add(&b, chunk, (size_t)n);
        if (memchr(chunk, '\n', (size_t)n)) {
            o = json_loadb(b.p, b.n, JSON_DISABLE_EOF_CHECK, &bad);
            break;
        }
    }
    buf_fini(&b);
    return o;
}

json_t *ctl_call(int fd, json_t *question, int patience_s)
{
    struct timeval patience = {.tv_sec = patience_s};
    char *text = json_dumps(question, JSON_COMPACT);
    json_t *o = NULL;
    /* A master that was stopped still has its socket. Whoever is turned away is told why before he has asked. */
    if (text && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0) {
        (void)(send_line(fd, text, strlen(text)) && send_line(fd, "\n", 1));
        o = read_line(fd);
    }
    free(text);
    json_decref(question);
    return o;
}

/* The answer, or NULL when it is none or a refusal, which is told. */
static json_t *accepted(json_t *o)
{
    if (json_is_true(json_object_get(o, "ok")))
        return o;
    fprintf(stderr, "ragd: %s\n", o ? ctl_text(o, "error") : "the server gave no answer");
    json_decref(o);
    return NULL;
}

json_t *ctl_ask(const struct config *cfg, json_t *question, int patience_s)
{
    int fd = ctl_dial(cfg, false);
    if (fd < 0) {
        json_decref(question);
        return NULL;
    }
    json_t *o = ctl_call(fd, question, patience_s);
    close(fd);
    return accepted(o);
}

const char *ctl_text(const json_t *o, const char *key)
{
    const char *z = json_string_value(json_object_get(o, key));
    return z ? z : "";
}

long long ctl_number(const json_t *o, const char *key)
{
    return (long long)json_number_value(json_object_get(o, key));
}

int ctl_usage(const char *command, const char *fmt, ...)
{
    va_list ap;
    fputs("ragd: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "; see `ragd %s --help`\n", command);
    return EXIT_USAGE;
}

/* -- the commands */

/* For commands with one yes-or-no switch (NULL: none); -1: something else stands there, and was reported. */
static int one_switch(int argc, char **argv, const char *name)
{
    int on = 0;
    for (int i = 1; i < argc; i++) {
        if (!name || strcmp(argv[i], name) != 0) {
            ctl_usage(argv[0], "`ragd %s` does not know '%.60s'", argv[0], argv[i]);
            return -1;
        }
        on = 1;
    }
    return on;
}

static int run_reload(int argc, char **argv, const struct config *cfg)
{
    if (one_switch(argc, argv, NULL) < 0)
        return EXIT_USAGE;
    json_t *o = ctl_ask(cfg, json_pack("{s:s}", "cmd", "reload"), 0);
    if (!o)
        return 1;
    printf("reloaded: generation %lld\n", ctl_number(o, "generation"));
    json_decref(o);
    return 0;
}

static int run_reopen(int argc, char **argv, const struct config *cfg)
{
    if (one_switch(argc, argv, NULL) < 0)
        return EXIT_USAGE;
    json_t *o = ctl_ask(cfg, json_pack("{s:s}", "cmd", "reopen"), 0);
    json_decref(o);
    return o ? 0 : 1;
}

static void print_changes(const json_t *changes)
{
    size_t i;
    json_t *c;
    if (json_array_size(changes) == 0)
        printf("no difference\n");
    json_array_foreach (changes, i, c)
        printf("%s: %s -> %s (%s)\n", ctl_text(c, "key"), ctl_text(c, "old"), ctl_text(c, "new"),
               ctl_text(c, "effect"));
}

static int run_diff(int argc, char **argv, const struct config *cfg)
{
    int json = one_switch(argc, argv, "--json");
    if (json < 0)
        return EXIT_USAGE;
    json_t *o = ctl_ask(cfg, json_pack("{s:s}", "cmd", "diff"), PATIENCE_S);
    if (!o)
        return 1;
    if (json) {
        json_dumpf(json_object_get(o, "changes"), stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_changes(json_object_get(o, "changes"));
    }
    json_decref(o);
    return 0;
}

static int run_scale(int argc, char **argv, const struct config *cfg)
{
    const char *role = "http", *number = NULL;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--role=", 7) == 0)
            role = argv[i] + 7;
        else if (strcmp(argv[i], "--role") == 0 && i + 1 < argc)
            role = argv[++i];
        else if (!number)
            number = argv[i];
        else
            return ctl_usage("scale", "`ragd scale` does not know '%.60s'", argv[i]);
    }
    uint64_t n;
    bool by = number && (*number == '+' || *number == '-');
    if (!number || !str_to_u64(str_of(number + by), &n) || n > 10000)
        return ctl_usage("scale", "`ragd scale` needs a number of workers: 4, +1 or -1");
    json_int_t value = number[0] == '-' ? -(json_int_t)n : (json_int_t)n;
    json_t *question = json_pack("{s:s,s:s,s:I}", "cmd", "scale", "role", role, by ? "by" : "to", value);
    if (!question) /* only a role that is no UTF-8 */
        return ctl_usage("scale", "--role is http or ingest");
    json_t *o = ctl_ask(cfg, question, PATIENCE_S);
    if (!o)
        return 1;
    printf("%lld %s workers from now on, until the next reload\n", ctl_number(o, "target"), role);
    json_decref(o);
    return 0;
}

static int run_upgrade(int argc, char **argv, const struct config *cfg)
{
    if (one_switch(argc, argv, NULL) < 0)
        return EXIT_USAGE;
    json_t *o = ctl_ask(cfg, json_pack("{s:s}", "cmd", "upgrade"), 0);
    if (!o)
        return 1;
    printf("upgraded: the server is pid %lld\n", ctl_number(o, "pid"));
    if (ctl_number(o, "window_ms"))
        printf("`ragd rollback` undoes it, for %.1f s\n", (double)ctl_number(o, "window_ms") / 1000);
    json_decref(o);
    return 0;
}

static int run_rollback(int argc, char **argv, const struct config *cfg)
{
    if (one_switch(argc, argv, NULL) < 0)
        return EXIT_USAGE;
    json_t *o = ctl_ask(cfg, json_pack("{s:s}", "cmd", "rollback"), 0);
    if (!o)
        return 1;
    printf("rolled back: the old workers serve again\n");
    json_decref(o);
    return 0;
}

/* The pid may be one of another namespace, as 1 in a container: then it is somebody else's here. */
static bool has_open(pid_t pid, const char *file)
{
    char path[64];
    struct stat want, st;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = stat(file, &want) == 0 ? opendir(path) : NULL;
    if (!d)
        return false;
    for (struct dirent *ent; !found && (ent = readdir(d));)
        found = fstatat(dirfd(d), ent->d_name, &st, 0) == 0 && st.st_dev == want.st_dev && st.st_ino == want.st_ino;
    closedir(d);
    return found;
}

/* After a failed ctl_dial(), with its errno. The lock is the truth: when it is free, the master is gone. */
static int stop_by_pidfile(const char *path, bool fast)
{
    bool refused = errno == EACCES; /* at the control socket */
    pid_t pid = *path ? pidfile_holder(path) : 0;
    if (pid <= 0 && refused) {
        fprintf(stderr, "ragd: permission denied at server.control: run this as the user of the server\n");
        return 1;
    }
    if (pid <= 0) {
        fprintf(stderr, "ragd: no running server found through server.control or server.pidfile; name one of them, in "
                        "the file given with -c or as --set server.control=PATH\n");
        return 1;
    }
    if (!has_open(pid, path)) {
        fprintf(stderr,
                "ragd: the server that holds server.pidfile %s cannot be seen from here as pid %d: stop it as its "
                "user, in its container, or through server.control\n",
                path, (int)pid);
        return 1;
    }
    if (kill(pid, fast ? SIGQUIT : SIGTERM) != 0) {
        fprintf(stderr, "ragd: cannot signal pid %d: %s\n", (int)pid, strerror(errno));
        return 1;
    }
    while (pidfile_holder(path) == pid)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    return 0;
}

static int run_stop(int argc, char **argv, const struct config *cfg)
{
    int fast = one_switch(argc, argv, "--fast");
    if (fast < 0)
        return EXIT_USAGE;
    int fd = ctl_dial(cfg, true);
    if (fd < 0)
        return stop_by_pidfile(cfg->server_pidfile, fast);
    json_t *o = ctl_call(fd, json_pack("{s:s,s:b}", "cmd", "stop", "fast", fast), 0);
    close(fd);
    fd = o ? -1 : ctl_dial(cfg, true);
    if (!o && fd < 0)
        return 0; /* no answer but the end of the connection: it is gone all the same */
    if (fd >= 0)
        close(fd);
    o = accepted(o);
    if (!o)
        return 1;
    if (ctl_number(o, "killed") > 0)
        fprintf(stderr, "ragd: stopped; workers that had to be killed: %lld\n", ctl_number(o, "killed"));
    json_decref(o);
    return 0;
}
