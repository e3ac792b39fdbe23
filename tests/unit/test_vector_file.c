/* What may happen to the files of the embedded index: writes that tear at any byte, bytes that change, disks that are
 * full, processes that are killed, and many of them at once. */
#include "tests/unit/vectors.h"
#include "worker/vector/vfile.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

static struct str read_file(struct world *w, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    must(w, fd >= 0 && fstat(fd, &st) == 0);
    char *p = malloc((size_t)st.st_size);
    must(w, p && read(fd, p, (size_t)st.st_size) == st.st_size);
    close(fd);
    return (struct str){p, (size_t)st.st_size};
}

static void write_file(struct world *w, const char *path, const char *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    must(w, fd >= 0 && write(fd, p, n) == (ssize_t)n);
    close(fd);
}

/* A process that looks for the first time. */
static void reopen(struct world *w)
{
    vectors_close(w->v);
    open_embedded(w);
}

/* The documents 1 … n, each with as many points as its number, in version 1; and nothing else. */
static void holds_up_to(struct world *w, int64_t n)
{
    struct vector_entry *entry;
    same(w, list_all(w, &entry), n);
    for (int64_t no = 1; no <= n; no++) {
        same(w, entry[no - 1].document_no, no);
        same(w, entry[no - 1].points, no);
        finds(w, no, 1, (size_t)no, 0);
    }
}

/* The file as it may be found after a power cut while the third document was written: any part of what was appended,
 * with any part of the commit page. */
static void a_torn_write_leaves_the_commit_before(struct world *w)
{
    w->s.dim = 8;
    ok(w, put(w, 1, 1, 1));
    ok(w, put(w, 2, 1, 2));
    struct str before = read_file(w, w->path);
    ok(w, put(w, 3, 1, 3));
    struct str after = read_file(w, w->path);
    size_t page = memcmp(before.p + VFILE_PAGE, after.p + VFILE_PAGE, 64) ? VFILE_PAGE : 2 * VFILE_PAGE;
    char *image = malloc(after.n);
    must(w, image && after.n > before.n);
    for (size_t n = before.n; n <= after.n; n++) { /* the commit page did not get there */
        memcpy(image, after.p, after.n);
        memcpy(image + page, before.p + page, 64);
        write_file(w, w->path, image, n);
        reopen(w);
        holds_up_to(w, 2);
        if (n % 61 == 0) {
            ok(w, put(w, 3, 1, 3));
            holds_up_to(w, 3);
        }
        arena_fini(&w->a);
    }
    for (size_t n = 0; n <= 64; n++) { /* a part of it did */
        memcpy(image, after.p, after.n);
        memcpy(image + page, before.p + page, 64);
        memcpy(image + page, after.p + page, n);
        write_file(w, w->path, image, after.n);
        reopen(w);
        holds_up_to(w, memcmp(image + page, after.p + page, 64) ? 2 : 3);
        if (n % 16 == 0) {
            ok(w, put(w, 3, 1, 3));
            holds_up_to(w, 3);
        }
        arena_fini(&w->a);
    }
    free(image);
    free((void *)(uintptr_t)before.p);
    free((void *)(uintptr_t)after.p);
}

/* Before the first commit there is nothing to lose: whoever comes next begins anew. */
static void a_file_that_was_never_finished_is_begun_anew(struct world *w)
{
    static const size_t sizes[] = {0, 1, 63, 64, 4095, 4096, 4160, VFILE_DATA - 1, VFILE_DATA};
    struct vector_entry *entry;
    w->s.dim = 8;
    ok(w, put(w, 1, 1, 1));
    struct str whole = read_file(w, w->path);
    char zeros[VFILE_DATA] = {0};
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i / 2];
        memcpy(zeros, whole.p, n < 64 ? n : 64); /* the header, or part of it, and no commit */
        write_file(w, w->path, i % 2 ? zeros : (char[VFILE_DATA]){0}, n);
        reopen(w);
        same(w, list_all(w, &entry), 0);
        ok(w, take(w, 1));
        ok(w, put(w, 1, 1, 1));
        holds_up_to(w, 1);
    }
    free((void *)(uintptr_t)whole.p);
}

