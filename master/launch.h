/* How this process was started, and how the same is started again: the binary by the path it was called by, so that a
 * symbolic link that was switched to a new release is followed; its arguments and its environment. The working directory
 * need not be kept: the master never leaves it. */
#pragma once
#include "common/err.h"
#include <sys/types.h>

struct launch {
    char *path; /* of the binary, absolute; symbolic links as they were given */
    char **argv, **envp;
};

/* Name of the variable that says which descriptor holds the estate: master/estate.h. */
#define LAUNCH_ESTATE "RAGD_UPGRADE_FD"

/* Copies what it keeps. */
void launch_init(struct launch *l, char *const *argv, char *const *envp);
void launch_fini(struct launch *l);

/* Takes the place of this process: runs the binary at `path` (NULL: the one of `image`) with the arguments `argv` (NULL:
 * those of the start). It inherits stdin, stdout, stderr and `keep`, nothing else. `estate` -1: without one. The signals
 * stay blocked as they are, and those that are pending stay so. Returns only on failure, with errno; then the descriptors
 * are closed on exec again. */
void launch_exec(const struct launch *l, const char *path, int image, char *const *argv, const int *keep, int n_keep,
                 int estate);
