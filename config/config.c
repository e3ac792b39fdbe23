#include "config/config_impl.h"
#include "common/clock.h"
#include "common/cpus.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_MS = 1000 };

/* `min` and `max` are numbers, except for an ENUM, whose `max` is the list of its choices. */
#define BOUNDS_INT(lo, hi)    .min = lo, .max = hi
#define BOUNDS_SIZE(lo, hi)   .min = lo, .max = hi
#define BOUNDS_TIME(lo, hi)   .min = lo, .max = hi
#define BOUNDS_AUTO(lo, hi)   .min = lo, .max = hi
#define BOUNDS_REAL(lo, hi)   .min = lo, .max = hi
#define BOUNDS_BOOL(lo, hi)   .min = lo, .max = hi
#define BOUNDS_STR(lo, hi)    .min = lo, .max = hi
#define BOUNDS_SECRET(lo, hi) .min = lo, .max = hi
#define BOUNDS_LIST(lo, hi)   .min = lo, .max = hi
#define BOUNDS_ENUM(lo, hi)   .choices = hi

const struct config_key_def config_keys[KEY_COUNT] = {
#define SECTION(section, doc)
#define KEY(section_, name_, type_, def_, min_, max_, env_, apply_, doc_)                \
    [KEY_##section_##_##name_] = {.section = #section_,                                  \
                                  .name = #name_,                                        \
                                  .full = #section_ "." #name_,                          \
                                  .aliases = env_,                                       \
                                  .def = def_,                                           \
                                  .doc = doc_,                                           \
                                  BOUNDS_##type_(min_, max_),                            \
                                  .offset = offsetof(struct config, section_##_##name_), \
                                  .type = CONFIG_##type_,                                \
                                  .apply = CONFIG_##apply_},
#include "config/keys.def"
#undef KEY
#undef SECTION
};

static const struct {
    const char *name, *doc;
} sections[] = {
#define SECTION(section, doc) {#section, doc},
#define KEY(section, name, type, def, min, max, env, apply, doc)
#include "config/keys.def"
#undef KEY
#undef SECTION
};

static int load_file(struct config *cfg, const char *path, struct err *e);
static int load_env(struct config *cfg, const struct config_args *args, struct err *e);
static int load_set(struct config *cfg, const char *assignment, struct err *e);

static struct config *empty(void)
{
    struct config *cfg = calloc(1, sizeof *cfg);
    if (!cfg || !(cfg->origin = calloc(1, sizeof *cfg->origin)))
        abort();
    return cfg;
}

static int set_defaults(struct config *cfg, struct err *e)
{
    static const struct config_source builtin = {.layer = LAYER_DEFAULT, .name = "default"};
    for (int k = 0; k < KEY_COUNT; k++)
        if (config_set_text(cfg, (enum config_key)k, str_of(config_keys[k].def), &builtin, e))
            return -1;
    return 0;
}

int config_load(const struct config_args *args, struct config **out, struct err *e)
{
    struct config *cfg = empty();
    if (set_defaults(cfg, e) || (args->file && load_file(cfg, args->file, e)) || load_env(cfg, args, e))
        goto fail;
    for (int i = 0; i < args->n_set; i++)
        if (load_set(cfg, args->set[i], e))
            goto fail;
    if (config_check_all(cfg, e))
        goto fail;
    *out = cfg;
    return 0;
fail:
    config_free(cfg);
    return -1;
}

/* Each line of a broken file by itself: `key: value` under the section that stands above it. What cannot be read that way
 * is left out. */
static void salvage(struct config *cfg, const char *path)
{
    struct str rest, section = STR("");
    struct buf one = {0};
    struct err unread;
    if (config_read_file(&cfg->origin->arena, path, CONFIG_FILE_MAX, &rest, NULL, &unread))
        return;
    while (rest.n) {
        struct str line = str_cut(&rest, '\n');
        if (!line.n)
            continue;
        if (line.p[0] != ' ') {
            section = line;
            continue;
        }
        one.n = 0;
        buf_printf(&one, STR_FMT "\n" STR_FMT "\n", STR_ARG(section), STR_ARG(line));
        (void)!config_yaml(cfg, cfg->file, buf_view(&one), &unread);
    }
    buf_fini(&one);
}

int config_load_partly(const struct config_args *args, struct config **out, struct err *e)
{
    struct err later, *at = e; /* the first error is told */
    struct config *cfg = empty();
    if (set_defaults(cfg, at))
        at = &later;
    if (args->file && load_file(cfg, args->file, at)) {
        at = &later;
        salvage(cfg, args->file);
    }
    if (load_env(cfg, args, at))
        at = &later;
    for (int i = 0; i < args->n_set; i++)
        if (load_set(cfg, args->set[i], at))
            at = &later;
    if (at == e && config_check_all(cfg, e))
        at = &later;
    *out = cfg;
    return at == e ? 0 : -1;
}

void config_free(struct config *cfg)
{
    if (!cfg)
        return;
    arena_fini(&cfg->origin->arena);
    free(cfg->origin);
    free(cfg);
}

const char *config_key_name(enum config_key key)
{
    return config_keys[key].full;
}

const char *config_section_doc(const char *section)
{
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        if (strcmp(sections[i].name, section) == 0)
            return sections[i].doc;
    return "";
}

enum config_apply config_key_apply(enum config_key key)
{
    return config_keys[key].apply;
}

bool config_given(const struct config *cfg, enum config_key key)
{
    return cfg->origin->of[key].layer != LAYER_DEFAULT;
}

int config_locate(const struct config *cfg, struct err *e)
{
    size_t n = strspn(e->msg, "abcdefghijklmnopqrstuvwxyz_.");
    int key = config_find((struct str){e->msg, n});
    if (key < 0 || !config_given(cfg, (enum config_key)key))
        return -1;
    const struct config_source *at = &cfg->origin->of[key];
    return at->line ? err_prefix(e, "%s:%d:%d: ", at->name, at->line, at->col) : err_prefix(e, "%s: ", at->name);
}

bool config_same(const struct config *a, const struct config *b, enum config_key key)
{
    const void *x = config_value(a, key), *y = config_value(b, key);
    switch (config_keys[key].type) {
    case CONFIG_INT:
    case CONFIG_SIZE:
    case CONFIG_TIME:
    case CONFIG_AUTO: return *(const int64_t *)x == *(const int64_t *)y;
    case CONFIG_REAL: return memcmp(x, y, sizeof(double)) == 0;
    case CONFIG_BOOL: return *(const bool *)x == *(const bool *)y;
    case CONFIG_ENUM: return *(const int *)x == *(const int *)y;
    case CONFIG_STR:
    case CONFIG_SECRET: return strcmp(*(const char *const *)x, *(const char *const *)y) == 0;
    case CONFIG_LIST: break;
    }
    const struct config_list *l = x, *m = y;
    if (l->n != m->n)
        return false;
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->v[i], m->v[i]) != 0)
            return false;
    return true;
}

