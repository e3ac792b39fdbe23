/* The conversation with systemd, without its library: one datagram to $NOTIFY_SOCKET for each thing to say. Without that
 * name in the environment nothing is said.
 *
 *   READY=1                 server.min_ready workers serve; also the end of a reload, failed or not
 *   RELOADING=1             with the monotonic time, as Type=notify-reload needs it
 *   STOPPING=1
 *   STATUS=…                one line for people, whenever it changes
 *   EXTEND_TIMEOUT_USEC=…   each second while the start, a reload or the stop makes progress: a master that hangs gets none
 *   FDSTORE=1, FDSTOREREMOVE=1   sockets to keep: master/activate.h
 *   WATCHDOG=1              twice per $WATCHDOG_USEC, as long as some worker is READY */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct master;

struct notify {
    bool on;
    char status[256];     /* as last said */
    int64_t watchdog_ns;  /* between two WATCHDOG=1; 0: nobody waits for them */
    int64_t watchdog_due; /* monotonic, as all here */
    int64_t extend_due;
    int64_t served_ns; /* when a worker was READY last */
};

void notify_start(struct master *m);
void notify_tick(struct master *m, int64_t now);

void notify_ready(struct master *m);     /* enough workers serve; or a reload is over. Nothing while the start lasts */
void notify_reloading(struct master *m); /* nor this */
void notify_stopping(struct master *m);
/* Anything else: "MAINPID=1". Never waits: while systemd's queue is full, the next ticks try again. */
void notify_send(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool notify_unsent(void); /* something still waits for room there */
/* The same with a descriptor, of which the receiver gets a copy. False: it was not sent. */
bool notify_send_fd(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
