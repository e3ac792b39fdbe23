#include "worker/api/query.h"
#include "worker/core/answer.h"
#include <stdio.h>

enum { QUESTION_MAX = RETRIEVE_QUERY_MAX, TURNS_MAX = 50, TURN_MAX = 32768, MAX_TOKENS_MAX = 131072, MODEL_MAX = 256 };

struct ask {
    struct request *r;
    struct query_fields f;
    struct answer_query q;
    bool stream, begun;
    int64_t start_ns;
};

/* ---- the request ---- */

static int read_history(struct request *r, json_t *turns, struct answer_query *q, struct err *e)
{
    char at[48];
    size_t n = json_array_size(turns);
    struct llm_message *m = arena_zalloc(&r->arena, (n + 1) * sizeof *m);
    for (size_t i = 0; i < n; i++) {
        struct str role = {0};
        const struct json_member table[] = {
            {"role", JSON_STR, true, false, 1, 16, &role, NULL},
            {"content", JSON_STR, true, false, 1, TURN_MAX, &m[i].content, NULL},
        };
        json_t *turn = json_array_get(turns, i);
        snprintf(at, sizeof at, "/history/%zu", i);
        if (!json_is_object(turn))
            return err_at(e, at, "A turn is an object: {\"role\":\"user\"|\"assistant\",\"content\":…}");
        if (json_members(&r->arena, turn, at, table, COUNT(table), false, e))
            return -1;
        m[i].role = str_eq(role, STR("user")) ? "user" : "assistant";
        if (!str_eqz(role, m[i].role)) {
            snprintf(at, sizeof at, "/history/%zu/role", i);
            return err_at(e, at, "'role' must be user or assistant");
        }
    }
    q->history = m;
    q->n_history = n;
    return 0;
}

suspends static int read_ask(struct ask *k, struct err *e)
{
    struct request *r = k->r;
    struct answer_query *q = &k->q;
    struct str kind = STR("auto");
    int64_t max_tokens = 0;
    json_t *history = NULL;
    const struct json_member more[] = {
        {"question", JSON_STR, true, false, 1, QUESTION_MAX, &k->f.question, NULL},
        {"stream", JSON_BOOLEAN, false, false, 0, 0, &k->stream, NULL},
        {"model", JSON_STR, false, true, 1, MODEL_MAX, &q->model, NULL},
        {"max_tokens", JSON_INT64, false, true, 1, MAX_TOKENS_MAX, &max_tokens, NULL},
        {"answer", JSON_STR, false, false, 0, 0, &kind, NULL},
        {"history", JSON_ARR, false, true, 0, TURNS_MAX, &history, NULL},
    };
    if (query_read(r, &k->f, more, COUNT(more), e))
        return -1;
    if (!answer_kind_parse(kind, &q->kind))
        return err_at(e, "/answer", "'answer' must be auto, extractive or llm");
    if (history && read_history(r, history, q, e))
        return -1;
    q->question = k->f.question;
    q->search = &k->f.query;
    q->max_tokens = (int)max_tokens;
    return 0;
}

/* ---- the reply ---- */

static void write_span(struct json_out *o, const struct answer_span *s)
{
    jo_begin(o, '[');
    jo_i64(o, s->from), jo_i64(o, s->to);
    jo_end(o, ']');
}

static void write_citation(struct json_out *o, size_t n, const struct answer_source *s)
{
    const struct store_document *d = &s->hit->document;
    char hex[SHA256_TEXT_LEN];
    jo_begin(o, '{');
    jo_member(o, "n"), jo_i64(o, (int64_t)n);
    jo_member(o, "chunk_id"), jo_uuid(o, &s->hit->chunk.id);
    jo_member(o, "document_id"), jo_uuid(o, &d->id);
    jo_member(o, "collection_id"), jo_uuid(o, &d->collection);
    jo_member(o, "filename"), d->filename.n ? jo_str(o, d->filename) : jo_null(o);
    jo_member(o, "title"), d->title.n ? jo_str(o, d->title) : jo_null(o);
    jo_member(o, "page"), s->hit->chunk.page ? jo_i64(o, s->hit->chunk.page) : jo_null(o);
    jo_member(o, "quote"), jo_str(o, s->quote);
    jo_member(o, "char_start"), jo_i64(o, s->char_start);
    jo_member(o, "char_end"), jo_i64(o, s->char_end);
    sha256_text(&s->sha256, hex);
    jo_member(o, "sha256"), jo_str(o, (struct str){hex, sizeof hex});
    jo_member(o, "answer_spans"), jo_begin(o, '[');
    for (size_t i = 0; i < s->n_span; i++)
        write_span(o, &s->span[i]);
    jo_end(o, ']');
    jo_end(o, '}');
}

/* All sources, or only those that the answer names. */
static void write_citations(struct json_out *o, const struct answer *a, bool named)
{
    jo_begin(o, '[');
    for (size_t i = 0; i < a->n; i++)
        if (!named || a->source[i].n_span)
            write_citation(o, i + 1, &a->source[i]);
    jo_end(o, ']');
}

static void write_count(struct json_out *o, int64_t n)
{
    n < 0 ? jo_null(o) : jo_i64(o, n);
}

