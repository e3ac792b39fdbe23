#include "worker/http/multipart.h"
#include "worker/http/parser.h"
#include <stdlib.h>

enum { WINDOW = 64 * 1024, HEAD_MAX = 16 * 1024, FIELDS_MAX = 32, PREAMBLE_MAX = 16 * 1024, PARTS_MAX = 1024 };

struct multipart {
    struct arena *a;
    ssize_t (*read)(void *arg, void *buf, size_t cap, struct err *e);
    void *arg;
    struct str delimiter; /* CRLF "--" boundary */
    size_t from, to;      /* what the window has */
    int parts;
    bool in_part, end, failed;
    char window[WINDOW];
};

static void free_multipart(void *p)
{
    free(p);
}

struct multipart *multipart_new(struct arena *a, struct str boundary,
                                ssize_t (*read)(void *arg, void *buf, size_t cap, struct err *e), void *arg)
{
    struct multipart *m = malloc(sizeof *m);
    if (!m)
        abort();
    arena_own(a, m, free_multipart);
    *m = (struct multipart){.a = a, .read = read, .arg = arg};
    m->delimiter = arena_printf(a, "\r\n--" STR_FMT, STR_ARG(boundary));
    /* The first delimiter needs no line before it: as if there were one. */
    memcpy(m->window, "\r\n", 2);
    m->to = 2;
    return m;
}

static int bad(struct multipart *m, struct err *e, const char *what)
{
    m->failed = true;
    return err_set(e, ERR_BAD_REQUEST, "the multipart body is malformed: %s", what);
}

static struct str view(const struct multipart *m)
{
    return (struct str){m->window + m->from, m->to - m->from};
}

/* Reads more behind what the window has. */
static suspends int fill(struct multipart *m, struct err *e)
{
    if (m->from) {
        memmove(m->window, m->window + m->from, m->to - m->from);
        m->to -= m->from;
        m->from = 0;
    }
    if (m->to == WINDOW)
        return bad(m, e, "a part's header section is too long");
    ssize_t n = m->read(m->arg, m->window + m->to, WINDOW - m->to, e);
    if (n < 0) {
        m->failed = true;
        return -1;
    }
    if (n == 0)
        return bad(m, e, "it ends before its last boundary");
    m->to += (size_t)n;
    return 0;
}

/* How many of the window's bytes certainly belong to the part, and whether a delimiter follows them. */
static size_t data_before_delimiter(const struct multipart *m, bool *delimited)
{
    struct str v = view(m);
    const char *hit = v.n >= m->delimiter.n ? memmem(v.p, v.n, m->delimiter.p, m->delimiter.n) : NULL;
    *delimited = hit != NULL;
    if (hit)
        return (size_t)(hit - v.p);
    /* A delimiter may begin at the last CR that is too close to the end to tell. */
    size_t tail = v.n < m->delimiter.n - 1 ? v.n : m->delimiter.n - 1;
    const char *cr = tail ? memchr(v.p + v.n - tail, '\r', tail) : NULL;
    return cr ? (size_t)(cr - v.p) : v.n;
}

suspends ssize_t multipart_read(struct multipart *m, void *buf, size_t cap, struct err *e)
{
    bool delimited;
    if (m->failed)
        return err_set(e, ERR_BAD_REQUEST, "the multipart body could not be read");
    if (!m->in_part || !cap)
        return 0;
    for (;;) {
        size_t n = data_before_delimiter(m, &delimited);
        if (n) {
            n = n < cap ? n : cap;
            memcpy(buf, m->window + m->from, n);
            m->from += n;
            return (ssize_t)n;
        }
        if (delimited) {
            m->in_part = false;
            return 0;
        }
        if (fill(m, e))
            return -1;
    }
}

/* ---- header fields of a part ---- */

