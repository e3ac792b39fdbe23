#include "worker/probe.h"
#include "worker/io/json.h"
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUEST_MAX = 1024, ANSWER_MAX = 4096 };

/* The request fits into the socket's buffer, which is empty. */
static int ask(int fd, const struct config *cfg, struct err *e)
{
    char text[REQUEST_MAX];
    struct str base = str_of(cfg->server_base_path);
    while (base.n && base.p[base.n - 1] == '/')
        base.n--;
    int n = snprintf(text, sizeof text, "GET " STR_FMT "/readyz HTTP/1.1\r\nHost: ragd\r\nConnection: close\r\n\r\n",
                     STR_ARG(base));
    if ((size_t)n >= sizeof text)
        return err_set(e, ERR_VALIDATION, "server.base_path is too long");
    return send(fd, text, (size_t)n, MSG_NOSIGNAL) == n ? 0 : err_errno(e, "cannot ask for /readyz");
}

/* Up to the end of the connection. */
static suspends int hear(int fd, struct buf *answer, struct err *e)
{
    char chunk[1024];
    for (;;) {
        ssize_t n = recv(fd, chunk, sizeof chunk, 0);
        if (n == 0)
            return 0;
        if (n > 0 && answer->n < ANSWER_MAX) {
            buf_add(answer, chunk, (size_t)n);
        } else if (n < 0 && errno == EAGAIN) {
            if (fiber_wait_fd(fd, EV_READ, "its own answer to /readyz") < 0)
                return err_set(e, ERR_CANCELED, "told to stop before /readyz was answered");
        } else if (n < 0 && errno != EINTR) {
            return err_errno(e, "no answer to /readyz");
        }
    }
}

static int judge(struct str answer, struct err *e)
{
    static const char end[] = "\r\n\r\n";
    json_error_t bad;
    if (str_starts(answer, STR("HTTP/1.1 200 ")))
        return 0;
    const char *body = answer.n ? memmem(answer.p, answer.n, end, sizeof end - 1) : NULL;
    size_t at = body ? (size_t)(body - answer.p) + sizeof end - 1 : answer.n;
    json_t *o = json_loadb(answer.p ? answer.p + at : "", answer.n - at, 0, &bad);
    const char *reason = json_string_value(json_object_get(o, "reason"));
    err_set(e, ERR_NOT_READY, "/readyz says: %s", reason ? reason : "nothing that can be understood");
    json_decref(o);
    return -1;
}

suspends int probe_ready(struct http_server *s, const struct config *cfg, struct err *e)
{
    int pair[2];
    struct buf answer = {0};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        return err_errno(e, "socketpair");
    http_server_adopt(s, pair[1]);
    int rc = ask(pair[0], cfg, e) || hear(pair[0], &answer, e) || judge(buf_view(&answer), e) ? -1 : 0;
    buf_fini(&answer);
    close(pair[0]);
    return rc;
}
