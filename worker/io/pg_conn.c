/* How io/pg connects: names are resolved in a helper thread (libpq would block the loop), the session is set up, and
 * failures are retried with back-off. Written as one fiber per attempt. */
#include "worker/io/pg_impl.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

enum { ADDRESSES_MAX = 16, BACKOFF_FIRST_MS = 100, BACKOFF_MAX_MS = 5000, ROOM_POLL_MS = 20 };

/* ---- names to addresses ---- */

static const char *option(const PQconninfoOption *o, const char *keyword)
{
    for (; o->keyword; o++)
        if (strcmp(o->keyword, keyword) == 0)
            return o->val && *o->val ? o->val : NULL;
    return NULL;
}

/* What libpq is told about hosts: three comma-separated lists of the same length. */
struct targets {
    struct buf host, hostaddr, port;
    int n;
};

static void targets_add(struct targets *t, struct str host, const char *addr, struct str port)
{
    if (t->n++) {
        buf_ch(&t->host, ',');
        buf_ch(&t->hostaddr, ',');
        buf_ch(&t->port, ',');
    }
    buf_str(&t->host, host);
    buf_str(&t->hostaddr, str_of(addr));
    buf_str(&t->port, port);
}

struct lookup {
    char host[256];
    struct addrinfo *found;
    int rc;
};

static void look_up(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    l->rc = getaddrinfo(l->host, NULL, &hints, &l->found);
}

