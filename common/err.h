/* One error value for the whole program. A function that can fail returns 0 or -1, takes `struct err *` last,
 * fills it on failure only and leaves its outputs alone. `msg` may reach a client; `log` never does.
 * One place (worker/http/problem.c) turns an error into a response. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum err_code {
#define ERR(name, status, wire, retryable, title) ERR_##name,
#include "common/err.def"
#undef ERR
    ERR_COUNT
};

struct err {
    enum err_code code;
    int retry_after_ms; /* for retryable ones; 0 = the default */
    char pointer[96];   /* RFC 6901 pointer to the offending member, or "" */
    char msg[320];      /* for the client: what is wrong and what to do */
    char log[320];      /* for the operator only: may name hosts, files, SQL */
};

#define must_use __attribute__((warn_unused_result))

/* All return -1, so that a failing function ends in `return err_set(…)`. `e` may be NULL. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int err_at(struct err *e, const char *pointer, const char *fmt, ...) /* ERR_VALIDATION at a member */
    __attribute__((format(printf, 3, 4)));
int err_log(struct err *e, const char *fmt, ...) /* adds the operator's part to an error already set */
    __attribute__((format(printf, 2, 3)));
/* "what: strerror(errno)"; ENOSPC and EDQUOT become ERR_STORAGE_FULL, everything else ERR_INTERNAL. */
int err_errno(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts a text before the message of an error already set; the rest of it stays. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

int err_status(enum err_code code);       /* HTTP status */
const char *err_wire(enum err_code code); /* "not_found" */
const char *err_title(enum err_code code);
bool err_retryable(enum err_code code);
