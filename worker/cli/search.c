#include "worker/cli/commands.h"
#include "worker/cli/question.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SNIPPET_BYTES = 320, LEAD_BYTES = 80 };

struct options {
    struct question question;
    int json;
};

static void print_json(const struct options *o, const struct retrieve_result *r);
static void print_human(const struct retrieve_result *r);

static suspends int search(struct session *s, void *arg, struct err *e)
{
    struct options *o = arg;
    struct uuid ids[QUESTION_COLLECTIONS_MAX];
    struct retrieve_result result;
    struct retrieve_query q;
    if (question_query(&o->question, s, ids, &q, e))
        return -1;
    q.highlight = true;
    if (retrieve(&s->backends, &s->arena, &q, &result, e))
        return -1;
    if (o->json)
        print_json(o, &result);
    else
        print_human(&result);
    return result.n ? CLI_OK : CLI_FAILED;
}

int cli_search(int argc, char **argv, const struct config *cfg)
{
    struct options o = {.question.top_k = 5};
    const struct option own[] = {{"json", no_argument, &o.json, 1}, {NULL, 0, NULL, 0}};
    int code = question_read(&o.question, argc, argv, cfg, own, "what to search for");
    if (code == 0)
        code = session_run(argv[0], cfg, search, &o);
    question_fini(&o.question);
    return code;
}

static void print_json(const struct options *o, const struct retrieve_result *r)
{
    struct buf b = {0};
    struct json_out j = json_out(&b);
    jo_begin(&j, '{');
    jo_member(&j, "query"), jo_str(&j, buf_view(&o->question.text));
    jo_member(&j, "total"), jo_i64(&j, r->total);
    jo_member(&j, "truncated"), jo_bool(&j, r->truncated);
    jo_member(&j, "degraded"), jo_bool(&j, r->degraded != 0);
    jo_member(&j, "hits"), jo_begin(&j, '[');
    for (size_t i = 0; i < r->n; i++) {
        const struct retrieve_hit *h = &r->hit[i];
        jo_begin(&j, '{');
        jo_member(&j, "rank"), jo_i64(&j, h->rank);
        jo_member(&j, "score"), jo_f64(&j, h->score);
        jo_member(&j, "document_id"), jo_uuid(&j, &h->document.id);
        jo_member(&j, "chunk_id"), jo_uuid(&j, &h->chunk.id);
        jo_member(&j, "title"), jo_str(&j, question_title(&h->document));
        jo_member(&j, "filename"), jo_str(&j, h->document.filename);
        jo_member(&j, "external_id"), jo_str(&j, h->document.external_id);
        jo_member(&j, "text"), jo_str(&j, h->chunk.text);
        jo_member(&j, "highlights"), jo_begin(&j, '[');
        for (size_t k = 0; k < h->n_highlight; k++) {
            jo_begin(&j, '[');
            jo_i64(&j, (int64_t)h->highlight[k].from);
            jo_i64(&j, (int64_t)h->highlight[k].to);
            jo_end(&j, ']');
        }
        jo_end(&j, ']');
        jo_end(&j, '}');
    }
    jo_end(&j, ']');
    jo_end(&j, '}');
    buf_ch(&b, '\n');
    fwrite(b.p, 1, b.n, stdout);
    buf_fini(&b);
}

/* Moves back to the beginning of a character. */
static size_t char_start(struct str s, size_t i)
{
    while (i > 0 && i < s.n && ((unsigned char)s.p[i] & 0xc0) == 0x80)
        i--;
    return i;
}

/* A window of the chunk that begins a little before the first word found, words found in bold on a terminal. */
static void print_snippet(const struct retrieve_hit *h, bool bold)
{
    struct str t = h->chunk.text;
    size_t first = h->n_highlight ? h->highlight[0].from : 0;
    size_t from = first > LEAD_BYTES ? char_start(t, first - LEAD_BYTES) : 0;
    size_t to = from + SNIPPET_BYTES < t.n ? char_start(t, from + SNIPPET_BYTES) : t.n, at = from;
    fputs(from ? "   …" : "   ", stdout);
    for (size_t k = 0; k < h->n_highlight && h->highlight[k].to <= to; k++) {
        if (h->highlight[k].from < at)
            continue;
        session_print(stdout, str_sub(t, at, h->highlight[k].from - at));
        fputs(bold ? "\033[1m" : "", stdout);
        session_print(stdout, str_sub(t, h->highlight[k].from, h->highlight[k].to - h->highlight[k].from));
        fputs(bold ? "\033[0m" : "", stdout);
        at = h->highlight[k].to;
    }
    session_print(stdout, str_sub(t, at, to - at));
    fputs(to < t.n ? "…\n" : "\n", stdout);
}

static void print_human(const struct retrieve_result *r)
{
    bool bold = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    if (!r->n) {
        printf("nothing found\n");
        return;
    }
    for (size_t i = 0; i < r->n; i++) {
        const struct retrieve_hit *h = &r->hit[i];
        const struct store_document *d = &h->document;
        printf("%s%d. ", i ? "\n" : "", h->rank);
        session_print(stdout, question_title(d));
        printf("  (%.3f)\n   ", h->score);
        session_print(stdout, d->external_id.n ? d->external_id : d->filename);
        if (h->chunk.page)
            printf(", page %d", h->chunk.page);
        putchar('\n');
        print_snippet(h, bold);
    }
    printf("\n%zu of %lld passages%s\n", r->n, (long long)r->total, r->truncated ? ", more were not looked at" : "");
}
