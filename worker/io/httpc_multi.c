/* curl's multi interface on the loop: curl says which sockets and which time to watch; events tell curl; finished
 * transfers wake their fibers. */
#include "worker/io/httpc_impl.h"
#include <stdlib.h>

struct sock {
    struct event ev;
    struct loop_dead dead;
    struct httpc *c;
};

static void collect(struct httpc *c)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(c->multi, &left));) {
        struct httpc_xfer *x;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&x);
        x->code = m->data.result;
        x->done = true;
        if (x->waiter)
            fiber_wake(x->waiter);
    }
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct httpc *c = ((struct sock *)arg)->c;
    int running, flags = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
    curl_multi_socket_action(c->multi, fd, flags, &running);
    collect(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct httpc *c = arg;
    int running;
    (void)fd, (void)what;
    curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(c);
}

static int want_timer(CURLM *multi, long ms, void *arg)
{
    struct httpc *c = arg;
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    (void)multi;
    if (ms < 0)
        evtimer_del(&c->timer);
    else
        evtimer_add(&c->timer, &tv);
    return 0;
}

static void free_sock(struct loop_dead *d)
{
    free(list_entry(d, struct sock, dead));
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sockp)
{
    struct httpc *c = arg;
    struct sock *s = sockp;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (s) {
            event_del(&s->ev);
            loop_bury(&s->dead, free_sock);
        }
        return 0;
    }
    if (s) {
        event_del(&s->ev);
    } else {
        s = calloc(1, sizeof *s);
        if (!s)
            abort();
        s->c = c;
        curl_multi_assign(c->multi, fd, s);
    }
    short events = EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0);
    event_assign(&s->ev, loop_base(), fd, events, on_socket, s);
    return event_add(&s->ev, NULL);
}

static int start(struct httpc *c, struct err *e)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(e, ERR_INTERNAL, "libcurl cannot be initialised");
    c->multi = curl_multi_init();
    c->share = curl_share_init();
    if (!c->multi || !c->share)
        abort();
    evtimer_assign(&c->timer, loop_base(), on_timer, c);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, want_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)c->cfg->outgoing_max_requests);
    curl_share_setopt(c->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    return 0;
}

int httpc_multi_add(struct httpc_xfer *x, struct err *e)
{
    struct httpc *c = x->c;
    if (!c->multi && start(c, e))
        return -1;
    curl_easy_setopt(x->easy, CURLOPT_SHARE, c->share);
    if (curl_multi_add_handle(c->multi, x->easy) != CURLM_OK)
        return err_set(e, ERR_INTERNAL, "an outgoing request cannot be begun");
    list_add_tail(&c->running, &x->link);
    return 0;
}

void httpc_multi_remove(struct httpc_xfer *x)
{
    if (!x->easy)
        return;
    list_del(&x->link);
    if (x->c->multi)
        curl_multi_remove_handle(x->c->multi, x->easy);
    curl_easy_cleanup(x->easy);
    x->easy = NULL;
}

void httpc_multi_free(struct httpc *c)
{
    if (!c->multi)
        return;
    curl_multi_cleanup(c->multi);
    curl_share_cleanup(c->share);
    evtimer_del(&c->timer);
    c->multi = NULL;
    curl_global_cleanup();
}
