/* What the tests of configuration share: one file that is written anew for each case, and a load that must succeed or
 * fail. */
#pragma once
#include "tests/unit/cm.h"
#include "config/config_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char path[] = "/tmp/ragd-config-XXXXXX";
static struct err e;

static int make_file(void **state)
{
    int fd = mkstemp(path);
    (void)state;
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static inline const char *file_with(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    return path;
}

static inline struct config *load(const struct config_args *args)
{
    struct config *cfg = NULL;
    if (config_load(args, &cfg, &e))
        fail_msg("%s", e.msg);
    return cfg;
}

static inline struct config *load_yaml(const char *text)
{
    return load(&(struct config_args){.file = file_with(text)});
}

/* Fails, with a message that holds `expected`; a leading %s of it stands for the file. */
static void assert_refused(const struct config_args *args, const char *expected)
{
    struct config *cfg = NULL;
    if (config_load(args, &cfg, &e) == 0)
        fail_msg("accepted, although it should say: %s", expected);
    assert_null(cfg); /* outputs are left alone on failure */
    assert_int_equal(e.code, ERR_VALIDATION);
    if (!strstr(e.msg, expected))
        fail_msg("\"%s\" does not hold \"%s\"", e.msg, expected);
}

static void assert_yaml_refused(const char *text, const char *expected)
{
    char whole[400];
    assert_refused(&(struct config_args){.file = file_with(text)}, expected);
    snprintf(whole, sizeof whole, "%s:", path);
    assert_int_equal(strncmp(e.msg, whole, strlen(whole)), 0);
}

#define ENV(...) (&(struct config_args){.environ = (char *const[]){__VA_ARGS__, NULL}})
#define SET(...)                                                      \
    (&(struct config_args){.set = (const char *const[]){__VA_ARGS__}, \
                           .n_set = (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))})

static inline char *dump(const struct config *cfg, void (*print)(const struct config *, struct buf *))
{
    struct buf b = {0};
    print(cfg, &b);
    buf_ch(&b, 0);
    return b.p;
}
