#include "worker/core/cage_jail.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0 /* its shadow takes terabytes of address space */
#endif

enum { NOBODY = 65534, FILES_MAX = 64 };

static bool namespaces;

void jail_namespaces(void)
{
    int what = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWUTS;
    namespaces = unshare(geteuid() == 0 ? what : what | CLONE_NEWUSER) == 0;
}

static int landlock_abi(void)
{
    return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

uint32_t jail_lacks(void)
{
    uint32_t action = SECCOMP_RET_ERRNO;
    bool filter = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
    return (filter ? 0 : LACKS_FILTER) | (landlock_abi() > 0 ? 0 : LACKS_LANDLOCK) |
           (namespaces ? 0 : LACKS_NAMESPACES);
}

/* ---- limits ---- */

static int limit(int resource, int64_t soft, int64_t hard)
{
    struct rlimit now, r = {(rlim_t)soft, (rlim_t)hard};
    if (getrlimit((__rlimit_resource_t)resource, &now) != 0)
        return -1;
    if (r.rlim_max > now.rlim_max)
        r.rlim_max = now.rlim_max;
    if (r.rlim_cur > r.rlim_max)
        r.rlim_cur = r.rlim_max;
    return setrlimit((__rlimit_resource_t)resource, &r);
}

/* Private memory counts as data; the address space also holds program, libraries and the document. */
static int limit_memory(const struct cage_limits *l)
{
    enum { BESIDES = 384 << 20 };
    if (SANITIZED)
        return 0;
    return limit(RLIMIT_DATA, l->memory, l->memory) || limit(RLIMIT_AS, l->memory + BESIDES, l->memory + BESIDES) ? -1
                                                                                                                  : 0;
}

static int limit_all(const struct cage_limits *l)
{
    return limit_memory(l) || limit(RLIMIT_CPU, l->cpu_s, l->cpu_s + 1) || limit(RLIMIT_FSIZE, l->output, l->output) ||
                   limit(RLIMIT_NOFILE, FILES_MAX, FILES_MAX) || limit(RLIMIT_CORE, 0, 0) || limit(RLIMIT_NPROC, 0, 0)
               ? -1
               : 0;
}

/* ---- files ---- */

static const uint64_t every_right = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;

static int allow_below(int rules, const char *path, uint64_t rights)
{
    struct landlock_path_beneath_attr at = {.allowed_access = rights, .parent_fd = open(path, O_PATH | O_CLOEXEC)};
    if (at.parent_fd < 0)
        return errno == ENOENT ? 0 : -1;
    int rc = (int)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &at, 0);
    close(at.parent_fd);
    return rc;
}

static int allow_program(int rules)
{
    static const uint64_t see = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
    static const uint64_t read = LANDLOCK_ACCESS_FS_READ_FILE, run = LANDLOCK_ACCESS_FS_EXECUTE;
    static const struct {
        const char *path;
        uint64_t rights;
    } allowed[] = {
        {JAIL_PDFTOTEXT, read | run}, {"/lib", see | run},         {"/lib64", see | run},
        {"/usr/lib", see | run},      {"/usr/share/poppler", see}, {"/etc/ld.so.cache", read},
    };
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        if (allow_below(rules, allowed[i].path, allowed[i].rights))
            return -1;
    }
    return 0;
}

static int lock_files(enum jail_kind kind)
{
    struct landlock_ruleset_attr attr = {.handled_access_fs = every_right};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (rules < 0)
        return -1;
    int rc = kind == JAIL_PROGRAM ? allow_program(rules) : 0;
    if (rc == 0)
        rc = (int)syscall(SYS_landlock_restrict_self, rules, 0);
    close(rules);
    return rc;
}

/* ---- system calls ---- */

static const char *const common_calls[] = {
    "read",           "readv",       "pread64",    "write",           "writev",
    "pwrite64",       "close",       "fstat",      "lseek",           "munmap",
    "mremap",         "brk",         "madvise",    "futex",           "clock_gettime",
    "gettimeofday",   "exit",        "exit_group", "rt_sigaction",    "rt_sigreturn",
    "rt_sigprocmask", "sigaltstack", "getpid",     "gettid",          "getrandom",
    "sched_yield",    "poll",        "ppoll",      "restart_syscall",
};
static const char *const reader_calls[] = {"wait4", "ftruncate"};
static const char *const program_calls[] = {
    "execve",          "mmap",      "mprotect",   "newfstatat",      "stat",       "statx",
    "access",          "faccessat", "faccessat2", "readlink",        "readlinkat", "arch_prctl",
    "set_tid_address", "rseq",      "getcwd",     "set_robust_list", "uname",      "getuid",
    "geteuid",         "getgid",    "getegid",    "getdents64",      "sysinfo",    "dup",
};

