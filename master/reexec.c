#include "master/reexec.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/control.h"
#include "master/master.h"
#include "master/notify.h"
#include "master/spawn_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* -- what is passed */

static json_t *worker_json(const struct master *m, const struct worker *w, struct estate_fds *fds)
{
    return json_pack(
        "{s:i,s:i,s:s,s:b,s:I,s:i,s:I,s:b,s:i,s:i,s:I,s:i,s:I,s:I,s:I,s:I}", "slot", (int)w->slot, "pid", (int)w->pid,
        "role", role_name(w->role), "current", w->gen == m->gen, "generation", (json_int_t)crew_slot(m, w)->generation,
        "channel", estate_pass(fds, w->channel), "fork_ns", (json_int_t)w->fork_ns, "was_ready", w->was_ready,
        "recycle", (int)w->recycle, "asked", (int)w->asked, "deadline", (json_int_t)w->deadline, "cause",
        w->cause < DEATH_COUNT ? (int)w->cause : -1, "watchdog_ms", (json_int_t)w->watchdog_ms, "fast_ms",
        (json_int_t)w->fast_ms, "abort_ms", (json_int_t)w->abort_ms, "uptime_ms", (json_int_t)w->uptime_ms);
}

static json_t *workers_json(const struct master *m, struct estate_fds *fds)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < m->crew.n; i++)
        if (m->crew.v[i].pid)
            json_array_append_new(all, worker_json(m, &m->crew.v[i], fds));
    return all;
}

/* Secrets are among it: it goes into a memfd of this process alone. */
static json_t *config_json(const struct config *cfg)
{
    json_t *all = json_array();
    struct buf b = {0};
    for (enum config_key key = 0; key < KEY_COUNT; key++) {
        if (!config_given(cfg, key))
            continue;
        b.n = 0;
        config_assignment(cfg, key, &b);
        json_array_append_new(all, json_stringn_nocheck(b.p, b.n));
    }
    buf_fini(&b);
    return all;
}

static json_t *strings_json(char *const *v)
{
    json_t *all = json_array();
    for (; *v; v++)
        json_array_append_new(all, json_string_nocheck(*v));
    return all;
}

void reexec_describe(const struct master *m, json_t *doc, struct estate_fds *fds)
{
    const struct generation *g = m->gen;
    json_object_set_new(doc, "argv", strings_json(m->launch.argv));
    json_object_set_new(doc, "environ", strings_json(m->launch.envp));
    json_object_set_new(doc, "workers", workers_json(m, fds));
    json_object_set_new(doc, "config", config_json(g->cfg));
    json_object_set_new(doc, "file", g->cfg->file ? json_string_nocheck(g->cfg->file) : json_null());
    json_object_set_new(doc, "scoreboard", json_integer(estate_pass(fds, m->sb_fd)));
    json_object_set_new(doc, "jobs", json_integer(estate_pass(fds, m->jobs_fd)));
    json_object_set_new(doc, "generation", json_integer(g->number));
    json_object_set_new(doc, "http", json_integer(g->target[ROLE_HTTP]));
    json_object_set_new(doc, "ingest", json_integer(g->target[ROLE_INGEST]));
    json_object_set_new(doc, "start_ns", json_integer(m->start_ns));
    json_object_set_new(doc, "order", json_integer(m->order));
    json_object_set_new(doc, "parked", json_boolean(m->parked));
    json_object_set_new(doc, "announced", json_boolean(m->announced));
    json_object_set_new(doc, "hooks", hooks_describe(&m->hooks));
    json_object_set_new(doc, "again", json_boolean(m->reload.again));
}

/* -- exec */

int reexec(struct master *m, struct err *e)
{
    struct estate_fds keep;
    int image = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (image < 0)
        return err_errno(e, "/proc/self/exe");
    int estate = estate_write(m, ESTATE_image, image, &keep, e);
    if (estate >= 0) {
        log_info("the new binary takes over this process");
        (void)!dup2(m->stderr_fd, STDERR_FILENO); /* it opens log.file itself, when its start has succeeded */
        launch_exec(&m->launch, m->launch.path, -1, NULL, keep.v, keep.n, estate);
        err_set(e, ERR_INTERNAL, "cannot execute %s: %s", m->launch.path, strerror(errno));
        master_log_to(m, m->gen);
        close(estate);
    }
    close(image);
    return -1;
}

