#include "worker/io/resolve.h"
#include "common/clock.h"
#include "common/list.h"
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>

/* Helper threads are shared with all that blocks, and a dead name server holds one for half a minute: one is left over. */
enum { NAMES_MAX = 256, NAME_LEN_MAX = 253, LOOKUPS_MAX = 3, TTL_DEFAULT_MS = 30000, STALE_MS = 300000 };

struct name {
    struct list link; /* of cache.names, the one asked for last at the front */
    char host[NAME_LEN_MAX + 1];
    struct resolved found; /* n = 0: never yet */
    int64_t found_ns;
    bool busy;   /* a fiber looks it up */
    int waiters; /* fibers that hold a pointer */
    struct fiber_queue waiting;
    struct addrinfo *list; /* of the lookup */
    int rc;
};

static struct {
    struct list names;
    int n, lookups;
    struct fiber_queue turn; /* lookups that wait for a thread */
    int64_t ttl_ms;
} cache = {.names = {&cache.names, &cache.names},
           .turn = {{&cache.turn.waiting, &cache.turn.waiting}},
           .ttl_ms = TTL_DEFAULT_MS};

void resolve_init(const struct config *cfg)
{
    cache.ttl_ms = cfg->outgoing_dns_ttl;
}

static bool in_use(const struct name *n)
{
    return n->busy || n->waiters;
}

static void drop(struct name *n)
{
    list_del(&n->link);
    cache.n--;
    free(n);
}

void resolve_forget(void)
{
    list_for_each_safe (it, &cache.names) {
        struct name *n = list_entry(it, struct name, link);
        n->found.n = 0;
        if (!in_use(n))
            drop(n);
    }
}

/* ---- one lookup ---- */

static void look_up(void *arg)
{
    struct name *n = arg;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    n->rc = getaddrinfo(n->host, NULL, &hints, &n->list);
}

static void take(struct name *n)
{
    struct resolved r = {0};
    for (struct addrinfo *ai = n->list; ai && r.n < RESOLVE_MAX; ai = ai->ai_next)
        if (ai->ai_family == AF_INET || ai->ai_family == AF_INET6)
            r.addr[r.n++] = net_addr_of(ai->ai_addr);
    if (n->list)
        freeaddrinfo(n->list);
    n->list = NULL;
    if (!r.n)
        return;
    n->found = r;
    n->found_ns = clock_ns();
}

/* A fiber of its own: those who wait may give up, a helper thread cannot. */
static suspends void lookup_main(void *arg)
{
    struct name *n = arg;
    while (cache.lookups >= LOOKUPS_MAX)
        fiber_queue_wait(&cache.turn, "thread for a name");
    cache.lookups++;
    n->rc = EAI_AGAIN;
    fiber_blocking(look_up, n);
    cache.lookups--;
    fiber_queue_wake_one(&cache.turn);
    if (n->rc == 0)
        take(n);
    n->busy = false;
    fiber_queue_wake_all(&n->waiting);
}

/* ---- the cache ---- */

static struct name *find(struct str host)
{
    list_for_each (it, &cache.names) {
        struct name *n = list_entry(it, struct name, link);
        if (str_ieq(str_of(n->host), host))
            return n;
    }
    return NULL;
}

static bool make_room(void)
{
    for (struct list *it = cache.names.prev; cache.n >= NAMES_MAX && it != &cache.names;) {
        struct name *n = list_entry(it, struct name, link);
        it = it->prev;
        if (!in_use(n))
            drop(n);
    }
    return cache.n < NAMES_MAX;
}

static struct name *find_or_make(struct str host)
{
    struct name *n = find(host);
    if (n) {
        list_del(&n->link);
    } else {
        if (!make_room())
            return NULL;
        n = calloc(1, sizeof *n);
        if (!n)
            abort();
        str_copyz(n->host, sizeof n->host, host);
        fiber_queue_init(&n->waiting);
        cache.n++;
    }
    list_add(&cache.names, &n->link);
    return n;
}

static suspends int await(struct name *n, struct err *e)
{
    int rc = 0;
    n->waiters++;
    while (rc == 0 && n->busy)
        rc = fiber_queue_wait(&n->waiting, "name resolution");
    n->waiters--;
    if (rc == -ETIMEDOUT)
        return err_set(e, ERR_DEADLINE, "a host name was not resolved in time");
    if (rc < 0)
        return err_set(e, ERR_CANCELED, "canceled");
    if (n->found.n)
        return 0;
    err_set(e, ERR_NOT_READY, "a host name cannot be resolved");
    return err_log(e, "%s: %s", n->host, gai_strerror(n->rc));
}

suspends int resolve_name(struct str host, struct resolved *out, struct err *e)
{
    struct net_addr literal;
    if (net_addr_parse(host, &literal)) {
        *out = (struct resolved){1, {literal}};
        return 0;
    }
    if (!host.n || host.n > NAME_LEN_MAX || memchr(host.p, 0, host.n))
        return err_set(e, ERR_VALIDATION, "this is not a possible host name");
    struct name *n = find_or_make(host);
    if (!n)
        return err_set(e, ERR_OVERLOADED, "too many host names are being looked up");
    int64_t age_ms = (clock_ns() - n->found_ns) / MS;
    bool fresh = n->found.n && age_ms < cache.ttl_ms;
    if (!fresh && !n->busy) {
        n->busy = true;
        if (!fiber_spawn("name lookup", lookup_main, n))
            n->busy = false;
    }
    if (!fresh && !(n->found.n && age_ms < cache.ttl_ms + STALE_MS)) {
        n->found.n = 0;
        if (await(n, e))
            return -1;
    }
    *out = n->found;
    return 0;
}

/* ---- which addresses are public ---- */

/* The special-purpose registries of IANA. Of IPv6 only 2000::/3 is handed out at all. */
static const char *const special[] = {
    "0.0.0.0/8",       "10.0.0.0/8",    "100.64.0.0/10",   "127.0.0.0/8",       "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24",    "192.0.2.0/24",  "192.31.196.0/24", "192.52.193.0/24",   "192.88.99.0/24", "192.168.0.0/16",
    "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",    "224.0.0.0/4",    "240.0.0.0/4",
    "2001::/23",       "2001:db8::/32", "2002::/16",       "2620:4f:8000::/48", "3fff::/20",
};

bool resolve_is_public(const struct net_addr *a)
{
    struct net_network n;
    if (a->family != AF_INET && (a->family != AF_INET6 || (a->b[0] & 0xe0) != 0x20))
        return false;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (net_network_parse(str_of(special[i]), &n) && net_network_has(&n, a))
            return false;
    return true;
}
