/* What goes over the connections of the lanes: batches out, results in, and what happens when one is lost. */
#include "worker/io/pg_impl.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include <assert.h>
#include <stdlib.h>

enum {
    PIPELINE_MAX = 512, /* calls in flight on the fast lane */
    BATCH_MAX = 128,    /* calls that share a commit on the write lane */
    RETRIES_MAX = 3     /* after deadlocks and the like */
};

static void *need(void *p)
{
    if (!p)
        abort(); /* out of memory */
    return p;
}

/* ---- the life of a call ---- */

void pg_enqueue(struct pg *pg, struct pg_call *c, bool front)
{
    struct pg_lane_state *l = &pg->lane[c->lane];
    c->state = CALL_QUEUED;
    c->flight = NULL;
    if (front)
        list_add(&l->queue, &c->link);
    else
        list_add_tail(&l->queue, &c->link);
    l->queued++;
    pg->queued++;
    STAT_ADD(store_queue, 1);
}

void pg_dequeue(struct pg *pg, struct pg_call *c)
{
    list_del(&c->link);
    pg->lane[c->lane].queued--;
    pg->queued--;
    STAT_SUB(store_queue, 1);
}

/* Ends a call with `res`, which becomes the call's, or an error. */
void pg_finish(struct pg_call *c, PGresult *res, const struct err *e)
{
    if (c->state == CALL_QUEUED)
        pg_dequeue(c->pg, c);
    c->state = CALL_DONE;
    c->flight = NULL;
    c->res = res;
    if (!res)
        c->err = *e;
    fiber_wake(c->fiber);
}

static const char *name_of(const struct pg_call *c)
{
    return c->stmt < 0 ? "query" : c->pg->table[c->stmt].name;
}

/* ---- sending ---- */

static struct pg_flight *fly(struct pg_conn *conn, enum pg_flight_kind kind, struct pg_call *c)
{
    struct pg_flight *f = need(malloc(sizeof *f));
    *f = (struct pg_flight){.conn = conn, .kind = kind, .stmt = c ? c->stmt : -1};
    if (kind == FLIGHT_CALL)
        f->call = c;
    if (list_empty(&conn->flights))
        conn->progress_ns = clock_ns();
    list_add_tail(&conn->flights, &f->link);
    return f;
}

static void land(struct pg_flight *f)
{
    list_del(&f->link);
    PQclear(f->res);
    free(f);
}

static bool send_call(struct pg_conn *conn, struct pg_call *c)
{
    static const struct pg_args none;
    const struct pg_args *args = c->args ? c->args : &none;
    bool prepared = c->stmt >= 0 && conn->pg->cfg->database_prepared;
    pg_dequeue(conn->pg, c);
    c->state = CALL_SENT;
    if (prepared && !conn->prepared[c->stmt]) {
        conn->prepared[c->stmt] = true;
        fly(conn, FLIGHT_PREPARE, c);
        if (!PQsendPrepare(conn->c, conn->pg->table[c->stmt].name, c->sql, 0, NULL)) {
            c->flight = fly(conn, FLIGHT_CALL, c);
            return false;
        }
    }
    c->flight = fly(conn, FLIGHT_CALL, c);
    conn->in_flight++;
    conn->pg->in_flight++;
    if (prepared)
        return PQsendQueryPrepared(conn->c, conn->pg->table[c->stmt].name, args->n, args->value, args->length,
                                   args->format, c->binary);
    return PQsendQueryParams(conn->c, c->sql, args->n, NULL, args->value, args->length, args->format, c->binary);
}

static void lost_by_libpq(struct pg_conn *conn)
{
    struct err e;
    pg_error_conn(&e, conn->c, "connection");
    pg_conn_lost(conn, &e);
}

static bool flush(struct pg_conn *conn)
{
    int rc = PQflush(conn->c);
    if (rc < 0) {
        lost_by_libpq(conn);
        return false;
    }
    if (rc > 0)
        event_add(&conn->on_write, NULL);
    return true;
}

static void note_use(struct pg_conn *conn)
{
    bool busy = conn->state == CONN_READY && !list_empty(&conn->flights);
    if (busy == conn->busy)
        return;
    conn->busy = busy;
    if (busy)
        STAT_ADD(store_connections_in_use, 1);
    else
        STAT_SUB(store_connections_in_use, 1);
}

