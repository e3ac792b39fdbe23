/* A folder that is watched: what regular files are in it, and when that may have changed. The kernel's notes (inotify) only
 * say that a look is due; what is there says the look alone. One process at a time has the folder to itself.
 *
 * Nothing outside of the folder is ever opened: paths are resolved beneath it (openat2), so a symbolic link to a file
 * inside is that file, and one that leads out does not exist. Where the kernel has no openat2, no link is followed at all.
 * Links to folders are not entered. Names that begin with a dot are left out: they are how programs call what is not
 * finished. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "worker/fiber/fiber.h"

struct folder;

struct folder_file {
    struct str path;          /* relative, NUL-terminated */
    int64_t size, changed_ns; /* the latest of what the kernel notes about contents and names, wall clock */
    uint64_t inode;
};
struct folder_scan {
    struct arena a;           /* owns all of it */
    struct folder_file *file; /* in order of their paths */
    size_t n;
    bool complete; /* false: more than `max` files, or a part could not be read; what is not listed may be there */
};

/* ERR_VALIDATION: is not there, or no folder, or may not be read. */
must_use int folder_open(const char *path, struct folder **out, struct err *e);
void folder_close(struct folder *f); /* gives the lock up; NULL accepted */
/* Until folder_close() or the end of the process. False: another process has it. */
bool folder_lock(struct folder *f);
/* Is it still what its path leads to? Not after another file system was mounted there. */
bool folder_is_current(const struct folder *f);

/* Looks through all of it, in a helper thread. The caller ends with folder_scan_fini(), also after a failure. */
suspends must_use int folder_look(struct folder *f, size_t max, struct folder_scan *out, struct err *e);
void folder_scan_fini(struct folder_scan *s);
/* Returns when something may have changed since the last look began, or after `ns`, or when the fiber ends (then -1). */
suspends int folder_wait(struct folder *f, int64_t ns);
/* A descriptor for reading, or -1 with errno. */
int folder_open_file(struct folder *f, struct str path);
