#include "worker/core/extract.h"
#include "worker/core/extract_private.h"
#include <stdlib.h>

/* ---- types by name ---- */

enum format { FORMAT_TEXT, FORMAT_CODE, FORMAT_MARKDOWN, FORMAT_HTML, FORMAT_OTHER };

struct type {
    const char *mime;
    enum format format;
    const char *extensions; /* space separated */
};
/* The first one of a format is its canonical one. FORMAT_OTHER: known, and not text. */
static const struct type types[] = {
    {"text/plain", FORMAT_TEXT, "txt text log rst adoc asciidoc org tex rtf me nfo srt vtt 1 2 3 4 5 6 7 8"},
    {"text/markdown", FORMAT_MARKDOWN, "md markdown mdown mkd mdx"},
    {"text/html", FORMAT_HTML, "html htm xhtml shtml"},
    {"application/xhtml+xml", FORMAT_HTML, "xht"},
    {"text/csv", FORMAT_CODE, "csv"},
    {"text/tab-separated-values", FORMAT_CODE, "tsv tab"},
    {"application/json", FORMAT_CODE, "json jsonl ndjson ipynb"},
    {"application/xml", FORMAT_CODE, "xml xsd xsl rss atom"},
    {"application/yaml", FORMAT_CODE, "yaml yml"},
    {"application/toml", FORMAT_CODE, "toml"},
    {"text/x-c", FORMAT_CODE, "c h cc cpp cxx hpp hh"},
    {"text/x-python", FORMAT_CODE, "py pyi"},
    {"text/x-shellscript", FORMAT_CODE, "sh bash zsh"},
    {"text/javascript", FORMAT_CODE, "js mjs cjs ts tsx jsx"},
    {"text/css", FORMAT_CODE, "css scss less"},
    {"text/x-source", FORMAT_CODE,
     "go rs java kt scala rb pl pm php lua swift cs m r jl hs ml ex exs erl clj sql proto cmake mk ini cfg conf diff "
     "patch el vim tcl awk"},
    {"application/pdf", FORMAT_OTHER, "pdf"},
    {"application/vnd.openxmlformats-officedocument.wordprocessingml.document", FORMAT_OTHER, "docx"},
    {"application/vnd.openxmlformats-officedocument.presentationml.presentation", FORMAT_OTHER, "pptx"},
    {"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", FORMAT_OTHER, "xlsx"},
    {"application/vnd.oasis.opendocument.text", FORMAT_OTHER, "odt"},
    {"application/epub+zip", FORMAT_OTHER, "epub"},
    {"application/msword", FORMAT_OTHER, ""}, /* many a .doc is plain text */
    {"application/zip", FORMAT_OTHER, "zip jar"},
    {"application/gzip", FORMAT_OTHER, "gz tgz"},
    {"application/x-xz", FORMAT_OTHER, "xz"},
    {"image/png", FORMAT_OTHER, "png"},
    {"image/jpeg", FORMAT_OTHER, "jpg jpeg"},
    {"image/gif", FORMAT_OTHER, "gif"},
    {"audio/mpeg", FORMAT_OTHER, "mp3"},
    {"video/mp4", FORMAT_OTHER, "mp4"},
};
enum { N_TYPES = sizeof types / sizeof *types };

static const struct type *type_of_name(struct str filename)
{
    size_t dot = filename.n;
    while (dot > 0 && filename.p[dot - 1] != '.' && filename.p[dot - 1] != '/')
        dot--;
    if (dot == 0 || filename.p[dot - 1] != '.')
        return NULL;
    struct str ext = str_sub(filename, dot, filename.n);
    if (ext.n == 0)
        return NULL;
    for (size_t i = 0; i < N_TYPES; i++)
        for (struct str rest = str_of(types[i].extensions); rest.n;)
            if (str_ieq(str_cut(&rest, ' '), ext))
                return &types[i];
    return NULL;
}

const char *extract_mime_of_name(struct str filename)
{
    const struct type *t = type_of_name(filename);
    return t ? t->mime : NULL;
}

