/* The first steps of a worker in its own process. */
#pragma once

struct master;
struct worker;

/* Called in the child: leaves everything of the master behind but the heritage, becomes the worker, and exits. `channel` is
 * the worker's end. */
__attribute__((noreturn)) void child_run(const struct master *m, const struct worker *w, int channel);

/* What a child becomes; set once by main(), because only it may know both sides. */
struct heritage;
extern int (*child_main)(const struct heritage *h);
