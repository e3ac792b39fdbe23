/* Answers in words: any server that speaks OpenAI's `POST /chat/completions` (llm_openai.c), or none: then answers are
 * extractive. Text of documents goes to it as data between marks, and it gets no tools. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"

struct llm;
struct httpc;

struct llm_message {
    const char *role; /* "system", "user", "assistant" */
    struct str content;
};
struct llm_request {
    const struct llm_message *message;
    size_t n;
    struct str model; /* "" = llm.model */
    int max_tokens;   /* 0 = llm.max_tokens */
};
struct llm_usage {
    int64_t prompt_tokens, completion_tokens; /* -1: the server did not say */
};
/* Called on the fiber for each piece of the answer; may suspend. Not 0: stop, the reader is gone. */
typedef suspends int llm_piece(void *arg, struct str text);

struct llm_ops {
    const char *name;
    /* Errors: ERR_NOT_READY (unreachable, overloaded, key refused, breaker open), ERR_PROVIDER (nonsense, refused, or the
     * answer broke off: pieces may have been handed out), ERR_DEADLINE and ERR_CANCELED (of the fiber, or by `piece`). */
    suspends int (*chat)(struct llm *, struct arena *, const struct llm_request *, llm_piece *piece, void *arg,
                         struct llm_usage *usage, struct err *);
    int (*state)(struct llm *, struct err *); /* what the last calls met */
    void (*free)(struct llm *);
};
struct llm {
    const struct llm_ops *ops;
    struct str model;
};

/* *out = NULL for `none:`. */
must_use int llm_open(const struct config *cfg, struct httpc *http, struct llm **out, struct err *e);
void llm_close(struct llm *m); /* NULL accepted */
