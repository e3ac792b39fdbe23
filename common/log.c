#include "common/log.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/scoreboard.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ACCESS_FLUSH = 32 * 1024, ACCESS_KEEP = 1024 * 1024 };

static struct {
    enum log_level level;
    bool json;
    char role[24];
    int access_fd;
    bool access_file;
    struct buf access;
} state = {.level = LOG_INFO, .role = "ragd", .access_fd = -1};

static const char *const names[] = {"error", "warn", "info", "debug"};

void log_init(enum log_level level, bool json, const char *role)
{
    state.level = level;
    state.json = json;
    snprintf(state.role, sizeof state.role, "%s", role);
    state.access.n = 0; /* after a fork: what the parent has collected is the parent's to write */
}

void log_set_level(enum log_level level, bool json)
{
    state.level = level;
    state.json = json;
}

bool log_enabled(enum log_level level)
{
    return level <= state.level;
}

static bool is_file(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

/* A pipe whose reader has stopped must not stop the service: it is written only while it takes PIPE_BUF bytes at once. */
static bool takes_more(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && p.revents & POLLOUT;
}

/* How much of the text goes out with the next write(2): all of it into a file; whole lines of at most PIPE_BUF bytes
 * into a pipe, where longer writes of several workers would mix. */
static size_t portion(const char *p, size_t n, bool file)
{
    if (file || n <= PIPE_BUF)
        return n;
    const char *end = memrchr(p, '\n', PIPE_BUF);
    if (!end)
        end = memchr(p + PIPE_BUF, '\n', n - PIPE_BUF);
    return end ? (size_t)(end + 1 - p) : n;
}

/* As write(2), but -1 with EAGAIN where that would wait: since takes_more() another process may have filled the pipe.
 * What cannot be written to in this way (a terminal; pipes before Linux 6.4) is written to as always. */
static ssize_t write_now(int fd, const char *p, size_t n)
{
    struct iovec part = {(char *)(uintptr_t)p, n};
    ssize_t r = pwritev2(fd, &part, 1, -1, RWF_NOWAIT);
    return r < 0 && errno != EAGAIN ? write(fd, p, n) : r;
}

/* Writes what can be written now; returns how many bytes are done with. What cannot be written at all has nowhere to
 * complain and counts as done. */
static size_t write_lines(int fd, bool file, const char *p, size_t n)
{
    size_t done = 0;
    while (done < n && (file || takes_more(fd))) {
        size_t some = portion(p + done, n - done, file);
        ssize_t r = file ? write(fd, p + done, some) : write_now(fd, p + done, some);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0 && errno == EAGAIN)
            break; /* somebody else has filled it meanwhile */
        if (r <= 0)
            return n;
        done += (size_t)r;
    }
    return done;
}

static void json_text(struct buf *b, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '"' || c == '\\') {
            buf_ch(b, '\\');
            buf_ch(b, (char)c);
        } else if (c < 0x20 || c == 0x7f) {
            buf_printf(b, "\\u%04x", c);
        } else {
            buf_ch(b, (char)c);
        }
    }
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    char msg[2048], stamp[CLOCK_RFC3339_LEN];
    struct buf b = {0};
    va_list ap;
    if (!log_enabled(level))
        return;
    va_start(ap, fmt);
    int len = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    size_t n = len < 0 ? 0 : (size_t)len < sizeof msg ? (size_t)len : sizeof msg - 1;
    n = str_utf8_valid_prefix((struct str){msg, n});
    clock_rfc3339(stamp, clock_wall_us());
    if (state.json) {
        buf_printf(&b, "{\"ts\":\"%.*s\",\"level\":\"%s\",\"role\":\"%s\",\"pid\":%d,\"msg\":\"", CLOCK_RFC3339_LEN,
                   stamp, names[level], state.role, (int)getpid());
        json_text(&b, msg, n);
        buf_lit(&b, "\"}\n");
    } else {
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)msg[i] < 0x20 || msg[i] == 0x7f)
                msg[i] = ' '; /* a value from outside must not forge a line */
        buf_printf(&b, "%.*s %-5s [%s %d] %.*s\n", CLOCK_RFC3339_LEN, stamp, names[level], state.role, (int)getpid(),
                   (int)n, msg);
    }
    if (write_lines(STDERR_FILENO, is_file(STDERR_FILENO), b.p, b.n) < b.n)
        STAT_ADD(log_lines_lost_total, 1);
    buf_fini(&b);
}

void log_err(enum log_level level, const char *what, const struct err *e)
{
    if (e->log[0])
        log_msg(level, "%s: %s (%s)", what, e->msg, e->log);
    else
        log_msg(level, "%s: %s", what, e->msg);
}

void log_access_open(int fd)
{
    state.access_fd = fd;
    state.access_file = fd >= 0 && is_file(fd);
}

bool log_access_on(void)
{
    return state.access_fd >= 0;
}

void log_access(struct str line)
{
    if (state.access_fd < 0)
        return;
    if (state.access.n > ACCESS_KEEP) { /* the reader is far behind */
        STAT_ADD(log_lines_lost_total, 1);
        return;
    }
    buf_str(&state.access, line);
    buf_ch(&state.access, '\n');
    if (state.access.n % ACCESS_FLUSH < line.n)
        log_flush();
}

void log_flush(void)
{
    if (!state.access.n)
        return;
    if (state.access_fd < 0)
        state.access.n = 0;
    else
        buf_drop(&state.access, write_lines(state.access_fd, state.access_file, state.access.p, state.access.n));
}
