/* The analyzer: text → terms, the same for documents and queries, in every store. Words by Unicode letters, digits and
 * marks (utf8proc), folded (NFKC case fold, diacritics of Latin removed), stemmed by the collection's language
 * (libstemmer); runs of Han, Hiragana, Katakana, Hangul and Thai become overlapping bigrams. The index has their single
 * characters besides, for queries of one: longer ones are told apart by bigrams alone. */
#pragma once
#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"

enum { ANALYZE_TERM_MAX = 64 }; /* bytes; longer words are cut there (at a character) */

struct analyzer;
/* Name of a Snowball stemmer ("english", "german", …), its ISO 639-1 code, or "none". NULL with ERR_VALIDATION that
 * lists the names. */
struct analyzer *analyzer_new(struct str language, struct err *e);
void analyzer_free(struct analyzer *a);
bool analyzer_language_valid(struct str language);

struct term {
    struct str text; /* analysed; lives until the next call that fills the same buffer, see analyze() */
    size_t from, to; /* bytes in the source */
};
/* Calls `fn` for each term in order; `fn` returns false to stop. `term->text` is valid during the call only. */
void analyze(struct analyzer *a, struct str text, bool (*fn)(void *arg, const struct term *t), void *arg);

/* The same with what only the index has: what a term of a query may match in a document. */
void analyze_indexed(struct analyzer *a, struct str text, bool (*fn)(void *arg, const struct term *t), void *arg);

/* The terms of the index joined by single spaces, appended to `out`; returns how many. */
int analyze_terms(struct analyzer *a, struct str text, struct buf *out);
