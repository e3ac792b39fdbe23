/* The files below some paths, each once, in order of their names. A symbolic link to a file is taken as a
 * file. One to a folder is not entered: what it leads to is either below the path anyway, or was not asked for; so there
 * are no loops. What cannot become a document is listed with the reason. */
#pragma once
#include "common/arena.h"

struct walk_file {
    struct str path;     /* absolute, as the file system has it; NUL-terminated */
    const char *refusal; /* NULL: a regular file; else why not */
    bool named;          /* it is one of the paths asked for, not something found below one */
};

struct walk {
    struct arena *arena; /* owns the paths */
    struct walk_file *file;
    size_t n, cap;
};

/* Adds what `path` names. Never fails: what is wrong becomes a refusal. */
void walk_add(struct walk *w, const char *path);
/* Sorts, and drops what was reached by two of the paths. After the last walk_add(). */
void walk_sort(struct walk *w);
void walk_fini(struct walk *w);