/* Sends up to `max` calls of the lane's queue, and a Sync behind them, or behind each that wants to be alone. */
static void send_batch(struct pg_conn *conn, int max)
{
    struct pg_lane_state *l = &conn->pg->lane[conn->lane];
    bool ok = true, open = false;
    for (int n = 0; ok && n < max && !list_empty(&l->queue); n++) {
        struct pg_call *c = list_entry(l->queue.next, struct pg_call, link);
        if (c->alone && open) {
            fly(conn, FLIGHT_SYNC, NULL);
            ok = PQpipelineSync(conn->c);
            open = false;
        }
        ok = ok && send_call(conn, c);
        open = true;
        if (ok && c->alone) {
            fly(conn, FLIGHT_SYNC, NULL);
            ok = PQpipelineSync(conn->c);
            open = false;
        }
    }
    if (ok && open) {
        fly(conn, FLIGHT_SYNC, NULL);
        ok = PQpipelineSync(conn->c);
    }
    if (!ok)
        lost_by_libpq(conn);
    else if (flush(conn))
        note_use(conn);
}

/* Those of the slow lane are made when they are needed, and so are others that were closed to make room. */
static void call_for_connections(struct pg_lane_state *l)
{
    int coming = 0;
    for (int i = 0; i < l->n; i++)
        coming += l->conn[i].state == CONN_CONNECTING;
    for (int i = 0; i < l->n && coming < l->queued; i++)
        if (l->conn[i].state == CONN_DOWN) {
            pg_conn_start(&l->conn[i]);
            coming++;
        }
}

static void dispatch_slow(struct pg *pg)
{
    struct pg_lane_state *l = &pg->lane[PG_SLOW];
    for (int i = 0; i < l->n && l->queued; i++) {
        struct pg_conn *conn = &l->conn[i];
        if (conn->state == CONN_READY && list_empty(&conn->flights) && !conn->cancelling && !conn->leaving)
            send_batch(conn, 1);
    }
}

void pg_dispatch(struct pg *pg)
{
    if (!pg->queued)
        return;
    struct pg_conn *fast = &pg->lane[PG_FAST].conn[0], *write = &pg->lane[PG_WRITE].conn[0];
    if (pg->lane[PG_FAST].queued && fast->state == CONN_READY && !fast->cancelling && fast->in_flight < PIPELINE_MAX)
        send_batch(fast, PIPELINE_MAX - fast->in_flight);
    if (pg->lane[PG_WRITE].queued && write->state == CONN_READY && !write->cancelling && !write->leaving &&
        list_empty(&write->flights))
        send_batch(write, BATCH_MAX);
    if (pg->lane[PG_SLOW].queued)
        dispatch_slow(pg);
    for (int lane = 0; lane < PG_LANES; lane++)
        call_for_connections(&pg->lane[lane]);
}

/* ---- receiving ---- */

/* Errors that another try may not meet: deadlock, serialization; a prepared statement that a proxy or DDL dropped. */
static bool worth_another_try(const char *state)
{
    static const char *const list[] = {"40001", "40P01", "26000", "0A000", "42P05"};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (strcmp(state, list[i]) == 0)
            return true;
    return false;
}

static void redo(struct pg_conn *conn, struct pg_call *c)
{
    c->flight = NULL;
    list_add_tail(&conn->redo, &c->link);
}

/* Another try for a call that nobody but itself made fail, or the end of it. */
static void refuse(struct pg_conn *conn, struct pg_call *c, const PGresult *res)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    struct err e;
    state = state ? state : "";
    bool cancelled = strcmp(state, "57014") == 0 && (c->given_up || (c->flight && c->flight->exposed));
    if (c->retries < RETRIES_MAX && (cancelled || worth_another_try(state))) {
        c->retries++;
        redo(conn, c);
        return;
    }
    pg_error(&e, res, name_of(c));
    if (c->args) {
        const char *constraint = PQresultErrorField(res, PG_DIAG_CONSTRAINT_NAME);
        str_copyz(c->args->sqlstate, sizeof c->args->sqlstate, str_of(state));
        str_copyz(c->args->constraint, sizeof c->args->constraint, str_of(constraint));
    }
    pg_finish(c, NULL, &e);
}

static void call_failed(struct pg_conn *conn, struct pg_flight *f)
{
    struct pg_call *c = f->call;
    const char *state = PQresultErrorField(f->res, PG_DIAG_SQLSTATE);
    state = state ? state : "";
    conn->failed = true;
    if (f->stmt >= 0 && (strcmp(state, "26000") == 0 || strcmp(state, "0A000") == 0))
        conn->prepared[f->stmt] = false;
    if (!c)
        return;
    if (c->write && !c->alone)
        redo(conn, c); /* perhaps a neighbour's fault */
    else
        refuse(conn, c, f->res);
}

