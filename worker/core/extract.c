#include "worker/core/extract.h"
#include "worker/core/extract_private.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define READABLE "see the list of formats in the documentation"

int refuse(struct source *s, const char *code, const char *fmt, ...)
{
    char why[sizeof s->err.msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    str_utf8_fix(why); /* parts of it come from the document, or were cut off */
    s->code = code;
    return err_set(&s->err, ERR_VALIDATION, "%s", why);
}

/* ---- text ---- */

static int marked_up(struct source *s, struct str text, bool html)
{
    struct guard guard;
    guard_init(&guard);
    int rc = html ? extract_html(&s->builder, &guard, text) : extract_markdown(&s->builder, &guard, text);
    guard_fini(&guard);
    return rc ? refuse(s, "invalid_file", "the document cannot be read: %s", guard.exceeded) : 0;
}

int extract_html_part(struct source *s, struct str in)
{
    return marked_up(s, in, true);
}

static enum format text_format(const struct source *s, struct str text)
{
    if (begins_as_html(text))
        return FORMAT_HTML;
    bool vague = !s->type || s->type->format == FORMAT_TEXT || s->type->format >= FORMAT_RTF;
    if (vague && begins_as_xml(text))
        return FORMAT_XML;
    return s->type ? s->type->format : FORMAT_TEXT;
}

static int parse_text(struct source *s, struct str text)
{
    enum format format = text_format(s, text);
    if (!s->type || s->type->format != format)
        s->type = type_of_format(format);
    int rc = 0;
    switch (format) {
    case FORMAT_HTML:
    case FORMAT_MARKDOWN: return marked_up(s, text, format == FORMAT_HTML);
    case FORMAT_CSV: extract_csv(s, text, str_eqz(STR("text/tab-separated-values"), s->type->mime)); break;
    case FORMAT_JSON: rc = extract_json(s, text); break;
    case FORMAT_XML: rc = extract_xml(s, text); break;
    default: extract_plain(&s->builder, text, format == FORMAT_CODE); break;
    }
    if (rc == 1) { /* it is not what it is called, yet it is text: better as it is than not at all */
        builder_fini(&s->builder);
        s->builder = (struct builder){0};
        extract_plain(&s->builder, text, true);
        rc = 0;
    }
    return rc;
}

static struct str charset_of(const struct source *s)
{
    return s->charset.n ? s->charset : html_charset(s->bytes);
}

static int run_text(struct source *s)
{
    struct buf utf8 = {0};
    bool binary = false;
    const char *what = type_foreign(s->bytes);
    if (what)
        return refuse(s, "unsupported_file", "the file is %s, which cannot be read; " READABLE, what);
    int rc = text_decode(&utf8, s->bytes, charset_of(s), &binary, &s->err);
    if (rc)
        s->code = "encoding";
    else if (binary)
        rc = refuse(s, "unsupported_file", "the file is binary data of no known format; " READABLE);
    else if (s->type && s->type->format > FORMAT_RTF)
        rc = refuse(s, "invalid_file", "the file is text, but it is declared as %s",
                    s->type->mime[0] ? s->type->mime : "an image, sound, film or font");
    else
        rc = parse_text(s, buf_view(&utf8));
    buf_fini(&utf8);
    return rc;
}

/* ---- any file ---- */

/* Office encrypts a document into a container of the old kind. */
static bool encrypted_office(struct str bytes)
{
    static const char mark[] = "E\0n\0c\0r\0y\0p\0t\0e\0d\0P\0a\0c\0k\0a\0g\0e";
    return str_starts(bytes, STR("\xd0\xcf\x11\xe0")) && memmem(bytes.p, bytes.n, mark, sizeof mark);
}

static bool in_container(const struct source *s)
{
    return str_starts(s->bytes, STR("PK\3\4")) || str_starts(s->bytes, STR("PK\5\6"));
}

static bool is_mail(const struct source *s)
{
    bool may_be = !s->type || s->type->format == FORMAT_TEXT || s->type->format == FORMAT_EML;
    return may_be && begins_as_eml(s->bytes, s->type && s->type->format == FORMAT_EML);
}

/* Text that is valid UTF-8 is taken for that, whatever it says of itself, but for charsets of seven bits. */
bool extract_converts(const struct source *s)
{
    return in_container(s) || type_by_content(s->bytes) || is_mail(s) || !str_is_utf8(s->bytes) ||
           shifted_of(s->bytes, charset_of(s));
}

static int parse(struct source *s)
{
    const struct type *sure = type_by_content(s->bytes);
    if (encrypted_office(s->bytes))
        return refuse(s, "encrypted", "the document is protected by a password; send it without");
    if (in_container(s))
        return extract_container(s);
    if (sure)
        s->type = sure;
    if (sure && sure->format == FORMAT_RTF)
        return extract_rtf(s, s->bytes);
    if (sure)
        return refuse(s, "unsupported_file",
                      "PDF documents are read by pdftotext, which this server has not: install poppler-utils");
    if (is_mail(s)) {
        s->type = type_of_format(FORMAT_EML);
        return extract_eml(s, s->bytes);
    }
    return run_text(s);
}

static int run(struct source *s)
{
    if (parse(s))
        return -1;
    builder_close(&s->builder);
    if (!str_is_utf8(buf_view(&s->builder.text)))
        return refuse(s, "encoding", "the document's text is damaged");
    if (s->builder.n == 0)
        return refuse(s, "empty_file", "the file holds no text");
    return 0;
}

void extract_run(struct source *s)
{
    (void)run(s);
}

static void run_blocking(void *arg)
{
    extract_run(arg);
}

/* "text/html; charset=koi8-r" */
static struct str mime_charset(struct str *mime)
{
    struct str rest = *mime;
    *mime = str_trim(str_cut(&rest, ';'));
    while (rest.n) {
        struct str value = str_cut(&rest, ';'), name = str_trim(str_cut(&value, '='));
        if (!str_ieq(name, STR("charset")))
            continue;
        value = str_trim(value);
        if (value.n > 1 && value.p[0] == '"' && value.p[value.n - 1] == '"')
            value = str_sub(value, 1, value.n - 2);
        return value;
    }
    return STR("");
}

/* A client's "text/plain" is often only a default; the name of the file knows better. */
static const struct type *declared_type(struct str mime, struct str filename)
{
    const struct type *by_mime = type_by_mime(mime), *by_name = type_by_name(filename);
    if (!by_mime || (by_mime->format == FORMAT_TEXT && by_name && by_name->format < FORMAT_RTF))
        return by_name;
    return by_mime;
}

void extract_prepare(struct source *s, struct str bytes, struct str mime, struct str filename)
{
    s->bytes = bytes;
    s->charset = mime_charset(&mime);
    s->fault = str_ieq(mime, STR("application/x-ragd-fault"));
    s->type = declared_type(mime, filename);
}

static void own(struct arena *a, struct buf *b, struct str *out)
{
    *out = buf_view(b);
    if (b->p)
        arena_own(a, b->p, free);
    *b = (struct buf){0};
}

int extract(struct arena *a, struct str bytes, struct str mime, struct str filename, struct extracted *out,
            const char **code, struct err *e)
{
    enum { INLINE_MAX = 64 << 10 }; /* larger ones would hold up the loop */
    struct source s = {.code = NULL};
    extract_prepare(&s, bytes, mime, filename);
    if (fiber_self() && bytes.n > INLINE_MAX)
        fiber_blocking(run_blocking, &s);
    else
        run_blocking(&s);
    if (s.code) {
        builder_fini(&s.builder);
        *code = s.code;
        if (e)
            *e = s.err;
        return -1;
    }
    *out = (struct extracted){.block = s.builder.block, .n = s.builder.n, .mime = s.type->mime, .pages = s.pages};
    arena_own(a, s.builder.block, free);
    own(a, &s.builder.text, &out->text);
    own(a, &s.builder.title, &out->title);
    return 0;
}
