#include "worker/core/extract_office.h"
#include <stdlib.h>

enum { RELATIONS_MAX = 50000 };

/* ---- any container ---- */

static bool holds(const struct buf *b, const char *word)
{
    return b->n && memmem(b->p, b->n, word, strlen(word));
}

static void ignore_close(void *arg, const char *name)
{
    (void)arg, (void)name;
}

static void manifest_open(void *arg, const char *name, const char **attr)
{
    const char *path = xml_attr(attr, "full-path"), *type = xml_attr(attr, "media-type");
    if (strcmp(name, "file-entry") == 0 && path && type && strcmp(path, "/") == 0)
        buf_str(arg, str_of(type));
}

/* What OpenDocument and EPUB say of themselves: in an entry of its own, or, where a program has left that out, in the
 * list of all entries. */
static void stated_type(struct source *s, struct zip *z, struct buf *out)
{
    static const struct xml_events events = {manifest_open, ignore_close, NULL};
    int rc = zip_read(z, STR("mimetype"), out);
    if (rc || out->n >= 200)
        out->n = 0;
    if (rc == 1)
        (void)office_part(s, z, "META-INF/manifest.xml", &events, out);
}

/* They state what they are, Office says it of each part. */
static enum format container_format(struct source *s, struct zip *z, struct buf *tmp)
{
    static const struct {
        const char *word;
        enum format format;
    } marks[] = {
        {"wordprocessingml.document.main", FORMAT_DOCX},
        {"wordprocessingml.template.main", FORMAT_DOCX},
        {"ms-word.document.macroEnabled.main", FORMAT_DOCX},
        {"presentationml.presentation.main", FORMAT_PPTX},
        {"presentationml.slideshow.main", FORMAT_PPTX},
        {"ms-powerpoint.presentation.macroEnabled.main", FORMAT_PPTX},
        {"spreadsheetml.sheet.main", FORMAT_XLSX},
        {"spreadsheetml.template.main", FORMAT_XLSX},
        {"ms-excel.sheet.macroEnabled.main", FORMAT_XLSX},
    };
    stated_type(s, z, tmp);
    if (holds(tmp, "application/epub+zip"))
        return FORMAT_EPUB;
    if (holds(tmp, "opendocument.text") || holds(tmp, "opendocument.spreadsheet") ||
        holds(tmp, "opendocument.presentation"))
        return FORMAT_ODF;
    if (zip_read(z, STR("[Content_Types].xml"), tmp) == 0)
        for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
            if (holds(tmp, marks[i].word))
                return marks[i].format;
    if (!s->code && zip_has(z, STR("META-INF/container.xml")))
        return FORMAT_EPUB;
    return FORMAT_OTHER;
}

static const struct type *odf_type(const struct buf *stated)
{
    const char *mime = holds(stated, "opendocument.spreadsheet")    ? "application/vnd.oasis.opendocument.spreadsheet"
                       : holds(stated, "opendocument.presentation") ? "application/vnd.oasis.opendocument.presentation"
                                                                    : "application/vnd.oasis.opendocument.text";
    const struct type *t = type_by_mime(str_of(mime));
    return t ? t : type_of_format(FORMAT_ODF);
}

static int read_container(struct source *s, struct zip *z)
{
    struct buf tmp = {0};
    enum format format = container_format(s, z, &tmp);
    if (format != FORMAT_OTHER)
        s->type = format == FORMAT_ODF ? odf_type(&tmp) : type_of_format(format);
    buf_fini(&tmp);
    if (s->code)
        return -1;
    switch (format) {
    case FORMAT_DOCX: return extract_docx(s, z);
    case FORMAT_PPTX: return extract_pptx(s, z);
    case FORMAT_XLSX: return extract_xlsx(s, z);
    case FORMAT_ODF: return extract_odf(s, z);
    case FORMAT_EPUB: return extract_epub(s, z);
    default:
        return refuse(s, "unsupported_file",
                      "the file is a ZIP archive that is no document; unpack it and send the files in it");
    }
}

int extract_container(struct source *s)
{
    struct zip *z = zip_open(s);
    int rc = z ? read_container(s, z) : -1;
    zip_close(z);
    return rc;
}

