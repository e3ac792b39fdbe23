#include "worker/cli/commands.h"
#include "worker/cli/session.h"
#include "worker/core/fsck.h"

struct options {
    int repair, json;
};

static void tell(const struct options *o, const struct fsck_counts *c)
{
    struct buf b = {0};
    if (o->json) {
        fsck_result(&b, c);
        printf(STR_FMT "\n", STR_ARG(buf_view(&b)));
        buf_fini(&b);
        return;
    }
    printf("%lld documents in %lld spaces: %lld missing, %lld orphans, %lld mismatched, %lld wrong aliases, "
           "%lld strays",
           (long long)c->documents, (long long)c->spaces, (long long)c->missing, (long long)c->orphans,
           (long long)c->mismatched, (long long)c->aliases, (long long)c->strays);
    if (o->repair)
        printf(", %lld repaired", (long long)c->repaired);
    putchar('\n');
}

suspends static int run(struct session *s, void *arg, struct err *e)
{
    struct options *o = arg;
    struct fsck_counts c;
    int rc = fsck(&s->backends, o->repair, &c, NULL, e);
    tell(o, &c);
    if (rc)
        return -1;
    return c.missing + c.orphans + c.mismatched + c.aliases + c.strays == c.repaired ? CLI_OK : CLI_FAILED;
}

int cli_fsck(int argc, char **argv, const struct config *cfg)
{
    struct options o = {0};
    const struct option table[] = {
        {"repair", no_argument, &o.repair, 1}, {"json", no_argument, &o.json, 1}, {NULL, 0, NULL, 0}};
    int c;
    while ((c = session_option(argc, argv, table)) != -1)
        if (c == '?')
            return CLI_USAGE;
    if (optind < argc)
        return session_usage(argv[0], "unexpected argument %s", argv[optind]);
    return session_run(argv[0], cfg, run, &o);
}
