/* Who the client is when proxies stand between. X-Forwarded-For is a claim of whoever sent it; only from an address in
 * server.trusted_proxies is it believed, hop by hop from the right, up to the first hop that is not trusted itself. */
#include "worker/http/exchange.h"
#include <stdlib.h>

int proxy_init(struct http_server *s, struct err *e)
{
    const struct config_list *l = &s->cfg->server_trusted_proxies;
    if (!l->n)
        return 0;
    s->proxies = calloc((size_t)l->n, sizeof *s->proxies);
    if (!s->proxies)
        abort();
    for (int i = 0; i < l->n; i++) {
        if (!net_network_parse(str_of(l->v[i]), &s->proxies[i]))
            return err_set(e, ERR_VALIDATION, "server.trusted_proxies: '%s' is no address, network, or `unix`",
                           l->v[i]);
        s->n_proxies++;
    }
    return 0;
}

static bool trusted(const struct http_server *s, const struct net_addr *a)
{
    for (int i = 0; i < s->n_proxies; i++)
        if (net_network_has(&s->proxies[i], a))
            return true;
    return false;
}

/* "192.0.2.1", "192.0.2.1:1234", "2001:db8::1", "[2001:db8::1]:1234" */
static bool parse_hop(struct str s, struct net_addr *out)
{
    struct str rest = s;
    if (s.n && s.p[0] == '[') {
        rest = str_sub(s, 1, SIZE_MAX);
        return net_addr_parse(str_cut(&rest, ']'), out);
    }
    if (net_addr_parse(s, out))
        return true;
    return net_addr_parse(str_cut(&rest, ':'), out);
}

/* Takes the last element off a comma-separated list. */
static struct str last_hop(struct str *list)
{
    size_t n = list->n;
    while (n && list->p[n - 1] != ',')
        n--;
    struct str hop = str_trim(str_sub(*list, n, SIZE_MAX));
    list->n = n ? n - 1 : 0;
    return hop;
}

void proxy_client(const struct http_server *s, struct request *r, const struct net_addr *peer, char *text)
{
    struct net_addr client = *peer;
    if (s->n_proxies && trusted(s, peer)) {
        size_t i = r->n_header; /* fields of one name are one list */
        bool go_on = true;
        while (go_on && i-- > 0) {
            struct str list = r->header[i].value;
            if (!str_ieq(r->header[i].name, STR("x-forwarded-for")))
                continue;
            while (list.n && go_on) {
                struct net_addr hop;
                if (!parse_hop(last_hop(&list), &hop)) {
                    go_on = false;
                    break;
                }
                client = hop;
                go_on = trusted(s, &hop);
            }
        }
    }
    r->client = (struct str){text, net_addr_text(&client, text)};
}
