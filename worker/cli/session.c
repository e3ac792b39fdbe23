#include "worker/cli/session.h"
#include "common/clock.h"
#include "worker/fiber/loop.h"
#include "worker/wiring.h"
#include <stdarg.h>
#include <stdio.h>

enum { COLLECTION_NAME_MAX = 128 };

struct run {
    struct session session;
    int (*fn)(struct session *, void *, struct err *);
    void *arg;
    int code;
    struct err e;
};

static suspends void body(void *arg);

int session_run(const char *command, const struct config *cfg, int (*fn)(struct session *s, void *arg, struct err *e),
                void *arg)
{
    struct run r = {.session = {.command = command, .cfg = cfg}, .fn = fn, .arg = arg, .code = -1};
    if (loop_init(&r.e) == 0) {
        if (fiber_spawn("command", body, &r))
            loop_run();
        else
            err_set(&r.e, ERR_INTERNAL, "no memory for a fiber");
        loop_fini();
        fiber_fini();
    }
    arena_fini(&r.session.arena);
    return r.code == -1 ? session_error(command, &r.e) : r.code;
}

static suspends void body(void *arg)
{
    struct run *r = arg;
    struct session *s = &r->session;
    if (backends_open(s->cfg, true, &s->backends, &r->e) == 0) {
        s->store = s->backends.store;
        r->code = r->fn(s, r->arg, &r->e);
        backends_close(&s->backends);
    }
    while (fiber_count() > 1) /* a connection that was being made unwinds, when its name is resolved */
        fiber_sleep(MS);
    loop_stop();
}

int session_error(const char *command, const struct err *e)
{
    fprintf(stderr, "ragd %s: %s%s%s%s\n", command, e->msg, e->log[0] ? " (" : "", e->log, e->log[0] ? ")" : "");
    return CLI_FAILED;
}

int session_usage(const char *command, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "ragd %s: ", command);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "; see `ragd %s --help`\n", command);
    return CLI_USAGE;
}

int session_option(int argc, char **argv, const struct option *options)
{
    opterr = 0;
    int c = getopt_long(argc, argv, ":", options, NULL);
    if (c == ':')
        session_usage(argv[0], "%s needs a value", argv[optind - 1]);
    else if (c == '?')
        session_usage(argv[0], "there is no option %s", argv[optind - 1]);
    return c == ':' ? '?' : c;
}

bool session_number(const char *command, const char *option, const char *text, int64_t min, int64_t max, int *out)
{
    int64_t v;
    if (!str_to_i64(str_of(text), &v) || v < min || v > max) {
        session_usage(command, "%s: \"%.40s\" is not a number from %lld to %lld", option, text, (long long)min,
                      (long long)max);
        return false;
    }
    *out = (int)v;
    return true;
}

bool session_fraction(const char *command, const char *option, const char *text, double min, double max, double *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= min && v <= max)) {
        session_usage(command, "%s: \"%.40s\" is not a number from %g to %g", option, text, min, max);
        return false;
    }
    *out = v;
    return true;
}

suspends int session_collections(struct session *s, const char *const *names, int n, struct uuid *out, struct err *e)
{
    for (int i = 0; i < n; i++) {
        struct store_collection c;
        if (STORE_CALL(s->store, collection_by_name, &s->arena, str_of(names[i]), &c, e)) {
            if (e->code == ERR_NOT_FOUND)
                err_set(e, ERR_NOT_FOUND, "there is no collection \"%.100s\"", names[i]);
            return -1;
        }
        out[i] = c.id;
    }
    return 0;
}

suspends int session_collection(struct session *s, struct str name, struct str description,
                                struct store_collection *out, struct err *e)
{
    struct store_collection in = {.name = name,
                                  .description = description,
                                  .language = str_of(s->cfg->ingest_language),
                                  .metadata = STR("{}"),
                                  .chunking = STR("{}")};
    if (!name.n || name.n > COLLECTION_NAME_MAX || !str_is_utf8(name) || memchr(name.p, '/', name.n))
        return err_set(e, ERR_VALIDATION, "the name of a collection is 1 to %d bytes of UTF-8 without '/'",
                       (int)COLLECTION_NAME_MAX);
    if (STORE_CALL(s->store, collection_by_name, &s->arena, name, out, e) == 0)
        return 0;
    if (e->code != ERR_NOT_FOUND)
        return -1;
    if (STORE_CALL(s->store, collection_create, &s->arena, &in, out, e) == 0)
        return 0;
    if (e->code != ERR_NAME_TAKEN) /* somebody made it in between */
        return -1;
    return STORE_CALL(s->store, collection_by_name, &s->arena, name, out, e);
}

bool session_document_done(const struct store_document *d)
{
    return d->state == DOCUMENT_ready || d->state == DOCUMENT_failed || d->state == DOCUMENT_cancelled;
}

void session_print(FILE *f, struct str text)
{
    while (text.n) {
        size_t good = str_utf8_valid_prefix(text);
        for (size_t i = 0; i < good; i++) {
            unsigned char c = (unsigned char)text.p[i];
            bool c1 = c == 0xc2 && (unsigned char)text.p[i + 1] < 0xa0;
            putc(c == '\n' || c == '\r' || c == '\t' ? ' ' : c < 0x20 || c == 0x7f || c1 ? '?' : c, f);
            i += c1; /* both bytes of a C1 control */
        }
        text = str_sub(text, good, SIZE_MAX);
        if (text.n) {
            putc('?', f);
            text = str_sub(text, 1, SIZE_MAX);
        }
    }
}
