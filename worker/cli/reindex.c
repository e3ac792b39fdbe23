#include "worker/cli/commands.h"
#include "worker/cli/golden.h"
#include "worker/cli/session.h"
#include "worker/core/eval_report.h"
#include "worker/core/reindex_gate.h"
#include "worker/io/json.h"
#include <unistd.h>

enum { PAGE = 100 };

struct options {
    enum { BUILD, PROMOTE, ROLLBACK, DROP } what;
    int no_promote, json;
    const char *golden; /* NULL: no gate */
    struct eval_set set;
    struct reindex_gate gate;
    char **name;
    int n;
    struct buf out;
    struct json_out j;
};

suspends static int show(void *arg, int64_t done, int64_t total, struct err *e)
{
    (void)e;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: %lld of %lld documents ", (const char *)arg, (long long)done, (long long)total);
    return 0;
}

suspends static int drop(struct session *s, const struct store_collection *c, struct store_collection *now,
                         struct err *e)
{
    const int64_t others[] = {c->shadow.no, c->previous.no};
    for (int i = 0; i < 2; i++)
        if (others[i] && STORE_CALL(s->store, generation_drop, &c->id, others[i], e))
            return -1;
    return STORE_CALL(s->store, collection_get, &s->arena, &c->id, now, e);
}

/* null: nothing was measured, since the collection is empty. */
static void write_figures(struct json_out *j, const struct reindex_gate *g, const struct eval_total *t)
{
    if (!g->questions) {
        jo_null(j);
        return;
    }
    jo_begin(j, '{');
    eval_total_write(t, j);
    jo_end(j, '}');
}

static void tell(struct options *o, const struct store_collection *c)
{
    const struct reindex_gate *g = &o->gate;
    if (!o->json) {
        session_print(stdout, c->name);
        printf(": generation %lld is searched", (long long)c->generation);
        if (c->embedder.n)
            printf(" (" STR_FMT ", %d dimensions)", STR_ARG(c->embedder), c->dim);
        if (c->shadow.no)
            printf(", %lld is %s", (long long)c->shadow.no, c->shadow_built ? "complete" : "being built");
        if (c->previous.no)
            printf(", %lld is kept", (long long)c->previous.no);
        if (g->questions)
            printf("; nDCG@10 of %zu questions: %.4f, was %.4f%s", g->questions, g->next.ndcg, g->now.ndcg,
                   g->now.degraded ? " by words alone" : "");
        putchar('\n');
        return;
    }
    jo_begin(&o->j, '{');
    jo_member(&o->j, "collection"), jo_str(&o->j, c->name);
    jo_member(&o->j, "generation"), jo_i64(&o->j, c->generation);
    jo_member(&o->j, "embedder"), jo_str(&o->j, c->embedder);
    jo_member(&o->j, "dim"), jo_i64(&o->j, c->dim);
    jo_member(&o->j, "shadow"), jo_i64(&o->j, c->shadow.no);
    jo_member(&o->j, "previous"), jo_i64(&o->j, c->previous.no);
    if (o->golden) {
        jo_member(&o->j, "gate"), jo_begin(&o->j, '{');
        jo_member(&o->j, "questions"), jo_i64(&o->j, (int64_t)g->questions);
        jo_member(&o->j, "before"), write_figures(&o->j, g, &g->now);
        jo_member(&o->j, "after"), write_figures(&o->j, g, &g->next);
        jo_end(&o->j, '}');
    }
    jo_end(&o->j, '}');
}

suspends static int one(struct session *s, struct options *o, const struct store_collection *c, struct err *e)
{
    struct store_collection now;
    struct index_watch watch = {show, (void *)(uintptr_t)c->name.p};
    int rc = -1;
    switch (o->what) {
    case BUILD:
        rc = o->golden ? reindex_gated(&s->backends, &s->arena, &c->id, &o->gate, &watch, &now, e)
                       : reindex_collection(&s->backends, &s->arena, &c->id, !o->no_promote, &watch, &now, e);
        break;
    case PROMOTE: rc = reindex_flip(&s->backends, &s->arena, &c->id, 0, false, &now, e); break;
    case ROLLBACK: rc = reindex_flip(&s->backends, &s->arena, &c->id, 0, true, &now, e); break;
    case DROP: rc = drop(s, c, &now, e); break;
    }
    if (o->what == BUILD && isatty(STDERR_FILENO))
        fputc('\n', stderr);
    if (rc)
        return -1;
    tell(o, &now);
    return 0;
}

