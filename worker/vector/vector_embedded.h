/* What the files of the embedded index share: vector_embedded.c reads, vector_embedded_write.c writes, and
 * vector_embedded_stray.c finds what is left over. */
#pragma once
#include "common/list.h"
#include "worker/vector/vector.h"
#include "worker/vector/vview.h"

struct embedded {
    struct vectors base;
    char *dir; /* vectors.path */
    int64_t max_bytes;
    struct list spaces; /* struct vspace, the last used first */
    size_t n_spaces;
};

struct vspace {
    struct list link;
    struct uuid collection;
    int64_t generation;
    struct vview *view; /* NULL: not looked at, not there, or damaged */
    bool damaged;       /* and has been said to be */
};

static inline struct embedded *embedded_of(struct vectors *v)
{
    return (struct embedded *)v;
}

/* DIR/COLLECTION.GENERATION.vec, on the heap. */
char *embedded_path(const struct embedded *m, const struct vector_space *s, const char *suffix);
/* The newest view, which the caller gives back with vview_unref(); NULL when the space is not there or damaged. */
suspends must_use int embedded_view(struct embedded *m, const struct vector_space *s, struct vview **out, bool *damaged,
                                    struct err *e);
must_use int embedded_same_dim(const struct vview *v, const struct vector_space *s, struct err *e);
void embedded_forget(struct embedded *m, const struct vector_space *s);
must_use int embedded_make_dir(const struct embedded *m, struct err *e);
/* The fiber was cancelled, or its time is up. */
int embedded_ended(struct err *e);

suspends int embedded_put(struct vectors *, const struct vector_space *, const struct vector_document *, struct err *);
suspends int embedded_remove(struct vectors *, const struct vector_space *, const int64_t *document_no, size_t n,
                             struct err *);
suspends int embedded_drop(struct vectors *, const struct vector_space *, struct err *);
suspends int embedded_stray(struct vectors *, const struct vector_space *known, size_t n, struct vector_space *out,
                            bool *found, struct err *);
