/* What a document of the type application/x-ragd-fault does to its cage, for tests: its text is one word. Only with
 * debug.faults. The probes report what a system call answered. */
#include "worker/core/cage_cell.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <unistd.h>

static void crash(void)
{
    raise(SIGSEGV);
}

static void spin(void)
{
    for (volatile unsigned i = 0;; i++)
        ;
}

static void linger(void) /* without using the processor; nothing that it could wait for ever comes */
{
    for (;;)
        poll(NULL, 0, -1);
}

static void eat(void)
{
    struct buf b = {0};
    for (;;) {
        buf_reserve(&b, 64 << 20);
        memset(b.p + b.n, 1, b.cap - b.n);
        b.n = b.cap;
    }
}

static void leave(void)
{
    _exit(7);
}

static void disown(void) /* as if no document had been read yet: nobody may believe it */
{
    _exit(43);
}

static int try_open(void)
{
    return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static int try_write(void)
{
    return open("/tmp/ragd-cage", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static int try_socket(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int try_exec(void)
{
    char *argv[] = {(char[]){"true"}, NULL};
    return execv("/bin/true", argv);
}

static int try_fork(void)
{
    pid_t pid = _Fork();
    if (pid == 0)
        _exit(0);
    return pid;
}

static int try_kill(void)
{
    return kill(getppid() > 1 ? getppid() : 1, 0);
}

static int try_trace(void)
{
    return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int try_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1
                                                                                                                  : 0;
}

bool cage_fault(struct source *s)
{
    static const struct {
        const char *name;
        void (*fn)(void);
    } faults[] = {{"crash", crash}, {"abort", abort}, {"spin", spin},    {"linger", linger},
                  {"eat", eat},     {"leave", leave}, {"disown", disown}};
    static const struct {
        const char *name;
        int (*fn)(void);
    } probes[] = {{"open", try_open}, {"write", try_write}, {"socket", try_socket}, {"exec", try_exec},
                  {"fork", try_fork}, {"kill", try_kill},   {"trace", try_trace},   {"code", try_code}};
    if (!s->fault)
        return false;
    s->builder.page = 3;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (str_eqz(s->bytes, faults[i].name))
            faults[i].fn();
    struct buf b = {0};
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) {
        errno = 0;
        int rc = probes[i].fn();
        buf_printf(&b, "%s: %s\n", probes[i].name, rc >= 0 ? "allowed" : strerrorname_np(errno));
    }
    s->type = type_of_format(FORMAT_TEXT);
    extract_plain(&s->builder, buf_view(&b), true);
    buf_fini(&b);
    return true;
}