/* Takes one "; name=value" off the field. */
static bool next_param(struct str *rest, struct str *name, struct str *value, bool *quoted)
{
    *rest = str_trim(*rest);
    if (!rest->n)
        return false;
    size_t i = 0;
    while (i < rest->n && rest->p[i] != '=' && rest->p[i] != ';')
        i++;
    *name = str_sub(*rest, 0, i);
    *value = (struct str){rest->p + i, 0};
    *quoted = false;
    if (i < rest->n && rest->p[i] == '=') {
        struct str v = str_sub(*rest, i + 1, SIZE_MAX);
        size_t n = 0;
        *quoted = v.n && v.p[0] == '"';
        if (*quoted) {
            for (n = 1; n < v.n && v.p[n] != '"'; n++)
                if (v.p[n] == '\\' && n + 1 < v.n && (v.p[n + 1] == '"' || v.p[n + 1] == '\\'))
                    n++;
            *value = str_sub(v, 1, n - 1);
            *rest = str_sub(v, n + 1, SIZE_MAX);
            (void)str_cut(rest, ';');
            return true;
        }
        while (n < v.n && v.p[n] != ';')
            n++;
        *value = str_trim(str_sub(v, 0, n));
        *rest = str_sub(v, n + 1, SIZE_MAX);
        return true;
    }
    *rest = str_sub(*rest, i + 1, SIZE_MAX);
    return true;
}

static struct str unquote(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\\' && i + 1 < s.n && (s.p[i + 1] == '"' || s.p[i + 1] == '\\'))
            i++;
        p[n++] = s.p[i];
    }
    p[n] = 0;
    return (struct str){p, n};
}

struct str multipart_param(struct arena *a, struct str field, struct str name)
{
    struct str rest = field, key, value;
    bool quoted;
    (void)str_cut(&rest, ';');
    while (next_param(&rest, &key, &value, &quoted))
        if (str_ieq(str_trim(key), name))
            return quoted ? unquote(a, value) : arena_dup(a, value);
    return (struct str){NULL, 0};
}

/* What a client calls a file is a name, not a place: no directories, whichever way they are written. */
static struct str base_name(struct str s)
{
    size_t from = s.n;
    while (from && s.p[from - 1] != '/' && s.p[from - 1] != '\\')
        from--;
    s = str_sub(s, from, SIZE_MAX);
    return str_eq(s, STR(".")) || str_eq(s, STR("..")) ? STR("") : s;
}

