#include "worker/core/extract_zip.h"
#include "worker/core/extract_private.h"
#include <minizip/unzip.h>
#include <stdlib.h>

enum {
    ENTRIES_MAX = 20000,
    ENTRY_MAX = 128 << 20,
    TOTAL_MAX = 384 << 20, /* of all that is read, also of an entry that is read again */
    RATIO_MAX = 400,       /* beyond RATIO_FROM; deflate can reach 1032 */
    RATIO_FROM = 4 << 20,
};

struct zip {
    struct source *source;
    unzFile file;
    ZPOS64_T at; /* of the one stream that minizip opens on the bytes */
    size_t total;
};

/* ---- minizip's view of the bytes ---- */

static voidpf io_open(voidpf opaque, const void *name, int mode)
{
    (void)name, (void)mode;
    return opaque;
}

static uLong io_read(voidpf opaque, voidpf stream, void *buf, uLong size)
{
    struct zip *z = opaque;
    (void)stream;
    struct str part = str_sub(z->source->bytes, (size_t)z->at, size);
    if (part.n)
        memcpy(buf, part.p, part.n);
    z->at += part.n;
    return part.n;
}

static ZPOS64_T io_tell(voidpf opaque, voidpf stream)
{
    (void)stream;
    return ((struct zip *)opaque)->at;
}

static long io_seek(voidpf opaque, voidpf stream, ZPOS64_T offset, int origin)
{
    struct zip *z = opaque;
    (void)stream;
    ZPOS64_T n = z->source->bytes.n, base = origin == ZLIB_FILEFUNC_SEEK_SET   ? 0
                                            : origin == ZLIB_FILEFUNC_SEEK_CUR ? z->at
                                                                               : n;
    if (offset > n || base > n - offset)
        return -1;
    z->at = base + offset;
    return 0;
}

static int io_close(voidpf opaque, voidpf stream)
{
    (void)opaque, (void)stream;
    return 0;
}

static int io_error(voidpf opaque, voidpf stream)
{
    (void)opaque, (void)stream;
    return 0;
}

/* ---- the container ---- */

struct zip *zip_open(struct source *s)
{
    struct zip *z = calloc(1, sizeof *z);
    if (!z)
        abort();
    z->source = s;
    zlib_filefunc64_def io = {
        .zopen64_file = io_open,
        .zread_file = io_read,
        .ztell64_file = io_tell,
        .zseek64_file = io_seek,
        .zclose_file = io_close,
        .zerror_file = io_error,
        .opaque = z,
    };
    unz_global_info64 info = {0};
    z->file = unzOpen2_64("", &io);
    if (!z->file || unzGetGlobalInfo64(z->file, &info) != UNZ_OK) {
        refuse(s, "invalid_file", "the ZIP container is damaged or cut off");
    } else if (info.number_entry > ENTRIES_MAX) {
        refuse(s, "invalid_file", "the ZIP container has %llu entries, at most %d are read",
               (unsigned long long)info.number_entry, (int)ENTRIES_MAX);
    } else {
        return z;
    }
    zip_close(z);
    return NULL;
}

void zip_close(struct zip *z)
{
    if (z && z->file)
        unzClose(z->file);
    free(z);
}

static bool locate(struct zip *z, struct str name)
{
    char path[ZIP_NAME_MAX];
    if (name.n == 0 || name.n >= sizeof path || memchr(name.p, 0, name.n))
        return false;
    str_copyz(path, sizeof path, name);
    return unzLocateFile(z->file, path, 1) == UNZ_OK;
}

bool zip_has(struct zip *z, struct str name)
{
    return locate(z, name);
}

static int bomb(struct zip *z, struct str name)
{
    return refuse(z->source, "invalid_file", "the document unfolds to far more than it may: " STR_FMT,
                  STR_ARG(str_sub(name, 0, 100)));
}

static int damaged(struct zip *z, struct str name)
{
    return refuse(z->source, "invalid_file", "the document is damaged: " STR_FMT " cannot be unpacked",
                  STR_ARG(str_sub(name, 0, 100)));
}

/* What the directory claims is believed only as far as it refuses: the unpacking counts for itself. */
static int unpack(struct zip *z, struct str name, size_t packed, struct buf *out)
{
    enum { STEP = 64 << 10 };
    for (;;) {
        buf_reserve(out, STEP);
        int n = unzReadCurrentFile(z->file, out->p + out->n, STEP);
        if (n < 0)
            return damaged(z, name);
        if (n == 0)
            return 0;
        out->n += (size_t)n;
        z->total += (size_t)n;
        if (out->n > ENTRY_MAX || z->total > TOTAL_MAX || (out->n > RATIO_FROM && out->n / RATIO_MAX > packed))
            return bomb(z, name);
    }
}

int zip_read(struct zip *z, struct str name, struct buf *out)
{
    unz_file_info64 info;
    out->n = 0;
    if (!locate(z, name))
        return 1;
    if (unzGetCurrentFileInfo64(z->file, &info, NULL, 0, NULL, 0, NULL, 0) != UNZ_OK)
        return damaged(z, name);
    if (info.flag & 1)
        return refuse(z->source, "encrypted", "the document is protected by a password; send it without");
    if (info.uncompressed_size > ENTRY_MAX)
        return bomb(z, name);
    if (unzOpenCurrentFile(z->file) != UNZ_OK)
        return damaged(z, name);
    int rc = unpack(z, name, (size_t)info.compressed_size, out);
    if (unzCloseCurrentFile(z->file) != UNZ_OK && rc == 0)
        rc = damaged(z, name); /* its checksum is another one */
    return rc;
}

/* ---- references ---- */

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

static bool percent_decode(struct str in, char out[static ZIP_NAME_MAX], size_t *n)
{
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c == '%' && i + 2 < in.n && hex(in.p[i + 1]) >= 0 && hex(in.p[i + 2]) >= 0) {
            c = (char)(hex(in.p[i + 1]) << 4 | hex(in.p[i + 2]));
            i += 2;
        }
        if (*n + 1 >= ZIP_NAME_MAX || !c)
            return false;
        out[(*n)++] = c;
    }
    return true;
}

bool zip_resolve(struct str base, struct str ref, char out[static ZIP_NAME_MAX])
{
    char path[ZIP_NAME_MAX];
    size_t n = 0, len = 0;
    while (base.n && base.p[base.n - 1] != '/')
        base.n--;
    ref = str_cut(&ref, '#');
    if (ref.n && ref.p[0] == '/')
        base.n = 0;
    if (base.n >= ZIP_NAME_MAX)
        return false;
    if (base.n)
        memcpy(path, base.p, base.n);
    n = base.n;
    if (!percent_decode(ref, path, &n))
        return false;
    for (struct str rest = {path, n}; rest.n;) {
        struct str part = str_cut(&rest, '/');
        if (part.n == 0 || str_eqz(part, "."))
            continue;
        if (str_eqz(part, "..")) {
            if (len == 0)
                return false;
            while (len > 0 && out[--len] != '/')
                ;
            continue;
        }
        if (len)
            out[len++] = '/';
        memcpy(out + len, part.p, part.n);
        len += part.n;
    }
    out[len] = 0;
    return len > 0;
}
