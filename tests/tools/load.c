/* A load generator: GET requests at a fixed rate over a bounded number of connections, some of them kept alive, the
 * others closed after each answer. Every request ends in exactly one outcome. Each failure is a
 * line of JSON on stderr when it happens; at the end, one JSON object on stdout says how many there were of each, and
 * how long answers took.
 *
 *     load [-r RATE] [-c CONNECTIONS] [-k PERCENT] [-t TIMEOUT] [-s SECONDS] [-n REQUESTS] [-p PATH] [-f FILE] ADDRESS...
 *
 * ADDRESS is host:port (a number, no name) or unix:/path; connections are spread evenly over several. -k is the share of
 * requests that go over connections which are kept alive. Runs until TERM or INT, or for SECONDS, or for REQUESTS. FILE
 * is kept as two 64-bit counters: requests and errors so far. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNS_MAX = 4096,
    TARGETS_MAX = 16,
    HEAD_MAX = 8192,
    FAILURES_TOLD = 10000,
    STATUSES = 600,
    SECOND_US = 1000000,
    LOOK_US = 50000
};

/* How a request ends. ANSWERED counts in `status` instead; STALE is no end, but a second attempt: the server closed a
 * kept connection before it can have seen the request, and clients send that again. */
#define OUTCOMES(X) X(answered) X(refused) X(reset_before) X(reset_within) X(timeout) X(other)
enum outcome {
#define X(name) OUT_##name,
    OUTCOMES(X)
#undef X
        OUT_COUNT
};
static const char *const outcome_names[] = {
#define X(name) #name,
    OUTCOMES(X)
#undef X
};

struct target {
    struct sockaddr_storage sa;
    socklen_t len;
};

enum state { FREE, CONNECTING, SENDING, READING, IDLE };
struct conn {
    enum state state;
    int fd;
    bool keep, used;  /* kept alive; and has carried an answer before */
    bool close_after; /* the answer says so */
    const struct target *target;
    size_t sent, n; /* bytes of the request; of the answer's head */
    int64_t start_us;
    int64_t body_left; /* -1: until the server closes; -2: the head is not complete */
    int status;
    char head[HEAD_MAX];
};

static struct {
    double rate, seconds, timeout;
    uint64_t requests;
    int connections, keepalive, n_targets;
    const char *path, *progress;
    struct target target[TARGETS_MAX];
} opt = {.rate = 1000, .timeout = 30, .connections = 32, .keepalive = 50, .path = "/livez"};

static struct {
    int epoll;
    struct conn *conn;
    char request[2][600]; /* [keep] */
    size_t request_len[2];
    uint64_t begun, stale, idle_closed, skipped, failed, count[OUT_COUNT], status[STATUSES];
    uint32_t *latency_us;
    size_t latencies, latency_cap;
    double slowest_at;
    uint32_t slowest_us;
    uint64_t *shown; /* mapped: requests, errors */
} load;

static volatile sig_atomic_t over;

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * (int64_t)SECOND_US + t.tv_nsec / 1000;
}

