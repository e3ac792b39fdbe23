/* The sender of webhooks: one fiber takes what is due, each try has one of its own. */
#include "worker/core/webhook.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/io/httpc.h"
#include "worker/io/json.h"
#include <stdlib.h>

enum { ANSWER_MAX = 64 * 1024 };             /* bytes of an answer that are waited for: nobody looks at them */
enum { HEADERS = 32 };                       /* of a request */
static const int64_t LEASE_MARGIN_MS = 5000; /* beyond a try's own time, for saying how it ended */
static const int64_t DELAY_MAX_MS = 24 * 3600 * 1000LL;

struct webhook_sender {
    const struct backends *b;
    struct fiber *taker; /* NULL once it has ended */
    bool resting;        /* the taker waits, and holds nothing */
    bool wanted;         /* a place has become free since it last looked */
    struct list running; /* struct try */
    int n_running;
    bool draining, cancelled;
};

/* What was taken at once shares its memory. */
struct batch {
    struct arena a;
    int refs;
};

struct
try {
    struct list link;
    struct webhook_sender *s;
    struct batch *batch;
    const struct store_delivery *d;
    struct fiber *fiber;
    struct arena a;
    int status;             /* of the answer; 0: there was none */
    int64_t retry_after_ms; /* -1: it does not say */
    struct err why;         /* without an answer, or with one that says no */
};

static void batch_unref(struct batch *b)
{
    if (--b->refs > 0)
        return;
    arena_fini(&b->a);
    free(b);
}

/* ---- one try ---- */

/* Those of the webhook, then ours: they were checked when they were set. */
static int headers(struct try *t, struct str body, struct httpc_header *out, size_t *n, struct err *e)
{
    char id[UUID_TEXT_LEN];
    int64_t seconds = clock_wall_us() / 1000000;
    json_t *own, *value;
    const char *name;
    *n = 0;
    if (json_parse_object(&t->a, t->d->hook.headers, 4, &own, e))
        return -1;
    json_object_foreach (own, name, value)
        if (*n < HEADERS - 4)
            out[(*n)++] = (struct httpc_header){name, {json_string_value(value), json_string_length(value)}};
    uuid_text(&t->d->id, id);
    out[(*n)++] = (struct httpc_header){"Content-Type", STR("application/json")};
    out[(*n)++] = (struct httpc_header){"webhook-id", arena_dup(&t->a, (struct str){id, sizeof id})};
    out[(*n)++] = (struct httpc_header){"webhook-timestamp", arena_printf(&t->a, "%lld", (long long)seconds)};
    out[(*n)++] = (struct httpc_header){"webhook-signature",
                                        webhook_signature(&t->a, t->d->hook.secret, &t->d->id, seconds, body)};
    return 0;
}

/* Waits for the rest of an answer whose status is known, so that its sender can end in peace. */
static suspends void read_out(struct httpc_stream *stream)
{
    struct str piece;
    struct err e;
    size_t n = 0;
    do {
        if (httpc_stream_read(stream, &piece, &e))
            break;
        n += piece.n;
    } while (piece.n && n < ANSWER_MAX);
    httpc_stream_close(stream);
}

/* 0: a status of 2xx. The deadline of the fiber bounds it. */
static suspends int post(struct try *t)
{
    struct httpc_header header[HEADERS];
    struct httpc_stream *stream;
    struct httpc_reply reply;
    struct err *e = &t->why;
    struct httpc_request q = {.method = "POST",
                              .url = t->d->hook.url,
                              .header = header,
                              .body = webhook_body(&t->a, t->d),
                              .timeout_ms = t->s->b->cfg->webhooks_timeout,
                              .max_reply = SIZE_MAX, /* read_out() bounds it: a long answer is one, too */
                              .public_only = true};
    if (headers(t, q.body, header, &q.n_header, e) || httpc_stream_open(t->s->b->http, &t->a, &q, &stream, &reply, e))
        return -1;
    t->status = reply.status;
    t->retry_after_ms = reply.retry_after_ms;
    read_out(stream);
    if (reply.status >= 200 && reply.status < 300)
        return 0;
    if (reply.status >= 300 && reply.status < 400)
        return err_set(e, ERR_PROVIDER, "the receiver redirects (status %d): redirects are not followed", reply.status);
    return err_set(e, ERR_PROVIDER, "the receiver answered with status %d", reply.status);
}