/* What the client declared; NULL if that says nothing. */
static const struct type *type_of_mime(struct str mime)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (str_ieq(mime, str_of(types[i].mime)))
            return &types[i];
    static const struct type any_text = {"text/plain", FORMAT_TEXT, ""}, binary = {"", FORMAT_OTHER, ""};
    if (str_ieq(mime, STR("text/x-markdown")))
        return &types[1];
    if (str_ieq(str_sub(mime, 0, 5), STR("text/")))
        return &any_text;
    static const char *const families[] = {"image/", "audio/", "video/", "font/"};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (str_ieq(str_sub(mime, 0, strlen(families[i])), str_of(families[i])) && !str_ieq(mime, STR("image/svg+xml")))
            return &binary;
    return NULL;
}

/* ---- types by content ---- */

static const struct magic {
    size_t at, n;
    const char *bytes, *what;
    bool weak; /* text may begin so, too */
} magics[] = {
    {0, 5, "%PDF-", "a PDF document", false},
    {0, 4, "PK\3\4", "a ZIP archive or an Office document", false},
    {0, 4, "PK\5\6", "a ZIP archive", false},
    {0, 2, "\x1f\x8b", "gzip-compressed data", false},
    {0, 6,
     "\xfd"
     "7zXZ",
     "xz-compressed data", false},
    {0, 4, "\x28\xb5\x2f\xfd", "zstd-compressed data", false},
    {0, 3, "BZh", "bzip2-compressed data", true},
    {0, 6, "7z\xbc\xaf\x27\x1c", "a 7z archive", false},
    {0, 4, "Rar!", "a RAR archive", true},
    {257, 5, "ustar", "a tar archive", false},
    {0, 7, "!<arch>", "an ar archive", false},
    {0, 4,
     "\x7f"
     "ELF",
     "an ELF program", false},
    {0, 4, "\xca\xfe\xba\xbe", "a Java class or a Mach-O program", false},
    {0, 8, "\x89PNG\r\n\x1a\n", "a PNG image", false},
    {0, 3, "\xff\xd8\xff", "a JPEG image", false},
    {0, 4, "GIF8", "a GIF image", true},
    {0, 4, "II*\0", "a TIFF image", false},
    {0, 4, "MM\0*", "a TIFF image", false},
    {8, 4, "WEBP", "a WebP image", true},
    {0, 8, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office document", false},
    {0, 16, "SQLite format 3\0", "an SQLite database", false},
    {0, 4, "OggS", "an Ogg file", true},
    {0, 4, "fLaC", "a FLAC file", true},
    {0, 3, "ID3", "an MP3 file", true},
    {4, 4, "ftyp", "an MP4 file", true},
    {0, 4, "wOFF", "a font", true},
    {0, 4, "wOF2", "a font", true},
    {0, 4, "\0asm", "a WebAssembly module", false},
    {0, 4, "\xde\x12\x04\x95", "a gettext catalogue", false},
    {0, 5, "{\\rtf", "an RTF document", false},
    {0, 4, "%!PS", "a PostScript document", false},
};

static const char *what_it_is(struct str bytes)
{
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
        if (bytes.n >= magics[i].at + magics[i].n &&
            memcmp(bytes.p + magics[i].at, magics[i].bytes, magics[i].n) == 0 &&
            !(magics[i].weak && str_is_utf8(bytes) && !memchr(bytes.p, 0, bytes.n)))
            return magics[i].what;
    return NULL;
}

/* Begins with an HTML element, after white space, comments and an XML declaration. */
static bool begins_as_html(struct str s)
{
    s = str_sub(s, 0, 4096);
    for (;;) {
        while (s.n && memchr(" \t\r\n", s.p[0], 4))
            s = str_sub(s, 1, s.n);
        bool comment = str_starts(s, STR("<!--")), declaration = str_starts(s, STR("<?xml"));
        if (!comment && !declaration)
            break;
        const char *end = memmem(s.p, s.n, comment ? "-->" : "?>", comment ? 3 : 2);
        if (!end)
            return false;
        s = str_sub(s, (size_t)(end - s.p) + (comment ? 3 : 2), s.n);
    }
    static const char *const begin[] = {"<!doctype html", "<html", "<head>", "<head ", "<body", "<title>"};
    for (size_t i = 0; i < sizeof begin / sizeof *begin; i++)
        if (str_ieq(str_sub(s, 0, strlen(begin[i])), str_of(begin[i])))
            return true;
    return false;
}

/* ---- extraction ---- */

struct extraction {
    struct str bytes, charset;
    const struct type *type; /* declared or by name; NULL: unknown */
    struct builder builder;
    const struct type *found;
    const char *code;
    struct err err;
    int rc;
};

static int fail(struct extraction *x, const char *code, const char *fmt, const char *what)
{
    x->code = code;
    return err_set(&x->err, ERR_VALIDATION, fmt, what);
}

static const struct type *type_of_format(enum format f)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].format == f)
            return &types[i];
    return &types[0];
}

