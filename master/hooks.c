#include "master/hooks.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/master.h"
#include "master/signals.h"
#include "master/spawn_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const events[HOOK_COUNT] = {
#define X(name) #name,
    HOOK_EVENTS(X)
#undef X
};

static const char *path_of(const struct config *cfg, enum hook_event event)
{
    const char *const paths[HOOK_COUNT] = {
#define X(name) cfg->hooks_##name,
        HOOK_EVENTS(X)
#undef X
    };
    return paths[event];
}

int hook_check(const struct config *cfg, enum hook_event event, struct err *e)
{
    const char *path = path_of(cfg, event);
    struct stat st;
    if (!*path)
        return 0;
    if (stat(path, &st) != 0)
        return err_set(e, ERR_VALIDATION, "hooks.%s: %s: %s", events[event], path, strerror(errno));
    if (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) != 0)
        return err_set(e, ERR_VALIDATION, "hooks.%s: %s is not an executable file", events[event], path);
    return 0;
}

int hooks_check(const struct config *cfg, struct err *e)
{
    for (enum hook_event event = HOOK_ready; event < HOOK_COUNT; event++)
        if (hook_check(cfg, event, e) != 0)
            return -1;
    return 0;
}

/* -- its environment: "NAME=value" strings one behind the other */

enum { NAMES_MAX = 16 };

struct environment {
    struct buf text;
    char *v[NAMES_MAX + 1];
};

static void add_text(struct environment *env, const char *name, const char *value)
{
    if (!value)
        return;
    buf_printf(&env->text, "%s=%s", name, value);
    buf_ch(&env->text, 0);
}

static void add_number(struct environment *env, const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    add_text(env, name, text);
}

static void fill(struct environment *env, const struct master *m, enum hook_event event, const struct worker *w,
                 const char *reason)
{
    static const char *const inherited[] = {"PATH", "LANG", "LC_ALL", "TZ"};
    for (size_t i = 0; i < sizeof inherited / sizeof *inherited; i++)
        add_text(env, inherited[i], getenv(inherited[i]));
    add_text(env, "RAGD_EVENT", events[event]);
    add_number(env, "RAGD_PID", m->pid);
    add_number(env, "RAGD_GENERATION", m->gen->number);
    add_text(env, "RAGD_REASON", reason);
    if (w) {
        add_number(env, "RAGD_WORKER_PID", w->pid);
        add_number(env, "RAGD_WORKER_SLOT", w->slot);
        add_text(env, "RAGD_ROLE", role_name(w->role));
        add_number(env, "RAGD_REQUESTS", watch_flights(crew_slot(m, w), clock_ns(), false));
    }
    int n = 0;
    for (size_t at = 0; at < env->text.n && n < NAMES_MAX; at += strlen(env->text.p + at) + 1)
        env->v[n++] = env->text.p + at;
}

/* -- its process */

__attribute__((noreturn)) static void become(const struct master *m, const char *path, char *const *env)
{
    char *argv[] = {(char *)(uintptr_t)path, NULL};
    struct err e = {.code = ERR_NONE};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    setpgid(0, 0);
    if (privileges_become(&m->privileges, &e) != 0)
        log_err(LOG_ERROR, path, &e);
    else if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        log_error("%s: %s", path, strerror(errno));
    else {
        close_range(STDERR_FILENO + 1, ~0U, 0);
        signals_default();
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* its deadline would go with the master */
        if (getppid() == m->pid)
            execve(path, argv, env);
        log_error("cannot run %s: %s", path, strerror(errno));
    }
    _exit(127);
}

static struct hook_run *free_place(struct hooks *h)
{
    for (int i = 0; i < HOOKS_MAX; i++)
        if (!h->run[i].pid)
            return &h->run[i];
    return NULL;
}

void hooks_fire(struct master *m, enum hook_event event, const struct worker *w, const char *reason)
{
    const char *path = path_of(m->gen->cfg, event);
    struct hook_run *run = free_place(&m->hooks);
    struct environment env = {.text = {0}};
    if (!*path)
        return;
    if (!run) {
        m->hooks.dropped++;
        log_warn("hooks.%s is not run: %d hooks are running; %llu were left out so far", events[event], HOOKS_MAX,
                 (unsigned long long)m->hooks.dropped);
        return;
    }
    fill(&env, m, event, w, reason);
    pid_t pid = fork();
    if (pid == 0)
        become(m, path, env.v);
    buf_fini(&env.text);
    if (pid < 0) {
        log_error("hooks.%s: cannot fork: %s", events[event], strerror(errno));
        return;
    }
    (void)setpgid(pid, pid); /* both do it: whoever comes first. It fails when the program runs already */
    *run = (struct hook_run){pid, event, clock_ns() + m->gen->cfg->hooks_timeout * MS};
    log_debug("hooks.%s: %s runs as pid %d", events[event], path, (int)pid);
}

bool hooks_reap(struct hooks *h, pid_t pid, int status)
{
    char how[64];
    for (int i = 0; i < HOOKS_MAX; i++) {
        struct hook_run *run = &h->run[i];
        if (run->pid != pid)
            continue;
        death_describe(status, how, sizeof how);
        log_msg(status ? LOG_WARN : LOG_DEBUG, "hooks.%s (pid %d) ended: %s", events[run->event], (int)pid, how);
        run->pid = 0;
        return true;
    }
    return false;
}

void hooks_tick(struct hooks *h, int64_t now)
{
    for (int i = 0; i < HOOKS_MAX; i++) {
        struct hook_run *run = &h->run[i];
        if (!run->pid || !run->deadline || now < run->deadline)
            continue;
        log_warn("hooks.%s (pid %d) has not ended within hooks.timeout: killing it", events[run->event], (int)run->pid);
        run->deadline = 0;
        if (kill(-run->pid, SIGKILL) != 0 && errno == ESRCH) /* an image between two of ours has reaped it */
            run->pid = 0;
    }
}

void hooks_shift(struct hooks *h, int64_t gap)
{
    for (int i = 0; i < HOOKS_MAX; i++)
        if (h->run[i].deadline)
            h->run[i].deadline += gap;
}

json_t *hooks_describe(const struct hooks *h)
{
    json_t *all = json_array();
    for (int i = 0; i < HOOKS_MAX; i++)
        if (h->run[i].pid)
            json_array_append_new(all, json_pack("{s:i,s:s,s:I}", "pid", (int)h->run[i].pid, "event",
                                                 events[h->run[i].event], "deadline", (json_int_t)h->run[i].deadline));
    return all;
}

void hooks_adopt(struct hooks *h, const json_t *all)
{
    const json_t *o;
    size_t i;
    json_array_foreach (all, i, o) {
        struct hook_run *run = free_place(h);
        enum hook_event event = HOOK_ready;
        while (event < HOOK_COUNT - 1 && strcmp(estate_text(o, "event"), events[event]) != 0)
            event++;
        if (run)
            *run = (struct hook_run){(pid_t)estate_number(o, "pid"), event, estate_number(o, "deadline")};
    }
}

void hooks_end(struct hooks *h)
{
    for (int i = 0; i < HOOKS_MAX; i++)
        if (h->run[i].pid)
            kill(-h->run[i].pid, SIGKILL);
}
