/* The walls of the cage, for processes that the broker forks: limits, namespaces, Landlock, a filter for system calls.
 * Each is taken where the kernel has it; what is missing is known beforehand (jail_lacks).
 *
 * The filter allows what a reader in C needs: memory, its open descriptors, the clock, its own end. No open, connect,
 * exec, fork, kill; anything else is ENOSYS, as if the kernel had no such call. `pdftotext` is a foreign program and needs
 * more: it may execute (the filter cannot see what, as it cannot follow pointers) and open files for reading;
 * Landlock says which: the program itself, libraries and character maps. Sockets and new processes it has not. */
#pragma once
#include "worker/core/cage_wire.h"

enum jail_kind {
    JAIL_READER,  /* our own readers, on open descriptors */
    JAIL_PROGRAM, /* JAIL_PDFTOTEXT comes next */
    JAIL_KINDS
};
#define JAIL_PDFTOTEXT "/usr/bin/pdftotext"

/* Once, in the broker: it gets namespaces of its own, without a network, which its children share. */
void jail_namespaces(void);
/* Once, in the broker, so that not every cage needs to: makes the filters. -1: it cannot. */
must_use int jail_prepare(void);
uint32_t jail_lacks(void); /* LACKS_… */
/* For the rest of this process. -1: a wall that should be there could not be raised. */
must_use int jail_enter(enum jail_kind kind, const struct cage_limits *limits);
