/* `ragd eval`: runs a golden set, prints the figures, and says by its exit code whether they are good enough. */
#include "worker/cli/commands.h"
#include "worker/cli/golden.h"
#include "worker/cli/session.h"
#include "worker/core/eval_report.h"
#include <errno.h>

enum { COLLECTIONS_MAX = 16, SHOWN_MAX = 10 };

struct options {
    const char *collection[COLLECTIONS_MAX], *save, *base, *golden;
    int n_collections, json;
    struct eval_options eval;
    double min_ndcg, min_recall, max_drop; /* negative: no gate */
};

struct run {
    const struct options *o;
    struct eval_set set;
    struct eval_score *score;
    struct eval_report report;
    struct str problem; /* what the gate says, "" = passed */
};

/* ---- files ---- */

static int read_base(struct session *s, const char *path, struct eval_base *out, struct err *e)
{
    struct str text;
    struct err why;
    if (golden_file(&s->arena, path, &text, e) < 0)
        return -1;
    return eval_base_read(&s->arena, text, out, &why) < 0 ? err_set(e, ERR_VALIDATION, "%s: %s", path, why.msg) : 0;
}

/* ---- output ---- */

static void to_json(const struct run *r, struct buf *b)
{
    struct json_out j = json_out(b);
    jo_begin(&j, '{');
    jo_member(&j, "passed"), jo_bool(&j, !r->problem.n);
    jo_member(&j, "problem"), r->problem.n ? jo_str(&j, r->problem) : jo_null(&j);
    eval_report_write(&r->report, &j);
    jo_end(&j, '}');
    buf_ch(b, '\n');
}

static int save(const struct run *r, struct err *e)
{
    struct buf b = {0};
    FILE *f = fopen(r->o->save, "w");
    if (!f)
        return err_set(e, ERR_VALIDATION, "%s: %s", r->o->save, strerror(errno));
    to_json(r, &b);
    size_t n = fwrite(b.p, 1, b.n, f), all = b.n;
    buf_fini(&b);
    if (fclose(f) != 0 || n != all)
        return err_set(e, ERR_STORAGE_FULL, "%s: cannot be written", r->o->save);
    return 0;
}

/* The questions that changed, the greatest losses first. */
static void print_changes(const struct run *r)
{
    size_t shown = 0;
    for (double above = 2, worst; shown < SHOWN_MAX; above = worst) {
        worst = 0;
        for (size_t i = 0; i < r->set.n; i++) {
            double drop = eval_report_before(&r->report, i) - r->score[i].ndcg;
            worst = drop > worst && drop < above ? drop : worst;
        }
        if (worst < 1e-9)
            break;
        for (size_t i = 0; i < r->set.n && shown < SHOWN_MAX; i++)
            if (eval_report_before(&r->report, i) - r->score[i].ndcg == worst) {
                printf("  %.3f -> %.3f  ", eval_report_before(&r->report, i), r->score[i].ndcg);
                session_print(stdout, r->set.question[i].id);
                putchar('\n');
                shown++;
            }
    }
    if (shown < r->report.worse)
        printf("  and %zu more that are worse; --json has all\n", r->report.worse - shown);
}

static void print_human(const struct run *r)
{
    const struct eval_total *t = &r->report.total;
    printf(
        "%zu questions, mode %s\nrecall@%-4d %.4f\nMRR         %.4f\nnDCG@10     %.4f\np50, p99    %.1f ms, %.1f ms\n",
        r->set.n, retrieve_mode_name(r->o->eval.mode), r->o->eval.k, t->recall, t->mrr, t->ndcg,
        (double)t->p50_us / 1000, (double)t->p99_us / 1000);
    if (t->degraded)
        printf("%zu answers were degraded: a backend was away\n", t->degraded);
    if (t->absent)
        printf("%zu relevant documents or chunks are in none of the collections, and count as not found\n", t->absent);
    if (r->report.base.ndcg) {
        printf("nDCG@10 of the base: %.4f; %zu better, %zu worse, %zu not in it\n", r->report.base.total,
               r->report.better, r->report.worse, r->report.fresh);
        print_changes(r);
    }
    if (r->problem.n)
        printf("NOT PASSED: " STR_FMT "\n", STR_ARG(r->problem));
}

/* ---- the run ---- */

