/* A small corpus to try things on: the files of worker/cli/samples/, built into the binary. */
#include "worker/cli/commands.h"
#include "worker/cli/samples.h"
#include "worker/cli/session.h"
#include "worker/core/extract.h"
#include "worker/fiber/loop.h"
#include "worker/kinds.h"
#include <stdio.h>

enum { SAMPLES_MAX = 64 };

struct seed {
    int json;
    int ready, created, updated;
    size_t n;
    struct uuid document[SAMPLES_MAX];
};

static suspends int put(struct session *s, struct seed *seed, const struct store_collection *c,
                        const struct sample *sample, struct err *e)
{
    struct str name = str_of(sample->name), bytes = str_of(sample->text);
    const char *mime = extract_mime_of_name(name);
    struct store_document_new new = {
        .collection = c->id,
        .external_id = arena_printf(&s->arena, "sample/%s", sample->name),
        .filename = name,
        .title = STR(""),
        .mime = mime ? str_of(mime) : STR("text/plain"),
        .language = STR(""),
        .metadata = STR("{\"source\":\"seed\"}"),
        .tags = STR("[\"sample\"]"),
        .bytes = (int64_t)bytes.n,
        .inline_bytes = bytes,
        .on_duplicate = DUP_LINK,
        .by_external_id = true,
    };
    struct store_document doc;
    struct store_job job;
    enum store_created what;
    sha256_of(bytes.p, bytes.n, &new.sha256);
    if (STORE_CALL(s->store, document_create, &s->arena, &new, &doc, &what, &job, e))
        return -1;
    seed->created += what == STORE_CREATED;
    seed->updated += what == STORE_UPDATED;
    seed->document[seed->n++] = doc.id;
    return 0;
}

/* Works on the queue until all samples are through. The jobs of others that come along are done, too. */
static suspends int work(struct session *s, struct seed *seed, struct err *e)
{
    struct job_runner *runner = job_runner_start(s->cfg, s->store, &s->backends, -1, job_kinds, n_job_kinds);
    int r = 0;
    for (size_t i = 0; i < seed->n && r == 0;) {
        struct store_document doc;
        struct arena a = {0};
        r = STORE_CALL(s->store, document_get, &a, &seed->document[i], &doc, e);
        if (r == 0 && session_document_done(&doc)) {
            seed->ready += doc.state == DOCUMENT_ready;
            i++;
        } else if (r == 0 && fiber_sleep(10 * MS)) {
            r = err_set(e, ERR_CANCELED, "interrupted");
        }
        arena_fini(&a);
    }
    job_runner_cancel(runner);
    while (!job_runner_idle(runner))
        if (fiber_sleep(5 * MS))
            break;
    job_runner_free(runner);
    return r;
}

static suspends int seed_run(struct session *s, void *arg, struct err *e)
{
    struct seed *seed = arg;
    struct store_collection c;
    if (session_collection(s, STR("sample"), STR("Made by `ragd seed`: papers of a small weather station"), &c, e))
        return -1;
    for (const struct sample *sample = samples; sample->name && seed->n < SAMPLES_MAX; sample++)
        if (put(s, seed, &c, sample, e))
            return -1;
    if (work(s, seed, e))
        return -1;
    if (seed->json)
        printf("{\"collection\": \"sample\", \"documents\": %zu, \"ready\": %d, \"created\": %d, \"updated\": %d}\n",
               seed->n, seed->ready, seed->created, seed->updated);
    else
        printf("collection sample: %d of %zu documents are ready, %d created, %d updated\n", seed->ready, seed->n,
               seed->created, seed->updated);
    return (size_t)seed->ready == seed->n ? CLI_OK : CLI_FAILED;
}

int cli_seed(int argc, char **argv, const struct config *cfg)
{
    struct seed seed = {0};
    const struct option table[] = {{"json", no_argument, &seed.json, 1}, {NULL, 0, NULL, 0}};
    int c;
    while ((c = session_option(argc, argv, table)) != -1)
        if (c == '?')
            return CLI_USAGE;
    if (optind < argc)
        return session_usage(argv[0], "unexpected \"%s\"", argv[optind]);
    return session_run(argv[0], cfg, seed_run, &seed);
}
