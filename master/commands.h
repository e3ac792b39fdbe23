/* The commands of the control socket, one table of them. What is asked and answered is one JSON object; how it comes and
 * goes is control.c's affair. A command that is unknown, has a wrong argument or comes at the wrong time is answered
 * with one message and changes nothing. */
#pragma once
#include "common/buf.h"
#include <jansson.h>

struct command;
struct master;

/* Whoever asks, as far as a command sees him. */
struct caller {
    struct master *m;
    const struct command *waits; /* its outcome is not known yet; NULL: free for the next command */
    struct buf reply;            /* what is still to be sent */
    uint32_t reload, generation; /* reload: the number of the one asked for, and, once it went well, its generation */
};

void command_run(struct caller *c, const char *line, size_t n); /* answers, or sets `waits` */
void command_tick(struct caller *c);                            /* answers a caller who waits, once it can */
void command_end(struct caller *c);                             /* the same when the master ends */

/* For callers that another image of this process hands on. */
bool command_waits_for(const struct caller *c, const char *name);
void command_wait_for(struct caller *c, const char *name);

/* For commands: both answer the caller, who does not wait any more. `o` is taken over. */
void command_answer(struct caller *c, json_t *o);
void command_refuse(struct caller *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
