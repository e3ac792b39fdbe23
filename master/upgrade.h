/* USR2: another binary takes over. This is the side of the old master; that of the new one is inherit.h. What they say
 * to each other, one line each, in this order:
 *
 *   new: READY {"listen": [...], "pidfile": true}   its workers are ready; what it goes on using of the old one's
 *   old: GO                                         it is the server now
 *   new: TAKEN                                      pidfile and control socket are its own
 *   old: END                                        the rollback window is over; the old one leaves
 *
 * Or, within the window:
 *
 *   new: ROLLBACK         somebody asks to undo the upgrade
 *   old: BACK             its workers, pidfile and control socket serve again; or REFUSED reason: nothing changes
 *   new: GIVEN            it is the server no longer, and drains
 *
 * New: FAILED reason, before TAKEN: it ends. STOP: it was told to stop, and the old one is to stop, too. Old: ABORT, before
 * GO: the upgrade has failed. Both: HUP: a reload was asked for, to be done by whoever is the server in the end; REOPEN:
 * the logs were renamed. */
#pragma once
#include "common/note.h"
#include "master/candidate.h"

struct master;

enum upgrade_step {
    UPGRADE_CHECK,    /* the new binary checks the configuration */
    UPGRADE_BOOT,     /* the new master boots its workers */
    UPGRADE_TRIAL,    /* as PID 1: the trial has booted, and ends */
    UPGRADE_HANDOVER, /* it was told GO */
    UPGRADE_WINDOW,   /* it serves; the workers here are gone or drain, and could come back */
    UPGRADE_BACK,     /* they come back */
    UPGRADE_RETURN,   /* they serve, and the new master was told to leave */
};

struct upgrade {
    enum upgrade_step step;
    bool again;        /* HUP came before */
    bool wanted;       /* USR2 came while something else was under way */
    uint32_t resuming; /* a new image reloads after exec: the number of that reload; 0: it does not */
    char refused[320]; /* outcome of the last rollback that was asked for: why nothing changed */
    struct candidate child;
    struct handshake hand;
    pid_t successor; /* of the last upgrade that went well */
    int64_t start_ns, deadline, window_end;
    char failed[640];    /* outcome of the last one: "" = it went well, else "stage: reason" */
    struct verdict last; /* the same for others to read */
};

void upgrade_init(struct upgrade *u);
void upgrade_request(struct master *m); /* USR2 */
void upgrade_tick(struct master *m, int64_t now);
void upgrade_shift(struct upgrade *u, int64_t gap);
void upgrade_fini(struct upgrade *u);

/* HUP, or USR1, came while an upgrade is under way, on either side. */
void upgrade_hup(struct master *m);
void upgrade_reopen(struct master *m);
/* The master stops. Before the hand-over it ends the new one. After it only this one leaves: then it returns true, and
 * what the new one uses must stay. */
bool upgrade_stop(struct master *m);
/* Brings the workers back and ends the new master; false: there is nothing to roll back. */
bool upgrade_rollback(struct master *m);

int64_t upgrade_window_ms(const struct master *m);   /* for a rollback of what has just gone well; 0: there is none */
pid_t upgrade_window_holder(const struct master *m); /* the old master, while the window is open; else 0 */
bool upgrade_rolling_back(const struct master *m);   /* its outcome is not known yet */
/* For both forms: notes how it ended. `stage` NULL: well. */
void upgrade_ended(struct master *m, const char *stage, const char *reason);
bool upgrade_pending(const struct master *m); /* its outcome is not known yet */
bool upgrade_speaks(const struct master *m);  /* in MASTER_UPGRADING: this master is the server */
bool upgrade_serves(const struct master *m);  /* in MASTER_UPGRADING: the workers of this master are to serve */
