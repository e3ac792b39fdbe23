#include "master/commands.h"
#include "common/status.h"
#include "master/fibers.h"
#include "master/master.h"
#include "master/orders.h"
#include "master/publish.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct command {
    const char *name;
    unsigned phases; /* in which it is accepted: bits 1 << phase */
    /* Answers at once, or only begins what `outcome` answers; `args` is the object that was sent. */
    void (*run)(struct caller *c, const json_t *args);
    /* Called each tick until it has answered, and a last time, with `end`, when the master ends. */
    void (*outcome)(struct caller *c, bool end);
};

static void run_status(struct caller *c, const json_t *args);
static void run_fibers(struct caller *c, const json_t *args);
static void fibers_outcome(struct caller *c, bool end);
static void run_reload(struct caller *c, const json_t *args);
static void reload_outcome(struct caller *c, bool end);
static void run_reopen(struct caller *c, const json_t *args);
static void reopen_outcome(struct caller *c, bool end);
static void run_diff(struct caller *c, const json_t *args);
static void run_scale(struct caller *c, const json_t *args);
static void run_upgrade(struct caller *c, const json_t *args);
static void upgrade_outcome(struct caller *c, bool end);
static void run_rollback(struct caller *c, const json_t *args);
static void rollback_outcome(struct caller *c, bool end);
static void run_stop(struct caller *c, const json_t *args);
static void stop_outcome(struct caller *c, bool end);

enum {
    IDLE = 1 << MASTER_IDLE,
    RELOADING = 1 << MASTER_RELOADING,
    STOPPING = 1 << MASTER_STOPPING,
    ALWAYS = ~0,
};

static const struct command commands[] = {
    {"status", ALWAYS, run_status, NULL},
    {"fibers", ALWAYS, run_fibers, fibers_outcome},
    {"reload", IDLE | RELOADING, run_reload, reload_outcome},
    {"reopen", ALWAYS, run_reopen, reopen_outcome},
    {"diff", ALWAYS, run_diff, NULL},
    {"scale", IDLE, run_scale, NULL},
    {"upgrade", IDLE | RELOADING, run_upgrade, upgrade_outcome},
    {"rollback", ALWAYS, run_rollback, rollback_outcome},
    {"stop", ALWAYS, run_stop, stop_outcome},
};
enum { WORKERS_FAR = 1000000, COMMANDS = sizeof commands / sizeof *commands };

/* Why a command is not accepted now, and what to do. */
static const char *const wrong_phase[] = {
    [MASTER_IDLE] = "there is nothing that it could act on",
    [MASTER_RELOADING] = "a reload is under way: try again when it has ended",
    [MASTER_UPGRADING] = "an upgrade is under way: try again when it has ended",
    [MASTER_STOPPING] = "the server is stopping",
};

/* -- the table at work */

static const struct command *find(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void refuse_unknown(struct caller *c, const char *name)
{
    struct buf known = {0};
    for (int i = 0; i < COMMANDS; i++)
        buf_printf(&known, "%s%s", i ? ", " : "", commands[i].name);
    buf_ch(&known, 0);
    command_refuse(c, "there is no command '%.60s'; there are: %s", name, known.p);
    buf_fini(&known);
}

static void refuse_now(struct caller *c, const char *name)
{
    pid_t holder = upgrade_window_holder(c->m);
    if (holder)
        command_refuse(
            c,
            "%s: an upgrade can still be undone: `ragd rollback` does so, TERM to pid %d, the old master, ends "
            "this time",
            name, (int)holder);
    else
        command_refuse(c, "%s: %s", name, wrong_phase[c->m->phase]);
}

void command_run(struct caller *c, const char *line, size_t n)
{
    json_error_t bad;
    json_t *args = json_loadb(line, n, 0, &bad);
    const char *name = json_string_value(json_object_get(args, "cmd"));
    const struct command *found = name ? find(name) : NULL;
    if (!name) {
        command_refuse(c, "expected one line of JSON: {\"cmd\":\"status\"}");
    } else if (!found) {
        refuse_unknown(c, name);
    } else if (!(found->phases >> c->m->phase & 1)) {
        refuse_now(c, name);
    } else {
        c->waits = found->outcome ? found : NULL;
        found->run(c, args);
    }
    json_decref(args);
}

void command_tick(struct caller *c)
{
    if (c->waits)
        c->waits->outcome(c, false);
}

void command_end(struct caller *c)
{
    if (c->waits)
        c->waits->outcome(c, true);
}

bool command_waits_for(const struct caller *c, const char *name)
{
    return c->waits && strcmp(c->waits->name, name) == 0;
}

void command_wait_for(struct caller *c, const char *name)
{
    c->waits = find(name);
}

void command_answer(struct caller *c, json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT);
    c->waits = NULL;
    if (text) {
        buf_str(&c->reply, str_of(text));
        buf_ch(&c->reply, '\n');
        free(text);
    }
    json_decref(o);
}

void command_refuse(struct caller *c, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    str_utf8_fix(text); /* it may quote anything, and be cut within a character */
    command_answer(c, json_pack("{s:b,s:s}", "ok", 0, "error", text));
}

/* -- the commands */

static void run_status(struct caller *c, const json_t *args)
{
    (void)args;
    publish(c->m);
    status_json(c->m->sb, &c->reply);
    buf_ch(&c->reply, '\n');
}

static void run_fibers(struct caller *c, const json_t *args)
{
    (void)args;
    fibers_ask(c->m);
}

static void fibers_outcome(struct caller *c, bool end)
{
    if (fibers_over(c->m) || end)
        command_answer(c, json_pack("{s:b,s:o}", "ok", 1, "workers", fibers_json(c->m)));
}

