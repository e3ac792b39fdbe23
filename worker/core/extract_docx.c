#include "worker/core/extract_office.h"
#include <stdlib.h>

/* ---- styles: which ones are headings ---- */

enum { STYLES_MAX = 5000, BASED_MAX = 8 };

struct style {
    char id[64], based[64];
    int level; /* heading: 1–6; 0: none; -1: not said, as the one that it is based on */
    bool title, list;
};
struct styles {
    struct style *v;
    size_t n, cap;
    bool inside; /* a paragraph style is being read */
};

static int clamp_level(int level)
{
    return level < 1 ? 1 : level > 6 ? 6 : level;
}

static void style_open(void *arg, const char *name, const char **attr)
{
    struct styles *t = arg;
    const char *id = xml_attr(attr, "styleId"), *type = xml_attr(attr, "type"), *val = xml_attr(attr, "val");
    if (strcmp(name, "style") == 0) {
        t->inside = id && (!type || strcmp(type, "paragraph") == 0) && t->n < STYLES_MAX;
        if (!t->inside)
            return;
        if (t->n == t->cap) {
            t->cap = t->cap ? 2 * t->cap : 64;
            t->v = realloc(t->v, t->cap * sizeof *t->v);
            if (!t->v)
                abort();
        }
        t->v[t->n] = (struct style){.level = -1};
        str_copyz(t->v[t->n++].id, sizeof t->v->id, str_of(id));
    }
    if (!t->inside || !val)
        return;
    struct style *v = &t->v[t->n - 1];
    if (strcmp(name, "name") == 0) {
        struct str s = str_of(val);
        v->title = str_ieq(s, STR("title"));
        v->list = str_ieq(str_sub(s, 0, 5), STR("list ")) && !str_ieq(s, STR("list paragraph"));
        if (v->title)
            v->level = 1;
        else if (str_ieq(str_sub(s, 0, 8), STR("heading ")))
            v->level = clamp_level(atoi(val + 8));
    } else if (strcmp(name, "basedOn") == 0) {
        str_copyz(v->based, sizeof v->based, str_of(val));
    } else if (strcmp(name, "outlineLvl") == 0 && v->level < 0) {
        int level = atoi(val);
        v->level = level >= 0 && level < 9 ? clamp_level(level + 1) : 0;
    }
}

static void style_close(void *arg, const char *name)
{
    if (strcmp(name, "style") == 0)
        ((struct styles *)arg)->inside = false;
}

static const struct style *style_find(const struct styles *t, const char *id)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->v[i].id, id) == 0)
            return &t->v[i];
    return NULL;
}

/* ---- the text ---- */

struct docx {
    struct builder *b;
    struct styles styles;
    int depth, skip; /* depth of the element whose inside is skipped; 0: none is */
    int tables;      /* nesting */
    int cells;       /* of the row */
    bool in_text;
    bool notes;  /* this part holds notes, not the text */
    char id[16]; /* of the note that begins */

    /* of the paragraph */
    bool opened, list, title;
    int level;
};

static void paragraph_open(struct docx *d)
{
    if (d->opened || d->tables)
        return;
    d->opened = true;
    builder_open(d->b, d->level ? BLOCK_HEADING : d->list ? BLOCK_LIST_ITEM : BLOCK_PARAGRAPH, d->level);
    if (d->id[0]) {
        struct buf mark = {0};
        buf_printf(&mark, "[%s] ", d->id);
        builder_text(d->b, buf_view(&mark));
        buf_fini(&mark);
        d->id[0] = 0;
    }
}

static void paragraph_style(struct docx *d, const char *id)
{
    for (int i = 0; id && i < BASED_MAX; i++) {
        const struct style *v = style_find(&d->styles, id);
        if (!v)
            return;
        d->list |= v->list;
        if (v->level >= 0) {
            d->level = v->level;
            d->title = v->title;
            return;
        }
        id = v->based;
    }
}

static void paragraph_close(struct docx *d)
{
    if (d->tables || !d->opened) {
        builder_text(d->b, STR(" "));
        return;
    }
    size_t before = d->b->n;
    builder_close(d->b);
    if (d->level == 1 && d->b->n > before) {
        const struct block *k = &d->b->block[before];
        builder_title(d->b, (struct str){d->b->text.p + k->from, k->to - k->from});
    }
}

static void note_mark(struct docx *d, const char *id)
{
    struct buf mark = {0};
    paragraph_open(d);
    buf_printf(&mark, "[%.12s]", id);
    builder_text(d->b, buf_view(&mark));
    buf_fini(&mark);
}

