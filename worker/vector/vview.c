#include "worker/vector/vview.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAP_MIN = 16 << 20,
    LARGE = 64 << 20, /* bytes */
    PIECE = 16 << 20, /* that are warmed at a time */
    GAP = 64 << 10,
};

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

/* ---- the mapping ---- */

static void map_unref(struct vmap *m)
{
    if (!m || --m->refs > 0)
        return;
    munmap((void *)(uintptr_t)m->base, m->mapped);
    close(m->fd);
    free(m);
}

/* Takes the descriptor. `size` is at least VFILE_DATA. */
static struct vmap *map_new(int fd, const struct stat *st)
{
    size_t room = (size_t)st->st_size * 2 < MAP_MIN ? MAP_MIN : (size_t)st->st_size * 2;
    room = (room + VFILE_PAGE - 1) / VFILE_PAGE * VFILE_PAGE;
    void *base = mmap(NULL, room, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return NULL;
    struct vmap *m = must(malloc(sizeof *m));
    *m = (struct vmap){.refs = 1, .fd = fd, .dev = st->st_dev, .ino = st->st_ino, .base = base, .mapped = room};
    fiber_queue_init(&m->waiting);
    return m;
}

/* ---- from the file to a view ---- */

/* The body of a whole record, or NULL. */
static const char *record_at(const struct vmap *m, uint64_t at, uint64_t end, struct vfile_record *r)
{
    if (at > end || end - at < sizeof *r)
        return NULL;
    memcpy(r, m->base + at, sizeof *r);
    return vfile_record_ok(r, at, end) ? m->base + at + sizeof *r : NULL;
}

static bool load_directory(struct vview *v)
{
    struct vfile_record r;
    if (!v->at.directory)
        return true;
    const char *body = record_at(v->map, v->at.directory, v->at.end, &r);
    uint64_t room = body ? r.bytes - sizeof r : 0;
    if (!body || r.kind != VFILE_DIRECTORY || r.n > room / sizeof(struct vfile_entry) ||
        vsum_of(body, room) != r.body_sum)
        return false;
    v->directory = (const struct vfile_entry *)(const void *)body;
    v->n_directory = r.n;
    return true;
}

struct fresh { /* tail entries in the order in which they were written */
    struct vfile_entry *e;
    size_t n, cap;
};

static void fresh_add(struct fresh *f, const struct vfile_entry *e)
{
    if (f->n == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 16;
        f->e = must(realloc(f->e, f->cap * sizeof *f->e));
    }
    f->e[f->n++] = *e;
}

static bool walk_record(const struct vview *v, const struct vfile_record *r, uint64_t at, const char *body,
                        struct fresh *f)
{
    uint32_t dim = v->map->dim;
    if (r->kind == VFILE_PUT) {
        if (r->n > VFILE_POINTS_MAX ||
            r->bytes != sizeof *r + vfile_codes_bytes(dim, r->n) + vfile_floats_bytes(dim, r->n))
            return false;
        uint64_t codes = at + sizeof *r;
        fresh_add(f, &(struct vfile_entry){.document_no = r->document_no,
                                           .content_version = r->content_version,
                                           .n = r->n,
                                           .codes = codes,
                                           .floats = codes + vfile_codes_bytes(dim, r->n),
                                           .sum = r->body_sum});
        return true;
    }
    if (r->kind != VFILE_REMOVE || r->n > (r->bytes - sizeof *r) / sizeof(int64_t) ||
        vsum_of(body, r->bytes - sizeof *r) != r->body_sum)
        return false;
    for (uint64_t i = 0; i < r->n; i++) {
        struct vfile_entry e = {0};
        memcpy(&e.document_no, body + i * sizeof e.document_no, sizeof e.document_no);
        fresh_add(f, &e);
    }
    return true;
}

static bool walk(const struct vview *v, uint64_t from, struct fresh *f)
{
    struct vfile_record r;
    while (from < v->at.end) {
        const char *body = record_at(v->map, from, v->at.end, &r);
        if (!body || !walk_record(v, &r, from, body, f))
            return false;
        from += r.bytes;
    }
    return true;
}

/* Later ones have higher offsets, but a removal has none: so the place in the array decides. */
struct placed {
    struct vfile_entry e;
    size_t place;
};

static int placed_order(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    if (x->e.document_no != y->e.document_no)
        return x->e.document_no < y->e.document_no ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

/* One entry a document, the last, ascending. */
static void settle(struct fresh *f)
{
    struct placed *p = must(malloc((f->n + 1) * sizeof *p));
    size_t k = 0;
    for (size_t i = 0; i < f->n; i++)
        p[i] = (struct placed){f->e[i], i};
    qsort(p, f->n, sizeof *p, placed_order);
    for (size_t i = 0; i < f->n; i++)
        if (i + 1 == f->n || p[i].e.document_no != p[i + 1].e.document_no)
            f->e[k++] = p[i].e;
    f->n = k;
    free(p);
}

/* The old tail and what came after it. */
static void merge_tail(struct vview *v, const struct vview *old, struct fresh *f)
{
    size_t i = 0, j = 0, old_n = old ? old->n_tail : 0;
    settle(f);
    v->tail = must(malloc((old_n + f->n + 1) * sizeof *v->tail));
    while (i < old_n || j < f->n) {
        bool take_new = j < f->n && (i == old_n || f->e[j].document_no <= old->tail[i].document_no);
        if (take_new && i < old_n && f->e[j].document_no == old->tail[i].document_no)
            i++;
        v->tail[v->n_tail++] = take_new ? f->e[j++] : old->tail[i++];
    }
}

/* A view of `map` at its commit; NULL when it is damaged. `old`: an earlier view of the same file, or NULL. */
static struct vview *view_new(struct vmap *map, const struct vfile_commit *at, const struct vview *old)
{
    struct vview *v = must(calloc(1, sizeof *v));
    struct fresh f = {0};
    *v = (struct vview){.refs = 1, .map = map, .at = *at};
    map->refs++;
    if (old && (old->at.directory != at->directory || old->at.tail != at->tail || old->at.end > at->end))
        old = NULL;
    bool sound = load_directory(v) && walk(v, old ? old->at.end : at->tail, &f);
    if (sound)
        merge_tail(v, old, &f);
    free(f.e);
    if (sound)
        return v;
    vview_unref(v);
    return NULL;
}

/* ---- finding the file ---- */

static int open_map(const char *path, struct vmap **out, enum vview_state *state)
{
    struct vfile_header h;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *state = VVIEW_ABSENT;
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    if (fstat(fd, &st) != 0)
        goto failed;
    if (st.st_size >= VFILE_DATA) {
        ssize_t n = pread(fd, &h, sizeof h, 0);
        if (n < 0)
            goto failed;
        *state = n == sizeof h && vfile_header_ok(&h) ? VVIEW_FOUND
                 : st.st_size > VFILE_DATA            ? VVIEW_DAMAGED
                                                      : VVIEW_ABSENT;
    }
    if (*state != VVIEW_FOUND) { /* too short: somebody is making it, or died when he did */
        close(fd);
        return 0;
    }
    *out = map_new(fd, &st);
    if (!*out)
        goto failed;
    (*out)->dim = h.dim;
    return 0;
failed:;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static bool same_file(const struct vmap *m, const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && m->dev == st.st_dev && m->ino == st.st_ino;
}

bool vview_is_of(const struct vview *v, const char *path)
{
    return same_file(v->map, path);
}

/* The newest commit of a mapped file. *outgrown: it reaches behind the mapping. */
static int read_commit(const struct vmap *m, struct vfile_commit *out, enum vview_state *state, bool *outgrown)
{
    struct vfile_commit both[2];
    struct stat st;
    if (fstat(m->fd, &st) != 0)
        return -1;
    *state = VVIEW_DAMAGED; /* somebody has cut it, and a look would be fatal */
    if (st.st_size < VFILE_DATA)
        return 0;
    vfile_read_commits(m->base, both);
    if (fstat(m->fd, &st) != 0)
        return -1;
    if (vfile_pick_commit(both, (uint64_t)st.st_size, out)) {
        *outgrown = out->end > m->mapped;
        *state = VVIEW_FOUND;
    } else if (st.st_size == VFILE_DATA) {
        *state = VVIEW_ABSENT;
    }
    return 0;
}

/* Brings *view to what `map` shows. *outgrown: nothing was done, another mapping is needed. */
static int adopt(struct vview **view, struct vmap *map, enum vview_state *state, bool *outgrown)
{
    struct vfile_commit at;
    struct vview *old = *view, *v = NULL;
    *outgrown = false;
    if (read_commit(map, &at, state, outgrown) != 0)
        return -1;
    if (*outgrown || (*state == VVIEW_FOUND && old && old->map == map && old->at.seq == at.seq))
        return 0;
    if (*state == VVIEW_FOUND) {
        bool related = old && old->map->ino == map->ino && old->map->dev == map->dev;
        v = view_new(map, &at, related ? old : NULL);
        if (!v)
            *state = VVIEW_DAMAGED;
    }
    *view = v;
    vview_unref(old);
    return 0;
}

static void forget(struct vview **view)
{
    int saved = errno;
    vview_unref(*view);
    *view = NULL;
    errno = saved;
}

int vview_refresh(struct vview **view, const char *path, enum vview_state *state)
{
    struct vmap *map = NULL;
    bool outgrown = true;
    if (*view && same_file((*view)->map, path)) {
        map = (*view)->map;
        map->refs++;
        if (adopt(view, map, state, &outgrown) != 0)
            goto failed;
    }
    while (outgrown) { /* a mapping has twice the room that it needs: once is enough, but for a racing giant */
        map_unref(map);
        map = NULL;
        if (open_map(path, &map, state) != 0)
            goto failed;
        if (!map) {
            forget(view);
            return 0;
        }
        if (adopt(view, map, state, &outgrown) != 0)
            goto failed;
    }
    map_unref(map);
    if (*view)
        vview_ref(*view);
    return 0;
failed:
    forget(view);
    int saved = errno;
    map_unref(map);
    errno = saved;
    return -1;
}

struct vview *vview_ref(struct vview *v)
{
    v->refs++;
    return v;
}

void vview_unref(struct vview *v)
{
    if (!v || --v->refs > 0)
        return;
    map_unref(v->map);
    free(v->tail);
    free(v);
}

/* ---- looking at it ---- */

/* The first of `e` at or behind `i` with a number >= no. Near ones are found near. */
static size_t seek(const struct vfile_entry *e, size_t n, size_t i, int64_t no)
{
    size_t step = 1, to = i;
    while (to < n && e[to].document_no < no) {
        i = to + 1;
        to = n - to > step ? to + step : n;
        step *= 2;
    }
    while (i < to) {
        size_t mid = i + (to - i) / 2;
        if (e[mid].document_no < no)
            i = mid + 1;
        else
            to = mid;
    }
    return i;
}

const struct vfile_entry *vview_next(const struct vview *v, struct vcursor *c, int64_t from)
{
    c->directory = seek(v->directory, v->n_directory, c->directory, from);
    c->tail = seek(v->tail, v->n_tail, c->tail, from);
    for (;;) {
        const struct vfile_entry *old = c->directory < v->n_directory ? &v->directory[c->directory] : NULL;
        const struct vfile_entry *new = c->tail < v->n_tail ? &v->tail[c->tail] : NULL;
        if (!old && !new)
            return NULL;
        if (old && (!new || old->document_no < new->document_no)) {
            c->directory++;
            return old;
        }
        c->tail++;
        if (old && old->document_no == new->document_no)
            c->directory++;
        if (new->codes)
            return new;
    }
}

const struct vfile_entry *vview_find(const struct vview *v, int64_t document_no)
{
    struct vcursor c = {0};
    const struct vfile_entry *e = vview_next(v, &c, document_no);
    return e && e->document_no == document_no ? e : NULL;
}

static bool within(const struct vview *v, uint64_t at, uint64_t bytes)
{
    return at >= VFILE_DATA && at % VFILE_ALIGN == 0 && at <= v->at.end && bytes <= v->at.end - at;
}

bool vview_points(const struct vview *v, const struct vfile_entry *e, const int8_t **codes, const float **scales,
                  const float **floats)
{
    uint32_t dim = v->map->dim;
    if (e->n > VFILE_POINTS_MAX || !within(v, e->codes, vfile_codes_bytes(dim, e->n)) ||
        !within(v, e->floats, vfile_floats_bytes(dim, e->n)))
        return false;
    *codes = (const int8_t *)v->map->base + e->codes;
    *scales = (const float *)(const void *)(*codes + e->n * vfile_stride(dim));
    *floats = (const float *)(const void *)(v->map->base + e->floats);
    return true;
}

bool vview_sound(const struct vview *v, const struct vfile_entry *e)
{
    const int8_t *codes;
    const float *scales, *floats;
    struct vsum s;
    if (!vview_points(v, e, &codes, &scales, &floats))
        return false;
    vsum_init(&s);
    vsum_add(&s, codes, vfile_codes_bytes(v->map->dim, e->n));
    vsum_add(&s, floats, vfile_floats_bytes(v->map->dim, e->n));
    return vsum_end(&s) == e->sum;
}

/* ---- warming ---- */

bool vview_large(const struct vview *v)
{
    return v->at.end > LARGE;
}

/* Without the advice (Linux before 5.14) they are at least on their way. Failing is no harm: the scan waits itself. */
static void populate(const struct vview *v, uint64_t from, uint64_t to)
{
    from = from / VFILE_PAGE * VFILE_PAGE;
    char *at = (char *)(uintptr_t)v->map->base + from;
#ifdef MADV_POPULATE_READ
    if (madvise(at, to - from, MADV_POPULATE_READ) == 0)
        return;
#endif
    madvise(at, to - from, MADV_WILLNEED);
}

/* Codes that lie side by side, or nearly so, are read together. */
static void warm_codes(struct vwarming *w)
{
    const struct vview *v = w->view;
    const struct vfile_entry *e;
    uint64_t from = 0, to = 0, most = w->read + PIECE;
    while (w->read < most && (e = vview_next(v, &w->at, w->from))) {
        uint64_t bytes = e->n > VFILE_POINTS_MAX ? 0 : vfile_codes_bytes(v->map->dim, e->n);
        w->read += bytes + sizeof *e;
        w->from = e->document_no < INT64_MAX ? e->document_no + 1 : INT64_MAX;
        if (!within(v, e->codes, bytes))
            continue; /* a scan will say so */
        bool near = e->codes >= from && e->codes <= to + GAP && e->codes + bytes - from <= PIECE;
        if (to && !near)
            populate(v, from, to);
        from = to && near ? from : e->codes;
        to = to && near && to > e->codes + bytes ? to : e->codes + bytes;
    }
    if (to)
        populate(v, from, to);
    w->done = w->read < most;
}

void vview_warm(void *warming)
{
    struct vwarming *w = warming;
    uint64_t to = w->read + PIECE;
    if (vview_large(w->view)) {
        warm_codes(w);
        return;
    }
    to = to < w->view->at.end ? to : w->view->at.end;
    populate(w->view, w->read, to);
    w->read = to;
    w->done = to == w->view->at.end;
}
