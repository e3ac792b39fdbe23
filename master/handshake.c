#include "master/handshake.h"
#include <errno.h>
#include <event2/event.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg; /* it only ends the wait; the tick reads */
}

int handshake_watch(struct handshake *h, struct event_base *base, struct err *e)
{
    event_assign(&h->ev, base, h->fd, EV_READ | EV_PERSIST, on_readable, NULL);
    if (event_add(&h->ev, NULL) != 0)
        return err_set(e, ERR_INTERNAL, "cannot watch the other master");
    return 0;
}

void handshake_close(struct handshake *h)
{
    if (h->fd < 0)
        return;
    char scrap[HANDSHAKE_MAX];
    if (event_initialized(&h->ev))
        event_del(&h->ev);
    /* A socket that is closed with something unread resets the other side, which would miss our last word. */
    shutdown(h->fd, SHUT_RD);
    while (recv(h->fd, scrap, sizeof scrap, MSG_DONTWAIT) > 0)
        ;
    close(h->fd);
    h->fd = -1;
}

void handshake_send(struct handshake *h, const char *fmt, ...)
{
    char text[HANDSHAKE_MAX];
    va_list ap;
    if (h->fd < 0)
        return;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    size_t len = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    while (send(h->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EINTR)
        ;
}

int handshake_receive(struct handshake *h, char text[HANDSHAKE_MAX])
{
    ssize_t n;
    if (h->fd < 0)
        return 0;
    do
        n = recv(h->fd, text, HANDSHAKE_MAX - 1, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0) {
        handshake_close(h);
        return -1;
    }
    text[n] = 0;
    return 1;
}

bool handshake_is(const char *text, const char *word, const char **rest)
{
    size_t n = strlen(word);
    if (strncmp(text, word, n) != 0 || (text[n] && text[n] != ' '))
        return false;
    if (rest)
        *rest = text + n + (text[n] == ' ');
    return true;
}
