#include "worker/vector/vcompact.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SLICE = 16 << 20 };

void vcompact_begin(struct vcompact *c, struct vview *v, const char *path, const char *tmp)
{
    *c = (struct vcompact){.view = vview_ref(v), .path = path, .tmp = tmp};
    c->fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (c->fd < 0)
        c->error = errno;
    vout_begin(&c->out, c->fd, VFILE_DATA);
}

static void add_entry(struct vcompact *c, const struct vfile_entry *e)
{
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 1024;
        c->entry = realloc(c->entry, c->cap * sizeof *c->entry);
        if (!c->entry)
            abort();
    }
    c->entry[c->n++] = *e;
}

/* What is damaged is left out: it is missing then, and said to be. */
static void copy_codes(struct vcompact *c)
{
    uint64_t stop = vout_at(&c->out) + SLICE;
    const struct vfile_entry *e = NULL;
    while (vout_at(&c->out) < stop && (e = vview_next(c->view, &c->at, INT64_MIN))) {
        struct vfile_entry new = *e;
        if (!vview_sound(c->view, e)) {
            c->lost++;
            continue;
        }
        new.codes = vout_at(&c->out);
        new.floats = e->floats; /* still of the old file */
        vout_add(&c->out, c->view->map->base + e->codes, vfile_codes_bytes(c->view->map->dim, e->n));
        add_entry(c, &new);
    }
    if (!e && vout_at(&c->out) < stop)
        c->phase = VCOMPACT_FLOATS;
}

static void copy_floats(struct vcompact *c)
{
    uint64_t stop = vout_at(&c->out) + SLICE;
    for (; c->next < c->n && vout_at(&c->out) < stop; c->next++) {
        struct vfile_entry *e = &c->entry[c->next];
        uint64_t from = e->floats, bytes = vfile_floats_bytes(c->view->map->dim, e->n);
        e->floats = vout_at(&c->out);
        vout_add(&c->out, c->view->map->base + from, bytes);
        c->commit.points += e->n;
    }
    if (c->next == c->n)
        c->phase = VCOMPACT_FINISH;
}

static int write_directory(struct vcompact *c)
{
    struct vfile_record r = {.kind = VFILE_DIRECTORY, .n = c->n, .seq = 1};
    uint64_t at = vout_at(&c->out);
    c->commit.living = at - VFILE_DATA;
    vout_flush(&c->out);
    vsum_init(&c->out.sum);
    c->out.at = at + sizeof r;
    vout_add(&c->out, c->entry, c->n * sizeof *c->entry);
    vout_fill(&c->out);
    vout_flush(&c->out);
    r.body_sum = vsum_end(&c->out.sum);
    r.bytes = vout_at(&c->out) - at;
    errno = c->out.error;
    if (c->out.error || vfile_write_head(c->fd, at, &r) != 0)
        return -1;
    c->commit.seq = 1;
    c->commit.directory = at;
    c->commit.tail = c->commit.end = vout_at(&c->out);
    return 0;
}

static void finish(struct vcompact *c, const struct vfile_header *h)
{
    if (write_directory(c) != 0 || vfile_write_header(c->fd, h->dim, &h->collection, h->generation) != 0 ||
        vfile_write_commit(c->fd, &c->commit) != 0 || fsync(c->fd) != 0 || rename(c->tmp, c->path) != 0 ||
        vfile_sync_name(c->path) != 0) {
        c->error = errno ? errno : EIO;
        return;
    }
    c->phase = VCOMPACT_DONE;
}

void vcompact_step(void *compact)
{
    struct vcompact *c = compact;
    if (c->error)
        return;
    if (c->phase == VCOMPACT_CODES)
        copy_codes(c);
    else if (c->phase == VCOMPACT_FLOATS)
        copy_floats(c);
    else
        finish(c, (const struct vfile_header *)(const void *)c->view->map->base);
    if (c->out.error && !c->error)
        c->error = c->out.error;
}

void vcompact_end(struct vcompact *c)
{
    vout_end(&c->out);
    free(c->entry);
    if (c->fd >= 0)
        close(c->fd);
    if (c->phase != VCOMPACT_DONE)
        unlink(c->tmp);
    vview_unref(c->view);
}
