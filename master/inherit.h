/* The side of the new master in an upgrade: it boots with the sockets of the old one, and takes over when told to. */
#pragma once
#include "master/estate.h"
#include "master/handshake.h"

struct master;

enum heir_step {
    HEIR_NONE,   /* an ordinary start, or an upgrade that is over */
    HEIR_BOOT,   /* the workers boot */
    HEIR_OFFER,  /* READY was said; the old master decides */
    HEIR_WINDOW, /* this is the server, and the old one can still take it back */
};

struct heir {
    enum heir_step step;
    bool trial; /* one worker only, to see whether it boots; then it ends */
    bool asked; /* ROLLBACK was sent */
    bool back;  /* and done: the old master serves again */
    bool pidfile_shared;
    char control[108];    /* path of the old master's control socket: this one's takes its place */
    char reason[400];     /* why it cannot take over */
    struct estate estate; /* what was received; taken apart during the start */
    struct handshake hand;
};

/* For the start, in this order: receives what the environment names; limits the generation, when it is a trial; opens the
 * pidfile; shares the places for connections to the database; listens to the old master, and lets go of what is not
 * needed. Without an estate all do what an ordinary start does. */
must_use int heir_receive(struct master *m, struct err *e);
void heir_limit(struct master *m);
must_use int heir_pidfile(struct master *m, struct err *e);
must_use int heir_places(struct master *m, struct err *e);
must_use int heir_begin(struct master *m, struct err *e);

void heir_tick(struct master *m, int64_t now);
/* The master stops; true: the old one serves, or will, and what it uses must stay. */
bool heir_stop(struct master *m);
void heir_fini(struct master *m);     /* tells the old master why, if it waits for this one */
bool heir_rollback(struct master *m); /* asks the old master; false: there is nothing to roll back */