static void run_reload(struct caller *c, const json_t *args)
{
    (void)args;
    c->generation = 0;
    c->reload = reload_start(c->m);
    reload_outcome(c, false); /* more than one may end before the next tick */
}

static void refuse_change(struct caller *c, const char *what, const char *why)
{
    bool stopping = c->m->phase == MASTER_STOPPING;
    command_refuse(c, "%s failed%s: %s", what, stopping ? "" : ", everything stays as it was", why);
}

/* What a reload has pushed holds when this is answered. */
static void reload_outcome(struct caller *c, bool end)
{
    const struct master *m = c->m;
    if (!c->generation && c->reload <= m->reload.ended) {
        const struct reload_end *outcome = reload_end_of(m, c->reload);
        if (outcome->failed[0]) {
            refuse_change(c, "reload", outcome->failed);
            return;
        }
        c->generation = outcome->generation;
    }
    if (c->generation && (end || orders_done(m)))
        command_answer(c, json_pack("{s:b,s:i}", "ok", 1, "generation", (int)c->generation));
    else if (!c->generation && (end || m->phase == MASTER_STOPPING))
        refuse_change(c, "reload", "stopped: the server was stopped meanwhile");
}

static void run_reopen(struct caller *c, const json_t *args)
{
    struct err e = {.code = ERR_NONE};
    (void)args;
    if (orders_reopen(c->m, &e) != 0)
        command_refuse(c, "the logs stay as they are: %s", e.msg);
}

static void reopen_outcome(struct caller *c, bool end)
{
    if (orders_done(c->m) || end)
        command_answer(c, json_pack("{s:b}", "ok", 1));
}

static json_t *text_of(const struct config *cfg, enum config_key key)
{
    struct buf b = {0};
    config_text(cfg, key, &b);
    buf_ch(&b, 0);
    str_utf8_fix(b.p);
    json_t *text = json_string(b.p);
    buf_fini(&b);
    return text;
}

static json_t *difference(const struct config *old, const struct config *new)
{
    json_t *changes = json_array();
    for (enum config_key key = 0; key < KEY_COUNT; key++)
        if (!config_same(old, new, key))
            json_array_append_new(changes, json_pack("{s:s,s:o,s:o,s:s}", "key", config_key_name(key), "old",
                                                     text_of(old, key), "new", text_of(new, key), "effect",
                                                     config_apply_text(config_key_apply(key))));
    return changes;
}

/* Reads what a reload would read, and goes no further. */
static void run_diff(struct caller *c, const json_t *args)
{
    struct config *new;
    struct err e = {.code = ERR_NONE};
    (void)args;
    if (config_load(&c->m->args.config, &new, &e) != 0) {
        command_refuse(c, "a reload would fail: %s", e.msg);
        return;
    }
    command_answer(c, json_pack("{s:b,s:o}", "ok", 1, "changes", difference(c->m->gen->cfg, new)));
    config_free(new);
}

static void run_scale(struct caller *c, const json_t *args)
{
    const char *name = json_string_value(json_object_get(args, "role"));
    const json_t *to = json_object_get(args, "to"), *by = json_object_get(args, "by");
    enum role role = name && strcmp(name, "ingest") == 0 ? ROLE_INGEST : ROLE_HTTP;
    int64_t n = json_integer_value(by ? by : to);
    struct err e = {.code = ERR_NONE};
    if (name && strcmp(name, role_name(role)) != 0)
        command_refuse(c, "scale: the role is http or ingest, not '%.60s'", name);
    else if (json_is_integer(to) == json_is_integer(by))
        command_refuse(c, "scale needs \"to\" or \"by\", a number of workers");
    else if (n < -WORKERS_FAR || n > WORKERS_FAR)
        command_refuse(c, "scale: a number of workers is needed");
    else if (master_scale(c->m, role, by ? c->m->gen->target[role] + n : n, &e) != 0)
        command_refuse(c, "scale: %s", e.msg);
    else
        command_answer(c, json_pack("{s:b,s:i}", "ok", 1, "target", c->m->gen->target[role]));
}

static void run_upgrade(struct caller *c, const json_t *args)
{
    (void)args;
    upgrade_request(c->m);
}

static void upgrade_outcome(struct caller *c, bool end)
{
    const struct master *m = c->m;
    if (upgrade_pending(m) && !end)
        return;
    if (m->upgrade.failed[0])
        refuse_change(c, "upgrade", m->upgrade.failed);
    else
        command_answer(c, json_pack("{s:b,s:i,s:I}", "ok", 1, "pid", (int)m->upgrade.successor, "window_ms",
                                    (json_int_t)upgrade_window_ms(m)));
}

static void run_rollback(struct caller *c, const json_t *args)
{
    (void)args;
    if (!upgrade_rollback(c->m))
        command_refuse(c, "there is nothing to roll back: no upgrade came before, or server.rollback_window is over");
}

static void rollback_outcome(struct caller *c, bool end)
{
    const struct master *m = c->m;
    if (upgrade_rolling_back(m) && !end)
        return;
    if (m->upgrade.refused[0])
        command_refuse(c, "not rolled back: %s", m->upgrade.refused);
    else
        command_answer(c, json_pack("{s:b}", "ok", 1));
}

static void run_stop(struct caller *c, const json_t *args)
{
    master_stop(c->m, json_is_true(json_object_get(args, "fast")));
}

static void stop_outcome(struct caller *c, bool end)
{
    if (end)
        command_answer(c,
                       json_pack("{s:b,s:i,s:i}", "ok", 1, "exit_code", c->m->exit_code, "killed", (int)c->m->killed));
}
