#include "master/fibers.h"
#include "common/channel.h"
#include "common/clock.h"
#include "master/master.h"
#include <stdlib.h>
#include <unistd.h>

enum { PATIENCE_MS = 3000, TOTAL_MAX = 1 << 20 };

struct answer {
    unsigned slot;
    pid_t pid;
    char *text; /* NULL: none yet */
};

struct fibers {
    uint32_t serial;
    int64_t deadline;
    bool over;
    int n;
    struct answer v[];
};

void fibers_free(struct master *m)
{
    for (int i = 0; m->fibers && i < m->fibers->n; i++)
        free(m->fibers->v[i].text);
    free(m->fibers);
    m->fibers = NULL;
}

void fibers_ask(struct master *m)
{
    if (m->fibers && !fibers_over(m))
        return;
    fibers_free(m);
    struct fibers *f = calloc(1, sizeof *f + m->crew.n * sizeof *f->v);
    if (!f)
        abort();
    f->serial = ++m->order;
    f->deadline = clock_ns() + PATIENCE_MS * MS;
    for (unsigned i = 0; i < m->crew.n; i++) {
        const struct worker *w = &m->crew.v[i];
        if (!w->pid)
            continue;
        f->v[f->n++] = (struct answer){.slot = i, .pid = w->pid};
        if (channel_send(w->channel, CHANNEL_FIBERS, f->serial, STR(""), -1) != 0)
            continue; /* its queue is full, or it is gone: then it does not answer */
    }
    m->fibers = f;
}

static void collect(const struct fibers *f, struct answer *a, const struct worker *w)
{
    static char text[CHANNEL_TEXT_MAX];
    struct channel_message msg;
    size_t max = (size_t)(TOTAL_MAX / f->n);
    while (channel_receive(w->channel, text, &msg) > 0) { /* late answers to former rounds, too */
        if (msg.fd >= 0)
            close(msg.fd);
        if (msg.kind != CHANNEL_FIBERS || msg.serial != f->serial || a->text)
            continue;
        size_t n = msg.text.n < max ? msg.text.n : max;
        a->text = malloc(n + 1);
        if (!a->text)
            abort();
        str_copyz(a->text, n + 1, msg.text);
        str_utf8_fix(a->text);
    }
}

bool fibers_over(struct master *m)
{
    struct fibers *f = m->fibers;
    if (f->over)
        return true;
    f->over = true;
    for (int i = 0; i < f->n; i++) {
        struct answer *a = &f->v[i];
        const struct worker *w = &m->crew.v[a->slot];
        if (a->text || w->pid != a->pid) /* what has died meanwhile is not waited for */
            continue;
        collect(f, a, w);
        f->over = f->over && a->text;
    }
    f->over = f->over || clock_ns() >= f->deadline;
    return f->over;
}

json_t *fibers_json(const struct master *m)
{
    json_t *all = json_array();
    for (int i = 0; i < m->fibers->n; i++) {
        const struct answer *a = &m->fibers->v[i];
        json_array_append_new(all,
                              json_pack("{s:i,s:s,s:i,s:s?}", "slot", (int)a->slot, "role",
                                        role_name(m->crew.v[a->slot].role), "pid", (int)a->pid, "fibers", a->text));
    }
    return all;
}
