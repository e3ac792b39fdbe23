#include "worker/net/addr.h"
#include <arpa/inet.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static struct net_addr addr_v6(const uint8_t *b)
{
    struct net_addr a = {.family = AF_INET6};
    if (memcmp(b, mapped_prefix, sizeof mapped_prefix) == 0) {
        a.family = AF_INET;
        memcpy(a.b, b + sizeof mapped_prefix, 4);
    } else {
        memcpy(a.b, b, 16);
    }
    return a;
}

struct net_addr net_addr_of(const struct sockaddr *sa)
{
    struct net_addr a = {.family = (uint8_t)sa->sa_family};
    if (sa->sa_family == AF_INET)
        memcpy(a.b, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
    else if (sa->sa_family == AF_INET6)
        a = addr_v6(((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr);
    return a;
}

/* inet_ntop formats with snprintf; every request of a connection asks for this. */
static size_t v4_text(const uint8_t *b, char *out)
{
    char *p = out;
    for (int i = 0; i < 4; i++) {
        unsigned v = b[i];
        if (i)
            *p++ = '.';
        if (v >= 100)
            *p++ = (char)('0' + v / 100);
        if (v >= 10)
            *p++ = (char)('0' + v / 10 % 10);
        *p++ = (char)('0' + v % 10);
    }
    *p = 0;
    return (size_t)(p - out);
}

size_t net_addr_text(const struct net_addr *a, char *out)
{
    if (a->family == AF_INET)
        return v4_text(a->b, out);
    if (a->family == AF_INET6 && inet_ntop(AF_INET6, a->b, out, NET_ADDR_TEXT))
        return strlen(out);
    return str_copyz(out, NET_ADDR_TEXT, a->family == AF_UNIX ? STR("unix") : STR("-"));
}

bool net_addr_parse(struct str s, struct net_addr *out)
{
    char z[NET_ADDR_TEXT];
    uint8_t b[16];
    if (!s.n || s.n >= sizeof z || memchr(s.p, 0, s.n))
        return false;
    str_copyz(z, sizeof z, s);
    if (inet_pton(AF_INET, z, b) == 1) {
        *out = (struct net_addr){.family = AF_INET};
        memcpy(out->b, b, 4);
        return true;
    }
    if (inet_pton(AF_INET6, z, b) == 1) {
        *out = addr_v6(b);
        return true;
    }
    return false;
}

bool net_network_parse(struct str s, struct net_network *out)
{
    struct net_network n = {0};
    struct str addr, bits = s;
    uint64_t v;
    if (str_eqz(s, "*") || str_eqz(s, "unix")) {
        out->base = (struct net_addr){.family = s.n == 1 ? 0 : AF_UNIX};
        out->bits = 0;
        return true;
    }
    addr = str_cut(&bits, '/');
    if (!net_addr_parse(addr, &n.base))
        return false;
    n.bits = n.base.family == AF_INET ? 32 : 128;
    if (addr.n != s.n) {
        if (!str_to_u64(bits, &v) || v > (uint64_t)n.bits)
            return false;
        n.bits = (int)v;
    }
    *out = n;
    return true;
}

bool net_network_has(const struct net_network *n, const struct net_addr *a)
{
    if (!n->base.family)
        return true;
    if (n->base.family != a->family)
        return false;
    int whole = n->bits / 8, rest = n->bits % 8;
    if (memcmp(n->base.b, a->b, (size_t)whole) != 0)
        return false;
    return !rest || ((n->base.b[whole] ^ a->b[whole]) & (0xff00 >> rest) & 0xff) == 0;
}
