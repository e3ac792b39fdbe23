#include "worker/core/checkup.h"
#include "common/clock.h"
#include "worker/cache/cache.h"
#include "worker/embed/embed.h"
#include "worker/llm/llm.h"
#include "worker/vector/vector.h"
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

static suspends int ask_vectors(const struct backends *b, struct err *e)
{
    return VECTORS_CALL(b->vectors, check, e);
}

static suspends int ask_cache(const struct backends *b, struct err *e)
{
    return cache_ping(b->cache, e);
}

static suspends int ask_embedder(const struct backends *b, struct err *e)
{
    return b->embedder->ops->state(b->embedder, e);
}

static suspends int ask_llm(const struct backends *b, struct err *e)
{
    return b->llm->ops->state(b->llm, e);
}

struct room {
    char path[4096];
    int64_t free; /* bytes */
    int error;    /* errno */
};

/* Where nothing has been written yet, it looks at the directory in which it would be made. */
static void look(void *arg)
{
    struct room *r = arg;
    struct statvfs fs;
    char *at = r->path;
    while (statvfs(at, &fs) != 0) {
        r->error = errno;
        if (errno != ENOENT || strcmp(at, ".") == 0)
            return;
        at = dirname(at);
    }
    r->error = 0;
    r->free = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
}

static struct fiber_queue lookers = {{&lookers.waiting, &lookers.waiting}};
static bool looking;

/* A network's file system may take its time, even for ever: then it costs one helper thread, and not all. */
static suspends int room_for(const char *what, const char *path, int64_t least, struct err *e)
{
    struct room r = {.free = 0};
    if ((size_t)snprintf(r.path, sizeof r.path, "%s", path) >= sizeof r.path)
        return err_set(e, ERR_INTERNAL, "the path of %s is too long", what);
    while (looking)
        if (fiber_queue_wait(&lookers, "its turn to look at the disks") != 0)
            return err_set(e, ERR_DEADLINE, "a file system does not answer");
    looking = true;
    fiber_blocking(look, &r);
    looking = false;
    fiber_queue_wake_one(&lookers);
    errno = r.error;
    if (r.error)
        return err_errno(e, "cannot look at the file system of %s, %s", what, path);
    if (r.free < least)
        return err_set(e, ERR_STORAGE_FULL, "%lld MB are free for %s in %s, less than limits.free_disk",
                       (long long)(r.free >> 20), what, path);
    return 0;
}

static suspends int ask_disk(const struct backends *b, struct err *e)
{
    const char *temporary = getenv("TMPDIR");
    int64_t least = b->cfg->limits_free_disk;
    struct str db = str_of(b->cfg->database_url);
    if (str_eqz(str_cut(&db, ':'), "sqlite") && room_for("the database", db.p, least, e))
        return -1;
    if (room_for("temporary files", temporary && *temporary ? temporary : "/tmp", least, e))
        return -1;
    if (!b->vectors || strcmp(b->vectors->ops->name, "embedded") != 0)
        return 0;
    char *dir = vectors_embedded_dir(b->cfg);
    if (!dir)
        abort();
    int rc = room_for("the vector index", dir, least, e);
    free(dir);
    return rc;
}

struct asking {
    const struct backends *b;
    suspends int (*ask)(const struct backends *b, struct err *e);
    struct checkup *out;
};

static suspends int ask(void *arg)
{
    struct asking *x = arg;
    struct checkup *c = x->out;
    int64_t start = clock_ns(), before = fiber_deadline(fiber_self()), own = start + CHECKUP_MS * MS;
    if (!before || own < before)
        fiber_set_deadline(fiber_self(), own);
    c->ok = x->ask(x->b, &c->why) == 0;
    c->ms = (double)((clock_ns() - start) / 1000) / 1000;
    fiber_set_deadline(fiber_self(), before);
    return 0;
}

suspends void checkup(const struct backends *b, struct checkup out[CHECKUPS])
{
    /* Without an embedder nobody asks the vector index anything. */
    const struct checkup all[CHECKUPS] = {
        [CHECKUP_VECTORS] = {.name = "vectors", .asked = b->vectors && b->embedder},
        [CHECKUP_CACHE] = {.name = "cache", .asked = b->cache},
        [CHECKUP_EMBEDDER] = {.name = "embedder", .asked = b->embedder},
        [CHECKUP_LLM] = {.name = "llm", .asked = b->llm},
        [CHECKUP_DISK] = {.name = "disk", .asked = b->cfg->limits_free_disk > 0},
    };
    const struct asking asking[CHECKUPS] = {
        [CHECKUP_VECTORS] = {b, ask_vectors, &out[CHECKUP_VECTORS]},
        [CHECKUP_CACHE] = {b, ask_cache, &out[CHECKUP_CACHE]},
        [CHECKUP_EMBEDDER] = {b, ask_embedder, &out[CHECKUP_EMBEDDER]},
        [CHECKUP_LLM] = {b, ask_llm, &out[CHECKUP_LLM]},
        [CHECKUP_DISK] = {b, ask_disk, &out[CHECKUP_DISK]},
    };
    struct fiber_task tasks[CHECKUPS];
    size_t n = 0;
    for (int i = 0; i < CHECKUPS; i++) {
        out[i] = all[i];
        if (all[i].asked)
            tasks[n++] = (struct fiber_task){.fn = ask, .arg = (void *)&asking[i]};
    }
    if (n)
        fiber_all(tasks, n);
}