/* A degraded answer says nothing about what is measured. */
static struct str gate(struct arena *a, const struct run *r)
{
    const struct options *o = r->o;
    const struct eval_total *t = &r->report.total;
    bool gated = o->min_ndcg >= 0 || o->min_recall >= 0 || o->max_drop >= 0;
    if (gated && t->degraded)
        return arena_printf(a, "%zu answers were degraded", t->degraded);
    if (o->min_ndcg >= 0 && t->ndcg < o->min_ndcg)
        return arena_printf(a, "nDCG@10 is %.4f, less than %.4f", t->ndcg, o->min_ndcg);
    if (o->min_recall >= 0 && t->recall < o->min_recall)
        return arena_printf(a, "recall@%d is %.4f, less than %.4f", o->eval.k, t->recall, o->min_recall);
    if (o->max_drop >= 0 && t->ndcg < r->report.base.total - o->max_drop)
        return arena_printf(a, "nDCG@10 is %.4f, more than %.4f below the %.4f of the base", t->ndcg, o->max_drop,
                            r->report.base.total);
    return STR("");
}

static suspends int evaluate(struct session *s, void *arg, struct err *e)
{
    struct options *o = arg;
    struct run r = {.o = o};
    struct uuid ids[COLLECTIONS_MAX];
    for (int i = 0; i < o->n_collections; i++) {
        struct store_collection c;
        if (STORE_CALL(s->store, collection_by_name, &s->arena, str_of(o->collection[i]), &c, e)) {
            if (e->code == ERR_NOT_FOUND)
                err_set(e, ERR_NOT_FOUND, "there is no collection \"%.100s\"", o->collection[i]);
            return -1;
        }
        ids[i] = c.id;
    }
    o->eval.collections = ids;
    o->eval.n_collections = (size_t)o->n_collections;
    if (golden_set(s, o->golden, &r.set, e) < 0 || (o->base && read_base(s, o->base, &r.report.base, e) < 0))
        return -1;
    r.score = arena_zalloc(&s->arena, r.set.n * sizeof *r.score);
    r.report.set = &r.set;
    r.report.options = &o->eval;
    r.report.score = r.score;
    if (eval_run(&s->backends, &r.set, &o->eval, NULL, r.score, &r.report.total, e) < 0)
        return -1;
    eval_report_compare(&r.report);
    r.problem = gate(&s->arena, &r);
    if (o->save && save(&r, e) < 0)
        return -1;
    struct buf b = {0};
    if (o->json)
        to_json(&r, &b);
    else
        print_human(&r);
    if (b.n)
        fwrite(b.p, 1, b.n, stdout);
    buf_fini(&b);
    return r.problem.n ? CLI_FAILED : CLI_OK;
}

static bool take(struct options *o, char **argv, int c, const struct config *cfg)
{
    switch (c) {
    case 0: return true;
    case 'c':
        if (o->n_collections == COLLECTIONS_MAX)
            return session_usage(argv[0], "at most %d collections can be named", (int)COLLECTIONS_MAX), false;
        o->collection[o->n_collections++] = optarg;
        return true;
    case 'm':
        if (retrieve_mode_parse(str_of(optarg), &o->eval.mode) && o->eval.mode != RETRIEVE_metadata)
            return true;
        return session_usage(argv[0], "--mode: \"%.40s\" is not hybrid, lexical or vector", optarg), false;
    case 'k': return session_number(argv[0], "--k", optarg, 1, cfg->limits_top_k, &o->eval.k);
    case 's': o->save = optarg; return true;
    case 'b': o->base = optarg; return true;
    case 'n': return session_fraction(argv[0], "--min-ndcg", optarg, 0, 1, &o->min_ndcg);
    case 'r': return session_fraction(argv[0], "--min-recall", optarg, 0, 1, &o->min_recall);
    case 'd': return session_fraction(argv[0], "--max-drop", optarg, 0, 1, &o->max_drop);
    default: return false;
    }
}

int cli_eval(int argc, char **argv, const struct config *cfg)
{
    struct options o = {.eval = {.mode = RETRIEVE_hybrid, .k = 10}, .min_ndcg = -1, .min_recall = -1, .max_drop = -1};
    const struct option table[] = {{"collection", required_argument, NULL, 'c'},
                                   {"mode", required_argument, NULL, 'm'},
                                   {"k", required_argument, NULL, 'k'},
                                   {"save", required_argument, NULL, 's'},
                                   {"base", required_argument, NULL, 'b'},
                                   {"min-ndcg", required_argument, NULL, 'n'},
                                   {"min-recall", required_argument, NULL, 'r'},
                                   {"max-drop", required_argument, NULL, 'd'},
                                   {"json", no_argument, &o.json, 1},
                                   {NULL, 0, NULL, 0}};
    int c;
    while ((c = session_option(argc, argv, table)) != -1)
        if (!take(&o, argv, c, cfg))
            return CLI_USAGE;
    if (optind + 1 != argc)
        return session_usage(argv[0],
                             optind == argc ? "the file with the questions is missing" : "one file is expected");
    if (o.max_drop >= 0 && !o.base)
        return session_usage(argv[0], "--max-drop needs --base");
    o.golden = argv[optind];
    return session_run(argv[0], cfg, evaluate, &o);
}