static double wall(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* -- outcomes */

static void hang_up(struct conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = FREE;
    c->used = false;
}

static void take_latency(int64_t us)
{
    if (load.latencies == load.latency_cap) {
        load.latency_cap = load.latency_cap ? 2 * load.latency_cap : 65536;
        load.latency_us = realloc(load.latency_us, load.latency_cap * sizeof *load.latency_us);
        if (!load.latency_us)
            die("no memory");
    }
    load.latency_us[load.latencies++] = (uint32_t)us;
    if (us > load.slowest_us) {
        load.slowest_us = (uint32_t)us;
        load.slowest_at = wall();
    }
}

static void finish(struct conn *c, enum outcome outcome, const char *detail)
{
    bool good = outcome == OUT_answered && c->status >= 200 && c->status < 300;
    load.count[outcome]++;
    if (outcome == OUT_answered) {
        load.status[c->status]++;
        take_latency(now_us() - c->start_us);
    }
    if (!good) {
        if (load.failed++ < FAILURES_TOLD)
            fprintf(stderr, "{\"at\":%.3f,\"outcome\":\"%s\",\"status\":%d,\"detail\":\"%s\"}\n", wall(),
                    outcome_names[outcome], c->status, detail);
    }
    if (load.shown) {
        load.shown[0]++;
        load.shown[1] = load.failed;
    }
    if (outcome == OUT_answered && c->keep && !c->close_after && c->body_left == 0) {
        c->used = true;
        c->state = IDLE;
    } else {
        hang_up(c);
    }
}

static void dial(struct conn *c);

/* The connection ended before the answer did. */
static void broken(struct conn *c, int error)
{
    const char *how = error ? strerror(error) : "end of the connection";
    if (c->used && c->n == 0) {
        load.stale++;
        hang_up(c);
        dial(c);
    } else if (error == ECONNREFUSED || error == ENOENT) {
        finish(c, OUT_refused, how);
    } else if (c->state == CONNECTING && error != ECONNRESET) {
        finish(c, OUT_other, how);
    } else {
        finish(c, c->n ? OUT_reset_within : OUT_reset_before, how);
    }
}

/* -- one request: connect, send, read */

static void send_some(struct conn *c)
{
    const char *request = load.request[c->keep];
    size_t len = load.request_len[c->keep];
    while (c->sent < len) {
        ssize_t n = send(c->fd, request + c->sent, len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            if (errno != EAGAIN)
                broken(c, errno);
            return;
        }
        c->sent += (size_t)n;
    }
    c->state = READING;
}

/* The request follows at once: a server that drains does not wait long for one on a new connection, and who is told of
 * the connection by an event may come late on a busy machine. */
static void dial(struct conn *c)
{
    const struct target *t = c->target;
    c->state = CONNECTING;
    c->sent = c->n = 0;
    c->status = 0;
    c->body_left = -2;
    c->close_after = false;
    c->fd = socket(t->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (c->fd < 0 || (connect(c->fd, (const struct sockaddr *)&t->sa, t->len) != 0 && errno != EINPROGRESS) ||
        epoll_ctl(load.epoll, EPOLL_CTL_ADD, c->fd, &ev) != 0)
        broken(c, errno);
    else
        send_some(c);
}

static void begin(struct conn *c)
{
    load.begun++;
    c->start_us = now_us();
    if (c->state == FREE) {
        dial(c);
        return;
    }
    c->state = SENDING;
    c->sent = c->n = 0;
    c->status = 0;
    c->body_left = -2;
    send_some(c);
}

/* What matters in a head: status, length of the body, whether the connection stays. */
static bool take_head(struct conn *c, const char *end)
{
    char *save = NULL, *line = strtok_r(c->head, "\r\n", &save);
    if (!line || sscanf(line, "HTTP/1.%*1d %3d", &c->status) != 1 || c->status < 100 || c->status >= STATUSES)
        return false;
    c->body_left = c->status == 204 || c->status == 304 ? 0 : -1;
    while (save < end && (line = strtok_r(NULL, "\r\n", &save))) {
        if (strncasecmp(line, "content-length:", 15) == 0)
            c->body_left = strtoll(line + 15, NULL, 10);
        else if (strncasecmp(line, "connection:", 11) == 0)
            c->close_after = strcasestr(line + 11, "close") != NULL;
    }
    return true;
}

static void take(struct conn *c, const char *bytes, size_t n)
{
    if (c->body_left == -2) {
        size_t room = sizeof c->head - 1 - c->n, part = n < room ? n : room;
        memcpy(c->head + c->n, bytes, part);
        c->n += part;
        c->head[c->n] = 0;
        const char *end = strstr(c->head, "\r\n\r\n");
        if (!end && c->n < sizeof c->head - 1)
            return;
        n -= end ? (size_t)(end + 4 - (c->head + c->n - part)) : 0;
        if (!end || !take_head(c, end)) {
            finish(c, OUT_other, "the answer is not HTTP");
            return;
        }
    }
    if (c->body_left >= 0 && (c->body_left -= (int64_t)n) <= 0) {
        c->body_left = c->body_left < 0 ? -1 : 0; /* more than was promised: not to be used again */
        finish(c, OUT_answered, "");
    }
}

static void read_some(struct conn *c)
{
    static char chunk[65536];
    while (c->state == READING || c->state == IDLE) {
        ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (c->state == IDLE) {
            load.idle_closed++;
            hang_up(c);
        } else if (n > 0) {
            take(c, chunk, (size_t)n);
        } else if (n == 0 && c->body_left == -1) {
            finish(c, OUT_answered, "");
        } else {
            broken(c, n < 0 ? errno : 0);
        }
    }
}

static void on_event(struct conn *c)
{
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t len = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error) {
            broken(c, error);
            return;
        }
        c->state = SENDING;
    }
    if (c->state == SENDING)
        send_some(c);
    read_some(c);
}

