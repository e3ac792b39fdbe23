#include "worker/core/extract_private.h"
#include <gumbo.h>
#include <stdlib.h>

/* ---- what each element means ---- */

enum html_role {
    INLINE, /* the default: only its text */
    SKIPPED,
    NAVIGATION, /* skipped, unless nothing else is there */
    HEADING,
    BREAK,
    PARAGRAPH, /* a block of its own, as every element that is neither of the others nor inline */
    ITEM,
    CODE,
    ROW,
    CELL,
    TITLE,
};

static enum html_role role_of(GumboTag tag)
{
    switch (tag) {
    case GUMBO_TAG_SCRIPT:
    case GUMBO_TAG_STYLE:
    case GUMBO_TAG_TEMPLATE:
    case GUMBO_TAG_SVG:
    case GUMBO_TAG_IFRAME:
    case GUMBO_TAG_OBJECT:
    case GUMBO_TAG_BUTTON:
    case GUMBO_TAG_SELECT:
    case GUMBO_TAG_TEXTAREA: return SKIPPED;
    case GUMBO_TAG_NAV: return NAVIGATION;
    case GUMBO_TAG_H1:
    case GUMBO_TAG_H2:
    case GUMBO_TAG_H3:
    case GUMBO_TAG_H4:
    case GUMBO_TAG_H5:
    case GUMBO_TAG_H6: return HEADING;
    case GUMBO_TAG_BR: return BREAK;
    case GUMBO_TAG_P:
    case GUMBO_TAG_DIV:
    case GUMBO_TAG_SECTION:
    case GUMBO_TAG_ARTICLE:
    case GUMBO_TAG_ASIDE:
    case GUMBO_TAG_HEADER:
    case GUMBO_TAG_FOOTER:
    case GUMBO_TAG_MAIN:
    case GUMBO_TAG_BODY:
    case GUMBO_TAG_HTML:
    case GUMBO_TAG_HEAD:
    case GUMBO_TAG_BLOCKQUOTE:
    case GUMBO_TAG_FIGURE:
    case GUMBO_TAG_FIGCAPTION:
    case GUMBO_TAG_ADDRESS:
    case GUMBO_TAG_FORM:
    case GUMBO_TAG_FIELDSET:
    case GUMBO_TAG_DETAILS:
    case GUMBO_TAG_SUMMARY:
    case GUMBO_TAG_HR:
    case GUMBO_TAG_UL:
    case GUMBO_TAG_OL:
    case GUMBO_TAG_DL:
    case GUMBO_TAG_CENTER:
    case GUMBO_TAG_TABLE:
    case GUMBO_TAG_CAPTION:
    case GUMBO_TAG_THEAD:
    case GUMBO_TAG_TBODY:
    case GUMBO_TAG_TFOOT: return PARAGRAPH;
    case GUMBO_TAG_LI:
    case GUMBO_TAG_DT:
    case GUMBO_TAG_DD: return ITEM;
    case GUMBO_TAG_PRE:
    case GUMBO_TAG_LISTING:
    case GUMBO_TAG_XMP:
    case GUMBO_TAG_PLAINTEXT: return CODE;
    case GUMBO_TAG_TR: return ROW;
    case GUMBO_TAG_TD:
    case GUMBO_TAG_TH: return CELL;
    case GUMBO_TAG_TITLE: return TITLE;
    default: return INLINE;
    }
}

/* ---- the walk: with a stack of its own, as deep as the document ---- */

struct frame {
    const GumboNode *node;
    unsigned next;        /* child */
    enum block_kind kind; /* of blocks in here */
    int level;
    bool in_row; /* inside a table row: blocks do not split it */
};
struct walk {
    struct builder *b;
    bool navigation; /* keep it */
    struct frame *frame;
    size_t n, cap;
    size_t heading; /* blocks when the heading that is open was begun */
};

static void open_block(struct walk *w, const struct frame *f)
{
    if (f->in_row)
        builder_text(w->b, STR(" "));
    else
        builder_open(w->b, f->kind, f->level);
}

static const GumboVector *children(const GumboNode *n)
{
    return n->type == GUMBO_NODE_DOCUMENT ? &n->v.document.children : &n->v.element.children;
}

static void set_title(struct walk *w, const GumboNode *title)
{
    const GumboVector *c = &title->v.element.children;
    for (unsigned i = 0; i < c->length; i++) {
        const GumboNode *t = c->data[i];
        if (t->type == GUMBO_NODE_TEXT || t->type == GUMBO_NODE_WHITESPACE)
            builder_title(w->b, str_of(t->v.text.text));
    }
}

/* The "¶" that generators of documentation put behind headings. */
static bool permalink(const GumboNode *a)
{
    const GumboAttribute *class = gumbo_get_attribute(&a->v.element.attributes, "class");
    return class && strstr(class->value, "headerlink");
}

