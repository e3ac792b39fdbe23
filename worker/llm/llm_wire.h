/* What comes from `POST /chat/completions`: server-sent events in pieces of any size, or one JSON object from servers that
 * do not stream. Fed with bytes; gives the answer's text as it comes. */
#pragma once
#include "common/buf.h"
#include "worker/llm/llm.h"

enum { LLM_EVENT_MAX = 1 << 20 /* bytes of one event */ };

/* Zeroed memory is a reader at the beginning. */
struct llm_reader {
    bool whole;      /* one JSON object, no events */
    bool finished;   /* the server said that the answer is complete */
    struct buf line; /* the beginning of a line, or of the object */
    struct buf text; /* of the answer, not yet taken: whoever takes it sets n = 0 */
    struct llm_usage usage;
};
void llm_reader_init(struct llm_reader *r, struct str content_type);
void llm_reader_fini(struct llm_reader *r);
/* ERR_PROVIDER: nonsense, or an error that the server reports in the middle. */
must_use int llm_reader_feed(struct llm_reader *r, struct str piece, struct err *e);
/* At the end of the bytes. ERR_PROVIDER: it broke off. */
must_use int llm_reader_end(struct llm_reader *r, struct err *e);

struct llm_wire_request {
    const struct llm_message *message;
    size_t n;
    struct str model;
    int64_t max_tokens;
    bool completion_tokens; /* it is called max_completion_tokens */
    double temperature;     /* < 0: not sent */
};
void llm_wire_write(struct buf *out, const struct llm_wire_request *q);
