#include "worker/core/source.h"
#include "worker/core/extract.h"
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads exactly `n` bytes at `from`. 0, or -1 when they are not there any more. */
static int read_at(int fd, char *p, size_t n, int64_t from)
{
    while (n) {
        ssize_t r = pread(fd, p, n, from);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -1;
        if (r == 0) {
            errno = 0; /* shorter than it was */
            return -1;
        }
        p += r;
        n -= (size_t)r;
        from += r;
    }
    return 0;
}

static size_t part_size(const struct source *src, int64_t from)
{
    return (size_t)(src->size - from < STORE_PART ? src->size - from : STORE_PART);
}

static const char *why_not(void)
{
    return errno ? strerror(errno) : "changed while it was read";
}

/* ---- reading ---- */

struct reading {
    struct source *src;
    struct sha256_ctx *hash;
    char *part;
    int64_t at;
    size_t n;
    int rc, saved_errno;
};

/* In a helper thread: a disk may be slow. One part at a time, so that the worker can stop. */
static void read_part(void *arg)
{
    struct reading *r = arg;
    r->rc = read_at(r->src->fd, r->part, r->n, r->at);
    r->saved_errno = errno;
    if (r->rc == 0 && r->hash)
        sha256_add(r->hash, r->part, r->n);
}

static suspends int read_in_parts(struct reading *r)
{
    struct source *src = r->src;
    for (r->at = 0, r->rc = 0; r->at < src->size && r->rc == 0; r->at += STORE_PART) {
        r->n = part_size(src, r->at);
        fiber_blocking(read_part, r);
        if (r->rc == 0 && fiber_check()) {
            r->rc = -1;
            r->saved_errno = ECANCELED;
        }
    }
    errno = r->saved_errno;
    return r->rc;
}

static suspends int hash(struct source *src, struct arena *a)
{
    struct reading r = {.src = src, .hash = sha256_new(), .part = arena_alloc(a, part_size(src, 0))};
    int rc = read_in_parts(&r);
    if (rc == 0) {
        sha256_end(r.hash, &src->sha256);
        if (src->size <= STORE_PART)
            src->inline_bytes = (struct str){r.part, part_size(src, 0)};
    }
    int saved = errno;
    sha256_free(r.hash);
    errno = saved;
    return rc;
}

static int refuse(const char **refusal, const char *word, struct err *e, const char *why)
{
    *refusal = word;
    return err_set(e, ERR_VALIDATION, "%s", why);
}

suspends int source_open(struct source *src, int fd, int64_t limit, struct arena *a, const char **refusal,
                         struct err *e)
{
    struct stat st;
    int rc = -1;
    *src = (struct source){.fd = fd};
    if (fstat(fd, &st) != 0) {
        refuse(refusal, "unreadable", e, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        refuse(refusal, "not_a_file", e, "is not a regular file any more");
    } else if (st.st_size == 0) {
        refuse(refusal, "empty_file", e, "is empty");
    } else if (st.st_size > limit) {
        *refusal = "too_large";
        err_set(e, ERR_VALIDATION, "has %lld bytes, limits.upload is %lld", (long long)st.st_size, (long long)limit);
    } else {
        src->size = st.st_size;
        rc = hash(src, a);
        if (rc < 0)
            refuse(refusal, "unreadable", e, why_not());
    }
    if (rc < 0)
        source_close(src);
    return rc;
}

void source_close(struct source *src)
{
    if (src->fd >= 0)
        close(src->fd);
    src->fd = -1;
}

/* ---- handing over ---- */

/* The parts of a long file, hashed once more: it may have changed since, and then its name would be a lie. */
static suspends int put_parts(const struct source *src, struct store *store, struct arena *a, struct err *e)
{
    struct sha256 again;
    struct source part = *src;
    struct reading r = {.src = &part, .hash = sha256_new(), .part = arena_alloc(a, STORE_PART)};
    int number = 0, rc = 0;
    for (r.at = 0; r.at < src->size && rc == 0; r.at += STORE_PART) {
        r.n = part_size(src, r.at);
        fiber_blocking(read_part, &r);
        errno = r.saved_errno;
        if (r.rc)
            rc = err_set(e, ERR_VALIDATION, "%s", why_not());
        else
            rc = STORE_CALL(store, file_put_part, &src->sha256, number++, (struct str){r.part, r.n}, e);
    }
    if (rc == 0) {
        sha256_end(r.hash, &again);
        if (memcmp(&again, &src->sha256, sizeof again) != 0)
            rc = err_set(e, ERR_VALIDATION, "changed while it was read");
    }
    sha256_free(r.hash);
    return rc;
}

static struct str base_name(struct str path)
{
    size_t i = path.n;
    while (i && path.p[i - 1] != '/')
        i--;
    return str_sub(path, i, SIZE_MAX);
}

static struct str id_of(struct arena *a, struct str path)
{
    struct sha256 hash;
    char hex[SHA256_TEXT_LEN];
    if (path.n <= SOURCE_ID_MAX)
        return path;
    sha256_of(path.p, path.n, &hash);
    sha256_text(&hash, hex);
    return arena_printf(a, "path:sha256:%.*s", SHA256_TEXT_LEN, hex);
}

suspends int source_put(const struct source *src, struct store *store, struct arena *a, const struct uuid *collection,
                        struct str path, struct str metadata, struct store_document *out, enum store_created *what,
                        struct err *e)
{
    struct str external_id = id_of(a, path), name = base_name(path);
    const char *mime = extract_mime_of_name(name);
    struct store_job job;
    bool known = STORE_CALL(store, document_by_external_id, a, collection, external_id, out, e) == 0;
    if (!known && e->code != ERR_NOT_FOUND)
        return -1;
    if (known && memcmp(&out->sha256, &src->sha256, sizeof out->sha256) == 0) {
        *what = STORE_UNCHANGED;
        return 0;
    }
    const struct store_document_new new = {
        .collection = *collection,
        .external_id = external_id,
        .filename = name,
        .title = STR(""),
        .mime = mime ? str_of(mime) : STR("application/octet-stream"),
        .language = STR(""),
        .metadata = known ? STR("") : metadata, /* what a document that is there has stays */
        .tags = STR(""),
        .sha256 = src->sha256,
        .bytes = src->size,
        .inline_bytes = src->inline_bytes.p ? src->inline_bytes : STR(""),
        .on_duplicate = DUP_LINK,
        .by_external_id = true,
    };
    if (!src->inline_bytes.p && put_parts(src, store, a, e))
        return -1;
    return STORE_CALL(store, document_create, a, &new, out, what, &job, e);
}

bool source_passing(enum err_code code)
{
    return code == ERR_NOT_READY || code == ERR_OVERLOADED || code == ERR_BUSY || code == ERR_CONFLICT ||
           code == ERR_DEADLINE;
}

struct str source_external_id(struct arena *a, struct str path)
{
    struct buf b = {0};
    if (str_is_utf8(path))
        return path;
    while (path.n) {
        size_t good = str_utf8_valid_prefix(path);
        buf_add(&b, path.p, good);
        path = str_sub(path, good, SIZE_MAX);
        if (path.n)
            buf_printf(&b, "%%%02X", (unsigned char)path.p[0]);
        path = str_sub(path, 1, SIZE_MAX);
    }
    struct str out = arena_dup(a, buf_view(&b));
    buf_fini(&b);
    return out;
}
