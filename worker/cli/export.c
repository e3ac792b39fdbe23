/* What `ragd export` and `ragd import` do: lines of JSON between a file and the store. */
#include "worker/core/export.h"
#include "common/buf.h"
#include "worker/cli/commands.h"
#include "worker/cli/session.h"
#include "worker/http/http.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { COLLECTIONS_MAX = 64, PAGE = 100, READ_SIZE = 64 << 10, LINE_MAX_BYTES = 256 << 20 };

struct options {
    const char *name[COLLECTIONS_MAX], *path;
    int n, json;
    FILE *f;
    struct arena a;     /* of the spool */
    struct spool spool; /* lines that are not yet known to hold */
};

/* ---- export ---- */

suspends static int write_line(void *arg, struct str line, struct err *e)
{
    struct options *o = arg;
    return spool_add(&o->spool, line.p, line.n, e) || spool_add(&o->spool, "\n", 1, e) ? -1 : 0;
}

static int copy_spool(struct options *o, struct err *e)
{
    static char piece[READ_SIZE];
    for (int64_t at = 0, n; at < o->spool.size; at += n) {
        n = o->spool.size - at < READ_SIZE ? o->spool.size - at : READ_SIZE;
        if (spool_read(&o->spool, at, piece, (size_t)n, e))
            return -1;
        if (fwrite(piece, 1, (size_t)n, o->f) != (size_t)n)
            return err_set(e, ERR_STORAGE_FULL, "the export cannot be written: %s", strerror(errno));
    }
    return 0;
}

suspends static int settle(void *arg, bool whole, struct err *e)
{
    struct options *o = arg;
    int rc = whole ? copy_spool(o, e) : 0;
    arena_fini(&o->a);
    spool_init(&o->spool, &o->a);
    return rc;
}

suspends static int all(struct session *s, const struct export_sink *to, int64_t *documents, struct err *e)
{
    struct store_page page = {.limit = PAGE, .ascending = true};
    bool more = true;
    while (more) {
        struct store_collection *c;
        size_t n;
        if (STORE_CALL(s->store, collection_list, &s->arena, &page, &c, &n, &more, e))
            return -1;
        for (size_t i = 0; i < n; i++) {
            struct store_collection now;
            bool gone = STORE_CALL(s->store, collection_get, &s->arena, &c[i].id, &now, e) != 0;
            if (gone && e->code == ERR_NOT_FOUND) /* before its turn came: it is no part of the export */
                continue;
            if (gone || export_collection(&s->backends, &now, to, documents, e))
                return -1;
        }
        if (n) {
            page.has_after = true;
            page.after = c[n - 1].id;
        }
    }
    return 0;
}

suspends static int named(struct session *s, struct options *o, const struct export_sink *to, int64_t *documents,
                          struct err *e)
{
    for (int i = 0; i < o->n; i++) {
        struct store_collection c;
        if (STORE_CALL(s->store, collection_by_name, &s->arena, str_of(o->name[i]), &c, e))
            return e->code == ERR_NOT_FOUND ? err_set(e, ERR_NOT_FOUND, "there is no collection \"%.100s\"", o->name[i])
                                            : -1;
        if (export_collection(&s->backends, &c, to, documents, e))
            return -1;
    }
    return 0;
}

suspends static int export_all(struct session *s, void *arg, struct err *e)
{
    struct options *o = arg;
    const struct export_sink to = {write_line, settle, o};
    int64_t documents = 0;
    spool_init(&o->spool, &o->a);
    if (export_begin(&to, e) || (o->n ? named(s, o, &to, &documents, e) : all(s, &to, &documents, e)) ||
        export_end(&to, documents, e))
        return -1;
    if (fflush(o->f) || (o->f != stdout && fsync(fileno(o->f))))
        return err_set(e, ERR_STORAGE_FULL, "the export cannot be written: %s", strerror(errno));
    fprintf(stderr, "%lld documents exported\n", (long long)documents);
    return CLI_OK;
}

