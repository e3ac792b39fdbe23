/* Commands that touch data. Each is a one-shot worker: its own loop, store and fibers, no master. */
#pragma once
#include "config/config.h"

struct cli_command {
    const char *name, *args, *summary;
    const char *help; /* everything that `ragd NAME --help` prints below the usage line */
    int (*run)(int argc, char **argv, const struct config *cfg); /* argv[0] is the command; returns the exit code */
};
extern const struct cli_command cli_commands[]; /* ends with a zeroed entry */

/* For `ragd check`: whether database.url can be used, as far as that is known without connecting. */
must_use int cli_check(const struct config *cfg, struct err *e);

/* `ragd cage-broker FD`: nothing that people call; worker/core/cage.h. */
int cli_cage_broker(const char *fd);

/* `ragd version`: needs no configuration, so that it works with a broken one. */
void cli_version(bool json);
