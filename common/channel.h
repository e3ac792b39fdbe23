/* The channel between the master and one worker: a pair of SOCK_SEQPACKET sockets, made before the fork. The master gives
 * orders, the worker answers where an order asks for it and notes in its slot which order it carried out last. When the
 * master's end is closed, because the master is gone, the worker reads the end of the stream. Never blocks. */
#pragma once
#include "common/err.h"
#include "common/str.h"

enum channel_kind {
    CHANNEL_LOGS = 1, /* to the worker: write the access log to the descriptor that comes along; without one: off */
    CHANNEL_CONFIG,   /* to the worker: "section.key=value" lines of the keys that a reload pushes */
    CHANNEL_EVENTS,   /* to the worker: stderr leads to the descriptor that comes along */
    CHANNEL_FIBERS,   /* to the worker: no text; from the worker: its fibers, one line each */
};

enum { CHANNEL_TEXT_MAX = 60 * 1024 };

struct channel_message {
    uint32_t kind; /* enum channel_kind, or one of another release: then it is ignored */
    uint32_t serial;
    struct str text; /* in the buffer that channel_receive() was given */
    int fd;          /* -1: none came along; else the receiver's to close */
    bool fd_lost;    /* one came along, but this process may not have any more */
};

/* fd[0] for the master, fd[1] for the worker; both non-blocking and CLOEXEC. */
must_use int channel_open(int fd[2], struct err *e);
/* `fd` -1: nothing comes along. Text beyond CHANNEL_TEXT_MAX is cut. 0, or -1 with errno: EAGAIN when the other side has
 * not read for long, EPIPE when it is gone. */
must_use int channel_send(int channel, enum channel_kind kind, uint32_t serial, struct str text, int fd);
/* 1: *out is a message; 0: none is there now; -1: the other side is gone. */
must_use int channel_receive(int channel, char buffer[CHANNEL_TEXT_MAX], struct channel_message *out);