/* ---- parts and relations ---- */

int office_part(struct source *s, struct zip *z, const char *name, const struct xml_events *events, void *arg)
{
    struct buf xml = {0};
    int rc = zip_read(z, str_of(name), &xml);
    if (rc == 0)
        rc = xml_read(s, buf_view(&xml), name, events, arg);
    buf_fini(&xml);
    return rc;
}

struct relating {
    struct relations *out;
    struct str base;
};

static void relation_open(void *arg, const char *name, const char **attr)
{
    struct relating *r = arg;
    struct relations *out = r->out;
    const char *id = xml_attr(attr, "Id"), *type = xml_attr(attr, "Type"), *target = xml_attr(attr, "Target");
    const char *mode = xml_attr(attr, "TargetMode");
    if (strcmp(name, "Relationship") != 0 || !id || !type || !target || out->n >= RELATIONS_MAX)
        return;
    if (mode && strcmp(mode, "External") == 0)
        return;
    if (out->n == out->cap) {
        out->cap = out->cap ? 2 * out->cap : 16;
        out->v = realloc(out->v, out->cap * sizeof *out->v);
        if (!out->v)
            abort();
    }
    struct relation *v = &out->v[out->n];
    const char *word = strrchr(type, '/');
    str_copyz(v->id, sizeof v->id, str_of(id));
    str_copyz(v->type, sizeof v->type, str_of(word ? word + 1 : type));
    out->n += zip_resolve(r->base, str_of(target), v->target);
}

int relations_read(struct source *s, struct zip *z, struct str name, struct relations *out)
{
    static const struct xml_events events = {relation_open, ignore_close, NULL};
    struct relating r = {out, name};
    size_t slash = name.n;
    struct buf path = {0};
    while (slash > 0 && name.p[slash - 1] != '/')
        slash--;
    buf_str(&path, str_sub(name, 0, slash));
    buf_lit(&path, "_rels/");
    buf_str(&path, str_sub(name, slash, SIZE_MAX));
    buf_add(&path, ".rels", sizeof ".rels");
    int rc = office_part(s, z, path.p, &events, &r);
    buf_fini(&path);
    return rc < 0 ? -1 : 0;
}

void relations_fini(struct relations *r)
{
    free(r->v);
    *r = (struct relations){0};
}

const char *relation_by_id(const struct relations *r, const char *id)
{
    for (size_t i = 0; id && i < r->n; i++)
        if (strcmp(r->v[i].id, id) == 0)
            return r->v[i].target;
    return NULL;
}

const char *relation_by_type(const struct relations *r, const char *type)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->v[i].type, type) == 0)
            return r->v[i].target;
    return NULL;
}

int office_main(struct source *s, struct zip *z, char out[static ZIP_NAME_MAX])
{
    struct relations r = {0};
    int rc = relations_read(s, z, STR(""), &r);
    const char *target = relation_by_type(&r, "officeDocument");
    if (rc == 0 && target)
        memcpy(out, target, strlen(target) + 1);
    else if (rc == 0)
        rc = refuse(s, "invalid_file", "the document is damaged: nothing says where its content is");
    relations_fini(&r);
    return rc;
}

/* ---- properties ---- */

struct properties {
    struct buf title;
    bool inside;
};

static void properties_open(void *arg, const char *name, const char **attr)
{
    struct properties *p = arg;
    (void)attr;
    p->inside = strcmp(name, "title") == 0 && p->title.n == 0;
}

static void properties_close(void *arg, const char *name)
{
    (void)name;
    ((struct properties *)arg)->inside = false;
}

static void properties_text(void *arg, struct str text)
{
    struct properties *p = arg;
    if (p->inside && p->title.n < 1000)
        buf_str(&p->title, text);
}

int office_title(struct source *s, struct zip *z)
{
    static const struct xml_events events = {properties_open, properties_close, properties_text};
    struct properties p = {.inside = false};
    const char *name = s->type->format == FORMAT_ODF ? "meta.xml" : "docProps/core.xml";
    int rc = office_part(s, z, name, &events, &p);
    if (p.title.n)
        builder_title(&s->builder, buf_view(&p.title));
    buf_fini(&p.title);
    return rc < 0 ? -1 : 0;
}
