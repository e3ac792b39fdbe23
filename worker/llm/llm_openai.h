/* Any server that speaks OpenAI's `POST /chat/completions`. */
#pragma once
#include "worker/llm/llm.h"

struct llm *llm_openai_open(const struct config *cfg, struct httpc *http);
