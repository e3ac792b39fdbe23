#include "worker/vector/vfile.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

static const char magic[8] = {'r', 'a', 'g', 'd', 'v', 'e', 'c', '\n'};
enum { RECORD_MAGIC = 0x63657672, OUT_BUFFER = 256 * 1024 };

_Static_assert(sizeof(struct vfile_header) == 64 && sizeof(struct vfile_commit) == 64 &&
                   sizeof(struct vfile_record) == 64 && sizeof(struct vfile_entry) == 48,
               "the layout of the file");

/* ---- sums ---- */

#define MULTIPLIER 0x9e3779b97f4a7c15ull

void vsum_init(struct vsum *v)
{
    for (uint64_t i = 0; i < 4; i++)
        v->s[i] = MULTIPLIER * (i + 1);
}

void vsum_add(struct vsum *v, const void *p, size_t n)
{
    struct vsum s = *v;
    assert(n % 32 == 0);
    for (const char *at = p, *end = at + n; at < end; at += 32) {
        uint64_t w[4];
        memcpy(w, at, sizeof w);
        for (int i = 0; i < 4; i++)
            s.s[i] = ((s.s[i] << 29 | s.s[i] >> 35) ^ w[i]) * MULTIPLIER;
    }
    *v = s;
}

uint64_t vsum_end(const struct vsum *v)
{
    uint64_t h = 0;
    for (int i = 0; i < 4; i++) {
        h = (h ^ v->s[i] ^ v->s[i] >> 32) * MULTIPLIER;
        h ^= h >> 29;
    }
    return h;
}

uint64_t vsum_of(const void *p, size_t n)
{
    struct vsum v;
    vsum_init(&v);
    vsum_add(&v, p, n);
    return vsum_end(&v);
}

static uint64_t seal_of(const void *p, size_t n)
{
    char copy[64] = {0};
    assert(n == sizeof copy);
    memcpy(copy, p, n - sizeof(uint64_t));
    return vsum_of(copy, n);
}

void vsum_seal(void *p, size_t n)
{
    uint64_t sum = seal_of(p, n);
    memcpy((char *)p + n - sizeof sum, &sum, sizeof sum);
}

bool vsum_sealed(const void *p, size_t n)
{
    uint64_t sum = seal_of(p, n);
    return memcmp((const char *)p + n - sizeof sum, &sum, sizeof sum) == 0;
}

/* ---- writing ---- */

static int write_all(int fd, const char *p, size_t n, uint64_t at)
{
    while (n > 0) {
        ssize_t done = pwrite(fd, p, n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = done == 0 ? ENOSPC : errno;
            return -1;
        }
        p += done;
        n -= (size_t)done;
        at += (uint64_t)done;
    }
    return 0;
}

static int sync_data(int fd)
{
    int rc;
    do
        rc = fdatasync(fd);
    while (rc != 0 && errno == EINTR);
    return rc;
}

void vout_begin(struct vout *o, int fd, uint64_t at)
{
    *o = (struct vout){.fd = fd, .at = at, .buf = malloc(OUT_BUFFER)};
    if (!o->buf)
        abort();
    vsum_init(&o->sum);
}

static void out_block(struct vout *o, const char *p, size_t n)
{
    vsum_add(&o->sum, p, n);
    if (!o->error && write_all(o->fd, p, n, o->at) != 0)
        o->error = errno;
    o->at += n;
}

void vout_flush(struct vout *o)
{
    assert(o->n % VFILE_ALIGN == 0);
    out_block(o, o->buf, o->n);
    o->n = 0;
}

void vout_add(struct vout *o, const void *p, size_t n)
{
    const char *from = p;
    while (n > 0) {
        if (o->n == 0 && n >= OUT_BUFFER) { /* large pieces go past the buffer */
            size_t whole = n / OUT_BUFFER * OUT_BUFFER;
            out_block(o, from, whole);
            from += whole;
            n -= whole;
            continue;
        }
        size_t part = n < OUT_BUFFER - o->n ? n : OUT_BUFFER - o->n;
        memcpy(o->buf + o->n, from, part);
        o->n += part;
        from += part;
        n -= part;
        if (o->n == OUT_BUFFER)
            vout_flush(o);
    }
}

