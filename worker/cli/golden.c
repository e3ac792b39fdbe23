#include "worker/cli/golden.h"
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum { FILE_MAX = 256 << 20 };

int golden_file(struct arena *a, const char *path, struct str *out, struct err *e)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    struct buf b = {0};
    size_t n = 1;
    if (!f)
        return err_set(e, ERR_VALIDATION, "%s: %s", path, strerror(errno));
    while (n && b.n <= FILE_MAX) {
        buf_reserve(&b, 65536);
        n = fread(b.p + b.n, 1, 65536, f);
        b.n += n;
    }
    int failed = ferror(f);
    if (f != stdin)
        fclose(f);
    if (!failed && b.n <= FILE_MAX)
        *out = arena_dup(a, buf_view(&b));
    size_t size = b.n;
    buf_fini(&b);
    if (failed)
        return err_set(e, ERR_VALIDATION, "%s: cannot be read", path);
    return size <= FILE_MAX ? 0 : err_set(e, ERR_VALIDATION, "%s: is larger than %d MB", path, FILE_MAX >> 20);
}

suspends static int read_text(struct session *s, const char *which, struct str *out, struct err *e)
{
    struct store_eval_set stored;
    struct str name = str_of(which);
    struct uuid id;
    if (strcmp(which, "-") == 0 || access(which, F_OK) == 0)
        return golden_file(&s->arena, which, out, e);
    if (STORE_CALL(s->store, eval_set_get, &s->arena, uuid_parse(name, &id) ? &id : NULL, name, &stored, e))
        return e->code == ERR_NOT_FOUND
                   ? err_set(e, ERR_NOT_FOUND, "there is no file, and no golden set, \"%.100s\"", which)
                   : -1;
    *out = stored.text;
    return 0;
}

suspends int golden_set(struct session *s, const char *which, struct eval_set *out, struct err *e)
{
    struct str text;
    struct err why;
    if (read_text(s, which, &text, e) < 0)
        return -1;
    return eval_parse(&s->arena, text, out, &why) < 0 ? err_set(e, ERR_VALIDATION, "%s: %s", which, why.msg) : 0;
}
