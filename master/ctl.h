/* The other end of the control socket: the commands that ask a running master. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct config;

struct ctl_command {
    const char *name, *args, *summary;
    const char *help;                                            /* what `ragd NAME --help` prints below that */
    int (*run)(int argc, char **argv, const struct config *cfg); /* argv[0] is the command; returns the exit code */
};
extern const struct ctl_command ctl_commands[]; /* ends with a zeroed entry */

/* ---- for these commands ---- */

/* A connection to the master, or -1 with the reason in errno, and on stderr unless `quiet`. */
int ctl_dial(const struct config *cfg, bool quiet);
/* Sends one command and reads its answer, for at most `patience_s` seconds (0: for ever). Takes `question` over. NULL
 * when no answer comes. */
json_t *ctl_call(int fd, json_t *question, int patience_s);
/* Both in one; on failure, also when the answer is a refusal, NULL with the reason on stderr. */
json_t *ctl_ask(const struct config *cfg, json_t *question, int patience_s);
const char *ctl_text(const json_t *o, const char *key); /* "" when there is none */
long long ctl_number(const json_t *o, const char *key);
/* Reports wrong usage; returns the exit code. */
int ctl_usage(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

int ctl_status(int argc, char **argv, const struct config *cfg);
