#include "worker/io/pg_impl.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
    SILENCE_MS = 5000, /* beyond statement_timeout without an answer, a connection counts as dead */
    TICK_MS = 250,
    AWAIT_MS = 10,
    IDLE_MS = 250, /* of a connection that has rested so long, a worker can do without */
    TURN_MS = 500  /* so long one for searches or writes is used before others who wait have theirs */
};

static void *need(void *p)
{
    if (!p)
        abort(); /* out of memory */
    return p;
}

/* ---- open and close ---- */

static void on_turn(void *arg)
{
    pg_dispatch(arg);
}

static void check_busy(struct pg_conn *conn)
{
    int64_t limit = (conn->pg->cfg->database_statement_timeout + SILENCE_MS) * MS;
    if (clock_ns() - conn->progress_ns < limit) {
        pg_cancel_unwanted(conn);
        return;
    }
    struct err e;
    err_set(&e, ERR_NOT_READY, "the database does not answer");
    err_log(&e, "no answer from %s for %lld s", PQhost(conn->c), (long long)(limit / SEC));
    pg_conn_lost(conn, &e);
}

bool pg_idle(const struct pg_conn *conn)
{
    return conn->state == CONN_READY && list_empty(&conn->flights) && !conn->cancelling &&
           !conn->pg->lane[conn->lane].queued;
}

/* What a worker does not use others may have: connections for searches and writes if they wait, and any once it drains.
 * It makes them again when it needs them. */
static bool gives_up(const struct pg_conn *conn, bool wanted)
{
    bool rests = clock_ns() - conn->progress_ns >= IDLE_MS * MS;
    switch (conn->lane) {
    case PG_SLOW: return wanted || conn->pg->draining;
    case PG_WRITE: return rests && (wanted || conn->pg->draining);
    default: return rests && conn->pg->draining;
    }
}

/* One that never rests is taken, too, when it had its turn: its worker waits for the next one, behind the others. */
static bool had_its_turn(const struct pg_conn *conn)
{
    return conn->lane != PG_FAST && clock_ns() - conn->ready_ns >= TURN_MS * MS;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct pg *pg = arg;
    bool wanted = pg_budget_wanted(pg);
    for (int lane = PG_LANES - 1; lane >= 0; lane--)
        for (int i = 0; i < pg->lane[lane].n; i++) {
            struct pg_conn *conn = &pg->lane[lane].conn[i];
            if (conn->state == CONN_READY && !list_empty(&conn->flights))
                check_busy(conn);
            if (conn->state == CONN_READY && !conn->leaving &&
                (pg_idle(conn) ? gives_up(conn, wanted) : wanted && had_its_turn(conn))) {
                conn->leaving = true;
                wanted = false; /* one is enough for now */
            }
            pg_conn_leave(conn);
        }
}

/* libpq looks at ports only when it connects. */
static bool ports_make_sense(const PQconninfoOption *url)
{
    for (; url->keyword; url++) {
        struct str rest = str_of(url->val), port;
        if (strcmp(url->keyword, "port") != 0)
            continue;
        while (rest.n) {
            uint64_t v;
            port = str_cut(&rest, ',');
            if (port.n && (!str_to_u64(port, &v) || v < 1 || v > 65535))
                return false;
        }
    }
    return true;
}

static PQconninfoOption *parse_url(const struct config *cfg, struct err *e)
{
    char *why = NULL;
    PQconninfoOption *url = PQconninfoParse(cfg->database_url, &why);
    if (!url) {
        err_set(e, ERR_VALIDATION, "database.url: %s", why ? why : "out of memory");
        PQfreemem(why);
        return NULL;
    }
    if (!ports_make_sense(url)) {
        PQconninfoFree(url);
        err_set(e, ERR_VALIDATION, "database.url: a port is a number from 1 to 65535");
        return NULL;
    }
    return url;
}

int pg_check_url(const struct config *cfg, struct err *e)
{
    PQconninfoOption *url = parse_url(cfg, e);
    PQconninfoFree(url);
    return url ? 0 : -1;
}

