/* The cage: a document is read by a process of its own, which has nothing but that document. Who wants one read sends it
 * to a broker; the broker forks a cage for each. A reader that crashes, hangs or eats memory ends alone.
 *
 * The broker is a child of the worker that needs it, started with the first document and again when it died. It is this
 * same program, executed anew (`/proc/self/exe cage-broker`) with an empty environment and one socket: its address space
 * has never held a setting, a password or a document, so there is nothing for a cage to inherit, whenever it is started
 * and whoever restarts it. It needs no place in the master, and commands and tests start theirs the same way. Where the
 * program cannot be found (server.chroot), the broker is a fork of the worker: less clean, and without PDF.
 * It ends with its worker: their socket closes.
 *
 * There are two, each started when it is first needed: text that is valid UTF-8 needs no converters of charsets, which
 * are many plug-ins, and cages are forked faster without. */
#pragma once
#include "config/config.h"
#include "worker/core/extract.h"

struct cage;

/* What is executed as the broker: this program, also when its file was replaced. Tests name themselves, since that link
 * leads to valgrind where they run under it. */
extern const char *cage_program;

must_use int cage_open(const struct config *cfg, struct cage **out, struct err *e); /* starts nothing yet */
void cage_close(struct cage *c);                                                    /* NULL accepted */

/* As extract(), in a cage. ERR_VALIDATION, permanent, with *page (0: unknown) and *code: "parser_crashed", "parser_memory",
 * "parser_timeout", "too_large", beside those of extract(). ERR_NOT_READY: there can be no cage at the moment,
 * whatever the document. ERR_INTERNAL: the broker died twice, there is no memory for the text, or, *code
 * "sandbox_failed", a cage could not be closed. ERR_CANCELED: the cage is ended. */
suspends must_use int cage_extract(struct cage *c, struct arena *a, struct str bytes, struct str mime,
                                   struct str filename, struct extracted *out, const char **code, int *page,
                                   struct err *e);

/* The broker's whole life, for main(): what follows `cage-broker` on the command line. Returns the exit code. */
int cage_broker_main(const char *what);
int cage_broker(int fd, bool converters, bool forked); /* the same; `forked`: the process has executed nothing */
