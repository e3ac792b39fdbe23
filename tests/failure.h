/* Ends a test from its own fiber, whose stack cmocka's assertions would leave by a jump. `w` is any world of a test that
 * has `char what[]; int line; jmp_buf failed; struct err e`. */
#pragma once
#include "common/err.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

__attribute__((noreturn, format(printf, 6, 7))) static inline void
fail_to(char *what, size_t size, int *at, jmp_buf failed, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, size, fmt, ap);
    va_end(ap);
    *at = line;
    longjmp(failed, 1);
}

#define fail_at(w, where, ...) fail_to((w)->what, sizeof(w)->what, &(w)->line, (w)->failed, where, __VA_ARGS__)
#define fail_with(w, call)     fail_at(w, __LINE__, "%s: %s: %s (%s)", call, err_wire((w)->e.code), (w)->e.msg, (w)->e.log)

#define must(w, cond) ((cond) ? (void)0 : fail_at(w, __LINE__, "%s", #cond))
/* A call that succeeds; one that fails with a code. Both use w->e. */
#define ok(w, call) ((call) == 0 ? (void)0 : fail_with(w, #call))
#define fails(w, want, call)                              \
    do {                                                  \
        (w)->e = (struct err){0};                         \
        if ((call) != -1)                                 \
            fail_at(w, __LINE__, "%s: succeeded", #call); \
        if ((w)->e.code != (want))                        \
            fail_with(w, #call);                          \
    } while (0)
#define same(w, a_, b_)                                               \
    do {                                                              \
        long long x_ = (long long)(a_), y_ = (long long)(b_);         \
        if (x_ != y_)                                                 \
            fail_at(w, __LINE__, "%s = %lld, not %lld", #a_, x_, y_); \
    } while (0)
