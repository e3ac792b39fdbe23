/* Who holds an address: looked up through /proc, for error messages only. Needs no rights for processes of the same
 * user; for others it may find nothing. */
#pragma once
#include <stddef.h>
#include <sys/types.h>

/* Pid of a process that listens on this TCP port (host order; AF_INET or AF_INET6), its command line in `who`; 0: not
 * found. When several share the socket, the lowest pid, which is the parent's. */
pid_t holder_of_port(int family, int port, char *who, size_t cap);
pid_t holder_of_unix(const char *path, char *who, size_t cap);
