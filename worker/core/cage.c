#include "worker/core/cage.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/core/cage_wire.h"
#include "worker/core/extract_private.h"
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

const char *cage_program = "/proc/self/exe";

struct broker {
    int fd; /* -1: none runs */
    pid_t pid;
    unsigned number; /* another one may have the same descriptor */
    bool converters;
};

struct cage {
    const struct config *cfg;
    struct broker broker[2]; /* the second one has converters of charsets */
    bool warned;
};

int cage_open(const struct config *cfg, struct cage **out, struct err *e)
{
    struct cage *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_INTERNAL, "no memory");
    *c = (struct cage){.cfg = cfg, .broker = {{.fd = -1}, {.fd = -1, .converters = true}}};
    *out = c;
    return 0;
}

/* ---- the broker's life, as its parent sees it ---- */

static void forget_broker(struct broker *b)
{
    if (b->fd < 0)
        return;
    close(b->fd);
    kill(b->pid, SIGKILL); /* it dies of the closed socket, too, and with it all cages */
    while (waitpid(b->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    b->fd = -1;
}

void cage_close(struct cage *c)
{
    for (int i = 0; c && i < 2; i++)
        forget_broker(&c->broker[i]);
    free(c);
}

/* Between fork and exec; no lock may be taken here. */
static void be_broker(int fd, bool converters)
{
    char number[32], *argv[] = {(char[]){"ragd"}, (char[]){"cage-broker"}, number, NULL},
                     *env[] = {(char[]){"LD_BIND_NOW=1"}, NULL}; /* for cage_lean.c */
    sigset_t nothing;
    snprintf(number, sizeof number, "%d%s", fd, converters ? ",charsets" : "");
    fcntl(fd, F_SETFD, 0);
    sigemptyset(&nothing);
    sigprocmask(SIG_SETMASK, &nothing, NULL);
    execve(cage_program, argv, env);
    _exit(cage_broker(fd, converters, true));
}

static int start_broker(struct broker *b, struct err *e)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        return err_errno(e, "cage: socketpair");
    pid_t pid = fork();
    if (pid == 0)
        be_broker(pair[1], b->converters);
    int error = errno;
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        err_set(e, ERR_NOT_READY, "the document cannot be read at the moment");
        return err_log(e, "cannot fork the cage broker: %s", strerror(error));
    }
    b->fd = pair[0];
    b->pid = pid;
    b->number++;
    log_debug("the cage broker is pid %d", (int)pid);
    return 0;
}

/* ---- one document ---- */

struct errand {
    int document, result, verdict, theirs; /* `theirs`: the broker's end of the verdict's socket */
};