static void prepare_ended(struct pg_conn *conn, struct pg_flight *f)
{
    ExecStatusType status = PQresultStatus(f->res);
    if (status == PGRES_COMMAND_OK)
        return;
    conn->prepared[f->stmt] = false;
    conn->failed = true;
    if (status == PGRES_PIPELINE_ABORTED)
        return;
    const char *state = PQresultErrorField(f->res, PG_DIAG_SQLSTATE);
    if (state && strcmp(state, "42P05") == 0)
        conn->prepared[f->stmt] = true; /* prepared it is */
    struct pg_flight *next = list_entry(f->link.next, struct pg_flight, link);
    next->res = f->res; /* the call's own result will only say that it was not tried */
    f->res = NULL;
}

/* The whole answer to a call has arrived. Returns false if its flight goes on (a write waits for its commit). */
static bool call_ended(struct pg_conn *conn, struct pg_flight *f)
{
    struct pg_call *c = f->call;
    conn->in_flight--;
    conn->pg->in_flight--;
    switch (PQresultStatus(f->res)) {
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
        if (c && c->write) {
            list_del(&f->link);
            list_add_tail(&conn->unconfirmed, &f->link);
            return false;
        }
        if (c) {
            pg_finish(c, f->res, NULL);
            f->res = NULL;
        }
        return true;
    case PGRES_PIPELINE_ABORTED:
        if (c)
            redo(conn, c);
        return true;
    default: call_failed(conn, f); return true;
    }
}

static void requeue(struct pg_conn *conn)
{
    while (!list_empty(&conn->redo)) {
        struct pg_call *c = list_entry(conn->redo.prev, struct pg_call, link);
        list_del(&c->link);
        if (c->given_up) { /* so far it has not happened, and now it will not */
            struct err e;
            err_set(&e, ERR_CANCELED, "given up");
            pg_finish(c, NULL, &e);
            continue;
        }
        c->alone = true;
        STAT_ADD(store_retries_total, 1);
        pg_enqueue(conn->pg, c, true);
    }
}

static void forget_failure(struct pg_conn *conn)
{
    PQclear(conn->commit_error);
    conn->commit_error = NULL;
    conn->failed = false;
}

static void batch_ended(struct pg_conn *conn)
{
    struct list *n;
    struct list back;
    list_init(&back);
    while ((n = list_pop(&conn->unconfirmed))) {
        struct pg_flight *f = list_entry(n, struct pg_flight, link);
        if (conn->failed && f->call->alone && conn->commit_error) {
            refuse(conn, f->call, conn->commit_error);
        } else if (conn->failed) {
            f->call->flight = NULL;
            list_add_tail(&back, &f->call->link);
        } else {
            pg_finish(f->call, f->res, NULL);
            f->res = NULL;
        }
        land(f);
    }
    list_splice_tail(&back, &conn->redo); /* they came before those that failed */
    list_splice_tail(&conn->redo, &back);
    forget_failure(conn);
    requeue(conn);
}

/* The server says goodbye, or is no longer one that we can write to. */
static bool fatal(const PGresult *res)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    return PQresultStatus(res) == PGRES_FATAL_ERROR &&
           (!state || strncmp(state, "57P", 3) == 0 || strcmp(state, "25006") == 0);
}

/* Takes in one result, or the NULL that ends those of one call. False: the connection is gone. */
static bool take_in(struct pg_conn *conn, PGresult *res)
{
    struct pg_flight *f = list_entry(conn->flights.next, struct pg_flight, link);
    if (res && fatal(res)) {
        struct err e;
        pg_error(&e, res, "connection");
        PQclear(res);
        pg_conn_lost(conn, &e);
        return false;
    }
    bool sync = res && PQresultStatus(res) == PGRES_PIPELINE_SYNC;
    if (sync != (f->kind == FLIGHT_SYNC)) {
        if (f->kind == FLIGHT_SYNC) { /* the commit itself failed: its error comes before the Sync's own result */
            if (res && !conn->failed) {
                conn->failed = true;
                conn->commit_error = res;
                res = NULL;
            }
            PQclear(res);
            return true;
        }
        PQclear(res);
        lost_by_libpq(conn);
        return false;
    }
    if (sync) {
        PQclear(res);
        batch_ended(conn);
        land(f);
    } else if (res) {
        if (f->res)
            PQclear(res); /* the first one counts: it is the error of the call's PREPARE */
        else
            f->res = res;
    } else if (f->kind == FLIGHT_PREPARE) {
        prepare_ended(conn, f);
        land(f);
    } else if (call_ended(conn, f)) {
        land(f);
    }
    return true;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct pg_conn *conn = arg;
    struct pg *pg = conn->pg;
    bool noticed = false;
    if (!PQconsumeInput(conn->c)) {
        lost_by_libpq(conn);
        return;
    }
    conn->progress_ns = loop_now();
    while (!list_empty(&conn->flights) && !PQisBusy(conn->c))
        if (!take_in(conn, PQgetResult(conn->c)))
            return;
    for (PGnotify *n; (n = PQnotifies(conn->c)); noticed = true)
        PQfreemem(n);
    if (PQstatus(conn->c) == CONNECTION_BAD) {
        lost_by_libpq(conn);
        return;
    }
    note_use(conn);
    pg_conn_leave(conn);
    if (noticed && pg->on_notice)
        pg->on_notice(pg->notice_arg);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    flush(arg);
}

