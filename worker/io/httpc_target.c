/* From a URL to where its request goes: through which proxy, to which addresses, and whether it may go there. */
#include "worker/io/httpc_impl.h"
#include "worker/io/resolve.h"
#include <stdlib.h>

struct parts {
    struct str scheme, host, port; /* an IPv6 address without brackets */
};

bool httpc_address_allowed(const struct httpc *c, const struct net_addr *a)
{
    for (int i = 0; i < c->n_allowed; i++)
        if (net_network_has(&c->allowed[i], a))
            return true;
    return resolve_is_public(a);
}

/* ---- the URL ---- */

static struct str part(struct arena *a, CURLU *u, CURLUPart what, unsigned flags)
{
    char *z = NULL;
    if (curl_url_get(u, what, &z, flags) != CURLUE_OK)
        return (struct str){0};
    struct str s = arena_dup(a, str_of(z));
    curl_free(z);
    return s;
}

/* Takes names apart as curl will: whoever parses on his own checks another host than the one that is asked. */
static int parse(struct arena *a, struct str text, unsigned flags, struct str *url, struct parts *p, struct err *e)
{
    CURLU *u = curl_url();
    if (!u)
        abort();
    CURLUcode rc = memchr(text.p ? text.p : "", 0, text.n)
                       ? CURLUE_MALFORMED_INPUT
                       : curl_url_set(u, CURLUPART_URL, arena_dup(a, text).p, flags);
    if (rc == CURLUE_OK) {
        p->scheme = part(a, u, CURLUPART_SCHEME, 0);
        p->host = part(a, u, CURLUPART_HOST, CURLU_PUNYCODE);
        p->port = part(a, u, CURLUPART_PORT, CURLU_DEFAULT_PORT);
        while (p->host.n > 1 && p->host.p[p->host.n - 1] == '.')
            p->host.n--;
        if (p->host.n && curl_url_set(u, CURLUPART_HOST, arena_dup(a, p->host).p, 0) == CURLUE_OK)
            curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
        else
            rc = CURLUE_BAD_HOSTNAME;
        *url = part(a, u, CURLUPART_URL, 0);
    }
    curl_url_cleanup(u);
    if (rc == CURLUE_USER_NOT_ALLOWED)
        return err_set(e, ERR_VALIDATION, "the URL must not contain a user name");
    if (rc != CURLUE_OK || !url->n)
        return err_set(e, ERR_VALIDATION, "the URL makes no sense: %s", curl_url_strerror(rc));
    if (!str_ieq(p->scheme, STR("http")) && !str_ieq(p->scheme, STR("https")))
        return err_set(e, ERR_VALIDATION, "the URL does not begin with http:// or https://");
    if (p->host.p[0] == '[')
        p->host = str_sub(p->host, 1, p->host.n - 2);
    return 0;
}

/* ---- the proxy ---- */

static bool below(struct str host, struct str domain)
{
    if (domain.n && domain.p[0] == '.')
        domain = str_sub(domain, 1, SIZE_MAX);
    return domain.n && host.n >= domain.n && str_ieq(str_sub(host, host.n - domain.n, SIZE_MAX), domain) &&
           (host.n == domain.n || host.p[host.n - domain.n - 1] == '.');
}

static bool goes_direct(const struct config *cfg, struct str host)
{
    static const struct net_network loopback4 = {{AF_INET, {127}}, 8}, loopback6 = {{AF_INET6, {[15] = 1}}, 128};
    const struct config_list *l = &cfg->outgoing_no_proxy;
    struct net_addr addr;
    struct net_network net;
    bool literal = net_addr_parse(host, &addr);
    if (below(host, STR("localhost")) ||
        (literal && (net_network_has(&loopback4, &addr) || net_network_has(&loopback6, &addr))))
        return true;
    for (int i = 0; i < l->n; i++) {
        struct str entry = str_of(l->v[i]);
        if (str_eqz(entry, "*") || below(host, entry) ||
            (literal && net_network_parse(entry, &net) && net_network_has(&net, &addr)))
            return true;
    }
    return false;
}

static struct str proxy_for(const struct config *cfg, const struct parts *p)
{
    const char *proxy = str_ieq(p->scheme, STR("https")) ? cfg->outgoing_https_proxy : cfg->outgoing_http_proxy;
    return *proxy && !goes_direct(cfg, p->host) ? str_of(proxy) : (struct str){0};
}

/* ---- addresses ---- */

/* "+": the entry grows old in curl's own cache, which would keep every name for ever otherwise. */
static struct str pin(struct arena *a, const struct parts *p, const struct resolved *r)
{
    struct buf b = {0};
    struct net_addr literal;
    if (net_addr_parse(p->host, &literal))
        return (struct str){0};
    buf_printf(&b, "+" STR_FMT ":" STR_FMT ":", STR_ARG(p->host), STR_ARG(p->port));
    for (int i = 0; i < r->n; i++) {
        char text[NET_ADDR_TEXT];
        net_addr_text(&r->addr[i], text);
        buf_printf(&b, r->addr[i].family == AF_INET6 ? "%s[%s]" : "%s%s", i ? "," : "", text);
    }
    struct str s = arena_dup(a, buf_view(&b));
    buf_fini(&b);
    return s;
}

/* One address that must not be asked condemns the name: no honest one has both. */
static int check_public(const struct httpc *c, const struct resolved *r, struct err *e)
{
    for (int i = 0; i < r->n; i++)
        if (!httpc_address_allowed(c, &r->addr[i])) {
            char text[NET_ADDR_TEXT];
            net_addr_text(&r->addr[i], text);
            err_set(e, ERR_VALIDATION, "the URL leads to an address that is not public");
            return err_log(e, "%s; outgoing.allow_networks can permit it", text);
        }
    return 0;
}

suspends int httpc_target_find(struct httpc *c, struct arena *a, struct str url, bool public_only,
                               struct httpc_target *out, struct err *e)
{
    struct httpc_target t = {0};
    struct parts host, proxy;
    struct resolved r;
    struct str unused;
    struct err why;
    if (parse(a, url, public_only ? CURLU_DISALLOW_USER : 0, &t.url, &host, e))
        return -1;
    bool v6 = memchr(host.host.p, ':', host.host.n) != NULL;
    t.origin =
        arena_printf(a, v6 ? "%s://[%s]:%s" : "%s://%s:%s", host.scheme.p, arena_dup(a, host.host).p, host.port.p);
    t.proxy = proxy_for(c->cfg, &host);
    if (!t.proxy.n) {
        if (resolve_name(host.host, &r, e) || (public_only && check_public(c, &r, e)))
            return -1;
        t.pin = pin(a, &host, &r);
    } else {
        /* The proxy looks the name up, and often only it can; what can be seen from here is checked all the same. */
        if (public_only && resolve_name(host.host, &r, &why) == 0 && check_public(c, &r, e))
            return -1;
        if (parse(a, t.proxy, 0, &unused, &proxy, e) || resolve_name(proxy.host, &r, e))
            return -1;
        t.pin = pin(a, &proxy, &r);
    }
    *out = t;
    return 0;
}

suspends int httpc_check_url(struct httpc *c, struct arena *a, struct str url, struct err *e)
{
    struct httpc_target t;
    return httpc_target_find(c, a, url, true, &t, e);
}
