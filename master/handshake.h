/* The two masters of an upgrade talk over a pair of SOCK_SEQPACKET sockets: one message is one line of text, a word and
 * what belongs to it. Never blocks. Who says what stands in master/upgrade.h. */
#pragma once
#include "common/err.h"
#include <event2/event_struct.h>

enum { HANDSHAKE_MAX = 4096 }; /* longest message, its NUL included */

struct handshake {
    int fd; /* -1: nobody is there (any more) */
    struct event ev;
};

/* Whatever arrives wakes the loop from now on. Sending works without. */
must_use int handshake_watch(struct handshake *h, struct event_base *base, struct err *e);
void handshake_close(struct handshake *h);

/* What cannot be sent is not: the other side is gone, and its end is noticed anyway. */
void handshake_send(struct handshake *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* 1: `text` is a message; 0: none is there; -1: the other side is gone, said once: the handshake is closed then. */
int handshake_receive(struct handshake *h, char text[HANDSHAKE_MAX]);

/* True when `text` begins with this word; *rest is what follows it. */
bool handshake_is(const char *text, const char *word, const char **rest);
