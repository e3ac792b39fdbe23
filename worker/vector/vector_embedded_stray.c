/* What is in the directory of the embedded index, and belongs to nobody: the verb `stray`. A name is ours only if it is,
 * letter for letter, one that we would give. */
#include "worker/vector/vector_embedded.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct look {
    const struct embedded *m;
    const struct vector_space *known;
    size_t n;
    struct vector_space *out;
    bool found;
    int error; /* errno */
};

static bool space_of(const struct embedded *m, const char *name, struct vector_space *s)
{
    size_t dir = strlen(m->dir) + 1;
    long long generation;
    *s = (struct vector_space){0};
    if (strlen(name) <= UUID_TEXT_LEN || !uuid_parse((struct str){name, UUID_TEXT_LEN}, &s->collection) ||
        sscanf(name + UUID_TEXT_LEN, ".%lld.vec", &generation) != 1 || generation < 1)
        return false;
    s->generation = generation;
    char *path = embedded_path(m, s, "vec");
    bool same = strcmp(path + dir, name) == 0;
    free(path);
    return same;
}

static bool is_known(const struct look *l, const struct vector_space *s)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->known[i].generation == s->generation && uuid_eq(&l->known[i].collection, &s->collection))
            return true;
    return false;
}

static void look(void *arg)
{
    struct look *l = arg;
    struct vector_space s;
    DIR *d = opendir(l->m->dir);
    const struct dirent *entry;
    if (!d) {
        l->error = errno == ENOENT ? 0 : errno; /* nothing has been written yet */
        return;
    }
    for (errno = 0; !l->found && (entry = readdir(d)) != NULL; errno = 0)
        if (space_of(l->m, entry->d_name, &s) && !is_known(l, &s)) {
            *l->out = s;
            l->found = true;
        }
    if (!l->found)
        l->error = errno;
    closedir(d);
}

suspends int embedded_stray(struct vectors *v, const struct vector_space *known, size_t n, struct vector_space *out,
                            bool *found, struct err *e)
{
    struct look l = {.m = embedded_of(v), .known = known, .n = n, .out = out};
    fiber_blocking(look, &l);
    *found = l.found;
    if (l.error == 0)
        return 0;
    errno = l.error;
    err_errno(e, "The directory of the vector index cannot be read");
    return err_log(e, "%s", l.m->dir);
}
