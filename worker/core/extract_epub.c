#include "worker/core/extract_office.h"
#include <stdlib.h>

/* EPUB: a package document lists the files of the book, its spine the order to read them in. */

enum { ITEMS_MAX = 10000 };

struct item {
    char id[128];
    char path[ZIP_NAME_MAX];
};
struct book {
    char package[ZIP_NAME_MAX];
    struct item *item;
    size_t n, cap;
    char (*spine)[128];
    size_t parts, parts_cap;
    struct buf title;
    bool in_title;
};

static void no_close(void *arg, const char *name)
{
    (void)arg, (void)name;
}

static void container_open(void *arg, const char *name, const char **attr)
{
    struct book *b = arg;
    const char *path = xml_attr(attr, "full-path");
    if (strcmp(name, "rootfile") == 0 && path && !b->package[0] && !zip_resolve(STR(""), str_of(path), b->package))
        b->package[0] = 0;
}

static void *grown(void *p, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return p;
    *cap = *cap ? 2 * *cap : 64;
    p = realloc(p, *cap * size);
    if (!p)
        abort();
    return p;
}

static void package_open(void *arg, const char *name, const char **attr)
{
    struct book *b = arg;
    const char *id = xml_attr(attr, "id"), *href = xml_attr(attr, "href"), *type = xml_attr(attr, "media-type");
    const char *ref = xml_attr(attr, "idref");
    b->in_title = strcmp(name, "title") == 0 && b->title.n == 0;
    if (strcmp(name, "item") == 0 && id && href && type && strstr(type, "html") && b->n < ITEMS_MAX) {
        b->item = grown(b->item, b->n, &b->cap, sizeof *b->item);
        str_copyz(b->item[b->n].id, sizeof b->item->id, str_of(id));
        b->n += zip_resolve(str_of(b->package), str_of(href), b->item[b->n].path);
    } else if (strcmp(name, "itemref") == 0 && ref && b->parts < ITEMS_MAX) {
        b->spine = grown(b->spine, b->parts, &b->parts_cap, sizeof *b->spine);
        str_copyz(b->spine[b->parts++], sizeof *b->spine, str_of(ref));
    }
}

static void package_close(void *arg, const char *name)
{
    (void)name;
    ((struct book *)arg)->in_title = false;
}

static void package_text(void *arg, struct str text)
{
    struct book *b = arg;
    if (b->in_title && b->title.n < 1000)
        buf_str(&b->title, text);
}

static const char *path_of(const struct book *b, const char *id)
{
    for (size_t i = 0; i < b->n; i++)
        if (strcmp(b->item[i].id, id) == 0)
            return b->item[i].path;
    return NULL;
}

/* Fonts may be encrypted, and nobody minds; the text may not. */
static int refuse_encrypted(struct source *s, struct zip *z, const struct book *b)
{
    struct buf xml = {0};
    int rc = zip_read(z, STR("META-INF/encryption.xml"), &xml);
    for (size_t i = 0; i < b->n && rc == 0 && xml.n; i++)
        if (memmem(xml.p, xml.n, b->item[i].path, strlen(b->item[i].path)))
            rc = refuse(s, "encrypted", "the book is protected against copies; send one that is not");
    buf_fini(&xml);
    return rc < 0 ? -1 : 0;
}

static int read_chapter(struct source *s, struct zip *z, const char *path, struct buf *tmp)
{
    bool binary = false;
    struct buf utf8 = {0};
    int rc = zip_read(z, str_of(path), tmp);
    if (rc)
        return rc < 0 ? -1 : 0; /* a book with a hole is better than none */
    struct str bytes = buf_view(tmp);
    rc = text_decode(&utf8, bytes, html_charset(bytes), &binary, &s->err);
    if (rc)
        s->code = "encoding";
    else if (!binary)
        rc = extract_html_part(s, buf_view(&utf8));
    buf_fini(&utf8);
    return rc;
}

static int read_book(struct source *s, struct zip *z, struct book *b)
{
    static const struct xml_events container = {container_open, no_close, NULL};
    static const struct xml_events package = {package_open, package_close, package_text};
    struct buf tmp = {0};
    int rc = office_part(s, z, "META-INF/container.xml", &container, b);
    if (rc == 0 && b->package[0])
        rc = office_part(s, z, b->package, &package, b);
    else if (rc == 0)
        rc = 1;
    if (rc == 1)
        rc = refuse(s, "invalid_file", "the book is damaged: its table of contents is missing");
    if (rc == 0)
        rc = refuse_encrypted(s, z, b);
    if (rc == 0 && b->title.n)
        builder_title(&s->builder, buf_view(&b->title));
    for (size_t i = 0; i < b->parts && rc == 0; i++) {
        const char *path = path_of(b, b->spine[i]);
        rc = path ? read_chapter(s, z, path, &tmp) : 0;
    }
    buf_fini(&tmp);
    return rc;
}

int extract_epub(struct source *s, struct zip *z)
{
    struct book b = {.n = 0};
    int rc = read_book(s, z, &b);
    free(b.item);
    free(b.spine);
    buf_fini(&b.title);
    return rc;
}
