/* What one process sees of the file of a space: a read-only mapping, and the documents that live at one commit. A view
 * never changes and is counted, so that a search may wait in the middle while others write, compact or drop. Nothing
 * that is read from the file is trusted. Owned by vector_embedded.c; all on the loop's thread. */
#pragma once
#include "worker/fiber/fiber.h"
#include "worker/vector/vfile.h"
#include <sys/types.h>

/* Whether a search may look at a mapping without waiting for the disk. */
enum vheat {
    VHEAT_COLD,    /* nobody has read it */
    VHEAT_WARMING, /* somebody does: the others wait for him */
    VHEAT_WARM
};

struct vmap {
    int refs, fd;
    dev_t dev;
    ino_t ino;
    const char *base;
    size_t mapped; /* more than the file has, so that growing rarely needs another mapping */
    enum vheat heat;
    int64_t warmed;             /* documents below this number have been read, of a large file */
    struct fiber_queue waiting; /* for the one that warms it */
    uint32_t dim;
};

struct vview {
    int refs;
    struct vmap *map;
    struct vfile_commit at;
    const struct vfile_entry *directory; /* in the mapping, ascending */
    size_t n_directory;
    struct vfile_entry *tail; /* newer, ascending, one a document; codes = 0: removed */
    size_t n_tail;
};

enum vview_state { VVIEW_ABSENT, VVIEW_FOUND, VVIEW_DAMAGED };

/* Brings *view, which may be NULL, to the newest commit of the file at `path`; for VVIEW_FOUND the caller has a
 * reference more. On VVIEW_ABSENT and VVIEW_DAMAGED *view becomes NULL. -1 with errno when the file cannot be read. */
int vview_refresh(struct vview **view, const char *path, enum vview_state *state);
bool vview_is_of(const struct vview *v, const char *path); /* nobody has put another file there */
struct vview *vview_ref(struct vview *v);
void vview_unref(struct vview *v); /* NULL accepted */

/* A walk over the living documents, ascending. Starts zeroed. */
struct vcursor {
    size_t directory, tail;
};
/* The next one with a number >= from, NULL at the end. */
const struct vfile_entry *vview_next(const struct vview *v, struct vcursor *c, int64_t from);
const struct vfile_entry *vview_find(const struct vview *v, int64_t document_no); /* NULL: not there */

/* Where the points of an entry are; false when it points out of the file. */
bool vview_points(const struct vview *v, const struct vfile_entry *e, const int8_t **codes, const float **scales,
                  const float **floats);
bool vview_sound(const struct vview *v, const struct vfile_entry *e); /* it does not, and its sum is right */

/* Reads what a scan looks at, so that it meets that in memory: all codes, and the floats, too, of a file that is not large.
 * Blocks: for a helper thread, a piece at a time, until `done`. Starts with the view and map->warmed, where one that was
 * given up goes on. */
struct vwarming {
    const struct vview *view;
    int64_t from; /* document */
    struct vcursor at;
    uint64_t read; /* bytes, so far */
    bool done;
};
void vview_warm(void *warming);
/* Its floats may have to be read from the disk. */
bool vview_large(const struct vview *v);
