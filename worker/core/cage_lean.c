/* A cage is a fork of the broker, and most of what a fork costs is copying the map of its address space: fifty libraries
 * that no reader calls, those of the database, of TLS, of Kerberos. So the broker, which does not call them either, removes
 * them from its memory. That also leaves less to somebody who has taken over a reader. What is left is what `needed` names;
 * whether that is enough here is tried first, in a process of its own.
 *
 * From then on no symbol may be looked up, as that walks through all libraries: they are bound before (LD_BIND_NOW, set by
 * who executes the broker). No handlers of pthread_atfork() may run (_Fork), nor those of exit(). */
#include "worker/core/cage_cell.h"
#include "worker/core/extract_private.h"
#include <errno.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static bool needed(const char *path)
{
    static const char *const names[] = {"libc.so",     "libm.so",     "ld-linux",   "linux-vdso", "libgumbo.",
                                        "libcmark.so", "libexpat.so", "libminizip", "libz.so",    "libseccomp"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0)
            return true;
    return strstr(path, "/gconv/") != NULL; /* the converters: loaded if they are wanted */
}

struct places {
    struct place {
        uintptr_t from, to;
    } at[256];
    size_t n;
};

/* All of it: whoever loaded it has reserved the space between its segments, too. */
static struct place place_of(const struct dl_phdr_info *o)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = UINTPTR_MAX, to = 0;
    for (int i = 0; i < o->dlpi_phnum; i++) {
        uintptr_t at = o->dlpi_addr + o->dlpi_phdr[i].p_vaddr, end = at + o->dlpi_phdr[i].p_memsz;
        if (o->dlpi_phdr[i].p_type != PT_LOAD)
            continue;
        from = at < from ? at : from;
        to = end > to ? end : to;
    }
    return (struct place){from & ~(page - 1), (to + page - 1) & ~(page - 1)};
}

static int note(struct dl_phdr_info *o, size_t size, void *arg)
{
    struct places *p = arg;
    (void)size;
    if (o->dlpi_name[0] && !needed(o->dlpi_name) && p->n < sizeof p->at / sizeof *p->at)
        p->at[p->n++] = place_of(o);
    return 0;
}

static void unmap_all(const struct places *p)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->at[i].from < p->at[i].to)
            (void)munmap((void *)p->at[i].from, p->at[i].to - p->at[i].from); /* what stays does no harm */
}

/* One small document for each library. */
static _Noreturn void read_samples(void)
{
    static const struct {
        struct str bytes;
        const char *mime;
    } samples[] = {
        {STR("# Title\n\n- item\n"), "text/markdown"},
        {STR("<!doctype html><title>T</title><p>Text"), "text/html"},
        {STR("<?xml version='1.0'?><a>text</a>"), "application/xml"},
        {STR("PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "application/zip"},
        {STR("caf\xe9 noir"), "text/plain"},
    };
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        struct source s = {.code = NULL};
        extract_prepare(&s, samples[i].bytes, str_of(samples[i].mime), STR(""));
        extract_run(&s);
        builder_fini(&s.builder);
    }
    _exit(0);
}

bool lean_prepare(void)
{
    struct places p = {.n = 0};
    int status;
#ifdef __SANITIZE_ADDRESS__ /* whose run-time library calls others */
    return false;
#endif
    dl_iterate_phdr(note, &p);
    pid_t pid = _Fork();
    if (pid == 0) {
        unmap_all(&p);
        read_samples();
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return false;
    unmap_all(&p);
    return true;
}
