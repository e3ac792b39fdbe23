/* Who holds an address: looked up through /proc, for error messages only. Needs no rights for processes of the same
 * user; for others it may find nothing. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Pid of a process that listens on this TCP port (host order; AF_INET or AF_INET6), its command line in `who`; 0: not
 * found. When several share the socket, the lowest pid, which is the parent's. */
pid_t holder_of_port(int family, int port, char *who, size_t cap);
pid_t holder_of_unix(const char *path, char *who, size_t cap);

/* Whether this process holds such a socket; true also when its descriptors cannot be looked at. */
bool holder_has_port(pid_t pid, int family, int port);
bool holder_has_unix(pid_t pid, const char *path);