void vout_fill(struct vout *o)
{
    static const char zeros[VFILE_ALIGN];
    vout_add(o, zeros, (size_t)(vfile_align(o->n) - o->n));
}

uint64_t vout_at(const struct vout *o)
{
    return o->at + o->n;
}

void vout_end(struct vout *o)
{
    free(o->buf);
    o->buf = NULL;
}

int vfile_write_head(int fd, uint64_t at, struct vfile_record *r)
{
    r->magic = RECORD_MAGIC;
    vsum_seal(r, sizeof *r);
    return write_all(fd, (const char *)r, sizeof *r, at);
}

/* An odd one is in the first page, so the commit before it is not touched. */
static uint64_t commit_at(uint64_t seq)
{
    return seq % 2 ? VFILE_PAGE : 2 * VFILE_PAGE;
}

int vfile_write_commit(int fd, struct vfile_commit *next)
{
    vsum_seal(next, sizeof *next);
    if (sync_data(fd) != 0 || write_all(fd, (const char *)next, sizeof *next, commit_at(next->seq)) != 0)
        return -1;
    return sync_data(fd);
}

int vfile_write_header(int fd, uint32_t dim, const struct uuid *collection, int64_t generation)
{
    struct vfile_header h = {.format = VFILE_FORMAT, .dim = dim, .collection = *collection, .generation = generation};
    memcpy(h.magic, magic, sizeof magic);
    vsum_seal(&h, sizeof h);
    return write_all(fd, (const char *)&h, sizeof h, 0);
}

int vfile_format(int fd, uint32_t dim, const struct uuid *collection, int64_t generation, struct vfile_commit *first)
{
    *first = (struct vfile_commit){.seq = 1, .end = VFILE_DATA, .tail = VFILE_DATA};
    if (ftruncate(fd, VFILE_DATA) != 0 || /* never shorter, for somebody may have mapped it */
        vfile_write_header(fd, dim, collection, generation) != 0)
        return -1;
    return vfile_write_commit(fd, first);
}

int vfile_sync_name(const char *path)
{
    char copy[PATH_MAX];
    str_copyz(copy, sizeof copy, str_of(path));
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc = fsync(fd), saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

/* ---- reading ---- */

bool vfile_header_ok(const struct vfile_header *h)
{
    return memcmp(h->magic, magic, sizeof magic) == 0 && h->format == VFILE_FORMAT && h->dim >= 1 &&
           h->dim <= VFILE_DIM_MAX && vsum_sealed(h, sizeof *h);
}

static bool commit_ok(const struct vfile_commit *c, uint64_t size)
{
    return vsum_sealed(c, sizeof *c) && c->end >= VFILE_DATA && c->end <= size && c->end % VFILE_ALIGN == 0 &&
           c->tail >= VFILE_DATA && c->tail <= c->end && c->tail % VFILE_ALIGN == 0 &&
           (c->directory == 0 || (c->directory >= VFILE_DATA && c->directory < c->end));
}

void vfile_read_commits(const void *file, struct vfile_commit out[2])
{
    memcpy(&out[0], (const char *)file + VFILE_PAGE, sizeof out[0]);
    memcpy(&out[1], (const char *)file + 2 * VFILE_PAGE, sizeof out[1]);
}

bool vfile_pick_commit(const struct vfile_commit c[2], uint64_t size, struct vfile_commit *out)
{
    const struct vfile_commit *best = NULL;
    for (uint64_t i = 0; i < 2; i++)
        if (commit_ok(&c[i], size) && commit_at(c[i].seq) == (i + 1) * VFILE_PAGE && (!best || c[i].seq > best->seq))
            best = &c[i];
    if (best)
        *out = *best;
    return best != NULL;
}

bool vfile_record_ok(const struct vfile_record *r, uint64_t at, uint64_t end)
{
    return r->magic == RECORD_MAGIC && vsum_sealed(r, sizeof *r) && r->bytes >= sizeof *r &&
           r->bytes % VFILE_ALIGN == 0 && r->bytes <= end - at;
}
