/* The log: one line per event on stderr, as text or JSON, and the access log, a stream of its own. Lines of the
 * access log are collected and written once a loop turn by log_flush(). Lines of several processes never mix. A full
 * disk, a closed pipe or a reader that has stopped loses lines (log_lines_lost_total), never the service. */
#pragma once
#include "common/err.h"
#include "common/str.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* `role` is shown in every line ("master", "http:2"). Called again after a fork. */
void log_init(enum log_level level, bool json, const char *role);
void log_set_level(enum log_level level, bool json); /* of a running process */
bool log_enabled(enum log_level level);

void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_msg(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_msg(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_msg(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_DEBUG, __VA_ARGS__)
/* "what: msg (log)" of an error value. */
void log_err(enum log_level level, const char *what, const struct err *e);

void log_access_open(int fd); /* -1: off. The descriptor stays the caller's. */
bool log_access_on(void);
void log_access(struct str line); /* without the newline */
void log_flush(void);
