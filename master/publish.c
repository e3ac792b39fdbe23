#include "master/publish.h"
#include "common/note.h"
#include "master/master.h"
#include "version.h"

static void copy(char *to, size_t cap, const char *from)
{
    str_copyz(to, cap, str_of(from));
    str_utf8_fix(to); /* a path may be any bytes, and was perhaps cut within a character */
}

static void publish_note(struct master *m)
{
    const struct generation *g = m->gen;
    struct note n;
    memset(&n, 0, sizeof n); /* also between the members: notes are compared as a whole */
    n.pid = m->pid;
    n.degraded = master_degraded(m);
    n.parked = m->parked;
    n.generation = g->number;
    for (enum role role = ROLE_HTTP; role < ROLE_COUNT; role++)
        n.target[role] = g->target[role];
    for (; n.n_listen < g->listen.n; n.n_listen++) {
        copy(n.listen[n.n_listen].name, sizeof n.listen[0].name, g->listen.v[n.n_listen].l.name);
        n.listen[n.n_listen].admin = listen_is_admin(&g->listen.v[n.n_listen]);
    }
    copy(n.version, sizeof n.version, RAGD_VERSION);
    copy(n.phase, sizeof n.phase, master_phase_name(m->phase));
    copy(n.config, sizeof n.config, g->cfg->file ? g->cfg->file : "");
    copy(n.sha256, sizeof n.sha256, g->sha256);
    n.reload = m->reload.last;
    n.upgrade = m->upgrade.last;
    note_write(m->sb, &n);
}

void publish(struct master *m)
{
    publish_note(m);
    crew_for_each (w, &m->crew)
        if (w->role != ROLE_MASTER && m->sb->slot[w->slot].failures != w->failures) /* never taken: not even touched */
            m->sb->slot[w->slot].failures = w->failures;
}
