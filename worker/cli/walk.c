#include "worker/cli/walk.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A folder to be read. Parents stay in the list, so that a link to one of them is known as a loop. */
struct folder {
    struct str path;
    dev_t dev;
    ino_t ino;
    size_t parent; /* index + 1; 0: none */
};

struct folders {
    struct folder *v;
    size_t n, cap;
    size_t *table; /* open addressing by (dev, ino): index + 1 */
    size_t table_size;
};

static void visit(struct walk *w, struct folders *seen, struct str path, size_t parent, bool named);
static void read_folder(struct walk *w, struct folders *seen, size_t index);

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

static void add_file(struct walk *w, struct str path, int64_t bytes, const char *refusal, bool named)
{
    w->file = grow(w->file, w->n, &w->cap, sizeof *w->file);
    w->file[w->n++] = (struct walk_file){.path = path, .refusal = refusal, .bytes = bytes, .named = named};
}

void walk_add(struct walk *w, const char *path)
{
    struct folders seen = {0};
    char *real = realpath(path, NULL);
    if (!real) {
        const char *why = errno == ELOOP ? "is a loop of symbolic links" : strerror(errno);
        add_file(w, arena_dup(w->arena, str_of(path)), 0, arena_strdup(w->arena, why), true);
        return;
    }
    visit(w, &seen, arena_dup(w->arena, str_of(real)), 0, true);
    free(real);
    for (size_t i = 0; i < seen.n; i++) /* grows while it is read */
        read_folder(w, &seen, i);
    free(seen.v);
    free(seen.table);
}

void walk_fini(struct walk *w)
{
    free(w->file);
    w->file = NULL;
    w->n = w->cap = 0;
}

static size_t *slot_of(struct folders *f, dev_t dev, ino_t ino)
{
    size_t i = (size_t)(ino * 0x9e3779b97f4a7c15ULL ^ dev) & (f->table_size - 1);
    while (f->table[i] && (f->v[f->table[i] - 1].dev != dev || f->v[f->table[i] - 1].ino != ino))
        i = (i + 1) & (f->table_size - 1);
    return &f->table[i];
}

static void rehash(struct folders *f)
{
    if (f->table_size && f->n * 2 < f->table_size)
        return;
    f->table_size = f->table_size ? f->table_size * 2 : 256;
    free(f->table);
    f->table = calloc(f->table_size, sizeof *f->table);
    if (!f->table)
        abort();
    for (size_t i = 0; i < f->n; i++)
        *slot_of(f, f->v[i].dev, f->v[i].ino) = i + 1;
}

static bool is_ancestor(const struct folders *f, size_t folder, size_t of)
{
    for (; of; of = f->v[of - 1].parent)
        if (of - 1 == folder)
            return true;
    return false;
}

/* `path` is a folder; it is remembered, and read later. */
static void add_folder(struct walk *w, struct folders *f, struct str path, const struct stat *st, size_t parent)
{
    rehash(f);
    size_t *slot = slot_of(f, st->st_dev, st->st_ino);
    if (*slot) {
        const char *refusal =
            is_ancestor(f, *slot - 1, parent)
                ? "is a symbolic link to a folder that holds it: a loop"
                : arena_printf(w->arena, "is the same folder as " STR_FMT, STR_ARG(f->v[*slot - 1].path)).p;
        add_file(w, path, 0, refusal, false);
        return;
    }
    f->v = grow(f->v, f->n, &f->cap, sizeof *f->v);
    f->v[f->n++] = (struct folder){.path = path, .dev = st->st_dev, .ino = st->st_ino, .parent = parent};
    *slot = f->n;
}

static const char *special(mode_t mode)
{
    return S_ISFIFO(mode)   ? "is a named pipe"
           : S_ISSOCK(mode) ? "is a socket"
           : S_ISBLK(mode)  ? "is a block device"
           : S_ISCHR(mode)  ? "is a character device"
                            : "is not a regular file";
}

static void visit(struct walk *w, struct folders *seen, struct str path, size_t parent, bool named)
{
    struct stat st;
    if (stat(path.p, &st) != 0) {
        int why = errno;
        const char *text = why == ELOOP    ? "is a loop of symbolic links"
                           : why == ENOENT ? "is a symbolic link to nothing"
                                           : arena_strdup(w->arena, strerror(why));
        add_file(w, path, 0, text, named);
    } else if (S_ISDIR(st.st_mode)) {
        add_folder(w, seen, path, &st, parent);
    } else if (S_ISREG(st.st_mode)) {
        add_file(w, path, st.st_size, NULL, named);
    } else {
        add_file(w, path, 0, special(st.st_mode), named);
    }
}

static int not_dots(const struct dirent *d)
{
    return strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void read_folder(struct walk *w, struct folders *seen, size_t index)
{
    struct dirent **entry;
    struct str path = seen->v[index].path;
    int n = scandir(path.p, &entry, not_dots, by_name);
    if (n < 0) {
        add_file(w, path, 0, arena_strdup(w->arena, strerror(errno)), index == 0);
        return;
    }
    for (int i = 0; i < n; i++) {
        const char *slash = path.n > 1 ? "/" : "";
        visit(w, seen, arena_printf(w->arena, STR_FMT "%s%s", STR_ARG(path), slash, entry[i]->d_name), index + 1,
              false);
        free(entry[i]);
    }
    free(entry);
}
