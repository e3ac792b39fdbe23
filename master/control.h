/* The control socket: a unix socket on which `ragd status`, `stop` and `reload` talk to the master. One JSON object a
 * line each way: {"cmd":"status"} is answered by {"ok":true,…} or {"ok":false,"error":"…"}. Answers to `reload` and
 * `stop` come when the outcome is known. Optional: a server without it serves as well. */
#pragma once
#include "common/err.h"
#include <stddef.h>

struct config;
struct control;
struct master;

enum { CONTROL_PATH_MAX = 108, CONTROL_LINE_MAX = 4096 };

/* server.control, or its default where that directory exists; "" = off. */
void control_path(const struct config *cfg, char *out, size_t cap);

/* NULL when it is off or cannot be made; the latter is one warning. */
struct control *control_open(struct master *m);
void control_tick(struct control *c);  /* answers those who wait for an outcome; NULL accepted */
void control_close(struct control *c); /* tells those who wait for the stop, and unlinks the socket; NULL accepted */
