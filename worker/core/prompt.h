/* What a model is told: how to answer, earlier turns, and the sources between marks that no document can forge. */
#pragma once
#include "worker/core/answer.h"

/* Roughly the tokens that a model counts in a text. */
int64_t prompt_tokens(struct str text);
/* Messages in the arena. Of `n` passages the first *used fit into ask.context_tokens; the first is cut if it does not. */
void prompt_make(struct arena *a, const struct config *cfg, const struct answer_query *q,
                 const struct retrieve_hit *hits, size_t n, size_t *used, struct llm_request *out);
