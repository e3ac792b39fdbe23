/* Writing a file of a space anew, with what lives and nothing else: all codes side by side, then all floats, then the
 * directory. Then it takes the old one's name. In slices, each for a helper thread, so that it can be given up between
 * them. Used by vector_embedded.c, which holds the lock of the old file all the time. */
#pragma once
#include "worker/vector/vview.h"

enum vcompact_phase { VCOMPACT_CODES, VCOMPACT_FLOATS, VCOMPACT_FINISH, VCOMPACT_DONE };

struct vcompact {
    struct vview *view;
    const char *path, *tmp; /* the new file's name until it is whole */
    int fd, error;          /* errno of the failure that ended it */
    enum vcompact_phase phase;
    struct vout out;
    struct vcursor at;
    struct vfile_entry *entry; /* of the new file */
    size_t n, cap, next;
    struct vfile_commit commit;
    size_t lost; /* documents whose points were damaged */
};

/* Takes a reference of the view; the paths must stay. */
void vcompact_begin(struct vcompact *c, struct vview *v, const char *path, const char *tmp);
void vcompact_step(void *compact);     /* until phase is VCOMPACT_DONE or error is set */
void vcompact_end(struct vcompact *c); /* removes what is not whole */
