#include "worker/api/api.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* Faults on demand, for tests of the supervisor. Without debug.faults these routes do not exist. */
static int allowed(struct request *r, const char *const *query, struct err *e)
{
    if (!r->cfg->debug_faults)
        return err_set(e, ERR_NOT_FOUND, "Nothing is served at this path");
    return request_query_only(r, query, e);
}

static void reply_done(struct request *r)
{
    struct json_out o = api_reply(r, 200);
    jo_begin(&o, '{');
    jo_member(&o, "status"), jo_strz(&o, "done");
    jo_member(&o, "pid"), jo_i64(&o, getpid());
    jo_end(&o, '}');
}

suspends int api_debug_sleep(struct request *r, struct err *e)
{
    static const char *const query[] = {"ms", NULL};
    int64_t ms;
    if (allowed(r, query, e) || request_query_int(r, "ms", 1000, 0, 3600000, &ms, e))
        return -1;
    int why = fiber_sleep(ms * MS);
    if (why)
        return err_set(e, why == -ETIMEDOUT ? ERR_DEADLINE : ERR_CANCELED, "The sleep was interrupted");
    reply_done(r);
    return 0;
}

int api_debug_spin(struct request *r, struct err *e)
{
    static const char *const query[] = {"ms", NULL};
    int64_t ms, until;
    if (allowed(r, query, e) || request_query_int(r, "ms", 1000, 0, 3600000, &ms, e))
        return -1;
    for (until = clock_ns() + ms * MS; clock_ns() < until;)
        ;
    reply_done(r);
    return 0;
}

int api_debug_crash(struct request *r, struct err *e)
{
    static const char *const query[] = {"signal", NULL};
    int64_t signo;
    if (allowed(r, query, e) || request_query_int(r, "signal", SIGSEGV, 1, 31, &signo, e))
        return -1;
    signal((int)signo, SIG_DFL);
    raise((int)signo);
    reply_done(r);
    return 0;
}

int api_debug_leak(struct request *r, struct err *e)
{
    static const char *const query[] = {"mb", NULL};
    static char **leaked; /* keeps what is leaked reachable, so that only memory limits notice */
    int64_t mb;
    if (allowed(r, query, e) || request_query_int(r, "mb", 1, 0, 65536, &mb, e))
        return -1;
    for (int64_t i = 0; i < mb; i++) {
        char **block = malloc(1 << 20);
        if (!block)
            return err_set(e, ERR_OVERLOADED, "No memory is left to leak");
        memset(block, 1, 1 << 20);
        *block = (char *)leaked;
        leaked = block;
    }
    reply_done(r);
    return 0;
}