static bool is_clean(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
            return false;
    return str_is_utf8(s);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 8187: UTF-8''percent-encoded. p = NULL: something else. */
static struct str extended(struct arena *a, struct str v)
{
    struct str rest = v;
    if (!str_ieq(str_cut(&rest, '\''), STR("utf-8")))
        return (struct str){NULL, 0};
    (void)str_cut(&rest, '\'');
    char *p = arena_alloc(a, rest.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < rest.n; i++) {
        int hi = rest.p[i] == '%' && i + 2 < rest.n ? hex(rest.p[i + 1]) : -1;
        int lo = hi >= 0 ? hex(rest.p[i + 2]) : -1;
        if (lo >= 0) {
            p[n++] = (char)(hi << 4 | lo);
            i += 2;
        } else {
            p[n++] = rest.p[i];
        }
    }
    return (struct str){p, n};
}

static int disposition(struct multipart *m, struct str v, struct multipart_part *out, struct err *e)
{
    struct str rest = v;
    if (!str_ieq(str_trim(str_cut(&rest, ';')), STR("form-data")))
        return bad(m, e, "a part's Content-Disposition is not form-data");
    out->name = multipart_param(m->a, v, STR("name"));
    out->filename = multipart_param(m->a, v, STR("filename"));
    struct str ext = multipart_param(m->a, v, STR("filename*"));
    if (ext.p && (ext = extended(m->a, ext)).p)
        out->filename = ext;
    if (!is_clean(out->name) || !is_clean(out->filename))
        return bad(m, e, "a part's name or filename has control characters or is not UTF-8");
    if (out->filename.p)
        out->filename = base_name(out->filename);
    return 0;
}

static int part_field(struct multipart *m, struct str line, struct multipart_part *out, struct err *e)
{
    struct str value = line, name = str_cut(&value, ':');
    if (name.n == line.n || !parser_is_token(name) || memchr(line.p, 0, line.n) || memchr(line.p, '\r', line.n) ||
        memchr(line.p, '\n', line.n))
        return bad(m, e, "a part has a header line that is none");
    value = str_trim(value);
    if (str_ieq(name, STR("content-disposition")))
        return disposition(m, value, out, e);
    if (str_ieq(name, STR("content-type")))
        out->content_type = arena_dup(m->a, value);
    if (str_ieq(name, STR("content-transfer-encoding")) && !str_ieq(value, STR("binary")) &&
        !str_ieq(value, STR("8bit")) && !str_ieq(value, STR("7bit"))) {
        m->failed = true;
        return err_set(e, ERR_MEDIA_TYPE, "parts with a Content-Transfer-Encoding are not taken: send the bytes");
    }
    return 0;
}

/* A line of the body, without its CRLF, kept in the window until the next call. */
static suspends int line(struct multipart *m, struct str *out, struct err *e)
{
    for (;;) {
        struct str v = view(m);
        const char *nl = v.n >= 2 ? memmem(v.p, v.n, "\r\n", 2) : NULL;
        if (nl) {
            *out = (struct str){v.p, (size_t)(nl - v.p)};
            m->from += out->n + 2;
            return 0;
        }
        if (v.n > HEAD_MAX)
            return bad(m, e, "a header line of a part is too long");
        if (fill(m, e))
            return -1;
    }
}

static suspends int part_head(struct multipart *m, struct multipart_part *out, struct err *e)
{
    size_t total = 0;
    *out = (struct multipart_part){0};
    for (int fields = 0;; fields++) {
        struct str l;
        if (line(m, &l, e))
            return -1;
        if (!l.n)
            break;
        total += l.n;
        if (fields >= FIELDS_MAX || total > HEAD_MAX)
            return bad(m, e, "a part's header section is too long");
        if (part_field(m, l, out, e))
            return -1;
    }
    if (!out->name.p)
        return bad(m, e, "a part without a name");
    m->in_part = true;
    return 0;
}

/* Throws away what is left up to the next delimiter, and takes that, too. */
static suspends int skip_to_delimiter(struct multipart *m, size_t max, struct err *e)
{
    bool delimited;
    size_t skipped = 0;
    for (;;) {
        size_t n = data_before_delimiter(m, &delimited);
        m->from += n;
        skipped += n;
        if (skipped > max)
            return bad(m, e, "there is no boundary where one should be");
        if (delimited) {
            m->from += m->delimiter.n;
            return 0;
        }
        if (fill(m, e))
            return -1;
    }
}

/* The rest is an epilogue that nobody reads: but it must be taken for the connection to go on. */
static suspends int take_epilogue(struct multipart *m, struct err *e)
{
    ssize_t n;
    m->end = true;
    while ((n = m->read(m->arg, m->window, WINDOW, e)) > 0)
        continue;
    return n < 0 ? -1 : 0;
}

suspends int multipart_next(struct multipart *m, struct multipart_part *out, bool *more, struct err *e)
{
    struct str l;
    if (m->failed)
        return err_set(e, ERR_BAD_REQUEST, "the multipart body could not be read");
    *more = false;
    if (m->end)
        return 0;
    if (skip_to_delimiter(m, m->parts ? SIZE_MAX : PREAMBLE_MAX, e))
        return -1;
    m->in_part = false;
    while (view(m).n < 2)
        if (fill(m, e))
            return -1;
    if (str_starts(view(m), STR("--")))
        return take_epilogue(m, e);
    if (line(m, &l, e))
        return -1;
    if (str_trim(l).n)
        return bad(m, e, "a boundary is followed by something else than the end of its line");
    if (m->parts++ >= PARTS_MAX)
        return bad(m, e, "it has too many parts");
    if (part_head(m, out, e))
        return -1;
    *more = true;
    return 0;
}

/* ---- on a request ---- */

static suspends ssize_t read_request(void *arg, void *buf, size_t cap, struct err *e)
{
    return body_read(arg, buf, cap, e);
}

static bool is_boundary(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!parser_is_token((struct str){s.p + i, 1}) && !memchr("()+_,-./:=? ", s.p[i], 12))
            return false;
    return s.n >= 1 && s.n <= 70 && s.p[s.n - 1] != ' ';
}

struct multipart *multipart_open(struct request *r, struct err *e)
{
    if (!str_eq(request_media_type(r), STR("multipart/form-data"))) {
        err_set(e, ERR_MEDIA_TYPE, "the body must be multipart/form-data");
        return NULL;
    }
    struct str boundary = multipart_param(&r->arena, request_header(r, STR("content-type")), STR("boundary"));
    if (!is_boundary(boundary)) {
        err_set(e, ERR_BAD_REQUEST, "multipart/form-data needs a boundary of 1 to 70 characters");
        return NULL;
    }
    return multipart_new(&r->arena, boundary, read_request, r);
}
