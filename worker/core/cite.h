/* The marks by which a text names its sources, [1], [2, 3] or [4-6], while it comes piece by piece. Sources that there
 * are not are taken out of it, mark and all; for the others it is noted which statement the mark stands behind. Marks in
 * code (between backquotes) are none. Owned by whoever writes an answer. */
#pragma once
#include "common/buf.h"
#include <stdbool.h>
#include <stdint.h>

enum { CITE_HELD_MAX = 64 }; /* bytes of a mark, and of the white space before it */

struct cite_span {
    size_t source;    /* 1 = the first */
    int64_t from, to; /* characters of the text */
};
struct cite {
    size_t sources;          /* how many there are */
    struct buf text;         /* all that was handed out */
    struct cite_span *span;  /* in order */
    size_t n, cap, invented; /* invented: marks of sources that there are not */
    /* where the text is */
    struct buf held;           /* what may become a mark */
    bool marking, code;        /* held begins a mark; inside backquotes */
    bool word, stopped, ended; /* since `from`: something was said, punctuation came last, it is at its end */
    int64_t chars;             /* of text */
    int64_t from, to;          /* the statement that is under way, or was just ended */
};

void cite_init(struct cite *c, size_t sources);
void cite_fini(struct cite *c);
/* Takes the next piece, valid UTF-8, and appends to `out` what can be shown. The end of the text is told by cite_end(). */
void cite_add(struct cite *c, struct str piece, struct buf *out);
void cite_end(struct cite *c, struct buf *out);
