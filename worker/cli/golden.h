/* Golden sets as commands name them, and files of earlier runs. Errors say which. */
#pragma once
#include "worker/cli/session.h"
#include "worker/core/eval.h"

/* The whole file, at most 256 MB, in the arena; "-" is standard input. */
must_use int golden_file(struct arena *a, const char *path, struct str *out, struct err *e);
/* The questions of a file, or, where there is no such file, of the server's golden set of this name or id. They live as
 * long as the session. */
suspends must_use int golden_set(struct session *s, const char *which, struct eval_set *out, struct err *e);
