/* An upgrade as PID 1, whose end would be that of its container: the new binary takes the place of the old one in the same
 * process, by exec. Before that a trial master has shown that it boots. The workers live on; they are the children of the
 * same process. The new image adopts them as the current generation and reloads; should it fail before it has adopted
 * them, it gives the process back to the image of the old binary, which adopts them again. */
#pragma once
#include "master/estate.h"

/* Does not return when it goes well. */
int reexec(struct master *m, struct err *e);
/* The start of an image failed with `reason`: gives the process back. Returns when that fails, too, or there is nobody. */
void reexec_back(struct master *m, const char *reason);

/* For estate_write(): adds what only an image needs. */
void reexec_describe(const struct master *m, json_t *doc, struct estate_fds *fds);

/* For the start. All but the last are to be undone by exec alone. */
bool reexec_adopts(const struct master *m); /* this is an image that goes on with the workers of another one */
must_use int reexec_config(struct master *m, struct config **out, struct err *e);
must_use int reexec_generation(struct master *m, struct err *e);             /* number, targets, sockets */
must_use int reexec_shared(struct master *m, unsigned slots, struct err *e); /* scoreboard, jobs, crew */
void reexec_tick(struct master *m); /* when the reload of a new image is over, so is the upgrade */

void reexec_adopt(struct master *m); /* workers, control socket; then it goes on with what the old image was at */