static int allow(scmp_filter_ctx f, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int call = seccomp_syscall_resolve_name(names[i]);
        if (call != __NR_SCMP_ERROR && call >= 0 && seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 0) != 0)
            return -1;
    }
    return 0;
}

/* Not what reaches other processes of the same user: their limits, or a signal that a descriptor sends them. */
static int allow_harmless(scmp_filter_ctx f)
{
    static const scmp_datum_t flags[] = {F_GETFD, F_SETFD, F_GETFL, F_DUPFD, F_DUPFD_CLOEXEC};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, SCMP_A1(SCMP_CMP_EQ, flags[i], 0)))
            return -1;
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2, SCMP_A0(SCMP_CMP_EQ, 0, 0),
                            SCMP_A2(SCMP_CMP_EQ, 0, 0));
}

/* No memory that could be written is ever executed; no file is opened for writing. */
static int allow_some(scmp_filter_ctx f, enum jail_kind kind)
{
    const scmp_datum_t writes = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND;
    if (kind == JAIL_PROGRAM)
        return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, writes, 0)) ||
               allow_harmless(f) || allow(f, program_calls, sizeof program_calls / sizeof *program_calls);
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) ||
           seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) ||
           allow(f, reader_calls, sizeof reader_calls / sizeof *reader_calls);
}

/* abort() sends its signal so; to nobody else. The filter is made once for many processes: each puts its number in. */
enum { SOME_PID = 0x5e1f5e1f };

static int allow_own_end(scmp_filter_ctx f)
{
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, SOME_PID, 0));
}

static scmp_filter_ctx describe_filter(enum jail_kind kind)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    if (f && (seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) ||
              seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2) ||
              allow(f, common_calls, sizeof common_calls / sizeof *common_calls) || allow_some(f, kind) ||
              allow_own_end(f))) {
        seccomp_release(f);
        return NULL;
    }
    return f;
}

enum { FILTER_MAX = 1024 };
static struct filter {
    struct sock_filter code[FILTER_MAX];
    unsigned short n; /* 0: it is not made yet */
    struct sock_filter *pid;
} filters[JAIL_KINDS];

static bool asks_for_pid(const struct sock_filter *c)
{
    return c->code == (BPF_JMP | BPF_JEQ | BPF_K) && c->k == SOME_PID;
}

static int take_filter(struct filter *f, int fd)
{
    int places = 0;
    ssize_t n = pread(fd, f->code, sizeof f->code, 0);
    if (n <= 0 || n == sizeof f->code || n % (ssize_t)sizeof *f->code)
        return -1;
    for (ssize_t i = 0; i < n / (ssize_t)sizeof *f->code; i++)
        if (asks_for_pid(&f->code[i])) {
            f->pid = &f->code[i];
            places++;
        }
    if (places != 1)
        return -1;
    f->n = (unsigned short)((size_t)n / sizeof *f->code);
    return 0;
}

static int make_filter(enum jail_kind kind)
{
    scmp_filter_ctx f = describe_filter(kind);
    int fd = memfd_create("filter", MFD_CLOEXEC);
    int rc = f && fd >= 0 && seccomp_export_bpf(f, fd) == 0 ? take_filter(&filters[kind], fd) : -1;
    if (fd >= 0)
        close(fd);
    if (f)
        seccomp_release(f);
    return rc;
}

int jail_prepare(void)
{
    return make_filter(JAIL_READER) || make_filter(JAIL_PROGRAM) ? -1 : 0;
}

static int filter_calls(enum jail_kind kind)
{
    struct filter *f = &filters[kind];
    if (f->n == 0 && make_filter(kind))
        return -1;
    f->pid->k = (uint32_t)getpid();
    const struct sock_fprog program = {f->n, f->code};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/* ---- all of it ---- */

static int drop_user(void)
{
    if (geteuid() != 0)
        return 0;
    return setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY) ? -1 : 0;
}

int jail_enter(enum jail_kind kind, const struct cage_limits *limits)
{
    uint32_t lacks = jail_lacks();
    signal(SIGXFSZ, SIG_IGN); /* the write fails, and says so */
    if (drop_user() || prctl(PR_SET_PDEATHSIG, SIGKILL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_DUMPABLE, 0))
        return -1;
    if (!(lacks & LACKS_LANDLOCK) && lock_files(kind))
        return -1;
    if (limit_all(limits))
        return -1;
    if (!(lacks & LACKS_FILTER) && filter_calls(kind))
        return -1;
    return 0;
}
