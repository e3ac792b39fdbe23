/* Files of the embedded vector index as a broken disk, or somebody else, might leave them. The input is a header, a
 * commit and what follows the three first pages; checksums are set right, for they would keep nearly everything out.
 * Whatever the file says: it is opened, listed, searched and compacted without a look outside of it. */
#include "worker/vector/vcompact.h"
#include "worker/vector/vscan.h"
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD = 64, STEPS = 1000 };

static char dir[64], path[96], tmp[96], done[96];

static void remove_dir(void)
{
    rmdir(dir);
}

static void make_dir(void)
{
    if (*dir)
        return;
    atexit(remove_dir);
    snprintf(dir, sizeof dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/ragd-fuzz.XXXXXX" : "/tmp/ragd-fuzz.XXXXXX");
    if (!mkdtemp(dir))
        abort();
    snprintf(path, sizeof path, "%s/vec", dir);
    snprintf(tmp, sizeof tmp, "%s/new", dir);
    snprintf(done, sizeof done, "%s/done", dir);
}

/* Seals each record from `at` on, and the bodies that are checked. */
static void seal_records(char *file, uint64_t at, uint64_t end)
{
    struct vfile_record r;
    while (at <= end && end - at >= sizeof r) {
        memcpy(&r, file + at, sizeof r);
        if (r.bytes < sizeof r || r.bytes % VFILE_ALIGN || r.bytes > end - at)
            return;
        if (r.kind != VFILE_PUT)
            r.body_sum = vsum_of(file + at + sizeof r, r.bytes - sizeof r);
        vsum_seal(&r, sizeof r);
        memcpy(file + at, &r, sizeof r);
        at += r.bytes;
    }
}

static size_t make_file(const uint8_t *data, size_t size, char **out)
{
    size_t n = VFILE_DATA + (size - 2 * HEAD);
    char *file = calloc(1, n);
    struct vfile_commit c;
    assert(file);
    memcpy(file, data, HEAD);
    vsum_seal(file, HEAD);
    memcpy(&c, data + HEAD, HEAD);
    memcpy(file + VFILE_DATA, data + 2 * HEAD, size - 2 * HEAD);
    if (c.end <= n && c.end % VFILE_ALIGN == 0) {
        if (c.directory % VFILE_ALIGN == 0 && c.directory >= VFILE_DATA)
            seal_records(file, c.directory, c.end);
        if (c.tail % VFILE_ALIGN == 0 && c.tail >= VFILE_DATA)
            seal_records(file, c.tail, c.end);
    }
    c.seq |= 1;
    vsum_seal(&c, sizeof c);
    memcpy(file + VFILE_PAGE, &c, sizeof c);
    *out = file;
    return n;
}

static void look(struct vview *v)
{
    struct arena a = {0};
    struct vcursor at = {0};
    struct vscan s;
    struct vector_hit *hit;
    size_t n = 0;
    float *query = arena_zalloc(&a, v->map->dim * sizeof *query);
    int64_t allowed[] = {1, 2, 3, 100};
    query[0] = 1;
    for (int64_t from = 0; n < STEPS && vview_next(v, &at, from); from += 3)
        n++;
    vview_find(v, 2);
    struct vwarming warming = {.view = v};
    for (int step = 0; step < STEPS && !warming.done; step++)
        vview_warm(&warming);
    for (int i = 0; i < 2; i++) {
        struct vector_query q = {.v = query, .k = 5, .allowed = i ? allowed : NULL, .n_allowed = 4};
        int rc = 0;
        vscan_begin(&s, &a, v, &q, NULL);
        for (int step = 0; step < STEPS && rc == 0; step++)
            rc = vscan_step(&s, 4096);
        if (rc < 0)
            continue;
        vscan_end(&s, &a, &hit, &n);
        assert(n <= 5);
    }
    arena_fini(&a);
}

static void compact(struct vview *v)
{
    struct vcompact c;
    uint64_t bytes = 0;
    struct vcursor at = {0};
    const struct vfile_entry *e;
    while ((e = vview_next(v, &at, INT64_MIN)) && bytes < 1 << 20) /* entries may all name the same bytes */
        bytes += e->n <= VFILE_POINTS_MAX ? vfile_floats_bytes(v->map->dim, e->n) : 0;
    if (e)
        return;
    vcompact_begin(&c, v, done, tmp);
    while (!c.error && c.phase != VCOMPACT_DONE)
        vcompact_step(&c);
    vcompact_end(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vview *v = NULL;
    enum vview_state state;
    char *file;
    if (size < 2 * HEAD || size > 1 << 16)
        return -1;
    make_dir();
    size_t n = make_file(data, size, &file);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert(fd >= 0 && write(fd, file, n) == (ssize_t)n);
    close(fd);
    free(file);
    int rc = vview_refresh(&v, path, &state);
    assert(rc == 0 && (state == VVIEW_FOUND) == (v != NULL));
    if (v) {
        look(v);
        compact(v);
        vview_unref(v);
        vview_unref(v);
    }
    unlink(path);
    unlink(done);
    return 0;
}
