#include "master/estate.h"
#include "master/control.h"
#include "master/launch.h"
#include "master/master.h"
#include "master/reexec.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORMAT = 1, SIZE_MAX_BYTES = 8 << 20 };

static const char *const kinds[] = {
#define X(name) #name,
    ESTATE_KINDS(X)
#undef X
};

/* -- writing */

int estate_pass(struct estate_fds *fds, int fd)
{
    if (fd >= 0 && fds->n < ESTATE_FDS_MAX)
        fds->v[fds->n++] = fd;
    return fd;
}

static json_t *fds_json(const struct estate_fds *fds)
{
    json_t *all = json_array();
    for (int i = 0; i < fds->n; i++)
        json_array_append_new(all, json_integer(fds->v[i]));
    return all;
}

/* Paths, arguments and the environment are bytes; JSON is UTF-8. So that nothing is lost, each byte is written as the
 * character of its number. Applies to all strings of `v`. */
static void recode_string(json_t *v, bool write)
{
    const unsigned char *p = (const unsigned char *)json_string_value(v);
    struct buf b = {0};
    for (; *p; p++) {
        if (*p < 0x80) {
            buf_ch(&b, (char)*p);
        } else if (write) {
            buf_ch(&b, (char)(0xc0 | *p >> 6));
            buf_ch(&b, (char)(0x80 | (*p & 0x3f)));
        } else {
            buf_ch(&b, (char)(p[0] << 6 | (p[1] & 0x3f)));
            p++;
        }
    }
    json_string_setn_nocheck(v, b.p ? b.p : "", b.n);
    buf_fini(&b);
}

static void recode(json_t *v, bool write)
{
    const char *key;
    json_t *one;
    size_t i;
    if (json_is_string(v))
        recode_string(v, write);
    json_array_foreach (v, i, one)
        recode(one, write);
    json_object_foreach (v, key, one)
        recode(one, write);
}

static json_t *listeners_json(const struct listen_set *set, struct estate_fds *fds)
{
    json_t *all = json_array();
    for (int i = 0; i < set->n; i++) {
        const struct bound *b = &set->v[i];
        json_array_append_new(all,
                              json_pack("{s:o,s:o,s:i,s:b,s:b,s:b,s:b,s:I,s:I}", "key", json_string_nocheck(b->key),
                                        "name", json_string_nocheck(b->l.name), "fd", estate_pass(fds, b->l.fd), "unix",
                                        b->l.unix_socket, "activated", b->activated, "named", b->named, "stored",
                                        b->stored, "dev", (json_int_t)b->dev, "ino", (json_int_t)b->ino));
    }
    return all;
}

static int to_memfd(const char *text, struct err *e)
{
    size_t n = strlen(text);
    int fd = memfd_create("ragd-estate", MFD_CLOEXEC);
    if (fd < 0)
        return err_errno(e, "memfd_create");
    ssize_t w = pwrite(fd, text, n, 0);
    if (w == (ssize_t)n)
        return fd;
    if (w >= 0)
        errno = ENOSPC;
    err_errno(e, "memfd of %zu bytes", n);
    close(fd);
    return -1;
}

static int write_doc(json_t *doc, struct err *e)
{
    recode(doc, true);
    char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    int fd = text ? to_memfd(text, e) : err_set(e, ERR_INTERNAL, "what is passed on cannot be written as JSON");
    free(text);
    return fd;
}

int estate_write(const struct master *m, enum estate_kind kind, int peer, struct estate_fds *fds, struct err *e)
{
    fds->n = 0;
    json_t *doc =
        json_pack("{s:i,s:s,s:i,s:i,s:o,s:{s:i,s:o},s:o,s:{s:I,s:I,s:I}}", "ragd_estate", FORMAT, "kind", kinds[kind],
                  "peer", estate_pass(fds, peer), "places", estate_pass(fds, m->places_fd), "listen",
                  listeners_json(&m->gen->listen, fds), "pidfile", "fd", estate_pass(fds, m->pidfile.fd), "path",
                  json_string_nocheck(m->pidfile.path ? m->pidfile.path : ""), "control",
                  control_describe(m->control, kind == ESTATE_image ? fds : NULL), "upgrades", "ok",
                  (json_int_t)atomic_load(&m->sb->upgrades_ok), "failed",
                  (json_int_t)atomic_load(&m->sb->upgrades_failed), "start_ns", (json_int_t)m->upgrade.start_ns);
    if (kind == ESTATE_image)
        reexec_describe(m, doc, fds);
    json_object_set_new(doc, "fds", fds_json(fds));
    int fd = write_doc(doc, e);
    json_decref(doc);
    return fd;
}

int estate_rewrite(const struct estate *s, enum estate_kind kind, const char *reason, struct err *e)
{
    json_object_set_new(s->doc, "kind", json_string(kinds[kind]));
    json_object_set_new(s->doc, "reason", json_string_nocheck(reason));
    return write_doc(s->doc, e);
}

/* -- reading */

json_int_t estate_number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? json_integer_value(v) : -1;
}

const char *estate_text(const json_t *o, const char *key)
{
    const char *z = json_string_value(json_object_get(o, key));
    return z ? z : "";
}

