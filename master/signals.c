#include "master/signals.h"
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const struct {
    int number;
    bool worker_ignores; /* a stray one, as from `pkill -HUP ragd`, must not end a worker that is still booting */
} table[] = {
    {SIGTERM, false}, {SIGQUIT, false}, {SIGINT, false},  {SIGCHLD, false}, {SIGHUP, true},
    {SIGUSR1, true},  {SIGUSR2, true},  {SIGWINCH, true}, {SIGTTIN, true},  {SIGTTOU, true},
};
enum { TABLE = sizeof table / sizeof *table };

static void fill(sigset_t *set)
{
    sigemptyset(set);
    for (size_t i = 0; i < TABLE; i++)
        sigaddset(set, table[i].number);
}

void signals_block(void)
{
    sigset_t set;
    fill(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int signals_open(int *fd, struct err *e)
{
    sigset_t set;
    fill(&set);
    int r = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (r < 0)
        return err_errno(e, "signalfd");
    *fd = r;
    return 0;
}

uint64_t signals_read(int fd)
{
    struct signalfd_siginfo info;
    uint64_t bits = 0;
    for (;;) {
        ssize_t n = read(fd, &info, sizeof info);
        if (n == (ssize_t)sizeof info)
            bits |= 1ULL << info.ssi_signo;
        else if (n >= 0 || errno != EINTR)
            return bits;
    }
}

void signals_child(void)
{
    sigset_t none;
    for (size_t i = 0; i < TABLE; i++)
        signal(table[i].number, table[i].worker_ignores ? SIG_IGN : SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void signals_default_blocked(void)
{
    for (size_t i = 0; i < TABLE; i++)
        signal(table[i].number, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
}

void signals_default(void)
{
    sigset_t none;
    signals_default_blocked();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}
