#include "master/launch.h"
#include "common/str.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void *need(void *p)
{
    if (!p)
        abort();
    return p;
}

static size_t count(char *const *v)
{
    size_t n = 0;
    while (v && v[n])
        n++;
    return n;
}

static char **copy(char *const *v)
{
    size_t n = count(v);
    char **out = need(calloc(n + 1, sizeof *out));
    for (size_t i = 0; i < n; i++)
        out[i] = need(strdup(v[i]));
    return out;
}

static bool runnable(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* As the shell looked for it. */
static char *search_path(const char *name)
{
    const char *path = getenv("PATH");
    struct str rest = str_of(path ? path : "/usr/local/bin:/bin:/usr/bin");
    while (rest.n) {
        struct str dir = str_cut(&rest, ':');
        char *full;
        if (asprintf(&full, STR_FMT "/%s", STR_ARG(dir), name) < 0)
            abort();
        if (*full == '/' && runnable(full))
            return full;
        free(full);
    }
    return NULL;
}

/* What runs now, should nobody know by which name it was called. */
static char *running_image(void)
{
    char *path = realpath("/proc/self/exe", NULL);
    return path ? path : need(strdup("/proc/self/exe"));
}

/* $PWD, when it is right, still has the links by which the directory was reached. */
static char *resolve(const char *name)
{
    char *full, *dir;
    if (!name || !*name)
        return running_image();
    if (*name == '/')
        return need(strdup(name));
    if (!strchr(name, '/'))
        return (full = search_path(name)) ? full : running_image();
    while (strncmp(name, "./", 2) == 0)
        name += 2;
    dir = get_current_dir_name();
    if (!dir)
        return running_image();
    if (asprintf(&full, "%s/%s", dir, name) < 0)
        abort();
    free(dir);
    return full;
}

void launch_init(struct launch *l, char *const *argv, char *const *envp)
{
    l->argv = copy(argv);
    l->envp = copy(envp);
    l->path = resolve(l->argv[0]);
}

static void free_all(char **v)
{
    for (size_t i = 0; v && v[i]; i++)
        free(v[i]);
    free(v);
}

void launch_fini(struct launch *l)
{
    free_all(l->argv);
    free_all(l->envp);
    free(l->path);
    *l = (struct launch){.path = NULL};
}

static bool named(const char *variable, const char *name)
{
    size_t n = strlen(name);
    return strncmp(variable, name, n) == 0 && variable[n] == '=';
}

/* The environment of the start. Sockets that were activated come with the estate, not as what systemd passed; and the
 * watchdog waits for whoever is the master. */
static char **environment(const struct launch *l, int estate)
{
    static const char *const dropped[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", LAUNCH_ESTATE};
    char **out = need(calloc(count(l->envp) + 3, sizeof *out));
    size_t n = 0;
    bool watchdog = false;
    for (size_t i = 0; l->envp[i]; i++) {
        bool drop = false;
        for (size_t k = 0; k < sizeof dropped / sizeof *dropped; k++)
            drop |= named(l->envp[i], dropped[k]);
        watchdog |= named(l->envp[i], "WATCHDOG_PID");
        if (!drop)
            out[n++] = need(strdup(l->envp[i]));
    }
    if (watchdog && asprintf(&out[n++], "WATCHDOG_PID=%d", (int)getpid()) < 0)
        abort();
    if (estate >= 0 && asprintf(&out[n++], LAUNCH_ESTATE "=%d", estate) < 0)
        abort();
    return out;
}

static void keep_on_exec(const int *keep, int n, bool yes)
{
    for (int i = 0; i < n; i++)
        if (keep[i] > STDERR_FILENO)
            fcntl(keep[i], F_SETFD, yes ? 0 : FD_CLOEXEC);
}

void launch_exec(const struct launch *l, const char *path, int image, char *const *argv, const int *keep, int n_keep,
                 int estate)
{
    char **envp = environment(l, estate);
    argv = argv ? argv : l->argv;
    /* All are opened so already; this is against a library that forgets it. */
    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    keep_on_exec(keep, n_keep, true);
    keep_on_exec(&estate, 1, true);
    if (path)
        execve(path, argv, envp);
    else
        fexecve(image, argv, envp);
    int error = errno;
    keep_on_exec(keep, n_keep, false);
    keep_on_exec(&estate, 1, false);
    free_all(envp);
    errno = error;
}
