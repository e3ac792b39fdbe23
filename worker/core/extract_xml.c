#include "worker/core/extract_xml.h"
#include "worker/core/extract_private.h"
#include <expat.h>
#include <stdlib.h>

enum { DEPTH_MAX = 512 };

struct reading {
    XML_Parser parser;
    const struct xml_events *events;
    void *arg;
    int depth;
    const char *stopped; /* why; NULL: it was not */
};

static const char *local(const char *name)
{
    const char *colon = strrchr(name, ':');
    return colon ? colon + 1 : name;
}

static void stop(struct reading *r, const char *why)
{
    r->stopped = why;
    XML_StopParser(r->parser, XML_FALSE);
}

static void on_open(void *arg, const XML_Char *name, const XML_Char **attr)
{
    struct reading *r = arg;
    if (++r->depth > DEPTH_MAX)
        stop(r, "it is nested too deeply");
    else
        r->events->open(r->arg, local(name), attr);
}

static void on_close(void *arg, const XML_Char *name)
{
    struct reading *r = arg;
    r->depth--;
    r->events->close(r->arg, local(name));
}

static void on_text(void *arg, const XML_Char *text, int n)
{
    struct reading *r = arg;
    r->events->text(r->arg, (struct str){text, (size_t)n});
}

static void on_entity(void *arg, const XML_Char *name, int parameter, const XML_Char *value, int n,
                      const XML_Char *base, const XML_Char *system, const XML_Char *public, const XML_Char *notation)
{
    (void)name, (void)parameter, (void)value, (void)n, (void)base, (void)system, (void)public, (void)notation;
    stop(arg, "it declares entities, which are not expanded");
}

/* 0; 1: it is not well-formed, as err says, and code does not; -1 after refuse(). */
static int parse(struct source *s, struct str in, const char *encoding, const char *what,
                 const struct xml_events *events, void *arg)
{
    enum { STEP = 1 << 20 };
    struct reading r = {.parser = XML_ParserCreate(encoding), .events = events, .arg = arg};
    if (!r.parser)
        abort();
    XML_SetUserData(r.parser, &r);
    XML_SetElementHandler(r.parser, on_open, on_close);
    if (events->text)
        XML_SetCharacterDataHandler(r.parser, on_text);
    XML_SetEntityDeclHandler(r.parser, on_entity);
    enum XML_Status status = XML_STATUS_OK;
    for (size_t at = 0; status == XML_STATUS_OK && at <= in.n; at += STEP) {
        struct str part = str_sub(in, at, STEP);
        status = XML_Parse(r.parser, part.n ? part.p : "", (int)part.n, at + STEP > in.n);
    }
    int rc = 0;
    if (r.stopped)
        rc = refuse(s, "invalid_file", "%s cannot be read: %s", what, r.stopped);
    else if (status != XML_STATUS_OK)
        rc = -err_set(&s->err, ERR_VALIDATION, "%s is damaged at line %lu: %s", what,
                      XML_GetCurrentLineNumber(r.parser), XML_ErrorString(XML_GetErrorCode(r.parser)));
    XML_ParserFree(r.parser);
    return rc;
}

int xml_read(struct source *s, struct str in, const char *what, const struct xml_events *events, void *arg)
{
    int rc = parse(s, in, NULL, what, events, arg);
    if (rc == 1)
        s->code = "invalid_file";
    return rc ? -1 : 0;
}

const char *xml_attr(const char **attr, const char *name)
{
    for (; *attr; attr += 2)
        if (strcmp(local(attr[0]), name) == 0)
            return attr[1];
    return NULL;
}

/* ---- any XML document: elements that hold text of their own are paragraphs, those within such text are part of it ---- */

struct generic {
    struct builder *b;
    int depth, block; /* depth of the element that the block in progress belongs to; 0: none is */
    bool title;
};

static void generic_open(void *arg, const char *name, const char **attr)
{
    struct generic *g = arg;
    (void)attr;
    g->depth++;
    if (g->block && g->b->started) /* within text */
        return;
    g->title = strcmp(name, "title") == 0 || strcmp(name, "head") == 0;
    builder_open(g->b, g->title ? BLOCK_HEADING : BLOCK_PARAGRAPH, g->title ? (g->depth < 6 ? g->depth : 6) : 0);
    g->block = g->depth;
}

static void generic_close(void *arg, const char *name)
{
    struct generic *g = arg;
    (void)name;
    if (g->block && g->depth <= g->block) {
        size_t before = g->b->n;
        builder_close(g->b);
        if (g->title && g->b->n > before) {
            const struct block *k = &g->b->block[before];
            builder_title(g->b, (struct str){g->b->text.p + k->from, k->to - k->from});
        }
        g->title = false;
        builder_open(g->b, BLOCK_PARAGRAPH, 0); /* of the parent */
        g->block = g->depth - 1;
    }
    g->depth--;
}

static void generic_text(void *arg, struct str text)
{
    builder_text(((struct generic *)arg)->b, text);
}

int extract_xml(struct source *s, struct str in)
{
    static const struct xml_events events = {generic_open, generic_close, generic_text};
    struct generic g = {.b = &s->builder};
    int rc = parse(s, in, "UTF-8", "the XML document", &events, &g); /* decoded, whatever it says of itself */
    builder_close(&s->builder);
    return rc;
}