int pg_open(const struct config *cfg, const struct pg_stmt *table, size_t n, struct pg **out, struct err *e)
{
    PQconninfoOption *url = parse_url(cfg, e);
    if (!url)
        return -1;
    struct pg *pg = need(calloc(1, sizeof *pg));
    *pg = (struct pg){.cfg = cfg, .table = table, .n_stmt = n, .url = url, .refs = 1};
    list_init(&pg->goodbyes);
    for (int lane = 0; lane < PG_LANES; lane++) {
        struct pg_lane_state *l = &pg->lane[lane];
        list_init(&l->queue);
        l->n = lane == PG_SLOW ? (int)cfg->database_slow_pool : 1;
        l->conn = need(calloc((size_t)l->n, sizeof *l->conn));
        for (int i = 0; i < l->n; i++) {
            struct pg_conn *conn = &l->conn[i];
            conn->pg = pg;
            conn->lane = (enum pg_lane)lane;
            conn->prepared = need(calloc(n ? n : 1, sizeof *conn->prepared));
            list_init(&conn->flights);
            list_init(&conn->unconfirmed);
            list_init(&conn->redo);
        }
    }
    pg->hook = (struct loop_hook){.fn = on_turn, .arg = pg};
    loop_hook_add(&pg->hook, LOOP_FLUSH_BACKENDS);
    event_assign(&pg->tick, loop_base(), -1, EV_PERSIST, on_tick, pg);
    event_add(&pg->tick, &(struct timeval){.tv_usec = TICK_MS * 1000});
    pg_conn_start(&pg->lane[PG_FAST].conn[0]);
    pg_conn_start(&pg->lane[PG_WRITE].conn[0]);
    *out = pg;
    return 0;
}

void pg_release(struct pg *pg)
{
    if (--pg->refs)
        return;
    for (int lane = 0; lane < PG_LANES; lane++) {
        for (int i = 0; i < pg->lane[lane].n; i++)
            free(pg->lane[lane].conn[i].prepared);
        free(pg->lane[lane].conn);
    }
    PQconninfoFree(pg->url);
    free(pg);
}

suspends bool pg_await_room(struct pg *pg)
{
    int64_t ms = pg->cfg->database_connect_timeout, most = pg->cfg->server_boot_timeout;
    int64_t end = clock_ns() + (ms < most ? ms : most) / 2 * MS; /* then calls wait for the rest of connect_timeout */
    const struct pg_conn *fast = &pg->lane[PG_FAST].conn[0];
    while (fast->no_room && clock_ns() < end && fiber_sleep(AWAIT_MS * MS) == 0)
        ;
    return !fast->no_room;
}

void pg_drain(struct pg *pg)
{
    pg->draining = true;
    on_tick(-1, 0, pg);
}

bool pg_leave(struct pg *pg)
{
    bool gone = list_empty(&pg->goodbyes) && !pg->cancels;
    pg->draining = true;
    for (int lane = 0; lane < PG_LANES; lane++)
        for (int i = 0; i < pg->lane[lane].n; i++) {
            struct pg_conn *conn = &pg->lane[lane].conn[i];
            if (pg_idle(conn))
                pg_conn_close_idle(conn);
            else if (conn->connector && !pg->lane[lane].queued)
                fiber_cancel(conn->connector);
            gone &= conn->state == CONN_DOWN;
        }
    return gone && list_empty(&pg->goodbyes);
}

void pg_close(struct pg *pg)
{
    struct err e;
    if (!pg)
        return;
    err_set(&e, ERR_CANCELED, "the server is stopping");
    pg->closing = true;
    pg_forget_goodbyes(pg);
    loop_hook_del(&pg->hook);
    event_del(&pg->tick);
    for (int lane = 0; lane < PG_LANES; lane++) {
        struct pg_lane_state *l = &pg->lane[lane];
        for (int i = 0; i < l->n; i++) {
            if (l->conn[i].state == CONN_READY)
                pg_conn_lost(&l->conn[i], &e);
            if (l->conn[i].connector)
                fiber_cancel(l->conn[i].connector);
        }
        while (!list_empty(&l->queue))
            pg_finish(list_entry(l->queue.next, struct pg_call, link), NULL, &e);
    }
    pg_release(pg);
}

/* ---- calling ---- */

static void clear(void *res)
{
    PQclear(res);
}

static bool unreachable(const struct pg_lane_state *l)
{
    for (int i = 0; i < l->n; i++)
        if (l->conn[i].state != CONN_CONNECTING || l->conn[i].failures == 0)
            return false;
    return true;
}