/* ---- coming and going of connections ---- */

void pg_conn_ready(struct pg_conn *conn)
{
    struct pg *pg = conn->pg;
    if (!PQenterPipelineMode(conn->c)) {
        lost_by_libpq(conn);
        return;
    }
    conn->state = CONN_READY;
    conn->leaving = false;
    conn->ready_ns = clock_ns();
    memset(conn->prepared, 0, pg->n_stmt * sizeof *conn->prepared);
    event_assign(&conn->on_read, loop_base(), PQsocket(conn->c), EV_READ | EV_PERSIST, on_readable, conn);
    event_assign(&conn->on_write, loop_base(), PQsocket(conn->c), EV_WRITE, on_writable, conn);
    event_add(&conn->on_read, NULL);
    if (pg->warned)
        log_info("database: connected to %s port %s", PQhost(conn->c), PQport(conn->c));
    pg->warned = false;
    if (conn->known)
        STAT_ADD(store_reconnects_total, 1);
    conn->known = true;
    if (conn->lane == PG_FAST && pg->channel)
        pg_take_listening(pg);
}

static void fail_queue(struct pg_lane_state *l, const struct err *why)
{
    while (!list_empty(&l->queue))
        pg_finish(list_entry(l->queue.next, struct pg_call, link), NULL, why);
}

void pg_conn_failed(struct pg_conn *conn, const struct err *why)
{
    struct pg *pg = conn->pg;
    struct pg_lane_state *l = &pg->lane[conn->lane];
    if (!pg->warned && why->code != ERR_OVERLOADED)
        log_err(LOG_WARN, "database", why);
    pg->warned = pg->warned || why->code != ERR_OVERLOADED;
    l->why = *why;
    for (int i = 0; i < l->n; i++)
        if (l->conn[i].state == CONN_READY)
            return; /* the others go on */
    fail_queue(l, why);
}

/* What was sent and not answered: reads are sent again, once; a write may or may not have happened. */
static void recall(struct pg_conn *conn, struct pg_flight *f, const struct err *why)
{
    struct pg_call *c = f->call;
    if (c && f->kind == FLIGHT_CALL) {
        if (!c->write && c->retries == 0 && !conn->pg->closing) {
            c->retries++;
            redo(conn, c);
        } else {
            struct err e = *why;
            if (c->write)
                err_log(&e, "%s may have happened: %.200s", name_of(c), why->log);
            pg_finish(c, NULL, &e);
        }
    }
    land(f);
}

void pg_conn_lost(struct pg_conn *conn, const struct err *why)
{
    struct pg *pg = conn->pg;
    if (!pg->closing && !pg->warned) {
        log_err(LOG_WARN, "database", why);
        pg->warned = true;
    }
    if (conn->state == CONN_READY) {
        event_del(&conn->on_read);
        event_del(&conn->on_write);
    }
    pg->in_flight -= conn->in_flight;
    conn->in_flight = 0;
    forget_failure(conn);
    conn->state = CONN_DOWN;
    while (!list_empty(&conn->unconfirmed))
        recall(conn, list_entry(conn->unconfirmed.next, struct pg_flight, link), why);
    while (!list_empty(&conn->flights))
        recall(conn, list_entry(conn->flights.next, struct pg_flight, link), why);
    note_use(conn);
    requeue(conn);
    pg_hang_up(pg, conn->c, conn->place);
    conn->c = NULL;
    if (conn->lane != PG_SLOW && !pg->draining)
        pg_conn_start(conn);
}

void pg_conn_close_idle(struct pg_conn *conn)
{
    assert(conn->state == CONN_READY && list_empty(&conn->flights) && !conn->cancelling);
    event_del(&conn->on_read);
    event_del(&conn->on_write);
    conn->state = CONN_DOWN;
    pg_hang_up(conn->pg, conn->c, conn->place);
    conn->c = NULL;
}

void pg_conn_leave(struct pg_conn *conn)
{
    if (conn->state == CONN_READY && conn->leaving && list_empty(&conn->flights) && !conn->cancelling)
        pg_conn_close_idle(conn);
}