static int parse(struct extraction *x, struct str text)
{
    struct guard guard;
    guard_init(&guard);
    x->found = begins_as_html(text) ? type_of_format(FORMAT_HTML) : x->type ? x->type : type_of_format(FORMAT_TEXT);
    int rc = 0;
    switch (x->found->format) {
    case FORMAT_HTML: rc = extract_html(&x->builder, &guard, text); break;
    case FORMAT_MARKDOWN: rc = extract_markdown(&x->builder, &guard, text); break;
    default: extract_plain(&x->builder, text, x->found->format == FORMAT_CODE); break;
    }
    guard_fini(&guard);
    if (rc)
        return fail(x, "invalid_file", "the document cannot be read: %s", guard.exceeded);
    if (!str_is_utf8(buf_view(&x->builder.text)))
        return fail(x, "encoding", "%s", "the document's text is damaged");
    return 0;
}

static int run(struct extraction *x)
{
    const char *what = what_it_is(x->bytes);
    if (what)
        return fail(x, "unsupported_file", "the file is %s, which cannot be read; send text, Markdown or HTML", what);
    struct buf utf8 = {0};
    bool binary = false;
    struct str charset = x->charset.n ? x->charset : html_charset(x->bytes);
    int rc = text_decode(&utf8, x->bytes, charset, &binary, &x->err);
    if (rc)
        x->code = "encoding";
    else if (binary)
        rc = fail(x, "unsupported_file", "the file is %s; send text, Markdown or HTML", "binary data");
    else if (x->type && x->type->format == FORMAT_OTHER)
        rc = fail(x, "invalid_file", "the file is text, but it is declared as %s",
                  x->type->mime[0] ? x->type->mime : "an image, sound, film or font");
    else
        rc = parse(x, buf_view(&utf8));
    buf_fini(&utf8);
    if (rc == 0 && x->builder.n == 0)
        rc = fail(x, "empty_file", "the file holds no text%s", "");
    return rc;
}

static void run_blocking(void *arg)
{
    struct extraction *x = arg;
    x->rc = run(x);
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
    const struct type *by_mime = type_of_mime(mime), *by_name = type_of_name(filename);
    if (!by_mime || (by_mime->format == FORMAT_TEXT && by_name && by_name->format != FORMAT_OTHER))
        return by_name;
    return by_mime;
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
    struct extraction x = {.bytes = bytes, .charset = mime_charset(&mime)};
    x.type = declared_type(mime, filename);
    if (fiber_self() && bytes.n > INLINE_MAX)
        fiber_blocking(run_blocking, &x);
    else
        run_blocking(&x);
    if (x.rc) {
        builder_fini(&x.builder);
        *code = x.code;
        if (e)
            *e = x.err;
        return -1;
    }
    *out = (struct extracted){.block = x.builder.block, .n = x.builder.n, .mime = x.found->mime};
    arena_own(a, x.builder.block, free);
    own(a, &x.builder.text, &out->text);
    own(a, &x.builder.title, &out->title);
    return 0;
}