suspends static int named(struct session *s, struct options *o, struct err *e)
{
    for (int i = 0; i < o->n; i++) {
        struct store_collection c;
        if (STORE_CALL(s->store, collection_by_name, &s->arena, str_of(o->name[i]), &c, e))
            return e->code == ERR_NOT_FOUND ? err_set(e, ERR_NOT_FOUND, "there is no collection \"%.100s\"", o->name[i])
                                            : -1;
        if (one(s, o, &c, e))
            return -1;
    }
    return 0;
}

/* Those that have nothing to promote, or to go back to, are passed over. */
static bool concerned(const struct options *o, const struct store_collection *c)
{
    return o->what == BUILD || (o->what == PROMOTE && c->shadow.no) ||
           (o->what == ROLLBACK && c->previous.no && c->previous.no < c->generation) ||
           (o->what == DROP && (c->shadow.no || c->previous.no));
}

suspends static int all(struct session *s, struct options *o, struct err *e)
{
    struct store_page page = {.limit = PAGE, .ascending = true};
    bool more = true;
    while (more) {
        struct store_collection *c;
        size_t n;
        if (STORE_CALL(s->store, collection_list, &s->arena, &page, &c, &n, &more, e))
            return -1;
        for (size_t i = 0; i < n; i++)
            if (concerned(o, &c[i]) && one(s, o, &c[i], e))
                return -1;
        if (n) {
            page.has_after = true;
            page.after = c[n - 1].id;
        }
    }
    return 0;
}

suspends static int run(struct session *s, void *arg, struct err *e)
{
    struct options *o = arg;
    o->gate.set = &o->set;
    if (o->golden && golden_set(s, o->golden, &o->set, e))
        return -1;
    o->j = json_out(&o->out);
    jo_begin(&o->j, '[');
    int rc = o->n ? named(s, o, e) : all(s, o, e);
    jo_end(&o->j, ']');
    if (rc == 0 && o->json)
        printf(STR_FMT "\n", STR_ARG(buf_view(&o->out)));
    buf_fini(&o->out);
    return rc ? -1 : CLI_OK;
}

int cli_reindex(int argc, char **argv, const struct config *cfg)
{
    struct options o = {0};
    int promote = 0, rollback = 0, forget = 0, c;
    const struct option table[] = {{"no-promote", no_argument, &o.no_promote, 1},
                                   {"promote", no_argument, &promote, 1},
                                   {"rollback", no_argument, &rollback, 1},
                                   {"drop", no_argument, &forget, 1},
                                   {"gate", required_argument, NULL, 'g'},
                                   {"min-delta", required_argument, NULL, 'd'},
                                   {"json", no_argument, &o.json, 1},
                                   {NULL, 0, NULL, 0}};
    const char *delta = NULL;
    while ((c = session_option(argc, argv, table)) != -1)
        if (c == 'g')
            o.golden = optarg;
        else if (c == 'd')
            delta = optarg;
        else if (c)
            return CLI_USAGE;
    if (delta && !session_fraction(argv[0], "--min-delta", delta, -1, 1, &o.gate.min_delta))
        return CLI_USAGE;
    if (delta && !o.golden)
        return session_usage(argv[0], "--min-delta needs --gate");
    if (o.golden && o.no_promote + promote + rollback + forget)
        return session_usage(argv[0], "--gate decides about promotion: it goes with none of the other actions");
    if (o.no_promote + promote + rollback + forget > 1)
        return session_usage(argv[0], "only one of --no-promote, --promote, --rollback and --drop can be given");
    o.what = promote ? PROMOTE : rollback ? ROLLBACK : forget ? DROP : BUILD;
    o.name = argv + optind;
    o.n = argc - optind;
    return session_run(argv[0], cfg, run, &o);
}
