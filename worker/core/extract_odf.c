#include "worker/core/extract_office.h"
#include <stdlib.h>

/* OpenDocument: text, spreadsheets and presentations are one content.xml. */

enum { REPEAT_MAX = 100 };

struct odf {
    struct source *source;
    struct builder *b;
    bool sheets; /* a spreadsheet: its rows go through `table` */
    struct table table;
    struct buf cell;
    int depth, skip;
    int tables, lists, cells;
    int repeat;  /* of the cell */
    int in_text; /* paragraphs around: text in notes is inside of one */
    int heading; /* level of the one that is open; 0: none */
    bool title;  /* of a slide */
};

static bool is(const char *name, const char *what)
{
    return strcmp(name, what) == 0;
}

/* The text of a cell is collected, any other goes to the builder. */
static void put(struct odf *o, struct str text)
{
    if (o->sheets && o->tables)
        buf_str(&o->cell, text);
    else
        builder_text(o->b, text);
}

static int number(const char **attr, const char *name, int otherwise)
{
    const char *v = xml_attr(attr, name);
    return v ? atoi(v) : otherwise;
}

static void heading(struct odf *o, struct str text)
{
    if (text.n == 0)
        return;
    builder_open(o->b, BLOCK_HEADING, 2);
    builder_text(o->b, text);
    builder_close(o->b);
}

static void open_paragraph(struct odf *o, int level)
{
    if (o->in_text++) { /* a note, or a box that stands in the text */
        put(o, STR(" ("));
        return;
    }
    if (o->tables)
        return;
    o->heading = level;
    builder_open(o->b, level ? BLOCK_HEADING : o->lists ? BLOCK_LIST_ITEM : BLOCK_PARAGRAPH, level);
}

static void close_paragraph(struct odf *o)
{
    if (--o->in_text) {
        put(o, STR(")"));
        return;
    }
    put(o, STR(" "));
    if (o->tables)
        return;
    size_t before = o->b->n;
    builder_close(o->b);
    if (o->heading && o->heading <= 2 && o->b->n > before) {
        const struct block *k = &o->b->block[before];
        builder_title(o->b, (struct str){o->b->text.p + k->from, k->to - k->from});
    }
}

static void open_table_part(struct odf *o, const char *name, const char **attr)
{
    const char *title = xml_attr(attr, "name");
    if (is(name, "table")) {
        if (o->sheets && o->tables == 0) {
            o->b->page = (int)++o->source->pages;
            heading(o, str_of(title));
            table_begin(&o->table, o->b);
        }
        o->tables++;
    } else if (is(name, "table-row") && o->tables == 1 && !o->sheets) {
        builder_open(o->b, BLOCK_TABLE_ROW, 0);
        o->cells = 0;
    } else if ((is(name, "table-cell") || is(name, "covered-table-cell")) && o->tables == 1) {
        o->repeat = number(attr, "number-columns-repeated", 1);
        if (!o->sheets)
            builder_text(o->b, o->cells++ && o->b->started ? STR(" | ") : STR(" "));
    }
}

static void odf_open(void *arg, const char *name, const char **attr)
{
    struct odf *o = arg;
    o->depth++;
    if (o->skip)
        return;
    if (is(name, "tracked-changes") || is(name, "annotation") || is(name, "note-citation") || is(name, "forms")) {
        o->skip = o->depth;
    } else if (is(name, "h")) {
        int level = number(attr, "outline-level", 1);
        open_paragraph(o, level < 1 ? 1 : level > 6 ? 6 : level);
    } else if (is(name, "p")) {
        open_paragraph(o, o->title ? 2 : 0);
    } else if (is(name, "list")) {
        o->lists++;
    } else if (is(name, "s") || is(name, "tab")) {
        put(o, STR(" "));
    } else if (is(name, "line-break")) {
        if (o->tables)
            put(o, STR(" "));
        else
            builder_newline(o->b);
    } else if (is(name, "page")) {
        o->b->page = (int)++o->source->pages;
    } else if (is(name, "frame")) {
        const char *class = xml_attr(attr, "class");
        o->title = class && is(class, "title");
    } else {
        open_table_part(o, name, attr);
    }
}

static void close_table_part(struct odf *o, const char *name)
{
    if (is(name, "table") && o->tables > 0 && --o->tables == 0 && o->sheets)
        table_end(&o->table);
    else if (is(name, "table-row") && o->tables == 1) {
        if (o->sheets)
            table_row_end(&o->table);
        else
            builder_close(o->b);
    } else if (o->sheets && o->tables == 1 && (is(name, "table-cell") || is(name, "covered-table-cell"))) {
        for (int i = 0; i < o->repeat && i < REPEAT_MAX; i++)
            table_cell(&o->table, buf_view(&o->cell));
        o->cell.n = 0;
    }
}

static void odf_close(void *arg, const char *name)
{
    struct odf *o = arg;
    if (o->skip)
        o->skip = o->skip == o->depth ? 0 : o->skip;
    else if (is(name, "h") || is(name, "p"))
        close_paragraph(o);
    else if (is(name, "list"))
        o->lists--;
    else if (is(name, "frame"))
        o->title = false;
    else
        close_table_part(o, name);
    o->depth--;
}

static void odf_text(void *arg, struct str text)
{
    struct odf *o = arg;
    if (o->in_text && !o->skip)
        put(o, text);
}

int extract_odf(struct source *s, struct zip *z)
{
    static const struct xml_events events = {odf_open, odf_close, odf_text};
    struct odf o = {.source = s, .b = &s->builder};
    struct buf manifest = {0};
    o.sheets = strstr(s->type->mime, "spreadsheet") != NULL;
    int rc = zip_read(z, STR("META-INF/manifest.xml"), &manifest) < 0 ? -1 : 0;
    if (manifest.n && memmem(manifest.p, manifest.n, "encryption-data", 15))
        rc = refuse(s, "encrypted", "the document is protected by a password; send it without");
    buf_fini(&manifest);
    if (rc == 0)
        rc = office_title(s, z);
    if (rc == 0)
        rc = office_part(s, z, "content.xml", &events, &o);
    builder_close(&s->builder);
    table_end(&o.table);
    buf_fini(&o.cell);
    return rc == 1 ? refuse(s, "invalid_file", "the document is damaged: content.xml is missing") : rc;
}