/* Four times as long with each try, give or take a fifth, so that those who failed together do not come back together. */
static int64_t delay_ms(const struct try *t)
{
    int64_t ms = t->s->b->cfg->webhooks_retry_delay;
    for (int i = 1; i < t->d->tries && ms < DELAY_MAX_MS; i++)
        ms *= 4;
    ms = ms < DELAY_MAX_MS ? ms : DELAY_MAX_MS;
    ms += ms * (random() % 401 - 200) / 1000;
    return t->retry_after_ms > ms ? t->retry_after_ms : ms;
}

static struct store_delivery_end judge(const struct try *t, int rc)
{
    const struct config *cfg = t->s->b->cfg;
    struct store_delivery_end end = {
        .no = t->d->no, .tries = t->d->tries, .state = DELIVERY_delivered, .status = t->status, .error = STR("")};
    if (rc == 0)
        return end;
    end.error = str_of(t->why.msg);
    if (t->why.code == ERR_CANCELED) { /* the worker stops */
        end.patience_us = -1;
        end.state = DELIVERY_waiting;
        return end;
    }
    end.gone = t->status == 410;
    end.patience_us = cfg->webhooks_disable_after * 1000;
    end.state = end.gone || t->d->tries >= cfg->webhooks_max_tries ? DELIVERY_failed : DELIVERY_waiting;
    end.delay_us = delay_ms(t) * 1000;
    return end;
}

static void report(const struct try *t, const struct store_delivery_end *end, bool disabled)
{
    char id[UUID_TEXT_LEN], hook[UUID_TEXT_LEN], what[160];
    uuid_text(&t->d->id, id);
    uuid_text(&t->d->hook.id, hook);
    switch (end->state) {
    case DELIVERY_delivered: STAT_ADD(webhooks_delivered_total, 1); break;
    case DELIVERY_failed: STAT_ADD(webhooks_failed_total, 1); break;
    default: STAT_ADD(webhooks_retried_total, 1);
    }
    if (end->state == DELIVERY_delivered)
        return;
    snprintf(what, sizeof what, "webhook %.*s: delivery %.*s, try %d%s", UUID_TEXT_LEN, hook, UUID_TEXT_LEN, id,
             t->d->tries, end->state == DELIVERY_failed ? ", the last one" : "");
    log_err(end->state == DELIVERY_failed ? LOG_WARN : LOG_DEBUG, what, &t->why);
    if (disabled)
        log_warn("webhook %.*s is disabled: %s", UUID_TEXT_LEN, hook,
                 end->gone ? "its receiver wants no more" : "it has failed for webhooks.disable_after");
}

static void wake_taker(struct webhook_sender *s)
{
    s->wanted = true;
    if (s->resting && s->taker)
        fiber_wake(s->taker);
}

/* A try that was cut off, by a stop or the death of its worker, is not the last one; unless tries are what kills it. */
static suspends int try_once(struct try *t)
{
    if (t->d->tries > 2 * t->s->b->cfg->webhooks_max_tries)
        return err_set(&t->why, ERR_INTERNAL, "too many tries ended with their worker");
    fiber_set_deadline(t->fiber, clock_ns() + t->s->b->cfg->webhooks_timeout * MS);
    int rc = post(t);
    fiber_set_deadline(t->fiber, 0);
    return rc;
}

/* Whoever cannot say how it ended leaves it to the lease: then it is sent once more. */
suspends static void try_main(void *arg)
{
    struct try *t = arg;
    struct webhook_sender *s = t->s;
    struct err e = {0};
    bool disabled = false;
    t->fiber = fiber_self();
    struct store_delivery_end end = judge(t, try_once(t));
    fiber_shield(1);
    if (STORE_CALL(s->b->store, delivery_end, &end, &disabled, &e) && e.code != ERR_CONFLICT)
        log_err(LOG_WARN, "webhooks: how a delivery ended cannot be noted, it will be repeated", &e);
    fiber_shield(-1);
    report(t, &end, disabled);
    list_del(&t->link);
    s->n_running--;
    STAT_SUB(webhooks_sending, 1);
    wake_taker(s);
    batch_unref(t->batch);
    arena_fini(&t->a);
    free(t);
}

