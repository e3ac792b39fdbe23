/* The promises of the vector index on Qdrant: its real engine behind tests/qdrant_front.py, or the server that
 * QDRANT_URL names. */
#include "tests/contract/qdrant_filters.h"
#include "tests/unit/vectors.h"
#include "worker/io/httpc.h"
#include "worker/io/json.h"
#include <fcntl.h>

static struct {
    bool real; /* the one of QDRANT_URL */
    pid_t pid;
    int stdin_fd;
    char url[256], dir[64];
} server;
static struct httpc *http;
static const char *key = "secret";
static char prefix[80];

/* With the Python of the venv that has what the front needs: build/venv, or the one that RAGD_TEST_VENV names. */
static bool start_front(void)
{
    int in[2], out[2];
    char program[512], line[32] = "";
    const char *venv = getenv("RAGD_TEST_VENV");
    snprintf(program, sizeof program, "%s/bin/python3", venv ? venv : "build/venv");
    snprintf(server.dir, sizeof server.dir, "/tmp/ragd-qdrant.XXXXXX");
    if (access(program, X_OK) != 0 || pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || !mkdtemp(server.dir))
        return false;
    server.pid = fork();
    if (server.pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execl(program, program, "tests/qdrant_front.py", server.dir, key, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    server.stdin_fd = in[1];
    FILE *f = fdopen(out[0], "r");
    bool told = f && fgets(line, sizeof line, f) && strchr(line, '\n'); /* nothing when a package is missing */
    if (f)
        fclose(f);
    snprintf(server.url, sizeof server.url, "http://127.0.0.1:%d", told ? atoi(line) : 0);
    return told;
}

static int stop_server(void **state)
{
    (void)state;
    if (server.pid > 0) {
        close(server.stdin_fd); /* which ends it */
        while (waitpid(server.pid, NULL, 0) < 0 && errno == EINTR)
            ;
        nftw(server.dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
    return 0;
}

static bool have_server(void)
{
    const char *real = getenv("QDRANT_URL");
    if (!*server.url && real && *real) {
        server.real = true;
        key = getenv("QDRANT_API_KEY") ? getenv("QDRANT_API_KEY") : "";
        snprintf(server.url, sizeof server.url, "%s", real);
    } else if (!*server.url && !start_front()) {
        snprintf(server.url, sizeof server.url, "none");
    }
    return strcmp(server.url, "none") != 0;
}

static suspends int ask(struct world *w, const char *method, const char *path, const char *text);

/* A real server is left as it was. */
static suspends void clean_up(struct world *w)
{
    char path[200];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "/collections/%s_g%d_d%d", prefix, i % 2 + 1, i < 2 ? 24 : 4);
        ask(w, "DELETE", path, "");
    }
}

static suspends void body(void *arg)
{
    struct world *w = arg;
    if (setjmp(w->failed) == 0) {
        ok(w, httpc_open(w->cfg, &http, &w->e));
        ok(w, vectors_open(w->cfg, http, &w->v, &w->e));
        w->fn(w);
        if (server.real)
            clean_up(w);
    }
    vectors_close(w->v);
    httpc_close(http);
    loop_stop();
}

static const char *const cluster[] = {"vectors.shards=3", "vectors.replicas=2", "vectors.write_consistency=2",
                                      "vectors.write_ordering=strong"};
static int n_more; /* of them that the next test wants */

static void run(void (*fn)(struct world *), const char *url, const char *with_key)
{
    static int n;
    struct world w;
    struct err e;
    char set[3][300];
    if (!have_server()) {
        if (getenv("CI"))
            fail_msg("qdrant-edge-py and qdrant-client are not in build/venv: deploy/install-pypi.sh");
        skip();
    }
    world_begin(&w);
    config_free(w.cfg);
    snprintf(prefix, sizeof prefix, "ragd-test-%d-%d", (int)getpid(), n++);
    snprintf(set[0], sizeof set[0], "vectors.url=%s", url ? url : server.url);
    snprintf(set[1], sizeof set[1], "vectors.prefix=%s", prefix);
    snprintf(set[2], sizeof set[2], "vectors.api_key=%s", with_key ? with_key : key);
    const char *sets[16] = {set[0], set[1], set[2]};
    for (int i = 0; i < n_more; i++)
        sets[3 + i] = cluster[i];
    if (config_load(&(struct config_args){.set = sets, .n_set = 3 + n_more}, &w.cfg, &e) != 0)
        fail_msg("%s", e.msg);
    w.fn = fn;
    if (loop_init(&e) < 0 || !fiber_spawn("test", body, &w))
        fail_msg("%s", e.msg);
    loop_run();
    fiber_fini();
    loop_fini();
    arena_fini(&w.a);
    world_end(&w);
}

/* A request to the server itself. */
static suspends int ask_for(struct world *w, const char *method, const char *path, const char *text, json_t **result)
{
    struct httpc_header header[] = {{"Content-Type", STR("application/json")}, {"api-key", str_of(key)}};
    struct httpc_request q = {.method = method,
                              .url = arena_printf(&w->a, "%s%s", w->cfg->vectors_url, path),
                              .header = header,
                              .n_header = 2,
                              .body = str_of(text),
                              .timeout_ms = 20000};
    struct httpc_reply r;
    ok(w, httpc_do(http, &w->a, &q, &r, &w->e));
    if (result) {
        json_t *json;
        ok(w, json_parse_object(&w->a, r.body, 64, &json, &w->e));
        *result = json_object_get(json, "result");
    }
    return r.status;
}

static suspends int ask(struct world *w, const char *method, const char *path, const char *text)
{
    return ask_for(w, method, path, text, NULL);
}

/* ---- what every product promises ---- */

static suspends void it_finds_what_was_put(struct world *w)
{
    struct vector_entry *entry;
    struct vector_hit *hit;
    size_t n;
    struct vector_query q = {.v = vectors_of(&w->a, 1, 1, w->s.dim), .k = 10};
    ok(w, VECTORS_CALL(w->v, check, &w->e));
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 0);
    same(w, list_all(w, &entry), 0);
    ok(w, take(w, 4));
    ok(w, put(w, 5, 1, 3));
    ok(w, put(w, 3, 1, 600)); /* more than a call takes */
    finds(w, 5, 1, 3, 2);
    finds(w, 3, 1, 600, 599);
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 10);
    for (size_t i = 1; i < n; i++)
        must(w, hit[i - 1].score >= hit[i].score);
    int64_t allowed[] = {1, 5};
    q.allowed = allowed;
    q.n_allowed = 2;
    ok(w, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    same(w, n, 3);
}

static suspends void a_document_is_replaced_and_removed_as_a_whole(struct world *w)
{
    struct vector_entry *entry;
    ok(w, put(w, 1, 1, 8));
    ok(w, put(w, 2, 1, 8));
    ok(w, put(w, 1, 2, 4));
    ok(w, put(w, 1, 2, 4));
    finds(w, 1, 2, 4, 3);
    same(w, list_all(w, &entry), 2);
    same(w, entry[0].points, 4);
    same(w, entry[0].content_version, 2);
    ok(w, put(w, 1, 2, 3)); /* the same version, cut otherwise */
    same(w, list_all(w, &entry), 2);
    same(w, entry[0].points, 3);
    int64_t several[] = {9, 2};
    ok(w, VECTORS_CALL(w->v, remove, &w->s, several, 2, &w->e));
    same(w, list_all(w, &entry), 1);
    same(w, entry[0].document_no, 1);
}

static suspends void collections_and_generations_are_apart(struct world *w)
{
    struct vector_entry *entry;
    struct vector_space mine = w->s, neighbour = w->s, next = w->s;
    neighbour.collection = uuid_v7();
    neighbour.collection_no++;
    next.generation = 2;
    ok(w, put_in(w->v, &w->a, &mine, 1, 1, 2, &w->e));
    ok(w, put_in(w->v, &w->a, &neighbour, 1, 1, 3, &w->e));
    ok(w, put_in(w->v, &w->a, &next, 1, 1, 4, &w->e));
    ok(w, VECTORS_CALL(w->v, drop, &mine, &w->e));
    ok(w, VECTORS_CALL(w->v, drop, &mine, &w->e));
    same(w, list_all(w, &entry), 0);
    w->s = neighbour;
    same(w, list_all(w, &entry), 1);
    same(w, entry[0].points, 3);
    ok(w, VECTORS_CALL(w->v, drop, &neighbour, &w->e));
    w->s = next;
    finds(w, 1, 1, 4, 3);
}

/* More points than a page, also of one document, and pages that end within one. */
static suspends void a_list_goes_over_many_pages(struct world *w)
{
    struct vector_entry *entry;
    size_t n;
    w->s.dim = 4;
    static const int64_t points[] = {700, 700, 1300, 1, 2, 1000};
    for (int64_t no = 0; no < 6; no++)
        ok(w, put(w, no + 1, no + 1, (size_t)points[no]));
    same(w, list_all(w, &entry), 6);
    for (int64_t no = 0; no < 6; no++) {
        same(w, entry[no].document_no, no + 1);
        same(w, entry[no].content_version, no + 1);
        same(w, entry[no].points, points[no]);
    }
    ok(w, VECTORS_CALL(w->v, list, &w->a, &w->s, 2, 2, &entry, &n, &w->e));
    same(w, n, 2);
    same(w, entry[0].points, 1300);
    same(w, entry[1].points, 1);
}

/* ---- a cluster ---- */

static suspends int64_t param(struct world *w, const char *name)
{
    char path[200];
    json_t *info;
    snprintf(path, sizeof path, "/collections/%s_g1_d24", prefix);
    same(w, ask_for(w, "GET", path, "", &info), 200);
    return json_integer_value(json_object_get(json_object_get(json_object_get(info, "config"), "params"), name));
}

static suspends bool last_ordering_is(struct world *w, const char *ordering)
{
    json_t *last;
    same(w, ask_for(w, "GET", "/front", "", &last), 200);
    return strcmp(json_string_value(json_object_get(last, "ordering")), ordering) == 0;
}

static suspends void settings_of_a_cluster_are_sent(struct world *w)
{
    int64_t no = 1;
    struct vector_document d = {.no = 1, .metadata = STR("{}"), .tags = STR("[]")};
    ok(w, put(w, 1, 1, 2));
    same(w, param(w, "shard_number"), 3);
    same(w, param(w, "replication_factor"), 2);
    same(w, param(w, "write_consistency_factor"), 2);
    must(w, last_ordering_is(w, "strong"));
    ok(w, VECTORS_CALL(w->v, describe, &w->s, &d, &w->e));
    must(w, last_ordering_is(w, "strong"));
    ok(w, VECTORS_CALL(w->v, remove, &w->s, &no, 1, &w->e));
    must(w, last_ordering_is(w, "strong"));
}

static suspends void without_settings_there_is_one_shard(struct world *w)
{
    ok(w, put(w, 1, 1, 2));
    same(w, param(w, "shard_number"), 1);
    same(w, param(w, "replication_factor"), 1);
    must(w, server.real || last_ordering_is(w, "weak"));
}

/* ---- aliases ---- */

static suspends bool leads_to(struct world *w, const struct vector_space *s)
{
    bool yes;
    ok(w, VECTORS_CALL(w->v, has_alias, s, &yes, &w->e));
    return yes;
}

static suspends void alias(struct world *w, const struct vector_space *s, bool anew, bool changes)
{
    bool changed;
    ok(w, VECTORS_CALL(w->v, alias, s, anew, &changed, &w->e));
    same(w, changed, changes);
}

static suspends void an_alias_leads_to_what_is_searched(struct world *w)
{
    char path[200], id[UUID_TEXT_LEN + 1] = {0}, body[400];
    struct vector_space next = w->s, neighbour = w->s;
    next.generation = 2;
    neighbour.collection = uuid_v7();
    uuid_text(&w->s.collection, id);
    snprintf(path, sizeof path, "/collections/%s_%s", prefix, id);
    must(w, !leads_to(w, &w->s));
    same(w, ask(w, "GET", path, ""), 404);
    alias(w, &w->s, false, true); /* which makes the space */
    must(w, leads_to(w, &w->s) && !leads_to(w, &neighbour) && !leads_to(w, &next));
    same(w, ask(w, "GET", path, ""), 200);
    alias(w, &w->s, false, false);
    alias(w, &neighbour, false, true);
    ok(w, put(w, 1, 1, 2));
    alias(w, &next, false, true);
    must(w, leads_to(w, &next) && !leads_to(w, &w->s) && leads_to(w, &neighbour));
    alias(w, &w->s, false, true);
    must(w, leads_to(w, &w->s) && !leads_to(w, &next));
    ok(w, VECTORS_CALL(w->v, drop, &next, &w->e)); /* not where it leads */
    must(w, leads_to(w, &w->s));

    /* somebody takes it away, which this process does not know */
    snprintf(body, sizeof body, "{\"actions\":[{\"delete_alias\":{\"alias_name\":\"%s_%s\"}}]}", prefix, id);
    same(w, ask(w, "POST", "/collections/aliases", body), 200);
    must(w, !leads_to(w, &w->s));
    alias(w, &w->s, false, false);
    alias(w, &w->s, true, true);
    must(w, leads_to(w, &w->s));

    /* and the collection with it */
    snprintf(body, sizeof body, "/collections/%s_g1_d24", prefix);
    same(w, ask(w, "DELETE", body, ""), 200);
    must(w, !leads_to(w, &w->s));
    alias(w, &w->s, true, true);
    must(w, leads_to(w, &w->s));

    ok(w, VECTORS_CALL(w->v, drop, &w->s, &w->e));
    must(w, !leads_to(w, &w->s));
    same(w, ask(w, "GET", path, ""), 404);
    alias(w, &w->s, false, true); /* forgotten with the drop */
    ok(w, VECTORS_CALL(w->v, drop, &w->s, &w->e));
    ok(w, VECTORS_CALL(w->v, drop, &neighbour, &w->e));
}

static suspends void an_alias_does_not_hide_a_collection(struct world *w)
{
    char path[200], id[UUID_TEXT_LEN + 1] = {0};
    bool changed;
    uuid_text(&w->s.collection, id);
    snprintf(path, sizeof path, "/collections/%s_%s", prefix, id);
    same(w, ask(w, "PUT", path, "{\"vectors\":{\"dense\":{\"size\":5,\"distance\":\"Dot\"}}}"), 200);
    fails(w, ERR_CONFLICT, VECTORS_CALL(w->v, alias, &w->s, true, &changed, &w->e));
    must(w, strstr(w->e.msg, "vectors.prefix"));
    same(w, ask(w, "DELETE", path, ""), 200);
}

/* ---- a server that does not do what it should ---- */

static suspends void it_tries_again_and_gives_up(struct world *w)
{
    struct vector_entry *entry;
    if (server.real)
        return;
    ok(w, put(w, 1, 1, 2));
    same(w, ask(w, "POST", "/front", "{\"status\":503,\"times\":2}"), 200);
    finds(w, 1, 1, 2, 1);
    same(w, ask(w, "POST", "/front", "{\"status\":500,\"times\":3}"), 200);
    fails(w, ERR_NOT_READY, put(w, 1, 2, 2));
    must(w, strstr(w->e.log, "on order"));
    same(w, ask(w, "POST", "/front", "{\"status\":429,\"times\":9,\"retry_after\":30}"), 200);
    fiber_set_deadline(fiber_self(), clock_ns() + 300 * MS);
    fails(w, ERR_DEADLINE, put(w, 1, 2, 2));
    fiber_set_deadline(fiber_self(), 0);
    same(w, ask(w, "POST", "/front", "{\"status\":507,\"times\":1}"), 200);
    fails(w, ERR_STORAGE_FULL, put(w, 1, 2, 2));
    same(w, ask(w, "POST", "/front", "{\"status\":400,\"times\":1}"), 200);
    fails(w, ERR_PROVIDER, put(w, 1, 2, 2));
    same(w, ask(w, "POST", "/front", "{\"update\":\"acknowledged\"}"), 200);
    fails(w, ERR_NOT_READY, put(w, 1, 2, 2)); /* it only may be done */
    ok(w, put(w, 1, 2, 2));
    same(w, list_all(w, &entry), 1);
    same(w, entry[0].points, 2);
}

static suspends void a_collection_that_vanishes_is_made_again(struct world *w)
{
    char path[200];
    struct vector_entry *entry;
    ok(w, put(w, 1, 1, 2));
    snprintf(path, sizeof path, "/collections/%s_g1_d24", prefix);
    if (server.real)
        return;
    same(w, ask(w, "DELETE", path, ""), 200);
    same(w, list_all(w, &entry), 0);
    ok(w, take(w, 1));
    ok(w, put(w, 2, 1, 3));
    finds(w, 2, 1, 3, 2);
    same(w, ask(w, "DELETE", path, ""), 200);
    ok(w, put(w, 2, 1, 3));
    finds(w, 2, 1, 3, 2);
}

static suspends void another_kind_of_collection_is_refused(struct world *w)
{
    char path[200];
    if (server.real)
        return;
    snprintf(path, sizeof path, "/collections/%s_g1_d24", prefix);
    same(w, ask(w, "PUT", path, "{\"vectors\":{\"dense\":{\"size\":5,\"distance\":\"Dot\"}}}"), 200);
    fails(w, ERR_CONFLICT, put(w, 1, 1, 1));
}

static suspends void without_its_key(struct world *w)
{
    fails(w, ERR_NOT_READY, put(w, 1, 1, 1));
    must(w, strstr(w->e.msg, "vectors.api_key"));
    fails(w, ERR_NOT_READY, VECTORS_CALL(w->v, check, &w->e));
}

static suspends void nobody_there(struct world *w)
{
    struct vector_hit *hit;
    size_t n;
    struct vector_query q = {.v = vectors_of(&w->a, 1, 1, w->s.dim), .k = 1};
    fails(w, ERR_NOT_READY, VECTORS_CALL(w->v, check, &w->e));
    fails(w, ERR_NOT_READY, VECTORS_CALL(w->v, search, &w->a, &w->s, &q, &hit, &n, &w->e));
    fails(w, ERR_NOT_READY, put(w, 1, 1, 1));
}

#define TESTS(X)                                        \
    X(it_finds_what_was_put)                            \
    X(a_document_is_replaced_and_removed_as_a_whole)    \
    X(collections_and_generations_are_apart)            \
    X(a_list_goes_over_many_pages)                      \
    X(the_best_of_each_document)                        \
    X(filters_mean_what_they_mean_elsewhere)            \
    X(documents_stand_for_a_filter_that_cannot_be_said) \
    X(describing_changes_what_filters_see)              \
    X(an_alias_leads_to_what_is_searched)               \
    X(an_alias_does_not_hide_a_collection)              \
    X(without_settings_there_is_one_shard)              \
    X(it_tries_again_and_gives_up)                      \
    X(a_collection_that_vanishes_is_made_again)         \
    X(another_kind_of_collection_is_refused)

#define X(fn)                         \
    static void on_##fn(void **state) \
    {                                 \
        (void)state;                  \
        run(fn, NULL, NULL);          \
    }
TESTS(X)
#undef X

static void on_a_wrong_key(void **state)
{
    (void)state;
    if (!(getenv("QDRANT_URL") && *getenv("QDRANT_URL")))
        run(without_its_key, NULL, "wrong");
}

static void on_a_cluster(void **state) /* a server of one node would wait for the others */
{
    (void)state;
    if (getenv("QDRANT_URL") && *getenv("QDRANT_URL"))
        return;
    n_more = sizeof cluster / sizeof *cluster;
    run(settings_of_a_cluster_are_sent, NULL, NULL);
    n_more = 0;
}

static void on_nobody_there(void **state)
{
    (void)state;
    run(nobody_there, "http://127.0.0.1:1", NULL);
}

int main(void)
{
#define X(fn) cmocka_unit_test(on_##fn),
    const struct CMUnitTest tests[] = {TESTS(X) cmocka_unit_test(on_a_cluster), cmocka_unit_test(on_a_wrong_key),
                                       cmocka_unit_test(on_nobody_there)};
    log_init(LOG_ERROR, false, "test");
    return cmocka_run_group_tests(tests, NULL, stop_server);
}
