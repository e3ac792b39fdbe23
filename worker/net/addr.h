/* Network addresses, small enough to be kept for every connection: no port, IPv4-mapped addresses unmapped. */
#pragma once
#include "common/str.h"
#include <netinet/in.h>
#include <sys/socket.h>

struct net_addr {
    uint8_t family; /* AF_INET, AF_INET6, AF_UNIX; 0: unknown */
    uint8_t b[16];  /* network order; IPv4 in the first four */
};

struct net_network {
    struct net_addr base;
    int bits; /* leading bits that count */
};

enum { NET_ADDR_TEXT = INET6_ADDRSTRLEN };

struct net_addr net_addr_of(const struct sockaddr *sa);
/* "192.0.2.1", "2001:db8::1", "unix", or "-"; writes at most NET_ADDR_TEXT bytes with the NUL, returns the length. */
size_t net_addr_text(const struct net_addr *a, char *out);
/* An address without port or brackets. */
bool net_addr_parse(struct str s, struct net_addr *out);
/* "10.0.0.0/8", "::1", "unix", or "*" for everything. */
bool net_network_parse(struct str s, struct net_network *out);
bool net_network_has(const struct net_network *n, const struct net_addr *a);
