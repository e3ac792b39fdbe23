#include "common/clock.h"
#include "worker/cli/commands.h"
#include "worker/cli/session.h"
#include <stdio.h>

struct options {
    int wait_s, json;
};

/* Only what may mend itself is worth another try: a database that is still starting. */
static suspends int migrate(struct session *s, void *arg, struct err *e)
{
    const struct options *o = arg;
    int64_t end = clock_ns() + o->wait_s * SEC;
    int applied = 0;
    while (STORE_CALL(s->store, migrate, &applied, e)) {
        if (e->code != ERR_NOT_READY || clock_ns() >= end)
            return -1;
        if (fiber_sleep(200 * MS))
            return err_set(e, ERR_CANCELED, "interrupted");
    }
    if (o->json)
        printf("{\"applied\": %d}\n", applied);
    else if (applied)
        printf("%d migration%s applied\n", applied, applied == 1 ? "" : "s");
    else
        printf("the schema is up to date\n");
    return CLI_OK;
}

int cli_migrate(int argc, char **argv, const struct config *cfg)
{
    struct options o = {0};
    const struct option table[] = {
        {"wait", required_argument, NULL, 'w'}, {"json", no_argument, &o.json, 1}, {NULL, 0, NULL, 0}};
    int c;
    while ((c = session_option(argc, argv, table)) != -1)
        if (c == '?' || (c == 'w' && !session_number(argv[0], "--wait", optarg, 0, 86400, &o.wait_s)))
            return CLI_USAGE;
    if (optind < argc)
        return session_usage(argv[0], "unexpected \"%s\"", argv[optind]);
    return session_run(argv[0], cfg, migrate, &o);
}
