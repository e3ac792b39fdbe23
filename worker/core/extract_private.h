/* What the files of the extract family share: the builder that collects blocks, and the guard that bounds what the
 * parsers of foreign libraries may take. The parsers run where they may not park: on a helper thread if the input is large. */
#pragma once
#include "common/buf.h"
#include "worker/core/extract.h"
#include <setjmp.h>

/* ---- the guard: memory, time and stack of cmark and gumbo ---- */
enum {
    GUARD_MEMORY = 512 << 20, /* bytes of parse tree */
    GUARD_SECONDS = 20,
    GUARD_STACK = 48 << 10, /* depth of a library's recursion; helper threads and fibers have more */
};
struct guard_block;
struct guard {
    jmp_buf out; /* where the parser is left when a bound is reached */
    struct guard_block *small, *large;
    char *at, *end;
    size_t total;
    unsigned calls;
    int64_t until_ns;
    const char *stack;
    const char *exceeded; /* what, for the message */
};
void guard_init(struct guard *g);  /* `stack` is the caller's */
void guard_fini(struct guard *g);  /* releases all that was allocated, in one sweep: trees need no walk to be freed */
void guard_clear(struct guard *g); /* the same, and the guard goes on; the time does, too */
/* These leave by longjmp to g->out when a bound is reached. */
void *guard_alloc(struct guard *g, size_t n);
void *guard_realloc(struct guard *g, void *p, size_t n);
void guard_release(struct guard *g, void *p);

/* ---- the builder ---- */
struct builder {
    struct buf text;
    struct block *block;
    size_t n, cap;
    enum block_kind kind; /* of the block being written */
    int level;
    bool started;     /* it has a character */
    size_t from;      /* where it starts in `text` */
    char gap;         /* ' ' or '\n': white space that is due before the next character */
    bool preserve;    /* white space as it is: code */
    struct buf title; /* "" = none found */
};
void builder_fini(struct builder *b);
void builder_open(struct builder *b, enum block_kind kind, int level); /* closes the one before */
void builder_text(struct builder *b, struct str s);                    /* UTF-8; controls are dropped */
void builder_newline(struct builder *b);                               /* inside a block */
void builder_close(struct builder *b);                                 /* empty blocks vanish */
void builder_title(struct builder *b, struct str s);                   /* the first one counts */

/* ---- the formats: `in` is valid UTF-8 ---- */
void extract_plain(struct builder *b, struct str in, bool code);
/* -1: a bound was reached; g->exceeded says which. */
int extract_markdown(struct builder *b, struct guard *g, struct str in);
int extract_html(struct builder *b, struct guard *g, struct str in);

/* ---- charsets ---- */
/* Makes UTF-8 of it. `declared` (may be "") comes from the client or the document. `binary` is set when it is no text. */
int text_decode(struct buf *out, struct str bytes, struct str declared, bool *binary, struct err *e);
/* What an HTML document says of itself in its first kilobytes; "" = nothing. */
struct str html_charset(struct str bytes);
