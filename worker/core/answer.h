/* Answers to questions, always with the places that they rest on. Without a model (llm.url none, or the model is away) an
 * answer consists of the sentences of the passages found that match best; with one, the model writes it from these
 * passages, which are handed to it as data, and names them by their numbers. Numbers that it makes up are taken out. */
#pragma once
#include "worker/core/retrieve.h"
#include "worker/llm/llm.h"

#define ANSWER_KINDS(X) X(auto) X(extractive) X(llm)
enum answer_kind { /* auto: by the model, if there is one and it answers */
#define X(name) ANSWER_##name,
                   ANSWER_KINDS(X)
#undef X
                       ANSWER_KIND_COUNT
};
bool answer_kind_parse(struct str s, enum answer_kind *out);

struct answer_query {
    struct str question;
    const struct retrieve_query *search;
    enum answer_kind kind;
    struct str model;                  /* "" = llm.model */
    int max_tokens;                    /* 0 = llm.max_tokens */
    const struct llm_message *history; /* earlier turns, oldest first */
    size_t n_history;
};

struct answer_span { /* characters of the answer */
    int64_t from, to;
};
struct answer_source { /* number i + 1 */
    const struct retrieve_hit *hit;
    struct str quote;             /* a piece of the chunk's text */
    int64_t char_start, char_end; /* of the quote, in the document's text */
    struct sha256 sha256;         /* of the quote */
    struct answer_span *span;     /* statements that name it */
    size_t n_span;
};
struct answer {
    struct str text;
    struct answer_source *source;
    size_t n;
    bool generated; /* by a model */
    bool grounded;  /* it rests on at least one of the sources */
    struct str model;
    struct llm_usage usage;
    unsigned degraded; /* set of enum retrieve_degraded */
    int64_t generation;
    bool truncated; /* as in struct retrieve_result */
};

/* Somebody who looks on while an answer comes into being. A function that returns -1 ends it. The sources come first; they
 * come a second time, others then, when a model turned out to be away before its first word. */
struct answer_watch {
    void *arg;
    suspends int (*sources)(void *arg, const struct answer *so_far, struct err *e);
    suspends int (*delta)(void *arg, struct str text, struct err *e);
    suspends int (*citation)(void *arg, size_t source, const struct answer_span *span, struct err *e);
};

/* `watch` may be NULL. Errors: those of retrieve(), and of llm.h when the model was asked for, or fails after its first
 * words. ERR_VALIDATION when it is asked for and none is configured. */
suspends must_use int answer(const struct backends *b, struct arena *a, const struct answer_query *q,
                             const struct answer_watch *watch, struct answer *out, struct err *e);
