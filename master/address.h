/* The addresses of the configuration, read without binding anything. */
#pragma once
#include "common/heritage.h"
#include "config/config.h"
#include <netinet/in.h>
#include <sys/un.h>

/* One address to bind. One entry of the configuration can name two: ":8000" is 0.0.0.0 and [::]. */
struct address {
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un un;
    };
    bool optional; /* its address family may be missing on this machine */
    bool paired;   /* takes the port that the address before it was given, when it asks for port 0 */
    /* "127.0.0.1:8000", "[::1]:8000", "unix:/run/ragd/http.sock"; ADDRESS_ADMIN stands before one of the status process */
    char key[LISTEN_NAME_MAX];
};
#define ADDRESS_ADMIN "admin:"
bool address_is_admin(const char *key);
const char *address_shown(const char *key); /* without that mark */
/* The key that named it: "server.bind", "server.port" or "server.admin_bind". */
const char *address_setting(const struct address *a, const struct config *cfg);

struct addresses {
    const char *what, *mark; /* while they are read: the key of the configuration; what begins each of theirs */
    struct address v[LISTEN_MAX];
    int n;
};

/* What server.bind, or server.port in its place, and then server.admin_bind name. ERR_VALIDATION names the address and
 * what is wrong. */
must_use int addresses_of(struct addresses *out, const struct config *cfg, struct err *e);

/* The address that a socket is bound to, as the configuration would name it: `sa` with `key`. ERR_VALIDATION: it is not one
 * that a server of this kind listens on. */
must_use int address_of_socket(struct address *out, int fd, struct err *e);
