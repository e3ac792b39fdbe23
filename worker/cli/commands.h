/* The functions of the table in cli.c, one file each. */
#pragma once
#include "worker/cli/cli.h"

int cli_migrate(int argc, char **argv, const struct config *cfg);
int cli_seed(int argc, char **argv, const struct config *cfg);
int cli_ingest(int argc, char **argv, const struct config *cfg);
int cli_search(int argc, char **argv, const struct config *cfg);
int cli_health(int argc, char **argv, const struct config *cfg);
