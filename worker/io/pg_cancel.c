/* Statements that nobody waits for any more do not go on running: here they are cancelled while their worker lives. Of one
 * that was killed the server notices by itself (PG_CHECK_MS).
 *
 * A request to cancel names a connection, not a statement: it stops whatever runs there when it arrives. So
 * - it is sent only if what runs there now is what was given up;
 * - until PQcancel() is back nothing is sent on the connection. It comes back after the server has signalled the backend,
 *   and a backend that is signalled between two statements ignores it: no later statement can be hit;
 * - those that were sent before, behind the one that is meant, may be hit when that one ends just then. They are marked
 *   as `exposed`, and sent again if they fail by a cancellation. */
#include "worker/io/pg_impl.h"
#include "common/clock.h"
#include <stdlib.h>

enum { RUNS_MS = 100 }; /* a statement shorter than this is not worth a cancel */

struct cancel {
    struct pg_conn *conn;
    PGcancel *handle;
};

/* Bounded: by TCP_USER_TIMEOUT, which the connection has and PQcancel() sets as well. */
static void cancel_blocking(void *arg)
{
    char why[128];
    (void)PQcancel(((struct cancel *)arg)->handle, why, sizeof why); /* in vain: statement_timeout ends it */
}

static suspends void cancel_main(void *arg)
{
    struct cancel *x = arg;
    fiber_blocking(cancel_blocking, x);
    PQfreeCancel(x->handle);
    x->conn->cancelling = false;
    x->conn->pg->cancels--;
    pg_release(x->conn->pg);
    free(x);
}

void pg_cancel_on_server(struct pg_conn *conn)
{
    if (conn->cancelling)
        return;
    struct cancel *x = malloc(sizeof *x);
    if (!x)
        abort();
    *x = (struct cancel){conn, PQgetCancel(conn->c)};
    if (x->handle) {
        conn->cancelling = true;
        conn->pg->cancels++;
        conn->pg->refs++;
        list_for_each (it, &conn->flights)
            list_entry(it, struct pg_flight, link)->exposed = true;
        if (fiber_spawn("postgres cancel", cancel_main, x))
            return;
        conn->cancelling = false;
        conn->pg->cancels--;
        conn->pg->refs--;
    }
    PQfreeCancel(x->handle);
    free(x);
}

/* The server works on what was sent first of all that it has not answered. */
static bool works_for_nobody(const struct pg_conn *conn)
{
    const struct pg_flight *f = list_entry(conn->flights.next, struct pg_flight, link);
    if (f->kind == FLIGHT_PREPARE) /* a call's own comes right behind */
        f = list_entry(f->link.next, struct pg_flight, link);
    return f->kind == FLIGHT_CALL && (!f->call || f->call->given_up);
}

void pg_cancel_unwanted(struct pg_conn *conn)
{
    if (clock_ns() - conn->progress_ns >= RUNS_MS * MS && works_for_nobody(conn))
        pg_cancel_on_server(conn);
}

void pg_cancel_all(struct pg *pg)
{
    for (int lane = 0; lane < PG_LANES; lane++)
        for (int i = 0; i < pg->lane[lane].n; i++) {
            struct pg_conn *conn = &pg->lane[lane].conn[i];
            if (conn->state != CONN_READY || list_empty(&conn->flights))
                continue;
            list_for_each (it, &conn->flights) {
                struct pg_flight *f = list_entry(it, struct pg_flight, link);
                if (f->call)
                    f->call->given_up = true;
            }
            pg_cancel_on_server(conn);
        }
}
