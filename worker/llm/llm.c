#include "worker/llm/llm_openai.h"

int llm_open(const struct config *cfg, struct httpc *http, struct llm **out, struct err *e)
{
    (void)e;
    *out = strcmp(cfg->llm_url, "none:") == 0 ? NULL : llm_openai_open(cfg, http);
    return 0;
}

void llm_close(struct llm *m)
{
    if (m)
        m->ops->free(m);
}