/* -- the rate */

/* The next connection of this kind that has nothing to do: round robin, so that all of them are used. */
static struct conn *next_free(bool keep)
{
    static int last[2];
    int kept = (opt.connections * opt.keepalive + 99) / 100;
    int from = keep ? 0 : kept, n = keep ? kept : opt.connections - kept;
    for (int i = 1; i <= n; i++) {
        struct conn *c = &load.conn[from + (last[keep] + i) % n];
        if (c->state != FREE && c->state != IDLE)
            continue;
        last[keep] = (last[keep] + i) % n;
        return c;
    }
    return NULL;
}

/* Begins what is due. What cannot begin because all connections are busy is not made up for later: the rate holds. */
static void begin_due(int64_t start_us)
{
    uint64_t due = (uint64_t)((double)(now_us() - start_us) * opt.rate / SECOND_US) + 1;
    if (opt.requests && due > opt.requests + load.skipped)
        due = opt.requests + load.skipped;
    while (load.begun + load.skipped < due) {
        uint64_t share = (uint64_t)opt.keepalive, n = load.begun;
        struct conn *c = next_free((n + 1) * share / 100 > n * share / 100);
        if (c)
            begin(c);
        else
            load.skipped++;
    }
}

static int busy(void)
{
    int n = 0;
    for (int i = 0; i < opt.connections; i++)
        n += load.conn[i].state != FREE && load.conn[i].state != IDLE;
    return n;
}

static void end_overdue(void)
{
    int64_t oldest = now_us() - (int64_t)(opt.timeout * SECOND_US);
    for (int i = 0; i < opt.connections; i++) {
        struct conn *c = &load.conn[i];
        if (c->state != FREE && c->state != IDLE && c->start_us < oldest)
            finish(c, OUT_timeout, c->state == CONNECTING ? "connecting" : "waiting for the answer");
    }
}

static bool more_to_begin(int64_t start_us)
{
    return !over && !(opt.requests && load.begun >= opt.requests) &&
           !(opt.seconds > 0 && (double)(now_us() - start_us) > opt.seconds * SECOND_US);
}

static void run(int64_t start_us)
{
    struct epoll_event ready[256];
    int64_t looked_us = start_us;
    for (bool more = true; more || busy(); more = more && more_to_begin(start_us)) {
        if (more)
            begin_due(start_us);
        int n = epoll_wait(load.epoll, ready, 256, 1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct conn *c = ready[i].data.ptr;
            if (c->state != FREE)
                on_event(c);
        }
        if (now_us() - looked_us > LOOK_US) {
            end_overdue();
            looked_us = now_us();
        }
    }
}

/* -- the report */

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile_ms(double share)
{
    return load.latencies ? load.latency_us[(size_t)(share * (double)(load.latencies - 1))] / 1000.0 : 0;
}

static void print_report(double seconds)
{
    const char *comma = "";
    printf("{\"requests\":%llu,\"errors\":%llu,\"seconds\":%.3f,\"rate\":%.1f,\"status\":{",
           (unsigned long long)load.begun, (unsigned long long)load.failed, seconds, (double)load.begun / seconds);
    for (int i = 0; i < STATUSES; i++)
        if (load.status[i]) {
            printf("%s\"%d\":%llu", comma, i, (unsigned long long)load.status[i]);
            comma = ",";
        }
    printf("}");
    for (int i = OUT_refused; i < OUT_COUNT; i++)
        printf(",\"%s\":%llu", outcome_names[i], (unsigned long long)load.count[i]);
    printf(",\"stale\":%llu,\"idle_closed\":%llu,\"skipped\":%llu", (unsigned long long)load.stale,
           (unsigned long long)load.idle_closed, (unsigned long long)load.skipped);
    if (load.latencies)
        qsort(load.latency_us, load.latencies, sizeof *load.latency_us, by_size);
    printf(",\"latency_ms\":{\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f,\"max_at\":%.3f}}\n", percentile_ms(.5),
           percentile_ms(.99), percentile_ms(1), load.slowest_at);
}

