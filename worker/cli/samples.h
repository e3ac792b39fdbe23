/* The sample corpus of `ragd seed`: worker/cli/samples/, built into the binary by embed_samples.sh. */
#pragma once

struct sample {
    const char *name; /* "handbook.md" */
    const char *text;
};
extern const struct sample samples[]; /* ends with a zeroed entry */
