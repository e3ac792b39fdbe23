/* The embedded vector index by itself, for vectors.py: no HTTP, no embedder.
 *
 *     vectors fill DIR FILE N DIM          stores the N vectors of FILE as documents of 20
 *     vectors search DIR FILE N DIM SECONDS   asks with the N vectors of FILE in turn, ten hits each
 *
 * Prints one line of JSON. The hits of the first N searches are numbers of vectors in the file that was stored. */
#include "common/clock.h"
#include "common/scoreboard.h"
#include "worker/fiber/loop.h"
#include "worker/vector/vector.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { A_DOCUMENT = 20, K = 10, SAMPLES = 1 << 20 };

static struct {
    struct config *cfg;
    struct vectors *v;
    struct vector_space space;
    const float *data;
    int64_t n;
    double seconds;
    bool fill;
} job;

static void die(const char *what, const struct err *e)
{
    fprintf(stderr, "%s: %s (%s)\n", what, e->msg, e->log);
    exit(1);
}

static suspends void fill(void)
{
    static struct uuid id[A_DOCUMENT];
    struct err e = {0};
    int64_t began = clock_ns();
    for (int64_t i = 0; i < job.n; i += A_DOCUMENT) {
        struct vector_document d = {.no = i / A_DOCUMENT,
                                    .content_version = 1,
                                    .n = (size_t)(job.n - i < A_DOCUMENT ? job.n - i : A_DOCUMENT),
                                    .chunk = id,
                                    .v = job.data + i * job.space.dim};
        if (VECTORS_CALL(job.v, put, &job.space, &d, &e) != 0)
            die("put", &e);
    }
    printf("{\"seconds\": %.3f}\n", (double)(clock_ns() - began) / SEC);
}

static int by_value(const void *a, const void *b)
{
    return (*(const int64_t *)a > *(const int64_t *)b) - (*(const int64_t *)a < *(const int64_t *)b);
}

static suspends void search(void)
{
    int64_t *took = malloc(SAMPLES * sizeof *took), began = clock_ns(), n = 0;
    struct rusage before, after;
    struct err e = {0};
    if (!took)
        abort();
    printf("{\"hits\": [");
    for (int64_t round = -job.n;; round++) { /* the first round warms up, and gives the hits */
        struct arena a = {0};
        struct vector_hit *hit;
        size_t found;
        struct vector_query q = {.v = job.data + (round + job.n) % job.n * job.space.dim, .k = K};
        if (round == 0) {
            getrusage(RUSAGE_SELF, &before);
            began = clock_ns();
        }
        int64_t start = clock_ns();
        if (VECTORS_CALL(job.v, search, &a, &job.space, &q, &hit, &found, &e) != 0)
            die("search", &e);
        int64_t now = clock_ns();
        for (size_t i = 0; i < found && round < 0; i++)
            printf("%s%lld%s",
                   i                ? ","
                   : round > -job.n ? ",["
                                    : "[",
                   (long long)((hit[i].no >> 20) * A_DOCUMENT + (hit[i].no & 0xfffff)), i + 1 == found ? "]" : "");
        arena_fini(&a);
        if (round >= 0 && n < SAMPLES)
            took[n++] = now - start;
        if (round >= 0 && (double)(now - began) > job.seconds * (double)SEC)
            break;
    }
    getrusage(RUSAGE_SELF, &after);
    double all = (double)(clock_ns() - began) / SEC;
    double cpu =
        (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
        (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec) /
            1e6;
    qsort(took, (size_t)n, sizeof *took, by_value);
    printf("], \"rate\": %.1f, \"p50\": %.3f, \"p99\": %.3f, \"cpu\": %.3f}\n", (double)n / all,
           (double)took[n / 2] / MS, (double)took[n * 99 / 100] / MS, cpu * 1000 / (double)n);
    free(took);
}

static suspends void run(void *arg)
{
    (void)arg;
    if (job.fill)
        fill();
    else
        search();
    loop_stop();
}

int main(int argc, char **argv)
{
    struct err e = {0};
    char set[4096];
    if (argc < 6)
        return 2;
    job.fill = strcmp(argv[1], "fill") == 0;
    job.n = atoll(argv[4]);
    job.space = (struct vector_space){.collection_no = 1, .generation = 1, .dim = atoi(argv[5])};
    job.seconds = argc > 6 ? atof(argv[6]) : 1;
    size_t bytes = (size_t)job.n * (size_t)job.space.dim * sizeof(float);
    int fd = open(argv[3], O_RDONLY | O_CLOEXEC);
    job.data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd < 0 || job.data == MAP_FAILED)
        return 1;
    snprintf(set, sizeof set, "vectors.path=%s", argv[2]);
    if (config_load(&(struct config_args){.set = (const char *const[]){set}, .n_set = 1}, &job.cfg, &e) != 0 ||
        vectors_open(job.cfg, NULL, &job.v, &e) != 0 || loop_init(&e) != 0 || !fiber_spawn("bench", run, NULL))
        die("start", &e);
    loop_run();
    vectors_close(job.v);
    return 0;
}
