/* What the files of the extract family share: types, the builder that collects blocks, the guard that bounds what the
 * parsers of foreign libraries may take, and the readers of the formats. They run where they may not park. */
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
    int page; /* where what is written stands; 0 = none */
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

/* ---- types ---- */
enum format {
    FORMAT_TEXT,
    FORMAT_CODE,
    FORMAT_MARKDOWN,
    FORMAT_HTML,
    FORMAT_CSV,
    FORMAT_JSON,
    FORMAT_XML,
    FORMAT_EML,
    FORMAT_RTF, /* from here on the content tells for sure */
    FORMAT_PDF,
    FORMAT_DOCX,
    FORMAT_PPTX,
    FORMAT_XLSX,
    FORMAT_ODF,
    FORMAT_EPUB,
    FORMAT_OTHER, /* known, and not read */
};
struct type {
    const char *mime;
    enum format format;
    const char *extensions; /* space separated */
};
const struct type *type_by_mime(struct str mime); /* NULL: it says nothing */
const struct type *type_by_name(struct str filename);
const struct type *type_of_format(enum format f);  /* its canonical one */
const struct type *type_by_content(struct str in); /* formats that carry a mark; not those in ZIP containers */
/* "a PNG image": content that no format covers. NULL: it has no mark. */
const char *type_foreign(struct str bytes);
bool begins_as_html(struct str utf8);
bool begins_as_xml(struct str utf8);
bool begins_as_eml(struct str bytes, bool declared);

/* ---- one document on its way through a reader ---- */
struct source {
    struct str bytes;
    struct str charset;      /* declared; "" = not */
    const struct type *type; /* declared or by name; then what it was found to be. NULL: unknown */
    struct builder builder;
    int64_t pages;
    bool fault;       /* application/x-ragd-fault */
    const char *code; /* of a refusal: a literal for last_error.code */
    struct err err;
};
void extract_prepare(struct source *s, struct str bytes, struct str mime, struct str filename); /* of a zeroed one */
/* Whether extract_run() may call the C library's converters of charsets. */
bool extract_converts(const struct source *s);
void extract_run(struct source *s); /* s->code tells how it ended */
/* Refuses the document; the reason is for its owner. Returns -1. */
int refuse(struct source *s, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- the formats: 0, or -1 after refuse(). `in` is valid UTF-8 ---- */
void extract_plain(struct builder *b, struct str in, bool code);
void extract_csv(struct source *s, struct str in, bool tabs);
int extract_json(struct source *s, struct str in); /* 1: it is none */
int extract_xml(struct source *s, struct str in);  /* 1: it is not well-formed */
int extract_eml(struct source *s, struct str raw); /* bytes: each part has its charset */
int extract_rtf(struct source *s, struct str raw);
int extract_pdf_text(struct source *s, struct str in); /* as pdftotext prints it */
int extract_container(struct source *s);               /* anything in a ZIP archive: decides by its entries */
/* -1: a bound was reached; g->exceeded says which. */
int extract_markdown(struct builder *b, struct guard *g, struct str in);
int extract_html(struct builder *b, struct guard *g, struct str in);
/* The same with a guard of its own: a document within a document. */
int extract_html_part(struct source *s, struct str in);

struct zip;
int extract_docx(struct source *s, struct zip *z);
int extract_pptx(struct source *s, struct zip *z);
int extract_xlsx(struct source *s, struct zip *z);
int extract_odf(struct source *s, struct zip *z);
int extract_epub(struct source *s, struct zip *z);

/* ---- tables whose first row may name the columns: "Name: Ada | City: London" ---- */
struct table {
    struct builder *b;
    struct buf row, header; /* cells, each ended by NUL */
    size_t cells, headers;
    bool numbers; /* a cell of this row is no name of a column */
    bool begun;
};
void table_begin(struct table *t, struct builder *b);
void table_cell(struct table *t, struct str text);
void table_row_end(struct table *t); /* the cells so far are a row; empty ones vanish */
void table_end(struct table *t);

/* ---- charsets ---- */
/* Makes UTF-8 of it. `declared` (may be "") comes from the client or the document. `binary` is set when it is no text. */
int text_decode(struct buf *out, struct str bytes, struct str declared, bool *binary, struct err *e);
/* Charsets of seven bits that shift between sets of characters, declared or told by their marks. NULL: it is none. */
struct shifted;
const struct shifted *shifted_of(struct str bytes, struct str declared);
/* The same text in eight bits, and the charset it is then in. */
void shifted_bytes(struct buf *out, const struct shifted *f, struct str s);
struct str shifted_charset(const struct shifted *f);
void text_put_utf8(struct buf *out, uint32_t c); /* one character; U+FFFD for what is none */
/* What an HTML or XML document says of itself in its first kilobytes; "" = nothing. */
struct str html_charset(struct str bytes);