static void errand_end(struct errand *r)
{
    int *fds[] = {&r->document, &r->result, &r->verdict, &r->theirs};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

suspends static int fill_document(int fd, struct str bytes, struct err *e)
{
    enum { STEP = 4 << 20 };
    for (size_t at = 0; at < bytes.n;) {
        size_t n = bytes.n - at < STEP ? bytes.n - at : STEP;
        ssize_t done = write(fd, bytes.p + at, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return err_errno(e, "cage: the copy of the document");
        at += (size_t)done;
        if (at < bytes.n && fiber_yield())
            return err_set(e, ERR_CANCELED, "the job was cancelled");
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return err_errno(e, "cage: sealing the document");
    return 0;
}

suspends static int errand_begin(struct errand *r, struct str bytes, struct err *e)
{
    int pair[2];
    *r = (struct errand){-1, -1, -1, -1};
    r->document = memfd_create("document", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    r->result = memfd_create("result", MFD_CLOEXEC);
    if (r->document < 0 || r->result < 0)
        return err_errno(e, "cage: memfd");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        return err_errno(e, "cage: socketpair");
    r->verdict = pair[0];
    r->theirs = pair[1];
    return fill_document(r->document, bytes, e);
}

static void describe(const struct cage *c, struct str mime, struct str filename, struct cage_request *out)
{
    const struct config *cfg = c->cfg;
    *out = (struct cage_request){
        .magic = CAGE_MAGIC,
        .limits = {cfg->ingest_cage_memory, cfg->ingest_cage_output, (int32_t)(cfg->ingest_cage_cpu + 999) / 1000,
                   (int32_t)cfg->ingest_cage_timeout, cfg->ingest_sandbox == 1, cfg->debug_faults},
    };
    str_copyz(out->mime, sizeof out->mime, mime);
    if (filename.n >= sizeof out->filename) /* its end says more */
        filename = str_sub(filename, filename.n - sizeof out->filename + 1, SIZE_MAX);
    str_copyz(out->filename, sizeof out->filename, filename);
}

/* 0; 1: the broker is gone; -1. */
suspends static int send_request(struct broker *b, const struct errand *r, const struct cage_request *what,
                                 struct err *e)
{
    union {
        char space[CMSG_SPACE(CAGE_FDS * sizeof(int))];
        struct cmsghdr align;
    } u = {0};
    const int fds[CAGE_FDS] = {r->document, r->result, r->theirs};
    struct iovec iov = {(void *)(uintptr_t)what, sizeof *what};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.space, .msg_controllen = sizeof u.space};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    *h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fds)};
    memcpy(CMSG_DATA(h), fds, sizeof fds);
    int fd = b->fd;
    for (unsigned number = b->number; number == b->number && b->fd >= 0;) {
        if (sendmsg(fd, &m, MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno == EPIPE || errno == ECONNRESET)
            return 1;
        if (errno != EAGAIN && errno != EINTR)
            return err_errno(e, "cage: sendmsg");
        if (errno == EAGAIN && fiber_wait_fd(fd, EV_WRITE, "the cage broker"))
            return err_set(e, ERR_CANCELED, "the job was cancelled");
    }
    return 1; /* another fiber has seen the broker's end meanwhile */
}

/* 0; 1: the broker is gone, or does not keep its deadline; -1. */
suspends static int await_verdict(int fd, struct cage_verdict *v, int64_t end, struct err *e)
{
    for (;;) {
        ssize_t n = recv(fd, v, sizeof *v, 0);
        if (n == sizeof *v && v->magic == CAGE_MAGIC)
            return 0;
        if (n >= 0 || (errno != EAGAIN && errno != EINTR))
            return 1;
        int rc = fiber_wait_fd(fd, EV_READ, "the cage");
        if (rc == -ETIMEDOUT && clock_ns() >= end)
            return 1;
        if (rc)
            return err_set(e, ERR_CANCELED, "the job was cancelled");
    }
}

suspends static int await_bounded(const struct cage *c, int fd, struct cage_verdict *v, struct err *e)
{
    enum { GRACE = 30 }; /* seconds: for a machine that is busy */
    struct fiber *f = fiber_self();
    int64_t before = fiber_deadline(f), end = clock_ns() + c->cfg->ingest_cage_timeout * MS + GRACE * SEC;
    fiber_set_deadline(f, before && before < end ? before : end);
    int rc = await_verdict(fd, v, end, e);
    fiber_set_deadline(f, before);
    return rc;
}

suspends static int errand_run(const struct cage *c, struct broker *b, struct errand *r,
                               const struct cage_request *what, struct cage_verdict *v, struct err *e)
{
    if (b->fd < 0 && start_broker(b, e))
        return -1;
    unsigned number = b->number;
    int rc = send_request(b, r, what, e);
    close(r->theirs); /* the broker's copy, closed, is how its end is seen */
    r->theirs = -1;
    if (rc == 0)
        rc = await_bounded(c, r->verdict, v, e);
    if (rc == 1 && b->number == number)
        forget_broker(b);
    return rc;
}

static void warn_once(struct cage *c, uint32_t lacks)
{
    if (c->warned || !lacks)
        return;
    c->warned = true;
    log_warn("documents are read in a cage that lacks%s%s%s: this system does not allow it; ingest.sandbox: required "
             "would refuse to read them",
             lacks & LACKS_FILTER ? " a filter for system calls," : "", lacks & LACKS_LANDLOCK ? " Landlock," : "",
             lacks & LACKS_NAMESPACES ? " namespaces" : "");
}

static int failed(struct cage *c, const struct cage_verdict *v, const char **code, int *page, struct err *e)
{
    char where[40] = "";
    if (v->page > 0)
        snprintf(where, sizeof where, " at page %d", v->page);
    *page = v->page > 0 ? v->page : 0;
    switch (v->how) {
    case CAGE_MEMORY:
        *code = "parser_memory";
        return err_set(e, ERR_VALIDATION, "reading the document takes more than %lld MB of memory%s",
                       (long long)(c->cfg->ingest_cage_memory >> 20), where);
    case CAGE_TIMEOUT:
        *code = "parser_timeout";
        return err_set(e, ERR_VALIDATION, "reading the document takes too long%s", where);
    case CAGE_LACKS:
        err_set(e, ERR_NOT_READY, "documents cannot be read: this system does not provide the sandbox");
        return err_log(e, "ingest.sandbox is required, but the kernel lacks a part of it; best_effort does without");
    case CAGE_FAILED:
        err_set(e, ERR_NOT_READY, "the document cannot be read at the moment");
        return err_log(e, "the cage broker could not make a process");
    case CAGE_WALLS: /* counted as a try: it may be the document's doing, by its size */
        *code = "sandbox_failed";
        err_set(e, ERR_INTERNAL, "the sandbox in which the document is read could not be made");
        return err_log(e, "the limits of the cage, Landlock or its filter could not be set");
    default:
        *code = "parser_crashed";
        return err_set(e, ERR_VALIDATION, "reading the document ended with %s%s%s", v->signal ? "signal " : "an error",
                       v->signal ? sigabbrev_np(v->signal) ? sigabbrev_np(v->signal) : "?" : "", where);
    }
}

/* What a cage has written, on its way to the worker. */
struct reading {
    struct arena *arena; /* nobody else's until the reading ends */
    int fd, rc;
    size_t n;
    struct extracted *out;
    const char **code;
    int *page;
    struct err *e;
};

static void read_all(void *arg)
{
    struct reading *r = arg;
    char *bytes = malloc(r->n + 1);
    size_t at = 0;
    if (!bytes) {
        r->rc = err_set(r->e, ERR_INTERNAL, "not enough memory for the text of the document");
        return;
    }
    arena_own(r->arena, bytes, free);
    while (at < r->n) { /* not mapped: the cage could have cut it short meanwhile */
        ssize_t got = pread(r->fd, bytes + at, r->n - at, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        at += (size_t)got;
    }
    r->rc = wire_read(r->arena, (struct str){bytes, at}, r->out, r->code, r->page, r->e);
}

/* In a helper thread when it is large: copying and checking 100 MB takes longer than a loop may stand still. */
suspends static int read_result(struct cage *c, struct arena *a, int fd, struct extracted *out, const char **code,
                                int *page, struct err *e)
{
    enum { INLINE_MAX = 64 << 10 };
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_errno(e, "cage: the result");
    if (st.st_size > c->cfg->ingest_cage_output)
        return err_set(e, ERR_INTERNAL, "the document could not be read");
    struct reading r = {a, fd, 0, (size_t)st.st_size, out, code, page, e};
    if (r.n > INLINE_MAX)
        fiber_blocking(read_all, &r);
    else
        read_all(&r);
    return r.rc;
}

static struct broker *broker_for(struct cage *c, struct str bytes, struct str mime, struct str filename)
{
    enum { LOOK_MAX = 256 << 10 }; /* to look through more of it takes longer than it spares */
    struct source s = {.code = NULL};
    extract_prepare(&s, bytes, mime, filename);
    return &c->broker[bytes.n > LOOK_MAX || extract_converts(&s)];
}

/* ---- statistics ---- */

_Static_assert((int)FORMAT_TEXT == CAGE_FORMAT_text && (int)FORMAT_PDF == CAGE_FORMAT_pdf &&
                   (int)FORMAT_OTHER == CAGE_FORMAT_other,
               "the formats of scoreboard.h are those of extract_private.h");

static enum cage_outcome outcome_of(int rc, const char *code, const struct err *e)
{
    static const struct {
        const char *code;
        enum cage_outcome outcome;
    } ends[] = {{"parser_crashed", CAGE_OUTCOME_crashed},
                {"parser_memory", CAGE_OUTCOME_memory},
                {"parser_timeout", CAGE_OUTCOME_timeout}};
    if (rc == 0)
        return CAGE_OUTCOME_ok;
    for (size_t i = 0; code && i < sizeof ends / sizeof *ends; i++)
        if (strcmp(code, ends[i].code) == 0)
            return ends[i].outcome;
    return e->code == ERR_VALIDATION ? CAGE_OUTCOME_refused
           : e->code == ERR_CANCELED ? CAGE_OUTCOME_canceled
                                     : CAGE_OUTCOME_failed;
}

/* `found`: what the reader says, or NULL. */
static struct cage_score *score_of(struct str bytes, struct str mime, struct str filename, const char *found)
{
    struct source s = {.code = NULL};
    extract_prepare(&s, bytes, mime, filename);
    const struct type *sure = found ? type_by_mime(str_of(found)) : type_by_content(bytes);
    return &slot_self->cage[sure ? sure->format : s.type ? s.type->format : FORMAT_OTHER];
}

/* ---- all of it ---- */

suspends static int read_document(struct cage *c, struct arena *a, struct str bytes, struct str mime,
                                  struct str filename, struct extracted *out, const char **code, int *page,
                                  struct err *e)
{
    struct cage_request what;
    struct cage_verdict v = {.how = CAGE_FAILED};
    struct broker *broker = broker_for(c, bytes, mime, filename);
    int rc = 1;
    *page = 0;
    describe(c, mime, filename, &what);
    for (int tries = 0; rc == 1 && tries < 2; tries++) { /* a broker that dies is nobody's fault once */
        struct errand r;
        rc = errand_begin(&r, bytes, e);
        if (rc == 0)
            rc = errand_run(c, broker, &r, &what, &v, e);
        if (rc == 0)
            warn_once(c, v.lacks);
        if (rc == 0)
            rc = v.how == CAGE_DONE ? read_result(c, a, r.result, out, code, page, e) : failed(c, &v, code, page, e);
        errand_end(&r);
    }
    return rc == 1 ? err_set(e, ERR_INTERNAL, "the document could not be read: the cage broker died twice") : rc;
}

suspends int cage_extract(struct cage *c, struct arena *a, struct str bytes, struct str mime, struct str filename,
                          struct extracted *out, const char **code, int *page, struct err *e)
{
    int64_t before = clock_ns();
    *code = NULL;
    STAT_ADD(cages_running, 1);
    int rc = read_document(c, a, bytes, mime, filename, out, code, page, e);
    STAT_SUB(cages_running, 1);
    struct cage_score *score = score_of(bytes, mime, filename, rc == 0 ? out->mime : NULL);
    score->by_outcome[outcome_of(rc, *code, e)]++;
    score->sum_us += (uint64_t)((clock_ns() - before) / 1000);
    return rc;
}
