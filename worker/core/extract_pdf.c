#include "worker/core/extract_private.h"

/* What `pdftotext -htmlmeta` prints of a PDF document: a title in a head of HTML, then the text as it is, in reading order,
 * paragraphs between empty lines, and a form feed behind each page. */

static void put_title(struct builder *b, struct str head)
{
    static const struct {
        const char *name;
        char c;
    } entities[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    struct buf title = {0};
    const char *from = head.n ? memmem(head.p, head.n, "<title>", 7) : NULL;
    struct str rest = from ? str_sub(head, (size_t)(from + 7 - head.p), SIZE_MAX) : STR("");
    const char *end = rest.n ? memmem(rest.p, rest.n, "</title>", 8) : NULL;
    rest.n = end ? (size_t)(end - rest.p) : 0;
    while (rest.n) {
        size_t skip = 1;
        char c = rest.p[0];
        for (size_t i = 0; i < sizeof entities / sizeof *entities; i++)
            if (str_starts(rest, str_of(entities[i].name))) {
                skip = strlen(entities[i].name);
                c = entities[i].c;
            }
        buf_ch(&title, c);
        rest = str_sub(rest, skip, SIZE_MAX);
    }
    if (str_is_utf8(buf_view(&title)))
        builder_title(b, buf_view(&title));
    buf_fini(&title);
}

/* The text between head and foot; only the first and the last mark count, as the text itself is not escaped. */
static struct str body_of(struct str in, struct str *head)
{
    static const char begin[] = "<pre>\n", end[] = "</pre>";
    const char *from = in.n ? memmem(in.p, in.n, begin, sizeof begin - 1) : NULL;
    *head = from ? (struct str){in.p, (size_t)(from - in.p)} : STR("");
    if (from)
        in = str_sub(in, (size_t)(from - in.p) + sizeof begin - 1, SIZE_MAX);
    for (size_t n = sizeof end - 1, i = in.n; i >= n && in.n - i < 64; i--)
        if (memcmp(in.p + i - n, end, n) == 0)
            return str_sub(in, 0, i - n);
    return in;
}

/* "• item", "– item": marks that stand for themselves at the beginning of a line. */
static bool bullet(struct str *line)
{
    static const char *const marks[] = {"\xe2\x80\xa2 ", "\xe2\x96\xaa ", "\xe2\x97\x8f ", "\xe2\x80\x93 ", "- ", "* "};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (str_starts(*line, str_of(marks[i]))) {
            *line = str_sub(*line, strlen(marks[i]), SIZE_MAX);
            return true;
        }
    return false;
}

static void put_page(struct builder *b, struct str page)
{
    builder_open(b, BLOCK_PARAGRAPH, 0);
    while (page.n) {
        struct str line = str_trim(str_cut(&page, '\n'));
        if (line.n == 0)
            builder_open(b, BLOCK_PARAGRAPH, 0);
        else if (bullet(&line))
            builder_open(b, BLOCK_LIST_ITEM, 0);
        builder_text(b, line);
        builder_text(b, STR(" "));
    }
    builder_close(b);
}

int extract_pdf_text(struct source *s, struct str in)
{
    struct str head, text = body_of(in, &head);
    if (!str_is_utf8(in))
        return refuse(s, "encoding", "the document's text is damaged");
    put_title(&s->builder, head);
    for (s->pages = 0; text.n; s->pages++) {
        s->builder.page = (int)s->pages + 1;
        put_page(&s->builder, str_cut(&text, '\f'));
    }
    if (s->builder.n)
        return 0;
    s->builder.page = 0;
    return refuse(s, "no_text",
                  "the PDF document has %lld page%s, but no text: it may be scanned; recognise its text first",
                  (long long)s->pages, s->pages == 1 ? "" : "s");
}