/* One byte changes. Nobody crashes, what is answered was there, and where damage is found dropping cures it. */
static void a_byte_that_changes_is_survived(struct world *w)
{
    int damaged = 0, sound = 0;
    w->s.dim = 8;
    for (int64_t no = 1; no <= 3; no++)
        ok(w, put(w, no, 1, (size_t)no));
    ok(w, take(w, 2));
    ok(w, put(w, 2, 1, 2));
    struct str whole = read_file(w, w->path);
    char *image = malloc(whole.n);
    must(w, image);
    for (size_t at = 0; at < whole.n; at += at % VFILE_PAGE == 63 && at < VFILE_DATA ? VFILE_PAGE - 63 : 1) {
        struct vector_query q = {.v = vectors_of(&w->a, 1, 1, w->s.dim), .k = 10};
        struct vector_entry *entry;
        struct vector_hit *hit;
        size_t n = 0;
        memcpy(image, whole.p, whole.n);
        image[at] = (char)(image[at] ^ (1 << at % 8));
        write_file(w, w->path, image, whole.n);
        reopen(w);
        if (VECTORS_CALL(w->v, list, &w->a, &w->s, INT64_MIN, 100, &entry, &n, &w->e) != 0) {
            same(w, w->e.code, ERR_CONFLICT);
            fails(w, ERR_NOT_READY, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
            if (damaged++ % 50 == 0) {
                fails(w, ERR_NOT_READY, put(w, 1, 1, 1));
                ok(w, VECTORS_CALL(w->v, drop, &w->s, &w->e));
                ok(w, put(w, 1, 1, 1));
                holds_up_to(w, 1);
            }
        } else {
            sound++;
            must(w, n == 3 || (at >= VFILE_PAGE && at < VFILE_DATA && n == 2)); /* the commit before */
            ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
        }
        arena_fini(&w->a);
    }
    must(w, damaged > 100 && sound > 100);
    free(image);
    free((void *)(uintptr_t)whole.p);
}

/* Compaction reads everything, so it sees what nobody else looks at. */
static void compaction_leaves_out_what_is_damaged(struct world *w)
{
    struct vector_entry *entry;
    w->s.dim = 384;
    ok(w, put(w, 1, 1, 100));
    int fd = open(w->path, O_RDWR);
    must(w, fd >= 0 && pwrite(fd, "damage", 6, VFILE_DATA + 64 + 1000) == 6);
    close(fd);
    struct stat a, b;
    must(w, stat(w->path, &a) == 0);
    b = a;
    for (int64_t version = 1; a.st_ino == b.st_ino && version < 100; version++) {
        ok(w, put(w, 2, version, 100));
        must(w, stat(w->path, &b) == 0);
    }
    same(w, list_all(w, &entry), 1);
    same(w, entry[0].document_no, 2);
}

static void the_bound_on_bytes_is_kept(struct world *w)
{
    struct vector_entry *entry;
    int64_t no = 1;
    config_free(w->cfg);
    w->cfg = config_in(w->dir, "vectors.max_bytes=1M");
    open_embedded(w);
    w->s.dim = 384;
    while (put(w, no, 1, 50) == 0)
        no++;
    same(w, w->e.code, ERR_STORAGE_FULL);
    must(w, no > 5 && no < 15);
    same(w, list_all(w, &entry), no - 1);
    finds(w, no - 1, 1, 50, 49);
    ok(w, take(w, 1));
    ok(w, take(w, 2)); /* what is dead gives its room */
    ok(w, put(w, no, 1, 50));
    finds(w, no, 1, 50, 49);
    fails(w, ERR_STORAGE_FULL, put(w, no + 1, 1, 2000));
}

/* A disk that is full, as a limit on the size of files: writes fail in the middle. */
static void a_full_disk_breaks_nothing(struct world *w)
{
    struct vector_entry *entry;
    struct rlimit before, now;
    struct stat st, again;
    w->s.dim = 384;
    ok(w, put(w, 1, 1, 20));
    must(w, stat(w->path, &st) == 0);
    signal(SIGXFSZ, SIG_IGN);
    must(w, getrlimit(RLIMIT_FSIZE, &before) == 0);
    for (int i = 0; i < 4; i++) { /* at other places of the same write */
        now = (struct rlimit){(rlim_t)st.st_size + (rlim_t)i * 9000, before.rlim_max};
        must(w, setrlimit(RLIMIT_FSIZE, &now) == 0);
        fails(w, ERR_STORAGE_FULL, put(w, 2, 1, 20));
        must(w, stat(w->path, &again) == 0 && again.st_size == st.st_size); /* the room was given back */
        same(w, list_all(w, &entry), 1);
        finds(w, 1, 1, 20, 19);
    }
    must(w, setrlimit(RLIMIT_FSIZE, &before) == 0);
    ok(w, put(w, 2, 1, 20));
    finds(w, 2, 1, 20, 19);
    finds(w, 1, 1, 20, 19);
}

static void a_writer_waits_no_longer_than_its_deadline(struct world *w)
{
    ok(w, put(w, 1, 1, 1));
    int fd = open(w->path, O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    must(w, fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0);
    fiber_set_deadline(fiber_self(), clock_ns() + 50 * MS);
    fails(w, ERR_DEADLINE, put(w, 2, 1, 1));
    fails(w, ERR_DEADLINE, VECTORS_CALL(w->v, drop, &w->s, &w->e));
    fiber_set_deadline(fiber_self(), 0);
    finds(w, 1, 1, 1, 0); /* readers do not wait */
    close(fd);
    ok(w, put(w, 2, 1, 1));
}

/* ---- several processes ---- */

static pid_t start(struct world *w, void (*fn)(struct world *))
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    world_on_loop(w, open_embedded, fn);
    if (w->line)
        fprintf(stderr, "line %d: %s\n", w->line, w->what);
    _exit(w->line ? 1 : 0);
}

static int ended(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

enum { KILLED_DOCUMENTS = 12, KILLED_POINTS = 40, KILLS = 20 };
static int told[2];
static int64_t first_version;

/* Replaces documents in turn for ever, and says so after each. */
static void writes_until_killed(struct world *w)
{
    for (int64_t i = 0;; i++) {
        int64_t version = first_version + i;
        ok(w, put(w, version % KILLED_DOCUMENTS, version, KILLED_POINTS));
        must(w, write(told[1], &version, sizeof version) == sizeof version);
        arena_fini(&w->a);
    }
}

/* Everything that was told is there, and at most one more. */
static void nothing_told_is_missing(struct world *w)
{
    struct vector_entry *entry;
    size_t n = list_all(w, &entry);
    int64_t highest = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t version = entry[i].content_version;
        same(w, version % KILLED_DOCUMENTS, entry[i].document_no);
        highest = version > highest ? version : highest;
        finds(w, entry[i].document_no, version, KILLED_POINTS, KILLED_POINTS - 1);
    }
    must(w, highest == first_version || highest == first_version + 1);
    for (size_t i = 0; i < n; i++)
        must(w, entry[i].content_version > highest - KILLED_DOCUMENTS);
    same(w, n, highest < KILLED_DOCUMENTS ? highest : KILLED_DOCUMENTS);
    first_version = highest;
}

static void a_killed_writer_loses_nothing_it_told(void **state)
{
    struct world w;
    (void)state;
    world_begin(&w);
    w.s.dim = 384;
    first_version = 1;
    for (int kill_no = 0; kill_no < KILLS && !w.line; kill_no++) {
        int64_t version = 0, until = first_version + (int64_t)(draw(&w.seed) % 30);
        assert_int_equal(pipe(told), 0);
        pid_t pid = start(&w, writes_until_killed);
        close(told[1]);
        while (version < until && read(told[0], &version, sizeof version) == sizeof version)
            ;
        usleep((useconds_t)(draw(&w.seed) % 3000)); /* somewhere in the next one */
        kill(pid, SIGKILL);
        assert_true(WIFSIGNALED(ended(pid)));
        while (read(told[0], &version, sizeof version) == sizeof version)
            ;
        close(told[0]);
        first_version = version;
        world_on_loop(&w, open_embedded, nothing_told_is_missing);
        first_version++;
    }
    world_end(&w);
}

enum { WRITERS = 3, READERS = 2, EACH = 25, TURNS = 4 };
static int writer_no, enough[2];

static void writes_its_own(struct world *w)
{
    close(enough[1]);
    for (int64_t version = 1; version <= TURNS; version++)
        for (int64_t i = 0; i < EACH; i++) {
            ok(w, put(w, i * WRITERS + writer_no, version, 60));
            if (i % 5 == 4 && version < TURNS)
                ok(w, take(w, i * WRITERS + writer_no));
            arena_fini(&w->a);
        }
}

/* Versions never go back, and what is found is whole. */
static void reads_until_enough(struct world *w)
{
    int64_t seen[EACH * WRITERS] = {0};
    char c;
    close(enough[1]); /* the last one is the test's */
    while (read(enough[0], &c, 1) < 0) {
        struct vector_entry *entry;
        struct vector_hit *hit;
        size_t n = list_all(w, &entry), found;
        for (size_t i = 0; i < n; i++) {
            int64_t no = entry[i].document_no;
            must(w, no >= 0 && no < EACH * WRITERS && entry[i].content_version >= seen[no]);
            seen[no] = entry[i].content_version;
        }
        if (n > 0) {
            struct vector_entry *any = &entry[draw(&w->seed) % n];
            struct vector_query q = {
                .v = vectors_of(&w->a, seed_of(any->document_no, any->content_version), 60, w->s.dim), .k = 3};
            ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &found, &w->e));
            for (size_t i = 0; i < found; i++) {
                must(w, hit[i].content_version >= seen[hit[i].no >> 20] && hit[i].score < 1.001f);
                if (hit[i].score > 0.999f)
                    same(w, hit[i].no >> 20, any->document_no);
            }
        }
        arena_fini(&w->a);
    }
}

