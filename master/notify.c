#include "master/notify.h"
#include "common/clock.h"
#include "common/str.h"
#include "master/master.h"
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { EXTEND_EVERY_MS = 1000, EXTEND_BY_MS = 10000, WATCHDOG_MISSES = 2, TEXT_MAX = 512, UNSENT_MAX = 8 };

/* What systemd must not miss waits here while its queue is full: a few messages, in their order. */
static struct {
    char text[UNSENT_MAX][TEXT_MAX];
    int n;
} unsent;

/* Other failures are silent by design: whoever set the variable may have gone, and serving goes on. False: not sent. */
static bool deliver(const char *text, int passed)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.space = {0}};
    const char *path = getenv("NOTIFY_SOCKET");
    errno = 0;
    if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof sa.sun_path)
        return false;
    size_t n = strlen(path);
    memcpy(sa.sun_path, path, n);
    if (*path == '@')
        sa.sun_path[0] = 0; /* abstract */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    struct iovec part = {(char *)(uintptr_t)text, strlen(text)};
    struct msghdr msg = {.msg_name = &sa,
                         .msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n),
                         .msg_iov = &part,
                         .msg_iovlen = 1};
    if (passed >= 0) {
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof control.space;
        *CMSG_FIRSTHDR(&msg) =
            (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof passed)};
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &passed, sizeof passed);
    }
    bool sent = sendmsg(fd, &msg, MSG_NOSIGNAL) >= 0;
    int error = errno;
    close(fd);
    errno = error;
    return sent;
}

/* False: something still waits. */
static bool flush(void)
{
    while (unsent.n) {
        if (!deliver(unsent.text[0], -1) && errno == EAGAIN)
            return false;
        unsent.n--;
        memmove(unsent.text[0], unsent.text[1], (size_t)unsent.n * TEXT_MAX);
    }
    return true;
}

void notify_send(const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if ((!flush() || (!deliver(text, -1) && errno == EAGAIN)) && unsent.n < UNSENT_MAX)
        memcpy(unsent.text[unsent.n++], text, sizeof text);
}

bool notify_unsent(void)
{
    return unsent.n > 0;
}

bool notify_send_fd(int fd, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return deliver(text, fd);
}

static void describe(const struct master *m, char *out, size_t cap)
{
    const int *target = m->gen->target;
    if (m->phase == MASTER_STOPPING)
        snprintf(out, cap, "stopping: %d workers are left", crew_alive(&m->crew));
    else if (m->phase == MASTER_RELOADING)
        snprintf(out, cap, "reloading: generation %u", m->reload.next ? m->reload.next->number : m->gen->number);
    else if (upgrade_pending(m))
        snprintf(out, cap, "upgrading");
    else if (m->parked)
        snprintf(out, cap, "parked");
    else if (!m->announced)
        snprintf(out, cap, "starting: %d of %d http and %d of %d ingest workers are ready", master_ready(m, ROLE_HTTP),
                 target[ROLE_HTTP], master_ready(m, ROLE_INGEST), target[ROLE_INGEST]);
    else if (m->upgrade.failed[0])
        snprintf(out, cap, "%supgrade failed: %.200s", m->degraded ? "degraded; " : "", m->upgrade.failed);
    else if (reload_end_of(m, m->reload.ended)->failed[0])
        snprintf(out, cap, "%sreload failed: %.200s", m->degraded ? "degraded; " : "",
                 reload_end_of(m, m->reload.ended)->failed);
    else
        snprintf(out, cap, "%s%d http and %d ingest workers", m->degraded ? "degraded; " : "", target[ROLE_HTTP],
                 target[ROLE_INGEST]);
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < ' ') /* a new line would be a new assignment */
            *c = ' ';
}

/* In an upgrade one of the two masters speaks. */
static bool silent(const struct master *m)
{
    return !m->notify.on || m->left || (m->phase == MASTER_UPGRADING && !upgrade_speaks(m));
}

static void send_with_status(struct master *m, const char *text)
{
    if (silent(m))
        return;
    describe(m, m->notify.status, sizeof m->notify.status);
    notify_send("%sSTATUS=%s", text, m->notify.status);
}

void notify_ready(struct master *m)
{
    if (m->announced)
        send_with_status(m, "READY=1\n");
}

void notify_reloading(struct master *m)
{
    if (m->announced)
        notify_send("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)(clock_ns() / 1000));
}

void notify_stopping(struct master *m)
{
    send_with_status(m, "STOPPING=1\n");
}

static int64_t number_of(const char *name)
{
    const char *text = getenv(name);
    uint64_t v;
    return text && str_to_u64(str_of(text), &v) && v < INT64_MAX / 1000 ? (int64_t)v : -1;
}

void notify_start(struct master *m)
{
    int64_t usec = number_of("WATCHDOG_USEC"), pid = number_of("WATCHDOG_PID");
    m->notify.on = getenv("NOTIFY_SOCKET") != NULL;
    if (usec > 0 && (!getenv("WATCHDOG_PID") || pid == m->pid))
        m->notify.watchdog_ns = usec * 1000 / 2;
}

/* Nobody can expect READY workers of one that is parked. */
static bool serves(const struct master *m)
{
    return m->parked || master_ready(m, m->args.http ? ROLE_HTTP : ROLE_INGEST) > 0;
}

void notify_tick(struct master *m, int64_t now)
{
    struct notify *n = &m->notify;
    char status[sizeof n->status];
    if (!flush() || silent(m)) /* what is below comes again */
        return;
    describe(m, status, sizeof status);
    if (strcmp(status, n->status) != 0)
        send_with_status(m, "");
    bool waiting = !m->announced || m->phase == MASTER_RELOADING || m->phase == MASTER_STOPPING;
    if (waiting && now >= n->extend_due) {
        n->extend_due = now + EXTEND_EVERY_MS * MS;
        notify_send("EXTEND_TIMEOUT_USEC=%lld", EXTEND_BY_MS * 1000LL);
    }
    if (!n->watchdog_ns)
        return;
    if (serves(m) || !n->served_ns)
        n->served_ns = now;
    if (now >= n->watchdog_due && now - n->served_ns < WATCHDOG_MISSES * n->watchdog_ns) {
        n->watchdog_due = now + n->watchdog_ns;
        notify_send("WATCHDOG=1");
    }
}
