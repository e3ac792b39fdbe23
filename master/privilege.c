#include "master/privilege.h"
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum core { CORE_INHERITED, CORE_NONE, CORE_UNLIMITED }; /* server.limit_core */
enum { OWN_DESCRIPTORS = 64 }; /* of a worker, beside its connections: database, logs, files */

static int find_user(struct privileges *p, const char *name, const char **login, struct err *e);
static int find_group(struct privileges *p, const char *name, struct err *e);
static int may_change(const struct privileges *p, struct err *e);

int privileges_resolve(struct privileges *p, const struct config *cfg, struct err *e)
{
    const char *login = NULL;
    *p = (struct privileges){.uid = geteuid(), .gid = getegid()};
    if (*cfg->server_user && find_user(p, cfg->server_user, &login, e) != 0)
        return -1;
    if (*cfg->server_group && find_group(p, cfg->server_group, e) != 0)
        return -1;
    if (p->gid == (gid_t)-1)
        return err_set(e, ERR_VALIDATION,
                       "server.user: uid %u has no entry in the list of users: set server.group, too",
                       (unsigned)p->uid);
    p->change = p->uid != geteuid() || p->gid != getegid();
    if (!p->change)
        return 0;
    p->group[0] = p->gid;
    p->n_groups = login ? PRIVILEGE_GROUPS_MAX : 1;
    if (login && getgrouplist(login, p->gid, p->group, &p->n_groups) < 0)
        return err_set(e, ERR_VALIDATION, "server.user: '%s' belongs to more than %d groups", login,
                       PRIVILEGE_GROUPS_MAX);
    return may_change(p, e);
}

/* Numbers are taken as they are; the last one means "unchanged" to the kernel. */
static bool number_of(const char *name, unsigned *out)
{
    uint64_t n;
    if (!str_to_u64(str_of(name), &n) || n >= UINT32_MAX)
        return false;
    *out = (unsigned)n;
    return true;
}

/* *login lives until the next look-up. */
static int find_user(struct privileges *p, const char *name, const char **login, struct err *e)
{
    errno = 0;
    bool number = number_of(name, &p->uid);
    const struct passwd *pw = number ? getpwuid(p->uid) : getpwnam(name);
    if (!pw && !number)
        return err_set(e, ERR_VALIDATION, "server.user: there is no user '%.60s' on this machine%s%s", name,
                       errno && errno != ENOENT ? ": " : "", errno && errno != ENOENT ? strerror(errno) : "");
    if (pw) {
        *login = pw->pw_name;
        p->uid = pw->pw_uid;
    }
    if (p->uid != geteuid()) /* else the group that it was started with is as good as the one in the list */
        p->gid = pw ? pw->pw_gid : (gid_t)-1;
    return 0;
}

static int find_group(struct privileges *p, const char *name, struct err *e)
{
    if (number_of(name, &p->gid))
        return 0;
    errno = 0;
    const struct group *gr = getgrnam(name);
    if (!gr)
        return err_set(e, ERR_VALIDATION, "server.group: there is no group '%.60s' on this machine%s%s", name,
                       errno && errno != ENOENT ? ": " : "", errno && errno != ENOENT ? strerror(errno) : "");
    p->gid = gr->gr_gid;
    return 0;
}

/* -- may we */

static bool capable(int capability)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capget, &head, data) != 0)
        return geteuid() == 0;
    return data[CAP_TO_INDEX(capability)].effective & CAP_TO_MASK(capability);
}

static int may_change(const struct privileges *p, struct err *e)
{
    static const struct {
        int capability;
        const char *name;
    } needed[] = {
        {CAP_SETGID, "CAP_SETGID"},
        {CAP_SETUID, "CAP_SETUID"},
        {CAP_KILL, "CAP_KILL"}, /* the master signals workers that are somebody else */
        {CAP_CHOWN, "CAP_CHOWN"},
    };
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!capable(needed[i].capability))
            return err_set(e, ERR_VALIDATION,
                           "server.user: the master is uid %u without %s and cannot start workers as uid %u, gid %u: "
                           "start it as root, or as that user with server.user and server.group empty",
                           (unsigned)geteuid(), needed[i].name, (unsigned)p->uid, (unsigned)p->gid);
    return 0;
}

/* -- limits */

static struct rlimit nofile_wanted(const struct config *cfg)
{
    struct rlimit l = {0};
    getrlimit(RLIMIT_NOFILE, &l);
    l.rlim_cur = cfg->server_limit_nofile ? (rlim_t)cfg->server_limit_nofile : l.rlim_max;
    if (l.rlim_cur > l.rlim_max)
        l.rlim_max = l.rlim_cur;
    return l;
}

static int nofile_failed(const struct config *cfg, struct err *e)
{
    int error = errno;
    struct rlimit now = {0};
    getrlimit(RLIMIT_NOFILE, &now);
    return err_set(e, ERR_VALIDATION,
                   "server.limit_nofile: %lld is not possible (%s), the hard limit is %llu: raise that (LimitNOFILE=, "
                   "--ulimit nofile=, ulimit -Hn), or start as root",
                   (long long)cfg->server_limit_nofile, strerror(error), (unsigned long long)now.rlim_max);
}

