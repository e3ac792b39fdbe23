/* Names to addresses without blocking the loop: getaddrinfo() in helper threads, one lookup a name however many wait for
 * it, and a small cache. And the one place that knows which addresses are public, against requests that a stranger's URL
 * would send into the operator's own network (SSRF). One cache a process; it needs no opening. */
#pragma once
#include "common/err.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"
#include "worker/net/addr.h"

enum { RESOLVE_MAX = 8 };
struct resolved {
    int n; /* at least 1 after success */
    struct net_addr addr[RESOLVE_MAX];
};

/* Takes outgoing.dns_ttl over. Before, and without it, answers are kept for half a minute. */
void resolve_init(const struct config *cfg);
/* A name or a literal address, without brackets. An answer that is older than its time is still given while a new one is
 * being fetched, for some minutes. ERR_VALIDATION: no possible name. ERR_NOT_READY: it does not resolve (now).
 * ERR_OVERLOADED: too many are being looked up. ERR_DEADLINE, ERR_CANCELED: as the fiber's wait ended. */
suspends must_use int resolve_name(struct str host, struct resolved *out, struct err *e);
/* Forgets everything. For tests. */
void resolve_forget(void);

/* Can it be reached from the internet, and belong to anybody? False for loopback, private, link-local, shared (CGNAT),
 * multicast, documentation and reserved networks, and for IPv6 that carries an IPv4 address inside. */
bool resolve_is_public(const struct net_addr *a);
