/* What the commands share: options, errors, and one fiber on a loop of its own with an open store. */
#pragma once
#include "common/arena.h"
#include "worker/cli/cli.h"
#include "worker/core/backends.h"
#include <getopt.h>
#include <stdio.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_CONFIG = 78 };

struct session {
    const char *command;
    const struct config *cfg;
    struct backends backends;
    struct store *store; /* backends.store */
    struct arena arena;  /* until the command ends */
};

/* Runs `fn` with an open store. Its result is the exit code, unless it is -1: then `e` is reported. */
int session_run(const char *command, const struct config *cfg, int (*fn)(struct session *s, void *arg, struct err *e),
                void *arg);

/* "ragd COMMAND: …" on stderr; the exit codes CLI_FAILED and CLI_USAGE. */
int session_error(const char *command, const struct err *e);
int session_usage(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* getopt_long() that reports in our words: the next option, -1 at the end, '?' after a report. */
int session_option(int argc, char **argv, const struct option *options);
/* A number of the command line; false after a report. */
bool session_number(const char *command, const char *option, const char *text, int64_t min, int64_t max, int *out);
bool session_fraction(const char *command, const char *option, const char *text, double min, double max, double *out);

/* The collection of this name, made when there is none. */
suspends must_use int session_collection(struct session *s, struct str name, struct str description,
                                         struct store_collection *out, struct err *e);

/* The ids of collections by name; all must be there. */
suspends must_use int session_collections(struct session *s, const char *const *names, int n, struct uuid *out,
                                          struct err *e);

/* True when the document is through: ready, failed or cancelled. */
bool session_document_done(const struct store_document *d);

/* Text for a terminal or a log: control characters and invalid UTF-8 become '?', line ends a space. */
void session_print(FILE *f, struct str text);
