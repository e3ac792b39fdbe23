/* What the files of io/pg share. */
#pragma once
#include "worker/fiber/loop.h"
#include "worker/io/pg.h"
#include <libpq-fe.h>

enum pg_call_state { CALL_QUEUED, CALL_SENT, CALL_DONE };

/* One call, on the stack of its fiber. */
struct pg_call {
    struct pg *pg;
    struct list link; /* QUEUED: in the lane's queue; SENT: nowhere, its flight knows it */
    enum pg_call_state state;
    int stmt; /* -1: `sql` */
    const char *sql;
    struct pg_args *args;
    enum pg_lane lane;
    bool write, binary;
    bool alone;    /* wants a Sync of its own: it was in a batch that failed */
    bool given_up; /* a write that its fiber waits for only to learn whether it happened */
    int retries;
    struct pg_flight *flight; /* SENT */
    struct fiber *fiber;
    PGresult *res; /* DONE: the result, or NULL and `err` */
    struct err err;
};

enum pg_flight_kind { FLIGHT_PREPARE, FLIGHT_CALL, FLIGHT_SYNC };

/* One thing sent whose answer is awaited. It outlives a call that is given up. */
struct pg_flight {
    struct list link;
    struct pg_conn *conn;
    enum pg_flight_kind kind;
    int stmt;
    struct pg_call *call; /* NULL: given up, and for SYNC */
    bool exposed;         /* a cancel meant for another may hit it */
    PGresult *res;
};

/* DOWN → CONNECTING → READY → DOWN … */
enum pg_conn_state { CONN_DOWN, CONN_CONNECTING, CONN_READY };

struct pg_conn {
    struct pg *pg;
    enum pg_lane lane;
    enum pg_conn_state state;
    PGconn *c;
    int place; /* in the budget; CONNECTING: once it has one */
    struct fiber *connector;
    struct event on_read, on_write;
    bool no_room;            /* CONNECTING: waits for a place in the budget */
    bool known;              /* was connected before */
    bool leaving;            /* READY: to be closed after what is in flight; others wait for its place */
    bool busy;               /* counted as in use */
    bool *prepared;          /* by statement */
    struct list flights;     /* in order of sending */
    struct list unconfirmed; /* writes that succeeded and wait for their Sync */
    struct list redo;        /* calls of the batch being answered that must be sent again */
    bool failed;             /* the batch being answered */
    PGresult *commit_error;  /* of the batch being answered, when all its calls had gone well */
    int in_flight;           /* calls sent and not answered */
    bool cancelling;         /* a helper is telling the server to cancel what runs here */
    int failures;            /* attempts to connect since the last success */
    int64_t ready_ns;        /* when it was connected */
    int64_t progress_ns;     /* when the server last answered, or was first asked */
};

struct pg_lane_state {
    struct list queue;
    int queued;
    struct pg_conn *conn;
    int n;
    struct err why; /* of the last attempt to connect */
};

struct pg {
    const struct config *cfg;
    const struct pg_stmt *table;
    size_t n_stmt;
    PQconninfoOption *url;
    struct pg_lane_state lane[PG_LANES];
    struct loop_hook hook;
    struct event tick;
    int queued, in_flight;
    int refs;             /* the owner, and fibers at work for it */
    int cancels;          /* under way */
    struct list goodbyes; /* connections that we have closed and the server not yet */
    bool draining, closing, warned;
    int attempt; /* turns the order of several hosts, so that a dead one does not use up every attempt */
    const char *channel;
    void (*on_notice)(void *);
    void *notice_arg;
};

/* pg_conn.c */
void pg_conn_start(struct pg_conn *conn); /* in the background, if it is DOWN */
/* Connects and sets up; what `ragd` needs of a session is set, nothing is prepared. Gives `place` back if that fails. */
suspends PGconn *pg_conn_open(struct pg *pg, int place, struct err *e);
bool pg_idle(const struct pg_conn *conn);      /* READY, and nothing to do */
void pg_conn_close_idle(struct pg_conn *conn); /* made again when a call needs it */
void pg_conn_leave(struct pg_conn *conn);      /* closes it if it is leaving and nothing is in flight any more */
void pg_release(struct pg *pg);                /* drops a reference */

/* pg_budget.c */
enum { PG_NO_PLACE = -1, PG_CHECK_MS = 1000 /* client_connection_check_interval */ };
/* A place for one more connection; never waits. `spare`: the worker can do without it, so that it leaves some for others.
 * False: there is none. One-shot commands have no siblings: they get PG_NO_PLACE. */
bool pg_budget_take(struct pg *pg, bool spare, int *place);
void pg_budget_give(int place);
int pg_budget_refused(const struct pg *pg, struct err *e); /* -1 */
bool pg_budget_wanted(struct pg *pg);                      /* does any worker wait for a place? */
/* Ends the connection; its place is given back when the server has ended it, too. */
void pg_hang_up(struct pg *pg, PGconn *c, int place);
void pg_forget_goodbyes(struct pg *pg);

/* pg_cancel.c */
void pg_cancel_on_server(struct pg_conn *conn); /* what runs there now */
/* The same if it runs for nobody. With flights. */
void pg_cancel_unwanted(struct pg_conn *conn);

/* pg_pipe.c */
void pg_enqueue(struct pg *pg, struct pg_call *c, bool front);
void pg_dequeue(struct pg *pg, struct pg_call *c);
/* Ends a call with `res`, which becomes the call's, or an error. */
void pg_finish(struct pg_call *c, PGresult *res, const struct err *e);
void pg_dispatch(struct pg *pg); /* at the end of a turn: sends what may be sent */
void pg_conn_ready(struct pg_conn *conn);
void pg_conn_failed(struct pg_conn *conn, const struct err *why);
void pg_conn_lost(struct pg_conn *conn, const struct err *why);

/* pg.c */
void pg_take_listening(struct pg *pg);

/* pg_value.c: what the server or libpq reported, as an error of ours */
int pg_error(struct err *e, const PGresult *res, const char *what);
int pg_error_conn(struct err *e, PGconn *c, const char *what);
