/* The control socket: a unix socket on which `ragd status`, `stop` and `reload` talk to the master. One JSON object a
 * line each way: {"cmd":"status"} is answered by {"ok":true,…} or {"ok":false,"error":"…"}. Answers to `reload` and
 * `stop` come when the outcome is known. Optional: a server without it serves as well. */
#pragma once
#include "common/err.h"
#include <jansson.h>
#include <stddef.h>

struct config;
struct control;
struct estate_fds;
struct master;

enum { CONTROL_PATH_MAX = 108, CONTROL_LINE_MAX = 4096 };

/* server.control, or its default where that directory exists; "" = off. */
void control_path(const struct config *cfg, char *out, size_t cap);

/* NULL when it is off or cannot be made; the latter is one warning. A socket at the path `instead` (may be NULL) is
 * replaced, whoever listens there. */
struct control *control_open(struct master *m, const char *instead);
/* Binds it again, should another master have taken the path; NULL accepted. */
void control_take(struct control *c);
/* Makes it where it could not be made before, or its file was removed meanwhile. */
void control_restore(struct master *m);
/* For another master: its path. For another image of this process, which `fds` are passed to: the socket itself, and who
 * waits for the outcome of an upgrade. NULL accepted for both. */
json_t *control_describe(const struct control *c, struct estate_fds *fds);
struct control *control_adopt(struct master *m, const json_t *o); /* instead of control_open(), from that */
void control_tick(struct control *c);        /* answers those who wait for an outcome; NULL accepted */
bool control_waits(const struct control *c); /* somebody waits for an outcome; NULL accepted */
void control_close(struct control *c); /* tells those who wait for the stop, and unlinks the socket; NULL accepted */