int cli_export(int argc, char **argv, const struct config *cfg)
{
    struct options o = {.f = stdout};
    const struct option table[] = {
        {"collection", required_argument, NULL, 'c'}, {"output", required_argument, NULL, 'o'}, {NULL, 0, NULL, 0}};
    int c;
    while ((c = session_option(argc, argv, table)) != -1) {
        if (c == '?')
            return CLI_USAGE;
        if (c == 'c' && o.n == COLLECTIONS_MAX)
            return session_usage(argv[0], "at most %d collections can be named", (int)COLLECTIONS_MAX);
        if (c == 'c')
            o.name[o.n++] = optarg;
        else
            o.path = optarg;
    }
    if (optind < argc)
        return session_usage(argv[0], "unexpected argument %s", argv[optind]);
    if (o.path && !(o.f = fopen(o.path, "we"))) {
        fprintf(stderr, "ragd %s: %s: %s\n", argv[0], o.path, strerror(errno));
        return CLI_FAILED;
    }
    int code = session_run(argv[0], cfg, export_all, &o);
    arena_fini(&o.a);
    if (o.path && fclose(o.f) && code == CLI_OK) {
        fprintf(stderr, "ragd %s: %s: %s\n", argv[0], o.path, strerror(errno));
        code = CLI_FAILED;
    }
    return code;
}

/* ---- import ---- */

/* The next line; 0 at the end. */
static int next_line(struct options *o, struct buf *b, int64_t *no, struct err *e)
{
    char piece[READ_SIZE];
    b->n = 0;
    while (fgets(piece, sizeof piece, o->f)) {
        buf_str(b, str_of(piece));
        if (b->n && b->p[b->n - 1] == '\n') {
            b->n--;
            break;
        }
        if (b->n > LINE_MAX_BYTES)
            return err_set(e, ERR_VALIDATION, "line %lld is too long", (long long)*no + 1);
    }
    if (ferror(o->f))
        return err_set(e, ERR_INTERNAL, "the export cannot be read: %s", strerror(errno));
    ++*no;
    return b->n || !feof(o->f);
}

static void tell(const struct options *o, const struct import_counts *c)
{
    if (o->json)
        printf("{\"collections\":%lld,\"documents\":%lld,\"present\":%lld,\"chunks\":%lld,\"vectors\":%lld}\n",
               (long long)c->collections, (long long)c->documents, (long long)c->present, (long long)c->chunks,
               (long long)c->vectors);
    else
        printf("%lld documents imported, %lld were there already; %lld new collections, %lld chunks, %lld vectors\n",
               (long long)c->documents, (long long)c->present, (long long)c->collections, (long long)c->chunks,
               (long long)c->vectors);
}

suspends static int import_all(struct session *s, void *arg, struct err *e)
{
    struct options *o = arg;
    struct import *m = import_new(&s->backends);
    struct buf line = {0};
    struct err why = {0};
    int64_t no = 0;
    int more, rc = 0;
    while ((more = next_line(o, &line, &no, e)) > 0 && rc == 0) {
        rc = import_line(m, buf_view(&line), &why);
        if (rc) {
            char log[sizeof why.log];
            str_copyz(log, sizeof log, str_of(why.log));
            err_set(e, why.code, "line %lld: %.280s", (long long)no, why.msg);
            err_log(e, "%s", log);
        }
    }
    rc = rc || more < 0 || import_end(m, e) ? -1 : CLI_OK;
    tell(o, import_counts(m));
    import_free(m);
    buf_fini(&line);
    return rc;
}

int cli_import(int argc, char **argv, const struct config *cfg)
{
    struct options o = {.f = stdin};
    const struct option table[] = {{"json", no_argument, &o.json, 1}, {NULL, 0, NULL, 0}};
    int c;
    while ((c = session_option(argc, argv, table)) != -1)
        if (c == '?')
            return CLI_USAGE;
    if (optind + 1 < argc)
        return session_usage(argv[0], "only one FILE can be given");
    if (optind < argc && strcmp(argv[optind], "-") != 0)
        o.path = argv[optind];
    if (o.path && !(o.f = fopen(o.path, "re"))) {
        fprintf(stderr, "ragd %s: %s: %s\n", argv[0], o.path, strerror(errno));
        return CLI_FAILED;
    }
    int code = session_run(argv[0], cfg, import_all, &o);
    if (o.path)
        fclose(o.f);
    return code;
}
