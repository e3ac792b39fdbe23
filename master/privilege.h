/* Who the workers are and what they may: user, groups, root directory, limits. The master stays as it was started, because
 * it binds low ports, opens logs and signals; a worker gives everything up between the fork and its first own line.
 * Names are looked up once, before the server serves: a name service that hangs must not hang it later. */
#pragma once
#include "config/config.h"
#include <sys/types.h>

enum { PRIVILEGE_GROUPS_MAX = 256 };

struct privileges {
    bool change; /* false: the workers are who the master is, and the rest is not looked at */
    uid_t uid;
    gid_t gid;
    gid_t group[PRIVILEGE_GROUPS_MAX]; /* supplementary ones */
    int n_groups;
};

/* Looks up server.user and server.group, and whether this process may become them. ERR_VALIDATION names the key and what
 * to do. May ask a name service: never after the start. */
must_use int privileges_resolve(struct privileges *p, const struct config *cfg, struct err *e);

/* Whether a worker with this configuration could take its limits and its root directory. ERR_VALIDATION: no. */
must_use int privileges_check(const struct privileges *p, const struct config *cfg, struct err *e);

/* What is legal but probably not meant, one line each. */
void privileges_warnings(const struct privileges *p, const struct config *cfg, struct buf *out);

/* In the master, before it makes its first file: server.umask. */
void privileges_umask(const struct config *cfg);

/* In a child: limits, root directory, groups, user, and the way back closed. The signal at the parent's death is lost by
 * this and must be asked for afterwards. On failure the process is in between and must end. */
must_use int privileges_drop(const struct privileges *p, const struct config *cfg, struct err *e);
/* The user and groups alone, with capabilities gone: for programs that the master runs. */
must_use int privileges_become(const struct privileges *p, struct err *e);