int config_http_workers(const struct config *cfg)
{
    int64_t n = cfg->server_workers ? cfg->server_workers : cpus_available();
    return (int)(n < cfg->server_max_workers ? n : cfg->server_max_workers);
}

int config_ingest_workers(const struct config *cfg)
{
    return cfg->ingest_workers ? (int)cfg->ingest_workers : (cpus_available() + 1) / 2;
}

int config_find(struct str full)
{
    for (int k = 0; k < KEY_COUNT; k++)
        if (str_eqz(full, config_keys[k].full))
            return k;
    return -1;
}

/* A name that is right but stands in the wrong section, or in none, is nearer than any misspelling. */
const char *config_nearest(struct str full)
{
    char written[64];
    const char *best = NULL;
    int best_distance = 4;
    str_copyz(written, sizeof written, full);
    const char *dot = strchr(written, '.'), *name = dot ? dot + 1 : written;
    for (int k = 0; k < KEY_COUNT; k++) {
        int d = str_distance(written, config_keys[k].full);
        if (strcmp(name, config_keys[k].name) == 0 && d > 2)
            d = 2;
        if (d < best_distance) {
            best_distance = d;
            best = config_keys[k].full;
        }
    }
    return best;
}

int config_fail(struct err *e, const struct config_source *at, const char *fmt, ...)
{
    char what[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (at->line)
        return err_set(e, ERR_VALIDATION, "%s:%d:%d: %s", at->name, at->line, at->col, what);
    return err_set(e, ERR_VALIDATION, "%s: %s", at->name, what);
}

/* Reading is bounded in time, because a pipe whose writer is slow or absent must not hold up a reload for ever. */
int config_read_file(struct arena *a, const char *path, size_t max, struct str *out, bool *found, struct err *e)
{
    struct stat st;
    struct buf b = {0};
    int r = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (found)
        *found = fd >= 0;
    if (fd < 0) {
        if (found && errno == ENOENT) {
            *out = STR("");
            return 0;
        }
        return err_set(e, ERR_VALIDATION, "%s: %s", path, strerror(errno));
    }
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_VALIDATION, "%s: is a directory, a file is needed", path);
    }
    int64_t end = clock_ns() + READ_MS * MS;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left_ms = (end - clock_ns()) / MS;
        if (left_ms <= 0 || poll(&p, 1, (int)left_ms) == 0) {
            r = err_set(e, ERR_VALIDATION, "%s: gives no data, or not all of it within a second", path);
            break;
        }
        buf_reserve(&b, 16 * 1024);
        ssize_t n = read(fd, b.p + b.n, b.cap - b.n);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n == 0)
            break;
        if (n < 0) {
            r = err_set(e, ERR_VALIDATION, "%s: %s", path, strerror(errno));
            break;
        }
        b.n += (size_t)n;
        if (b.n > max) {
            r = err_set(e, ERR_VALIDATION, "%s: is longer than %zu bytes", path, max);
            break;
        }
    }
    close(fd);
    if (r == 0)
        *out = arena_dup(a, buf_view(&b));
    buf_fini(&b);
    return r;
}

