#include "worker/cli/walk.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* Folders that are still to be read: a list instead of a recursion, since depth is not ours to bound. */
struct folders {
    struct str *path;
    size_t n, cap;
};

static void visit(struct walk *w, struct folders *f, struct str path, bool named);
static void read_folder(struct walk *w, struct folders *f, struct str path, bool named);

static void *grow(void *p, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return p;
    *cap = *cap ? *cap * 2 : 64;
    p = reallocarray(p, *cap, size);
    if (!p)
        abort();
    return p;
}

static void add_file(struct walk *w, struct str path, const char *refusal, bool named)
{
    w->file = grow(w->file, w->n, &w->cap, sizeof *w->file);
    w->file[w->n++] = (struct walk_file){.path = path, .refusal = refusal, .named = named};
}

static const char *reason(struct walk *w, int error)
{
    return error == ELOOP ? "is a loop of symbolic links" : arena_strdup(w->arena, strerror(error));
}

void walk_add(struct walk *w, const char *path)
{
    struct folders f = {0};
    char *real = realpath(path, NULL);
    if (!real) {
        add_file(w, arena_dup(w->arena, str_of(path)), reason(w, errno), true);
        return;
    }
    struct str root = arena_dup(w->arena, str_of(real));
    free(real);
    visit(w, &f, root, true);
    while (f.n) {
        struct str next = f.path[--f.n];
        read_folder(w, &f, next, next.p == root.p);
    }
    free(f.path);
}

static int by_path(const void *a, const void *b)
{
    const struct walk_file *x = a, *y = b;
    return strcmp(x->path.p, y->path.p);
}

void walk_sort(struct walk *w)
{
    size_t kept = 0;
    if (w->n)
        qsort(w->file, w->n, sizeof *w->file, by_path);
    for (size_t i = 0; i < w->n; i++) {
        bool again = kept && by_path(&w->file[kept - 1], &w->file[i]) == 0;
        if (again)
            w->file[kept - 1].named |= w->file[i].named;
        else
            w->file[kept++] = w->file[i];
    }
    w->n = kept;
}

void walk_fini(struct walk *w)
{
    free(w->file);
    w->file = NULL;
    w->n = w->cap = 0;
}

static const char *special(mode_t mode)
{
    return S_ISFIFO(mode)   ? "is a named pipe"
           : S_ISSOCK(mode) ? "is a socket"
           : S_ISBLK(mode)  ? "is a block device"
           : S_ISCHR(mode)  ? "is a character device"
                            : "is not a regular file";
}

static void visit(struct walk *w, struct folders *f, struct str path, bool named)
{
    struct stat own, target;
    if (lstat(path.p, &own) != 0) {
        add_file(w, path, reason(w, errno), named);
    } else if (S_ISDIR(own.st_mode)) {
        f->path = grow(f->path, f->n, &f->cap, sizeof *f->path);
        f->path[f->n++] = path;
    } else if (stat(path.p, &target) != 0) {
        add_file(w, path, errno == ENOENT ? "is a symbolic link to nothing" : reason(w, errno), named);
    } else if (S_ISDIR(target.st_mode)) {
        add_file(w, path, "is a symbolic link to a folder; name that folder to take it", named);
    } else {
        add_file(w, path, S_ISREG(target.st_mode) ? NULL : special(target.st_mode), named);
    }
}

static int not_dots(const struct dirent *d)
{
    return strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

static void read_folder(struct walk *w, struct folders *f, struct str path, bool named)
{
    struct dirent **entry;
    int n = scandir(path.p, &entry, not_dots, NULL);
    if (n < 0) {
        add_file(w, path, reason(w, errno), named);
        return;
    }
    for (int i = 0; i < n; i++) {
        const char *slash = path.n > 1 ? "/" : "";
        visit(w, f, arena_printf(w->arena, STR_FMT "%s%s", STR_ARG(path), slash, entry[i]->d_name), false);
        free(entry[i]);
    }
    free(entry);
}
