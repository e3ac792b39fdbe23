/* The files below some paths, in a stable order. Symbolic links are followed; a folder that was visited already, by
 * another name or by a loop, is not entered again. What cannot become a document is listed with the reason. */
#pragma once
#include "common/arena.h"

struct walk_file {
    struct str path;     /* absolute, as the file system has it; NUL-terminated */
    const char *refusal; /* NULL: a regular file; else why not */
    int64_t bytes;
    bool named; /* it is one of the paths asked for, not something found below one */
};

struct walk {
    struct arena *arena; /* owns the paths */
    struct walk_file *file;
    size_t n, cap;
};

/* Adds what `path` names. Never fails: what is wrong becomes a refusal. */
void walk_add(struct walk *w, const char *path);
void walk_fini(struct walk *w);
