/* The file of one space of the embedded index: how it looks on disk, and how it grows. Used by vview.h (reading) and
 * vector_embedded.c (writing), nobody else.
 *
 * A header that never changes, two commit pages, then pieces that are only ever appended. A commit says how many bytes
 * count. It is written to the two pages in turn, after everything that it speaks of is on the disk: whatever tears, the
 * other page holds the commit before, and what lies behind its end is nobody's. So there is no recovery to run: the
 * next writer writes over the rest. Numbers are little-endian, for the file never leaves its machine.
 *
 *     header | commit | commit | piece | piece | …      piece = record head (64 bytes) + body (a multiple of 64)
 *
 * PUT has all points of a document: codes (int8 vectors, then a scale each), then floats. REMOVE has document numbers.
 * DIRECTORY has an entry for each living document, ascending; readers map it, and keep in memory only what came later
 * (the tail). A compacted file begins with all codes side by side, then all floats, without heads, then a DIRECTORY. */
#pragma once
#include "common/err.h"
#include "common/uuid.h"
#include <stddef.h>

enum {
    VFILE_FORMAT = 1,
    VFILE_PAGE = 4096,
    VFILE_DATA = 3 * VFILE_PAGE, /* where pieces begin */
    VFILE_ALIGN = 64,
    VFILE_CODE_ALIGN = 32, /* codes are filled up with zeros to a multiple of this */
    VFILE_DIM_MAX = 16384,
    VFILE_POINTS_MAX = 1 << 20 /* of one document: an ordinal has 20 bits */
};

struct vfile_header {
    char magic[8];
    uint32_t format, dim;
    struct uuid collection;
    int64_t generation;
    uint64_t unused[2];
    uint64_t sum; /* vsum of all before, as everywhere below */
};

struct vfile_commit {
    uint64_t seq;            /* the higher one counts */
    uint64_t end;            /* bytes of the file that count */
    uint64_t directory;      /* offset of its head; 0 = none yet */
    uint64_t tail;           /* records from here to the end are newer than the directory */
    uint64_t points, living; /* of all documents that live, and their bytes of codes and floats */
    uint64_t scattered;      /* such bytes that did not come from the last compaction, dead or alive */
    uint64_t sum;
};

enum vfile_kind { VFILE_PUT = 1, VFILE_REMOVE, VFILE_DIRECTORY };

struct vfile_record {
    uint32_t magic, kind;
    uint64_t bytes; /* head and body */
    int64_t document_no, content_version;
    uint64_t n;        /* points, numbers or entries */
    uint64_t body_sum; /* of the body */
    uint64_t seq;      /* of the commit that it is part of */
    uint64_t sum;
};

struct vfile_entry {
    int64_t document_no, content_version;
    uint64_t n;     /* points */
    uint64_t codes; /* offset: n × stride bytes, n floats (scales), filled up to 64; 0 = removed */
    uint64_t floats;
    uint64_t sum; /* of codes and floats together */
};

static inline uint64_t vfile_align(uint64_t n)
{
    return (n + VFILE_ALIGN - 1) / VFILE_ALIGN * VFILE_ALIGN;
}
static inline size_t vfile_stride(uint32_t dim)
{
    return (dim + VFILE_CODE_ALIGN - 1) / VFILE_CODE_ALIGN * VFILE_CODE_ALIGN;
}
static inline uint64_t vfile_codes_bytes(uint32_t dim, uint64_t n)
{
    return vfile_align(n * (vfile_stride(dim) + sizeof(float)));
}
static inline uint64_t vfile_floats_bytes(uint32_t dim, uint64_t n)
{
    return vfile_align(n * dim * sizeof(float));
}

/* A checksum against torn writes, not against people: some 10 GB/s. All lengths are multiples of 32. */
struct vsum {
    uint64_t s[4];
};
void vsum_init(struct vsum *v);
void vsum_add(struct vsum *v, const void *p, size_t n);
uint64_t vsum_end(const struct vsum *v);
uint64_t vsum_of(const void *p, size_t n);
/* The sum in the last 8 bytes of a struct: set, and compared. */
void vsum_seal(void *p, size_t n);
bool vsum_sealed(const void *p, size_t n);

/* Buffered writing at the end of a file. The first failure stays, and everything after it does nothing. */
struct vout {
    int fd, error; /* errno */
    uint64_t at;   /* where the buffer goes */
    struct vsum sum;
    char *buf;
    size_t n;
};
void vout_begin(struct vout *o, int fd, uint64_t at);
void vout_add(struct vout *o, const void *p, size_t n);
void vout_fill(struct vout *o); /* zeros up to the next multiple of 64 */
void vout_flush(struct vout *o);
uint64_t vout_at(const struct vout *o); /* offset of the next byte */
void vout_end(struct vout *o);          /* frees; what is not flushed is dropped */

/* A head at `at`, whose body has been written behind it. */
int vfile_write_head(int fd, uint64_t at, struct vfile_record *r);
/* What has been appended becomes part of the file: durable when this returns 0; else errno is set and the commit before
 * still stands, or this one does (a disk that fails to say whether it has written). */
int vfile_write_commit(int fd, struct vfile_commit *next);
/* An empty file, durable but for its name. */
int vfile_format(int fd, uint32_t dim, const struct uuid *collection, int64_t generation, struct vfile_commit *first);
int vfile_write_header(int fd, uint32_t dim, const struct uuid *collection, int64_t generation);
int vfile_sync_name(const char *path); /* the directory entry of `path` */

/* What the first pages say: false when they are not whole. */
bool vfile_header_ok(const struct vfile_header *h);
/* The two commits as they are now; another process may be writing one. */
void vfile_read_commits(const void *file, struct vfile_commit out[2]);
/* The newer whole one; false when there is none. `size`: of the file, learnt after they were read. */
bool vfile_pick_commit(const struct vfile_commit c[2], uint64_t size, struct vfile_commit *out);
bool vfile_record_ok(const struct vfile_record *r, uint64_t at, uint64_t end);
