/* The note: what the master says about the whole server in the scoreboard, in more than a word. The master writes it, as
 * often as something in it has changed; everybody may read it at any time. A reader never sees half of a change: the
 * note has a version, which is odd while it is being written. */
#pragma once
#include "common/heritage.h"

/* How the last reload or upgrade ended. */
struct verdict {
    int64_t at_us, took_ms; /* when it began, wall clock; 0: there was none */
    int32_t ok;
    char stage[24];   /* that failed: "configuration", "listen", "canary" … */
    char reason[488]; /* with file:line:column where there is one */
};

struct note {
    int32_t pid, degraded, parked;
    uint32_t generation;
    int32_t target[ROLE_COUNT]; /* workers wanted */
    int32_t n_listen;
    char version[32], phase[16];  /* "0.1.0", "IDLE" */
    char config[256], sha256[72]; /* file, or ""; of the settings in effect: config_sha256() */
    struct verdict reload, upgrade;
    struct {
        char name[LISTEN_NAME_MAX];
        int32_t admin; /* of the status process */
    } listen[LISTEN_MAX];
};

void verdict_set(struct verdict *v, int64_t start_ns, const char *failed_stage,
                 const char *reason); /* NULL: all well */

/* For the master: writes `n` unless it says what is written there already. */
void note_write(struct scoreboard *sb, const struct note *n);
/* false: the master was writing all the time, or has died while it did; *out is empty then. Whatever was written there,
 * n_listen is in bounds, and texts end and are UTF-8. */
bool note_read(const struct scoreboard *sb, struct note *out);
