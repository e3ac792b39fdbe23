/* Extraction: the bytes of a file → text with structure. The type is found by content first, then by declared type and
 * name. Text of any charset that BOM, declaration or validity reveal becomes UTF-8, with NUL and other controls removed. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "worker/fiber/fiber.h"

enum block_kind { BLOCK_PARAGRAPH, BLOCK_HEADING, BLOCK_LIST_ITEM, BLOCK_CODE, BLOCK_TABLE_ROW };
struct block {
    enum block_kind kind;
    int level;       /* of a heading: 1–6 */
    int page;        /* 0 = none */
    size_t from, to; /* bytes in `text` */
};
struct extracted {
    struct str text; /* UTF-8; blocks separated by one blank line */
    struct block *block;
    size_t n;
    struct str title; /* "" = none found */
    const char *mime; /* canonical */
    int64_t pages;
};

/* `mime` and `filename` are what the client said. Errors: code ERR_VALIDATION, msg for the user; *code receives the word
 * for last_error.code: "unsupported_file", "invalid_file", "empty_file", "encoding". */
suspends must_use int extract(struct arena *a, struct str bytes, struct str mime, struct str filename,
                              struct extracted *out, const char **code, struct err *e);
/* "text/markdown" for "a.md"; NULL if the name says nothing. */
const char *extract_mime_of_name(struct str filename);