/* NULL-terminated; the strings are those of the document. */
static char **strings_of(const json_t *all)
{
    size_t n = json_array_size(all);
    char **v = calloc(n + 1, sizeof *v);
    if (!v)
        abort();
    for (size_t i = 0; i < n; i++)
        v[i] = (char *)(uintptr_t)json_string_value(json_array_get(all, i));
    return v;
}

/* With its own arguments and environment: a program between the two may have changed them. */
void reexec_back(struct master *m, const char *reason)
{
    struct estate *s = &m->heir.estate;
    struct err e = {.code = ERR_NONE};
    if (s->kind != ESTATE_image || s->peer < 0)
        return;
    log_error("the new binary cannot go on, the old one comes back: %s", reason);
    struct launch old;
    char **argv = strings_of(json_object_get(s->doc, "argv")), **envp = strings_of(json_object_get(s->doc, "environ"));
    launch_init(&old, argv, envp); /* copies: the document is written anew */
    free(argv);
    free(envp);
    int estate = estate_rewrite(s, ESTATE_restored, reason, &e);
    if (estate < 0)
        log_err(LOG_ERROR, "upgrade", &e);
    else
        launch_exec(&old, NULL, s->peer, NULL, s->fds.v, s->fds.n, estate);
    log_error("the old binary does not come back: %s", strerror(errno));
    launch_fini(&old);
}

/* -- the start of an image */

bool reexec_adopts(const struct master *m)
{
    return m->heir.estate.kind == ESTATE_image || m->heir.estate.kind == ESTATE_restored;
}

/* The old binary may not understand the file that was written for the new one: it takes what it had. */
int reexec_config(struct master *m, struct config **out, struct err *e)
{
    const struct estate *s = &m->heir.estate;
    const json_t *set = json_object_get(s->doc, "config");
    if (s->kind != ESTATE_restored)
        return config_load(&m->args.config, out, e);
    char **v = strings_of(set);
    const char *file = json_string_value(json_object_get(s->doc, "file"));
    int rc = config_restore(file, (const char *const *)v, (int)json_array_size(set), out, e);
    free(v);
    return rc;
}

int reexec_generation(struct master *m, struct err *e)
{
    struct estate *s = &m->heir.estate;
    struct generation *g = m->gen;
    g->number = (uint32_t)estate_number(s->doc, "generation");
    g->target[ROLE_HTTP] = (int)estate_number(s->doc, "http");
    g->target[ROLE_INGEST] = (int)estate_number(s->doc, "ingest");
    g->listen = s->listen;
    g->target[ROLE_STATUS] = generation_wants_status(g);
    return logfiles_open(&g->logs, g->cfg, g->privileges, e);
}

int reexec_shared(struct master *m, unsigned slots, struct err *e)
{
    const json_t *doc = m->heir.estate.doc, *w;
    size_t i;
    int fd = (int)estate_number(doc, "scoreboard");
    m->jobs_fd = (int)estate_number(doc, "jobs");
    if (scoreboard_adopt(fd, &slots, &m->sb)) {
        m->sb_fd = fd;
        return crew_init(&m->crew, slots, e);
    }
    json_array_foreach (json_object_get(doc, "workers"), i, w)
        slots = estate_number(w, "slot") >= slots ? (unsigned)estate_number(w, "slot") + 1 : slots;
    if (scoreboard_create(&m->sb, &m->sb_fd, slots, e) != 0)
        return -1;
    log_info("the scoreboard of this release is another one: counters begin anew");
    atomic_store(&m->sb->slots, 0);
    return crew_init(&m->crew, slots, e);
}

/* In a scoreboard that is not the worker's own: what can be said of it. */
static void fill_slot(struct master *m, struct worker *w, uint32_t generation)
{
    struct slot *s = crew_slot(m, w);
    w->blind = true;
    s->role = w->role;
    s->generation = generation;
    atomic_store(&s->pid, w->pid);
    atomic_store(&s->fork_ns, w->fork_ns);
    atomic_store(&s->ready_ns, w->was_ready ? w->fork_ns + 1 : 0);
    atomic_store(&s->state, w->asked != ASK_NOTHING ? WORKER_DRAINING : w->was_ready ? WORKER_READY : WORKER_BOOTING);
    if (atomic_load(&m->sb->slots) <= w->slot)
        atomic_store(&m->sb->slots, w->slot + 1);
}

static enum role role_of(const char *name)
{
    enum role role = ROLE_HTTP;
    while (role < ROLE_COUNT - 1 && strcmp(name, role_name(role)) != 0)
        role++;
    return role;
}

