/* Routes as a tree of path segments. A literal segment is preferred to a {parameter}; when it leads nowhere, the
 * parameter is tried, so /documents/{document} and /documents/delete can stand side by side. */
#include "worker/http/http.h"
#include <assert.h>
#include <stdlib.h>

struct node {
    struct str name; /* of the literal segment that leads here; empty for a parameter */
    struct node *literals, *param, *next;
    const struct route *route[HTTP_METHOD_COUNT];
};

struct router {
    struct node root;
};

static struct node *node_new(struct str name)
{
    struct node *n = calloc(1, sizeof *n);
    if (!n)
        abort();
    n->name = name;
    return n;
}

static struct node *child(struct node *n, struct str segment)
{
    struct node **at = &n->literals;
    if (segment.n && segment.p[0] == '{') {
        if (!n->param)
            n->param = node_new((struct str){NULL, 0});
        return n->param;
    }
    while (*at && !str_eq((*at)->name, segment))
        at = &(*at)->next;
    if (!*at)
        *at = node_new(segment);
    return *at;
}

struct router *router_new(const struct route *routes, size_t n)
{
    struct router *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    for (size_t i = 0; i < n; i++) {
        struct str rest = str_sub(str_of(routes[i].path), 1, SIZE_MAX);
        struct node *at = &r->root;
        int params = 0;
        while (rest.n) {
            struct str segment = str_cut(&rest, '/');
            params += segment.p[0] == '{';
            at = child(at, segment);
        }
        assert(params <= REQUEST_PARAMS && !at->route[routes[i].method]);
        at->route[routes[i].method] = &routes[i];
    }
    return r;
}

static void node_clear(struct node *n)
{
    while (n->literals) {
        struct node *c = n->literals;
        n->literals = c->next;
        node_clear(c);
        free(c);
    }
    if (n->param) {
        node_clear(n->param);
        free(n->param);
    }
}

void router_free(struct router *r)
{
    if (!r)
        return;
    node_clear(&r->root);
    free(r);
}

static const struct route *here(const struct node *n, enum http_method m, unsigned *allow)
{
    const struct route *found = n->route[m];
    if (!found && m == HTTP_HEAD)
        found = n->route[HTTP_GET];
    for (int i = 0; i < HTTP_METHOD_COUNT; i++)
        if (n->route[i])
            *allow |= 1u << i;
    if (*allow & 1u << HTTP_GET)
        *allow |= 1u << HTTP_HEAD;
    return found;
}

/* `rest` is what follows the slash; `end`: the path was used up. As deep as the longest route. */
static const struct route *walk(const struct node *n, enum http_method m, struct str rest, bool end, struct str *param,
                                int params, unsigned *allow)
{
    const struct route *found = NULL;
    if (end)
        return here(n, m, allow);
    struct str tail = rest, segment = str_cut(&tail, '/');
    bool last = segment.n == rest.n;
    for (const struct node *c = n->literals; c && !found; c = c->next)
        if (str_eq(c->name, segment)) {
            found = walk(c, m, tail, last, param, params, allow);
            break;
        }
    if (!found && n->param && segment.n) {
        param[params] = segment;
        found = walk(n->param, m, tail, last, param, params + 1, allow);
    }
    return found;
}

const struct route *router_find(const struct router *r, enum http_method m, struct str path, struct str *param,
                                unsigned *allow)
{
    *allow = 0;
    if (!path.n || path.p[0] != '/')
        return NULL;
    return walk(&r->root, m, str_sub(path, 1, SIZE_MAX), path.n == 1, param, 0, allow);
}
