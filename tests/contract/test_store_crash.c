/* Several processes on one database, and what is left when one of them is killed at the worst moment. The children
 * are this program again, with --child. */
#include "tests/contract/contract.h"
#include <signal.h>
#include <sys/wait.h>

enum { CHILDREN = 3 };

/* What a child says when a document is safe: its text is made from these two numbers. */
struct ack {
    int child, i;
    struct uuid id;
};

static struct {
    int child, ack_fd, from, n; /* of the texts */
    struct uuid collection;
} job;

static struct str text_of(struct arena *a, int child, int i)
{
    struct str line = arena_printf(a, "child %d wrote text %d\n", child, i);
    size_t n = line.n * (size_t)(1 + i % 50);
    char *p = arena_alloc(a, n + 1);
    for (size_t at = 0; at < n; at += line.n)
        memcpy(p + at, line.p, line.n);
    p[n] = 0;
    return (struct str){p, n};
}

static int create_and_tell(struct world *w, int i, struct arena *a, struct err *e)
{
    struct store_collection c = {.id = job.collection};
    struct store_document_new in = new_document(&c, text_of(a, job.child, job.from + i).p);
    struct store_document out;
    struct store_job made;
    enum store_created what;
    if (STORE_CALL(w->s, document_create, a, &in, &out, &what, &made, e) < 0)
        return -1;
    struct ack ack = {job.child, job.from + i, out.id};
    return write(job.ack_fd, &ack, sizeof ack) == sizeof ack ? 0 : err_set(e, ERR_INTERNAL, "pipe");
}

static void child_fiber(void *arg)
{
    struct world *w = arg;
    if (setjmp(w->failed) == 0) {
        ok(w, store_open(w->cfg, &w->s, &w->e));
        for (; job.n > 0; job.from += 16, job.n -= 16)
            in_parallel(w, 16, create_and_tell);
        store_close(w->s);
    } else {
        fprintf(stderr, "child %d: line %d: %s\n", job.child, w->line, w->what);
    }
    loop_stop();
}

/* --child URL COLLECTION NUMBER DOCUMENTS FD */
static int child_main(char **argv)
{
    static struct world w;
    struct err e;
    w.cfg = config_for(argv[2], NULL);
    if (!uuid_parse(str_of(argv[3]), &job.collection))
        return 2;
    job.child = atoi(argv[4]);
    job.n = atoi(argv[5]);
    job.ack_fd = atoi(argv[6]);
    if (loop_init(&e) < 0 || !fiber_spawn("child", child_fiber, &w))
        return 2;
    loop_run();
    arena_fini(&w.a);
    config_free(w.cfg);
    fiber_fini();
    loop_fini();
    return w.line ? 1 : 0;
}

/* The world before the children: a collection, and no connection left. */
static struct uuid prepare(struct world *w)
{
    struct uuid id = a_collection(w, "c").id;
    store_close(w->s);
    return id;
}

static void reopen(struct world *w)
{
    ok(w, store_open(w->cfg, &w->s, &w->e));
    ok(w, DO(w, check));
}

static void verify(struct world *w, const struct ack *ack)
{
    struct arena a = {0};
    struct store_document d;
    struct store_job j;
    struct str want = text_of(&a, ack->child, ack->i), bytes;
    ok(w, STORE_CALL(w->s, document_get, &a, &ack->id, &d, &w->e));
    ok(w, STORE_CALL(w->s, file_get_part, &a, &d.sha256, 0, &bytes, &w->e));
    must(w, str_eq(bytes, want));
    ok(w, STORE_CALL(w->s, job_get, &a, &d.job, &j, &w->e));
    same(w, j.state, JOB_queued);
    arena_fini(&a);
}

static pid_t start_child(struct world *w, const struct uuid *collection, int number, int n, int ack_fd)
{
    char id[UUID_TEXT_LEN + 1] = "";
    uuid_text(collection, id);
    char *argv[] = {"test_store_crash",
                    "--child",
                    w->url,
                    id,
                    arena_strdup(&w->a, arena_printf(&w->a, "%d", number).p),
                    arena_strdup(&w->a, arena_printf(&w->a, "%d", n).p),
                    arena_strdup(&w->a, arena_printf(&w->a, "%d", ack_fd).p),
                    NULL};
    pid_t pid = fork();
    if (pid == 0) {
        execv("/proc/self/exe", argv);
        _exit(127);
    }
    must(w, pid > 0);
    return pid;
}

static bool next_ack(struct world *w, int fd, struct ack *out)
{
    ssize_t n = read(fd, out, sizeof *out);
    must(w, n == 0 || n == sizeof *out); /* shorter than PIPE_BUF: whole or not at all */
    return n > 0;
}

/* Writers in several processes wait for each other, and nobody fails. */
static void processes_together(struct world *w)
{
    struct uuid c = prepare(w);
    struct ack ack, *all = arena_alloc(&w->a, CHILDREN * 160 * sizeof *all);
    pid_t pid[CHILDREN];
    int fds[2], n = 0, status;
    must(w, pipe(fds) == 0);
    for (int i = 0; i < CHILDREN; i++)
        pid[i] = start_child(w, &c, i, 160, fds[1]);
    close(fds[1]);
    while (next_ack(w, fds[0], &ack))
        all[n++] = ack;
    close(fds[0]);
    for (int i = 0; i < CHILDREN; i++) {
        must(w, waitpid(pid[i], &status, 0) == pid[i]);
        same(w, status, 0);
    }
    same(w, n, CHILDREN * 160);
    reopen(w);
    for (int i = 0; i < n; i++)
        verify(w, &all[i]);
    same(w, collection_of(w, &c).documents, n);
}

/* kill -9 in the middle of creates: what was acknowledged is there, byte for byte, and counts and jobs agree. */
static void killed(struct world *w)
{
    struct uuid c = prepare(w);
    struct ack *all = arena_alloc(&w->a, 20000 * sizeof *all);
    int n = 0, status;
    for (int round = 0; round < 4; round++) {
        int fds[2], stop = n + 40 + 37 * round;
        must(w, pipe(fds) == 0);
        pid_t pid = start_child(w, &c, round, 1000000, fds[1]);
        close(fds[1]);
        while (n < stop && next_ack(w, fds[0], &all[n]))
            n++;
        same(w, n, stop); /* it did not die by itself */
        must(w, kill(pid, SIGKILL) == 0);
        while (n < 20000 && next_ack(w, fds[0], &all[n]))
            n++;
        close(fds[0]);
        must(w, waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    }
    reopen(w);
    for (int i = 0; i < n; i++)
        verify(w, &all[i]);
    int64_t counts[JOB_STATE_COUNT];
    struct store_collection now = collection_of(w, &c);
    must(w, now.documents >= n);
    ok(w, DO(w, job_counts, counts));
    same(w, counts[JOB_queued], now.documents);
    int64_t matched;
    ok(w, DO(w, document_count_matching, &c, NULL, &matched));
    same(w, matched, now.documents);
}

int main(int argc, char **argv)
{
    if (argc == 7 && strcmp(argv[1], "--child") == 0)
        return child_main(argv);
    struct contract_test tests[] = {TEST(processes_together), TEST(killed)};
    return contract_main("store crash", tests, sizeof tests / sizeof *tests, argc, argv);
}