static int set_limits(const struct config *cfg, struct err *e)
{
    struct rlimit nofile = nofile_wanted(cfg), core;
    if (setrlimit(RLIMIT_NOFILE, &nofile) != 0)
        return nofile_failed(cfg, e);
    if (cfg->server_limit_core == CORE_INHERITED)
        return 0;
    if (getrlimit(RLIMIT_CORE, &core) != 0)
        return err_errno(e, "server.limit_core");
    if (cfg->server_limit_core == CORE_NONE)
        core.rlim_max = 0;
    core.rlim_cur = core.rlim_max; /* unlimited: as far as a worker may go without rights of its own */
    return setrlimit(RLIMIT_CORE, &core) == 0 ? 0 : err_errno(e, "server.limit_core");
}

int privileges_check(const struct privileges *p, const struct config *cfg, struct err *e)
{
    struct rlimit was, want = nofile_wanted(cfg);
    struct stat st;
    if (getrlimit(RLIMIT_NOFILE, &was) != 0)
        return err_errno(e, "server.limit_nofile");
    if (setrlimit(RLIMIT_NOFILE, &want) != 0) /* there is no other way to know */
        return nofile_failed(cfg, e);
    if (setrlimit(RLIMIT_NOFILE, &was) != 0)
        return err_errno(e, "server.limit_nofile");
    if (!*cfg->server_chroot)
        return 0;
    if (p->uid == 0)
        return err_set(e, ERR_VALIDATION, "server.chroot: holds no process that is root: set server.user, too");
    if (!capable(CAP_SYS_CHROOT))
        return err_set(e, ERR_VALIDATION,
                       "server.chroot: needs root or CAP_SYS_CHROOT: start as root, or leave it empty");
    if (stat(cfg->server_chroot, &st) != 0)
        return err_set(e, ERR_VALIDATION, "server.chroot: %s: %s", cfg->server_chroot, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_VALIDATION, "server.chroot: %s is not a directory", cfg->server_chroot);
    return 0;
}

void privileges_warnings(const struct privileges *p, const struct config *cfg, struct buf *out)
{
    struct rlimit l = nofile_wanted(cfg);
    if (l.rlim_cur < (rlim_t)cfg->http_max_connections + OWN_DESCRIPTORS)
        buf_printf(
            out,
            "a worker may have %llu descriptors, too few for http.max_connections (%lld): it will accept no more "
            "than these allow; raise the hard limit or server.limit_nofile, or lower http.max_connections\n",
            (unsigned long long)l.rlim_cur, (long long)cfg->http_max_connections);
    if (p->uid == 0 && !*cfg->server_user)
        buf_lit(out, "the workers run as root: set server.user, or start as an ordinary user\n");
}

void privileges_umask(const struct config *cfg)
{
    if (*cfg->server_umask)
        umask((mode_t)strtoul(cfg->server_umask, NULL, 8)); /* config_check.c has seen that it is one */
}

/* -- in the child */

static int change_root(const struct config *cfg, struct err *e)
{
    if (!*cfg->server_chroot)
        return 0;
    if (chroot(cfg->server_chroot) != 0 || chdir("/") != 0)
        return err_errno(e, "server.chroot: %s", cfg->server_chroot);
    return 0;
}

/* True when this process can become again who it was, or root. */
static bool can_go_back(uid_t uid, gid_t gid)
{
    return (getuid() != 0 && setresuid((uid_t)-1, 0, (uid_t)-1) == 0) ||
           (getuid() != uid && setresuid((uid_t)-1, uid, (uid_t)-1) == 0) ||
           (getuid() != 0 && getgid() != gid && setresgid((gid_t)-1, gid, (gid_t)-1) == 0);
}

int privileges_become(const struct privileges *p, struct err *e)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (!p->change)
        return 0;
    if (setgroups((size_t)p->n_groups, p->group) != 0)
        return err_errno(e, "server.user: cannot take its groups");
    if (setresgid(p->gid, p->gid, p->gid) != 0)
        return err_errno(e, "server.group: cannot become gid %u", (unsigned)p->gid);
    if (setresuid(p->uid, p->uid, p->uid) != 0)
        return err_errno(e, "server.user: cannot become uid %u", (unsigned)p->uid);
    if (p->uid != 0 && syscall(SYS_capset, &head, none) != 0) /* only root loses them by becoming somebody else */
        return err_errno(e, "server.user: cannot give up the capabilities");
    if (can_go_back(uid, gid))
        return err_set(e, ERR_INTERNAL, "server.user: the rights of uid %u could be regained", (unsigned)uid);
    return 0;
}

int privileges_drop(const struct privileges *p, const struct config *cfg, struct err *e)
{
    if (set_limits(cfg, e) != 0 || change_root(cfg, e) != 0 || privileges_become(p, e) != 0)
        return -1;
    if (cfg->server_no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return err_errno(e, "server.no_new_privs");
    /* A change of user has taken this away, and with it core dumps and debuggers. */
    if (prctl(PR_SET_DUMPABLE, cfg->server_limit_core != CORE_NONE, 0, 0, 0) != 0)
        return err_errno(e, "server.limit_core");
    return 0;
}
