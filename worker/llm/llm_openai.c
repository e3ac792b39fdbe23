#include "worker/llm/llm_openai.h"
#include "common/list.h"
#include "worker/io/provider.h"
#include "worker/llm/llm_wire.h"
#include <stdlib.h>

enum { ANSWER_MAX = 16 << 20 };

struct openai {
    struct llm base;
    const struct config *cfg;
    struct provider *server;
};

static suspends int hand_out(struct llm_reader *r, llm_piece *piece, void *arg, struct err *e)
{
    struct str text = buf_view(&r->text);
    r->text.n = 0;
    if (text.n && piece(arg, text))
        return err_set(e, ERR_CANCELED, "nobody reads the answer any more");
    return 0;
}

/* *well: the server did what it should; whoever stops listening is not its fault. */
static suspends int read_answer(struct httpc_stream *s, struct llm_reader *r, llm_piece *piece, void *arg, bool *well,
                                struct err *e)
{
    for (;;) {
        struct str bytes;
        *well = false;
        if (httpc_stream_read(s, &bytes, e)) {
            *well = e->code == ERR_CANCELED || (e->code == ERR_DEADLINE && fiber_check() < 0);
            if (e->code == ERR_NOT_READY || (e->code == ERR_DEADLINE && !*well))
                return err_set(e, ERR_PROVIDER, "the answer of the model broke off");
            return -1;
        }
        if (bytes.n ? llm_reader_feed(r, bytes, e) : llm_reader_end(r, e))
            return -1;
        *well = true;
        if (hand_out(r, piece, arg, e))
            return -1;
        if (!bytes.n)
            return 0;
    }
}

static suspends int openai_chat(struct llm *base, struct arena *a, const struct llm_request *q, llm_piece *piece,
                                void *arg, struct llm_usage *usage, struct err *e)
{
    struct openai *m = list_entry(base, struct openai, base);
    struct buf body = {0};
    struct httpc_stream *s = NULL;
    struct httpc_reply reply;
    struct llm_reader r;
    llm_wire_write(&body,
                   &(struct llm_wire_request){.message = q->message,
                                              .n = q->n,
                                              .model = q->model.n ? q->model : m->base.model,
                                              .max_tokens = q->max_tokens ? q->max_tokens : m->cfg->llm_max_tokens,
                                              .completion_tokens = m->cfg->llm_limit_parameter == 1,
                                              .temperature = m->cfg->llm_temperature});
    struct provider_call call = {.path = "/chat/completions", .body = buf_view(&body)};
    int rc = provider_stream(m->server, a, &call, &s, &reply, e);
    if (rc == 0) {
        bool well;
        llm_reader_init(&r, reply.content_type);
        rc = read_answer(s, &r, piece, arg, &well, e);
        provider_stream_end(m->server, s, well);
        STAT_ADD(llm_prompt_tokens_total, r.usage.prompt_tokens > 0 ? (uint64_t)r.usage.prompt_tokens : 0);
        STAT_ADD(llm_completion_tokens_total, r.usage.completion_tokens > 0 ? (uint64_t)r.usage.completion_tokens : 0);
        STAT_ADD(llm_errors_total, rc != 0 && !well);
        *usage = r.usage;
        llm_reader_fini(&r);
    }
    buf_fini(&body);
    return rc;
}

static int openai_state(struct llm *base, struct err *e)
{
    return provider_state(list_entry(base, struct openai, base)->server, e);
}

static void openai_free(struct llm *base)
{
    struct openai *m = list_entry(base, struct openai, base);
    provider_close(m->server);
    free(m);
}

struct llm *llm_openai_open(const struct config *cfg, struct httpc *http)
{
    static const struct llm_ops ops = {"openai", openai_chat, openai_state, openai_free};
    struct provider_settings s = {.what = "answering model",
                                  .url = cfg->llm_url,
                                  .key = cfg->llm_api_key,
                                  .timeout_ms = cfg->llm_timeout,
                                  .idle_timeout_ms = cfg->llm_idle_timeout,
                                  .retries = cfg->llm_retries,
                                  .retry_delay_ms = cfg->llm_retry_delay,
                                  .concurrency = cfg->llm_concurrency,
                                  .breaker_failures = cfg->llm_breaker_failures,
                                  .breaker_pause_ms = cfg->llm_breaker_pause,
                                  .max_reply = ANSWER_MAX,
                                  .requests = STAT_llm_requests_total,
                                  .retried = STAT_llm_retries_total,
                                  .failed = STAT_llm_errors_total};
    struct openai *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->base = (struct llm){&ops, str_of(cfg->llm_model)};
    m->cfg = cfg;
    provider_open(http, &s, &m->server);
    return &m->base;
}