/* -- the command line */

static bool parse_target(const char *text, struct target *t)
{
    char host[64];
    unsigned port;
    if (strncmp(text, "unix:", 5) == 0) {
        struct sockaddr_un *un = (struct sockaddr_un *)&t->sa;
        un->sun_family = AF_UNIX;
        t->len = sizeof *un;
        return (size_t)snprintf(un->sun_path, sizeof un->sun_path, "%s", text + 5) < sizeof un->sun_path;
    }
    struct sockaddr_in *in = (struct sockaddr_in *)&t->sa;
    in->sin_family = AF_INET;
    t->len = sizeof *in;
    if (sscanf(text, "%63[0-9.]:%u", host, &port) != 2 || port > 65535)
        return false;
    in->sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, host, &in->sin_addr) == 1;
}

static void parse(int argc, char **argv)
{
    bool good = true;
    for (int o; (o = getopt(argc, argv, "r:c:k:s:n:t:p:f:")) != -1;) {
        switch (o) {
        case 'r': opt.rate = atof(optarg); break;
        case 'c': opt.connections = atoi(optarg); break;
        case 'k': opt.keepalive = atoi(optarg); break;
        case 's': opt.seconds = atof(optarg); break;
        case 'n': opt.requests = strtoull(optarg, NULL, 10); break;
        case 't': opt.timeout = atof(optarg); break;
        case 'p': opt.path = optarg; break;
        case 'f': opt.progress = optarg; break;
        default: good = false;
        }
    }
    for (; optind < argc && opt.n_targets < TARGETS_MAX; optind++)
        good &= parse_target(argv[optind], &opt.target[opt.n_targets++]);
    int kept = (opt.connections * opt.keepalive + 99) / 100;
    good &= opt.rate > 0 && opt.connections > 0 && opt.connections <= CONNS_MAX && opt.keepalive >= 0 &&
            opt.keepalive <= 100 && (kept < opt.connections || opt.keepalive == 100) && strlen(opt.path) < 500;
    if (!good || opt.n_targets == 0 || optind < argc) {
        fprintf(stderr, "usage: load [-r RATE] [-c CONNECTIONS] [-k PERCENT] [-t TIMEOUT] [-s SECONDS] [-n REQUESTS]\n"
                        "            [-p PATH] [-f FILE] HOST:PORT|unix:PATH...\n");
        exit(2);
    }
}

static void on_stop(int number)
{
    (void)number;
    over = 1;
}

static void set_up(void)
{
    static const char *const how[] = {"close", "keep-alive"};
    struct sigaction stop = {.sa_handler = on_stop};
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.conn = calloc((size_t)opt.connections, sizeof *load.conn);
    if (load.epoll < 0 || !load.conn)
        die("cannot start");
    for (int keep = 0; keep < 2; keep++)
        load.request_len[keep] =
            (size_t)snprintf(load.request[keep], sizeof load.request[keep],
                             "GET %s HTTP/1.1\r\nHost: load\r\nConnection: %s\r\n\r\n", opt.path, how[keep]);
    for (int i = 0; i < opt.connections; i++) {
        struct conn *c = &load.conn[i];
        c->fd = -1;
        c->keep = i < (opt.connections * opt.keepalive + 99) / 100;
        c->target = &opt.target[i % opt.n_targets];
    }
    if (!opt.progress)
        return;
    int fd = open(opt.progress, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, 2 * sizeof *load.shown) != 0 ||
        (load.shown = mmap(NULL, 2 * sizeof *load.shown, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
        die(opt.progress);
    close(fd);
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    set_up();
    int64_t start_us = now_us();
    run(start_us);
    print_report((double)(now_us() - start_us) / SECOND_US);
    return 0;
}
