#include "worker/embed/embed_openai.h"

int embed_open(const struct config *cfg, struct httpc *http, struct embedder **out, struct err *e)
{
    (void)e;
    *out = strcmp(cfg->embedding_url, "none:") == 0 ? NULL : embed_openai_open(cfg, http);
    return 0;
}

void embed_close(struct embedder *m)
{
    if (m)
        m->ops->free(m);
}
