/* One cage: the process that reads one document, from the broker's fork to its end. */
#pragma once
#include "worker/core/cage_wire.h"
#include "worker/core/extract_private.h"
#include <sys/types.h>

/* Exit codes. */
enum {
    CELL_DONE = 0, /* the result is written */
    CELL_MEMORY = 41,
    CELL_TIME = 42,
    CELL_PROGRAM = 44, /* pdftotext crashed */
};

/* What the broker still sees when the process is gone. */
struct cell_shared {
    struct source source;
    int signal; /* that ended the program of a CELL_PROGRAM */
};

/* A page of its own, which a process gives away before it reads: nothing that a document has taken over can pretend to
 * have read nothing. */
struct cell_walls {
    bool failed; /* they could not be raised */
};
_Noreturn void cell_without_walls(struct cell_walls *w); /* says so, and ends the process */

void cell_prepare(void); /* once, in a broker for documents whose charset is converted: what a cage could not load */
_Noreturn void cell_run(const struct cage_request *what, int document, int result, struct cell_shared *shared,
                        struct cell_walls *walls);
int cell_page(const struct cell_shared *shared); /* where the reader was; 0: unknown */

/* cage_pdf.c: pdftotext in a jail of its own, a child of the cage that reads what it prints. */
struct program {
    pid_t pid; /* 0: none was started */
    int text, errors;
};
/* Before the cage is closed. -1: it cannot be started. */
must_use int program_start(struct program *p, int document, const struct cage_limits *l, struct cell_walls *walls);
void program_read(const struct program *p, struct cell_shared *shared, const struct cage_limits *l);

/* cage_lean.c: removes the libraries that no reader needs from this process. Once, in a broker whose symbols are bound.
 * True: it must end by _exit(). False: it is as it was. */
bool lean_prepare(void);

/* cage_fault.c. True: the document asked for a fault or for probes, and this is what came of it. */
bool cage_fault(struct source *s);
