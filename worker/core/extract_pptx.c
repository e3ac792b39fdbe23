#include "worker/core/extract_office.h"
#include <stdlib.h>

enum { SLIDES_MAX = 5000 };

struct slide {
    struct builder *b;
    bool notes;               /* of the notes only what the speaker wrote */
    bool in_text, wanted;     /* `wanted`: this shape is shown */
    enum block_kind kind;     /* of its paragraphs */
    bool opened, heading;     /* the slide's title has been seen */
    int tables, cells, depth; /* depth of groups in a table is none: rows are flat */
    int skip;
};

static void shape_placeholder(struct slide *s, const char *type)
{
    bool title = type && (strcmp(type, "title") == 0 || strcmp(type, "ctrTitle") == 0);
    bool chrome = type && (strcmp(type, "sldNum") == 0 || strcmp(type, "dt") == 0 || strcmp(type, "ftr") == 0 ||
                           strcmp(type, "hdr") == 0 || strcmp(type, "sldImg") == 0);
    s->wanted = s->notes ? type && strcmp(type, "body") == 0 : !chrome;
    s->kind = title                                                 ? BLOCK_HEADING
              : s->notes || (type && strcmp(type, "subTitle") == 0) ? BLOCK_PARAGRAPH
                                                                    : BLOCK_LIST_ITEM;
}

static void slide_open(void *arg, const char *name, const char **attr)
{
    struct slide *s = arg;
    s->depth++;
    if (s->skip)
        return;
    if (strcmp(name, "Fallback") == 0) {
        s->skip = s->depth;
    } else if (strcmp(name, "sp") == 0 || strcmp(name, "graphicFrame") == 0) {
        s->wanted = !s->notes;
        s->kind = BLOCK_PARAGRAPH;
    } else if (strcmp(name, "ph") == 0) {
        shape_placeholder(s, xml_attr(attr, "type"));
    } else if (strcmp(name, "tbl") == 0) {
        s->tables++;
    } else if (strcmp(name, "tr") == 0) {
        builder_open(s->b, BLOCK_TABLE_ROW, 0);
        s->cells = 0;
    } else if (strcmp(name, "tc") == 0) {
        builder_text(s->b, s->cells++ && s->b->started ? STR(" | ") : STR(" "));
    } else if (strcmp(name, "p") == 0 && !s->tables) {
        builder_open(s->b, s->kind, s->kind == BLOCK_HEADING ? 2 : 0);
    } else if (strcmp(name, "t") == 0) {
        s->in_text = s->wanted;
    } else if (strcmp(name, "br") == 0) {
        builder_text(s->b, STR(" "));
    }
}

static void slide_close(void *arg, const char *name)
{
    struct slide *s = arg;
    if (s->skip) {
        s->skip = s->skip == s->depth ? 0 : s->skip;
    } else if (strcmp(name, "t") == 0) {
        s->in_text = false;
    } else if (strcmp(name, "p") == 0 && s->tables) {
        builder_text(s->b, STR(" "));
    } else if (strcmp(name, "p") == 0 || strcmp(name, "tr") == 0) {
        size_t before = s->b->n;
        builder_close(s->b);
        if (s->kind == BLOCK_HEADING && s->b->n > before) {
            const struct block *k = &s->b->block[before];
            builder_title(s->b, (struct str){s->b->text.p + k->from, k->to - k->from});
        }
    } else if (strcmp(name, "tbl") == 0) {
        s->tables--;
    }
    s->depth--;
}

static void slide_text(void *arg, struct str text)
{
    struct slide *s = arg;
    if (s->in_text && !s->skip)
        builder_text(s->b, text);
}

/* ---- the presentation ---- */

struct deck {
    char (*id)[64];
    size_t n;
};

static void deck_open(void *arg, const char *name, const char **attr)
{
    struct deck *d = arg;
    if (strcmp(name, "sldId") != 0 || d->n == SLIDES_MAX)
        return;
    for (; *attr; attr += 2) /* r:id; the plain `id` is a number of the slide */
        if (strchr(attr[0], ':') && strcmp(strrchr(attr[0], ':'), ":id") == 0)
            str_copyz(d->id[d->n], sizeof *d->id, str_of(attr[1]));
    d->n++;
}

static void deck_close(void *arg, const char *name)
{
    (void)arg, (void)name;
}

static int read_slide(struct source *s, struct zip *z, const char *name)
{
    static const struct xml_events events = {slide_open, slide_close, slide_text};
    struct relations r = {0};
    struct slide slide = {.b = &s->builder}, notes = {.b = &s->builder, .notes = true};
    int rc = office_part(s, z, name, &events, &slide) < 0 || relations_read(s, z, str_of(name), &r) ? -1 : 0;
    const char *part = relation_by_type(&r, "notesSlide");
    builder_close(&s->builder);
    if (rc == 0 && part && office_part(s, z, part, &events, &notes) < 0)
        rc = -1;
    builder_close(&s->builder);
    relations_fini(&r);
    return rc;
}

static int read_deck(struct source *s, struct zip *z, const char *main, struct deck *d, struct relations *r)
{
    static const struct xml_events events = {deck_open, deck_close, NULL};
    if (relations_read(s, z, str_of(main), r) || office_part(s, z, main, &events, d) < 0)
        return -1;
    for (size_t i = 0; i < d->n; i++) {
        const char *part = relation_by_id(r, d->id[i]);
        s->builder.page = (int)++s->pages;
        if (part && read_slide(s, z, part))
            return -1;
    }
    return 0;
}

int extract_pptx(struct source *s, struct zip *z)
{
    struct relations r = {0};
    struct deck d = {.id = calloc(SLIDES_MAX, sizeof *d.id)};
    char main[ZIP_NAME_MAX];
    if (!d.id)
        abort();
    int rc = office_title(s, z) || office_main(s, z, main) || read_deck(s, z, main, &d, &r) ? -1 : 0;
    free(d.id);
    relations_fini(&r);
    return rc;
}
