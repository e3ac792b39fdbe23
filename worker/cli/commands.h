/* The functions of the table in cli.c, one file each. */
#pragma once
#include "worker/cli/cli.h"

int cli_migrate(int argc, char **argv, const struct config *cfg);
int cli_seed(int argc, char **argv, const struct config *cfg);
int cli_ingest(int argc, char **argv, const struct config *cfg);
int cli_search(int argc, char **argv, const struct config *cfg);
int cli_ask(int argc, char **argv, const struct config *cfg);
int cli_eval(int argc, char **argv, const struct config *cfg);
int cli_cache(int argc, char **argv, const struct config *cfg);
int cli_reindex(int argc, char **argv, const struct config *cfg);
int cli_fsck(int argc, char **argv, const struct config *cfg);
int cli_export(int argc, char **argv, const struct config *cfg);
int cli_import(int argc, char **argv, const struct config *cfg);
int cli_health(int argc, char **argv, const struct config *cfg);
