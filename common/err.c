#include "common/err.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int status;
    bool retryable;
    const char *wire, *title;
} table[ERR_COUNT] = {
#define ERR(name, status, wire, retryable, title) [ERR_##name] = {status, retryable, wire, title},
#include "common/err.def"
#undef ERR
};

static void fill(struct err *e, enum err_code code, const char *pointer, const char *fmt, va_list ap)
{
    e->code = code;
    e->retry_after_ms = 0;
    e->log[0] = 0;
    snprintf(e->pointer, sizeof e->pointer, "%s", pointer);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
}

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    va_list ap;
    if (!e)
        return -1;
    va_start(ap, fmt);
    fill(e, code, "", fmt, ap);
    va_end(ap);
    return -1;
}

int err_at(struct err *e, const char *pointer, const char *fmt, ...)
{
    va_list ap;
    if (!e)
        return -1;
    va_start(ap, fmt);
    fill(e, ERR_VALIDATION, pointer, fmt, ap);
    va_end(ap);
    return -1;
}

int err_log(struct err *e, const char *fmt, ...)
{
    va_list ap;
    if (!e)
        return -1;
    va_start(ap, fmt);
    vsnprintf(e->log, sizeof e->log, fmt, ap);
    va_end(ap);
    return -1;
}

int err_errno(struct err *e, const char *fmt, ...)
{
    int saved = errno;
    va_list ap;
    if (!e)
        return -1;
    va_start(ap, fmt);
    fill(e, saved == ENOSPC || saved == EDQUOT ? ERR_STORAGE_FULL : ERR_INTERNAL, "", fmt, ap);
    va_end(ap);
    size_t n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, ": %s", strerror(saved));
    return -1;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    char msg[sizeof e->msg];
    va_list ap;
    if (!e)
        return -1;
    memcpy(msg, e->msg, sizeof msg);
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    size_t n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, "%s", msg);
    return -1;
}

int err_status(enum err_code code)
{
    return table[code].status;
}

const char *err_wire(enum err_code code)
{
    return table[code].wire;
}

const char *err_title(enum err_code code)
{
    return table[code].title;
}

bool err_retryable(enum err_code code)
{
    return table[code].retryable;
}