static void all_are_there(struct world *w)
{
    struct vector_entry *entry;
    same(w, list_all(w, &entry), EACH * WRITERS);
    for (int64_t no = 0; no < EACH * WRITERS; no++) {
        same(w, entry[no].content_version, TURNS);
        finds(w, no, TURNS, 60, 59);
    }
}

static void writers_take_turns_and_readers_see_whole_documents(void **state)
{
    pid_t pid[WRITERS + READERS];
    struct world w;
    (void)state;
    world_begin(&w);
    w.s.dim = 384;
    assert_int_equal(pipe2(enough, O_NONBLOCK), 0);
    for (int i = 0; i < WRITERS + READERS; i++) {
        writer_no = i;
        pid[i] = start(&w, i < WRITERS ? writes_its_own : reads_until_enough);
        assert_true(pid[i] > 0);
    }
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(ended(pid[i]), 0);
    close(enough[1]); /* which tells the readers */
    for (int i = 0; i < READERS; i++)
        assert_int_equal(ended(pid[WRITERS + i]), 0);
    close(enough[0]);
    world_on_loop(&w, open_embedded, all_are_there);
    world_end(&w);
}

#define EMBEDDED(fn)                  \
    static void on_##fn(void **state) \
    {                                 \
        (void)state;                  \
        world_run(open_embedded, fn); \
    }
EMBEDDED(a_torn_write_leaves_the_commit_before)
EMBEDDED(a_file_that_was_never_finished_is_begun_anew)
EMBEDDED(a_byte_that_changes_is_survived)
EMBEDDED(compaction_leaves_out_what_is_damaged)
EMBEDDED(a_full_disk_breaks_nothing)
EMBEDDED(a_writer_waits_no_longer_than_its_deadline)

static void on_the_bound(void **state)
{
    (void)state;
    world_run(NULL, the_bound_on_bytes_is_kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_a_torn_write_leaves_the_commit_before),
        cmocka_unit_test(on_a_file_that_was_never_finished_is_begun_anew),
        cmocka_unit_test(on_a_byte_that_changes_is_survived),
        cmocka_unit_test(on_compaction_leaves_out_what_is_damaged),
        cmocka_unit_test(on_a_full_disk_breaks_nothing),
        cmocka_unit_test(on_a_writer_waits_no_longer_than_its_deadline),
        cmocka_unit_test(on_the_bound),
        cmocka_unit_test(a_killed_writer_loses_nothing_it_told),
        cmocka_unit_test(writers_take_turns_and_readers_see_whole_documents),
    };
    log_init(LOG_ERROR, false, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