/* What is not text of the document: another form of the same drawing, what was deleted, the notes' rulers. */
static bool skipped(const struct docx *d, const char *name, const char **attr)
{
    const char *type = xml_attr(attr, "type");
    return strcmp(name, "Fallback") == 0 || strcmp(name, "del") == 0 || strcmp(name, "moveFrom") == 0 ||
           (d->notes && type && (strcmp(name, "footnote") == 0 || strcmp(name, "endnote") == 0));
}

static void docx_open(void *arg, const char *name, const char **attr)
{
    struct docx *d = arg;
    const char *val = xml_attr(attr, "val"), *id = xml_attr(attr, "id");
    d->depth++;
    if (d->skip)
        return;
    if (skipped(d, name, attr)) {
        d->skip = d->depth;
    } else if (strcmp(name, "p") == 0) {
        d->opened = d->list = d->title = false;
        d->level = 0;
    } else if (strcmp(name, "pStyle") == 0) {
        paragraph_style(d, val);
    } else if (strcmp(name, "numPr") == 0) {
        d->list = true;
    } else if (strcmp(name, "outlineLvl") == 0 && val && atoi(val) >= 0 && atoi(val) < 9) {
        d->level = clamp_level(atoi(val) + 1);
    } else if (strcmp(name, "t") == 0) {
        paragraph_open(d);
        d->in_text = true;
    } else if (strcmp(name, "tab") == 0 || strcmp(name, "noBreakHyphen") == 0) {
        builder_text(d->b, name[0] == 't' ? STR(" ") : STR("-"));
    } else if (strcmp(name, "br") == 0 || strcmp(name, "cr") == 0) {
        if (d->tables)
            builder_text(d->b, STR(" "));
        else
            builder_newline(d->b);
    } else if (strcmp(name, "tbl") == 0) {
        d->tables++;
    } else if (strcmp(name, "tr") == 0 && d->tables == 1) {
        builder_open(d->b, BLOCK_TABLE_ROW, 0);
        d->cells = 0;
    } else if (strcmp(name, "tc") == 0 && d->tables == 1) {
        builder_text(d->b, d->cells++ && d->b->started ? STR(" | ") : STR(" "));
    } else if ((strcmp(name, "footnoteReference") == 0 || strcmp(name, "endnoteReference") == 0) && id) {
        note_mark(d, id);
    } else if ((strcmp(name, "footnote") == 0 || strcmp(name, "endnote") == 0) && id && d->notes) {
        str_copyz(d->id, sizeof d->id, str_of(id));
    }
}

static void docx_close(void *arg, const char *name)
{
    struct docx *d = arg;
    if (d->skip) {
        if (d->skip == d->depth)
            d->skip = 0;
    } else if (strcmp(name, "p") == 0) {
        paragraph_close(d);
    } else if (strcmp(name, "t") == 0) {
        d->in_text = false;
    } else if (strcmp(name, "tr") == 0 && d->tables == 1) {
        builder_close(d->b);
    } else if (strcmp(name, "tbl") == 0) {
        d->tables--;
        d->opened = true; /* the paragraph around it, if any, is over */
    }
    d->depth--;
}

static void docx_text(void *arg, struct str text)
{
    struct docx *d = arg;
    if (d->in_text && !d->skip)
        builder_text(d->b, text);
}

static int read_part(struct source *s, struct zip *z, struct docx *d, const char *name)
{
    static const struct xml_events events = {docx_open, docx_close, docx_text};
    int rc = name ? office_part(s, z, name, &events, d) : 1;
    builder_close(d->b);
    d->depth = d->skip = d->tables = 0;
    d->in_text = false;
    return rc;
}

static int read_parts(struct source *s, struct zip *z, struct docx *d, const char *main, const struct relations *r)
{
    static const struct xml_events styles = {style_open, style_close, NULL};
    const char *style = relation_by_type(r, "styles");
    if (style && office_part(s, z, style, &styles, &d->styles) < 0)
        return -1;
    int rc = read_part(s, z, d, main);
    if (rc == 1)
        return refuse(s, "invalid_file", "the document is damaged: %.100s is missing", main);
    d->notes = true;
    return rc || read_part(s, z, d, relation_by_type(r, "footnotes")) < 0 ||
                   read_part(s, z, d, relation_by_type(r, "endnotes")) < 0
               ? -1
               : 0;
}

int extract_docx(struct source *s, struct zip *z)
{
    struct relations r = {0};
    struct docx d = {.b = &s->builder};
    char main[ZIP_NAME_MAX];
    int rc = office_title(s, z) || office_main(s, z, main) || relations_read(s, z, str_of(main), &r) ||
                     read_parts(s, z, &d, main, &r)
                 ? -1
                 : 0;
    relations_fini(&r);
    free(d.styles.v);
    return rc;
}