static suspends int resolve(struct targets *t, struct str host, struct str port, struct err *e)
{
    struct lookup l = {0};
    unsigned char scratch[16];
    str_copyz(l.host, sizeof l.host, host);
    if (!host.n || host.p[0] == '/' || host.p[0] == '@' || inet_pton(AF_INET, l.host, scratch) == 1 ||
        inet_pton(AF_INET6, l.host, scratch) == 1) {
        targets_add(t, host, "", port);
        return 0;
    }
    fiber_blocking(look_up, &l);
    if (l.rc) {
        err_set(e, ERR_NOT_READY, "the database's host name cannot be resolved");
        return err_log(e, "%s: %s", l.host, gai_strerror(l.rc));
    }
    int n = 0;
    for (struct addrinfo *ai = l.found; ai && n < ADDRESSES_MAX; ai = ai->ai_next, n++) {
        char text[NI_MAXHOST];
        if (getnameinfo(ai->ai_addr, ai->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0)
            targets_add(t, host, text, port);
    }
    freeaddrinfo(l.found);
    return 0;
}

/* One name that does not resolve is no failure while another does. The first host turns with each attempt. */
static suspends int find_targets(struct pg *pg, struct targets *t, struct err *e)
{
    struct str hosts[ADDRESSES_MAX], ports[ADDRESSES_MAX];
    struct str rest = str_of(option(pg->url, "host")), port_rest = str_of(option(pg->url, "port"));
    int n = 0, rc = -1, first = pg->attempt++; /* read once: others connect while names are looked up */
    bool one_port = !memchr(port_rest.p ? port_rest.p : "", ',', port_rest.n);
    for (struct str all = port_rest; n == 0 || (rest.n && n < ADDRESSES_MAX); n++) {
        hosts[n] = str_cut(&rest, ',');
        ports[n] = one_port ? all : str_cut(&port_rest, ',');
    }
    for (int i = 0; i < n; i++) {
        int k = (i + first) % n;
        if (resolve(t, hosts[k], ports[k], e) == 0)
            rc = 0;
    }
    return rc;
}

/* ---- one connection ---- */

static suspends PGconn *start(struct pg *pg, struct err *e)
{
    enum { OPTIONS_MAX = 64 };
    const char *key[OPTIONS_MAX], *value[OPTIONS_MAX];
    struct targets t = {0};
    PGconn *c = NULL;
    int n = 0;
    if (find_targets(pg, &t, e) < 0)
        goto out;
    buf_ch(&t.host, 0);
    buf_ch(&t.hostaddr, 0);
    buf_ch(&t.port, 0);
    bool given_address = option(pg->url, "hostaddr") != NULL;
    for (const PQconninfoOption *o = pg->url; o->keyword && n < OPTIONS_MAX - 8; o++) {
        if (!o->val || !*o->val || (!given_address && (!strcmp(o->keyword, "host") || !strcmp(o->keyword, "port"))))
            continue;
        key[n] = o->keyword;
        value[n++] = o->val;
    }
    if (!given_address) {
        key[n] = "host", value[n++] = t.host.p;
        key[n] = "hostaddr", value[n++] = t.hostaddr.p;
        key[n] = "port", value[n++] = t.port.p;
    }
    key[n] = "client_encoding", value[n++] = "UTF8";
    key[n] = "fallback_application_name", value[n++] = "ragd";
    if (!option(pg->url, "gssencmode")) /* would look up names in its own, blocking way */
        key[n] = "gssencmode", value[n++] = "disable";
    if (!option(pg->url, "tcp_user_timeout")) /* a network that is gone is noticed, also by PQcancel() */
        key[n] = "tcp_user_timeout", value[n++] = "10000";
    const char *hosts = option(pg->url, "host");
    if (hosts && strchr(hosts, ',') && !option(pg->url, "target_session_attrs"))
        key[n] = "target_session_attrs", value[n++] = "read-write"; /* a standby's answers would lag behind */
    key[n] = NULL, value[n] = NULL;
    c = PQconnectStartParams(key, value, 0);
    if (!c || PQstatus(c) == CONNECTION_BAD) {
        pg_error_conn(e, c, "connect");
        PQfinish(c);
        c = NULL;
    }
out:
    buf_fini(&t.host);
    buf_fini(&t.hostaddr);
    buf_fini(&t.port);
    return c;
}

static suspends int finish_connecting(PGconn *c, struct err *e)
{
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;
    while (next != PGRES_POLLING_OK) {
        if (next == PGRES_POLLING_FAILED)
            return pg_error_conn(e, c, "connect");
        short what = next == PGRES_POLLING_READING ? EV_READ : EV_WRITE;
        if (fiber_wait_fd(PQsocket(c), what, "connection to PostgreSQL") < 0) {
            err_set(e, ERR_NOT_READY, "the database cannot be reached");
            return err_log(e, "connect: no answer from %s port %s", PQhost(c), PQport(c));
        }
        next = PQconnectPoll(c);
    }
    return 0;
}

/* Runs a script; the last result is the caller's to clear, NULL after an error. */
static suspends PGresult *run(PGconn *c, const char *script, struct err *e)
{
    PGresult *last = NULL, *res;
    if (!PQsendQuery(c, script)) {
        pg_error_conn(e, c, "send");
        return NULL;
    }
    for (;;) {
        int more = PQflush(c);
        if (more < 0) {
            pg_error_conn(e, c, "send");
            break;
        }
        if (!PQisBusy(c)) {
            res = PQgetResult(c);
            if (!res)
                return last;
            if (last && PQresultStatus(last) == PGRES_FATAL_ERROR) {
                PQclear(res); /* the first error is the one to tell */
                continue;
            }
            PQclear(last);
            last = res;
            continue;
        }
        if (fiber_wait_fd(PQsocket(c), more ? EV_READ | EV_WRITE : EV_READ, "PostgreSQL") < 0) {
            err_set(e, ERR_NOT_READY, "the database did not answer");
            break;
        }
        if (!PQconsumeInput(c)) {
            pg_error_conn(e, c, "receive");
            break;
        }
    }
    PQclear(last);
    return NULL;
}

/* Generic plans: the same few statements run all the time, and planning them anew costs more than they do. */
static suspends int set_up(struct pg *pg, PGconn *c, struct err *e)
{
    char script[512];
    int n = snprintf(script, sizeof script,
                     "SET plan_cache_mode = force_generic_plan; SET jit = off; SET statement_timeout = %lld;"
                     "SET idle_in_transaction_session_timeout = '60s'; SET DateStyle = ISO; SET bytea_output = hex;",
                     (long long)pg->cfg->database_statement_timeout);
    if (PQserverVersion(c) >= 140000)
        n += snprintf(script + n, sizeof script - (size_t)n, "SET client_connection_check_interval = %d;", PG_CHECK_MS);
    PGresult *res = run(c, script, e);
    if (!res)
        return -1;
    int rc = PQresultStatus(res) == PGRES_COMMAND_OK ? 0 : pg_error(e, res, "session set-up");
    PQclear(res);
    return rc;
}

suspends PGconn *pg_conn_open(struct pg *pg, int place, struct err *e)
{
    PGconn *c = start(pg, e);
    if (!c) {
        pg_budget_give(place);
        return NULL;
    }
    PQsetnonblocking(c, 1);
    if (finish_connecting(c, e) < 0 || set_up(pg, c, e) < 0) {
        pg_hang_up(pg, c, place);
        return NULL;
    }
    return c;
}

/* ---- connections of lanes ---- */

static bool wanted(struct pg_conn *conn)
{
    bool on_demand = conn->lane == PG_SLOW || conn->pg->draining;
    return !conn->pg->closing && fiber_check() != -ECANCELED && (!on_demand || conn->pg->lane[conn->lane].queued > 0);
}

/* Can the worker do without it? */
static bool spare(const struct pg_conn *conn)
{
    const struct pg_lane_state *l = &conn->pg->lane[conn->lane];
    if (conn->lane == PG_WRITE && !l->queued)
        return true;
    for (int i = 0; i < l->n; i++)
        if (&l->conn[i] != conn && l->conn[i].state != CONN_DOWN && !l->conn[i].no_room)
            return true;
    return false;
}

/* Waits for a place in the budget. Who cannot do without is counted as waiting, so that others make room for it, and waits
 * as long as an attempt to connect may take. */
static suspends bool find_room(struct pg_conn *conn)
{
    struct pg *pg = conn->pg;
    int64_t begin = 0;
    bool found = false;
    while (wanted(conn) && !(found = pg_budget_take(pg, spare(conn), &conn->place))) {
        bool need = !spare(conn);
        begin = need && begin ? begin : clock_ns();
        if (need && clock_ns() - begin >= pg->cfg->database_connect_timeout * MS)
            break;
        conn->no_room = true;
        STAT_ADD(store_waiting, need);
        fiber_sleep((ROOM_POLL_MS + random() % ROOM_POLL_MS) * MS);
        STAT_SUB(store_waiting, need);
    }
    conn->no_room = false;
    return found;
}

static suspends void connect_main(void *arg)
{
    struct pg_conn *conn = arg;
    struct pg *pg = conn->pg;
    conn->connector = fiber_self();
    while (wanted(conn)) {
        struct err e;
        if (!find_room(conn)) {
            if (wanted(conn)) {
                conn->failures++;
                pg_budget_refused(pg, &e);
                pg_conn_failed(conn, &e);
            }
            continue; /* having waited */
        }
        fiber_set_deadline(fiber_self(), clock_ns() + pg->cfg->database_connect_timeout * MS);
        conn->c = pg_conn_open(pg, conn->place, &e);
        fiber_set_deadline(fiber_self(), 0);
        if (conn->c && !pg->closing) {
            conn->connector = NULL;
            conn->failures = 0;
            pg_conn_ready(conn);
            break;
        }
        if (conn->c)
            pg_hang_up(pg, conn->c, conn->place);
        conn->c = NULL;
        if (pg->closing || fiber_check() == -ECANCELED)
            break;
        int64_t backoff = BACKOFF_FIRST_MS << (conn->failures < 6 ? conn->failures : 6);
        backoff = backoff < BACKOFF_MAX_MS ? backoff : BACKOFF_MAX_MS;
        conn->failures++;
        pg_conn_failed(conn, &e);
        fiber_sleep(backoff * MS + (random() % (backoff + 1)) * MS / 2); /* not all workers at once */
    }
    if (conn->connector == fiber_self()) {
        conn->connector = NULL;
        conn->state = CONN_DOWN;
    }
    pg_release(pg);
}

void pg_conn_start(struct pg_conn *conn)
{
    if (conn->state != CONN_DOWN || conn->pg->closing)
        return;
    conn->state = CONN_CONNECTING;
    conn->pg->refs++;
    if (!fiber_spawn("postgres connect", connect_main, conn)) {
        conn->state = CONN_DOWN;
        conn->pg->refs--;
    }
}

/* ---- sessions ---- */

struct pg_session {
    struct pg *pg;
    PGconn *c;
    int place;
};

suspends int pg_session_open(struct pg *pg, struct pg_session **out, struct err *e)
{
    int64_t before = fiber_deadline(fiber_self()), within = clock_ns() + pg->cfg->database_connect_timeout * MS;
    int place;
    pg->refs++;
    if (!before || before > within)
        fiber_set_deadline(fiber_self(), within);
    struct pg_conn *write = &pg->lane[PG_WRITE].conn[0];
    bool taken;
    while (!(taken = pg_budget_take(pg, false, &place))) {
        if (pg_idle(write)) /* workers that all hold on to theirs would wait for each other */
            pg_conn_close_idle(write);
        if (fiber_sleep(ROOM_POLL_MS * MS) < 0)
            break;
    }
    PGconn *c = taken ? pg_conn_open(pg, place, e) : NULL;
    fiber_set_deadline(fiber_self(), before);
    if (!taken)
        pg_budget_refused(pg, e);
    if (!c) {
        pg_release(pg);
        return -1;
    }
    *out = malloc(sizeof **out);
    if (!*out)
        abort();
    **out = (struct pg_session){pg, c, place};
    return 0;
}

static void clear(void *res)
{
    PQclear(res);
}

suspends int pg_session_run(struct pg_session *s, const char *script, struct arena *a, struct pg_rows *out,
                            struct err *e)
{
    PGresult *res = run(s->c, script, e);
    if (!res)
        return -1;
    ExecStatusType status = PQresultStatus(res);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY) {
        pg_error(e, res, "script");
        PQclear(res);
        return -1;
    }
    *out = (struct pg_rows){arena_own(a, res, clear), PQntuples(res)};
    return 0;
}

void pg_session_close(struct pg_session *s)
{
    if (!s)
        return;
    pg_hang_up(s->pg, s->c, s->place);
    pg_conn_start(&s->pg->lane[PG_WRITE].conn[0]); /* if it made room for the session */
    pg_release(s->pg);
    free(s);
}
