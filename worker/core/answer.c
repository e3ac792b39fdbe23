#include "worker/core/answer.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/core/cite.h"
#include "worker/core/prompt.h"
#include "worker/core/quote.h"

enum {
    ANSWER_MAX = 1 << 20, /* bytes of an answer that a model may write */
    QUOTED_HITS_MAX = 20, /* passages whose sentences are looked at for an extractive answer */
};

/* A sentence is given beside the best one if it matches at least this well in proportion to it. */
static const double FAIR_SHARE = 0.4;

static const char no_answer[] = "Nothing was found that answers this question.";

static const char *const kind_names[] = {
#define X(name) #name,
    ANSWER_KINDS(X)
#undef X
};

bool answer_kind_parse(struct str s, enum answer_kind *out)
{
    for (int k = 0; k < ANSWER_KIND_COUNT; k++)
        if (str_eqz(s, kind_names[k])) {
            *out = (enum answer_kind)k;
            return true;
        }
    return false;
}

struct answering {
    const struct backends *b;
    struct arena *a;
    const struct answer_query *q;
    const struct answer_watch *watch;
    struct retrieve_result found;
    struct quote *quote; /* ranked */
    size_t n_quotes;
    struct answer out;
};

/* ---- sources ---- */

static int64_t chars_of(struct str s)
{
    int64_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

static struct answer_source source_of(const struct retrieve_hit *h, const struct quote *q)
{
    struct answer_source s = {.hit = h, .quote = str_sub(h->chunk.text, q->from, q->to - q->from)};
    s.char_start = h->chunk.char_start + chars_of(str_sub(h->chunk.text, 0, q->from));
    s.char_end = s.char_start + chars_of(s.quote);
    sha256_of(s.quote.p, s.quote.n, &s.sha256);
    return s;
}

static void add_span(struct arena *a, struct answer_source *s, struct answer_span span)
{
    struct answer_span *grown = arena_alloc(a, (s->n_span + 1) * sizeof *grown);
    if (s->n_span)
        memcpy(grown, s->span, s->n_span * sizeof *grown);
    grown[s->n_span++] = span;
    s->span = grown;
}

suspends static int tell_sources(struct answering *x, struct err *e)
{
    return x->watch ? x->watch->sources(x->watch->arg, &x->out, e) : 0;
}

suspends static int tell_text(struct answering *x, struct str text, struct err *e)
{
    return x->watch && text.n ? x->watch->delta(x->watch->arg, text, e) : 0;
}

suspends static int tell_citation(struct answering *x, size_t source, struct answer_span span, struct err *e)
{
    return x->watch ? x->watch->citation(x->watch->arg, source, &span, e) : 0;
}

/* ---- extractive ---- */

/* Chunks overlap: the same sentence may have been found twice. */
static bool repeats(const struct answer *out, struct str quote)
{
    for (size_t i = 0; i < out->n; i++)
        if (str_eq(out->source[i].quote, quote))
            return true;
    return false;
}

static void choose(struct answering *x)
{
    const struct retrieve_hit *hits = x->found.hit;
    size_t max = (size_t)x->b->cfg->ask_sentences, n = x->n_quotes;
    x->out.source = arena_zalloc(x->a, (max + 1) * sizeof *x->out.source);
    for (size_t i = 0; i < n && x->out.n < max; i++) {
        const struct quote *q = &x->quote[i];
        if (q->score <= 0 || q->score < x->quote[0].score * FAIR_SHARE)
            break;
        struct answer_source s = source_of(&hits[q->hit], q);
        if (!repeats(&x->out, s.quote))
            x->out.source[x->out.n++] = s;
    }
    if (x->out.n == 0 && x->found.n > 0) { /* found by its meaning: no word of the question is in it */
        struct quote first = n ? x->quote[0] : quote_of(NULL, 0, hits, 0);
        x->out.source[x->out.n++] = source_of(&hits[first.hit], &first);
    }
}

suspends static int extract(struct answering *x, struct err *e)
{
    struct buf b = {0};
    int64_t at = 0;
    choose(x);
    if (tell_sources(x, e))
        return -1;
    for (size_t i = 0; i < x->out.n; i++) {
        struct answer_source *s = &x->out.source[i];
        struct answer_span span = {.from = at + (i > 0)};
        size_t from = b.n;
        if (i)
            buf_ch(&b, ' ');
        buf_str(&b, s->quote);
        span.to = span.from + chars_of(s->quote);
        buf_printf(&b, " [%zu]", i + 1);
        at += chars_of(str_sub(buf_view(&b), from, b.n));
        add_span(x->a, s, span);
        struct str piece = arena_dup(x->a, str_sub(buf_view(&b), from, b.n));
        if (tell_text(x, piece, e) || tell_citation(x, i, span, e)) {
            buf_fini(&b);
            return -1;
        }
    }
    x->out.text = x->out.n ? arena_dup(x->a, buf_view(&b)) : str_of(no_answer);
    x->out.grounded = x->out.n > 0;
    buf_fini(&b);
    return x->out.n ? 0 : tell_text(x, x->out.text, e);
}

/* ---- by a model ---- */

struct writing {
    struct answering *x;
    struct cite cite;
    struct buf shown; /* of the piece in hand */
    size_t told;      /* spans that were told */
    bool begun;
    struct err *e;
};

/* What became certain since the last call. */
suspends static int tell_progress(struct writing *w)
{
    struct answering *x = w->x;
    if (tell_text(x, buf_view(&w->shown), w->e))
        return -1;
    w->shown.n = 0;
    for (; w->told < w->cite.n; w->told++) {
        const struct cite_span *s = &w->cite.span[w->told];
        struct answer_span span = {s->from, s->to};
        add_span(x->a, &x->out.source[s->source - 1], span);
        if (tell_citation(x, s->source - 1, span, w->e))
            return -1;
    }
    return 0;
}

suspends static int take_piece(void *arg, struct str text)
{
    struct writing *w = arg;
    if (w->cite.text.n + text.n > ANSWER_MAX)
        return err_set(w->e, ERR_PROVIDER, "The model does not come to an end");
    w->begun = true;
    cite_add(&w->cite, text, &w->shown);
    return tell_progress(w);
}

suspends static int generate(struct answering *x, bool *begun, struct err *e)
{
    struct llm *m = x->b->llm;
    struct llm_request request;
    struct err watcher = {0};
    struct writing w = {.x = x, .e = &watcher};
    struct llm_usage usage = {-1, -1};
    size_t used;
    prompt_make(x->a, x->b->cfg, x->q, x->found.hit, x->found.n, &used, &request);
    x->out.source = arena_zalloc(x->a, (used + 1) * sizeof *x->out.source);
    for (size_t i = 0; i < used; i++) {
        struct quote q = quote_of(x->quote, x->n_quotes, x->found.hit, i);
        x->out.source[i] = source_of(&x->found.hit[i], &q);
    }
    x->out.n = used;
    x->out.generated = true;
    x->out.model = x->q->model.n ? x->q->model : m->model;
    if (tell_sources(x, e))
        return -1;
    cite_init(&w.cite, used);
    int rc = m->ops->chat(m, x->a, &request, take_piece, &w, &usage, e);
    if (rc && watcher.code)
        *e = watcher;
    if (rc == 0) {
        w.e = e;
        cite_end(&w.cite, &w.shown);
        rc = tell_progress(&w);
    }
    x->out.text = arena_dup(x->a, buf_view(&w.cite.text));
    x->out.usage = usage;
    x->out.grounded = w.cite.n > 0;
    *begun = w.begun;
    buf_fini(&w.shown);
    cite_fini(&w.cite);
    return rc;
}

/* ---- both ---- */

static bool gone(const struct err *e)
{
    return e->code == ERR_CANCELED || fiber_check();
}

suspends int answer(const struct backends *b, struct arena *a, const struct answer_query *q,
                    const struct answer_watch *watch, struct answer *out, struct err *e)
{
    struct answering x = {.b = b, .a = a, .q = q, .watch = watch};
    bool model = q->kind != ANSWER_extractive && b->llm, begun = false;
    if (q->kind == ANSWER_llm && !b->llm)
        return err_at(e, "/answer",
                      "There is no model to write answers: configure llm.url, or ask with answer=extractive");
    if (q->search->mode == RETRIEVE_metadata)
        return err_at(e, "/mode", "A question needs a mode that searches: hybrid, lexical or vector");
    if (retrieve(b, a, q->search, &x.found, e))
        return -1;
    x.out = (struct answer){.degraded = x.found.degraded,
                            .generation = x.found.generation,
                            .truncated = x.found.truncated,
                            .usage = {-1, -1}};
    size_t n = x.found.n;
    if (!model && n > QUOTED_HITS_MAX)
        n = QUOTED_HITS_MAX;
    if (quotes_rank(a, b->cfg, q->question, x.found.hit, n, &x.quote, &x.n_quotes, e))
        return -1;
    int rc = model && n ? generate(&x, &begun, e) : extract(&x, e);
    if (rc && model && n && !begun && !gone(e) && q->kind == ANSWER_auto) {
        log_err(LOG_DEBUG, "answer without a model", e);
        x.out = (struct answer){.degraded = x.out.degraded | RETRIEVE_NO_LLM,
                                .generation = x.out.generation,
                                .truncated = x.out.truncated,
                                .usage = {-1, -1}};
        rc = extract(&x, e);
    }
    if (rc)
        return -1;
    STAT_ADD(answers_degraded_total, (x.out.degraded & RETRIEVE_NO_LLM) != 0);
    if (x.out.generated)
        STAT_ADD(answers_generated_total, 1);
    else
        STAT_ADD(answers_extractive_total, 1);
    *out = x.out;
    return 0;
}