/* False: its inside is not walked. */
static bool enter(struct walk *w, struct frame *f)
{
    const GumboNode *n = f->node;
    if (n->type == GUMBO_NODE_DOCUMENT)
        return true;
    GumboTag tag = n->v.element.tag;
    enum html_role role = role_of(tag);
    const GumboAttribute *alt;
    if (gumbo_get_attribute(&n->v.element.attributes, "hidden") || (tag == GUMBO_TAG_A && permalink(n)))
        return false;
    switch (role) {
    case SKIPPED: return false;
    case NAVIGATION:
        if (!w->navigation)
            return false;
        open_block(w, f);
        break;
    case TITLE: set_title(w, n); return false;
    case BREAK:
        if (f->in_row)
            builder_text(w->b, STR(" "));
        else
            builder_newline(w->b);
        break;
    case CELL: builder_text(w->b, n->index_within_parent && w->b->started ? STR(" | ") : STR(" ")); break;
    case HEADING:
        f->kind = BLOCK_HEADING;
        f->level = tag - GUMBO_TAG_H1 + 1;
        w->heading = w->b->n;
        open_block(w, f);
        break;
    case ITEM:
        f->kind = BLOCK_LIST_ITEM;
        open_block(w, f);
        break;
    case CODE:
        f->kind = BLOCK_CODE;
        open_block(w, f);
        break;
    case ROW:
        f->kind = BLOCK_TABLE_ROW;
        f->in_row = false;
        open_block(w, f);
        f->in_row = true;
        break;
    case PARAGRAPH: open_block(w, f); break;
    case INLINE:
        alt = tag == GUMBO_TAG_IMG ? gumbo_get_attribute(&n->v.element.attributes, "alt") : NULL;
        if (alt)
            builder_text(w->b, str_of(alt->value));
        break;
    }
    return true;
}

/* What follows an element belongs to a new block of its parent's kind. */
static void leave(struct walk *w, const struct frame *f)
{
    if (f->node->type == GUMBO_NODE_DOCUMENT)
        return;
    const struct frame *parent = w->n ? &w->frame[w->n - 1] : f;
    enum html_role role = role_of(f->node->v.element.tag);
    if (role == HEADING && !parent->in_row) {
        builder_close(w->b);
        if (w->b->n > w->heading) {
            const struct block *h = &w->b->block[w->b->n - 1];
            builder_title(w->b, (struct str){w->b->text.p + h->from, h->to - h->from});
        }
    }
    if (role == ROW)
        builder_close(w->b);
    if (role == HEADING || role == ITEM || role == CODE || role == PARAGRAPH || role == ROW || role == NAVIGATION)
        open_block(w, parent);
}

static void push(struct walk *w, const GumboNode *n)
{
    struct frame f = {.node = n, .kind = BLOCK_PARAGRAPH};
    if (w->n) {
        f = w->frame[w->n - 1];
        f.node = n;
        f.next = 0;
    }
    if (!enter(w, &f))
        return;
    if (w->n == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 64;
        w->frame = realloc(w->frame, w->cap * sizeof *w->frame);
        if (!w->frame)
            abort();
    }
    w->frame[w->n++] = f;
}

static void walk_tree(struct walk *w, const GumboNode *root)
{
    push(w, root);
    while (w->n) {
        struct frame *f = &w->frame[w->n - 1];
        const GumboVector *c = children(f->node);
        if (f->next == c->length) {
            struct frame done = *f;
            w->n--;
            leave(w, &done);
            continue;
        }
        const GumboNode *n = c->data[f->next++];
        switch (n->type) {
        case GUMBO_NODE_TEXT:
        case GUMBO_NODE_CDATA:
        case GUMBO_NODE_WHITESPACE: builder_text(w->b, str_of(n->v.text.text)); break;
        case GUMBO_NODE_ELEMENT: push(w, n); break;
        default: break; /* comments, templates */
        }
    }
    builder_close(w->b);
}

static void *html_alloc(void *g, size_t n)
{
    return guard_alloc(g, n);
}

static void html_free(void *g, void *p)
{
    guard_release(g, p);
}

/* Leaves through g->out when a bound is reached. */
static const GumboNode *parse(struct guard *g, struct str in)
{
    GumboOptions options = kGumboDefaultOptions;
    options.allocator = html_alloc;
    options.deallocator = html_free;
    options.userdata = g;
    options.max_errors = 0;
    return gumbo_parse_with_options(&options, in.p, in.n)->document;
}

static const GumboNode *parse_guarded(struct guard *g, struct str in)
{
    jmp_buf outer;
    memcpy(&outer, &g->out, sizeof outer);
    const GumboNode *volatile root = NULL;
    if (!setjmp(g->out))
        root = parse(g, in);
    memcpy(&g->out, &outer, sizeof outer);
    return root;
}

int extract_html(struct builder *b, struct guard *g, struct str in)
{
    const GumboNode *root = parse_guarded(g, in);
    if (!root)
        return -1;
    size_t before = b->n;
    struct walk w = {.b = b};
    walk_tree(&w, root);
    if (b->n == before) {
        w.navigation = true;
        walk_tree(&w, root);
    }
    free(w.frame);
    return 0;
}

/* ---- charset ---- */

static bool ieq_at(struct str s, size_t at, const char *word)
{
    return str_ieq(str_sub(s, at, strlen(word)), str_of(word));
}

struct str html_charset(struct str bytes)
{
    struct str head = str_sub(bytes, 0, 4096);
    for (size_t i = 0; i + 8 < head.n; i++) {
        if (head.p[i] != '<' || (!ieq_at(head, i, "<meta") && !ieq_at(head, i, "<?xml")))
            continue;
        const char *name = head.p[i + 1] == '?' ? "encoding=" : "charset=";
        for (; i < head.n && head.p[i] != '>'; i++) {
            if (!ieq_at(head, i, name))
                continue;
            size_t from = i + strlen(name), to;
            while (from < head.n && memchr("\"' ", head.p[from], 3))
                from++;
            for (to = from; to < head.n && !memchr("\"' ;>/?\t\n", head.p[to], 9);)
                to++;
            return str_sub(head, from, to - from);
        }
    }
    return STR("");
}
