#include "worker/core/cage_cell.h"
#include "worker/core/cage_jail.h"
#include <errno.h>
#include <fcntl.h>
#include <iconv.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FD_DOCUMENT = 3, FD_RESULT = 4, FD_FREE = 5 };

/* Converters are plug-ins, which a cage cannot load: those that documents are likely to need are loaded before. */
void cell_prepare(void)
{
    static const char *const charsets[] = {
        "ISO-8859-2", "ISO-8859-3",  "ISO-8859-4",  "ISO-8859-5",  "ISO-8859-6",  "ISO-8859-7",  "ISO-8859-8",
        "ISO-8859-9", "ISO-8859-10", "ISO-8859-13", "ISO-8859-14", "ISO-8859-15", "ISO-8859-16", "CP1250",
        "CP1251",     "CP1252",      "CP1253",      "CP1254",      "CP1255",      "CP1256",      "CP1257",
        "CP1258",     "CP437",       "CP850",       "CP852",       "CP866",       "CP874",       "KOI8-R",
        "KOI8-U",     "MACINTOSH",   "SHIFT_JIS",   "CP932",       "EUC-JP",      "ISO-2022-JP", "GB18030",
        "GBK",        "GB2312",      "CP936",       "BIG5",        "CP950",       "BIG5-HKSCS",  "EUC-KR",
        "CP949",      "TIS-620",     "UTF-16",      "UTF-16LE",    "UTF-16BE",    "UTF-7",       "EUC-JP-MS",
    };
    for (size_t i = 0; i < sizeof charsets / sizeof *charsets; i++)
        (void)iconv_open("UTF-8", charsets[i]); /* stays open, so that its plug-in stays */
}

int cell_page(const struct cell_shared *shared)
{
    int page = shared->source.builder.page;
    return page > 0 && page < 1 << 30 ? page : 0;
}

/* Allocations that fail end in abort(). */
static void on_abort(int sig)
{
    (void)sig;
    _exit(errno == ENOMEM ? CELL_MEMORY : 1);
}

/* The document and the file for the result are all that is left open. */
static int keep_two(int document, int result)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) /* in a chroot */
        null = memfd_create("null", MFD_CLOEXEC);
    int high = fcntl(result, F_DUPFD_CLOEXEC, 10);
    int doc = fcntl(document, F_DUPFD_CLOEXEC, 10);
    if (null < 0 || high < 0 || doc < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
        return -1;
#ifndef __SANITIZE_ADDRESS__ /* what a library prints about a stranger's file is of no use in the log */
    if (dup2(null, STDERR_FILENO) < 0)
        return -1;
#endif
    if (dup2(doc, FD_DOCUMENT) < 0 || dup2(high, FD_RESULT) < 0)
        return -1;
    return close_range(FD_FREE, ~0U, 0);
}

/* The kernel, short of memory, shall take this one. */
static void volunteer(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = write(fd, "1000", 4);
    (void)n;
    close(fd);
}

_Noreturn void cell_without_walls(struct cell_walls *w)
{
    w->failed = true;
    _exit(1);
}

static struct str map_document(struct cell_walls *walls)
{
    struct stat st;
    if (fstat(FD_DOCUMENT, &st) != 0)
        cell_without_walls(walls);
    if (st.st_size == 0)
        return STR("");
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, FD_DOCUMENT, 0);
    if (p == MAP_FAILED)
        _exit(CELL_MEMORY);
    return (struct str){p, (size_t)st.st_size};
}

static _Noreturn void write_result(struct source *s, const struct cage_limits *l)
{
    if (wire_write(FD_RESULT, s) == 0)
        _exit(CELL_DONE);
    if (errno != EFBIG && errno != ENOSPC && errno != ENOMEM)
        _exit(1);
    refuse(s, "too_large", "the text of the document is larger than %lld MB", (long long)(l->output >> 20));
    _exit(lseek(FD_RESULT, 0, SEEK_SET) == 0 && ftruncate(FD_RESULT, 0) == 0 && wire_write(FD_RESULT, s) == 0
              ? CELL_DONE
              : 1);
}

_Noreturn void cell_run(const struct cage_request *what, int document, int result, struct cell_shared *shared,
                        struct cell_walls *walls)
{
    struct source *s = &shared->source;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGABRT, on_abort);
    volunteer();
    if (keep_two(document, result))
        cell_without_walls(walls);
    struct program program = {.pid = 0};
    struct str bytes = map_document(walls);
    const struct type *sure = type_by_content(bytes);
    extract_prepare(s, bytes, str_of(what->mime), str_of(what->filename));
    if (sure && sure->format == FORMAT_PDF && program_start(&program, FD_DOCUMENT, &what->limits, walls))
        cell_without_walls(walls);
    if (jail_enter(JAIL_READER, &what->limits) || munmap(walls, sizeof *walls) != 0)
        cell_without_walls(walls);
    errno = 0;
    if (program.pid)
        program_read(&program, shared, &what->limits);
    else if (!what->limits.faults || !cage_fault(s))
        extract_run(s);
    write_result(s, &what->limits);
}
