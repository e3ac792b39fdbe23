/* Any server that speaks OpenAI's `POST /embeddings`. */
#pragma once
#include "worker/embed/embed.h"

struct embedder *embed_openai_open(const struct config *cfg, struct httpc *http);
