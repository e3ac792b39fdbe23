#include "worker/cache/cache.h"
#include "worker/cli/commands.h"
#include "worker/cli/session.h"
#include "worker/core/recall.h"
#include <stdio.h>

struct options {
    int json;
    bool flush;
};

suspends static int flush(struct session *s, const struct options *o, struct err *e)
{
    struct recall_flushed done;
    if (s->backends.cache && !s->backends.cache->ops->shared)
        return err_set(e, ERR_CONFLICT,
                       "cache.url is memory: what is kept is in the workers; "
                       "POST /api/v1/admin/cache/flush reaches it");
    if (recall_flush(&s->backends, &done, e))
        return -1;
    printf(o->json ? "{\"removed\": %lld}\n" : "%lld key%s removed\n", (long long)done.removed,
           done.removed == 1 ? "" : "s");
    return CLI_OK;
}

suspends static int check(struct session *s, const struct options *o, struct err *e)
{
    if (!s->backends.cache)
        return err_set(e, ERR_NOT_READY, "there is no cache: set cache.url");
    if (cache_ping(s->backends.cache, e))
        return -1;
    puts(o->json ? "{\"ok\": true}" : "the cache answers");
    return CLI_OK;
}

suspends static int work(struct session *s, void *arg, struct err *e)
{
    const struct options *o = arg;
    return o->flush ? flush(s, o, e) : check(s, o, e);
}

int cli_cache(int argc, char **argv, const struct config *cfg)
{
    struct options o = {0};
    const struct option table[] = {{"json", no_argument, &o.json, 1}, {NULL, 0, NULL, 0}};
    int c;
    while ((c = session_option(argc, argv, table)) != -1)
        if (c == '?')
            return CLI_USAGE;
    if (optind == argc)
        return session_usage(argv[0], "what to do is missing: flush or check");
    struct str what = str_of(argv[optind]);
    o.flush = str_eqz(what, "flush");
    if (optind + 1 < argc || (!o.flush && !str_eqz(what, "check")))
        return session_usage(argv[0], "unexpected \"%s\"", argv[optind + 1 < argc ? optind + 1 : optind]);
    return session_run(argv[0], cfg, work, &o);
}