static int bad(struct err *e, const char *what)
{
    return err_set(e, ERR_VALIDATION, LAUNCH_ESTATE ": %s; only a server that is being upgraded sets it", what);
}

/* All that was passed must be there; from here it goes on to no child by itself. */
static int take_all(struct estate *s, struct err *e)
{
    size_t i;
    json_t *one;
    json_array_foreach (json_object_get(s->doc, "fds"), i, one) {
        json_int_t fd = json_integer_value(one);
        if (fd <= STDERR_FILENO || fd > INT_MAX || fcntl((int)fd, F_SETFD, FD_CLOEXEC) != 0)
            return bad(e, "a descriptor is missing");
        estate_pass(&s->fds, (int)fd);
    }
    return 0;
}

static int read_listeners(struct listen_set *set, const json_t *all, struct err *e)
{
    size_t i;
    json_t *one;
    json_array_foreach (all, i, one) {
        struct bound b = {.l.fd = (int)estate_number(one, "fd"),
                          .l.unix_socket = json_is_true(json_object_get(one, "unix")),
                          .activated = json_is_true(json_object_get(one, "activated")),
                          .named = json_is_true(json_object_get(one, "named")),
                          .stored = json_is_true(json_object_get(one, "stored")),
                          .dev = (dev_t)estate_number(one, "dev"),
                          .ino = (ino_t)estate_number(one, "ino")};
        if (b.l.fd < 0 || set->n == LISTEN_MAX)
            return bad(e, "a listening socket is missing");
        str_copyz(b.key, sizeof b.key, str_of(estate_text(one, "key")));
        str_copyz(b.l.name, sizeof b.l.name, str_of(estate_text(one, "name")));
        set->v[set->n++] = b;
    }
    return 0;
}

static json_t *from_memfd(int fd, struct err *e)
{
    struct stat st;
    json_error_t why;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > SIZE_MAX_BYTES) {
        bad(e, "it names no memfd");
        return NULL;
    }
    char *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        err_errno(e, "mmap of %lld bytes", (long long)st.st_size);
        return NULL;
    }
    json_t *doc = json_loadb(p, (size_t)st.st_size, 0, &why);
    munmap(p, (size_t)st.st_size);
    if (!doc)
        bad(e, "it holds no estate");
    recode(doc, false);
    return doc;
}

static enum estate_kind kind_of(const json_t *doc)
{
    for (int k = ESTATE_none + 1; k < ESTATE_KIND_COUNT; k++)
        if (strcmp(kinds[k], estate_text(doc, "kind")) == 0)
            return (enum estate_kind)k;
    return ESTATE_none;
}

int estate_read(struct estate *s, struct err *e)
{
    *s = (struct estate){.pidfile.fd = -1, .peer = -1, .places = -1, .control = ""};
    const char *name = getenv(LAUNCH_ESTATE);
    uint64_t fd;
    if (!name)
        return 0;
    bool right = str_to_u64(str_of(name), &fd) && fd > STDERR_FILENO && fd < 1 << 20;
    unsetenv(LAUNCH_ESTATE);
    if (!right)
        return bad(e, "it is not the number of a descriptor");
    s->doc = from_memfd((int)fd, e);
    if (!s->doc)
        return -1;
    close((int)fd);
    s->kind = kind_of(s->doc); /* these first: whoever cannot go on may have to give the process back */
    s->peer = (int)estate_number(s->doc, "peer");
    s->places = (int)estate_number(s->doc, "places");
    if (take_all(s, e) != 0)
        return -1;
    if (s->kind == ESTATE_none || estate_number(s->doc, "ragd_estate") != FORMAT)
        return bad(e, "the old server passes something that this one does not understand");
    const json_t *pidfile = json_object_get(s->doc, "pidfile"), *upgrades = json_object_get(s->doc, "upgrades");
    s->control = estate_text(json_object_get(s->doc, "control"), "path");
    s->upgrades_ok = estate_number(upgrades, "ok");
    s->upgrades_failed = estate_number(upgrades, "failed");
    s->upgrade_start_ns = estate_number(upgrades, "start_ns");
    s->pidfile = (struct pidfile){.fd = (int)estate_number(pidfile, "fd")};
    s->pidfile.path = s->pidfile.fd >= 0 ? strdup(estate_text(pidfile, "path")) : NULL;
    return read_listeners(&s->listen, json_object_get(s->doc, "listen"), e);
}

void estate_release(struct estate *s, const struct listen_set *used)
{
    for (int i = 0; i < s->listen.n; i++) /* their files are the other master's */
        if (!listen_shares(used, &s->listen.v[i]))
            close(s->listen.v[i].l.fd);
    if (s->pidfile.fd >= 0)
        close(s->pidfile.fd);
    free(s->pidfile.path);
    if (s->peer >= 0)
        close(s->peer);
    if (s->places >= 0)
        close(s->places);
    json_decref(s->doc);
    s->doc = NULL;
    s->control = "";
    s->pidfile = (struct pidfile){.fd = -1};
    s->peer = s->places = -1;
}
