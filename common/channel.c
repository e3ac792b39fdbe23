#include "common/channel.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

struct head {
    uint32_t kind, serial;
};

union ancillary {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int channel_open(int fd[2], struct err *e)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) != 0)
        return err_errno(e, "socketpair");
    return 0;
}

int channel_send(int channel, enum channel_kind kind, uint32_t serial, struct str text, int fd)
{
    struct head head = {kind, serial};
    struct iovec iov[] = {{&head, sizeof head},
                          {(char *)(uintptr_t)text.p, text.n < CHANNEL_TEXT_MAX ? text.n : CHANNEL_TEXT_MAX}};
    union ancillary control = {.bytes = {0}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    if (fd >= 0) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n;
    do
        n = sendmsg(channel, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -1 : 0;
}

static int descriptor_of(struct msghdr *msg)
{
    int fd = -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof fd))
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

int channel_receive(int channel, char buffer[CHANNEL_TEXT_MAX], struct channel_message *out)
{
    struct head head;
    struct iovec iov[] = {{&head, sizeof head}, {buffer, CHANNEL_TEXT_MAX}};
    union ancillary control;
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    do
        n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    if ((size_t)n < sizeof head) /* the end of the stream; nobody sends less than a head */
        return -1;
    *out = (struct channel_message){head.kind,
                                    head.serial,
                                    {buffer, (size_t)n - sizeof head},
                                    descriptor_of(&msg),
                                    (msg.msg_flags & MSG_CTRUNC) != 0};
    return 1;
}