static suspends int wait_for(struct pg_call *c, struct err *e)
{
    static const char *const why[PG_LANES] = {"postgres fast", "postgres write", "postgres slow"};
    bool shielded = false;
    while (c->state != CALL_DONE) {
        int rc = fiber_park(why[c->lane]);
        if (rc == 0 || c->state == CALL_DONE)
            continue;
        if (c->state == CALL_SENT && c->write) {
            fiber_shield(1); /* it may happen, so the caller must learn whether it did */
            shielded = c->given_up = true;
            continue;
        }
        if (c->state == CALL_QUEUED) {
            pg_dequeue(c->pg, c);
        } else if (c->flight) {
            c->flight->call = NULL;
            if (c->lane == PG_SLOW)
                pg_cancel_on_server(c->flight->conn);
        } else {
            list_del(&c->link); /* among those to be sent again */
        }
        return rc == -ECANCELED ? err_set(e, ERR_CANCELED, "given up")
                                : err_set(e, ERR_DEADLINE, "the database did not answer in time");
    }
    if (shielded)
        fiber_shield(-1);
    return 0;
}

static suspends int perform(struct pg_call *c, struct arena *a, struct pg_rows *out, struct err *e)
{
    struct pg *pg = c->pg;
    struct pg_lane_state *l = &pg->lane[c->lane];
    STAT_ADD(store_calls_total, 1);
    int rc = -1;
    if (pg->closing) {
        err_set(e, ERR_CANCELED, "the server is stopping");
    } else if (pg->queued + pg->in_flight >= pg->cfg->database_max_queue) {
        err_set(e, ERR_OVERLOADED, "too many calls wait for the database");
    } else if (unreachable(l)) {
        *e = l->why;
    } else {
        pg_enqueue(pg, c, false);
        rc = wait_for(c, e);
    }
    if (rc == 0 && !c->res) {
        *e = c->err;
        rc = -1;
    }
    if (rc < 0) {
        STAT_ADD(store_errors_total, 1);
        return -1;
    }
    *out = (struct pg_rows){c->res, PQntuples(c->res)};
    arena_own(a, c->res, clear);
    return 0;
}

suspends int pg_call(struct pg *pg, int stmt, struct pg_args *args, struct arena *a, struct pg_rows *out, struct err *e)
{
    const struct pg_stmt *s = &pg->table[stmt];
    struct err scratch;
    struct pg_call c = {.pg = pg,
                        .stmt = stmt,
                        .sql = s->sql,
                        .args = args,
                        .lane = s->lane,
                        .write = s->write,
                        .binary = s->binary,
                        .fiber = fiber_self()};
    assert(c.fiber && (s->lane != PG_WRITE || s->write) && (s->lane != PG_FAST || !s->write));
    return perform(&c, a, out, e ? e : &scratch);
}

suspends int pg_query(struct pg *pg, const char *sql, bool write, struct pg_args *args, struct arena *a,
                      struct pg_rows *out, struct err *e)
{
    struct err scratch;
    struct pg_call c = {
        .pg = pg, .stmt = -1, .sql = sql, .args = args, .lane = PG_SLOW, .write = write, .fiber = fiber_self()};
    assert(c.fiber);
    return perform(&c, a, out, e ? e : &scratch);
}

/* ---- LISTEN ---- */

static suspends void listen_main(void *arg)
{
    struct pg *pg = arg;
    struct arena a = {0};
    struct pg_rows rows;
    struct err e;
    struct str sql = arena_printf(&a, "LISTEN %s", pg->channel);
    struct pg_call c = {.pg = pg, .stmt = -1, .sql = sql.p, .lane = PG_FAST, .fiber = fiber_self()};
    if (perform(&c, &a, &rows, &e) < 0)
        log_err(LOG_WARN, "database: LISTEN", &e);
    else if (!pg->closing && pg->on_notice)
        pg->on_notice(pg->notice_arg);
    arena_fini(&a);
    pg_release(pg);
}

void pg_take_listening(struct pg *pg)
{
    pg->refs++;
    if (!fiber_spawn("postgres listen", listen_main, pg))
        pg_release(pg);
}

void pg_listen(struct pg *pg, const char *channel, void (*fn)(void *arg), void *arg)
{
    pg->channel = channel;
    pg->on_notice = fn;
    pg->notice_arg = arg;
    if (fn && pg->lane[PG_FAST].conn[0].state == CONN_READY)
        pg_take_listening(pg);
}