static int load_file(struct config *cfg, const char *path, struct err *e)
{
    struct str text;
    cfg->file = arena_strdup(&cfg->origin->arena, path);
    if (config_read_file(&cfg->origin->arena, path, CONFIG_FILE_MAX, &text, NULL, e))
        return -1;
    return config_yaml(cfg, cfg->file, text, e);
}

static int load_env(struct config *cfg, const struct config_args *args, struct err *e)
{
    struct str text = STR("");
    const char *name = NULL;
    bool found = false;
    if (args->dotenv) {
        name = arena_strdup(&cfg->origin->arena, args->dotenv);
        if (config_read_file(&cfg->origin->arena, name, CONFIG_FILE_MAX, &text, &found, e))
            return -1;
    }
    return config_env(cfg, args->environ, name, text, e);
}

static int load_set(struct config *cfg, const char *assignment, struct err *e)
{
    static const struct config_source at = {.layer = LAYER_SET, .name = "--set"};
    struct str value = str_of(assignment);
    if (!strchr(assignment, '='))
        return config_fail(e, &at, "\"%.80s\" is not of the form section.key=value", assignment);
    struct str name = str_cut(&value, '=');
    int key = config_find(name);
    if (key < 0) {
        const char *near = config_nearest(name);
        return config_fail(e, &at, "unknown key %.*s%s%s%s", (int)(name.n < 80 ? name.n : 80), name.p,
                           near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
    return config_set_text(cfg, (enum config_key)key, value, &at, e);
}

void config_assignment(const struct config *cfg, enum config_key key, struct buf *out)
{
    buf_printf(out, "%s=", config_keys[key].full);
    if (config_keys[key].type == CONFIG_SECRET)
        buf_str(out, str_of(*(const char *const *)config_value(cfg, key)));
    else
        config_text(cfg, key, out);
}

int config_restore(const char *file, const char *const *set, int n_set, struct config **out, struct err *e)
{
    struct config_args args = {.set = set, .n_set = n_set};
    if (config_load(&args, out, e) != 0)
        return -1;
    (*out)->file = file ? arena_strdup(&(*out)->origin->arena, file) : NULL;
    return 0;
}

void config_push_lines(const struct config *cfg, struct buf *out)
{
    for (int key = 0; key < KEY_COUNT; key++) {
        if (config_keys[key].apply != CONFIG_HOT)
            continue;
        buf_printf(out, "%s=", config_keys[key].full);
        config_text(cfg, (enum config_key)key, out);
        buf_ch(out, '\n');
    }
}

static bool is_already(const struct config *cfg, enum config_key key, struct str text)
{
    struct buf now = {0};
    config_text(cfg, key, &now);
    bool same = str_eq(buf_view(&now), text);
    buf_fini(&now);
    return same;
}

int config_push(struct config *cfg, struct str lines, struct err *e)
{
    static const struct config_source pushed = {.layer = LAYER_FILE, .name = "pushed by a reload"};
    while (lines.n) {
        struct str value = str_cut(&lines, '\n'), name = str_cut(&value, '=');
        int key = config_find(name);
        if (key < 0 || config_keys[key].apply != CONFIG_HOT || is_already(cfg, (enum config_key)key, value))
            continue;
        if (config_set_text(cfg, (enum config_key)key, value, &pushed, e))
            return -1;
    }
    return 0;
}
