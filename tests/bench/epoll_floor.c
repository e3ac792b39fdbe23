/* The floor: the least that a process can do for GET /health. Forked workers share one listening socket and answer
 * every request head with the same bytes, by one read() and one write(); nothing is parsed but the blank line. What is
 * left is the price of the kernel's TCP. usage: epoll_floor PORT WORKERS */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char answer[] =
    "HTTP/1.1 200 OK\r\nServer: floor\r\nContent-Type: application/json\r\nContent-Length: 46\r\n\r\n"
    "{\"status\":\"ok\",\"version\":\"0.1.0\",\"uptime_s\":9}";

static void accept_one(int epoll, int listener)
{
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev))
        close(fd);
}

static void serve_one(int fd)
{
    static char buf[16384];
    ssize_t n = read(fd, buf, sizeof buf);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            close(fd);
        return;
    }
    for (char *p = buf; (p = memmem(p, (size_t)(buf + n - p), "\r\n\r\n", 4)) != NULL; p += 4)
        if (write(fd, answer, sizeof answer - 1) < 0)
            return;
}

static void worker(int listener)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ready[256], ev = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &ev))
        _exit(1);
    for (;;) {
        int n = epoll_wait(epoll, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            if (ready[i].data.fd == listener)
                accept_one(epoll, listener);
            else
                serve_one(ready[i].data.fd);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s PORT WORKERS\n", argv[0]);
        return 2;
    }
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&sa, sizeof sa) || listen(fd, 1024)) {
        perror("listen");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < atoi(argv[2]); i++) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            worker(fd);
        }
    }
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    return 0;
}