/* Another release may know more of them, or fewer. */
static enum death cause_of(json_int_t number)
{
    return number < 0 || number > DEATH_COUNT ? DEATH_COUNT : (enum death)number;
}

static void adopt_worker(struct master *m, const json_t *o, bool blind, int64_t now)
{
    struct worker *w = &m->crew.v[estate_number(o, "slot")];
    *w = (struct worker){
        .slot = w->slot,
        .pid = (pid_t)estate_number(o, "pid"),
        .role = role_of(estate_text(o, "role")),
        .gen = json_is_true(json_object_get(o, "current")) ? m->gen : NULL,
        .channel = (int)estate_number(o, "channel"),
        .fork_ns = estate_number(o, "fork_ns"),
        .was_ready = json_is_true(json_object_get(o, "was_ready")),
        .recycle = (enum recycle)estate_number(o, "recycle"),
        .asked = (enum ask)estate_number(o, "asked"),
        .deadline = estate_number(o, "deadline"),
        .cause = cause_of(estate_number(o, "cause")),
        .slow_upto = now,
        .beat_floor = now,
        .watchdog_ms = estate_number(o, "watchdog_ms"),
        .fast_ms = estate_number(o, "fast_ms"),
        .abort_ms = estate_number(o, "abort_ms"),
        .uptime_ms = estate_number(o, "uptime_ms"),
    };
    if (w->was_ready)
        crew_was_ready(m, w);
    uint32_t order = atomic_load(&m->sb->slot[w->slot].order);
    if (blind)
        fill_slot(m, w, (uint32_t)estate_number(o, "generation"));
    else if ((int32_t)(order - m->order) > 0) /* the serials go on: what was carried out is no later order */
        m->order = order;
}

/* Both images come here: the new one goes on with a reload, the old one says what went wrong. */
static void resume(struct master *m, const char *failed)
{
    struct upgrade *u = &m->upgrade;
    u->successor = m->pid;
    if (failed) {
        upgrade_ended(m, "exec", failed);
        log_error("upgrade failed, everything stays as it was: %s", u->failed);
        notify_ready(m);
        if (u->again)
            reload_start(m);
    } else {
        u->resuming = m->reload.begun + 1;
        reload_start(m);
    }
}

void reexec_tick(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    if (!u->resuming || m->reload.ended < u->resuming)
        return;
    const char *failed = reload_end_of(m, u->resuming)->failed;
    u->resuming = 0;
    if (failed[0]) {
        upgrade_ended(m, "reload", failed);
        log_error("the new binary runs, but its workers do not; those of the old one go on: %s", failed);
    } else {
        upgrade_ended(m, NULL, NULL);
        log_info("upgraded in %lld ms, in this process", (long long)((clock_ns() - u->start_ns) / MS));
    }
    if (u->again)
        reload_start(m);
    u->again = false;
}

void reexec_adopt(struct master *m)
{
    struct estate *s = &m->heir.estate;
    const json_t *doc = s->doc, *w;
    size_t i, n = 0;
    bool blind = m->sb_fd != estate_number(doc, "scoreboard");
    m->order = (uint32_t)estate_number(doc, "order");
    m->start_ns = m->sb->start_ns = estate_number(doc, "start_ns");
    m->parked = json_is_true(json_object_get(doc, "parked"));
    m->announced = json_is_true(json_object_get(doc, "announced"));
    json_array_foreach (json_object_get(doc, "workers"), i, w) {
        adopt_worker(m, w, blind, clock_ns());
        n++;
    }
    hooks_adopt(&m->hooks, json_object_get(doc, "hooks"));
    log_info("%zu workers go on as generation %u", n, m->gen->number);
    m->control = control_adopt(m, json_object_get(doc, "control"));
    atomic_store(&m->sb->upgrades_ok, (uint64_t)s->upgrades_ok);
    atomic_store(&m->sb->upgrades_failed, (uint64_t)s->upgrades_failed);
    m->upgrade.start_ns = s->upgrade_start_ns;
    m->upgrade.again = json_is_true(json_object_get(doc, "again"));
    resume(m, s->kind == ESTATE_restored ? estate_text(doc, "reason") : NULL);
    if (blind)
        close((int)estate_number(doc, "scoreboard"));
    close(s->peer); /* the image of the old binary */
    s->peer = -1;
    pidfile_close(&s->pidfile); /* of another path than now */
    s->listen.n = 0;
    estate_release(s, NULL);
}