/* ---- taking ---- */

static suspends void start(struct webhook_sender *s, struct batch *batch, const struct store_delivery *d)
{
    struct try *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    *t = (struct try){.s = s, .batch = batch, .d = d, .retry_after_ms = -1};
    batch->refs++;
    s->n_running++;
    STAT_ADD(webhooks_sending, 1);
    list_add_tail(&s->running, &t->link);
    if (fiber_spawn("webhook", try_main, t))
        return;
    list_del(&t->link); /* too many fibers: its lease runs out */
    s->n_running--;
    STAT_SUB(webhooks_sending, 1);
    batch_unref(batch);
    free(t);
}

/* Takes what is due and there is room for. How many were taken, or -1. */
static suspends int take(struct webhook_sender *s, struct err *e)
{
    const struct config *cfg = s->b->cfg;
    int64_t each = cfg->webhooks_concurrency / 4;
    struct batch *batch = calloc(1, sizeof *batch);
    struct store_delivery *d;
    size_t n = 0;
    if (!batch)
        abort();
    batch->refs = 1;
    int rc = STORE_CALL(s->b->store, delivery_take, &batch->a, (cfg->webhooks_timeout + LEASE_MARGIN_MS) * 1000,
                        (int)cfg->webhooks_concurrency - s->n_running, each > 1 ? (int)each : 1, &d, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        start(s, batch, &d[i]);
    batch_unref(batch);
    return rc ? -1 : (int)n;
}

static suspends void rest(struct webhook_sender *s, bool full)
{
    if (s->wanted || s->draining)
        return;
    s->resting = true;
    if (!full)
        fiber_set_deadline(s->taker, clock_ns() + s->b->cfg->ingest_poll * MS);
    fiber_park(full ? "a delivery to end" : "deliveries");
    fiber_set_deadline(s->taker, 0);
    s->resting = false;
}

suspends static void taker_main(void *arg)
{
    struct webhook_sender *s = arg;
    bool down = false;
    s->taker = fiber_self();
    while (!s->draining) {
        struct err e = {0};
        s->wanted = false;
        bool full = s->n_running >= s->b->cfg->webhooks_concurrency;
        int n = full ? 0 : take(s, &e);
        if (n < 0 && !down)
            log_err(LOG_WARN, "webhooks: deliveries have to wait", &e);
        if (n >= 0 && down)
            log_info("webhooks: deliveries go on");
        down = n < 0;
        if (n <= 0)
            rest(s, full);
    }
    if (s->cancelled)
        webhook_sender_cancel(s); /* what was taken meanwhile */
    s->taker = NULL;
}

/* ---- life ---- */

struct webhook_sender *webhook_sender_start(const struct backends *b)
{
    struct webhook_sender *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->b = b;
    list_init(&s->running);
    if (!fiber_spawn("webhooks", taker_main, s)) {
        free(s);
        return NULL;
    }
    return s;
}

void webhook_sender_drain(struct webhook_sender *s)
{
    s->draining = true;
    wake_taker(s);
}

void webhook_sender_cancel(struct webhook_sender *s)
{
    s->cancelled = true;
    webhook_sender_drain(s);
    list_for_each_safe (it, &s->running) {
        struct try *t = list_entry(it, struct try, link);
        if (t->fiber)
            fiber_cancel(t->fiber);
    }
}

bool webhook_sender_idle(const struct webhook_sender *s)
{
    return s->draining && !s->taker && s->n_running == 0;
}

void webhook_sender_free(struct webhook_sender *s)
{
    /* A worker that must end at once leaves fibers behind; what they point to ends with the process. */
    if (s && !s->taker && s->n_running == 0)
        free(s);
}
