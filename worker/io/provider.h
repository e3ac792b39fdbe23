/* A model server seen by those who call it: JSON is posted to a path below its URL, with the key. Here is what is the same
 * for embeddings and for answers: how many calls run at once, retries with jitter that obey Retry-After, and a circuit
 * breaker, so that a server in trouble is neither hammered nor waited for. Owned by worker/embed and worker/llm. */
#pragma once
#include "common/scoreboard.h"
#include "worker/io/httpc.h"

struct provider;

/* Strings must outlive the provider. */
struct provider_settings {
    const char *what;         /* "embedding server": in messages */
    const char *url, *key;    /* without / at the end; "" = none */
    int64_t timeout_ms;       /* one try; of a stream: until its headers */
    int64_t idle_timeout_ms;  /* of a stream: between two pieces */
    int64_t retries;          /* further tries */
    int64_t retry_delay_ms;   /* before the second; doubles */
    int64_t concurrency;      /* calls at once, streams included */
    int64_t breaker_failures; /* in a row: then calls fail at once … */
    int64_t breaker_pause_ms; /* … for this long, and one that tries again decides */
    size_t max_reply;
    enum stat_id requests, retried, failed;
};
void provider_open(struct httpc *http, const struct provider_settings *s, struct provider **out);
void provider_close(struct provider *p); /* no call may be under way; NULL accepted */

/* What an answer is worth. OK and REFUSED mean that the server is well; REFUSED is for good: again would not help. */
enum provider_verdict { PROVIDER_OK, PROVIDER_REFUSED, PROVIDER_FAILED };
/* By the status alone; fills `e` unless OK. */
enum provider_verdict provider_judge(const struct provider *p, const struct httpc_reply *r, struct err *e);

struct provider_call {
    const char *path; /* "/embeddings" */
    struct str body;  /* JSON */
    /* Instead of provider_judge(), for whoever looks into the body: an answer that makes no sense has FAILED. */
    enum provider_verdict (*judge)(void *arg, const struct httpc_reply *r, struct err *e);
    void *arg;
};

/* 0: OK. Errors: ERR_NOT_READY (unreachable, overloaded, breaker open, key refused; with retry_after_ms where known),
 * ERR_PROVIDER (REFUSED, and what judge() says), ERR_DEADLINE and ERR_CANCELED of the fiber. `out` holds the last answer,
 * status 0 if there was none. */
suspends must_use int provider_post(struct provider *p, struct arena *a, const struct provider_call *call,
                                    struct httpc_reply *out, struct err *e);
/* The same for an answer that is read piece by piece. Every stream is ended by provider_stream_end(). */
suspends must_use int provider_stream(struct provider *p, struct arena *a, const struct provider_call *call,
                                      struct httpc_stream **s, struct httpc_reply *out, struct err *e);
void provider_stream_end(struct provider *p, struct httpc_stream *s, bool well);

/* -1 with the last error, when the last calls failed or the breaker is open. */
int provider_state(const struct provider *p, struct err *e);
