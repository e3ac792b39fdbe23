#include "worker/core/extract_private.h"

/* ---- by what is said ---- */

#define OOXML "application/vnd.openxmlformats-officedocument."
#define ODF   "application/vnd.oasis.opendocument."

/* The first one of a format is its canonical one. */
static const struct type types[] = {
    {"text/plain", FORMAT_TEXT, "txt text log rst adoc asciidoc org tex me nfo srt vtt 1 2 3 4 5 6 7 8"},
    {"text/markdown", FORMAT_MARKDOWN, "md markdown mdown mkd mdx"},
    {"text/html", FORMAT_HTML, "html htm xhtml shtml"},
    {"application/xhtml+xml", FORMAT_HTML, "xht"},
    {"text/csv", FORMAT_CSV, "csv"},
    {"text/tab-separated-values", FORMAT_CSV, "tsv tab"},
    {"application/json", FORMAT_JSON, "json ipynb geojson"},
    {"application/x-ndjson", FORMAT_JSON, "jsonl ndjson"},
    {"application/xml", FORMAT_XML, "xml rss atom"},
    {"text/xml", FORMAT_XML, ""},
    {"message/rfc822", FORMAT_EML, "eml"},
    {"application/yaml", FORMAT_CODE, "yaml yml"},
    {"application/toml", FORMAT_CODE, "toml"},
    {"text/x-c", FORMAT_CODE, "c h cc cpp cxx hpp hh"},
    {"text/x-python", FORMAT_CODE, "py pyi"},
    {"text/x-shellscript", FORMAT_CODE, "sh bash zsh"},
    {"text/javascript", FORMAT_CODE, "js mjs cjs ts tsx jsx"},
    {"text/css", FORMAT_CODE, "css scss less"},
    {"text/x-source", FORMAT_CODE,
     "go rs java kt scala rb pl pm php lua swift cs m r jl hs ml ex exs erl clj sql proto cmake mk ini cfg conf diff "
     "patch el vim tcl awk xsd xsl"},
    {"application/rtf", FORMAT_RTF, "rtf"},
    {"text/rtf", FORMAT_RTF, ""},
    {"application/pdf", FORMAT_PDF, "pdf"},
    {OOXML "wordprocessingml.document", FORMAT_DOCX, "docx docm dotx"},
    {OOXML "presentationml.presentation", FORMAT_PPTX, "pptx pptm ppsx"},
    {OOXML "spreadsheetml.sheet", FORMAT_XLSX, "xlsx xlsm xltx"},
    {ODF "text", FORMAT_ODF, "odt ott"},
    {ODF "spreadsheet", FORMAT_ODF, "ods"},
    {ODF "presentation", FORMAT_ODF, "odp"},
    {"application/epub+zip", FORMAT_EPUB, "epub"},
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

const struct type *type_by_name(struct str filename)
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
    const struct type *t = type_by_name(filename);
    return t ? t->mime : NULL;
}

static bool ends_in(struct str s, struct str tail)
{
    return s.n >= tail.n && str_ieq(str_sub(s, s.n - tail.n, tail.n), tail);
}

const struct type *type_by_mime(struct str mime)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (str_ieq(mime, str_of(types[i].mime)))
            return &types[i];
    static const struct type binary = {"", FORMAT_OTHER, ""};
    if (str_ieq(mime, STR("text/x-markdown")))
        return type_of_format(FORMAT_MARKDOWN);
    if (ends_in(mime, STR("+xml")))
        return type_of_format(FORMAT_XML);
    if (ends_in(mime, STR("+json")))
        return type_of_format(FORMAT_JSON);
    if (str_ieq(str_sub(mime, 0, 5), STR("text/")))
        return type_of_format(FORMAT_TEXT);
    static const char *const families[] = {"image/", "audio/", "video/", "font/"};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (str_ieq(str_sub(mime, 0, strlen(families[i])), str_of(families[i])))
            return &binary;
    return NULL;
}

const struct type *type_of_format(enum format f)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].format == f)
            return &types[i];
    return &types[0];
}

/* ---- by content ---- */

static const struct magic {
    size_t at, n;
    const char *bytes, *what;
    bool weak; /* text may begin so, too */
} magics[] = {
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
    {0, 4, "%!PS", "a PostScript document", false},
};

const char *type_foreign(struct str bytes)
{
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
        if (bytes.n >= magics[i].at + magics[i].n &&
            memcmp(bytes.p + magics[i].at, magics[i].bytes, magics[i].n) == 0 &&
            !(magics[i].weak && str_is_utf8(bytes) && !memchr(bytes.p, 0, bytes.n)))
            return magics[i].what;
    return NULL;
}

const struct type *type_by_content(struct str in)
{
    struct str head = str_sub(in, 0, 1024); /* readers of PDF forgive so much before the mark */
    if (str_starts(in, STR("{\\rtf")))
        return type_of_format(FORMAT_RTF);
    if (str_starts(in, STR("%PDF-")) || (head.n && memmem(head.p, head.n, "\n%PDF-1.", 8) && !str_is_utf8(in)))
        return type_of_format(FORMAT_PDF);
    return NULL;
}

static struct str skip_white(struct str s)
{
    while (s.n && memchr(" \t\r\n", s.p[0], 4))
        s = str_sub(s, 1, s.n);
    return s;
}

/* Begins with an HTML element, after white space, comments and an XML declaration. */
bool begins_as_html(struct str s)
{
    s = str_sub(s, 0, 4096);
    for (;;) {
        s = skip_white(s);
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

bool begins_as_xml(struct str s)
{
    return str_starts(skip_white(str_sub(s, 0, 4096)), STR("<?xml"));
}

/* A header of a mail: lines "Name: value" up to an empty one, among them those that hardly anything else has; any of a
 * mail's will do for what is declared as one. */
bool begins_as_eml(struct str s, bool declared)
{
    static const char *const sure[] = {"mime-version", "message-id", "received", "return-path", "delivered-to"};
    static const char *const usual[] = {"from", "to", "subject", "date", "content-type"};
    bool from = false, other = false, any = false;
    s = str_sub(s, 0, 32768);
    for (int line_no = 0; s.n; line_no++) {
        struct str line = str_cut(&s, '\n');
        if (line.n == 0 || line.p[0] == '\r')
            break;
        if (line.p[0] == ' ' || line.p[0] == '\t' || (line_no == 0 && str_starts(line, STR("From "))))
            continue;
        struct str name = memchr(line.p, ':', line.n) ? str_cut(&line, ':') : STR("");
        if (name.n == 0 || name.n > 60 || memchr(name.p, ' ', name.n))
            return false;
        from |= str_ieq(name, STR("from"));
        for (size_t i = 0; i < sizeof sure / sizeof *sure; i++)
            other |= str_ieq(name, str_of(sure[i]));
        for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
            any |= str_ieq(name, str_of(usual[i]));
    }
    return (from && other) || (declared && (any || other));
}
