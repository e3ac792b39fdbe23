#include "common/title.h"
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TITLE_MAX = 256 };

static struct {
    char *area; /* from the first argument to the end of the environment */
    size_t size, dirty;
    char shown[TITLE_MAX];
    char *strings, **argv, **envp; /* the copies; kept here, as setenv() forgets what it replaces */
} title;

/* Copies the list to `out` and its strings to `to`; returns where the next may go. */
static char *copy(char **list, int n, char **out, char *to)
{
    for (int i = 0; i < n; i++) {
        out[i] = to;
        to = stpcpy(to, list[i]) + 1;
    }
    out[n] = NULL;
    return to;
}

/* Total size of the strings; `end` moves along those that lie one behind the other. */
static size_t measure(char **list, int n, char **end)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++) {
        size_t size = strlen(list[i]) + 1;
        if (list[i] == *end)
            *end += size;
        sum += size;
    }
    return sum;
}

char **title_init(int argc, char **argv)
{
    int n = 0;
    if (argc < 1 || title.area)
        return argv;
    while (environ[n])
        n++;
    char *end = argv[0];
    size_t sum = measure(argv, argc, &end);
    sum += measure(environ, n, &end);
    title.strings = malloc(sum);
    title.argv = malloc(((size_t)argc + 1) * sizeof *title.argv);
    title.envp = malloc(((size_t)n + 1) * sizeof *title.envp);
    if (!title.strings || !title.argv || !title.envp)
        abort();
    copy(environ, n, title.envp, copy(argv, argc, title.argv, title.strings));
    environ = title.envp;
    program_invocation_name = title.argv[0]; /* what assert() and error() print */
    char *slash = strrchr(title.argv[0], '/');
    program_invocation_short_name = slash ? slash + 1 : title.argv[0];
    title.area = argv[0];
    title.size = title.dirty = (size_t)(end - argv[0]);
    return title.argv;
}

void title_set(const char *fmt, ...)
{
    char text[TITLE_MAX];
    va_list ap;
    if (!title.area)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (strcmp(text, title.shown) == 0)
        return;
    strcpy(title.shown, text);
    size_t n = strlen(text);
    if (n > title.size - 1)
        n = title.size - 1;
    memcpy(title.area, text, n);
    if (n < title.dirty)
        memset(title.area + n, 0, title.dirty - n);
    title.dirty = n;
}