static void write_usage(struct json_out *o, const struct llm_usage *u)
{
    bool both = u->prompt_tokens >= 0 && u->completion_tokens >= 0;
    jo_begin(o, '{');
    jo_member(o, "prompt_tokens"), write_count(o, u->prompt_tokens);
    jo_member(o, "completion_tokens"), write_count(o, u->completion_tokens);
    jo_member(o, "total_tokens"), write_count(o, both ? u->prompt_tokens + u->completion_tokens : -1);
    jo_end(o, '}');
}

static void write_answer(struct json_out *o, const struct ask *k, const struct answer *a)
{
    jo_begin(o, '{');
    jo_member(o, "answer"), jo_str(o, a->text);
    jo_member(o, "citations"), write_citations(o, a, true);
    jo_member(o, "grounded"), jo_bool(o, a->grounded);
    jo_member(o, "answered_by"), jo_strz(o, a->generated ? "llm" : "extractive");
    jo_member(o, "model"), a->generated ? jo_str(o, a->model) : jo_null(o);
    jo_member(o, "usage"), a->generated ? write_usage(o, &a->usage) : jo_null(o);
    jo_member(o, "generation"), jo_i64(o, a->generation);
    jo_member(o, "truncated"), jo_bool(o, a->truncated);
    jo_member(o, "degraded"), query_write_degraded(o, a->degraded);
    jo_member(o, "took_ms"), jo_f64(o, (double)((clock_ns() - k->start_ns) / 1000) / 1000);
    jo_end(o, '}');
}

/* ---- as a stream ---- */

/* Sends what `b` holds, and empties it. */
suspends static int send(struct ask *k, const char *event, struct buf *b, struct err *e)
{
    int rc = sse_send(k->r, event, NULL, buf_view(b), e);
    buf_fini(b);
    return rc;
}

suspends static int on_sources(void *arg, const struct answer *a, struct err *e)
{
    struct ask *k = arg;
    struct buf b = {0};
    if (!k->begun && sse_begin(k->r, e))
        return -1;
    k->begun = true;
    struct json_out o = json_out(&b);
    jo_begin(&o, '{');
    jo_member(&o, "request_id"), jo_strz(&o, k->r->id);
    jo_member(&o, "mode"), jo_strz(&o, retrieve_mode_name(k->f.query.mode));
    jo_member(&o, "answered_by"), jo_strz(&o, a->generated ? "llm" : "extractive");
    jo_member(&o, "model"), a->generated ? jo_str(&o, a->model) : jo_null(&o);
    jo_member(&o, "degraded"), query_write_degraded(&o, a->degraded);
    jo_end(&o, '}');
    if (send(k, "meta", &b, e))
        return -1;
    o = json_out(&b);
    write_citations(&o, a, false);
    return send(k, "citations", &b, e);
}

suspends static int on_delta(void *arg, struct str text, struct err *e)
{
    struct buf b = {0};
    struct json_out o = json_out(&b);
    jo_begin(&o, '{');
    jo_member(&o, "text"), jo_str(&o, text);
    jo_end(&o, '}');
    return send(arg, "delta", &b, e);
}

suspends static int on_citation(void *arg, size_t source, const struct answer_span *span, struct err *e)
{
    struct buf b = {0};
    struct json_out o = json_out(&b);
    jo_begin(&o, '{');
    jo_member(&o, "n"), jo_i64(&o, (int64_t)source + 1);
    jo_member(&o, "answer_span"), write_span(&o, span);
    jo_end(&o, '}');
    return send(arg, "citation", &b, e);
}

suspends static int end_stream(struct ask *k, const struct answer *a, struct err *e)
{
    struct buf b = {0};
    struct json_out o = json_out(&b);
    if (a->generated) {
        write_usage(&o, &a->usage);
        if (send(k, "usage", &b, e))
            return -1;
        o = json_out(&b);
    }
    write_answer(&o, k, a);
    return send(k, "done", &b, e);
}

/* The stream has begun, so its end is told in it. */
suspends static int break_stream(struct ask *k, struct err *e)
{
    struct buf b = {0};
    struct json_out o = json_out(&b);
    if (e->code == ERR_CANCELED)
        return -1;
    jo_begin(&o, '{');
    jo_member(&o, "status"), jo_i64(&o, err_status(e->code));
    jo_member(&o, "code"), jo_strz(&o, err_wire(e->code));
    jo_member(&o, "detail"), jo_strz(&o, e->msg);
    jo_member(&o, "request_id"), jo_strz(&o, k->r->id);
    jo_end(&o, '}');
    return send(k, "error", &b, e);
}

suspends static int stream(void *arg, struct err *e)
{
    struct ask *k = arg;
    struct answer a;
    const struct answer_watch watch = {k, on_sources, on_delta, on_citation};
    if (answer(&k->r->app->backends, &k->r->arena, &k->q, &watch, &a, e) == 0)
        return end_stream(k, &a, e);
    return k->begun ? break_stream(k, e) : -1;
}

suspends int api_ask(struct request *r, struct err *e)
{
    struct ask *k = arena_zalloc(&r->arena, sizeof *k);
    struct answer a;
    k->r = r;
    k->start_ns = clock_ns();
    if (read_ask(k, e))
        return -1;
    if (k->stream)
        return sse_run(r, stream, k, e);
    if (answer(&r->app->backends, &r->arena, &k->q, NULL, &a, e))
        return -1;
    struct json_out o = api_reply(r, 200);
    write_answer(&o, k, &a);
    return 0;
}
