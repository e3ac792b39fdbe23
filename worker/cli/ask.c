#include "worker/cli/commands.h"
#include "worker/cli/question.h"
#include "worker/core/answer.h"
#include "worker/io/json.h"
#include <stdio.h>

enum { QUOTE_BYTES = 160 };

struct options {
    struct question question;
    int json, extractive;
};

static void print_json(const struct options *o, const struct answer *a);
static void print_sources(const struct answer *a);

/* The words as they come. */
static suspends int on_delta(void *arg, struct str text, struct err *e)
{
    (void)arg;
    (void)e;
    fwrite(text.p, 1, text.n, stdout);
    fflush(stdout);
    return 0;
}

static suspends int on_sources(void *arg, const struct answer *a, struct err *e)
{
    (void)arg;
    (void)a;
    (void)e;
    return 0;
}

static suspends int on_citation(void *arg, size_t source, const struct answer_span *span, struct err *e)
{
    (void)arg;
    (void)source;
    (void)span;
    (void)e;
    return 0;
}

static suspends int ask(struct session *s, void *arg, struct err *e)
{
    static const struct answer_watch watch = {NULL, on_sources, on_delta, on_citation};
    struct options *o = arg;
    struct uuid ids[QUESTION_COLLECTIONS_MAX];
    struct retrieve_query search;
    struct answer a;
    if (question_query(&o->question, s, ids, &search, e))
        return -1;
    const struct answer_query q = {
        .question = search.query,
        .search = &search,
        .kind = o->extractive ? ANSWER_extractive : ANSWER_auto,
    };
    if (answer(&s->backends, &s->arena, &q, o->json ? NULL : &watch, &a, e))
        return -1;
    if (o->json)
        print_json(o, &a);
    else
        print_sources(&a);
    return a.grounded ? CLI_OK : CLI_FAILED;
}

int cli_ask(int argc, char **argv, const struct config *cfg)
{
    struct options o = {.question.top_k = cfg->limits_top_k < 10 ? (int)cfg->limits_top_k : 10};
    const struct option own[] = {
        {"extractive", no_argument, &o.extractive, 1}, {"json", no_argument, &o.json, 1}, {NULL, 0, NULL, 0}};
    int code = question_read(&o.question, argc, argv, cfg, own, "the question");
    if (code == 0)
        code = session_run(argv[0], cfg, ask, &o);
    question_fini(&o.question);
    return code;
}

static void print_json(const struct options *o, const struct answer *a)
{
    struct buf b = {0};
    struct json_out j = json_out(&b);
    jo_begin(&j, '{');
    jo_member(&j, "question"), jo_str(&j, buf_view(&o->question.text));
    jo_member(&j, "answer"), jo_str(&j, a->text);
    jo_member(&j, "grounded"), jo_bool(&j, a->grounded);
    jo_member(&j, "model"), a->generated ? jo_str(&j, a->model) : jo_null(&j);
    jo_member(&j, "citations"), jo_begin(&j, '[');
    for (size_t i = 0; i < a->n; i++) {
        const struct answer_source *s = &a->source[i];
        if (!s->n_span)
            continue;
        jo_begin(&j, '{');
        jo_member(&j, "n"), jo_i64(&j, (int64_t)i + 1);
        jo_member(&j, "document_id"), jo_uuid(&j, &s->hit->document.id);
        jo_member(&j, "chunk_id"), jo_uuid(&j, &s->hit->chunk.id);
        jo_member(&j, "title"), jo_str(&j, question_title(&s->hit->document));
        jo_member(&j, "filename"), jo_str(&j, s->hit->document.filename);
        jo_member(&j, "page"), s->hit->chunk.page ? jo_i64(&j, s->hit->chunk.page) : jo_null(&j);
        jo_member(&j, "quote"), jo_str(&j, s->quote);
        jo_member(&j, "char_start"), jo_i64(&j, s->char_start);
        jo_member(&j, "char_end"), jo_i64(&j, s->char_end);
        jo_end(&j, '}');
    }
    jo_end(&j, ']');
    jo_end(&j, '}');
    buf_ch(&b, '\n');
    fwrite(b.p, 1, b.n, stdout);
    buf_fini(&b);
}

static void print_sources(const struct answer *a)
{
    putchar('\n');
    for (size_t i = 0; i < a->n; i++) {
        const struct answer_source *s = &a->source[i];
        struct str quote = str_sub(s->quote, 0, QUOTE_BYTES);
        quote.n = str_utf8_valid_prefix(quote);
        if (!s->n_span)
            continue;
        printf("\n[%zu] ", i + 1);
        session_print(stdout, question_title(&s->hit->document));
        if (s->hit->chunk.page)
            printf(", page %d", s->hit->chunk.page);
        printf("\n    ");
        session_print(stdout, quote);
        puts(quote.n < s->quote.n ? "…" : "");
    }
    if (a->degraded & RETRIEVE_NO_LLM)
        printf("\n(the model did not answer: these are sentences of the documents)\n");
}
